"""Laws of nfad.page: one file, every name text, a card for each incident."""
import re

import numpy as np
import pandas as pd
import pytest

from nfad.incidents import find_incidents
from nfad.page import incident_lines, incidents_html, list_html, talkers_html, timeline_svg
from nfad.report import html_page

EVIL = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"'><b>", "a\u202eb"]


def night(n=40, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"src_ip": rng.choice(EVIL, n), "dst_ip": rng.choice(EVIL, n), "dst_port": EVIL[0], "proto": EVIL[1],
                          "ts": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 9000, n), "s"),
                          "anomaly_score": np.sort(rng.gamma(3, size=n))[::-1], "p_value": 0.01, "is_anomaly": True,
                          "first_reason": rng.choice(EVIL, n)})
    return table, find_incidents(table, rng.normal(size=(n, 3)) * 9, rng.normal(size=(90, 3)), 900, 300)


def law_escaped(make):
    "Nothing from the data is markup; a card and a line for each incident, every link has its card."
    table, found = night()
    page = html_page("night", make(table, found))
    assert not re.search("<script|<img|<b>[^<]|\u202e", page.replace("<div class=\"bar\"><b></b>", ""))
    ids = set(re.findall(r'<section class="incident" id="(incident-\d+)">', page))
    assert len(ids) == len(found.table) and {link[1:] for link in re.findall(r'href="(#incident-\d+)"', page)} == {f"{name}"[0:] for name in ids}


def test_law_escaped(): law_escaped(incidents_html)


def test_law_escaped_catches_plain_names(monkeypatch):
    monkeypatch.setattr("nfad.page.html_text", str)
    with pytest.raises(AssertionError): law_escaped(incidents_html)


def test_nothing_from_outside():
    page = html_page("night", incidents_html(*night()))
    assert not any(word in page for word in ("http:", "https:", "<link", "@import", "url("))
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_without_times_and_hosts():
    table, found = night()
    bare = table[["anomaly_score", "p_value", "is_anomaly"]]
    rows = find_incidents(bare, np.random.default_rng(0).normal(size=(40, 3)), np.zeros((1, 3)), 900, 300)
    assert timeline_svg(rows.table) == "" == talkers_html(bare, rows.of)
    assert incidents_html(bare, rows).count("<section") == len(rows.table)


def test_a_thousand_incidents_fit():
    row = night()[1].table.iloc[:1]
    many = pd.concat([row] * 1000, ignore_index=True).assign(incident=np.arange(1, 1001), representative=0)
    table, found = night(40)
    page = incidents_html(table, found._replace(table=many))
    assert page.count("<section") == 1000 and len(page) < 2_000_000 and timeline_svg(many).count("<rect") == 30


def test_times_in_order():
    "An earlier incident begins farther to the left."
    table, found = night()
    left = [float(x) for x in re.findall(r'<rect x="([\d.]+)"', timeline_svg(found.table))]
    first = found.table["first"].head(30)
    assert np.array_equal(np.argsort(left, kind="stable"), np.argsort(first.to_numpy(), kind="stable")) and min(left) == 60
    assert list_html(found, [""] * len(found.table)).count("<tr>") == len(found.table) + 1


def test_incidents_in_lines():
    table, found = night()
    table = table.assign(rank=range(1, len(table) + 1))
    lines = incident_lines(table, found, most=3).split("\n")
    assert len(lines) == 5 and lines[-1] == f"{len(found.table) - 3:,} more incidents" and "\u202e" not in "".join(lines)
    ranks = [int(line.split()[2]) for line in lines[1:4]]
    assert [found.of[rank - 1] for rank in ranks] == [1, 2, 3]
    for rank, line in zip(ranks, lines[1:4]):  # score and p-value are of the record that is named
        assert np.isclose(float(line.split()[3]), table["anomaly_score"].iloc[rank - 1], rtol=1e-3) and float(line.split()[4]) == 0.01
    assert incident_lines(table, find_incidents(table.head(0), np.zeros((0, 3)), np.zeros((9, 3)), 9, 9)) == ""
