"""Laws of nfad.wire: flows handed out as they end are those that all packets together make, however the packets come."""
import io

import numpy as np
import pandas as pd
import pytest
from conftest import needs_data
from test_packets import matched
from traffic import close, random_packets

from nfad.headers import packet_frame, read_capture
from nfad.packets import flows_from_packets
from nfad.vocabulary import FLOW_FEATURES
from nfad.wire import IDENTITY, FlowMeter, flow_batches, flow_records

ENDS = list(IDENTITY[:5])


def metered(packets, size=10**6, **settings):
    meter = FlowMeter(**settings)
    parts = [meter.update(packets[at:at + size]) for at in range(0, len(packets), size)]
    return pd.concat([*parts, meter.flush()], ignore_index=True), meter.report


def in_order(records): return records.sort_values([*ENDS, "Flow End"], kind="stable", ignore_index=True)


def law_plain(records_of, seed, dialect, tcp_end):
    "The same flows, with the same features, as the plain version that has all packets before it."
    packets = random_packets(seed)
    got = in_order(records_of(packets, dialect))
    plain = flows_from_packets(packet_frame(packets), tcp_end=tcp_end, min_packets=1).assign(**{"Flow End": 0})
    plain = plain.sort_values([*ENDS, "Flow Duration"], kind="stable", ignore_index=True)
    assert len(got) == len(plain) > 50 and got[ENDS[:4]].astype(str).equals(plain[ENDS[:4]].astype(str))
    close(got["Timestamp"], plain["Timestamp"])
    if dialect == "nfad": close(got[list(FLOW_FEATURES)], plain[list(FLOW_FEATURES)])


@pytest.mark.parametrize("dialect, tcp_end", [("nfad", "teardown"), ("cicflowmeter", "first_fin")])
@pytest.mark.parametrize("seed", range(4))
def test_plain_version(seed, dialect, tcp_end): law_plain(lambda p, d: metered(p, 50, dialect=d, min_packets=1)[0], seed, dialect, tcp_end)


def test_the_law_catches_another_time_out():
    with pytest.raises(AssertionError): law_plain(lambda p, d: metered(p, idle_timeout=5)[0], 0, "nfad", "teardown")


def law_blocks(records_of):
    "However packets are cut into blocks, the same flows come out, in the same order."
    packets = random_packets(7)
    packets["time"] += np.random.default_rng(1).integers(-300_000, 300_000, len(packets))  # out of order, too
    whole, report = records_of(packets, 10**6)
    for size in (100, 17, 1):
        part, same = records_of(packets, size)
        pd.testing.assert_frame_equal(part, whole, check_dtype=False)
        assert same == report


def test_blocks(): law_blocks(metered)


def test_the_law_catches_a_meter_that_ends_all_at_each_block():
    def forgetful(packets, size):
        parts = [metered(packets[at:at + size])[0] for at in range(0, len(packets), size)]
        return pd.concat(parts, ignore_index=True), None
    with pytest.raises(AssertionError): law_blocks(forgetful)


def test_packets_out_of_order_are_sorted_within_the_window():
    packets = random_packets(3)
    packets["time"] += np.arange(len(packets)) * 20
    rng = np.random.default_rng(0)
    mixed = packets[np.argsort(packets["time"] + rng.integers(0, 400_000, len(packets)), kind="stable")]
    assert (np.diff(mixed["time"]) < 0).any()
    (sorted_out, report), (expected, _) = metered(mixed, 40, reorder=0.5), metered(packets, reorder=0)
    assert report.late == 0
    pd.testing.assert_frame_equal(in_order(sorted_out), in_order(expected), check_dtype=False)
    assert metered(mixed, 40, reorder=0.0001)[1].late > 0


def test_a_clock_that_steps_back_loses_nothing():
    packets = random_packets(4, 100)
    packets["time"] -= packets["time"].min() - 10**15
    again = packets.copy()
    again["time"] -= 10**14
    both, report = metered(np.concatenate([packets, again]), 30)
    assert report.packets == 200 and report.late == 0
    count = (both["Total Fwd Packets"] + both["Total Backward Packets"]).sum()
    assert count + report.belated == 200


def test_every_packet_is_in_a_flow_or_counted_whatever_the_table_holds():
    packets = random_packets(5, 2000)
    packets["source_port"] += (np.arange(2000) // 7 % 60).astype(np.uint16)
    for most in (1, 2, 7, 50, 10_000):
        records, report = metered(packets, 300, max_flows=most)
        count = int((records["Total Fwd Packets"] + records["Total Backward Packets"]).sum())
        assert count + report.belated == report.packets == 2000 and report.flows == len(records)
        assert report.evicted == 0 if most == 10_000 else most == 50 or report.evicted > 0


def test_a_flood_evicts_those_that_are_silent():
    flood = np.repeat(random_packets(0, 1), 5000)
    flood["flags"], flood["protocol"] = 2, 6
    flood["source_low"] = np.arange(5000)
    flood["time"] += np.arange(5000) * 10
    talk = flood[::20].copy()
    talk["source_low"], talk["flags"] = 0xFFFF, 16
    mixed = np.concatenate([flood, talk])
    mixed = mixed[np.argsort(mixed["time"], kind="stable")]
    meter = FlowMeter(max_flows=100)
    records = pd.concat([meter.update(mixed), meter.flush()])
    assert len(meter.table.flows) == 100 and meter.report.evicted > 4000
    assert records["Total Fwd Packets"].max() == 250  # the one who goes on talking is not ended


def test_time_without_packets_ends_flows():
    packets = random_packets(1, 200)
    meter = FlowMeter()
    first = meter.update(packets)
    later = meter.advance(packets["time"].max() / 1e6 + 200)
    assert len(first) + len(later) == len(metered(packets)[0]) and len(meter.flush()) == 0


def test_virtual_networks_and_dialects():
    packets = random_packets(2, 50)
    twice = np.repeat(packets, 2)
    twice["vlan"][1::2] = 100 * 4096 + 5
    records, _ = metered(twice)
    assert set(records["VLAN Tags"]) == {"", "100.5"} and len(records) == 2 * len(metered(packets)[0])
    assert set(metered(twice, dialect="cicflowmeter")[0]["VLAN Tags"]) == {""}
    icmp = packets.copy()
    icmp["protocol"] = 1
    assert metered(icmp, dialect="cicflowmeter")[1].other == 50 and metered(icmp)[1].other == 0


@pytest.mark.parametrize("settings, words", [({"dialect": "zeek"}, "dialect"), ({"active_timeout": 0}, "active_timeout"), ({"reorder": 99}, "reorder"),
                                             ({"max_flows": 0}, "max_flows"), ({"idle_timeout": float("nan")}, "idle_timeout")])
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(ValueError, match=words): FlowMeter(**settings)


# ---------------------------------------------------------------- what other tools say
@needs_data
@pytest.mark.parametrize("dialect, n", [("cicflowmeter", 96), ("nfad", 48)])
def test_the_pair_is_exact_in_both_dialects(data_dir, dialect, n):
    pair = data_dir / "pcap" / "cicflowmeter_test.pcap"
    records = flow_records(pair, meter=FlowMeter(dialect, min_packets=2))
    plain = flows_from_packets(pair, tcp_end="teardown" if dialect == "nfad" else "first_fin")
    assert len(records) == len(plain) == n
    if dialect == "nfad": return close(records[list(FLOW_FEATURES)], plain[list(FLOW_FEATURES)])
    theirs = pd.read_csv(data_dir / "pcap" / "cicflowmeter_test.csv")
    names = [name for name in FLOW_FEATURES if name != "Protocol"]
    theirs.columns = ["Flow ID", "Source IP", "Source Port", "Destination IP", "Destination Port", "Protocol", "Timestamp", *names, "Label"]
    local = pd.to_datetime(theirs["Timestamp"], format="%d/%m/%Y %H:%M:%S")
    theirs["Timestamp"] = (local - pd.Timestamp(0)) // pd.Timedelta("1s")
    same, _ = matched(records, theirs)
    assert len(same) == 96
    for name in FLOW_FEATURES: close(records[name], same[name], err_msg=name)  # all 77, CICFlowMeter's errors included


@needs_data
def test_splitting_a_capture_changes_nothing(data_dir):
    path = data_dir / "captures" / "apps" / "zoom.pcap"
    data = path.read_bytes()
    at, ends = 24, [24]
    while at < len(data):
        at += 16 + int.from_bytes(data[at + 8:at + 12], "little")
        ends.append(at)
    cut = ends[len(ends) // 2]
    halves = [io.BytesIO(data[:cut]), io.BytesIO(data[:24] + data[cut:])]
    pd.testing.assert_frame_equal(flow_records(halves), flow_records(path))


def same_as_nfstream(path, reorder=0):
    "Multisets of (packets, bytes) of NFStream's flows and of ours under its rules: no end by TCP, no ports of ICMP, no later fragments."
    theirs = pd.read_csv(f"{path}.nfstream.csv")
    meter = FlowMeter(active_timeout=1800, idle_timeout=120, reorder=reorder)
    for packets in read_capture(path):
        packets = packets[packets["fragment"] == 0].copy()
        packets["flags"] = 0
        icmp = np.isin(packets["protocol"], (1, 58))
        for side in ("source", "destination"): packets[f"{side}_port"][icmp] = 0
        meter.take(packets)
    meter._until(1 << 60)
    ours = [(int(s[0, 0]), int(f["bytes"])) for flows, statistics in meter.ended for f, s in zip(flows, statistics)]
    return sorted(ours) == sorted(zip(theirs["bidirectional_packets"].tolist(), theirs["bidirectional_bytes"].tolist()))


@needs_data
def test_flows_equal_those_of_nfstream(data_dir):
    captures = sorted(data_dir.glob("captures/apps/*.nfstream.csv"))
    same = {path.name: same_as_nfstream(str(path).removesuffix(".nfstream.csv")) for path in captures}
    # NFStream gives first fragments no ports, so 29 flows of it are one there
    assert [name for name, equal in same.items() if not equal] == ["ip_fragmented_garbage.pcap.nfstream.csv"] and len(same) == 11
