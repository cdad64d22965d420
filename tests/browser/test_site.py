"""The site as a reader sees it, in a real browser: light and dark, on a phone, searched, without a request to another host.

`make site` builds it first; it is built here where Sphinx is installed and runs/site is not newer than what it is made from.
Links, sizes and pages are checked without a browser.
"""
import re
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "runs" / "site" / "html"
SHOWN = ["index", "notebooks", "card", "notebooks/01_packets", "notebooks/02a_flow", "notebooks/04c_reasons", "notebooks/results", "notebooks/story",
         "notebooks/10c_page", "api/index", "api/detector", "group-detection", "commands", "data"]  # looked at in the browser


# ---------------------------------------------------------------- the site

def newest(folder: Path, pattern: str) -> float: return max((path.stat().st_mtime for path in folder.glob(pattern)), default=0.0)


@pytest.fixture(scope="session")
def site() -> Path:
    "The folder of the built site."
    sources = max(newest(ROOT, "nbs/*.ipynb"), newest(ROOT, "nbs/site/*"), newest(ROOT, "nfad/*.py"), newest(ROOT, "*.md"))
    if not (SITE / "index.html").is_file() or (SITE / "index.html").stat().st_mtime < sources:
        pytest.importorskip("sphinx_book_theme", reason="Sphinx is not installed (make site)")
        pytest.importorskip("myst_nb", reason="myst-nb is not installed (make site)")
        run = subprocess.run([sys.executable, ROOT / "nbs" / "site" / "build.py"], capture_output=True, text=True)
        if "npm" in run.stderr and run.returncode: pytest.skip(run.stderr.strip().splitlines()[-1])
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return SITE


class Page(HTMLParser):
    "Links and anchors of a page, and what it loads."

    def __init__(self, text: str):
        super().__init__()
        self.links, self.anchors, self.loads = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get("id"): self.anchors.add(given["id"])
        if tag == "a" and given.get("href"): self.links.append(given["href"])
        if tag in ("img", "script", "iframe", "source") and given.get("src"): self.loads.append(given["src"])
        if tag == "link" and given.get("href") and given.get("rel") not in ("canonical", "search", "next", "prev", "index"): self.loads.append(given["href"])


def dead_links(site: Path) -> list[str]:
    "Links and loads of all pages that lead to no file or no place in it."
    pages = {path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    dead = []
    for name, page in pages.items():
        for link in [*page.links, *page.loads]:
            if re.match(r"(https?|mailto|data|javascript):|//", link): continue
            target, anchor = urldefrag(link.partition("?")[0] if "#" not in link else link)
            path = (site / name).parent / unquote(target.partition("?")[0]) if target else site / name
            found = path.resolve()
            if not found.is_file(): dead.append(f"{name}: {link}")
            elif anchor and found.suffix == ".html" and unquote(anchor) not in pages[found.relative_to(site.resolve()).as_posix()].anchors: dead.append(f"{name}: {link}")
    return dead


def foreign_loads(site: Path) -> list[str]:
    "What pages and styles would load from elsewhere."
    found = [f"{path.name}: {load}" for path in site.rglob("*.html") for load in Page(path.read_text(encoding="utf-8")).loads if re.match(r"(https?:)?//", load)]
    return found + [f"{path.name}: {url}" for path in site.rglob("*.css") for url in re.findall(r"url\(['\"]?((?:https?:)?//[^)'\"]*)", path.read_text(encoding="utf-8"))]


def test_no_link_is_dead(site): assert dead_links(site) == []


def test_nothing_is_loaded_from_elsewhere(site): assert foreign_loads(site) == []


def test_the_site_is_small(site): assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) <= 40e6


def test_every_notebook_leads_to_its_module_and_back(site):
    for path in sorted((ROOT / "nbs").glob("[0-9][0-9]*_*.ipynb")):
        module = path.stem.partition("_")[2]
        links = {place: Page((site / place).read_text(encoding="utf-8")).links for place in (f"notebooks/{path.stem}.html", f"api/{module}.html", f"code/{module}.html")}
        assert {f"../api/{module}.html", f"../code/{module}.html"} <= set(links[f"notebooks/{path.stem}.html"])
        assert {f"../notebooks/{path.stem}.html", f"../code/{module}.html"} <= set(links[f"api/{module}.html"])
        assert {f"../notebooks/{path.stem}.html", f"../api/{module}.html"} <= set(links[f"code/{module}.html"])


def test_comments_beside_arguments_are_shown(site):
    page = (site / "api" / "score.html").read_text(encoding="utf-8")
    for part in ("threshold_at_fpr", "allowed false-alarm rate", "returns", "Lowest observed threshold"): assert part in page, part


def test_faults_are_caught(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#here">x</a><a href="c.html">x</a><a id="top" href="#top">x</a><img src="d.png"><script src="https://x.org/s.js"></script>')
    (tmp_path / "b.html").write_text('<p id="there">')
    (tmp_path / "s.css").write_text("@font-face { src: url('//x.org/f.woff2') }")
    assert dead_links(tmp_path) == ["a.html: b.html#here", "a.html: c.html", "a.html: d.png"]
    assert foreign_loads(tmp_path) == ["a.html: https://x.org/s.js", "s.css: //x.org/f.woff2"]


# ---------------------------------------------------------------- in a browser

@pytest.fixture(scope="session")
def address(site):
    "Where the site is served."
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *ignored: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def reader(chromium): return chromium  # one browser for all files: a second Playwright in a process is refused


@pytest.fixture(params=["light", "dark"])
def opened(request, reader, address):
    "Opens a page in one color scheme; whatever was opened asked no other host and wrote no error."
    context, foreign, errors = reader.new_context(color_scheme=request.param), [], []
    page = context.new_page()
    page.on("request", lambda asked: None if asked.url.startswith((address, "data:", "blob:")) else foreign.append(asked.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda answer: errors.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)

    def open_page(name: str, width: int = 1300, height: int = 900):
        page.set_viewport_size({"width": width, "height": height})
        page.goto(f"{address}/{name}.html")
        page.wait_for_load_state("networkidle")
        return page
    open_page.scheme = request.param
    yield open_page
    context.close()
    assert foreign == [] and errors == []


WIDTH = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - document.documentElement.clientWidth"


@pytest.mark.parametrize("width", [390, 820, 1300])
def test_no_page_scrolls_sideways(opened, width):
    wide = {name: opened(name, width).evaluate(WIDTH) for name in SHOWN}
    assert {name: pixels for name, pixels in wide.items() if pixels > 1} == {}


CODE = "[...document.querySelectorAll('div.cell_input pre')].filter(pre => pre.scrollWidth > pre.clientWidth + 1).map(pre => pre.innerText.slice(0, 60))"


def test_code_is_read_without_scrolling(opened):
    widest = {name: opened(name).evaluate(CODE) for name in SHOWN if name.startswith("notebooks/")}
    assert {name: code for name, code in widest.items() if code} == {}, "120 characters fit at 1300 pixels"


def test_formulas_and_colors(opened):
    page = opened("notebooks/02a_flow")
    page.wait_for_selector("mjx-container svg")
    assert page.evaluate("document.querySelectorAll('mjx-merror, [data-mjx-error]').length") == 0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every(part => part < 90)")
    assert dark == (opened.scheme == "dark")


def test_search_finds_a_word(opened, address):
    page = opened("search")
    page.goto(f"{address}/search.html?q=counterfactual")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert page.locator("#search-results li a").count() >= 3


def test_a_reader_goes_from_the_start_to_the_code(opened):
    page = opened("index")
    page.click("text=How a flow gives a density")
    page.click("p.where a:has-text('nfad.flow')")
    page.click("a:has-text('[source]') >> nth=0")
    page.wait_for_selector("pre span:target")
    assert "code/flow.html#line-" in page.url
    page.click("nav a >> nth=0")
    assert page.url.endswith("notebooks/02a_flow.html")


@pytest.fixture(scope="module")
def axe_source() -> str:
    "axe-core, which `make test-browser` brings."
    places = [ROOT / ".cache" / "browser" / "node_modules" / "axe-core" / "axe.min.js"]
    found = next((place for place in places if place.is_file()), None)
    if found is None: pytest.skip("axe-core is not here (make test-browser, with npm)")
    return found.read_text(encoding="utf-8")


FAULTS = """async () => (await axe.run(document, {resultTypes: ['violations'], preload: false})).violations
    .filter(fault => ['serious', 'critical'].includes(fault.impact)).map(fault => `${fault.id}: ${fault.nodes.length} x ${fault.nodes[0].html.slice(0, 160)}`)"""


def test_no_serious_fault_for_those_who_read_otherwise(opened, axe_source):
    faults = {}
    for name in (*SHOWN, "code/detector"):
        page = opened(name)
        page.evaluate(axe_source)
        faults[name] = page.evaluate(FAULTS)
    assert {name: found for name, found in faults.items() if found} == {}
