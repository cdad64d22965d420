"""Laws of nfad.capture: a capture written from simulated packets gives their features back; what is no capture is refused."""
import numpy as np
import pytest
from traffic import KINDS, PROTOCOL, ip_frame, write_pcap

from nfad import demo
from nfad.capture import CaptureReport
from nfad.flowmeter import SYN, TCP, flow_table
from nfad.headers import read_pcap
from nfad.packets import flows_from_packets
from nfad.vocabulary import FLOW_FEATURES


def law_capture_round_trip(read, folder, version, order, nano, vlan):
    "Simulated flows written as a capture and read back have the same features."
    flows = [demo.simulate_conversation(kind, 2, seed=5)[1][0] for kind in KINDS]
    protocols = [PROTOCOL[kind] for kind in KINDS]
    frames = sorted(((1.4e9 + 3 * k + row[0], ip_frame(version, protocol, 1 if row[2] else 2, 2 if row[2] else 1, *(
        (5000 + k, 80) if row[2] else (80, 5000 + k)), row[1], row[4], max(row[5], 0), row[3], vlan))
        for k, (flow, protocol) in enumerate(zip(flows, protocols)) for row in flow), key=lambda item: item[0])
    write_pcap(folder / "all.pcap", frames, order, nano)
    got = flows_from_packets(read(folder / "all.pcap"), timeout=1000)
    expected = flow_table(demo.packets_of(flows, protocols))
    got = got.sort_values("Timestamp")[list(FLOW_FEATURES)].reset_index(drop=True)
    assert len(got) == len(expected)
    slack = [n for n in FLOW_FEATURES if "IAT" in n or "/s" in n or "Rate" in n or n.startswith(("Active", "Idle", "Flow D"))]
    np.testing.assert_allclose(got[slack], expected[slack], rtol=2e-2, atol=3)  # a time stamp may round the other way
    rest = [name for name in FLOW_FEATURES if name not in slack]
    np.testing.assert_allclose(got[rest], expected[rest], rtol=1e-9)


@pytest.mark.parametrize("version, order, nano, vlan", [(4, "<", False, False), (4, ">", True, True), (6, "<", True, False)])
def test_capture_round_trip(tmp_path, version, order, nano, vlan):
    law_capture_round_trip(read_pcap, tmp_path, version, order, nano, vlan)


def test_capture_law_catches_a_reader_that_trusts_the_cut_payload(tmp_path):
    def trusting(path): return read_pcap(path).assign(size=0)
    with pytest.raises(AssertionError): law_capture_round_trip(trusting, tmp_path, 4, "<", False, False)


def test_reader_refuses_what_is_no_capture(tmp_path):
    for name, data in (("b", b"hello"), ("c", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="no capture"): read_pcap(tmp_path / name)
    write_pcap(tmp_path / "usb", [(0.0, bytes(64))], link=189)
    with pytest.raises(ValueError, match="link type 189"): read_pcap(tmp_path / "usb")


def test_reader_counts_what_it_leaves_out(tmp_path):
    good = ip_frame(4, TCP, 1, 2, 5000, 80, 10, SYN, 100)
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    write_pcap(tmp_path / "x", [(1.0, good), (3.0, arp), (4.0, good)])
    report = CaptureReport()
    whole = read_pcap(tmp_path / "x", report)
    assert whole["size"].tolist() == [10, 10] and report.left_out == {"ARP": 1} and report.frames == 3
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-5])  # the last packet is cut off
    report = CaptureReport()
    assert len(read_pcap(tmp_path / "x", report)) == 1 and report.left_out.total() == 2
    write_pcap(tmp_path / "none", [])
    empty = flows_from_packets(read_pcap(tmp_path / "none"))
    assert len(empty) == 0 and set(FLOW_FEATURES) <= set(empty.columns)
