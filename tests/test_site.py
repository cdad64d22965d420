"""What the site is made from, without Sphinx: links that fit, documentation from comments, code with numbered lines."""
import ast
import re
import sys
from pathlib import Path

import pytest

from notebooks import NBS, ROOT

sys.path.insert(0, str(NBS / "site"))
import build  # noqa: E402


def test_links_fit_the_place_of_a_page():
    text = "[a](01_packets.ipynb#run), [b](../SECURITY.md), [c](../figures/detectors.csv), [d](../tests/rules.py), [e](https://x.org), [f](#here), `[g](h.md)`"
    changed = build.with_links(text, "nbs/02a_flow.ipynb", "notebooks/02a_flow.ipynb")
    assert changed == ("[a](01_packets.ipynb#run), [b](../security.md), [c](../figures/detectors.csv), [d](" + build.BLOB + "/tests/rules.py), "
                       "[e](https://x.org), [f](#here), `[g](h.md)`")
    assert build.with_links("[a](../01_packets.ipynb), [b](../../README.md)", "nbs/site/card.md", "card.md") == "[a](notebooks/01_packets.ipynb), [b](index.md)"


def test_links_in_code_are_left_alone():
    text = "```python\nx = y[0](../data/README.md)\n```\n"
    assert build.with_links(text, "nbs/x.ipynb", "notebooks/x.ipynb") == text


SOURCE = '''"What `x` is."
__all__ = ["LIMIT", "f", "A"]
LIMIT = 3
def f(
    x: int = 1,  # a number, *not* |text|
    *more: str,
) -> str:        # its name
    "Names `x`."
class A:
    "Two fields."
    a: int  # the first
    def keep(self, n: int): "Keeps n."
    def _hide(self): pass
@patch(as_prop=True)
def size(self: A) -> int:  # how many
    "Its size."
@patch
def grow(self: A,
    by: int,  # how far
) -> None: "Grows."
'''


@pytest.fixture
def described(monkeypatch) -> str:
    build.lines_of.cache_clear()
    monkeypatch.setattr(build, "source_of", lambda module: SOURCE)
    yield build.api_page("07x_sample", "tells")
    build.lines_of.cache_clear()


def law_api(page: str):
    "Whoever reads the page knows what the comments say, and no private name."
    for part in ("What \\ ``x``\\  is", "Values: ``LIMIT``", ".. py:function:: f(x=1, *more)", "a number, \\*not\\* \\|text\\|", "its name", "``int``", ".. py:class:: A",
                 "the first", ".. py:method:: keep(n)", ".. py:property:: size", "how many", ".. py:method:: grow(by)", "how far", "../code/sample.html", "07x_sample"):
        assert part in page, part
    assert "_hide" not in page and "self" not in page


def test_law_api(described): law_api(described)


@pytest.mark.parametrize("old, new", [("its name", ""), ("how far", ""), ("grow(by)", "grow(self, by)"), ("py:property", "py:method")])
def test_law_api_catches(described, old, new):
    with pytest.raises(AssertionError): law_api(described.replace(old, new))


def test_lines_of_definitions(described):
    found = build.lines_of("nfad.sample")
    lines = SOURCE.splitlines()
    assert {name: lines[line - 1].split("(")[0].split(":")[0].strip() for name, line in found.items()} == {
        "f": "def f", "A": "class A", "A.keep": "def keep", "A._hide": "def _hide", "A.size": "def size", "A.grow": "def grow"}


def test_code_is_shown_to_the_letter():
    pytest.importorskip("pygments")
    import html
    for path in sorted((ROOT / "nfad").glob("*.py"))[::12]:
        source = path.read_text(encoding="utf-8")
        shown = html.unescape(re.sub(r"<[^>]*>", "", "\n".join(build.colored(source))))
        assert shown == source.rstrip("\n")


def test_excerpts_lead_nowhere_else():
    assert build.excerpt("<table><tr><td>cut o") == '<div class="paper"><table><tr><td>cut o</td></tr></table></div>'
    assert build.excerpt('<p id="a"><a href="#a">x</a><a href="#b">y</a></p>') == '<div class="paper"><p id="a"><a href="#a">x</a><a>y</a></p></div>'
    assert build.excerpt("<div>\n<style scoped>t {}</style><table></table></div>").startswith("<div>\n")


def wide_lines(text: str) -> list[str]:
    "Lines of code of a page that a screen of 1300 pixels does not hold."
    return [line for block in re.findall(r"^```\w+\n(.*?)^```", text, flags=re.M | re.S) for line in block.splitlines() if len(line) > 120]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "nbs/site/commands.md", "nbs/site/home.md"])
def test_code_of_pages_is_not_wide(page): assert wide_lines((ROOT / page).read_text(encoding="utf-8")) == []


def test_wide_lines_are_caught(): assert wide_lines("x" * 200 + "\n```bash\n" + "y" * 121 + "\n" + "z" * 120 + "\n```\n") == ["y" * 121]


def test_notebooks_are_shown_without_directives():
    for path in sorted(NBS.glob("*.ipynb"))[::15]:
        if path.stem == "index": continue
        nb = build.staged_notebook(path.stem)
        assert not [cell.source for cell in nb.cells if cell.source.startswith("#|")]
        if path.stem not in build.FRONT: assert f"../code/{build.module_of(path.stem)}.html" in next(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def test_the_evening_path_is_in_order():
    assert [title[:2] for title in build.evening().values()] == [f"{i}." for i in range(1, 8)]
    assert ast.parse(Path(build.__file__).read_text(encoding="utf-8"))
