"""Laws of the dialect, each with a broken twin that must fail: a table written in any dialect comes back cell by cell."""
import itertools
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfad.dialects import Dialect, find_dialect, flat, is_flow_event, split_line
from nfad.lines import Wanted, text_batches
from nfad.sensors import HEADERLESS

fuzz = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
NAMES = ["Flow Duration", "Total Fwd Packets", "service", "note", "Label"]


def table(seed, n_rows):
    "Rows of two numbers and three words, some with an empty cell."
    rng = np.random.default_rng(seed)
    words = [["dns", "http", "-"], ["a b", "plain", "x/y"], ["BENIGN", "PortScan"]]
    rows = []
    for _ in range(n_rows):
        numbers = [round(float(rng.lognormal(3, 2)), 3), int(rng.integers(1, 90))]
        rows.append([*numbers, *[str(rng.choice(choice)) for choice in words]])
        if rng.random() < 0.15: rows[-1][int(rng.integers(0, 4))] = ""
    return rows


def spell(cell, decimal): return str(cell).replace(".", decimal) if isinstance(cell, float) else str(cell)


def write(rows, delimiter=",", quote="", decimal=".", header=True, preamble=(), trailing="", remarks="", end="\n", blank_after=False,
          always_quoted=False, codec="utf-8"):
    "A table as text; cells that hold the delimiter are quoted."
    def line(cells, trailing=trailing):
        told = [spell(cell, decimal) for cell in cells]
        if quote: told = [f"{quote}{cell}{quote}" if always_quoted or delimiter in cell or not cell.replace(decimal, "").isdigit() else cell
                          for cell in told]
        return delimiter.join(told) + delimiter * bool(trailing)
    lines = [*preamble, *[line(NAMES, trailing == "everywhere")] * header, *[""] * blank_after, *map(line, rows)]
    if remarks: lines[len(lines) // 2:len(lines) // 2] = [f"{remarks} in the middle"]
    return (end.join(lines) + end).encode(codec)


def law_comes_back(content, rows, find=find_dialect, names=NAMES, **how):
    "Names and cells of what was written, and no line that is no row."
    dialect = find(content, **how)
    assert list(dialect.names[:len(names)]) == list(names) and not any(dialect.names[len(names):]), "other names"
    text = content.decode(dialect.encoding).replace("\r\n", "\n").replace(dialect.ending.decode(), "\n").encode()
    batch, = text_batches([text], dialect, Wanted((0, 1), (2, 3, 4)))
    sound = np.flatnonzero(np.equal(batch.faults, None).astype(bool))
    assert {why for why in batch.faults if why} <= {"empty line"} and len(sound) == len(rows), "rows are lost or invented"
    found = [[column.to_pylist()[i] for column in (*batch.numbers.values(), *batch.texts.values())] for i in sound]
    expected = [[None if cell == "" else cell for cell in row] for row in rows]
    assert [[None if cell == "" else cell for cell in row] for row in found] == expected, "other cells"


DELIMITERS = [",", ";", "\t", "|"]
PREAMBLES = {"none": (), "title": ("Flows of Monday",), "blank": ("", ""), "remarks": ("# made by x 1.2", "# on 2026-01-01 12:00, by y"),
             "sep": "told", "slashes": ("// made by x",)}


@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("preamble", PREAMBLES)
def test_law_comes_back(delimiter, preamble):
    n = 0
    for seed, (quote, decimal, end, header_blank, trailing) in enumerate(
            itertools.product(["", '"', "'"], [".", ","], ["\n", "\r\n", "\r"], [False, True], ["", "rows", "everywhere"])):
        if delimiter == decimal: continue
        told = (f"sep={delimiter}",) if preamble == "sep" else PREAMBLES[preamble]
        remarks = {"remarks": "#", "slashes": "//"}.get(preamble, "")
        rows = table(seed, 12)
        content = write(rows, delimiter, quote, decimal, preamble=told, end=end, blank_after=header_blank, trailing=trailing, remarks=remarks)
        try: law_comes_back(content, rows)
        except Exception as error:
            raise AssertionError(f"quote {quote!r}, decimal {decimal!r}, end {end!r}, blank {header_blank}, trailing {trailing!r}: {error}"
                                 f"\n{content[:300]!r}") from error
        n += 1
    assert n >= 54


@given(st.integers(0, 10**6), st.sampled_from(DELIMITERS), st.sampled_from(["", '"']), st.sampled_from(["\n", "\r\n"]), st.integers(3, 30),
       st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]), st.booleans())
@settings(fuzz, max_examples=120)
def test_law_comes_back_any_table(seed, delimiter, quote, end, n_rows, codec, always):
    rows = table(seed, n_rows)
    law_comes_back(write(rows, delimiter, quote, end=end, codec=codec, always_quoted=always), rows)


@pytest.mark.parametrize("spoil, message", [
    (lambda d: d._replace(delimiter=","), "lost or invented"), (lambda d: d._replace(decimal="."), "other cells"),
    (lambda d: d._replace(first=0), "lost or invented|other cells"), (lambda d: d._replace(first=2), "lost or invented"),
    (lambda d: d._replace(names=d.names[1:] + d.names[:1]), "other names"), (lambda d: d._replace(quote=""), "other cells")])
def test_law_comes_back_catches(spoil, message):
    rows = table(0, 9)
    content = write(rows, ";", '"', ",")
    law_comes_back(content, rows)
    with pytest.raises(AssertionError, match=message): law_comes_back(content, rows, lambda content: spoil(find_dialect(content)))


# ---------------------------------------------------------------- headers

@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_without_a_header_the_names_are_asked_for(delimiter):
    rows = [row for row in table(1, 9) if "" not in row]
    content = write(rows, delimiter, header=False)
    with pytest.raises(ValueError, match="the table has no header line: .*pass header, the names of its 5 columns"): find_dialect(content)
    law_comes_back(content, rows, header=NAMES)
    law_comes_back(write(rows, delimiter), rows, header=NAMES)  # one that is there is no record


def test_with_names_a_quoted_row_may_end_in_a_delimiter():
    rows = [row for row in table(1, 9) if "" not in row]
    for delimiter, quote in itertools.product(DELIMITERS, ("", '"')):
        law_comes_back(write(rows, delimiter, quote, header=False, trailing="rows"), rows, header=NAMES)


def test_with_names_a_damaged_first_line_is_a_row():
    content = b"1,a\n" + b"1,2,3\n" * 5
    assert find_dialect(content, header=["a", "b", "c"]).first == 0


def test_the_names_say_what_the_delimiter_is():
    content = b'343,5347|"22,5607|4,0474\n' + b"1,9497|6,4461|742,1996\n" * 8
    assert find_dialect(content, header=["a", "b", "c"]).delimiter == "|"


def test_a_known_exporter_without_a_header_is_known():
    for name, order in HEADERLESS.items():
        cells = ["10.0.0.1" if any(part in column.lower() for part in ("ip", "addr", "orig_h", "resp_h")) else "1" for column in order]
        cells = ["CHhAvVGS1DHFjwGM9" if column == "uid" else cell for cell, column in zip(cells, order)]
        if "10.0.0.1" not in cells: continue
        dialect = find_dialect((",".join(cells) + "\n").encode() * 5, orders=list(HEADERLESS.values()))
        assert len(dialect.names) == len(order) and dialect.first == 0, name


def test_a_tail_of_zeek_is_known_by_its_order_and_a_table_of_that_width_is_not():
    row = ["1577869234.1", "CHhAvVGS1DHFjwGM9", "10.0.0.1", "4000", "10.0.0.2", "443", "tcp", "-", "1.5", "1", "2", "SF", "T", "F", "0", "ShADadFf", "1", "2", "3", "4", "-"]
    orders = list(HEADERLESS.values())
    tail = find_dialect(("\t".join(row) + "\n").encode() * 9, orders=orders)
    assert tail.names == HEADERLESS["zeek"] and tail.first == 0 and tail.delimiter == "\t" and "no header" in str(tail)
    row[1] = "5"
    with pytest.raises(ValueError, match="has no header line"): find_dialect(("\t".join(row) + "\n").encode() * 9, orders=orders)


@pytest.mark.parametrize("header, names", [
    (b"a,b\n1,2\n", ("a", "b")), (b" a , b\n1,2\n", ("a", "b")), (b'"a, x",b\n1,2\n', ("a, x", "b")), (b"0,1,2\n0.5,3,x\n0.7,4,y\n", ("0", "1", "2")),
    (b"a,b,c\n0,1,2,4\n1,4,5,6\n", ("Unnamed: 0", "a", "b", "c")), (b"a,b,\n1,2\n3,4\n", ("a", "b")), (b"#a,b\n1,2\n3,4\n", ("a", "b")),
    (b"a b\n1\n2\n", ("a b",))])
def test_odd_headers(header, names): assert find_dialect(header).names == names


def test_a_line_without_names_is_no_header():
    "Names are taken from a line that says something, whatever stands between it and the rows."
    content = b"a,b,c,d\n,,,\n" + b"0,1,2,3,5\n" * 6
    assert "a" in find_dialect(content).names


def test_a_record_of_positions_is_no_header_below_one():
    assert find_dialect(b"a,b,c\n0,1,2,3\n1,4,5,6\n").names == ("Unnamed: 0", "a", "b", "c")


@pytest.mark.parametrize("bad", ["", ",,,,", "1,2", "9,9,9,9,9,9,9", "x", '"', "1,2,3,4,\"", "# x"])
def test_one_odd_line_does_not_change_the_dialect(bad):
    rows = [row for row in table(2, 20) if "" not in row]
    clean = write(rows).decode().splitlines()
    expected = find_dialect("\n".join(clean).encode())
    for place in (1, 5, len(clean)):
        assert find_dialect("\n".join([*clean[:place], bad, *clean[place:]]).encode()) == expected, place


def test_a_head_that_is_cut_ends_with_its_last_whole_line():
    content = b"a,b,c\n" + b"1,2,3\n" * 5
    for cut in range(20, len(content)):
        assert find_dialect(content[:cut], whole=False) == find_dialect(content), cut


# ---------------------------------------------------------------- decimals

@pytest.mark.parametrize("cells, delimiter, found", [
    (["1,5", "2,25"], ";", (",", "")), (["1.5", "2"], ";", (".", "")), (["1.234,5", "7,0"], ";", (",", ".")), (["1,234,567.5", "2"], ";", (".", ",")),
    (["1", "2"], ";", (".", "")), (["0,123456", "1"], "\t", (",", "")), (["10.0.0.1", "10.0.0.2"], ";", (".", "")), (["1,5e3", "2"], ";", (",", "")),
    (["1.234.567", "12"], ";", (",", ".")), (["1.234.567", "0.5"], ";", (".", "")), (["1.234", "2.345"], ";", (".", "")), (["1 234 567", "1 234"], ";", (".", " ")),
    (["80 443", "80"], ";", (".", "")), (["1'234", "2"], ";", (".", "'")), (["1'234.5"], ",", (".", "'")), (["1 234,5 KB"], ";", (",", " ")),
    (["5,1%", "3,25%"], ";", (",", "")), (["100.100.100.100", "1.5"], ";", (".", ""))])
def test_decimals(cells, delimiter, found):
    content = "\n".join([delimiter.join(["a", "b"]), *[delimiter.join([cell, "x"]) for cell in cells]]).encode()
    dialect = find_dialect(content)
    assert (dialect.decimal, dialect.thousands) == found


# ---------------------------------------------------------------- other formats

ZEEK = ["#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-", "#path\tconn", "#fields\tts\tuid\tduration\tservice",
        "#types\ttime\tstring\tinterval\tstring"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_zeek(end):
    content = end.join([*ZEEK, "1.5\tC1\t-\tdns", "2.5\tC2\t3\t(empty)", "#close\t2020"]).encode()
    dialect = find_dialect(content)
    assert dialect.names == ("ts", "uid", "duration", "service") and dialect.format == "Zeek" and dialect.empty == ("-", "(empty)")
    batch, = text_batches([content.replace(b"\r\n", b"\n")], dialect, Wanted((0, 2), (3,)))
    assert batch.numbers[2].to_pylist() == [None, 3] and batch.n_remarks == 8 and list(batch.lines) == [8, 9]


def test_zeek_with_pasted_labels():
    head = [line + ("   label   detailed-label" if line.startswith("#fields") else "") for line in ZEEK]
    content = "\n".join([*head, "1.5\tC1\t-\tdns   Malicious   Scan", "2.5\tC2\t3\thttp   Benign   -"]).encode()
    dialect = find_dialect(content)
    assert dialect.names[-2:] == ("label", "detailed-label") and dialect.wide_gaps
    batch, = text_batches([content], dialect, Wanted((2,), (4, 5)))
    assert batch.texts[4].to_pylist() == ["Malicious", "Benign"] and list(batch.faults) == [None, None]


def test_json_lines():
    lines = [{"flow": {"age": 1, "pkts": 2}, "proto": "TCP"}, {"event_type": "dns", "x": 1}, {"proto": "UDP", "late": True}]
    dialect = find_dialect("\n".join(map(json.dumps, lines)).encode())
    assert dialect.format == "JSON lines" and dialect.names == ("flow.age", "flow.pkts", "proto", "late")


@pytest.mark.parametrize("bad", ["(none)", "//", "garbage, more", "[1, 2]", '{"cut": 1'])
def test_a_damaged_first_line_does_not_hide_json(bad):
    content = "\n".join([bad, *[json.dumps({"size": i, "note": "a, b"}) for i in range(9)]]).encode()
    assert find_dialect(content) == find_dialect(content.partition(b"\n")[2])


def test_keys_with_blanks_are_read():
    content = b'{" size": 1, "b": 2}\n{" size": 3, "b": 4}\n'
    batch, = text_batches([content], find_dialect(content), Wanted((0, 1)))
    assert [column.to_pylist() for column in batch.numbers.values()] == [[1, 3], [2, 4]]


def test_arff():
    content = b"% about\n@RELATION x\n\n@attribute 'Flow Duration' numeric\n@attribute class {a,'b c'}\n@DATA\n1,a\n% remark\n?,'b c'\n"
    dialect = find_dialect(content)
    assert dialect.names == ("Flow Duration", "class") and dialect.first == 6
    batch, = text_batches([content], dialect, Wanted((0,), (1,)))
    assert batch.numbers[0].to_pylist() == [1, None] and batch.texts[1].to_pylist() == ["a", "b c"] and batch.n_remarks == 1


@pytest.mark.parametrize("content, message", [
    (b"", "has no header"), (b"\n \n", "has no header"), (b"@relation x\n@attribute a numeric\n", "no @data"), (b'{"a"\n{', "no JSON object"),
    (b"[1]\n[2]\n", "no JSON object"), (b"a\x00b,c\n1,2\n", "no text"), (b"# only\n# remarks\n", "no line of fields"),
    (b'{"event_type": "alert"}\n', "no JSON object of a network flow")])
def test_no_dialect(content, message):
    with pytest.raises(ValueError, match=f"here.csv.*{message}"): find_dialect(content, "here.csv")


def test_a_line_of_very_many_keys_crowds_nobody_out():
    flow = json.dumps({"duration": 1, "bytes": 2})
    content = "\n".join([json.dumps({f"k{i}_{j}": 1 for j in range(10_001)}) for i in range(2)] + [flow] * 3).encode()
    names = find_dialect(content).names
    assert len(names) == 10_000 and {"duration", "bytes"} <= set(names)


def test_words_about_a_dialect():
    said = str(Dialect("CSV", ("a",), 3, ";", decimal=",", encoding="cp1252"))
    assert said == "CSV, semicolon between fields, decimal comma, cp1252, 2 lines before the header"


@given(st.lists(st.text(st.sampled_from('ab1 ,;"\'\t.'), max_size=8), max_size=5).map("\n".join))
@settings(fuzz, max_examples=300)
def test_any_text_has_a_dialect_or_an_error(text):
    try: dialect = find_dialect(text.encode())
    except ValueError: return
    assert dialect.names and 0 <= dialect.first <= text.count("\n") + 1


def test_split_line():
    assert split_line('a, "b, c" ,"d ""e""", f') == ["a", "b, c", 'd "e"', "f"]
    assert split_line("x\t'a b'\t", "\t", "'") == ["x", "a b", ""]


def test_flat_and_flow_events():
    deep = {"a": {"b": {"c": {"d": 1}}}}
    assert flat(deep) == {"a.b.c": '{"d": 1}'} and flat(deep, 1) == {"a": json.dumps(deep["a"])}
    assert [is_flow_event(event) for event in ({}, {"event_type": "flow"}, {"event_type": "alert"}, {"_path": "dns"})] == [True, True, False, False]


@pytest.mark.parametrize("text", ["a;b;c;d", "Mozilla/5.0 (X11; Linux; rv:1)", "x|y|z|w", "a\tb\tc\td"])
def test_other_delimiters_in_a_text_do_not_mislead(text):
    content = ("size,note,Label\n" + "".join(f"{i},{text},BENIGN\n" for i in range(20))).encode()
    for above in (b"", b"Flows of Monday\n", b"# a remark\n"):
        dialect = find_dialect(above + content)
        assert dialect.delimiter == "," and dialect.names == ("size", "note", "Label")
