"""Laws of lines, each with a broken twin that must fail: a line is used or named, and its fate does not depend on its neighbours."""
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfad.dialects import Dialect, find_dialect
from nfad.lines import TextReader, Wanted, read_number, read_numbers, read_object, text_batches
from nfad.tables import open_table

fuzz = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
CSV = Dialect("CSV", ("size", "note", "pause"), 0)
JSON = Dialect("JSON lines", ("size", "note", "pause"), 0)
GOOD = ["1,a,2", "3,b,4.5", "-5,c,1e3"]
BAD = ["", " ", ",,", "1,a", "1,a,2,3", "1,a,2,", "1", '"', '"1,a,2', '1,"a,2', '1,a,"2', '1,"a""b",2', '1,"a,b",2', '1,a"b,2', '"1","a","2"', "x,y,z",
       "1,\x00,2", "1,\ufffd,2", "1, \"a\",2", "1,-,NaN", "inf,a,-inf", "1,a,0x1f", "1,a,2;3", "1\t,a\t,2\t", "1,'a',2",
       '"a" "b",c,1', '1,"a" ,2', "#,a,2", "1,a,1e400", '1,"a"b"c",2', "+1,a,.5", "1,a,5.", "1,a,1_000", "١,a,2"]


def read(lines, dialect=CSV, rows=1000, end="\n", texts=(1,), cut=None):
    "For each line: its numbers, its texts and its fault."
    content = ("\n".join(lines) + end).encode("utf-8", "surrogateescape")
    blocks = [content] if cut is None else cut(content)
    found = []
    for batch in text_batches(blocks, dialect, Wanted((0, 2), texts, rows)):
        cells = [batch.numbers[i].to_pylist() for i in (0, 2)] + [batch.texts[i].to_pylist() for i in texts]
        cells = [[None if cell != cell or cell == "" else cell for cell in column] for column in cells]  # no number, no text
        found += [(*row, why) for *row, why in zip(*cells, batch.faults, strict=True)]
    return found


# ---------------------------------------------------------------- neighbours

def law_alone(lines, reader=read, **how):
    "Each line gives what it gives alone; a line that is named has no cells."
    together = reader(lines, **how)
    assert len(together) == len(lines), "a line is lost, joined or invented"
    alone = [reader([line], **how)[0] for line in lines]
    assert together == alone, "a neighbour changes a line"
    silent = [cells for *cells, why in together if why not in (None, "event that is no flow")]  # events keep their addresses
    assert all(cell is None for cells in silent for cell in cells), "a named line has cells"


@pytest.mark.parametrize("bad", BAD)
def test_law_alone_one_bad_line(bad):
    for place in range(len(GOOD) + 1): law_alone([*GOOD[:place], bad, *GOOD[place:]])


@given(st.lists(st.sampled_from([*GOOD, *BAD]), min_size=1, max_size=9))
@settings(fuzz, max_examples=150)
def test_law_alone(lines): law_alone(lines)


@given(st.lists(st.text(st.sampled_from('1a,"\'. -'), max_size=8), min_size=1, max_size=6))
@settings(fuzz, max_examples=150)
def test_law_alone_any_lines(lines): law_alone([*GOOD, *lines])


def by_arrow_alone(lines, **how):
    "What Arrow makes of a text whose quotes may hold line ends."
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda row: "skip")
    options = pyarrow.csv.ReadOptions(column_names=["0", "1", "2"])
    table = pyarrow.csv.read_csv(pa.BufferReader(("\n".join(lines) + "\n").encode()), parse_options=parse, read_options=options)
    return [(*row, None) for row in zip(*table.to_pydict().values())]


def with_a_header_in_mind(lines, **how): return [(*row[:-1], row[-1] if i else None) for i, row in enumerate(read(lines, **how))]


@pytest.mark.parametrize("reader, message", [(by_arrow_alone, "lost, joined"), (with_a_header_in_mind, "neighbour")])
def test_law_alone_catches(reader, message):
    with pytest.raises(AssertionError, match=message): law_alone([*GOOD, '1,"a,2', "1,a", '3,a",2'], reader)


@pytest.mark.parametrize("dialect", [
    CSV._replace(delimiter=";", decimal=","), CSV._replace(delimiter="\t", quote=""), CSV._replace(delimiter="|", quote="'"), CSV._replace(extra=1),
    CSV._replace(thousands=",", delimiter=";"), CSV._replace(empty=("?", "-"))])
@given(lines=st.lists(st.sampled_from([*GOOD, *BAD, "1,a,2,,"]), min_size=1, max_size=7))
@settings(fuzz, max_examples=30)
def test_law_alone_in_any_dialect(dialect, lines):
    law_alone([line.replace(",", "\0").replace(".", dialect.decimal).replace("\0", dialect.delimiter) for line in lines], dialect=dialect)


@given(st.lists(st.sampled_from(['{"size": 1, "note": "a", "pause": 2}', '{"size": null}', "{}", "", "x", "[1]", "3", '{"size": "7", "pause": 1.5}',
                                 '{"size": {"a": 1}}', '{"event_type": "dns", "size": 1}', '{"size": 1, "note": "a', '{"size": NaN, "note": [1]}',
                                 '{"size": 1e999, "note": "\\n"}', "[" * 3000]), min_size=1, max_size=7))
@settings(fuzz, max_examples=200)
def test_law_alone_json(lines): law_alone(lines, dialect=JSON)


@pytest.mark.parametrize("line", ['{"size": 1' + "0" * 400 + ', "note": "a", "pause": 2}', '{"size": 1, "note": "\\ud800", "pause": 2}'])
def test_json_that_fits_no_column_is_used_or_named(line):
    good = '{"size": 1, "note": "a", "pause": 2}'
    found = read([good, line, good], dialect=JSON)
    assert len(found) == 3 and found[0] == found[2] == (1, 2, "a", None)


# ---------------------------------------------------------------- blocks and batches

def law_any_cut(lines, n, rows, reader=read):
    "Where blocks and batches end does not matter."
    def cut(content):
        pieces = content.splitlines(keepends=True)
        return [b"".join(pieces[i:i + n]) for i in range(0, len(pieces), n)]
    assert reader(lines, rows=rows, cut=cut) == reader(lines), "a block or a batch matters"


@given(st.lists(st.sampled_from([*GOOD, *BAD]), min_size=1, max_size=9).filter(lambda lines: not any("\x00" in line for line in lines)),
       st.integers(1, 4), st.integers(1, 5))
@settings(fuzz, max_examples=80)
def test_law_any_cut(lines, n, rows): law_any_cut(lines, n, rows)


def test_law_any_cut_catches():
    first_only = lambda lines, **how: read(lines, **how)[:3] if how else read(lines)
    with pytest.raises(AssertionError, match="matters"): law_any_cut([*GOOD, *GOOD], 2, 1, first_only)


def test_lines_are_numbered_as_in_the_file():
    dialect = CSV._replace(first=3, comment="#")
    content = b"# made by x\n\nsize,note,pause\n1,a,2\n# a remark\n\n3,b,4\n"
    for blocks in ([content], [content[:13], content[13:35], content[35:]], content.splitlines(keepends=True)):
        batches = list(text_batches(blocks, dialect, Wanted((0,), (), 2)))
        assert [line for batch in batches for line in batch.lines] == [4, 6, 7]
        assert [why for batch in batches for why in batch.faults] == [None, "empty line", None]
        assert sum(batch.n_remarks for batch in batches) == 1


@pytest.mark.parametrize("end, why", [("", "truncated last line"), ("\n", "line with too few fields")])
def test_only_a_line_without_its_end_is_cut(end, why):
    assert [row[-1] for row in read([*GOOD, "1,a"], end=end)] == [None, None, None, why]
    assert read([*GOOD, "7,a,8"], end=end)[-1][-1] == (None if end else "last line without its end")
    assert read(['{"size": 1}', '{"size": 2'], JSON, end=end)[-1][-1] == ("no JSON" if end else "truncated last line")


def law_a_cut_is_named(readings):
    "Wherever a text is cut within its last line, that line is named, or its numbers are those of the whole line."
    for cut in range(1, len("70.25,a,512.25") + 1):
        *others, last = readings([*GOOD, "70.25,a,512.25"[:cut]])
        assert [row[-1] for row in others] == [None] * 3
        assert last[-1] is not None or last[:2] == (70.25, 512.25), f"believed {last}"


def test_law_a_cut_is_named(): law_a_cut_is_named(lambda lines: read(lines, end=""))


def test_law_a_cut_is_named_catches():
    with pytest.raises(AssertionError, match="believed"): law_a_cut_is_named(lambda lines: read(lines, end="\n"))


def test_a_line_that_is_too_long_is_named():
    assert [row[-1] for row in read([*GOOD, "1," + "a" * (1 << 20) + ",2", *GOOD])] == [None] * 3 + ["line too long"] + [None] * 3
    assert read_object('{"a": "' + "x" * (1 << 20) + '"}')[1] == "line too long"


# ---------------------------------------------------------------- what stands there

def law_cells(lines, reader=read):
    "A cell that is read as a number is that number; a text has the letters that stand there."
    for line, (size, pause, note, why) in zip(lines, reader(lines), strict=True):
        cells = line.split(",")
        if '"' in line or why: continue
        for cell, value in ((cells[0], size), (cells[2], pause)):
            try: expected = float(cell.replace("_", "x"))
            except ValueError: expected = None
            if value is not None and cell.strip().lower() not in ("true", "false"): assert value == expected, "a number is made up"
            if expected is not None and expected == expected and cell.isascii(): assert value == expected, "a number is lost"
        assert (note or "").strip() == cells[1].strip(), "another text"


@pytest.mark.parametrize("bad", [line for line in BAD if "\x00" not in line])
def test_law_cells(bad): law_cells([*GOOD, bad])


def test_law_cells_catches():
    for spoil, message in ((lambda row: (0.0 if row[0] is None else row[0], *row[1:]), "made up"), (lambda row: (None, *row[1:]), "lost"),
                           (lambda row: (*row[:2], "A", row[3]), "another")):
        with pytest.raises(AssertionError, match=message): law_cells([*GOOD, "x,y,z"], lambda lines: list(map(spoil, read(lines))))


@pytest.mark.parametrize("line, note", [
    ('1,"a, ""b""",2', 'a, "b"'), ('1,"a,b",2', "a,b"), ('1,"",2', None), ('1, "a",2', "a"), ('1,a"b,2', 'a"b'), ('1,"a;b",2', "a;b")])
def test_quoted_texts(line, note): assert read([line])[0] == (1, 2, note, None)


def test_an_open_quote_adds_nothing_to_a_text():
    dialect = Dialect("CSV", ("size", "pause", "note"), 0)
    content = b'1,2,"x\n3,4,y\n'
    batch, = text_batches([content], dialect, Wanted((0, 1), (2,)))
    assert [text for text in batch.texts[2].to_pylist() if text] in (["x", "y"], ["y"]), "a text holds a line end"


def test_a_quoted_line_may_end_in_a_delimiter_like_any_other():
    for delimiter in ",;|\t":
        lines = [line.replace(",", delimiter) for line in ("1,a,2,", '1,"a",2,', '1,"a",2,"b"')]
        assert [row[-1] for row in read(lines, CSV._replace(delimiter=delimiter))] == [None, None, "line with too many fields"]
    dialect = CSV._replace(extra=1)
    assert [row[-1] for row in read(["1,a,2,", '1,"a",2,', "1,a,2", '1,"a",2'], dialect)] == [None] * 4


# ---------------------------------------------------------------- numbers

NUMBERS = {"1": 1, " -2.5 ": -2.5, "1e3": 1000, "+4": 4, ".5": 0.5, "6.": 6, "inf": np.inf, "-Infinity": -np.inf, "": None, "-": None, "NaN": None,
           "0x1f": None, "1,17": None, "1_000": None, "x": None, "#DIV/0!": None, "1e": None, "--1": None, "1 2": None, "١": None,
           "5.1%": 5.1, "-3 %": -3, "1.2 M": 1.2e6, "3 KB": 3000, "3KiB": 3072, "12 ms": 0.012, "7 us": 7e-6, "2 \u00b5s": 2e-6, "1 min": 60, "8 kbit/s": 8000,
           "4 packets": 4, "9 x": None, "M": None, "%": None, "5 mm": None, "1e3 B": 1000}


def law_numbers(reader=read_numbers):
    "A cell gives its number or none, whatever stands beside it."
    together = reader(pa.array(list(NUMBERS))).to_pylist()
    assert together == list(NUMBERS.values()), "another number"
    for cell, value in NUMBERS.items(): assert reader(pa.array([cell, "7", None])).to_pylist() == [value, 7, None], cell


def test_law_numbers(): law_numbers()


def test_law_numbers_catches():
    zeros = lambda cells: pa.compute.fill_null(read_numbers(cells), 0.0)
    with pytest.raises(AssertionError, match="another number"): law_numbers(zeros)


def test_one_value_is_read_as_a_column_is(): law_numbers(lambda cells: pa.array([read_number(cell) for cell in cells.to_pylist()], from_pandas=True))


def test_one_value_that_ignores_units_is_caught():
    plain = lambda cell: read_number(cell) if cell is None or cell.strip(" +-.0123456789e").lower() in ("", "inf", "infinity") else None
    with pytest.raises(AssertionError, match="another number"): law_numbers(lambda cells: pa.array(map(plain, cells.to_pylist()), pa.float64()))


def test_numbers_are_not_lost_beside_many_spellings_of_nothing():
    cells = ["", "-", "?", "nan", "na", "null", "none", "true", "false", "5", "6.5"]
    assert read_numbers(pa.array(cells)).to_pylist()[-2:] == [5, 6.5]


@pytest.mark.parametrize("cell, decimal, thousands, value", [
    ("1,5", ",", "", 1.5), ("1.234,5", ",", ".", 1234.5), ("1,234,567", ".", ",", 1234567), ("1,234,567.5", ".", ",", 1234567.5), ("12", ",", ".", 12),
    ("1'234", ".", "'", 1234), ("1.5", ".", ",", 1.5), ("-1.234.567", ",", ".", -1234567), ("1.234,5 KB", ",", ".", 1234500), ("12,5%", ",", "", 12.5), ("1 234", ".", " ", 1234)])
def test_decimals_and_thousands(cell, decimal, thousands, value): assert read_numbers(pa.array([cell]), decimal, thousands).to_pylist() == [value]


def test_truth_in_a_column_of_its_own():
    assert read_numbers(pa.array(["true", "False", "", None, "T", "no"])).to_pylist() == [1, 0, None, None, 1, 0]


@pytest.mark.parametrize("dialect, lines", [(CSV, ["1,a,2", "3,b,true"]), (JSON, ['{"pause": 2}', '{"pause": true}'])])
def test_truth_does_not_depend_on_the_block(dialect, lines): law_any_cut(lines, 1, 1, lambda lines, **how: read(lines, dialect, **how))


def test_arrow_and_text_read_the_same_number():
    "A column with an odd cell is read as text first; its other cells must not change."
    for cell in NUMBERS:
        if "," in cell: continue
        clean, odd = (read([f"{cell},a,1", f"{other},a,1"])[0] for other in ("2", "odd"))
        assert clean == odd, cell


def test_the_reader_remembers_odd_columns():
    reader = TextReader(CSV, Wanted((0, 2), (1,)))
    reader.rows(b"1,a,2\n")
    assert reader.odd == set()
    reader.rows(b"x,a,2\n")
    assert reader.odd == {0}


def test_objects_in_objects_become_names_with_dots():
    assert read_object(json.dumps({"flow": {"age": 3, "deep": {"er": {"x": 1}}}, "list": [1]})) == (
        {"flow.age": 3, "flow.deep.er": '{"x": 1}', "list": "[1]"}, None)


# ---------------------------------------------------------------- another header in the middle

def joined_files(rng, delimiter):
    "Two files of the same columns in different orders, as one, and the numbers of `b` and `dd` in each row (NaN in the header between)."
    names = ["a", "b", "cc", "dd", "eee"]
    parts, b, dd = [], [], []
    for _ in range(3):
        order = rng.permutation(5)
        numbers = rng.integers(0, 99, (int(rng.integers(1, 40)), 5))
        lines = [[names[i] for i in order], *([str(row[i]) for i in order] for row in numbers)]
        parts += [delimiter.join(line) for line in lines]
        b += [np.nan, *numbers[:, 1]]
        dd += [np.nan, *numbers[:, 3]]
    return "\n".join(parts) + "\n", np.array(b[1:], float), np.array(dd[1:], float)


def law_columns_follow_their_header(rows_of):
    "Rows below a second header are read by it, however the text is cut into blocks."
    rng = np.random.default_rng(5)
    for delimiter in ",;\t|" * 5:
        text, b, dd = joined_files(rng, delimiter)
        dialect = find_dialect(text.encode())
        place = {name: i for i, name in enumerate(dialect.names)}
        reader = TextReader(dialect, Wanted((place["b"], place["dd"])))
        body = text.encode().split(b"\n", 1)[1].splitlines(keepends=True)
        cut = int(rng.integers(0, len(body)))
        parts = [rows_of(reader, block) for block in (b"".join(body[:cut]), b"".join(body[cut:])) if block]
        for name, wanted in (("b", b), ("dd", dd)):
            found = np.concatenate([np.array(part.columns[place[name]].to_pylist(), float) for part in parts])
            np.testing.assert_array_equal(found, wanted)
        faults = np.concatenate([part.faults for part in parts])
        assert [why == "repeated header line" for why in faults] == np.isnan(b).tolist()


def test_law_columns_follow_their_header(monkeypatch):
    law_columns_follow_their_header(TextReader.rows)
    monkeypatch.setattr(TextReader, "_order_of", lambda self, fields: self.order)
    with pytest.raises(AssertionError): law_columns_follow_their_header(TextReader.rows)


def test_rows_below_the_header_of_another_table_are_named(tmp_path):
    (tmp_path / "two.csv").write_text("src,dur,size\na,1,2\nb,3,4\nsrc,dur,port\nc,5,6\nsrc,dur,size\nd,7,8\n")
    table = open_table(tmp_path / "two.csv")
    faults = np.concatenate([batch.faults for batch in table.batches((1, 2))])
    assert faults.tolist() == [None, None, "repeated header line", "line below another header", "repeated header line", None] and "two tables in one file" in table.report.doubts()[0]


def test_logs_of_zeek_that_were_joined_keep_their_own_columns(tmp_path):
    log = lambda names, cells: "#separator \\x09\n#path\tconn\n#fields\t" + "\t".join(names) + "\n" + "\t".join(cells) + "\n#close\n"
    (tmp_path / "conn.log").write_text(log(["ts", "duration", "orig_bytes"], "123") + log(["ts", "orig_bytes", "duration"], "456"))
    batch, = open_table(tmp_path / "conn.log").batches((1, 2))
    assert batch.numbers[1].to_pylist() == [2, 6] and batch.numbers[2].to_pylist() == [3, 5] and batch.faults.tolist() == [None, None]
