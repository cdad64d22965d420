"""Pages in a real browser: names that are pieces of a program do nothing, whichever page shows them."""
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from nfad import text
from nfad.alerts import Alerts, Needed, alerts_html
from nfad.account import LoadReport
from nfad.files import FilesReport
from nfad.overview import Overview
from nfad.reasons import explain_records
from nfad.report import explained_html, html_page, save_report
from nfad.shapley import Background

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here")
PAYLOADS = ["<img src=x onerror=owned()>", "</script><script>owned()</script>", '"onmouseover="owned()', "'onclick='owned()", "javascript:owned()",
            '<a href="javascript:owned()">open</a>', "</title><script>owned()</script>", "</style><svg onload=owned()>", "</td></table><details open ontoggle=owned()>",
            "<iframe srcdoc='<script>parent.owned()</script>'></iframe>", "$\\href{javascript:owned()}{x}$", "<base href=//x>", "&lt;img src=x onerror=owned()&gt;",
            "\x1b[2J\u202e<img/src/onerror=owned()>\u200b", "$\\frac"]
PROBE = "<script>window.owned = () => { document.documentElement.dataset.owned = 'yes' }</script>"
TOUCH = """<script>window.onload = () => { for (const e of document.querySelectorAll('*'))
  for (const kind of ['mouseover', 'click', 'focus', 'toggle']) e.dispatchEvent(new MouseEvent(kind, {bubbles: true, cancelable: true}));
  document.documentElement.dataset.touched = 'yes' }</script>"""


def seen_by_browser(page, folder, policy=False):
    "The page after a browser has run it, with every element touched; without the page's policy, which would hide what is not escaped."
    if not policy: page = PROBE + re.sub("<meta http-equiv[^>]*>", "", page) + TOUCH
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000",
             "--dump-dom", path.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout


def explained(names):
    "Two alerts whose features, words and records have these names."
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(np.abs(rng.normal(size=(40, len(names)))), columns=names)
    b = Background(lambda X: np.square(X).sum(axis=1), frame)
    frame.index = (names * 40)[:40]
    return explain_records(b, frame * 9, b.scores, 0.05, 2, k=4)


def list_of_alerts(names, explanation):
    table = pd.DataFrame({"rank": [1, 2], "file": names[:2], "row": [3, 4], names[2]: names[3:5], "anomaly_score": [9.0, 8.0], "p_value": [0.01, 0.02], "is_anomaly": [True, False],
                          "passes_fdr": [True, False], "surprising": names[5:7], f"attribution: {names[7]}": [1.0, 2.0]})
    few = Needed(*[1] * len(Needed._fields))
    return Alerts(table, 10, 1, 0.01, 0.1, 2, 5.0, 100, few, {names[0]: 3}, "0", explanation)


def pages(folder):
    "Every page and every part of a notebook that shows names, by its own name."
    several = explained(PAYLOADS)
    save_report(several, folder, PAYLOADS[6])
    files = pd.DataFrame({"file": PAYLOADS, "status": "failed", "rows": 1, "bad": 0, "alarms": 0, "seconds": 0.1, "error": PAYLOADS[::-1]})
    columns = pd.DataFrame({"column": PAYLOADS, "role": "feature", "unit": PAYLOADS, "missing": 0.1, "values": PAYLOADS, "use": "number", "why": PAYLOADS[::-1]})
    counts = dict.fromkeys(PAYLOADS, 3)
    reasons = dict(zip(PAYLOADS, PAYLOADS[::-1], strict=True))
    load = [LoadReport(name, (name,), name, 9, counts, 5, reasons, counts, 1, "0", tuple(PAYLOADS)) for name in PAYLOADS]
    return {
        "report.html": (folder / "report.html").read_text(encoding="utf-8"),
        "alerts.html": "".join(alerts_html(list_of_alerts(PAYLOADS[i:] + PAYLOADS[:i], several), PAYLOADS[i], PAYLOADS[-i]) for i in range(len(PAYLOADS))),
        "explained": explained_html(several),
        "load": "".join(report._repr_html_() for report in load),
        "files": FilesReport(files, pd.DataFrame({"drifted": []}), counts, "".join(PAYLOADS), 0.1, "".join(PAYLOADS), reasons, tuple(PAYLOADS))._repr_html_(),
        "overview": Overview(PAYLOADS[0], reasons, reasons, PAYLOADS[1], 9, counts, columns, PAYLOADS[2], counts, tuple(PAYLOADS))._repr_html_()}


def law_pages_do_nothing(folder):
    "All pages at once: what they hold is shown, and nothing in them is run."
    found = pages(folder)
    shown = seen_by_browser("".join(f"<div id='{name}'>{page}</div>" for name, page in found.items()), folder)
    assert 'data-touched="yes"' in shown
    assert "data-owned" not in shown
    assert shown.count("onerror=owned()") > 50  # as text
    for name, page in found.items(): assert not re.search("[\x00-\x08\x0b-\x1f\u200b\u202e]", page), name


@in_browser
def test_law_pages_do_nothing(tmp_path): law_pages_do_nothing(tmp_path)


@in_browser
@pytest.mark.parametrize("place", ["report.html_text", "account.html_text", "overview.html_table"])
def test_law_pages_do_nothing_catches_one_forgotten_place(tmp_path, monkeypatch, place):
    plain = str if place.endswith("text") else lambda frame, **formats: frame.to_html(escape=False, **formats)
    monkeypatch.setattr(f"nfad.{place}", plain)
    with pytest.raises(AssertionError): law_pages_do_nothing(tmp_path)


@in_browser
def test_a_page_runs_nothing_even_if_something_was_forgotten(tmp_path):
    "The second wall: the page's own policy."
    bad = "<img src=x onerror=\"document.documentElement.dataset.owned = 'yes'\"><script>document.documentElement.dataset.owned = 'yes'</script>"
    page = html_page("alerts", bad)
    assert "data-owned" not in seen_by_browser(page, tmp_path, policy=True)
    assert "data-owned" in seen_by_browser(re.sub("<meta http-equiv[^>]*>", "", page), tmp_path, policy=True)


def test_a_picture_shows_names_as_they_are(tmp_path):
    "Two signs of mathematics in a name ended the drawing."
    assert save_report(explained(["$\\frac", "a$b", "$\\undefined$"]), tmp_path)[1].is_file()


def test_a_picture_with_mathematics_fails_without_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr("nfad.report.figure_text", text.printable)
    with pytest.raises(ValueError): save_report(explained(["$\\frac", "a$b", "$\\undefined$"]), tmp_path)
