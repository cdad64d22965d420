"""Laws of the one reader of tables, each with a broken twin that must fail: nothing lost, nothing moved, nothing made up."""
import dataclasses
import gzip
import tracemalloc
import zipfile
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfad import tables
from nfad.contents import whole_lines
from nfad.data import load_dataset
from nfad.tables import ReadReport, frame_table, number_matrix, open_table, pickled_frame, plan_columns
from flows import run_child

NAMES = ["Flow Duration", "Total Fwd Packets", "Flow IAT Mean", "Idle Max"]
fuzz = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


def write(path, lines, header=",".join(NAMES), end="\n"):
    path.write_text("\n".join([header, *lines]) + end, encoding="utf-8")
    return path


def read_all(table, rows=1000):
    "(n, d) numbers and (n,) faults of all batches."
    found = list(table.records(NAMES, rows=rows))
    X = np.concatenate([batch.X for batch in found] or [np.empty((0, len(NAMES)))])
    return X, np.concatenate([batch.faults for batch in found] or [np.empty(0, object)])


# ---------------------------------------------------------------- the account

def law_account(table, n_lines):
    "Rows read are the lines of the file; each is used or named; a row that is named is not in the frame."
    used = sum(len(batch.frame({0: "first"})) for batch in table.batches(range(len(NAMES)), rows=3))
    assert table.report.rows_read == n_lines, "lines are lost"
    assert used == table.report.rows_used, "a named row is used, or a used one named"
    assert table.report.rows_read == table.report.rows_used + sum(table.report.dropped.values())


GOOD = ["1,2,3,4", "5,6,7,8", "9,10,11,12"] * 3  # a table that is mostly sound: what most lines have is its width
LINES = st.lists(st.sampled_from(["1,2,3,4", "", ",,,", "1,2,3,4,5", "1,2", "x,2,3,4", '1,"2,3,4', "1,2,3,4,"]), max_size=8)


@given(LINES, st.sampled_from(["\n", ""]))
@settings(fuzz, max_examples=300)
def test_law_account(tmp_path_factory, lines, end):
    if not end and lines and not lines[-1]: return  # a file cannot end in an empty line without its end
    path = write(tmp_path_factory.getbasetemp() / "account.csv", [*GOOD, *lines], end=end)
    law_account(open_table(path), len(GOOD) + len(lines))


class DeafFaults(np.ndarray):
    "Faults that are counted, but do not keep a row out of a frame."
    def __new__(cls, faults): return faults.view(cls)
    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        plain = [np.asarray(x) for x in inputs]
        return np.ones(len(self), bool) if ufunc is np.equal else getattr(ufunc, method)(*plain, **options)


@pytest.mark.parametrize("spoil, message", [
    (lambda read: lambda wanted: (b for b in list(read(wanted))[:-1]), "lost"),
    (lambda read: lambda wanted: (b for b in read(wanted) if np.equal(b.faults, None).all()), "lost"),
    (lambda read: lambda wanted: (b._replace(faults=DeafFaults(b.faults)) for b in read(wanted)), "named row is used"),
])
def test_law_account_catches(tmp_path, spoil, message):
    table = open_table(write(tmp_path / "a.csv", ["1,2,3,4", "1,2,3,4,5", "", "1,2,3,4"]))
    with pytest.raises(AssertionError, match=message): law_account(dataclasses.replace(table, read=spoil(table.read)), 4)


def test_drop_counts_what_it_takes():
    report = ReadReport(rows_read=4)
    left = report.drop(pd.DataFrame({"x": range(4)}), [True, False, False, True], "odd")
    left = report.drop(left, [False, False], "nothing")
    assert left.index.tolist() == [1, 2] and report.dropped == {"odd": 2} and report.rows_used == 2


# ---------------------------------------------------------------- faults of lines

@pytest.mark.parametrize("line, fault", [
    ("1,2,3,4,x", "line with too many fields"), ("1,2,3,4,", None), ("", "empty line"), (",,,", "empty line"),
    ("1,2,3", "line with too few fields"), ("a,2,3,4", None), ("%,2,3,4", None), ('1,"2,3,4', "quote that does not end")])
def test_faults_in_the_middle(tmp_path, line, fault):
    X, faults = read_all(open_table(write(tmp_path / "a.csv", ["1,2,3,4", line, "5,6,7,8"])))
    assert faults.tolist() == [None, fault, None] and X[[0, 2]].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize("end, fault", [
    ("", "truncated last line"), ("\n", "line with too few fields"), ("\n\n\n", "line with too few fields"),
    ("\r\n", "line with too few fields")])
def test_a_cut_last_line_is_named_and_keeps_its_place(tmp_path, end, fault):
    path = tmp_path / "a.csv"
    path.write_bytes(("\n".join([",".join(NAMES), "1,2,3,4", "5,6"]) + end).encode())
    X, faults = read_all(open_table(path))
    assert faults[:2].tolist() == [None, fault] and X[0].tolist() == [1, 2, 3, 4] and np.isnan(X[1]).all(), "a cut number is made up"
    assert faults[2:].tolist() == ["empty line"] * max(end.count("\n") - 1, 0)


def test_a_cut_last_line_with_no_cell_that_is_read_costs_no_other_row(tmp_path):
    for end in ("", "\n", "\n\n"):
        path = tmp_path / "a.csv"
        path.write_text("extra,a,b\nx,1,2\nx,3,4\nx40" + end)
        batch, = open_table(path).batches([1, 2])
        assert list(batch.faults)[:3] == [None, None, "line with too few fields" if end else "truncated last line"], end


@pytest.mark.parametrize("n_empty", [0, 1, 3, 9])
def test_a_cut_line_is_named_before_batches_of_empty_lines(tmp_path, n_empty):
    path = tmp_path / "a.csv"
    path.write_text("a,b,c\n1,2,3\n4,5,6\n7,8\n" + "\n" * n_empty)
    faults = [fault for batch in open_table(path).batches([0, 1], rows=2) for fault in batch.faults]
    assert faults == [None, None, "line with too few fields"] + ["empty line"] * n_empty


def test_a_line_break_in_quotes_ends_the_line_like_any_other(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b,note\n1,2,fine\n3,4,"two\nlines"\n5,6,fine\n')
    batch, = open_table(path).batches([0, 1], [2])
    why = "quote that does not end"
    assert list(batch.faults) == [None, why, "line with too few fields", None] and list(batch.lines) == [2, 3, 4, 5]
    assert batch.texts[2].to_pylist() == ["fine", None, None, "fine"], "a text holds what does not stand in its line"
    path.write_text('a,b,note\n1,2,"two\nlines"\n3,4')
    batch, = open_table(path).batches([0, 1])
    assert list(batch.faults) == [why, "line with too few fields", "truncated last line"]


def test_lone_carriage_returns_end_lines(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\r1,2\r3\r5,6\r")
    batch, = open_table(tmp_path / "a.csv").batches([0, 1])
    assert batch.numbers[1].to_pylist() == [2, None, 6] and list(batch.faults) == [None, "line with too few fields", None]


def law_place(read, path, n_rows):
    "Row i of what is read is line i of the file, whatever the size of a batch."
    X, faults = read(open_table(path), n_rows)
    whole, all_faults = read_all(open_table(path))
    assert np.array_equal(X, whole, equal_nan=True) and faults.tolist() == all_faults.tolist()
    assert X[:, 0].tolist() == [float(i) for i in range(len(X))]


@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("ending", ["csv", "parquet", "arff"])
def test_law_place(tmp_path, n_rows, ending):
    frame = pd.DataFrame({name: np.arange(20.0) for name in NAMES})
    path = tmp_path / f"a.{ending}"
    if ending == "csv": frame.to_csv(path, index=False)
    elif ending == "parquet": frame.to_parquet(path)
    else:
        head = [f"@attribute '{name}' numeric" for name in NAMES]
        path.write_text("\n".join(["@relation x", *head, "@data", *(",".join([str(i)] * 4) for i in range(20))]))
    law_place(read_all, path, n_rows)


def test_law_place_catches_a_sorted_batch(tmp_path):
    path = write(tmp_path / "a.csv", [f"{i},2,3,4" for i in range(9)])
    with pytest.raises(AssertionError): law_place(lambda table, rows: (read_all(table, rows)[0][::-1], read_all(table)[1]), path, 4)


# ---------------------------------------------------------------- both doors agree

def law_doors_agree(path, records, missing):
    "What loading keeps is what a model sees of the rows without fault; both name the same lines."
    loaded = load_dataset(path, NAMES, label_column="none", cache=False, max_per_class=None, missing=missing)
    found = list(records(open_table(path)).records(loaded.recipe, "none", rows=3))
    X, faults = (np.concatenate(parts) for parts in zip(*[(batch.X, batch.faults) for batch in found]))
    sound = X[np.equal(faults, None).astype(bool)]
    if missing == "drop": sound = sound[np.isfinite(sound).all(axis=1)]
    assert np.array_equal(np.unique(loaded.records.to_numpy(), axis=0), np.unique(sound, axis=0)), "other numbers"
    named = {why: n for why, n in loaded.report.dropped.items() if why not in ("duplicate", "NaN or infinite", "negative duration")}
    assert named == Counter(fault for fault in faults if fault), "other lines are named"


@pytest.mark.parametrize("lines, end", [
    (["1,2,3,4", "5,6,7,8", "1,2,3,4,5", "", "9,10,inf,4", "1,-,3,4", "7,?,3,4", "6,5"], ""), (["1,2,3,4", "2,2,3,4"], "\n"),
    (["1,2,3,4", "n/a,2,3,4", "2,#N/A,3,4", "3,NULL,3,5"], "\n")])
@pytest.mark.parametrize("ending", ["csv", "txt"])
@pytest.mark.parametrize("missing", ["drop", "indicate"])
def test_law_doors_agree(tmp_path, lines, end, ending, missing):
    law_doors_agree(write(tmp_path / f"a.{ending}", lines, end=end), lambda table: table, missing)


def test_law_doors_agree_catches_a_reader_of_its_own(tmp_path):
    path = write(tmp_path / "a.csv", ["1,2,3,4", "5,6,7,8", "1,2,3,4,5"])
    blind = lambda table: dataclasses.replace(
        table, read=lambda wanted: (b._replace(faults=np.full(len(b.faults), None)) for b in table.read(wanted)))
    with pytest.raises(AssertionError): law_doors_agree(path, blind, "drop")


# ---------------------------------------------------------------- what stands there

CELLS = ["1", "2.5", "-3", "", "x", "inf", "nan", "1e999", " 7", "0x1", "é", "-"]


@given(st.lists(st.lists(st.sampled_from(CELLS), max_size=6).map(",".join), max_size=6))
@settings(fuzz, max_examples=300)
def test_what_was_read_stands_there(tmp_path_factory, lines):
    lines = [*GOOD, *lines]
    X, faults = read_all(open_table(write(tmp_path_factory.getbasetemp() / "cells.csv", lines)), rows=3)
    assert len(X) == len(lines)
    for line, row, fault in zip(lines, X, faults, strict=True):
        cells = line.split(",")
        if len(cells) < 4: assert fault is not None and np.isnan(row).all()
        assert fault is not None or not any(cells[4:])
        for text, value in zip(cells, row): assert not np.isfinite(value) or float(text) == value


def test_texts_stay_as_they_stand_there(tmp_path):
    path = write(tmp_path / "a.csv", ["1,2,3,4,007,NA", "1,2,3,4,1.0,", "1,2,3,4,-,a b"], header=",".join([*NAMES, "Flow ID", "Label"]))
    found, = open_table(path).records(NAMES)
    assert [column.to_pylist() for column in found.kept] == [["007", "1.0", "-"], ["NA", "", "a b"]]
    both, = open_table(path).records(NAMES, "all")  # a feature that is passed through, too
    assert both.kept[0].to_pylist() == ["1", "1", "1"] and both.X[:, 0].tolist() == [1, 1, 1]


def test_parquet_keeps_types(tmp_path):
    columns = {name: pa.array([1.0, 2.0]) for name in NAMES}
    columns |= {"Timestamp": pa.array(pd.to_datetime(["2020-01-01", None])), "Label": pa.array(["a", None])}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    table = open_table(tmp_path / "a.parquet")
    found, = table.records(NAMES)
    assert [field.type for field in table.fields(plan_columns(table.names, NAMES))] == [columns["Timestamp"].type, pa.string()]
    assert [column.null_count for column in found.kept] == [1, 1]


def test_a_parquet_index_is_a_column_like_any_other(tmp_path):
    frame = pd.DataFrame({"size": [1.0, 2.0, 3.0], "Label": ["BENIGN", "BENIGN", "bad"]}, index=pd.Index(["a", "b", "c"], name="host"))
    frame.to_parquet(tmp_path / "a.parquet")
    assert load_dataset(tmp_path / "a.parquet").report.columns_dropped == {"host": "text"}


def test_quotes_and_marks_in_a_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbf"Flow Duration", "a, b",Label\r\n1,2,x\r\n')
    assert open_table(path).names == ("Flow Duration", "a, b", "Label")


def test_arff(tmp_path):
    head = ["@relation x", "% a remark", "@attribute 'Flow Duration' numeric", "@ATTRIBUTE size real", "@attribute class {a,b}", "@data"]
    (tmp_path / "a.arff").write_text("\n".join([*head, "1,?,'a'", "% a remark", "2,3,'b'", "% the end"]))
    table = open_table(tmp_path / "a.arff")
    found, = table.records(["Flow Duration", "size"])
    assert table.names == ("Flow Duration", "size", "class") and list(found.faults) == [None, None]
    assert np.array_equal(found.X, [[1, np.nan], [2, 3]], equal_nan=True) and found.kept[0].to_pylist() == ["a", "b"]
    (tmp_path / "none.arff").write_text("\n".join(head) + "\n")
    assert sum(len(batch.faults) for batch in open_table(tmp_path / "none.arff").batches([0])) == 0


def test_frames_in_memory():
    frame = pd.DataFrame({"size": [5, 6, 7], "Label": ["a", "b", "c"]})
    table = frame_table(frame, "memory")
    assert [list(batch.lines) for batch in table.batches([0], rows=2)] == [[1, 2], [3]] and table.report.rows_read == 3
    assert pd.concat([batch.frame({1: "Label"}) for batch in table.batches([0], [1])])["Label"].tolist() == ["a", "b", "c"]


def test_pickles_are_opened_only_when_told_to(tmp_path):
    pd.DataFrame({"x": [1]}).to_pickle(tmp_path / "ATTACK.pkl")
    with pytest.raises(ValueError, match="allow_pickle must be True to read ATTACK.pkl"): pickled_frame(tmp_path / "ATTACK.pkl", False)
    assert pickled_frame(tmp_path / "ATTACK.pkl", True)["Label"].tolist() == ["ATTACK"]
    with pytest.raises(ValueError, match="is a pickle, which is a program"): open_table(tmp_path / "ATTACK.pkl")


# ---------------------------------------------------------------- numbers

def test_numbers_of_any_kind():
    nan = np.nan
    cases = [
        (pa.array([1, None, 3]), [1, nan, 3]), (pa.array([True, False, None]), [1, 0, nan]), (pa.array(["1", "x", None]), [1, nan, nan]),
        (pa.array(["7", "8", "7"]).dictionary_encode(), [7, 8, 7]), (pd.Series([1.5, 2.5, None]), [1.5, 2.5, nan]),
        (pd.Series(["1", " 2", "nan"]), [1, 2, nan]), (pa.chunked_array([[1.0], [2.0, 3.0]]), [1, 2, 3]), (pa.array([None] * 3), [nan] * 3)]
    X = number_matrix([column for column, _ in cases], [f"c{i}" for i in range(len(cases))], 3)
    assert np.array_equal(X.T, [numbers for _, numbers in cases], equal_nan=True)


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([b"1"]), pa.array(pd.to_datetime(["2020-01-01"]))])
def test_no_numbers_at_all_is_an_error(column):
    with pytest.raises(TypeError, match="column 'when' must hold numbers"): number_matrix([column], ["when"], 1)


def test_a_forgotten_column_is_an_error():
    with pytest.raises(ValueError, match="zip"): number_matrix([pd.Series([1.0])], ["a", "b"], 1)


# ---------------------------------------------------------------- columns by name

@given(st.permutations(NAMES), st.sampled_from([str, str.upper, lambda s: f" {s} ", lambda s: s.replace(" ", "_").lower()]))
@settings(fuzz, max_examples=60)
def test_columns_are_found_by_name(order, spelling):
    layout = plan_columns(["Flow ID", *map(spelling, order), "Label"], NAMES)
    assert [order[layout.places[name] - 1] for name in NAMES] == NAMES and list(layout.kept.values()) == ["Flow ID", "Label"]


def test_columns_passed_through():
    assert plan_columns([*NAMES, "own"], NAMES, "all").kept == dict(enumerate([*NAMES, "own"]))
    assert plan_columns(["Label", *NAMES], NAMES, "none").kept == {}
    assert plan_columns(["a", *NAMES, "a"], NAMES, ["a"]).kept == {0: "a"}
    assert plan_columns(["host", *NAMES, "host"], NAMES, "all").kept[5] == "host.5"


@pytest.mark.parametrize("header, features, keep, error, message", [
    (NAMES, ["Idle Maxx"], "none", KeyError, "1 columns are missing.*Idle Maxx.*did you mean 'Idle Max'"),
    ([*NAMES, "p_value"], NAMES, "all", ValueError, "names of results"),
    ([str(i) for i in range(10_001)], NAMES, "none", ValueError, "at most 10,000"),
    (NAMES, NAMES, ["Hots"], KeyError, "keep names"), (NAMES, NAMES, "some", ValueError, "keep must be one of")])
def test_columns_errors(header, features, keep, error, message):
    with pytest.raises(error, match=message): plan_columns(header, features, keep)


def test_a_missing_column_is_an_error_before_reading(tmp_path):
    table = open_table(write(tmp_path / "a.csv", ["1,2,3,4"]))
    with pytest.raises(KeyError, match="columns are missing"): table.records(["Idle Min"])
    assert table.report.rows_read == 0


# ---------------------------------------------------------------- no tables

@pytest.mark.parametrize("name, content, message", [
    ("a.csv", b"", "is empty"), ("a.csv", b"\n\n", "no header"), ("a.csv", b"1,2\n3,4\n", "pass header, the names of its 2 columns"),
    ("a.arff", b"@relation x\n@attribute a numeric\n", "no @data"),
    ("a.csv", b"\x89PNG\r\n\x1a\n\x00\x00", "is no text"), 
    ("a.csv.gz", b"\x1f\x8b\x08" + bytes(20), "cannot be unpacked"), ("a.zip", b"PK\x03\x04" + bytes(40), "no zip archive"),
    ("a.zst", b"\x28\xb5\x2f\xfd" + b"\xff" * 40, "cannot be unpacked")])
def test_no_tables(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message): list(open_table(tmp_path / name).batches([0]))


def test_a_workbook_is_no_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as book:
        for name in ("[Content_Types].xml", "xl/workbook.xml"): book.writestr(name, "<x/>")
    with pytest.raises(ValueError, match="workbook of a spreadsheet; save its sheet as CSV"): open_table(tmp_path / "a.xlsx")


@pytest.mark.parametrize("packed", ["week.zip", "a.parquet.gz"])
def test_packed_parquet_is_read_or_refused_by_name(tmp_path, packed):
    pd.DataFrame({name: [1.0, 2.0] for name in NAMES}).to_parquet(tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    path = tmp_path / packed
    if packed.endswith(".gz"): path.write_bytes(gzip.compress(content))
    else:
        with zipfile.ZipFile(path, "w") as archive: archive.writestr("a.parquet", content)
        path = path / "a.parquet"
    try: X, _ = read_all(open_table(path))
    except ValueError as error: assert packed in str(error)
    else: assert X.tolist() == [[1] * 4, [2] * 4]


def test_repeated_names_in_parquet(tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="distinct names, got \\['a'\\]"): open_table(tmp_path / "a.parquet")


@given(st.binary(max_size=300))
@settings(fuzz, max_examples=300)
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(",".join(NAMES).encode() + b"\n" + content)
    try:
        table = open_table(path)
        n_rows = sum(len(batch.faults) for batch in table.batches(range(len(table.names)), rows=5))
    except ValueError: return
    assert n_rows == table.report.rows_read == table.report.rows_used + sum(table.report.dropped.values())


# ---------------------------------------------------------------- memory

def peak_of_reading(path, rows, at_once):
    "Bytes in use, Python's and Arrow's, at the worst batch."
    tracemalloc.start()
    base = pa.total_allocated_bytes()
    batches = open_table(path).records(NAMES, rows=rows)
    arrow = max(pa.total_allocated_bytes() - base for _ in (list(batches) if at_once else batches))
    peak = tracemalloc.get_traced_memory()[1] + arrow
    tracemalloc.stop()
    return peak


def test_memory_is_flat_in_the_file_size(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "whole_lines", partial(whole_lines, size=1 << 17))
    monkeypatch.setattr(tables, "_HEAD", 1 << 12)
    small, large = (write(tmp_path / f"{n}.csv", ["1,2,3,4.5"] * n) for n in (40_000, 320_000))
    assert peak_of_reading(large, 5_000, False) < 2.5 * peak_of_reading(small, 5_000, False)  # Arrow's threads differ
    assert peak_of_reading(large, 5_000, True) > 5 * peak_of_reading(small, 5_000, True), "the law cannot fail"


def test_whoever_reads_tables_does_not_load_what_reads_packets():
    "numba takes 60 MB and a third of a second; only scoring needs it, too."
    run_child("import sys, nfad.tables; assert 'numba' not in sys.modules, 'numba is loaded'")
    run_child("import sys, nfad.files; assert not {'nfad.capture', 'nfad.headers', 'nfad.wire'} & set(sys.modules)")
