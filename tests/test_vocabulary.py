"""Laws of nfad.vocabulary: the one table of columns, and what is derived from it; the repaired rows of ISCXTor2016."""
import re
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import needs_data
from nfad import vocabulary
from nfad.vocabulary import (COLUMNS, FEATURES, FIRST_RELEASE, FLOW_COLUMNS, FLOW_FEATURES, IOT_COLUMNS, MARKS, ON_REQUEST, canonical_columns,
                             column_key, column_role, find_vocabulary, is_known, repair_tor_rows)
from samples import law_min_mean_max

ROLES = {"feature", "word", "letters", "code", "port", "testbed", "time", "identifier", "counter", "text", "label", "mark"}
CIC = COLUMNS[COLUMNS.vocabulary.isin(["cicflowmeter", "ciciot2023"])]


# ---------------------------------------------------------------- the table
def law_table(columns):
    "Every column of a tool has a name of its own and is described; no spelling leads to two columns; one name, one unit."
    assert not columns.duplicated(["vocabulary", "name"]).any() and set(columns.role) == ROLES
    assert not (columns.drop(columns="aliases") == "").any(axis=None)
    cic = columns.vocabulary.isin(["cicflowmeter", "ciciot2023"])
    assert columns.name[cic].is_unique
    for dialect in ("cicflowmeter", "tor_arff", "lycos", "zeek", "argus", "nfdump"):
        words = [word for aliases in columns.aliases for word in aliases.get(dialect, ())]
        assert len(set(words)) == len(words) >= 7 and "" not in words
    for tool in set(columns.vocabulary) - {"ciciot2023"}:
        own = columns[(columns.vocabulary == tool) | (cic & (columns.role != "feature") & (tool == "cicflowmeter"))]
        keys = [(column_key(word), name) for name, aliases in zip(own.name, own.aliases) for word in (name, *aliases.get(tool, ()))]
        assert all(dict(keys)[key] == name for key, name in keys), tool
    assert (columns[columns.role == "feature"].groupby("name").unit.nunique() == 1).all()


def test_table(): law_table(COLUMNS)


@pytest.mark.parametrize("spoil", [
    lambda t: t.assign(name=t.name.replace("Idle Min", "Idle Max")), lambda t: t.assign(unit=t.unit.replace("us", "")),
    lambda t: t.assign(role=t.role.replace("port", "feature")),
    lambda t: t.assign(aliases=[a | {"cicflowmeter": ("Tot Fwd Pkts",)} if n == "Idle Min" else a for n, a in zip(t.name, t.aliases)]),
    lambda t: t.assign(unit=t.unit.mask((t.name == "duration") & (t.vocabulary == "zeek"), "ms")),
    lambda t: t.assign(name=t.name.mask((t.name == "resp_pkts") & (t.vocabulary == "zeek"), "orig_pkts")),
    lambda t: t.assign(aliases=[{"zeek": ("orig_pkts",)} if n == "missed_bytes" else a for n, a in zip(t.name, t.aliases)]),
    lambda t: t.assign(aliases=[{"cicflowmeter": ("idle_max",)} if n == "Idle Min" else a for n, a in zip(t.name, t.aliases)])])
def test_table_law_catches(spoil):
    with pytest.raises(AssertionError): law_table(spoil(COLUMNS))


def test_parts_of_the_table():
    assert (len(FLOW_FEATURES), len(FLOW_COLUMNS), len(IOT_COLUMNS)) == (77, 79, 37) and len(FIRST_RELEASE) == 8
    on_request = {"Protocol", "Source Port", "Destination Port", "ICMP Code", "ICMP Type", "Protocol Type", "Number"}
    known = set(FEATURES.name[FEATURES.vocabulary.isin(["cicflowmeter", "ciciot2023"])])
    assert known == {*FLOW_COLUMNS, *IOT_COLUMNS, *FIRST_RELEASE, *on_request} - {"Source Port", "Destination Port"}
    assert set(ON_REQUEST) & set(CIC.name) == on_request and {"sttl", "MIN_TTL", "sTos"} <= set(ON_REQUEST)
    assert FEATURES.name.is_unique and {"duration", "IN_BYTES", "orig_pkts", "TotBytes", "flow.age"} <= set(FEATURES.name)
    assert not {"Timestamp", "conn_state", "history", "stcpb", "expiration_id_"} & set(FEATURES.name)
    assert set(FLOW_FEATURES) - {"Protocol"} <= set(FLOW_COLUMNS) and all(column_role(name) == "mark" for name in MARKS)


@needs_data
def test_the_names_and_their_order_are_those_of_cicids2017(data_dir):
    import pyarrow.parquet as pq
    names = pq.read_schema(data_dir / "cicids2017" / "cicids2017.parquet").names
    features = [name for name in names[:names.index("Label")] if name not in ("Destination Port", "Fwd Header Length.1")]
    assert ["Protocol", *features] == list(FLOW_FEATURES)


def edited(old: str, new: str) -> types.ModuleType:
    "The module from a source in which one text is replaced."
    source = Path(vocabulary.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1
    module = types.ModuleType("edited")
    module.__package__ = "nfad"
    exec(compile(source.replace(old, new), "edited.py", "exec"), module.__dict__)
    return module


def test_an_alias_of_another_dialect_is_added_in_one_place():
    header = ["Packets per second", *(name for name in IOT_COLUMNS if name != "Rate")]
    line = "Rate | rate | packets/s | packets per second\n"
    module = edited(line, line + "    = Packets per second\n")
    assert module.canonical_columns(header)[0] == "Rate" and canonical_columns(header)[0] == "Packets per second"
    assert module.canonical_columns(["Packets per second", "size"])[0] == "Packets per second"  # not in a file of one's own
    tor = ["duration", *(f"{s}_{b}" for b in ("fiat", "biat", "flowiat", "active", "idle") for s in ("min", "max", "mean", "std")), "quiet"]
    module = edited("    tor_arff = min_idle\n", "    tor_arff = min_idle, quiet\n")
    assert module.canonical_columns([name for name in tor if name != "min_idle"])[-1] == "Idle Min"
    assert canonical_columns(tor)[-1] == "quiet"


def test_an_alias_and_a_column_are_added_in_one_place():
    header = ["Flow Duration", "Fwd Packets Seen", "Tot Bwd Pkts", "Flow Byts/s", "Pkt Len Var", "Flow Pkts/s"]
    assert canonical_columns(header)[1] == "Fwd Packets Seen"
    module = edited("    = Tot Fwd Pkts, Total Fwd Packet\n", "    = Tot Fwd Pkts, Total Fwd Packet, Fwd Packets Seen\n")
    assert module.canonical_columns(header)[1] == "Total Fwd Packets"
    module = edited("Bwd RST Flags | flags", "Retransmissions | count | packets | packets sent again\n    = Retrans\nBwd RST Flags | flags")
    assert "Retransmissions" in module.FLOW_COLUMNS and "Retransmissions" in set(module.FEATURES.name)
    assert "Retransmissions" not in module.FLOW_FEATURES
    assert module.canonical_columns(["retrans"]) == ["Retransmissions"] and column_role("Retransmissions") == "feature"


# ---------------------------------------------------------------- names of columns
def test_one_vocabulary_for_all_spellings():
    v3 = list(FLOW_COLUMNS[:5]) + ["Fwd Header Length", " Init_Win_bytes_forward ", "min_seg_size_forward"]
    v4 = ["Flow Duration", "Tot Fwd Pkts", "Tot Bwd Pkts", "TotLen Fwd Pkts", "TotLen Bwd Pkts", "Fwd Header Len",
          "Init Fwd Win Byts", "Fwd Seg Size Min"]
    fixed = ["Flow Duration", "Total Fwd Packet", "Total Bwd packets", "Total Length of Fwd Packet", "Total Length of Bwd Packet",
             "Fwd Header Length", "FWD Init Win Bytes", "Fwd Seg Size Min"]
    assert canonical_columns(v3) == canonical_columns(v4) == canonical_columns(fixed)


def law_canonical(rename):
    "A canonical name is its own; padding, case and a byte order mark do not matter; a repeated column is told apart."
    for names in (list(FLOW_FEATURES), list(IOT_COLUMNS)):
        assert rename(names) == names
        assert rename([f" {name} " for name in names]) == names and rename(["\ufeff" + names[0], *names[1:]]) == names
    assert rename([name.upper() for name in FLOW_FEATURES]) == list(FLOW_FEATURES)
    assert rename(["Idle Min", " Idle Min"]) == ["Idle Min", "Idle Min.1"]


def test_canonical(): law_canonical(canonical_columns)


def test_canonical_law_catches_a_lookup_by_spelling():
    with pytest.raises(AssertionError): law_canonical(lambda columns: [str(column).strip() for column in columns])


FIRST_HEADER = """flow_duration,Header_Length,Protocol Type,Duration,Rate,Srate,Drate,fin_flag_number,syn_flag_number,rst_flag_number,psh_flag_number,
ack_flag_number,ece_flag_number,cwr_flag_number,ack_count,syn_count,fin_count,urg_count,rst_count,HTTP,HTTPS,DNS,Telnet,SMTP,SSH,IRC,TCP,UDP,DHCP,ARP,
ICMP,IPv,LLC,Tot sum,Min,Max,AVG,Std,Tot size,IAT,Number,Magnitue,Radius,Covariance,Variance,Weight""".replace("\n", "").split(",")


def law_first_release(rename):
    "The first release of CIC-IoT2023 has 46 known columns; the same general names mean nothing elsewhere."
    names = rename(FIRST_HEADER)
    assert len(names) == 46 and set(names) == {*IOT_COLUMNS, *FIRST_RELEASE, "Protocol Type", "Number"} - {"IGMP"}
    assert names[3] == "Time_To_Live" and names[0] == "Window duration" and names[41] == "Window magnitude"
    assert rename(["flow_duration", "Duration", "Weight"]) == ["Flow Duration", "Duration", "Weight"]
    assert rename(["Duration", *IOT_COLUMNS]) == ["Duration", *IOT_COLUMNS]  # a column that somebody added


def test_first_release():
    law_first_release(canonical_columns)
    assert find_vocabulary(FIRST_HEADER[:19]) == "ciciot2023" and canonical_columns(FIRST_HEADER[:19]) == canonical_columns(FIRST_HEADER)[:19]
    assert find_vocabulary(FIRST_HEADER) == "ciciot2023" and not is_known("Weight") and not is_known("Radius")
    assert find_vocabulary(["srate", "drate", "dur", "rate", "Weight", "Radius"]) != "ciciot2023"
    assert COLUMNS.unit[COLUMNS.name == "Window duration"].tolist() == ["s"]
    assert not {"Weight", "Radius", "Duration", "Srate", "Covariance"} & set(FEATURES.name)  # a user's own have no unit


@pytest.mark.parametrize("rename", [
    lambda columns: [name for name in columns], lambda columns: ["Flow Duration" if n == "Window duration" else n for n in canonical_columns(columns)],
    lambda columns: ["Time_To_Live" if n == "Duration" else n for n in canonical_columns(columns)]])
def test_first_release_law_catches(rename):
    with pytest.raises(AssertionError): law_first_release(rename)


def test_short_names_mean_what_their_dialect_says():
    assert canonical_columns(["Min", "Max", "duration"]) == ["Min", "Max", "duration"]
    assert find_vocabulary(IOT_COLUMNS) == "ciciot2023" and find_vocabulary(FLOW_FEATURES) == "cicflowmeter"
    assert find_vocabulary(["duration", "bytes"]) == "own"
    tor = ["duration", *(f"{s}_{b}" for b in ("fiat", "biat", "flowiat", "active", "idle") for s in ("min", "max", "mean", "std"))]
    assert find_vocabulary(tor) == "tor_arff"
    assert canonical_columns(tor)[:3] == ["Flow Duration", "Fwd IAT Min", "Fwd IAT Max"]
    assert set(canonical_columns(tor)) <= set(FLOW_COLUMNS)


REAL = ["cicids2017/cicids2017", "cicids2017/cicids2017_improved", "tor2016/tor2016_10s", "tor2016/tor2016_15s", "ciciot2023/ciciot2023",
        "cicddos2019/cicddos2019", "csecicids2018/csecicids2018"]


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_every_real_column_is_known(data_dir, name):
    import pyarrow.parquet as pq
    names = canonical_columns(pq.read_schema(data_dir / f"{name}.parquet").names)
    unknown = set(names) - set(CIC.name) - {"class1", "label"}
    assert not unknown, unknown
    assert sum(column_role(name) == "feature" for name in names) >= 20


# ---------------------------------------------------------------- the 15 s files of ISCXTor2016

@needs_data
def test_tor_15s_rows_are_put_right(data_dir):
    raw = pd.read_parquet(data_dir / "tor2016" / "tor2016_15s.parquet")
    raw.columns = canonical_columns(raw.columns)
    with pytest.raises(AssertionError, match="Fwd IAT"): law_min_mean_max(raw)
    repaired, shifted, unfit = repair_tor_rows(raw)
    law_min_mean_max(repaired)
    assert (shifted == (raw["class1"] == "NONTOR")).all() and not unfit.any()
