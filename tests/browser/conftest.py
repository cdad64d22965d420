"""A real browser for the tests of pages: Debian's chromium, led by Playwright. `make test-browser` brings what they need."""
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from nfad.outputs import write_table

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / ".cache" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
HOSTILE = ["<img src=x onerror=\"window.ran=1\">", "<script>window.ran=1</script>", "\"><svg onload=window.ran=1>", "a\u202eb\x1b[2J\x00\n", "javascript:window.ran=1"]


@pytest.fixture(scope="session")
def chromium():
    "A browser, or why there is none."
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make test-browser)")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path: pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    "Opens pages. Whatever they did, nothing was asked of another host, no script failed, and no hostile name ran."
    contexts, hosts, errors, pages = [], [], [], []

    def open_page(url: str, wait: str = "", **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 820}} | options)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: hosts.append(urlsplit(request.url)))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        if wait: page.wait_for_selector(wait)
        contexts.append(context)
        pages.append(page)
        return page
    open_page.errors = errors
    yield open_page
    ran = [page.evaluate("window.ran") for page in pages if not page.is_closed()]
    for context in contexts: context.close()
    assert not any(ran)
    foreign = {place.netloc for place in hosts if place.scheme not in ("file", "data", "blob", "about") and place.hostname not in ("127.0.0.1", "localhost")}
    assert not foreign and not errors


@pytest.fixture(scope="session")
def axe():
    "Serious faults of a page for people who see or move otherwise, by axe-core."
    if not AXE.is_file(): pytest.skip("axe-core is not here (make test-browser, with npm)")
    source = AXE.read_text(encoding="utf-8")

    def faults(page) -> list[str]:
        page.evaluate(source)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        return [f"{fault['id']}: {fault['help']}: {node['html'][:120]}" for fault in found if fault["impact"] in ("serious", "critical") for node in fault["nodes"][:3]]
    return faults


def alerts_table(n: int, n_incidents: int, hosts=("10.0.0.5", "10.0.0.7", "10.0.0.9"), d: int = 12) -> pd.DataFrame:
    "Alerts as `nfad explain` writes them; incident 1 is the strongest."
    rng = np.random.default_rng(0)
    names = [f"Feature {j}" for j in range(d)]
    incident = np.sort(rng.permutation(np.arange(n) % max(n_incidents, 1))) + 1
    values = pd.DataFrame(rng.normal(size=(n, d)).round(3), columns=names)
    parts = [values.add_prefix("value: "), (values * 2).add_prefix("attribution: "), (values * 0 - 1).add_prefix("typical low: "), (values * 0 + 1).add_prefix("typical high: ")]
    reason = [f"Flow IAT Max = {k} s; benign records like this one have 0 to 1 s" if k % 2 else f"Total Fwd Packets = {k}; benign records have 2 to 9" for k in incident]
    table = pd.DataFrame({"rank": np.arange(1, n + 1), "file": "night.csv", "row": np.arange(n), "Source IP": rng.choice(hosts, n), "Destination IP": rng.choice(hosts, n),
                          "Destination Port": 443, "Timestamp": pd.Timestamp("2026-11-28") + pd.to_timedelta(incident * 60, unit="s"), "anomaly_score": np.sort(rng.gamma(3, size=n))[::-1],
                          "p_value": 0.001, "is_anomaly": True, "passes_fdr": True, "first_reason": reason, "incident": incident, "reason: 1": reason, "reason: 2": "second"})
    return pd.concat([table, *parts], axis=1)


@pytest.fixture
def alerts(tmp_path):
    "Makes a folder of alerts."
    def make(n: int = 60, n_incidents: int = 12, **about) -> Path:
        write_table(alerts_table(n, n_incidents, **about), tmp_path / "alerts" / "alerts.parquet", "alerts", model="m1")
        return tmp_path / "alerts"
    return make
