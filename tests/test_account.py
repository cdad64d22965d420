"""Laws of the account: every row and every column is told, in at most nine lines, however many there are."""
import numpy as np
import pytest

from nfad.account import LoadReport, plot_classes, some_of


def report(n_columns=3, n_notes=2, n_reasons=2, n_classes=3):
    "An account of any size."
    gone = {f"column {i} {'x' * (i % 60)}": f"reason {i % n_reasons}" for i in range(n_columns)}
    classes = {f"class {i}": 10 + i for i in range(n_classes)}
    dropped = {f"fault {i}": i + 1 for i in range(n_reasons)}
    kept = sum(classes.values())
    return LoadReport(
        "made", ("a.csv",), "own", kept + sum(dropped.values()), dropped, kept, gone, classes, 0, "0" * 16,
        tuple(f"note {i} " + "y" * 300 for i in range(n_notes)), ("CSV, semicolon between fields, decimal comma",))


def law_few_lines(lines):
    "At most nine lines of at most 240 characters name dialect, rows, classes, left-out columns with reasons; what is cut is counted."
    for size in ({}, {"n_columns": 0}, {"n_columns": 2000, "n_reasons": 40}, {"n_notes": 50}, {"n_classes": 60}, {"n_columns": 1, "n_notes": 0}):
        made = report(**size)
        told = lines(made)
        assert len(told) <= 9 and max(map(len, told)) <= 240
        text = "\n".join(told)
        assert f"{made.rows_read:,} rows of a.csv (CSV, semicolon between fields, decimal comma)" in told[0]
        assert all(f"{n:,} {name}" in text for name, n in list(made.classes.items())[:6])
        if made.columns_dropped: assert "column 0" in text and "reason 0" in text
        if len(made.columns_dropped) > 1000: assert " more" in text
        if len(made.notes) > 9: assert f"{len(made.notes) - sum('note ' in line for line in told)} more notes" in text
        if 0 < len(made.notes) < 4: assert all(f"note {i} " in text for i in range(len(made.notes)))


def test_law_few_lines(): law_few_lines(LoadReport.lines)


@pytest.mark.parametrize("broken", [
    lambda made: [*LoadReport.lines(made), *made.notes],
    lambda made: LoadReport.lines(made)[:3],
    lambda made: [line for line in LoadReport.lines(made) if "more notes" not in line],
    lambda made: [f"{made.rows_read} rows"],
    lambda made: [str(made)]])
def test_law_few_lines_catches(broken):
    with pytest.raises(AssertionError): law_few_lines(broken)


@pytest.mark.parametrize("n", [0, 1, 8, 9, 5000])
def test_names_are_capped_and_counted(n):
    text = some_of([f"name {i}" for i in range(n)])
    assert text.count("name") == min(n, 8) and (" and " in text) == (n > 8) and (n <= 8 or f"{n - 8:,} more" in text)


def test_a_long_name_is_cut(): assert some_of(["x" * 500]) == "x" * 37 + "..."


def test_the_report_is_json_and_a_table():
    made = report()
    assert made.to_dict()["written"] == list(made.written) and made.to_dict()["notes"] == list(made.notes)
    table = made.table()
    assert table["rows"].iloc[0] == made.rows_read == -table["rows"][table["what"].str.startswith("dropped")].sum() + made.rows_kept
    hostile = LoadReport("x", (), "own", 1, {}, 1, {"<script>": "constant"}, {"benign": 1}, 0, "0" * 16, ("<b>",))
    assert "<script>" not in hostile._repr_html_() and "&lt;script&gt;" in hostile._repr_html_()


def test_the_picture_shows_all_classes():
    import matplotlib.pyplot as plt
    plt.figure()
    ax = plot_classes({"benign": 2000, "scan": 9})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["benign", "scan"] and ax.get_xscale() == "log"
    assert np.array_equal(sorted(bar.get_width() for bars in ax.containers for bar in bars if np.isfinite(bar.get_width())), [9, 2000])
    plt.close()
