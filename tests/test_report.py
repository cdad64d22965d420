"""Laws of nfad.report: pages that need nothing from outside, numbers for people."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dependent import background, benign
from nfad.explain import plant
from nfad.reasons import explain_records
from nfad.report import explained_html, html_page, plot_attributions, readable, save_report, sections_html
from nfad.shapley import Background


@pytest.fixture(scope="module")
def explained(background, benign):
    strange = plant(benign[:10], benign, "global", 2, size=3).records
    return explain_records(background, strange, background.scores, 0.05, 3)


def law_self_contained(page):
    "A page loads nothing and runs nothing."
    assert not any(word in page for word in ("http:", "https:", "<script", "<link", "@import", "src=\"/", "url("))


def test_report_is_whole_and_self_contained(explained, tmp_path):
    table, page = save_report(explained, tmp_path, "a <b> title")
    text = page.read_text(encoding="utf-8")
    law_self_contained(text)
    assert text.count("<style>") == 1
    assert "a &lt;b&gt; title" in text and text.count("<section>") == 3 == text.count("<svg")
    assert pd.read_parquet(table).equals(explained.frame) and explained.frame["is_anomaly"].all()
    assert table.name == "explanation.parquet" and page.name == "report.html"


def test_law_self_contained_catches_a_font():
    with pytest.raises(AssertionError): law_self_contained(html_page("alerts", "<style>@import 'fonts.css'</style>"))


def test_a_part_of_the_alerts_says_how_many_there_are(explained):
    few = explained_html(explained, most=2)
    assert sections_html(explained, most=2) in few and "<style>" in few and "<style>" not in sections_html(explained)
    assert few.count("<section>") == 2 and "3 alerts in all" in few and "in all" not in explained_html(explained)


def law_verdicts(sections, explained):
    "Given verdicts stand on the cards, one each, instead of the threshold's."
    page = sections(explained, name="Rank", verdicts=["odd <i>", "even", "odd"])
    assert [page.count(f", {word}</h2>") for word in ("odd &lt;i&gt;", "even", "odd", "an anomaly")] == [1, 1, 1, 0]
    assert page.count("<h2>Rank ") == 3 and "<h2>Alert " not in page
    with pytest.raises(ValueError): sections(explained, verdicts=["only one"])


def test_law_verdicts(explained): law_verdicts(sections_html, explained)


def test_law_verdicts_catches_cards_that_keep_their_own(explained):
    with pytest.raises(AssertionError): law_verdicts(lambda explained, **_: sections_html(explained), explained)


def law_escaped(make):
    "Names of features, records and titles are text, whatever they hold."
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(np.abs(rng.normal(size=(40, 3))), columns=["<script>", "b", "c"]).add_suffix(" <i>")
    frame.index = ["<img>"] * 40
    b = Background(lambda X: np.square(X).sum(axis=1), frame)
    page = make("alerts <i>", sections_html(explain_records(b, frame * 9, b.scores, 0.05, 1, k=4)))
    assert "<script>" not in page and "<img>" not in page and " <i>" not in page and "&lt;script&gt;" in page


def test_law_escaped(): law_escaped(html_page)


def test_law_escaped_catches_a_plain_title():
    with pytest.raises(AssertionError): law_escaped(lambda title, body: f"<h1>{title}</h1>{body}")


def test_heat_map_shows_the_largest(explained):
    import matplotlib.pyplot as plt
    ax = plt.subplots()[1]
    assert plot_attributions(explained.attributions, 2, ax) is ax
    shown = {label.get_text() for label in ax.get_xticklabels()}
    largest = np.argsort(-np.abs(explained.attributions.values).mean(axis=0))[:2]
    assert shown == {explained.attributions.names[j] for j in largest}
    plt.close("all")


@pytest.mark.parametrize("value, unit, text", [
    (2_500_000, "us", "2.5 s"), (3, "packets", "3 packets"), (0, "us", "0 us"), (1500, "bytes", "1.5 kB"),
    (-1, "", "-1"), (7, "flag", "7"), (1e12, "bytes/s", "1e+12 bytes/s"), (-4e6, "bytes", "-4 MB")])
def test_readable(value, unit, text): assert readable(value, unit) == text


def law_missing_cells(make, background, benign):
    "An empty cell is shown as missing, not as the number that fills it, in the reason and in the table."
    empty = pd.DataFrame(np.zeros((1, 7), bool), columns=benign.columns).assign(b=True)
    records = benign[:1].assign(b=98_765.0)
    page = make(explain_records(background, records, background.scores, missing=empty))
    assert "98,765" not in page and page.count("missing") == 2
    page = make(explain_records(background, records, background.scores))
    assert "98,765" in page and "missing" not in page


def test_law_missing_cells(background, benign): law_missing_cells(lambda told: sections_html(told).split("normal (score")[0] + sections_html(told).split("</p><table>")[1], background, benign)


def test_law_missing_cells_catches_fills(background, benign):
    def with_fills(told): return sections_html(replace(told, frame=told.frame.assign(is_missing=False)))
    with pytest.raises(AssertionError): law_missing_cells(with_fills, background, benign)
