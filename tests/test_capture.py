"""Laws of nfad.capture: the same frames from every format, packing and size of a read; what is cut or broken is counted."""
import bz2
import gzip
import io
import lzma
import struct

import numpy as np
import pyarrow as pa
import pytest
from traffic import KINDS, PROTOCOL, ip_frame, ng_block, ng_interface, ng_packet, ng_section, write_pcap

from nfad import capture, demo
from nfad.capture import CaptureReport, read_frames
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


# ---------------------------------------------------------------- every format says the same
ROWS = [(1_600_000_000_000_000 + 997 * k, bytes([k]) * (14 + 5 * k)) for k in range(9)]


def as_pcap(order, nano):
    out = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for micros, frame in ROWS:
        part = micros % 10**6 * (1000 if nano else 1)
        out += struct.pack(order + "IIII", micros // 10**6, part, len(frame), len(frame) + 7) + frame
    return out


def as_ng(order, resolution, per_second, offset=0):
    packets = [ng_packet(micros - offset * 10**6, frame, order, per_second=per_second, length=len(frame) + 7) for micros, frame in ROWS]
    unknown = ng_block(0x0BAD, bytes(33), order)
    return ng_section(order) + unknown + ng_interface(order, 1, resolution, offset) + unknown.join(packets) + unknown


FORMS = {
    "us": as_pcap("<", False), "ns": as_pcap("<", True), "us, big": as_pcap(">", False), "ns, big": as_pcap(">", True),
    "ng": as_ng("<", 6, 10**6), "ng, big, ns": as_ng(">", 9, 10**9), "ng, offset": as_ng("<", 6, 10**6, 1_500_000_000),
    "ng, 2^-32": as_ng("<", 0x80 | 32, 2**32)}


def frames_of(source, report=None):
    return [(int(t), bytes(f.data[o:o + c]), int(n)) for f in read_frames(source, report)
            for o, c, n, t in zip(f.offset, f.captured, f.length, f.time)]


def law_same_frames(read, form):
    got = read(io.BytesIO(FORMS[form]))
    slack = 1 if "2^" in form else 0
    assert [(b, n) for _, b, n in got] == [(frame, len(frame) + 7) for _, frame in ROWS]
    assert all(abs(t - micros) <= slack for (t, _, _), (micros, _) in zip(got, ROWS))


@pytest.mark.parametrize("form", FORMS)
def test_every_format_holds_the_same_frames(form): law_same_frames(frames_of, form)


def test_the_law_catches_a_reader_with_one_clock():
    with pytest.raises(AssertionError): law_same_frames(lambda source: [(t // 1000, b, n) for t, b, n in frames_of(source)], "ns")


class Drop(io.RawIOBase):
    "A stream that gives a few bytes at a time, as a pipe does."
    def __init__(self, data): self.rest = data
    def readable(self): return True
    def readinto(self, view):
        part, self.rest = self.rest[:min(7, len(view))], self.rest[min(7, len(view)):]
        view[:len(part)] = part
        return len(part)


@pytest.mark.parametrize("form", ["ns", "ng, big, ns"])
def test_the_size_of_reads_does_not_matter(form, monkeypatch):
    monkeypatch.setattr(capture, "_CHUNK", 64)
    assert frames_of(Drop(FORMS[form])) == frames_of(io.BytesIO(FORMS[form]))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda data: pa.compress(data, "zstd", asbytes=True)])
def test_packed(pack, tmp_path):
    (tmp_path / "x").write_bytes(pack(FORMS["ng"]))
    assert frames_of(tmp_path / "x") == frames_of(io.BytesIO(FORMS["ng"])) == frames_of(io.BytesIO(pack(FORMS["ng"])))


def test_interfaces_have_their_own_links_and_clocks():
    frame = bytes(20)
    simple = ng_block(3, struct.pack("<I", 20) + frame)
    data = (ng_section() + ng_interface(link=101, resolution=3) + ng_interface(link=113, resolution=9)
            + ng_packet(5_000_000, frame, interface=1, per_second=10**9) + ng_packet(7_000_000, frame, interface=0, per_second=1000) + simple
            + ng_section(">") + ng_interface(">", link=1) + ng_packet(9_000_000, frame, ">"))
    found = [(int(t), int(link)) for f in read_frames(io.BytesIO(data)) for t, link in zip(f.time, f.link)]
    assert found == [(5_000_000, 113), (7_000_000, 101), (7_000_000, 101), (9_000_000, 1)]


def law_cut(read):
    "However a capture is cut, its whole frames are read, and what is cut is counted or refused."
    for form in ("us", "ng"):
        whole = frames_of(io.BytesIO(FORMS[form]))
        for end in range(4, len(FORMS[form])):
            report = CaptureReport()
            try: got = read(io.BytesIO(FORMS[form][:end]), report)
            except ValueError: continue
            assert got == whole[:len(got)] and report.frames == len(got)
            assert report.left_out.total() <= 1 and not report.damage


def test_cut(): law_cut(frames_of)


def test_the_law_catches_frames_made_up():
    with pytest.raises(AssertionError): law_cut(lambda source, report: frames_of(source, report) + [(0, b"", 0)])


def test_damage_ends_the_reading_and_is_told():
    long = bytearray(FORMS["us"])
    long[24 + 8:24 + 12] = struct.pack("<I", 1 << 30)
    none = ng_section() + ng_packet(1, bytes(20))  # no interface
    clock = ng_section() + ng_interface(resolution=99)
    for data, words in ((bytes(long), "more than"), (none, "does not hold"), (clock, "no clock")):
        report = CaptureReport()
        assert frames_of(io.BytesIO(data), report) == [] and words in report.damage
        assert any("damaged" in line for line in report.lines())


def test_what_is_no_capture_is_refused(tmp_path):
    for name, data in (("b", b"hello"), ("c", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match="no capture"): read_pcap(tmp_path / name)
    write_pcap(tmp_path / "usb", [(0.0, bytes(64))], link=189)
    with pytest.raises(ValueError, match="link type 189"): read_pcap(tmp_path / "usb")


def test_what_is_left_out_is_counted(tmp_path):
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
