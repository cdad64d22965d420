"""The page alerts.html in a browser: a thousand incidents, dark and light, on paper, without scripts."""
import time

import numpy as np
import pytest

from conftest import HOSTILE, alerts_table
from nfad.incidents import Incidents, summarize_incidents, known_columns
from nfad.page import incidents_html
from nfad.report import html_page


def written(folder, n=1000, **about):
    "A page of n incidents."
    table = alerts_table(2 * n, n, **about)
    told = summarize_incidents(table, table["incident"].to_numpy(), known_columns(list(table))).rename_axis("incident").reset_index()
    told = told.assign(evidence=2.0, p_value=0.5, passes_fdr=True, spread=1.0, representative=np.arange(n) * 2)
    path = folder / "alerts.html"
    path.write_text(html_page("Alerts", incidents_html(table, Incidents(told, table["incident"].to_numpy()))), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_thousand_incidents_open_and_scroll(tmp_path, visit, scheme):
    url = written(tmp_path)
    begin = time.perf_counter()
    page = visit(url, "#incident-1000", color_scheme=scheme, java_script_enabled=False)
    page.locator("#incident-1000").scroll_into_view_if_needed()
    assert time.perf_counter() - begin < 30  # a page that hangs takes minutes


def test_links_lead_to_cards(tmp_path, visit):
    page = visit(written(tmp_path, 50), "#incident-1")
    page.locator("a[href='#incident-40']").last.click()
    assert page.url.endswith("#incident-40") and page.evaluate("document.querySelector('#incident-40').getBoundingClientRect().top < innerHeight")


def test_on_paper(tmp_path, visit):
    page = visit(written(tmp_path, 30), "#incident-1")
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_axe(tmp_path, visit, axe, scheme): assert axe(visit(written(tmp_path, 20), "#incident-1", color_scheme=scheme)) == []


def test_hostile_names_do_not_run(tmp_path, visit):
    page = visit(written(tmp_path, 20, hosts=HOSTILE), "#incident-1")
    assert page.locator("img, script").count() == 0 and "<img src=x" in page.inner_text("body")
