"""Laws of nfad.text: what is hidden is spelled out, what is seen stays, and no sign of HTML is obeyed."""
import html
import sys
import unicodedata
from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib import pyplot

from nfad import account, metrics, rankings, windows
from nfad.text import html_text, printable, printable_lines, terminal_table

HIDDEN = ["\x00", "\x07", "\x08", "\x1b[31m", "\x7f", "\x9b2J", "\u200b", "\u200e", "\u202e", "\u2066", "\ufeff", "\u2028", "\u2029", "\xad", "\U000e0041",
          "\ud800", "\r", "\x0b", "\x85"]


def law_nothing_hidden(show):
    "No sign of a shown text is a control, format, separator or private one; letters of all scripts stay."
    for sign in map(chr, [*range(0x3100), *range(0x3100, sys.maxunicode + 1, 61), *range(0xD7F0, 0xE010), *range(0xFDD0, 0x10000)]):
        shown = show(f"a{sign}b")
        assert not any(unicodedata.category(c)[0] in "CZ" and c != " " for c in shown), hex(ord(sign))
        if sign.isprintable(): assert shown == f"a{sign}b"
    for text in HIDDEN: assert "\\" in show(f"x{text}y")


def test_law_nothing_hidden(): law_nothing_hidden(printable)


@pytest.mark.parametrize("broken", [str, lambda text: "".join(c for c in text if ord(c) >= 32), ascii])
def test_law_nothing_hidden_catches(broken):
    with pytest.raises(AssertionError): law_nothing_hidden(broken)


def test_lines_stay_lines():
    for text in HIDDEN: assert printable_lines(f"one\n{text}\ttwo\n") == f"one\n{printable(text)}\ttwo\n"


def law_html(make):
    "A browser reads what was written, and finds no tag and no end of a quote."
    for text in ("<img src=x onerror=alert(1)>", "</script><script>", '" onmouseover="a', "' onclick='a", "a&b", "a\x00<b"):
        page = make(text)
        assert not set("<>\"'\x00") & set(page) and html.unescape(page) == printable(text)


def test_law_html(): law_html(html_text)


@pytest.mark.parametrize("broken", [printable, lambda text: html.escape(text, quote=False), lambda text: html.escape(html.escape(text))])
def test_law_html_catches(broken):
    with pytest.raises(AssertionError): law_html(broken)


def law_pictures_show_names(draw):
    "A name with two signs of mathematics and no mathematics between them is drawn as it is."
    ax = pyplot.subplots()[1]
    try:
        draw("$\\frac {$", ax)
        ax.get_figure().canvas.draw()
        assert any("frac {" in label.get_text() for label in [*ax.get_yticklabels(), *ax.get_xticklabels()])
    finally: pyplot.close("all")


PICTURES = {
    "classes": lambda name, ax: account.plot_classes({"benign": 5, name: 3}, ax),
    "found": lambda name, ax: metrics.plot_classes_found(pd.DataFrame({"auroc": 0.9, "tpr_at_fpr_0.01": 0.5, "n": 3}, index=[name]), ax),
    "windows": lambda name, ax: windows.plot_windows(pd.DataFrame({"found alone": [0.2], "found in its window": [0.9]}, index=[name]), ax),
    "ranking": lambda name, ax: rankings.plot_ranking(SimpleNamespace(table=pd.DataFrame({"value": [1.0], "low": [0.5], "high": [2.0]}, index=[name]), k=1, null=0.1), ax=ax)}


@pytest.mark.parametrize("kind", PICTURES)
def test_law_pictures_show_names(kind): law_pictures_show_names(PICTURES[kind])


def test_law_pictures_show_names_catches_mathematics():
    with pytest.raises(ValueError): law_pictures_show_names(lambda name, ax: ax.set(yticks=[0], yticklabels=[name]))


# ---------------------------------------------------------------- for a terminal
def law_terminal(show):
    "No line is wider than the terminal, none is lost, and none holds signs that a terminal obeys."
    texts = ["short", "word " * 60, "\x1b[2J" + "x" * 300, "", "two\nlines"]
    table = pd.DataFrame({"rank": range(1, 6), "file": ["a.csv", "b\n.csv", "c", "d", "e"], "what": texts})
    lines = show(table, 80).split("\n")
    assert len(lines) == 6 and all(len(line) <= 80 for line in lines)
    assert not any(sign in line for line in lines for sign in "\x1b\r\t") and lines[2].endswith("...") and "short" in lines[1] and "xxxx" in lines[3]


def test_terminal(): law_terminal(terminal_table)


@pytest.mark.parametrize("broken", [lambda t, width: t.to_string(index=False), lambda t, width: t.drop(columns="what").to_string(index=False),
                                    lambda t, width: "\n".join(t["what"])])
def test_the_law_catches_other_tables(broken):
    with pytest.raises(AssertionError): law_terminal(broken)
