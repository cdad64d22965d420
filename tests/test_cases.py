"""Inputs that people have: the same records come out of every way of writing them, and what is odd about a table is named, not fatal."""
import bz2
import gzip
import io
import json
import lzma
import os
import threading
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nfad.columns import doubts_about
from nfad.contents import copied_pipe, is_pipe
from nfad.data import load_dataset
from nfad.overview import look_at
from nfad.sources import find_tables
from nfad.tables import frame_table, open_table

NAMES = ["Flow Duration", "Total Fwd Packets", "Total Backward Packets", "Flow IAT Mean", "Fwd Packet Length Mean", "Label"]


def flows(n=60, seed=0):
    "Records of CICFlowMeter with labels."
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.lognormal(4, 1, (n, 5)).round(3), columns=NAMES[:-1])
    return frame.assign(Label=np.where(np.arange(n) % 6 == 5, "PortScan", "BENIGN"))


def text(frame, sep=",", decimal=".", header=True): return frame.to_csv(index=False, sep=sep, decimal=decimal, header=header)


def zipped(content):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive: archive.writestr("flows.csv", content)
    return packed.getvalue()


WRITTEN = {  # case -> name of the file and its bytes, from the records
    "blank_top": lambda f: ("a.csv", ("\n\n" + text(f)).encode()),
    "comment_top": lambda f: ("a.csv", ("# exported by a tool, version 4\n# on Monday\n" + text(f)).encode()),
    "title_top": lambda f: ("a.csv", ("Flows of Monday\n" + text(f)).encode()),
    "sep_line": lambda f: ("a.csv", ("sep=;\n" + text(f, ";")).encode()),
    "semicolon": lambda f: ("a.csv", text(f, ";").encode()),
    "semicolon_decimal_comma": lambda f: ("a.csv", text(f, ";", ",").encode()),
    "tab": lambda f: ("a.tsv", text(f, "\t").encode()),
    "bar": lambda f: ("a.psv", text(f, "|").encode()),
    "txt": lambda f: ("a.txt", text(f).encode()),
    "utf16": lambda f: ("a.csv", text(f, "\t").encode("utf-16")),
    "mark": lambda f: ("a.csv", text(f).encode("utf-8-sig")),
    "returns": lambda f: ("a.csv", text(f).replace("\n", "\r").encode()),
    "windows": lambda f: ("a.csv", text(f).replace("\n", "\r\n").encode()),
    "index": lambda f: ("a.csv", f.to_csv().encode()),
    "quoted": lambda f: ("a.csv", f.to_csv(index=False, quoting=1).encode()),
    "trailing": lambda f: ("a.csv", text(f).replace("\n", ",\n").encode()),
    "caret": lambda f: ("a.csv", text(f, "^").encode()),
    "tilde": lambda f: ("a.csv", text(f, "~").encode()),
    "hive": lambda f: ("a.csv", text(f, "\x01").encode()),
    "unit_separator": lambda f: ("a.csv", text(f, "\x1f").encode()),
    "json_cut_from_a_list": lambda f: ("a.json", ",\n".join(json.dumps(row) for row in f.to_dict("records")).encode() + b"\n"),
    "json_sequence": lambda f: ("a.json", "".join("\x1e" + json.dumps(row) + "\n" for row in f.to_dict("records")).encode()),
    "json_of_elasticsearch": lambda f: ("a.json", "".join(json.dumps({"_index": "x", "_source": row}) + "\n" for row in f.to_dict("records")).encode()),
    "json_in_an_answer": lambda f: ("a.json", json.dumps({"took": 3, "by": {"x": 1}, "flows": f.to_dict("records"), "next": None, "n": 60}).encode()),
    "gz": lambda f: ("a.csv.gz", gzip.compress(text(f).encode())),
    "gz_by_content": lambda f: ("a.csv", gzip.compress(text(f).encode())),
    "bz2": lambda f: ("a.csv.bz2", bz2.compress(text(f).encode())),
    "xz": lambda f: ("a.csv.xz", lzma.compress(text(f).encode())),
    "zst": lambda f: ("a.csv.zst", pa.Codec("zstd").compress(text(f).encode(), asbytes=True)),
    "zip": lambda f: ("a.zip", zipped(text(f))),
    "json": lambda f: ("a.json", f.to_json(orient="records", lines=True).encode()),
    "json_array": lambda f: ("a.json", f.to_json(orient="records").encode()),
    "json_pretty": lambda f: ("a.json", f.to_json(orient="records", indent=2).encode()),
    "json_objects": lambda f: ("a.json", "\n".join(json.dumps(record, indent=1) for record in f.to_dict("records")).encode()),
    "json_wrapped": lambda f: ("a.json.gz", gzip.compress(json.dumps({"flows": f.to_dict("records")}, indent=1).encode())),
    "blanks": lambda f: ("a.txt", f.rename(columns=lambda name: name.replace(" ", "_")).to_string(index=False).encode()),
    "blanks_and_index": lambda f: ("a.txt", f.rename(columns=lambda name: name.replace(" ", "_")).to_string().encode()),
    "single_blanks": lambda f: ("a.dat", text(f.rename(columns=lambda name: name.replace(" ", "_")), " ").encode()),
}


def law_same_records(path, frame, **how):
    "What is read is what was written, and every row is accounted for."
    loaded = load_dataset(path, cache=False, missing="drop", **how)
    found = loaded.records.assign(Label=np.where(loaded.is_attack, "PortScan", "BENIGN"))[NAMES]
    expected = frame[NAMES]
    order = [frame.sort_values(NAMES, ignore_index=True) for frame in (found, expected)]
    pd.testing.assert_frame_equal(*order, check_dtype=False)
    assert loaded.report.rows_read == len(frame) and not loaded.report.dropped, "rows are named that are sound"


@pytest.mark.parametrize("case", WRITTEN)
def test_law_same_records(tmp_path, case):
    name, content = WRITTEN[case](flows())
    (tmp_path / name).write_bytes(content)
    law_same_records(tmp_path / name, flows())


@pytest.mark.parametrize("spoil", [lambda t: t.replace(".", "", 1), lambda t: t.rsplit("\n", 2)[0] + "\n", lambda t: t.replace("PortScan", "BENIGN", 1)])
def test_law_same_records_catches(tmp_path, spoil):
    (tmp_path / "a.csv").write_text(spoil(text(flows())))
    with pytest.raises(AssertionError): law_same_records(tmp_path / "a.csv", flows())


# ---------------------------------------------------------------- refused in one sentence

PEOPLE = {  # what tools print for people: name -> text, and the way out
    "nfdump": ("Date first seen             Duration Proto      Src IP Addr:Port          Dst IP Addr:Port   Packets    Bytes Flows\n"
               + "2020-01-01 09:00:00.000        1.500 TCP         10.0.0.1:4000  ->     10.0.0.2:443          7    1.2 M     1\n" * 30, "nfdump -r FILE -o csv"),
    "ra": ("         StartTime      Flgs  Proto            SrcAddr  Sport   Dir            DstAddr  Dport  TotPkts   TotBytes State\n"
           + "   09:00:00.000001  e          tcp           10.0.0.1.4000      ->          10.0.0.2.443          7       1200   CON\n" * 30, "ra -r FILE"),
    "tshark": ("    1   0.000000     10.0.0.1 \u2192 10.0.0.2     TCP 74 4000 \u2192 443 [SYN] Seq=0 Win=64240\n" * 30, "tshark -r FILE -T fields"),
    "gaps": ("when   size  state\n" + "1.5  20 40  SF\n" * 30, "commas between the columns"),
    "html": ("<html><table><tr><td>1</td></tr></table></html>\n", "HTML or XML"),
    "columns": (json.dumps({"size": [1, 2, 3], "pause": [4, 5, 6]}), "one object a record"),
    "turned": (json.dumps({"size": {"0": 1, "1": 2}, "pause": {"0": 4, "1": 5}}), "one object a record")}


def law_refused(folder, opened=open_table):
    "What cannot be read as a table is refused in one sentence with the way out; in a folder it is left out and named."
    folder.mkdir(exist_ok=True)
    (folder / "good.csv").write_text(text(flows()))
    for name, (content, way) in PEOPLE.items():
        path = folder / f"{name}.txt"
        path.write_text(content)
        with pytest.raises(ValueError) as error: list(opened(path).batches([0]))
        assert way in str(error.value) and len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 400, name
    notes = load_dataset(folder, cache=False).report.notes
    assert all(any(f"{name}.txt" in note for note in notes) for name in PEOPLE)


def test_law_refused(tmp_path): law_refused(tmp_path / "all")


@pytest.mark.parametrize("broken", [
    lambda path: open_table(path, header=["all"]), lambda path: open_table(path) if path.stem != "gaps" else frame_table(flows(), path)])
def test_law_refused_catches(tmp_path, broken):
    with pytest.raises((AssertionError, pytest.fail.Exception)): law_refused(tmp_path / "all", broken)


def test_cells_over_several_lines_are_named(tmp_path):
    frame = flows(90).assign(note=["one\ntwo, three" if i % 3 == 0 else "x" for i in range(90)])
    frame.to_csv(tmp_path / "a.csv", index=False)
    report = load_dataset(tmp_path / "a.csv", cache=False).report
    assert report.rows_read == 120 and report.dropped == {"quote that does not end": 30, "line with too few fields": 30}
    assert any("write each record in one line" in note for note in report.notes)
    assert any("write each record in one line" in doubt for doubt in look_at(tmp_path / "a.csv").doubts)
    assert not load_dataset(tmp_path / "a.csv", cache=False, benign_label="BENIGN").report.notes[3:]


def test_aligned_lines_that_lack_a_cell_are_named(tmp_path):
    lines = flows().rename(columns=lambda name: name.replace(" ", "_")).to_string(index=False).split("\n")
    lines[7] = " ".join(lines[7].split()[1:])
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    report = load_dataset(tmp_path / "a.txt", cache=False).report
    assert report.rows_read == 60 and report.dropped == {"line with too few fields": 1}


def test_typed_files(tmp_path):
    flows().to_feather(tmp_path / "a.feather")
    flows().to_parquet(tmp_path / "A.PARQUET")
    for name in ("a.feather", "A.PARQUET"): law_same_records(tmp_path / name, flows())


def test_no_header(tmp_path):
    (tmp_path / "a.csv").write_text(text(flows(), header=False))
    with pytest.raises(ValueError, match="has no header line.*--header NAMES"): load_dataset(tmp_path / "a.csv", cache=False)
    law_same_records(tmp_path / "a.csv", flows(), header=NAMES)


# ---------------------------------------------------------------- folders

def days(folder):
    "Three days of records, for a folder."
    folder.mkdir()
    return [flows(seed=day) for day in range(3)]


def test_a_folder_of_all_kinds(tmp_path):
    parts = days(tmp_path / "days")
    (tmp_path / "days" / "2020").mkdir()
    (tmp_path / "days" / "mon.csv").write_text(text(parts[0]))
    (tmp_path / "days" / "2020" / "tue.csv.gz").write_bytes(gzip.compress(text(parts[1][NAMES[::-1]]).encode()))  # another order
    parts[2].to_parquet(tmp_path / "days" / "wed.parquet")
    for name, content in (("._mon.csv", "x"), ("README.txt", "three days"), ("empty.csv", ""), ("notes.docx", "x"), ("torn.csv", "\n")):
        (tmp_path / "days" / name).write_text(content)
    law_same_records(tmp_path / "days", pd.concat(parts, ignore_index=True))
    found, left_out = find_tables(tmp_path / "days")
    assert set(left_out) == {"._mon.csv", "README.txt", "empty.csv", "notes.docx"} and "torn.csv" in found
    notes = load_dataset(tmp_path / "days", cache=False).report.notes
    assert sum(note.startswith("file left out") for note in notes) == 5, "a file vanishes"


def test_a_partitioned_folder(tmp_path):
    parts = days(tmp_path / "days")
    for number, part in enumerate(parts):
        (tmp_path / "days" / f"day={number}").mkdir()
        part.to_parquet(tmp_path / "days" / f"day={number}" / "part-0.parquet")
    law_same_records(tmp_path / "days", pd.concat(parts, ignore_index=True))
    table = open_table(tmp_path / "days" / "day=2" / "part-0.parquet")
    batch, = table.batches((), [table.names.index("day")])
    assert set(batch.texts[table.names.index("day")].to_pylist()) == {"2"}


def test_the_same_rows_are_read_once(tmp_path):
    parts = days(tmp_path / "days")
    (tmp_path / "days" / "whole.csv").write_text(text(parts[0]))
    (tmp_path / "days" / "cut.csv").write_text(text(parts[0].iloc[:40].round(3)))
    law_same_records(tmp_path / "days", parts[0])


# ---------------------------------------------------------------- cells and columns

def test_odd_cells_cost_themselves_only(tmp_path):
    frame = flows().astype({"Flow IAT Mean": object})
    frame.loc[[3, 4, 7, 8], "Flow IAT Mean"] = ["0x0303", "1,17", "#DIV/0!", "Infinity"]
    frame.to_csv(tmp_path / "a.csv", index=False)
    kept = load_dataset(tmp_path / "a.csv", cache=False)
    assert len(kept) == 60 and kept.records["Flow IAT Mean is missing"].sum() == 4
    dropped = load_dataset(tmp_path / "a.csv", cache=False, missing="drop")
    assert len(dropped) == 56 and dropped.report.dropped == {"NaN or infinite": 4}


# how a spreadsheet, a converter or a sensor may write the same numbers
SPELT = {
    "percent": lambda x: f"{x:.3f}%", "milliseconds": lambda x: f"{1000 * x:.0f} ms", "thousands": lambda x: f"{x / 1000:.6f} K", "mega": lambda x: f"{x / 1e6:.9f}M",
    "bytes": lambda x: f"{x:.3f} B", "kibi": lambda x: f"{x / 1024:.9f} KiB"}


def law_units(path, frame, spell):
    "A column of numbers with units holds the numbers, in training and in scoring, and no row lacks one."
    names = ["size", "pause", "third"]
    plain = frame[NAMES[:3]].set_axis(names, axis=1)
    plain.map(spell).assign(Label=frame["Label"]).to_csv(path, index=False)
    loaded = load_dataset(path, cache=False)
    assert list(loaded.records) == [*names, "missing cells"] and (loaded.records["missing cells"] == 0).all()
    expected = plain[~plain.duplicated()]
    np.testing.assert_allclose(np.sort(loaded.records[names].to_numpy(), axis=0), np.sort(expected.to_numpy(), axis=0), rtol=1e-5)
    made = np.concatenate([batch.X for batch in open_table(path).records(loaded.recipe, "none")])
    np.testing.assert_allclose(made[:, :3], plain.to_numpy(), rtol=1e-5)


@pytest.mark.parametrize("how", SPELT)
def test_law_units(tmp_path, how): law_units(tmp_path / "a.csv", flows(), SPELT[how])


@pytest.mark.parametrize("spell", [lambda x: f"{x:.3f} stone", lambda x: f"{x:.3f} K", lambda x: f"about {x:.3f}"])
def test_law_units_catches(tmp_path, spell):
    with pytest.raises((AssertionError, ValueError)): law_units(tmp_path / "a.csv", flows(), spell)


def test_units_in_mixed_columns_and_odd_cells(tmp_path):
    frame = flows(60).rename(columns={name: f"own {i}" for i, name in enumerate(NAMES[:-1])}).astype({"own 1": object})
    frame["own 1"] = [f"{x} KB" if i % 2 else f"{x} MB" for i, x in enumerate(frame["own 1"])]
    frame.loc[[3, 4], "own 1"] = ["0x0303", "many KB"]
    frame.to_csv(tmp_path / "a.csv", index=False)
    loaded = load_dataset(tmp_path / "a.csv", cache=False)
    assert len(loaded) == 60 and loaded.records["own 1 is missing"].sum() == 2 and loaded.records["own 1"].max() > 1e6


def test_european_thousands(tmp_path):
    frame = flows(60).rename(columns={name: f"own {i}" for i, name in enumerate(NAMES[:-1])})
    frame["own 1"] = [f"{1000 * int(x) + 1_234_567:,}".replace(",", ".") for x in frame["own 1"]]
    for i in (0, 2, 3, 4): frame[f"own {i}"] = frame[f"own {i}"].round().astype(int)
    frame.to_csv(tmp_path / "a.csv", index=False, sep=";")
    assert load_dataset(tmp_path / "a.csv", cache=False).records["own 1"].min() >= 1_234_567


def law_hexadecimal(path, frame, spell):
    "A column of hexadecimal numbers is one of numbers, in training and in scoring; empty cells are marked."
    values = np.random.default_rng(3).integers(0, 5000, len(frame))
    cells = ["" if i == 6 else spell(x) for i, x in enumerate(values)]
    frame[NAMES[:2]].set_axis(["size", "pause"], axis=1).assign(window=cells, Label=frame["Label"]).to_csv(path, index=False)
    loaded = load_dataset(path, cache=False)
    assert loaded.records["window is missing"].sum() == 1
    made = np.concatenate([batch.X for batch in open_table(path).records(loaded.recipe, "none")])
    column = [feature.name for feature in loaded.recipe].index("window")
    assert np.array_equal(np.delete(made[:, column], 6), np.delete(values, 6))


def test_law_hexadecimal(tmp_path):
    for spell in (hex, lambda x: f"0x{x:08X}"): law_hexadecimal(tmp_path / "a.csv", flows(200), spell)


@pytest.mark.parametrize("spell", [lambda x: f"{x:x}", lambda x: f"0x{2 * x:x}"])
def test_law_hexadecimal_catches(tmp_path, spell):
    with pytest.raises((AssertionError, KeyError, ValueError)): law_hexadecimal(tmp_path / "a.csv", flows(200), spell)


def test_a_footer_is_named(tmp_path):
    (tmp_path / "a.csv").write_text(text(flows()) + "Summary\nflows,bytes\n60,123456\n")
    report = load_dataset(tmp_path / "a.csv", cache=False).report
    assert report.rows_read == 63 and report.dropped == {"line with too few fields": 3}


def test_a_column_that_is_nearly_empty_goes_and_the_rows_stay(tmp_path):
    frame = flows(300).assign(rare=np.nan)
    frame.loc[[7, 11], "rare"] = 1.0
    frame = frame.rename(columns={name: f"own {i}" for i, name in enumerate(NAMES[:-1])})
    frame.to_csv(tmp_path / "a.csv", index=False)
    loaded = load_dataset(tmp_path / "a.csv", cache=False)
    assert len(loaded) == 300 and loaded.report.columns_dropped["rare"] == "mostly empty"


def test_a_second_label_is_no_feature(tmp_path):
    frame = flows(200).rename(columns={name: f"own {i}" for i, name in enumerate(NAMES[:-1])})
    attack = frame["Label"] == "PortScan"
    frame = frame.assign(Attack_label=attack.astype(int), leak=np.where(attack, 3.0, 0.0))
    frame.to_csv(tmp_path / "a.csv", index=False)
    loaded = load_dataset(tmp_path / "a.csv", label_column="Label", cache=False)
    assert loaded.report.columns_dropped["Attack_label"] == "label" and "leak" not in loaded.records
    asked = load_dataset(tmp_path / "a.csv", ["own 1", "leak"], label_column="Label", cache=False)
    assert "leak" in asked.records, "a column that is asked for is not there"


def test_labels_of_one_and_minus_one(tmp_path):
    flows().replace({"BENIGN": "1", "PortScan": "-1"}).to_csv(tmp_path / "a.csv", index=False)
    assert load_dataset(tmp_path / "a.csv", benign_label="1", cache=False).is_attack.sum() == 10


def test_no_labels(tmp_path):
    flows().drop(columns="Label").to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(KeyError, match="--label-column none"): load_dataset(tmp_path / "a.csv", cache=False)
    flows().assign(Label="NeedManualLabel").to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ValueError, match="--label-column none"): load_dataset(tmp_path / "b.csv", cache=False)
    assert not load_dataset(tmp_path / "a.csv", label_column="none", cache=False).is_attack.any()


def test_seconds_for_microseconds(tmp_path):
    frame = flows().assign(**{"Flow Duration": 2.0e6, "Flow Packets/s": 10.0, "Total Fwd Packets": 12.0, "Total Backward Packets": 8.0})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.assign(**{"Flow Duration": 2.0}).to_csv(tmp_path / "b.csv", index=False)
    assert not doubts_about(open_table(tmp_path / "a.csv"))
    assert any("us expected, s seen" in doubt for doubt in doubts_about(open_table(tmp_path / "b.csv")))


# ---------------------------------------------------------------- sensors

ZEEK = {"ts": 1.6e9, "uid": "C1", "id.orig_h": "10.0.0.1", "id.orig_p": 5000, "id.resp_h": "10.0.0.2", "id.resp_p": 53, "proto": "udp",
        "service": "dns", "duration": 0.5, "orig_bytes": 40, "resp_bytes": 90, "conn_state": "SF", "history": "Dd", "orig_pkts": 1, "resp_pkts": 1}


def connections(n=50):
    "Records of Zeek; every fifth connection was not answered."
    rng = np.random.default_rng(2)
    answered = lambda i: {} if i % 5 else {"duration": None, "orig_bytes": None, "resp_bytes": None, "conn_state": "S0", "history": "D"}
    return [ZEEK | {"ts": 1.6e9 + i, "uid": f"C{i}", "orig_bytes": int(rng.integers(30, 90)), "orig_pkts": int(rng.integers(1, 9))} | answered(i) for i in range(n)]


def zeek_log(records):
    "The log as Zeek writes it."
    cell = lambda value: "-" if value is None else str(value)
    rows = ["\t".join(cell(record[name]) for name in ZEEK) for record in records]
    return "\n".join(["#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-", "#path\tconn",
                      "#fields\t" + "\t".join(ZEEK), *rows, "#close\t2020-10-06-18-00-00"]) + "\n"


def test_zeek_in_three_ways(tmp_path):
    (tmp_path / "conn.log").write_text(zeek_log(connections()))
    (tmp_path / "conn.json").write_text("".join(json.dumps({k: v for k, v in record.items() if v is not None}) + "\n" for record in connections()))
    pd.DataFrame(connections()).to_csv(tmp_path / "conn.csv", index=False)
    loaded = [load_dataset(tmp_path / f"conn.{ending}", cache=False) for ending in ("log", "json", "csv")]
    first = loaded[0].records
    assert {"duration is missing", "conn_state is s0", "d in history"} <= set(first)
    assert first["duration is missing"].sum() > 0 and not loaded[0].is_attack.any()
    for other in loaded[1:]: np.testing.assert_array_equal(first[sorted(first)], other.records[sorted(first)])


def test_events_that_are_no_flows_are_named(tmp_path):
    flow = {"event_type": "flow", "src_ip": "10.0.0.1", "dest_ip": "10.0.0.2", "proto": "TCP", "flow": {"pkts_toserver": 3, "bytes_toserver": 200}}
    events = [flow | {"flow": {"pkts_toserver": i, "bytes_toserver": 60 * i + i % 3}} for i in range(1, 40)]
    lines = [json.dumps(event) for event in [*events[:5], {"event_type": "alert", "flow": flow["flow"]}, *events[5:]]]
    (tmp_path / "eve.json").write_text("\n".join(lines) + "\n")
    report = load_dataset(tmp_path / "eve.json", label_column="none", cache=False).report
    assert report.rows_read == 40 and report.dropped == {"event that is no flow": 1}


def test_background_is_neither_benign_nor_an_attack(tmp_path):
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"StartTime": "2011/08/10 09:46:53.047277", "Dur": rng.random(90), "Proto": "tcp", "SrcAddr": "10.0.0.1", "Sport": "0x0303",
                          "Dir": "->", "DstAddr": "10.0.0.2", "Dport": 80, "State": "CON", "TotPkts": rng.integers(1, 90, 90), "TotBytes": rng.integers(60, 9000, 90),
                          "SrcBytes": rng.integers(60, 900, 90), "Label": np.repeat(["flow=Background", "flow=From-Normal-V42-Grill", "flow=From-Botnet-V42-TCP"], 30)})
    frame.to_csv(tmp_path / "capture.binetflow", index=False)
    loaded = load_dataset(tmp_path / "capture.binetflow", cache=False)
    assert loaded.is_attack.sum() == 30 and len(loaded) == 60
    assert loaded.report.dropped == {"background: not known to be benign or attack": 30}
    told = load_dataset(tmp_path / "capture.binetflow", benign_label=["flow=Background"], cache=False)
    assert (~told.is_attack).sum() >= 30


# ---------------------------------------------------------------- what inspect says

def test_inspect_says_what_training_will_do(tmp_path):
    (tmp_path / "conn.log").write_text(zeek_log(connections()))
    seen = look_at(tmp_path / "conn.log")
    use = seen.columns.set_index(seen.columns["column"].str.split(" ").str[0])["use"]
    assert (seen.n_rows, seen.vocabulary) == (50, "zeek") and use["duration"] == "feature and an indicator of missing ones"
    assert use["uid"] == use["ts"] == "passed through to the scores" and "no labels" in " ".join(seen.doubts)
    assert json.loads(json.dumps(seen.to_dict()))["n_rows"] == 50


# ---------------------------------------------------------------- what a newcomer broke

def test_german_numbers(tmp_path):
    shuffled = [7 * i % 30 for i in range(30)]
    lines = ["Bytes;Dauer;Label", *[f"{1 + i}.168;0,{842 + i};BENIGN" for i in shuffled]]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    loaded = load_dataset(tmp_path / "a.csv", cache=False)
    assert loaded.records["Bytes"].tolist()[:2] == [1168, 8168] and loaded.records["Dauer"].tolist()[:2] == [0.842, 0.849]


def test_a_repeated_header_is_no_record_anywhere(tmp_path):
    (tmp_path / "a.csv").write_text(text(flows()) * 2)
    faults = [why for batch in open_table(tmp_path / "a.csv").batches([0]) for why in batch.faults]
    assert len(faults) == 121 and faults.count("repeated header line") == 1 and faults.count(None) == 120


def test_zeek_with_commas(tmp_path):
    log = zeek_log(connections()).replace(",", " ").replace("\\x09", "\\x2c").replace("\t", ",")
    (tmp_path / "conn.log").write_text(log)
    assert open_table(tmp_path / "conn.log").names[:3] == ("ts", "uid", "id.orig_h")


def test_what_is_no_file_is_named(tmp_path):
    days(tmp_path / "days")
    (tmp_path / "days" / "mon.csv").write_text(text(flows()))
    (tmp_path / "days" / "tue.csv").symlink_to(tmp_path / "away.csv")
    assert find_tables(tmp_path / "days")[1] == {"tue.csv": "no plain file"}


def test_inspect_opens_what_training_opens():
    seen = look_at("demo")
    assert seen.n_rows == 10_100 and seen.classes["BENIGN"] == 8000 and not seen.doubts


# ---------------------------------------------------------------- nothing below a header, and what can be read only once

@pytest.mark.parametrize("content", ["size,pause,Label\n", "size,pause,Label", "size;pause;Label\r\n"])
@pytest.mark.parametrize("cache", [True, False])
def test_a_header_alone(tmp_path, content, cache):
    (tmp_path / "night.csv").write_text(content)
    with pytest.raises(ValueError, match=r"no rows below the header of .*night\.csv$"): load_dataset(tmp_path / "night.csv", cache=cache)
    seen = look_at(tmp_path / "night.csv")
    assert seen.doubts == ("no rows below the header",) and "nan" not in str(seen) and seen.n_rows == 0


def test_a_pipe_is_refused_by_the_library_and_copied_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (open_table, find_tables, look_at, lambda path: load_dataset(path, cache=False)):
        with pytest.raises(ValueError, match="is a pipe, which is read once"): read(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(text(flows()),))
    writer.start()
    copy = copied_pipe(tmp_path / "pipe")
    writer.join()
    assert copy.is_file() and not is_pipe(copy) and copy.read_text() == text(flows())
    law_same_records(copy, flows())


def test_negative_durations_are_named(tmp_path):
    frame = flows()
    frame.loc[[3, 9], "Flow Duration"] = -1
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert any(note.startswith("2 rows with a negative 'Flow Duration'") for note in load_dataset(tmp_path / "a.csv", cache=False).report.notes)
    assert load_dataset(tmp_path / "a.csv", cache=False, missing="drop").report.dropped == {"negative duration": 2}
    own = frame.rename(columns={"Flow Duration": "dur"})[["dur", "Label"]].assign(size=range(60)[::-1])
    own.to_csv(tmp_path / "b.csv", index=False)
    assert any("negative 'dur'" in note for note in load_dataset(tmp_path / "b.csv", cache=False).report.notes)


def test_inspect_shows_the_base_unit_of_cells_with_units(tmp_path):
    frame = flows().assign(rate=[f"{i + 1}.5 Kbps" for i in range(60)], wait=[f"{i} ms" for i in range(60)])
    frame.to_csv(tmp_path / "a.csv", index=False)
    columns = look_at(tmp_path / "a.csv").columns.set_index("column")
    assert columns.loc[["rate", "wait"], "unit"].tolist() == ["bps", "s"] and columns.loc["rate", "values"] == "1500 to 6.05e+04"
