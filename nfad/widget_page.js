// Puts the desk on the page of `nfad triage`; alone, since a page that trusts no inline script needs a file.
import { serve } from "./widget.js";

serve(document.querySelector("main"));
