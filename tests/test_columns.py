"""Laws of plans, each with a broken twin that must fail: every column of a table has one use, and what would mislead has none."""
import dataclasses
import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generated import TOOLS, cells, columns
from nfad.catalog import DATASETS
from nfad.columns import CONTEXT, MISSING, doubts_about, make_plan, one_sensor, sample_of
from nfad.data import load_dataset
from nfad.tables import frame_table, open_table
from nfad.vocabulary import COLUMNS, canonical_columns, column_role


def table_of(tool, seed=0, n=80, order=None):
    "A table of a sensor in memory, and the role of each of its columns as it was made."
    rng = np.random.default_rng(seed)
    told = columns(tool, rng)
    frame = pd.DataFrame({name: cells(name, role, n, rng) for name, role in told})
    if order is not None: frame = frame[[frame.columns[i] for i in np.random.default_rng(order).permutation(frame.shape[1])]]
    return frame_table(frame, f"{tool}.csv"), dict(told)


# ---------------------------------------------------------------- one use for each column

def law_one_use(tables, plan):
    "Each column is a feature, a word, a label or left out with a reason, and nothing else is in the plan."
    used, skipped = [*plan.features, *plan.words], [name for name, _ in plan.skipped]
    labels = {label for label in plan.labels if label not in ("file name", "none")}
    known = {name for table in tables for name in canonical_columns(table.names)}
    assert len({*used, *skipped}) == len(used) + len(skipped), "a column has two uses"
    assert not labels & {*used, *skipped}, "a label has another use"
    assert {*used, *skipped, *labels} == known, "a column is lost or invented"
    assert all(why for _, why in plan.skipped), "left out without a reason"
    assert {*plan.letters} <= {*plan.words} and {*plan.on_request} <= {*plan.features}, "a part of nothing"
    assert {*plan.usual} == {*used} - {*plan.on_request} and len(plan.labels) == len(tables)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("seed", range(3))
def test_law_one_use(tool, seed):
    table, _ = table_of(tool, seed)
    law_one_use([table], make_plan([table]))


@pytest.mark.parametrize("spoil, message", [
    ({"features": ()}, "lost"), ({"labels": ("none",)}, "lost"), ({"words": ("size",)}, "two uses"), ({"features": ("size", "pause", "Label")}, "another use"),
    ({"skipped": (("host", ""), ("when", ""))}, "without a reason"), ({"letters": ("size",)}, "of nothing")])
def test_law_one_use_catches(spoil, message):
    table, _ = table_of("own")
    plan = make_plan([table])
    law_one_use([table], plan)
    with pytest.raises(AssertionError, match=message): law_one_use([table], dataclasses.replace(plan, **spoil))


# ---------------------------------------------------------------- what would mislead

def law_no_misleading(table, made, plan):
    "Times, addresses, counters and free texts are no features; ports, codes and hops only when asked for; numbers are, and words."
    canonical = dict(zip(table.names, canonical_columns(table.names), strict=True))
    if plan.vocabulary != table.path.stem: return  # so few of its columns do not tell the tool
    for name, role in made.items():
        name = canonical[name]
        if role in ("time", "identifier", "counter", "text", "label"): assert name not in (*plan.features, *plan.words), f"{role} {name} is used"
        if role in ("port", "code", "testbed"): assert name not in plan.usual, f"{role} {name} is used unasked"
        if role == "feature" and plan.vocabulary == "own": assert name in plan.usual, f"{role} {name} is not used"
        if role == "word" and plan.vocabulary == "own": assert name in plan.words, f"{role} {name} is not used"


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("seed", range(3))
def test_law_no_misleading(tool, seed):
    table, made = table_of(tool, seed)
    law_no_misleading(table, made, make_plan([table]))


def test_law_no_misleading_catches():
    table, made = table_of("own")
    plan = make_plan([table])
    for spoil, message in (({"features": (*plan.features, "when")}, "time .* is used"), ({"on_request": ()}, "unasked"), ({"words": ()}, "not used")):
        with pytest.raises(AssertionError, match=message): law_no_misleading(table, made, dataclasses.replace(plan, **spoil))


@pytest.mark.parametrize("tool", TOOLS)
def test_the_order_of_columns_does_not_matter(tool):
    (one, _), (other, _) = table_of(tool), table_of(tool, order=5)
    plans = [make_plan([table]) for table in (one, other)]
    for field in ("features", "words", "letters", "on_request", "skipped"):
        assert {*getattr(plans[0], field)} == {*getattr(plans[1], field)}, field
    assert plans[0].labels == plans[1].labels and plans[0].vocabulary == plans[1].vocabulary


# ---------------------------------------------------------------- labels

BASE = {"size": np.arange(30.0) % 7, "pause": np.arange(30.0) % 5}


def plan_of(_label=None, _missing="auto", **more): return make_plan([frame_table(pd.DataFrame(BASE | more), "a.csv")], None, _label, _missing)


KIND = ["BENIGN"] * 20 + ["PortScan"] * 10


@pytest.mark.parametrize("name", ["Label", "label", " LABEL ", "Class", "class1", "attack_cat"])
def test_labels_are_found_in_any_spelling(name):
    plan = plan_of(**{name: KIND})
    assert plan.usual == ["size", "pause"] and plan.labels[0] in (name.strip(), "Label", *canonical_columns([name]))


def test_a_label_that_is_named_comes_first():
    plan = plan_of("kind", Label=KIND, kind=KIND[::-1])
    assert plan.labels == ("kind",) and "Label" not in (*plan.features, *plan.words)
    with pytest.raises(KeyError, match="'knd' is not in a.csv.*did you mean 'kind'"): plan_of("knd", kind=KIND)


def test_without_a_label_the_error_says_what_to_do():
    with pytest.raises(KeyError, match="no label column in a.csv: pass label_column.*--label-column none"): plan_of()
    assert plan_of("none").labels == ("none",)
    assert plan_of("file name").labels == ("file name",)


def test_a_second_label_is_a_class_and_no_feature():
    plan = plan_of(Label=[0] * 20 + [1] * 10, attack_cat=["Normal"] * 20 + ["DoS", "Fuzzers"] * 5)
    assert plan.labels == ("Label",) and plan.subclass == "attack_cat" and plan.usual == ["size", "pause"]


@pytest.mark.parametrize("tool", ["zeek", "suricata", "argus", "netflow", "nfstream", "nfdump"])
def test_what_a_sensor_writes_is_benign_without_a_label(tool):
    table, made = table_of(tool)
    frame = pd.DataFrame({name: cells(name, role, 40, np.random.default_rng(0)) for name, role in made.items() if role != "label"})
    plan = make_plan([frame_table(frame, "a.csv")])
    assert plan.labels == ("none",) and "no labels: all records are taken as benign" in plan.doubts
    assert "no labels: all records are taken as benign" not in make_plan([frame_table(frame, "a.csv")], None, "none").doubts


# ---------------------------------------------------------------- several files, positions, missing numbers

def test_a_column_that_one_file_lacks_is_left_out():
    frame = pd.DataFrame(BASE | {"extra": 1.0, "Label": KIND})
    one, other = frame_table(frame, "a.csv"), frame_table(frame.drop(columns="extra")[["Label", "pause", "size"]], "b.csv")
    for tables in ([one, other], [other, one]):
        plan = make_plan(tables)
        law_one_use(tables, plan)
        assert set(plan.usual) == {"size", "pause"} and dict(plan.skipped) == {"extra": "not in every file"}


def test_positions_are_those_of_each_file():
    frame = pd.DataFrame({"Source IP": "x", **BASE, "Label": KIND, "note": [f"text {i}" for i in range(30)]})
    plan = make_plan([frame_table(frame, "a.csv")])
    for header in (list(frame), list(frame)[::-1]):
        found = plan.positions(header, ["size"])
        assert {header[i]: name for i, name in found.items()} == {"Source IP": "Source IP", "size": "size", "Label": "Label"}
    assert "Source IP" in CONTEXT


def test_what_becomes_of_missing_numbers():
    assert [plan_of(None, way, Label=KIND).missing for way in MISSING] == ["indicate", "drop", "indicate"]
    with pytest.raises(ValueError, match="missing must be one of"): plan_of(None, "skip", Label=KIND)
    table, _ = table_of("cicflowmeter")
    assert make_plan([table], DATASETS["cicids2017"]).missing == "drop" and make_plan([table]).missing == "indicate"
    assert make_plan([table], DATASETS["cicids2017"], missing="indicate").missing == "indicate"


def test_a_named_set_needs_its_columns():
    with pytest.raises(ValueError, match="cicids2017 needs the names of cicflowmeter"):
        make_plan([frame_table(pd.DataFrame(BASE | {"Label": KIND}), "a.csv")], DATASETS["cicids2017"])


# ---------------------------------------------------------------- doubts, samples, types

def timed(per_second, n=60):
    "Records of CICFlowMeter whose durations have a unit."
    rng = np.random.default_rng(0)
    seconds, packets = rng.lognormal(0, 1, n), rng.integers(2, 90, (2, n))
    return pd.DataFrame({"Flow Duration": seconds * per_second, "Total Fwd Packets": packets[0], "Total Backward Packets": packets[1],
                         "Flow Packets/s": packets.sum(axis=0) / seconds, "Label": "BENIGN"})


@pytest.mark.parametrize("per_second, doubted", [(1e6, False), (1.0, True), (1e3, True)])
def test_a_wrong_unit_is_named(per_second, doubted):
    table = frame_table(timed(per_second), "a.csv")
    for said in (make_plan([table]).doubts, doubts_about(table)):
        assert any("Flow Duration: us expected" in doubt for doubt in said) == doubted


def test_a_sample_has_no_words_for_nothing():
    table = frame_table(pd.DataFrame({"a": ["-", " x ", "(empty)", ""], "b": [1.0, np.nan, 3, 4]}), "a.csv")
    sample = sample_of([table, table])
    assert sample["a"].tolist()[1] == "x" and sample["a"].notna().sum() == 2 and len(sample) == 8 and table.report.rows_read == 0


ODD = {
    "date": pa.array([datetime.date(2026, 1, 1 + i % 20) for i in range(40)]), "time": pa.array([datetime.time(i % 24) for i in range(40)]),
    "stamp": pa.array(pd.date_range("2026-01-01", periods=40, freq="s")), "lasted": pa.array(pd.to_timedelta(np.arange(40), unit="s")),
    "price": pa.array([decimal.Decimal(i) / 4 for i in range(40)]), "list": pa.array([[i, 2] for i in range(40)]),
    "struct": pa.array([{"x": i} for i in range(40)]), "bytes": pa.array([b"\xff\x00"] * 40), "flag": pa.array([i % 3 == 0 for i in range(40)]),
    "nothing": pa.nulls(40), "words": pa.array(["a", "b"] * 20).dictionary_encode(), "half": pa.array(np.arange(40.0).astype(np.float16)),
    "large": pa.array(["x"] * 40, pa.large_string()), "unsigned": pa.array(np.arange(40, dtype=np.uint64) + 2**63)}


@pytest.mark.parametrize("name", ODD)
def test_columns_of_any_type_are_used_or_left_out(tmp_path, name):
    path = tmp_path / "a.parquet"
    size = pa.array(np.random.default_rng(0).lognormal(2, 1, 40))
    pq.write_table(pa.table({"size": size, name: ODD[name], "Label": pa.array(["BENIGN"] * 30 + ["Bot"] * 10)}), path)
    table = open_table(path)
    law_one_use([table], make_plan([table]))
    d = load_dataset(path, cache=False)
    assert d.report.rows_read == d.report.rows_kept + sum(d.report.dropped.values()) == 40 and "size" in d.records


def test_known_roles_are_those_of_the_vocabulary():
    for tool in ("zeek", "argus", "unswnb15"):
        table, _ = table_of(tool)
        plan = make_plan([table])
        for name in plan.usual: assert column_role(name, plan.vocabulary) in ("feature", "word", "letters", "code"), name


# ---------------------------------------------------------------- two sensors in one folder

def sensor_table(tool, name, n_columns=12):
    "A table with columns of a tool."
    known = COLUMNS[COLUMNS.vocabulary == tool].name.tolist()[:n_columns] if tool != "own" else ["size", "pause", "verdict"]
    return frame_table(pd.DataFrame(np.zeros((3, len(known))), columns=known), name)


def law_one_sensor(choose):
    "Tables of one sensor stay together; of several all files are named, unless one is chosen; what is not chosen is named, too."
    zeek, argus, own = (sensor_table(tool, f"{tool}.csv", 30) for tool in ("zeek", "argus", "own"))
    more = sensor_table("zeek", "more.csv", 20)
    assert choose([zeek, more]) == ([zeek, more], {}) and choose([own]) == ([own], {})
    with pytest.raises(ValueError) as error: choose([zeek, argus, more, own])
    assert all(text in str(error.value) for text in ("3 sensors", "zeek (zeek.csv, more.csv)", "argus (argus.csv)", "own (own.csv)", "--sensor"))
    tables, gone = choose([zeek, argus, more], "argus")
    assert tables == [argus] and gone == {"zeek.csv": "columns of zeek", "more.csv": "columns of zeek"}
    with pytest.raises(ValueError, match="sensor must be one of"): choose([zeek, argus], "zek")
    many = [sensor_table("own", f"day-{i}.csv") for i in range(200)]
    assert choose(many) == (many, {})
    with pytest.raises(ValueError) as error: choose([*many, argus])
    assert len(str(error.value)) < 500 and "197 more" in str(error.value)


def test_law_one_sensor(): law_one_sensor(one_sensor)


@pytest.mark.parametrize("broken", [
    lambda tables, sensor="": (list(tables), {}),
    lambda tables, sensor="": one_sensor(tables, sensor or "largest"),
    lambda tables, sensor="": (one_sensor(tables, sensor)[0], {}),
    lambda tables, sensor="": (one_sensor(tables, sensor)[0][:1], one_sensor(tables, sensor)[1])])
def test_law_one_sensor_catches(broken):
    with pytest.raises((AssertionError, pytest.fail.Exception)): law_one_sensor(broken)


def test_columns_in_an_error_are_capped():
    table = frame_table(pd.DataFrame(np.zeros((2, 3000)), columns=[f"x{i}" for i in range(3000)]), "wide.csv")
    for how in ({}, {"label_column": "verdict"}):
        with pytest.raises(KeyError) as error: make_plan([table], **how)
        assert len(error.value.args[0]) < 600 and "2,988 more" in error.value.args[0]


# ---------------------------------------------------------------- a meter of seconds

def test_the_python_cicflowmeter_is_known_by_names_and_values():
    rng = np.random.default_rng(0)
    seconds, packets = rng.lognormal(0, 1, 200), rng.integers(2, 90, 200)
    frame = pd.DataFrame({"src_ip": "10.0.0.1", "flow_duration": seconds, "flow_pkts_s": packets / seconds, "tot_fwd_pkts": packets, "tot_bwd_pkts": 0})
    of_python = "\n".join(doubts_about(frame_table(frame, "a.csv")))
    assert "Python cicflowmeter" in of_python and "in seconds" in of_python and "us expected, s seen" not in of_python
    other = frame.rename(columns={"src_ip": "Src IP", "flow_duration": "Flow Duration"})
    of_another = "\n".join(doubts_about(frame_table(other, "b.csv")))
    assert "us expected, s seen" in of_another and "Python cicflowmeter" not in of_another
    micro = frame.assign(flow_duration=seconds * 1e6)
    assert not doubts_about(frame_table(micro, "c.csv"))
    assert any("Python cicflowmeter" in doubt for doubt in make_plan([frame_table(frame, "a.csv")], label_column="none").doubts)
