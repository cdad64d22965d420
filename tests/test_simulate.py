"""Laws of nfad.simulate: identities of the features, the capture reader, agreement with CICFlowMeter, the demo set.

Every law is a function of the implementation, is run on the real one, and must raise on a broken twin.
"""
import struct
import time

import numpy as np
import pandas as pd
import pytest
from conftest import needs_data

from nfad import simulate as sim
from nfad.packets import ACK, FIN, FLOW_FEATURES, PSH, Packets, RST, SYN, TCP, UDP, flow_features, flow_table

KINDS = list(sim.BENIGN_SERVICES) + list(sim.ATTACK_CLASSES)


# ---------------------------------------------------------------- cases
def simulated_packets(n_conversations: int = 6) -> Packets:
    flows, protocols = [], []
    for kind in KINDS:
        for number in range(n_conversations):
            some = sim.simulate_conversation(kind, number, seed=11)[1]
            flows += some
            protocols += [(sim.BENIGN_SERVICES | sim.ATTACK_CLASSES)[kind][2]] * len(some)
    return sim.packets_of(flows, protocols)


def wild_packets(n_flows: int = 300, seed: int = 3) -> Packets:
    "Flows no protocol would produce: single packets, no duration, long pauses, one-sided, every flag."
    rng = np.random.default_rng(seed)
    counts = rng.choice([1, 2, 3, 5, 9, 40], n_flows)
    flow = np.repeat(np.arange(n_flows), counts)
    gap = rng.choice([0, 1, 500, 999_999, 1_000_001, 4_000_000, 6_000_000], len(flow))
    since = np.cumsum(gap)
    first = np.flatnonzero(np.diff(flow, prepend=-1))
    is_forward = rng.random(len(flow)) < rng.choice([0.1, 0.5, 1.0], n_flows)[flow]
    is_forward[first] = True
    size = rng.choice([0, 0, 1, 100, 1460], len(flow))
    return Packets(flow, since - since[first][flow], size.astype(float), is_forward, rng.choice([20., 32.], len(flow)),
                   rng.integers(0, 256, len(flow)), rng.integers(0, 65536, len(flow)), np.full(len(flow), TCP))


CASES = {"simulated": simulated_packets(), "wild": wild_packets()}
cases = pytest.mark.parametrize("packets", CASES.values(), ids=CASES.keys())


def seconds(d): return d["Flow Duration"].to_numpy() / 1e6


def close(a, b, **more): np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-9, atol=1e-6, **more)


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


# ---------------------------------------------------------------- names
def test_the_names_are_canonical():
    from nfad.vocabulary import FLOW_COLUMNS
    assert len(FLOW_FEATURES) == len(set(FLOW_FEATURES)) == 77
    assert set(FLOW_FEATURES) - {"Protocol"} <= set(FLOW_COLUMNS)


@needs_data
def test_the_names_and_their_order_are_those_of_cicids2017(data_dir):
    import pyarrow.parquet as pq
    names = pq.read_schema(data_dir / "cicids2017" / "cicids2017.parquet").names
    features = [name for name in names[:names.index("Label")] if name not in ("Destination Port", "Fwd Header Length.1")]
    assert ["Protocol", *features] == list(FLOW_FEATURES)


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


# ---------------------------------------------------------------- captures
def ip_frame(version, protocol, source, destination, sport, dport, size, flags, window, header=20, vlan=False, keep=0):
    "A frame whose payload is cut to `keep` bytes, as captures with a snap length have it."
    if protocol == TCP: transport = struct.pack(">HHIIBBHHH", sport, dport, 0, 0, header // 4 << 4, flags, window, 0, 0) + bytes(header - 20)
    else: transport = struct.pack(">HHHH", sport, dport, 8 + size, 0)
    if version == 4:
        ip = struct.pack(">BBHIBBH", 0x45, 0, 20 + len(transport) + size, 0, 64, protocol, 0) + bytes([10, 0, 0, source, 10, 0, 0, destination])
    else:
        ip = struct.pack(">IHBB", 6 << 28, len(transport) + size, protocol, 64) + bytes(15) + bytes([source]) + bytes(15) + bytes([destination])
    kind = {4: b"\x08\x00", 6: b"\x86\xdd"}[version]
    return bytes(12) + (b"\x81\x00\x00\x05" if vlan else b"") + kind + ip + transport + bytes(min(size, keep))


def write_pcap(path, frames, order="<", nano=False, link=1):
    ticks = 1e9 if nano else 1e6
    out = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for when, frame in frames:
        out += struct.pack(order + "IIII", int(when), int(round((when % 1) * ticks)), len(frame), len(frame) + 99) + frame
    path.write_bytes(out)


def law_capture_round_trip(read, folder, version, order, nano, vlan):
    "Simulated flows written as a capture and read back have the same features."
    flows = [sim.simulate_conversation(kind, 2, seed=5)[1][0] for kind in KINDS]
    protocols = [UDP if kind.startswith("DNS") else TCP for kind in KINDS]
    frames = sorted(((1.4e9 + 3 * k + row[0], ip_frame(version, protocol, 1 if row[2] else 2, 2 if row[2] else 1, *(
        (5000 + k, 80) if row[2] else (80, 5000 + k)), row[1], row[4], max(row[5], 0), row[3], vlan))
        for k, (flow, protocol) in enumerate(zip(flows, protocols)) for row in flow), key=lambda item: item[0])
    write_pcap(folder / "all.pcap", frames, order, nano)
    got = sim.flows_from_packets(read(folder / "all.pcap"), timeout=1000)
    expected = flow_table(sim.packets_of(flows, protocols))
    got = got.sort_values("Timestamp")[list(FLOW_FEATURES)].reset_index(drop=True)
    assert len(got) == len(expected)
    slack = [n for n in FLOW_FEATURES if "IAT" in n or "/s" in n or "Rate" in n or n.startswith(("Active", "Idle", "Flow D"))]
    np.testing.assert_allclose(got[slack], expected[slack], rtol=2e-2, atol=3)  # a time stamp may round the other way
    rest = [name for name in FLOW_FEATURES if name not in slack]
    np.testing.assert_allclose(got[rest], expected[rest], rtol=1e-9)


@pytest.mark.parametrize("version, order, nano, vlan", [(4, "<", False, False), (4, ">", True, True), (6, "<", True, False)])
def test_capture_round_trip(tmp_path, version, order, nano, vlan):
    law_capture_round_trip(sim.read_pcap, tmp_path, version, order, nano, vlan)


def test_capture_law_catches_a_reader_that_trusts_the_cut_payload(tmp_path):
    def trusting(path): return sim.read_pcap(path).assign(size=0)
    with pytest.raises(AssertionError): law_capture_round_trip(trusting, tmp_path, 4, "<", False, False)


def test_reader_refuses_what_is_no_capture(tmp_path):
    for name, data, message in (("a", b"\x0a\x0d\x0d\x0a" + bytes(40), "pcapng"), ("b", b"hello", "no pcap"), ("c", b"", "no pcap")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=message): sim.read_pcap(tmp_path / name)
    write_pcap(tmp_path / "wifi", [], link=105)
    with pytest.raises(ValueError, match="link type 105"): sim.read_pcap(tmp_path / "wifi")


def test_reader_counts_what_it_skips(tmp_path):
    good = ip_frame(4, TCP, 1, 2, 5000, 80, 10, SYN, 100)
    icmp, arp = good[:23] + b"\x01" + good[24:], bytes(12) + b"\x08\x06" + bytes(28)
    write_pcap(tmp_path / "x", [(1.0, good), (2.0, icmp), (3.0, arp), (4.0, good)])
    whole = sim.read_pcap(tmp_path / "x")
    assert len(whole) == 2 and whole.attrs["skipped"] == 2 and whole["size"].tolist() == [10, 10]
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-5])  # the last packet is cut off
    cut = sim.read_pcap(tmp_path / "x")
    assert len(cut) == 1 and cut.attrs["skipped"] == 3
    write_pcap(tmp_path / "none", [])
    empty = sim.flows_from_packets(sim.read_pcap(tmp_path / "none"))
    assert len(empty) == 0 and set(FLOW_FEATURES) <= set(empty.columns)


# ---------------------------------------------------------------- assembling flows
def talk(*rows):
    "Packets (time, sender is client, flags, size) of one pair of ports."
    return pd.DataFrame([(t, "c" if client else "s", "s" if client else "c", TCP, 9 if client else 80, 80 if client else 9, size, 20, flags, 1)
                         for t, client, flags, size in rows],
                        columns=["time", "source", "destination", "protocol", "source_port", "destination_port", "size", "header_bytes",
                                 "flags", "window"])


def law_teardown(assign):
    closing = talk((0, True, SYN, 0), (1, False, SYN | ACK, 0), (2, True, ACK | FIN, 0), (3, False, ACK, 50), (4, False, ACK | FIN, 0),
                   (5, True, ACK, 0), (6, True, SYN, 0), (7, False, RST | ACK, 0), (8, True, ACK, 0), (9, True, SYN, 0))
    flow, is_forward = assign(closing)
    assert flow.tolist() == [0] * 6 + [1] * 3 + [2]  # late packets stay, a new SYN opens the next flow
    assert is_forward.tolist() == closing["source"].eq("c").tolist()


def test_teardown(): law_teardown(sim.assign_flows)


def test_teardown_law_catches_the_first_fin_rule():
    with pytest.raises(AssertionError): law_teardown(lambda packets: sim.assign_flows(packets, tcp_end="first_fin"))


def law_timeout(assign):
    "A flow lasts at most the timeout; its continuation keeps the direction."
    rows = talk(*((10.0 * k, k % 13 != 0 or k == 0, ACK, 5) for k in range(40)))
    flow, is_forward = assign(rows)
    lasts = rows.groupby(flow)["time"].agg(lambda t: t.max() - t.min())
    assert (lasts <= 120).all() and len(lasts) == 4
    assert is_forward.tolist() == rows["source"].eq("c").tolist()


def test_timeout(): law_timeout(sim.assign_flows)


def test_timeout_law_catches_an_endless_flow():
    with pytest.raises(AssertionError): law_timeout(lambda packets: sim.assign_flows(packets, timeout=1e9))


def test_assembly_refuses_bad_arguments():
    rows = talk((0, True, SYN, 0), (1, False, ACK, 0))
    with pytest.raises(ValueError, match="tcp_end"): sim.assign_flows(rows, tcp_end="fin")
    with pytest.raises(ValueError, match="timeout"): sim.assign_flows(rows, timeout=0)
    with pytest.raises(ValueError, match="order of time"): sim.assign_flows(rows.iloc[::-1])


# ---------------------------------------------------------------- agreement with CICFlowMeter
# Every feature that differs, with the reason, and a function that computes CICFlowMeter's value from the packets of a flow
# (t: times, s: sizes, f: is_forward, b: flag bits, w: windows). A reason is accepted only if it predicts every value exactly.
FIRST_ONLY = "only the first packet reaches updateFlowBulk, detectUpdateSubflows and checkFlags (CICFlowMeter issue 41)"
HASHED = FIRST_ONLY + "; flags are written in the order of a Java HashMap under a fixed header, so the columns are permuted"
PSH_FIRST = "PSH and URG are counted in firstPacket alone, not in addPacket (issue 129)"
TWICE = "the first packet enters the length statistics twice (issue 94; pull request 170)"
ONE_SUBFLOW = FIRST_ONLY + "; a misplaced bracket makes the pause test true, so there is always one subflow"


def twice(s): return np.concatenate([s[:1], s])


EXPLAINED = {
    "Fwd PSH Flags": (PSH_FIRST, lambda t, s, f, b, w: b[0] & PSH > 0),
    "Bwd PSH Flags": (PSH_FIRST, lambda t, s, f, b, w: 0),
    "Packet Length Mean": (TWICE, lambda t, s, f, b, w: twice(s).mean()),
    "Packet Length Std": (TWICE, lambda t, s, f, b, w: twice(s).std(ddof=1)),
    "Packet Length Variance": (TWICE, lambda t, s, f, b, w: twice(s).var(ddof=1)),
    "Average Packet Size": (TWICE, lambda t, s, f, b, w: twice(s).sum() / len(s)),
    **{f"{column} Flag Count": (HASHED, lambda t, s, f, b, w, bit=bit: b[0] & bit > 0)
       for column, bit in dict(FIN=sim.RST, SYN=sim.PSH, RST=sim.ECE, PSH=sim.SYN, ACK=sim.ACK, URG=sim.FIN).items()},
    "Down/Up Ratio": ("an integer division (getDownUpRatio)", lambda t, s, f, b, w: (~f).sum() // f.sum()),
    **{f"Bwd Avg {what}": (FIRST_ONLY, lambda t, s, f, b, w: 0) for what in ("Bytes/Bulk", "Packets/Bulk", "Bulk Rate")},
    "Subflow Fwd Packets": (ONE_SUBFLOW, lambda t, s, f, b, w: f.sum()),
    "Subflow Bwd Packets": (ONE_SUBFLOW, lambda t, s, f, b, w: (~f).sum()),
    "Subflow Fwd Bytes": (ONE_SUBFLOW, lambda t, s, f, b, w: s[f].sum()),
    "Subflow Bwd Bytes": (ONE_SUBFLOW, lambda t, s, f, b, w: s[~f].sum()),
    "Init_Win_bytes_backward": ("addPacket overwrites it, so it is the window of the last backward packet",
                                lambda t, s, f, b, w: w[~f][-1] if (~f).any() else -1),
    "act_data_pkt_fwd": ("the first packet is not looked at (counted in addPacket alone)", lambda t, s, f, b, w: (s[1:][f[1:]] > 0).sum()),
}


def reference_flows(data_dir, tcp_end="first_fin"):
    "Our records, CICFlowMeter's records in the same order, and the packets of each flow."
    packets = sim.read_pcap(data_dir / "pcap" / "cicflowmeter_test.pcap")
    ours = sim.flows_from_packets(packets, tcp_end=tcp_end)
    theirs = pd.read_csv(data_dir / "pcap" / "cicflowmeter_test.csv")
    names = [name for name in FLOW_FEATURES if name != "Protocol"]
    assert len(theirs.columns) == 7 + len(names) + 1  # the V4 names come in the order of the V3 names
    theirs.columns = ["Flow ID", "Source IP", "Source Port", "Destination IP", "Destination Port", "Protocol", "Timestamp", *names, "Label"]
    local = pd.to_datetime(theirs["Timestamp"], format="%d/%m/%Y %H:%M:%S")
    theirs["Timestamp"] = (local - pd.Timestamp(0)) // pd.Timedelta("1s")
    return packets, ours, theirs


def matched(ours, theirs):
    "Their rows in the order of ours, by addresses, ports and start; the clock of the file may be off by whole hours."
    key = ["Source IP", "Source Port", "Destination IP", "Destination Port", "Flow Duration"]
    both = ours[key + ["Timestamp"]].reset_index().merge(theirs[key + ["Timestamp"]].reset_index(), on=key, suffixes=("", "_theirs"))
    both["offset"] = np.floor(both["Timestamp"]) - both["Timestamp_theirs"]
    both = both[both["offset"] == both["offset"].mode()[0]]
    return theirs.loc[both.sort_values("index")["index_theirs"]].reset_index(drop=True), both["offset"].iloc[0]


def agreement(ours, theirs):
    "Feature -> fraction of flows with the same value."
    return pd.Series({name: np.isclose(ours[name].astype(float), theirs[name].astype(float), rtol=1e-9, atol=1e-6).mean()
                      for name in FLOW_FEATURES})


def law_agreement(ours, theirs, explained):
    table = agreement(ours, theirs)
    assert set(table.index[table < 1]) == set(explained), table[table < 1].to_string()


@needs_data
def test_the_same_96_flows_as_cicflowmeter(data_dir):
    packets, ours, theirs = reference_flows(data_dir)
    assert len(packets) == 3291 and packets.attrs["skipped"] == 1  # one ICMP packet
    assert len(ours) == len(theirs) == 96
    same, offset = matched(ours, theirs)
    assert len(same) == 96 and offset == 3 * 3600  # the file's clock is that of New Brunswick
    for side in ("Source", "Destination"): assert (same[[f"{side} IP", f"{side} Port"]] == ours[[f"{side} IP", f"{side} Port"]]).all(axis=None)


@needs_data
def test_every_feature_agrees_or_is_explained(data_dir):
    _, ours, theirs = reference_flows(data_dir)
    theirs, _ = matched(ours, theirs)
    law_agreement(ours, theirs, EXPLAINED)
    assert (agreement(ours, theirs) == 1).sum() == 77 - len(EXPLAINED) == 55
    with pytest.raises(AssertionError): law_agreement(ours.assign(**{"Flow IAT Std": ours["Flow IAT Std"] * 0.99}), theirs, EXPLAINED)


@needs_data
def test_each_explanation_predicts_every_value(data_dir):
    packets, ours, theirs = reference_flows(data_dir)
    theirs, _ = matched(ours, theirs)
    flow, is_forward = sim.assign_flows(packets, tcp_end="first_fin")
    groups = [g for _, g in packets.assign(f=is_forward).groupby(flow) if len(g) > 1]
    arrays = [[g[name].to_numpy() for name in ("time", "size", "f", "flags", "window")] for g in groups]
    for name, (reason, predict) in EXPLAINED.items():
        close([predict(*columns) for columns in arrays], theirs[name], err_msg=f"{name}: {reason}")


@needs_data
def test_half_of_the_reference_flows_are_appendices(data_dir):
    "Engelen et al. (2021): ending a connection at its first FIN makes flows out of its last packets."
    _, split, _ = reference_flows(data_dir)
    _, whole, _ = reference_flows(data_dir, tcp_end="teardown")
    assert len(whole) == 48 and not whole.duplicated(["Source Port", "Destination Port"]).any()
    assert (split["Total Fwd Packets"] + split["Total Backward Packets"] <= 4).sum() == 48
    assert whole["SYN Flag Count"].eq(2).all()  # each is one whole connection, from its SYN on


@needs_data
def test_packet_tables_of_tiissrc23(data_dir):
    table = pd.read_parquet(data_dir / "tiissrc23" / "tiissrc23_packets.parquet")
    d = sim.packet_table_features(table)
    assert d.shape == (960, 77) and (d.index == table.index).all() and np.isfinite(d.to_numpy()).all()
    close(d["Total Fwd Packets"] + d["Total Backward Packets"], table["packet_num"])
    close(d["Flow Duration"], [np.rint(t[-1] * 1e6) for t in table["timestamp"]])
    assert (d[["Fwd Header Length", "SYN Flag Count"]] == 0).all(axis=None) and (d["Init_Win_bytes_forward"] == -1).all()


def test_packet_tables_say_what_is_wrong():
    with pytest.raises(KeyError, match="direction_length"): sim.packet_table_features(pd.DataFrame({"timestamp": [[0]]}))
    bad = pd.DataFrame({"timestamp": [[0], [1, 0]], "direction_length": [[1], [1, 1]]})
    with pytest.raises(ValueError, match="row 1.*decrease"): sim.packet_table_features(bad)
    assert sim.packet_table_features(bad.iloc[:0]).shape == (0, 77)


# ---------------------------------------------------------------- the demo set
DEMO = sim.simulate_demo(n_benign=1500, n_attack_per_class=60, seed=1)


def law_deterministic(simulate):
    pd.testing.assert_frame_equal(simulate(300, 10, seed=1), simulate(300, 10, seed=1))
    assert not simulate(300, 10, seed=1).equals(simulate(300, 10, seed=2))


def test_demo_is_deterministic(): law_deterministic(sim.simulate_demo)


def test_determinism_law_catches_a_hidden_generator():
    def careless(n_benign, n_attack_per_class, seed): return sim.simulate_demo(n_benign, n_attack_per_class, seed).sample(frac=1)
    with pytest.raises(AssertionError): law_deterministic(careless)


def law_classes_are_independent(simulate):
    "More records of one class leave the records of the others as they were."
    few, many = simulate(200, 10, seed=4), simulate(200, 30, seed=4)
    few, many = (d[d["Label"] == "BENIGN"].sort_values(["conversation", *FLOW_FEATURES]).reset_index(drop=True) for d in (few, many))
    pd.testing.assert_frame_equal(few, many)


def test_classes_are_independent(): law_classes_are_independent(sim.simulate_demo)


def test_independence_law_catches_a_shared_stream():
    def shared(n_benign, n_attack_per_class, seed): return sim.simulate_demo(n_benign, n_attack_per_class, seed + n_attack_per_class)
    with pytest.raises(AssertionError): law_classes_are_independent(shared)


def law_demo(d):
    assert list(d.columns) == [*FLOW_FEATURES, "Label", "service", "conversation", "day"]
    benign = d["Label"] == "BENIGN"
    assert benign.sum() == 1500 and (d["Label"][~benign].value_counts() == 60).all() and d["Label"].nunique() == 8
    assert set(d["day"][benign]) == set(sim.DAYS) and set(d["day"][~benign]) == set(sim.DAYS[2:])
    assert (d.groupby("conversation")["day"].nunique() == 1).all() and (d.groupby("conversation")["Label"].nunique() == 1).all()
    assert (d["day"].map(sim.DAYS.index).diff().dropna() >= 0).all()  # sorted by day
    assert (d["Total Fwd Packets"] + d["Total Backward Packets"] >= 2).all() and (d["Flow Duration"] <= 120e6).all()
    assert (d["Total Fwd Packets"] >= 1).all() and np.isfinite(d[list(FLOW_FEATURES)].to_numpy()).all()
    assert set(d["Protocol"][d["service"].str.startswith("DNS")]) == {17} and d["Protocol"].isin([6, 17]).all()


def test_demo(): law_demo(DEMO)


def test_demo_law_catches_attacks_on_monday():
    with pytest.raises(AssertionError): law_demo(DEMO.assign(day="Monday"))


def law_trace(flow, protocol):
    times = [row[0] for row in flow]
    assert len(flow) >= 2 and times == sorted(times) and 0 <= times[0] and times[-1] <= 120 and flow[0][2] is True
    for _, size, is_forward, header, flags, window in flow:
        assert 0 <= size <= 1500 and size == int(size)
        assert (header == 8 and flags == 0 and window == -1) if protocol == UDP else (20 <= header <= 60 and flags and 0 < window < 65536)
        if flags & SYN: assert size == 0


@pytest.mark.parametrize("kind", KINDS)
def test_traces(kind):
    for number in range(25):
        for flow in sim.simulate_conversation(kind, number)[1]: law_trace(flow, (sim.BENIGN_SERVICES | sim.ATTACK_CLASSES)[kind][2])


def test_trace_law_catches_time_running_backwards():
    flow = sim.simulate_conversation("web", 0)[1][0]
    with pytest.raises(AssertionError): law_trace(flow[:2] + flow[1::-1], TCP)


def test_demo_refuses_bad_arguments():
    for bad in (dict(n_benign=-1), dict(n_benign=1.5), dict(n_attack_per_class=True), dict(n_benign=0, n_attack_per_class=0)):
        with pytest.raises(ValueError, match="n_benign|n_attack_per_class"): sim.simulate_demo(**bad)
    with pytest.raises(ValueError, match="service"): sim.simulate_conversation("gopher", 0)
    assert len(sim.simulate_demo(n_benign=0, n_attack_per_class=1)) == 7 and len(sim.simulate_demo(3, 0)) == 3


def law_fair_difficulty(d):
    "A nearest-neighbor detector finds the attacks well, not perfectly, and some classes stay hard."
    from sklearn.metrics import roc_auc_score
    from sklearn.neighbors import NearestNeighbors
    x = np.log1p(d[list(FLOW_FEATURES)].clip(lower=0)).to_numpy()
    benign = (d["Label"] == "BENIGN").to_numpy()
    train = benign & (d["conversation"].str.split().str[-1].astype(int) % 2 == 0).to_numpy()
    spread = x[train].std(0)
    x = ((x - x[train].mean(0)) / np.where(spread > 0, spread, 1)).clip(-10, 10)
    score = NearestNeighbors(n_neighbors=5).fit(x[train]).kneighbors(x[~train])[0].mean(1)
    kind, attack = d["Label"].to_numpy()[~train], ~benign[~train]
    each = {c: roc_auc_score(kind[(kind == c) | ~attack] == c, score[(kind == c) | ~attack]) for c in sim.ATTACK_CLASSES}
    assert 0.85 < roc_auc_score(attack, score) < 0.99, each
    assert min(each.values()) > 0.65 and each["HTTP flood"] < 0.97 and each["SSH brute force"] < 0.97, each


def test_fair_difficulty(): law_fair_difficulty(DEMO)


def test_difficulty_law_catches_a_giveaway():
    give_away = DEMO.assign(Init_Win_bytes_forward=np.where(DEMO["Label"] == "BENIGN", 64240.0, 0.0))
    with pytest.raises(AssertionError): law_fair_difficulty(give_away)


def test_default_demo_is_quick():
    begin = time.process_time()
    assert len(sim.simulate_demo()) == 8000 + 7 * 300
    assert time.process_time() - begin < 10  # about 2.5 s on a quiet core
