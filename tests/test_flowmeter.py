"""Laws of nfad.flowmeter: identities of the features, the table against one flow and against a packet-by-packet implementation.

Every law is a function of the implementation, is run on the real one, and must raise on a broken twin.
"""
import numpy as np
import pandas as pd
import pytest
from conftest import needs_data
from traffic import CASES, close

from nfad.flowmeter import TCP, Packets, flow_table, one_flow, packet_table_features
from nfad.vocabulary import FLOW_FEATURES

cases = pytest.mark.parametrize("packets", CASES.values(), ids=CASES.keys())


def seconds(d): return d["Flow Duration"].to_numpy() / 1e6


def flow_features(times, sizes, **more): return flow_table(one_flow(times, sizes, **more)).iloc[0].to_dict()


def broken(change):
    "A twin of flow_table whose table is spoiled by `change`."
    def twin(packets):
        table = flow_table(packets)
        change(table)
        return table
    return twin


# ---------------------------------------------------------------- laws of one table
def law_shape(table_of, p):
    d = table_of(p)
    assert tuple(d.columns) == FLOW_FEATURES and len(d) == p.flow[-1] + 1
    assert np.isfinite(d.to_numpy()).all() and (d.dtypes == float).all()
    assert (d.drop(columns=["Init_Win_bytes_forward", "Init_Win_bytes_backward"]) >= 0).all().all()


def law_rates(table_of, p):
    d = table_of(p)
    s = seconds(d)
    moving = s > 0
    count = d["Total Fwd Packets"] + d["Total Backward Packets"]
    size = d["Total Length of Fwd Packets"] + d["Total Length of Bwd Packets"]
    for rate, total in (("Flow Packets/s", count), ("Flow Bytes/s", size), ("Fwd Packets/s", d["Total Fwd Packets"]),
                        ("Bwd Packets/s", d["Total Backward Packets"])):
        close(d[rate][moving], total[moving] / s[moving])
        assert (d[rate][~moving] == 0).all()


def law_variance(table_of, p):
    d = table_of(p)
    close(d["Packet Length Variance"], d["Packet Length Std"] ** 2)


def law_order(table_of, p):
    d = table_of(p)
    eps = 1e-6
    for stem in ("Flow IAT", "Fwd IAT", "Bwd IAT", "Fwd Packet Length", "Bwd Packet Length", "Active", "Idle"):
        assert (d[f"{stem} Min"] <= d[f"{stem} Mean"] + eps).all() and (d[f"{stem} Mean"] <= d[f"{stem} Max"] + eps).all(), stem
        assert (d[f"{stem} Std"] <= (d[f"{stem} Max"] - d[f"{stem} Min"]) * np.sqrt(0.5) * (1 + eps) + eps).all(), stem
    assert (d["Min Packet Length"] <= d["Packet Length Mean"] + eps).all()
    assert (d["Packet Length Mean"] <= d["Max Packet Length"] + eps).all()
    close(d["Max Packet Length"], np.maximum(d["Fwd Packet Length Max"], d["Bwd Packet Length Max"]))


def law_totals(table_of, p):
    d = table_of(p)
    n = d["Total Fwd Packets"] + d["Total Backward Packets"]
    close(n, np.bincount(p.flow))
    close(d["Total Length of Fwd Packets"] + d["Total Length of Bwd Packets"], np.bincount(p.flow, p.size))
    close(d["Average Packet Size"] * n, np.bincount(p.flow, p.size))
    close(d["Fwd Header Length"] + d["Bwd Header Length"], np.bincount(p.flow, p.header_bytes))
    for side, count in (("Fwd", "Total Fwd Packets"), ("Bwd", "Total Backward Packets")):
        close(d[f"{side} Packet Length Mean"] * d[count], d[f"Total Length of {side} Packets"])
        close(d[f"Avg {side} Segment Size"], d[f"{side} Packet Length Mean"])
    close(d["Down/Up Ratio"] * d["Total Fwd Packets"], d["Total Backward Packets"])


def law_times(table_of, p):
    d = table_of(p)
    n = (d["Total Fwd Packets"] + d["Total Backward Packets"]).to_numpy()
    close(d["Flow IAT Mean"] * np.maximum(n - 1, 0), d["Flow Duration"])
    for side, count in (("Fwd", "Total Fwd Packets"), ("Bwd", "Total Backward Packets")):
        assert (d[f"{side} IAT Total"] <= d["Flow Duration"] + 1e-6).all()
        close(d[f"{side} IAT Mean"] * np.maximum(d[count] - 1, 0), d[f"{side} IAT Total"])
        assert (d[f"{side} IAT Min"][d[count] > 1] >= d["Flow IAT Min"][d[count] > 1] - 1e-6).all()


def law_activity(table_of, p):
    d = table_of(p)
    idle = d["Idle Max"] > 0
    assert idle.any() and (d["Idle Min"][idle] > 5e6).all()
    close(d["Idle Max"][idle], d["Flow IAT Max"][idle])  # the longest pause is the longest idle time
    assert (d["Flow IAT Max"][~idle] <= 5e6).all() and (d["Active Max"][~idle] == 0).all()
    assert (d["Active Max"] + d["Idle Max"] <= d["Flow Duration"] + 1e-6).all()


def law_flags(table_of, p):
    d = table_of(p)
    for name in ("PSH", "URG"): close(d[f"Fwd {name} Flags"] + d[f"Bwd {name} Flags"], d[f"{name} Flag Count"])
    n = d["Total Fwd Packets"] + d["Total Backward Packets"]
    for name in ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "CWE", "ECE"): assert (d[f"{name} Flag Count"] <= n).all()
    close(d["SYN Flag Count"], np.bincount(p.flow, p.flags & 2 > 0))
    close(d["CWE Flag Count"], np.bincount(p.flow, p.flags & 128 > 0))


def law_time_shift(table_of, p):
    shift = np.random.default_rng(0).integers(0, 10**15, p.flow[-1] + 1)[p.flow]
    pd.testing.assert_frame_equal(table_of(p), table_of(p._replace(time=p.time + shift)))


def law_time_scale(table_of, p):
    "Below the thresholds of 1 s and 5 s, twice as slow means half the rates and twice the pauses."
    fast, slow = table_of(p._replace(time=p.time // 100)), table_of(p._replace(time=2 * (p.time // 100)))
    for name in FLOW_FEATURES:
        if "Subflow" in name or "Bulk" in name or name.startswith(("Active", "Idle")): continue
        power = 1 if "IAT" in name or name == "Flow Duration" else -1 if name.endswith("/s") else 0
        close(slow[name], fast[name] * 2.0**power, err_msg=name)


def law_swap(table_of, p):
    "Forward seen as backward exchanges the names and nothing else."
    d, e = table_of(p), table_of(p._replace(is_forward=~p.is_forward))
    other = {"Total Fwd Packets": "Total Backward Packets", "Init_Win_bytes_forward": "Init_Win_bytes_backward"}
    for name in FLOW_FEATURES:
        if name in ("Down/Up Ratio", "act_data_pkt_fwd", "min_seg_size_forward"): continue  # one-sided by definition
        twin = other.get(name) or {b: a for a, b in other.items()}.get(name)
        twin = twin or (name.replace("Fwd", "Bwd") if "Fwd" in name else name.replace("Bwd", "Fwd"))
        close(e[name], d[twin], err_msg=name)
    both = (d["Total Fwd Packets"] > 0) & (d["Total Backward Packets"] > 0)
    close(e["Down/Up Ratio"][both] * d["Down/Up Ratio"][both], 1)


def law_flows_are_independent(table_of, p):
    "A flow's record does not depend on its neighbors in the table."
    d = table_of(p)
    order = np.random.default_rng(1).permutation(len(d))[:60]
    rows = [np.flatnonzero(p.flow == k) for k in order]
    mixed = Packets(*(field[np.concatenate(rows)] for field in p))._replace(flow=np.repeat(np.arange(len(rows)), [len(r) for r in rows]))
    pd.testing.assert_frame_equal(table_of(mixed), d.iloc[order].reset_index(drop=True))


def slow_groups(p: Packets, k: int) -> dict[str, float]:
    "Active/idle time, subflows and bulks of flow k packet by packet, as CICFlowMeter's state machines intend them."
    rows = list(zip(*(field[p.flow == k].tolist() for field in (p.time, p.size, p.is_forward))))
    active, idle, start, last, subflows = [], [], rows[0][0], rows[0][0], 1
    bulks = {True: [], False: []}
    run = None  # [is_forward, packets, bytes, first time, last time]
    def end_run():
        if run is not None and run[1] >= 4: bulks[run[0]].append(run[1:])
    for now, size, forward in rows:
        if now - last > 1e6: subflows += 1
        if now - last > 5e6:
            if last > start: active.append(last - start)
            idle.append(now - last)
            start = now
        last = now
        if size > 0:
            if run is not None and run[0] == forward and now - run[4] <= 1e6: run = [forward, run[1] + 1, run[2] + size, run[3], now]
            else:
                end_run()
                run = [forward, 1, size, now, now]
    end_run()
    out = {"subflows": subflows, "Active Mean": np.mean(active or [0]), "Active Std": np.std(active, ddof=1) if len(active) > 1 else 0,
           "Active Min": min(active or [0]), "Idle Mean": np.mean(idle or [0]), "Idle Max": max(idle or [0])}
    for side, found in (("Fwd", bulks[True]), ("Bwd", bulks[False])):
        took = sum(b[3] - b[2] for b in found)
        out[f"{side} Avg Bytes/Bulk"] = sum(b[1] for b in found) / max(len(found), 1)
        out[f"{side} Avg Packets/Bulk"] = sum(b[0] for b in found) / max(len(found), 1)
        out[f"{side} Avg Bulk Rate"] = sum(b[1] for b in found) / took * 1e6 if took else 0
    return out


def law_state_machines(table_of, p):
    d = table_of(p)
    for k in range(0, len(d), 3):
        slow = slow_groups(p, k)
        close(d.loc[k, "Subflow Fwd Packets"] * slow.pop("subflows"), d.loc[k, "Total Fwd Packets"])
        for name, value in slow.items(): close(d.loc[k, name], value, err_msg=f"{name} of flow {k}")


def absolute_times(p):
    table = flow_table(p)
    return table.assign(**{"Flow Duration": np.maximum.reduceat(p.time, np.flatnonzero(np.diff(p.flow, prepend=-1))).astype(float)})


def one_long_flow(p):
    "Forgets where one flow ends: takes the pauses between flows for pauses within them."
    gap = np.diff(p.time, prepend=p.time[0])
    longest = np.maximum.reduceat(np.abs(gap), np.flatnonzero(np.diff(p.flow, prepend=-1)))
    return flow_table(p).assign(**{"Flow IAT Max": longest.astype(float)})


def population_std(p):
    table = flow_table(p)
    n = np.bincount(p.flow)
    return table.assign(**{"Packet Length Std": table["Packet Length Std"] * np.sqrt((n - 1) / n)})


def short_bulks(p):
    table = flow_table(p)
    data = np.bincount(p.flow[(p.size > 0) & p.is_forward], minlength=len(table))
    return table.assign(**{"Fwd Avg Packets/Bulk": data.astype(float)})


LAWS = {  # law -> a twin that it must catch
    law_shape: broken(lambda d: d.__setitem__("Flow Bytes/s", np.inf)),
    law_rates: broken(lambda d: d.__setitem__("Flow Packets/s", d["Flow Packets/s"] * 1000)),  # a duration in milliseconds
    law_variance: population_std,
    law_order: broken(lambda d: d.__setitem__("Fwd IAT Min", d["Fwd IAT Max"] + 1)),
    law_totals: broken(lambda d: d.__setitem__("Average Packet Size", d["Average Packet Size"] + d["Max Packet Length"] / 9)),
    law_times: broken(lambda d: d.__setitem__("Bwd IAT Total", d["Flow Duration"] + 1)),
    law_activity: broken(lambda d: d.__setitem__("Idle Max", d["Flow IAT Max"])),
    law_flags: broken(lambda d: d.__setitem__("Fwd PSH Flags", d["Fwd PSH Flags"].clip(upper=1))),  # CICFlowMeter's first packet
    law_time_shift: absolute_times,
    law_time_scale: broken(lambda d: d.__setitem__("Flow Bytes/s", d["Total Length of Fwd Packets"])),
    law_swap: broken(lambda d: d.__setitem__("Bwd Header Length", d["Fwd Header Length"])),
    law_flows_are_independent: one_long_flow,
    law_state_machines: short_bulks,
}
laws = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)


@laws
@cases
def test_law(law, packets): law(flow_table, packets)


@laws
def test_law_catches_its_broken_twin(law):
    with pytest.raises(AssertionError): law(LAWS[law], CASES["wild"])


# ---------------------------------------------------------------- one flow
def law_one_flow_equals_the_table(features_of):
    p = CASES["wild"]
    table = flow_table(p)
    for k in range(0, len(table), 7):
        q = p.where(p.flow == k)
        record = features_of(q.time / 1e6, np.where(q.is_forward, q.size, -q.size), is_forward=q.is_forward,
                             header_bytes=q.header_bytes, flags=q.flags, windows=q.window, protocol=TCP)
        assert list(record) == list(FLOW_FEATURES)
        close(list(record.values()), table.loc[k])


def test_one_flow_equals_the_table(): law_one_flow_equals_the_table(flow_features)


def test_one_flow_law_catches_a_forgotten_argument():
    def forgets(times, sizes, *, windows, **rest): return flow_features(times, sizes, **rest)
    with pytest.raises(AssertionError): law_one_flow_equals_the_table(forgets)


def test_direction_is_the_sign_of_the_size():
    a = flow_features([0, 1, 3], [10, -20, 30])
    assert a == flow_features([0, 1, 3], [10, 20, 30], is_forward=[True, False, True])
    assert a["Total Length of Bwd Packets"] == 20 and a["Fwd IAT Total"] == 3e6
    assert a == flow_features(np.array([0, 1, 3]) + 1.4e9, [10, -20, 30])  # epoch seconds keep their microseconds


@pytest.mark.parametrize("arguments, message", [
    (dict(times=[], sizes=[]), "not empty"), (dict(times=[0, 1], sizes=[1]), "shapes"), (dict(times=[[0]], sizes=[[1]]), "1-d"),
    (dict(times=[0, np.nan], sizes=[1, 1]), "finite"), (dict(times=[0, 1], sizes=[1, np.inf]), "finite"),
    (dict(times=[0, 2, 1], sizes=[1, 1, 1]), "packet 2"), (dict(times=[0, 1], sizes=[1, 0]), "is_forward"),
    (dict(times=[0, 1], sizes=[1, 1], is_forward=[True]), "is_forward"), (dict(times=[0, 1], sizes=[1, 1], flags=[1, 2, 3]), "flags"),
    (dict(times=[0, 1], sizes=[1, 1], windows=[[1, 2]]), "windows"),
])
def test_what_is_no_flow_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message): flow_features(**arguments)


# ---------------------------------------------------------------- packet tables
@needs_data
def test_packet_tables_of_tiissrc23(data_dir):
    table = pd.read_parquet(data_dir / "tiissrc23" / "tiissrc23_packets.parquet")
    d = packet_table_features(table)
    assert d.shape == (960, 77) and (d.index == table.index).all() and np.isfinite(d.to_numpy()).all()
    close(d["Total Fwd Packets"] + d["Total Backward Packets"], table["packet_num"])
    close(d["Flow Duration"], [np.rint(t[-1] * 1e6) for t in table["timestamp"]])
    assert (d[["Fwd Header Length", "SYN Flag Count"]] == 0).all(axis=None) and (d["Init_Win_bytes_forward"] == -1).all()


def test_packet_tables_say_what_is_wrong():
    with pytest.raises(KeyError, match="direction_length"): packet_table_features(pd.DataFrame({"timestamp": [[0]]}))
    bad = pd.DataFrame({"timestamp": [[0], [1, 0]], "direction_length": [[1], [1, 1]]})
    with pytest.raises(ValueError, match="row 1.*decrease"): packet_table_features(bad)
    assert packet_table_features(bad.iloc[:0]).shape == (0, 77)
