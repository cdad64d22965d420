"""Laws of cleaning, labels and the cache, each with a broken twin that must fail; bad input; the real files."""
import dataclasses
import re
import shutil
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from conftest import needs_data
from nfad import data, tables, vocabulary
from nfad.catalog import locate
from nfad.columns import make_plan
from nfad.contents import whole_lines
from nfad.data import load_dataset, row_ids
from nfad.tables import ReadReport, open_table
from generated import case
from samples import HEADER, ROWS, demo, law_min_mean_max, real, write


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NFAD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


# ---------------------------------------------------------------- cleaning

def law_clean(dataset):
    "The account adds up; what is left is finite, distinct within its class, of no negative duration, without identifiers."
    r = dataset.report
    assert r.rows_read == r.rows_kept + sum(r.dropped.values()), "rows are lost"
    assert r.rows_kept == len(dataset) == sum(r.classes.values()) == len(dataset.is_attack) == len(dataset.attack)
    assert np.isfinite(dataset.records.to_numpy()).all(), "not finite"
    assert (dataset.copies >= 1).all() and dataset.copies.sum() == len(dataset) + r.dropped.get("duplicate", 0), "copies are miscounted"
    assert not dataset.records.assign(_attack=dataset.attack).duplicated().any(), "a duplicate"
    is_plain = all(feature.how == "number" and np.isnan(feature.fill) for feature in dataset.recipe)  # else all rows stay
    if is_plain and "Flow Duration" in dataset.records: assert (dataset.records["Flow Duration"] >= 0).all(), "a negative duration"
    assert all(vocabulary.column_role(c) == "feature" for c in dataset.records), "an identifier is a feature"
    assert ((dataset.attack != "benign") == dataset.is_attack).all()
    assert not np.isin(["day", "conversation"], dataset.records.columns).any()
    assert (dataset.records.dtypes == np.float64).all()


def test_law_clean(demo): law_clean(demo)


@pytest.mark.parametrize("spoil, message", [
    (lambda d: dataclasses.replace(d, report=dataclasses.replace(d.report, rows_read=d.report.rows_read + 1)), "lost"),
    (lambda d: dataclasses.replace(d, records=d.records.replace(d.records.iat[0, 0], np.inf)), "finite"),
    (lambda d: dataclasses.replace(d, copies=d.copies + 1), "miscounted"),
    (lambda d: dataclasses.replace(d, records=d.records * 0), "duplicate"),
    (lambda d: dataclasses.replace(d, records=d.records.assign(**{"Flow Duration": -1.0 - np.arange(len(d))})), "negative"),
    (lambda d: dataclasses.replace(d, records=d.records.assign(Protocol=6.0)), "identifier"),
])
def test_law_clean_catches(demo, spoil, message):
    with pytest.raises(AssertionError, match=message): law_clean(spoil(demo))


REASONS = [*ROWS, ROWS[0].replace(",80,", ",443,"), "15,2,Infinity,40,1,80,BENIGN", "16,2,NaN,40,1,80,BENIGN", "-1,2,5,40,1,80,BENIGN",
           ",,,,,,", "", "17,2,5.0,40,1,80,", HEADER, "18,2,5.0,40,1,80,DoS Hulk - Attempted", "18,2,5.0,40,1,80,BENIGN,7", "18,2", "19,2,5.0"]
NAMED = {"empty line": 2, "truncated last line": 1, "line with too many fields": 1, "line with too few fields": 1, "repeated header line": 1,
         "no label": 1, "attempted attack, no effect": 1, "duplicate": 1}


def test_each_reason_is_counted(tmp_path):
    d = load_dataset(write(tmp_path / "a.csv", REASONS, end=""), missing="drop")
    law_clean(d)
    assert d.report.rows_read == len(REASONS) and len(d) == 4
    assert d.report.dropped == NAMED | {"NaN or infinite": 2, "negative duration": 1}


def test_rows_with_missing_numbers_stay_and_are_marked(tmp_path):
    d = load_dataset(write(tmp_path / "a.csv", REASONS, end=""))
    law_clean(d)
    assert d.report.rows_read == len(REASONS) and len(d) == 7 and d.report.dropped == NAMED
    assert "2 rows with missing numbers, filled and marked" in d.report.notes
    rates = d.records["Flow Bytes/s"]
    assert d.records["Flow Bytes/s is missing"].tolist() == [0, 0, 0, 0, 1, 1, 0]
    assert (rates[4:6] == np.median([5, 6, 7, 5, 5])).all(), "the median of the benign rows that have a number"
    assert (d.records["missing cells"] == 0).all(), "no gap that benign rows do not have"


def test_words_among_numbers_are_missing_numbers(tmp_path):
    path = write(tmp_path / "a.csv", [*ROWS, "17,two,5.0,40,1,80,BENIGN", "18,0x1f,5.0,40,1,80,Bot"])
    d = load_dataset(path)
    assert len(d) == 6 and d.records["Total Fwd Packets is missing"].tolist() == [0, 0, 0, 0, 1, 1]
    d = load_dataset(path, missing="drop")
    assert len(d) == 4 and d.report.dropped == {"NaN or infinite": 2}


@pytest.mark.parametrize("tail, cut", [("15,2,5.0,40,1,80,BEN", 1), ("15,2,5.0,40,1,80,BENIGN", 0), ("15,2,5.0,40,1,80,BEN\n", 0),
                                       ("15,2", 1),
                                       ("15,2,5.0,40,1,80,", 0), ("15,2,5.0,40,1,80", 1)])
def test_truncated_last_line(tmp_path, tail, cut):
    path = write(tmp_path / "a.csv", [*ROWS, tail], end="")
    assert load_dataset(path).report.dropped.get("truncated last line", 0) == cut


def test_row_ids_tell_rows_apart(demo):
    records = pd.concat([demo.records, demo.records.iloc[:50] + 0.0])
    assert len(np.unique(row_ids(records))) == len(records.drop_duplicates()) == len(demo)


def test_duplicates_are_judged_on_the_chosen_columns(tmp_path):
    path = write(tmp_path / "a.csv", ["10,2,5,40,1,80,BENIGN", "10,2,5,40,1,443,BENIGN", "10,2,5,40,2,80,BENIGN", "11,3,5,40,1,80,Bot"])
    assert len(load_dataset(path)) == 3
    assert len(load_dataset(path, ["Flow Duration", "Destination Port"])) == 3
    assert len(load_dataset(path, ["Flow Duration"])) == 2


def test_ambiguous_vectors_are_counted_and_kept(tmp_path):
    d = load_dataset(write(tmp_path / "a.csv", [*ROWS, ROWS[0].replace("BENIGN", "Bot"), ROWS[0].replace("BENIGN", "DDoS")]))
    assert len(d) == 6 and d.report.n_ambiguous == 1


def test_constant_columns(tmp_path):
    path = write(tmp_path / "a.csv", [r.replace(",2,", ",3,").replace(",4,", ",3,").replace(",9,1.5", ",3,1.5") for r in ROWS])
    d = load_dataset(path)
    assert "Total Fwd Packets" not in d.records and d.report.columns_dropped["Total Fwd Packets"] == "constant"
    d = load_dataset(path, ["Total Fwd Packets", "Flow Duration"])
    assert list(d.records) == ["Total Fwd Packets", "Flow Duration", "missing cells"] and "Total Fwd Packets" in d.report.notes[0]


def test_a_shortcut_is_noted(tmp_path):
    rows = ["10,2,0,40,1,80,BENIGN", "12,3,0,60,2,80,BENIGN", "14,4,0,80,3,80,BENIGN", "99,9,1.5,40,9,22,PortScan"]
    assert "Flow Bytes/s" in load_dataset(write(tmp_path / "a.csv", rows)).report.notes[0]


def test_report_is_json_and_table(demo):
    import json
    assert json.loads(json.dumps(demo.report.to_dict()))["rows_kept"] == len(demo)
    assert demo.report.table()["rows"].iloc[0] == demo.report.rows_read
    assert "duplicate" in demo.report._repr_html_()


# ---------------------------------------------------------------- layouts

@pytest.mark.parametrize("repeat", [" Fwd Header Length", "Fwd Header Length.1"])
def test_repeated_header_column_is_left_out(tmp_path, repeat):
    rows = [r.replace(",40,", ",40,40,").replace(",60,", ",60,60,").replace(",80,3", ",80,80,3") for r in ROWS]
    d = load_dataset(write(tmp_path / "a.csv", rows, HEADER.replace("Fwd IAT Max", repeat.strip() + ", Fwd IAT Max")))
    assert d.report.columns_dropped["Fwd Header Length.1"] == "identifier" and len(d) == 4


@pytest.mark.parametrize("header", [HEADER, HEADER + ","])
def test_a_delimiter_behind_every_line_costs_no_row(tmp_path, header):
    d = load_dataset(write(tmp_path / "a.csv", [row + "," for row in ROWS], header), cache=False)
    assert len(d) == 4 and d.report.dropped == {}


@pytest.mark.parametrize("dash", ["\u2013".encode(), b"\x96", "\ufffd".encode(), "ï¿½".encode(), b"-"])
def test_web_attack_dashes(tmp_path, dash):
    path = write(tmp_path / "a.csv")
    path.write_bytes(path.read_bytes() + b"77,9,1.5,40,9,80,Web Attack " + dash + b" Sql Injection\n")
    assert load_dataset(path).attack[-1] == "Web Attack SQL Injection"


def test_folder_of_day_files(tmp_path):
    write(tmp_path / "cicids2017" / "Monday-WorkingHours.pcap_ISCX.csv", ROWS[:3])
    rows, header = [r.replace(",2,", ",7,") for r in ROWS], HEADER.replace(" Fwd", "Fwd")
    write(tmp_path / "cicids2017" / "Tuesday-WorkingHours.pcap_ISCX.csv", rows, header)
    d = load_dataset("cicids2017", folder=tmp_path)
    assert sorted(set(d.day)) == ["2017-07-03", "2017-07-04"] and d.report.rows_read == 7 and len(d.report.files) == 2


def test_per_attack_files_have_the_label_in_their_name(tmp_path):
    header = ",".join(["Protocol Type", "Number", *vocabulary.IOT_COLUMNS])
    rows = [",".join(str(i + j) for j in range(39)) for i in range(3)]
    write(tmp_path / "ciciot2023" / "BenignTraffic3.pcap.csv", rows, header)
    write(tmp_path / "ciciot2023" / "Recon-PingSweep.pcap.csv", [r.replace("0,", "9,", 1) for r in rows], header)
    d = load_dataset("ciciot2023", folder=tmp_path)
    assert set(d.attack) == {"benign", "Recon Ping Sweep"} and not {"Number", "Protocol Type"} & set(d.records)
    assert "Number" in load_dataset("ciciot2023", ["Number", "Rate"], folder=tmp_path).records


def test_own_file_with_own_names(tmp_path):
    path = write(tmp_path / "own.csv", ["1,2.5,tcp,ok", "2,2.5,udp,ok", "3,4,tcp,bad"], "id,size,service_name,state")
    d = load_dataset(path, label_column="state", benign_label="ok")
    assert list(d.records) == ["size", "missing cells"] and d.attack.tolist() == ["benign", "bad"]
    d = load_dataset(path, label_column="none")
    assert not d.is_attack.any()
    frame = pd.read_csv(path)
    frame.to_parquet(tmp_path / "own.parquet")
    other = load_dataset(tmp_path / "own.parquet", label_column="state", benign_label="ok")
    assert other.records.equals(load_dataset(path, label_column="state", benign_label="ok").records)


def test_numeric_labels(tmp_path):
    d = load_dataset(write(tmp_path / "own.csv", ["1,0", "2,0.0", "3,1"], "size,label"))
    assert d.attack.tolist() == ["benign", "benign", "1"]
    assert load_dataset(tmp_path / "own.csv", benign_label="1").attack.tolist() == ["0", "0", "benign"]


@pytest.mark.parametrize("quote", ["", "'"])
def test_arff(tmp_path, quote):
    head = ["@relation x", "", f"@attribute {quote}size{quote} numeric", "@ATTRIBUTE rate real", "@attribute class1 {TOR,NONTOR}", "@data"]
    body = [f"1,2,{quote}NONTOR{quote}", "% a remark", f"2,?,{quote}NONTOR{quote}", f"3,4,{quote}TOR{quote}", f"5,6,{quote}TOR{quote}"]
    path = tmp_path / "a.arff"
    path.write_text("\n".join(head + body) + "\n9,", encoding="utf-8")
    d = load_dataset(path)
    assert d.attack.tolist() == ["benign", "benign", "TOR", "TOR"] and d.report.dropped == {"truncated last line": 1}
    assert d.records["rate is missing"].tolist() == [0, 1, 0, 0] and d.records["rate"].tolist() == [2, 2, 4, 6]
    d = load_dataset(path, missing="drop")
    assert d.attack.tolist() == ["benign", "TOR", "TOR"] and d.report.dropped == {"truncated last line": 1, "NaN or infinite": 1}


def test_pickles_of_the_paper(tmp_path):
    frame = pd.DataFrame(np.arange(40.).reshape(8, 5), columns=vocabulary.FLOW_COLUMNS[:5])
    frame.iloc[:5].to_pickle(tmp_path / "BENIGN.pkl")
    frame.iloc[5:].to_pickle(tmp_path / "ATTACK.pkl")
    with pytest.raises(ValueError, match="runs the code inside"): load_dataset(tmp_path)
    d = load_dataset(tmp_path, allow_pickle=True)
    assert d.report.classes == {"benign": 5, "ATTACK": 3}
    pd.Series([1]).to_pickle(tmp_path / "ATTACK.pkl")
    with pytest.raises(TypeError, match="DataFrame"): load_dataset(tmp_path, allow_pickle=True)


# ---------------------------------------------------------------- the cache

def test_cache_is_used_and_follows_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("NFAD_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "a.csv", end="\n1,2")
    first = load_dataset(path)
    (copy,) = (tmp_path / "cache" / "data").iterdir()
    with monkeypatch.context() as m:
        m.setattr(data, "_normalise", lambda *a: pytest.fail("the file was parsed again"))
        second = load_dataset(path)
        assert second.records.equals(first.records) and second.report == first.report
        assert list(load_dataset(path, ["Flow Duration"]).records) == ["Flow Duration", "missing cells"]
    write(path, [*ROWS, "55,5,5,50,5,55,BENIGN"])
    assert len(load_dataset(path)) == 5
    assert [p.name == copy.name for p in (tmp_path / "cache" / "data").iterdir()] == [False], "the old copy stays"


def test_the_cache_follows_the_names_that_were_passed(tmp_path, monkeypatch):
    monkeypatch.setenv("NFAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.csv").write_text("".join(f"{i % 3},{i}\n" for i in range(1, 9)))
    for names in (["Label", "size"], ["size", "Label"]):
        cached, plain = (load_dataset(tmp_path / "own.csv", header=names, benign_label=["1", "2"], cache=cache) for cache in (True, False))
        assert cached.records.equals(plain.records) and cached.report == plain.report, names


def test_law_a_cache_is_what_was_read(tmp_path, monkeypatch):
    monkeypatch.setenv("NFAD_CACHE", str(tmp_path / "cache"))
    for number in range(1, 40, 3):
        made = case(number)
        path = tmp_path / f"{number}{made.ending}"
        path.write_bytes(made.content)
        plain, first, again = (load_dataset(path, header=made.header, cache=cache) for cache in (False, True, True))
        for other in (first, again): assert other.records.equals(plain.records) and other.report == plain.report and (other.attack == plain.attack).all()


def test_interrupted_reading_leaves_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NFAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "BATCH", 2)
    path = write(tmp_path / "a.csv", ROWS * 3)
    whole, n_frames = data._normalise, iter(range(9))
    def interrupted(*given):
        if next(n_frames) == 3: raise KeyboardInterrupt
        return whole(*given)
    with monkeypatch.context() as m:
        m.setattr(data, "_normalise", interrupted)
        with pytest.raises(KeyboardInterrupt): load_dataset(path)
    assert list((tmp_path / "cache" / "data").iterdir()) == [] and load_dataset(path).report.rows_read == 12


def test_without_cache_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("NFAD_CACHE", str(tmp_path / "cache"))
    cached, plain = load_dataset(write(tmp_path / "a.csv")), load_dataset(write(tmp_path / "a.csv"), cache=False)
    assert plain.records.equals(cached.records) and plain.report == cached.report
    shutil.rmtree(tmp_path / "cache")
    load_dataset(tmp_path / "a.csv", cache=False)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_chunks_do_not_matter(tmp_path, monkeypatch, chunk):
    rows = [*ROWS, "", *[f"{i},{i % 7},{i}.5,40,3,80,BENIGN" for i in range(20)], HEADER, "1,2"]
    path = write(tmp_path / "a.csv", rows, end="")
    whole = load_dataset(path, cache=False)
    monkeypatch.setattr(data, "BATCH", chunk)
    again = load_dataset(path)
    assert again.records.equals(whole.records) and again.report.dropped == whole.report.dropped


def test_large_classes_are_drawn(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", [*[f"{i},2,{i}.5,40,{i % 9},80,BENIGN" for i in range(100)], *ROWS[3:]])
    d = load_dataset(path, max_per_class=30)
    law_clean(d)
    assert d.report.classes == {"benign": 30, "PortScan": 1} and d.report.dropped == {"above 30 of one label, drawn": 70}
    monkeypatch.setattr(data, "BATCH", 7)
    assert load_dataset(path, max_per_class=30).records.equals(d.records)
    with pytest.raises(ValueError, match="max_per_class"): load_dataset(path, max_per_class=0)


def peak_of_reading(path, chunk, monkeypatch):
    "Bytes of Python and of Arrow at the worst moment of writing the cache."
    monkeypatch.setattr(data, "BATCH", chunk)
    monkeypatch.setattr(tables, "whole_lines", partial(whole_lines, size=16 * chunk))
    table = open_table(path)
    plan = make_plan([table])
    base, arrow = pa.total_allocated_bytes(), []
    def watched(frames):
        for frame in frames:
            arrow.append(pa.total_allocated_bytes() - base)
            yield frame
    tracemalloc.start()
    frames = data._frames([table], plan, plan.features, table.report, False)
    data._write_cache(path.with_suffix(".parquet"), watched(frames), table.report)
    peak = tracemalloc.get_traced_memory()[1] + max(arrow)
    tracemalloc.stop()
    return peak


def test_memory_is_flat_in_the_file_size(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_HEAD", 1 << 14)
    line = ["10,2,5.0,40,1,80,BENIGN"]
    small, large = (write(tmp_path / f"{n}.csv", line * n) for n in (20_000, 80_000))
    assert peak_of_reading(large, 5_000, monkeypatch) < 1.3 * peak_of_reading(small, 5_000, monkeypatch)
    assert peak_of_reading(large, 10**6, monkeypatch) > 1.4 * peak_of_reading(small, 10**6, monkeypatch), "the law cannot fail"


# ---------------------------------------------------------------- bad input

@pytest.mark.parametrize("text, options, error, message", [
    ("", {}, ValueError, "is empty"),
    ("\n\n", {}, ValueError, "no header"),
    (HEADER + "\n", {}, ValueError, "no labelled rows|no rows"),
    (HEADER + "\n" + ROWS[0], {"label_column": "Lable"}, KeyError, "did you mean 'Label'"),
    (HEADER.replace(", Label", ",x") + "\n" + ROWS[0], {}, KeyError, "pass label_column"),
    (HEADER + "\n" + ROWS[3], {}, ValueError, "no benign rows.*PortScan"),
    (HEADER + "\n" + ROWS[0], {"benign_label": "ok"}, ValueError, "no benign rows.*'ok'.*BENIGN"),
    ("\n".join([HEADER, *ROWS]), {"missing": "skip"}, ValueError, "missing must be one of"),
    ("\n".join([HEADER, *ROWS]), {"columns": ["Flow Duratoin"]}, KeyError, "did you mean 'Flow Duration'"),
    ("\n".join([HEADER, *ROWS]), {"columns": []}, ValueError, "no numeric feature"),
    ("a,label\nx,BENIGN\ny,bad\n", {}, ValueError, "no column that holds values on benign rows"),
    ("\n".join([HEADER, *[r.replace("5.0", "NaN").replace("6.0", "").replace("7.0", "inf").replace("1.5", "NaN") for r in ROWS]]),
     {"columns": ["Flow Bytes/s"]}, ValueError, "no column that holds values on benign rows.*Flow Bytes/s.*empty"),
    ("\n".join([HEADER, *[r.replace("5.0", "NaN").replace("6.0", "").replace("7.0", "inf").replace("1.5", "NaN") for r in ROWS]]),
     {"columns": ["Flow Bytes/s"], "missing": "drop"}, ValueError, "no finite value"),
    ("1,2,BENIGN\n3,4,bad\n", {}, ValueError, "pass header, the names of its 3 columns"),
])
def test_bad_files(tmp_path, text, options, error, message):
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message): load_dataset(path, **options)


def test_a_file_without_a_header_is_read_with_names(tmp_path):
    (tmp_path / "own.csv").write_text("1,2,BENIGN\n3,4,bad\n5,7,BENIGN\n")
    d = load_dataset(tmp_path / "own.csv", header=["size", "pause", "Label"])
    assert d.records["size"].tolist() == [1, 3, 5] and d.attack.tolist() == ["benign", "bad", "benign"]


def test_named_set_with_unknown_columns_or_no_label(tmp_path):
    write(tmp_path / "csecicids2018" / "a.csv", ["1,2,0"], "x,y,Label")
    with pytest.raises(ValueError, match="no vocabulary known"): load_dataset("csecicids2018", folder=tmp_path)
    write(tmp_path / "csecicids2018" / "a.csv", header=HEADER.replace(" Label", " y"))
    with pytest.raises(KeyError, match="no label column"): load_dataset("csecicids2018", folder=tmp_path)


# ---------------------------------------------------------------- real data

READ = {  # name: rows, benign, attacks as data/README of the samples has them
    "cicids2017": (40_446, 33_534, 6_912), "cicids2017_improved": (56_277, 7_492, 48_785), "tor2016": (16_144, 8_100, 8_044),
    "tor2016_15s": (22_072, 18_758, 3_314), "ciciot2023": (111_502, 2_000, 109_502), "cicddos2019": (104_528, 34_575, 69_953),
    "csecicids2018": (6_594, 3_822, 2_772), "tiissrc23": (960, 480, 480)}
KEPT = {"cicids2017": 35_777, "cicids2017_improved": 43_309, "tor2016": 14_747, "tor2016_15s": 21_326, "ciciot2023": 103_973,
        "cicddos2019": 102_745, "csecicids2018": 4_622, "tiissrc23": 960}


@needs_data
@pytest.mark.parametrize("name", READ)
def test_real_sets(name):
    d = real(name)
    law_clean(d)
    assert d.report.rows_read == READ[name][0] and len(d) == KEPT[name]
    assert (~d.is_attack).sum() <= READ[name][1] and d.is_attack.sum() <= READ[name][2]


@needs_data
def test_labels_before_cleaning(data_dir, monkeypatch):
    for name, (rows, benign, attacks) in READ.items():
        source, paths, _ = locate(name, data_dir)
        report = ReadReport()
        tables = [data._open_source(source, path, report, False, False, ()) for path in paths.values()]
        plan = make_plan(tables, source)
        frame, _ = data._read(tables, plan, plan.features[:1], False, False, None)
        is_attack, _ = data._classes(frame["_label"], None, report)
        assert (len(frame), (~is_attack).sum(), is_attack.sum()) == (rows, benign, attacks), name


@needs_data
def test_raw_tor_csv_equals_parquet(data_dir):
    raw, parquet = load_dataset(data_dir / "tor2016" / "raw" / "tor_nontor.csv", missing="drop"), real("tor2016")
    assert raw.report.rows_read == 16_144 and raw.records.equals(parquet.records) and (raw.groups == parquet.groups).all()


@needs_data
def test_tor_15s_columns_are_put_right(data_dir):
    d = real("tor2016_15s")
    law_min_mean_max(d.records)
    raw = pd.read_parquet(data_dir / "tor2016" / "tor2016_15s.parquet")
    raw.columns = vocabulary.canonical_columns(raw.columns)
    with pytest.raises(AssertionError, match="Fwd IAT"): law_min_mean_max(raw)
    assert not (d.records[["Fwd IAT Max", "Idle Min", "Active Max"]] < 0).any(axis=None) and (d.records["Flow IAT Min"] < -1).any()
    repaired, shifted, unfit = vocabulary.repair_tor_rows(raw)
    assert (shifted == (raw["class1"] == "NONTOR")).all() and not unfit.any()


@needs_data
def test_raw_arff_equals_parquet(data_dir):
    path = data_dir / "tor2016" / "raw" / "TimeBasedFeatures-15s-TOR-NonTOR-85.arff"
    raw, parquet = load_dataset(path, missing="drop"), real("tor2016_15s")
    assert raw.report.rows_read == 18_761
    assert np.isin(row_ids(raw.records), row_ids(parquet.records[list(raw.records)])).all()


@needs_data
def test_raw_ids2017(data_dir, tmp_path):
    (tmp_path / "cicids2017").mkdir()
    for f in (data_dir / "cicids2017" / "raw").glob("*.csv"): (tmp_path / "cicids2017" / f.name).symlink_to(f)
    d = load_dataset("cicids2017", folder=tmp_path)
    law_clean(d)
    assert d.report.rows_read == 10_998 and set(d.day) == {"", "2017-07-07"}
    sample = pd.read_parquet(data_dir / "cicids2017" / "cicids2017.parquet")
    sample = sample[sample["source"].isin(["paris", "mahdi"])]
    sample.columns = vocabulary.canonical_columns(sample.columns)
    other = sample.loc[np.isfinite(sample[d.records.columns]).all(axis=1), list(d.records)]
    assert np.isin(row_ids(d.records.round(3)), row_ids(other.round(3))).mean() > 0.999


@needs_data
def test_raw_ids2018(data_dir):
    raw, parquet = load_dataset(data_dir / "csecicids2018" / "raw", missing="drop"), real("csecicids2018")
    assert raw.report.rows_read == 6_594 and raw.report.classes == parquet.report.classes
    assert set(row_ids(raw.records)) == set(row_ids(parquet.records[list(raw.records)]))


@needs_data
def test_raw_iot(data_dir, tmp_path):
    (tmp_path / "ciciot2023").mkdir()
    for f in (data_dir / "ciciot2023" / "raw").glob("*.csv"): (tmp_path / "ciciot2023" / f.name).symlink_to(f)
    d, parquet = load_dataset("ciciot2023", folder=tmp_path), real("ciciot2023")
    assert d.report.rows_read == 26_759
    assert d.report.classes["Web Attack SQL Injection"] == parquet.report.classes["Web Attack SQL Injection"]
    one, other = (x.records[x.attack == "Recon Ping Sweep"].to_numpy() for x in (d, parquet))
    assert np.allclose(one, other)


@needs_data
def test_raw_ddos2019_is_cut_off(data_dir):
    d = load_dataset(data_dir / "cicddos2019" / "raw")
    law_clean(d)
    assert d.report.dropped["truncated last line"] == 2 and d.report.rows_read == 872
    assert set(d.day) == {"2018-12-01"} and d.groups is not None and d.report.columns_dropped["SimillarHTTP"] == "identifier"


@needs_data
def test_cicflowmeter_export_without_labels(data_dir):
    path = data_dir / "pcap" / "cicflowmeter_test.csv"
    with pytest.raises(ValueError, match="no benign rows.*No Label"): load_dataset(path)
    d = load_dataset(path, label_column="none")
    assert d.report.rows_read == 96 and not d.is_attack.any()


def law_kept_by_code(place, tmp_path, monkeypatch):
    "The copy of the simulated set has another name as soon as any code that makes it has changed."
    from nfad import demo, flowmeter
    before = place()
    makers = {module.__name__.removeprefix("nfad.") for module in (demo, flowmeter)}
    for module in (demo, flowmeter):
        imports = set(re.findall(r"^from \.(\w+) import", Path(module.__file__).read_text(), flags=re.M))
        assert imports <= makers | {"core", "vocabulary"}, "a module that makes the set is not in its name"
        changed = tmp_path / Path(module.__file__).name
        changed.write_text(Path(module.__file__).read_text() + "# changed")
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", str(changed))
            assert place() != before, module.__name__
    assert place() == before


def test_law_kept_by_code(tmp_path, monkeypatch): law_kept_by_code(data._demo_copy, tmp_path, monkeypatch)


def test_law_kept_by_code_catches_one_module_alone(tmp_path, monkeypatch):
    from nfad import demo
    with pytest.raises(AssertionError, match="flowmeter"): law_kept_by_code(lambda: Path(demo.__file__).read_text(), tmp_path, monkeypatch)


# ---------------------------------------------------------------- very wide tables

def law_few_features(path, n_columns, load=load_dataset):
    "Of very many columns the most varied are used, the others are named with the reason; asked for by name, any are used."
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 1000, (80, n_columns)), columns=[f"x{i}" for i in range(n_columns)])
    frame.iloc[:, ::3] %= 2
    pd.concat([frame, pd.Series("BENIGN", frame.index, name="Label")], axis=1).to_csv(path, index=False)
    loaded = load(path, cache=False)
    used = [name for name in loaded.records if name.startswith("x")]
    assert len(used) == min(n_columns, 128) and len(used) + len(loaded.report.columns_dropped) == n_columns
    if n_columns <= 128: return
    assert all(int(name[1:]) % 3 for name in used) and any("--feature-set" in note for note in loaded.report.notes)
    assert all("most varied" in why for why in loaded.report.columns_dropped.values())
    assert list(load(path, ["x3", "x0"], cache=False).records)[:2] == ["x3", "x0"]


@pytest.mark.parametrize("n_columns", [20, 128, 300])
def test_law_few_features(tmp_path, n_columns): law_few_features(tmp_path / "a.csv", n_columns)


@pytest.mark.parametrize("most", [4000, 50])
def test_law_few_features_catches(tmp_path, monkeypatch, most):
    monkeypatch.setattr(data, "_MOST_FEATURES", most)
    with pytest.raises(AssertionError): law_few_features(tmp_path / "a.csv", 300)
