"""Laws of nfad.headers: the same packet behind every link, tag and tunnel; nothing is read behind the captured bytes."""
import io
import struct

import numpy as np
import pytest
from conftest import needs_data
from traffic import ip_frame, ng_interface, ng_packet, ng_section

from nfad.capture import CaptureReport
from nfad.flowmeter import SYN, TCP, UDP
from nfad.headers import PACKET, _REASONS, LINKS, ICMP_ANSWER, _packets, read_capture


def parsed(frame, link=1, inside=False, length=None, behind=b""):
    "(reason or \"\", packet) of one frame that stands before other bytes."
    data = np.frombuffer(frame + behind, np.uint8)
    packets, reasons = np.zeros(2, PACKET), np.zeros(len(_REASONS), np.int64)
    one = [np.array([value], np.int64) for value in (0, len(frame), length or len(frame), 5, link)]
    n = _packets(data, *one, inside, ICMP_ANSWER, np.zeros((64, 2), np.uint64), packets, reasons)
    return ("", packets[0]) if n else (_REASONS[int(np.flatnonzero(reasons)[0])], None)


V4 = ip_frame(4, TCP, 1, 2, 5000, 80, 10, SYN, 100)[14:]
V6 = ip_frame(6, UDP, 1, 2, 5000, 80, 10, 0, 0)[14:]
SNAP = b"\xaa\xaa\x03\0\0\0"
WIFI = b"\x08\x01\0\0" + bytes(20)
QOS = b"\x88\x03\0\0" + bytes(28)
LINKED = {  # name -> (link type, what stands before IPv4, before IPv6)
    "Ethernet": (1, bytes(12) + b"\x08\0", bytes(12) + b"\x86\xdd"),
    "802.3": (1, bytes(12) + b"\0\x40" + SNAP + b"\x08\0", bytes(12) + b"\0\x40" + SNAP + b"\x86\xdd"),
    "MPLS": (1, bytes(12) + b"\x88\x47\0\1\0\x40\0\2\1\x40", bytes(12) + b"\x88\x47\0\2\1\x40"),
    "PPPoE": (1, bytes(12) + b"\x88\x64\x11\0\0\1\0\x40\0\x21", bytes(12) + b"\x88\x64\x11\0\0\1\0\x40\0\x57"),
    "raw": (101, b"", b""), "raw, old": (12, b"", b""), "null": (0, b"\2\0\0\0", b"\x1e\0\0\0"), "loop": (108, b"\0\0\0\2", b"\0\0\0\x18"),
    "enc": (109, b"\2\0\0\0" + bytes(8), b"\x18\0\0\0" + bytes(8)),
    "cooked": (113, bytes(14) + b"\x08\0", bytes(14) + b"\x86\xdd"), "cooked 2": (276, b"\x08\0" + bytes(18), b"\x86\xdd" + bytes(18)),
    "PPP": (9, b"\0\x21", b"\xff\x03\0\x57"), "PPP, short": (50, b"\xff\x03\x21", b"\x57"), "HDLC": (104, b"\x0f\0\x08\0", b"\x0f\0\x86\xdd"),
    "PPPoE alone": (51, b"\x11\0\0\1\0\x40\0\x21", b"\x11\0\0\1\0\x40\0\x57"), "FireWire": (138, bytes(16) + b"\x08\0", bytes(16) + b"\x86\xdd"),
    "802.11": (105, WIFI + SNAP + b"\x08\0", QOS + SNAP + b"\x86\xdd"),
    "radiotap": (127, b"\0\0\x0b\0" + bytes(7) + WIFI + SNAP + b"\x08\0", b"\0\0\x08\0" + bytes(4) + WIFI + SNAP + b"\x86\xdd"),
    "PPI": (192, b"\0\0\x08\0\x69\0\0\0" + WIFI + SNAP + b"\x08\0", b"\0\0\x08\0\x69\0\0\0" + WIFI + SNAP + b"\x86\xdd"),
    "Prism": (119, bytes(144) + WIFI + SNAP + b"\x08\0", bytes(144) + WIFI + SNAP + b"\x86\xdd")}


def law_same_packet(parse, name):
    link, *before = LINKED[name]
    for head, ip, bare in zip(before, (V4, V6), (parsed(V4, 101), parsed(V6, 101))):
        why, packet = parse(head + ip, link)
        assert why == "" and packet["size"] == 10
        assert all(packet[field] == bare[1][field] for field in PACKET.names if field != "length")


@pytest.mark.parametrize("name", LINKED)
def test_every_link_holds_the_same_packet(name): law_same_packet(parsed, name)


def test_the_law_catches_a_reader_of_one_link():
    with pytest.raises(AssertionError): law_same_packet(lambda frame, link: parsed(frame, 1), "cooked")


def test_links_with_a_name_are_read_and_no_others():
    assert {link for link, *_ in LINKED.values()} <= LINKS.keys()
    for link in {*range(300)} - {192}: assert (parsed(V4, link)[0] == "its link type is not read") == (link not in LINKS)


def test_tags_are_kept_apart():
    head, rest = bytes(12), b"\x08\0" + V4
    one, two = b"\x81\0\x20\x05", b"\x88\xa8\0\x64\x81\0\x20\x05"
    assert [int(parsed(head + tags + rest)[1]["vlan"]) for tags in (b"", one, two)] == [0, 5, 100 * 4096 + 5]


def extended(*headers, protocol=UDP):
    "IPv6 with further headers (kind, bytes)."
    kinds = [kind for kind, _ in headers] + [protocol]
    body = b"".join(bytes([following]) + held for (_, held), following in zip(headers, kinds[1:]))
    return V6[:4] + struct.pack(">HB", len(body) + len(V6) - 40, kinds[0]) + V6[7:40] + body + V6[40:]


def test_further_headers_are_passed():
    for headers in ([(0, b"\0" + bytes(6))], [(60, b"\1" + bytes(14)), (43, b"\0" + bytes(6))], [(51, b"\4" + bytes(22))], [(135, b"\0" + bytes(6))]):
        assert parsed(extended(*headers), 101)[1]["destination_port"] == 80
    assert parsed(extended(*[(60, b"\0" + bytes(6))] * 20), 101)[0] == "its IP header is malformed"
    options = bytes([0x47]) + V4[1:2] + struct.pack(">H", 58) + V4[4:20] + bytes(8) + V4[20:]
    assert parsed(options, 101)[1]["size"] == 10


def capture_of(*frames, link=101):
    packets = [ng_packet(k * 10**6, frame) for k, frame in enumerate(frames)]
    return io.BytesIO(ng_section() + ng_interface(link=link) + b"".join(packets))


def packets_of(*frames, **more): return np.concatenate(list(read_capture(capture_of(*frames), **more)))


def test_later_fragments_get_the_ports_of_the_first():
    whole = ip_frame(4, UDP, 1, 2, 5000, 80, 992, 0, 0, keep=992)[14:]
    piece = lambda at, size, more, number=7: (whole[:2] + struct.pack(">HHH", 20 + size, number, at // 8 | more << 13) + whole[8:20] + whole[20 + at:20 + at + size])
    report = CaptureReport()
    found = packets_of(piece(0, 504, 1), piece(504, 496, 0), piece(504, 496, 0, number=8), report=report)
    assert found["source_port"].tolist() == [5000, 5000] and found["fragment"].tolist() == [0, 1] and found["size"].sum() == 992
    assert report.left_out == {"a later fragment without its first": 1}
    six = lambda at, more, rest: extended((44, b"\0" + struct.pack(">HI", at | more, 9)))[:48] + rest
    first, later = six(0, 1, V6[40:]), six(24, 0, bytes(18))
    assert packets_of(first, later)["destination_port"].tolist() == [80, 80]


def test_tunnels_are_opened_on_request():
    outer = lambda protocol, body: struct.pack(">BBHIBBH", 0x45, 0, 20 + len(body), 0, 64, protocol, 0) + bytes([9, 0, 0, 1, 9, 0, 0, 2]) + body
    ethernet = bytes(12) + b"\x08\0" + V4
    ways = {"IP in IP": outer(4, V4), "6in4": outer(41, V6), "GRE": outer(47, b"\0\0\x08\0" + V4), "GRE, key": outer(47, b"\x20\0\x08\0\0\0\0\1" + V4),
            "GRE, Ethernet": outer(47, b"\0\0\x65\x58" + ethernet),
            "VXLAN": outer(17, struct.pack(">HHHH", 4000, 4789, 16 + len(ethernet), 0) + b"\x08" + bytes(7) + ethernet)}
    for name, frame in ways.items():
        assert parsed(frame, 101)[1]["source_low"] == 0x09000001, name
        why, packet = parsed(frame, 101, inside=True)
        assert why == "" and packet["source_port"] == 5000 and packet["size"] == 10, name
    deep = V4
    for _ in range(9): deep = outer(4, deep)
    assert parsed(deep, 101, inside=True)[0] == "tunnels in tunnels in tunnels"


def test_icmp_questions_and_answers_mirror_each_other():
    icmp = lambda kind, code: struct.pack(">BBHIBBH", 0x45, 0, 28, 0, 64, 1, 0) + bytes(8) + bytes([kind, code]) + bytes(6)
    ports = lambda kind, code: [int(parsed(icmp(kind, code), 101)[1][f"{side}_port"]) for side in ("source", "destination")]
    assert ports(8, 0) == [8, 0] and ports(0, 0) == [0, 8] and ports(3, 1) == [3, 1]


def law_nothing_behind(parse):
    "However much of a frame was captured, what stands behind it is not read, and does not matter."
    frames = [(head + ip, link) for link, *heads in LINKED.values() for head, ip in zip(heads, (V4, V6))] + [(extended((0, b"\0" + bytes(6))), 101)]
    for frame, link in frames:
        for end in range(len(frame)):
            said = [parse(frame[:end], link, True, len(frame), behind) for behind in (b"", b"\0" * 64, b"\xff" * 64, b"\x45" * 64)]
            assert all(why == said[0][0] and (packet is None or packet.tobytes() == said[0][1].tobytes()) for why, packet in said[1:])


def test_nothing_is_read_behind_the_captured_bytes(): law_nothing_behind(parsed)


def test_the_law_catches_a_reader_that_looks_ahead():
    def ahead(frame, link, inside, length, behind): return parsed(frame + behind[:4], link, inside, length, behind[4:])
    with pytest.raises(AssertionError): law_nothing_behind(ahead)


def test_other_frames_have_a_reason():
    ethernet = lambda kind, body: bytes(12) + kind + body
    reasons = {"ARP": ethernet(b"\x08\x06", bytes(28)), "no IP: LLC, spanning tree and the like": ethernet(b"\0\x26", b"\x42\x42\3" + bytes(40)),
               "no IP: another EtherType": ethernet(b"\x88\xcc", bytes(40)), "its headers are cut off": bytes(10),
               "its IP header is malformed": ethernet(b"\x08\0", b"\x41" + V4[1:]), "PPP, but no IP": ethernet(b"\x88\x64", bytes(6) + b"\xc0\x21" + bytes(20)),
               "its TCP or UDP header is malformed": ethernet(b"\x08\0", V4[:2] + b"\0\x18" + V4[4:])}
    for why, frame in reasons.items(): assert parsed(frame)[0] == why
    assert parsed(b"\x80\0" + bytes(40), 105)[0] == "802.11, but no data" and parsed(b"\x08\x41" + bytes(40), 105)[0] == "802.11, encrypted"


@needs_data
def test_all_shared_captures_are_read(data_dir):
    captures = sorted(data_dir.glob("captures/**/*.pcap*"))
    for path in captures:
        if path.suffix == ".csv": continue
        report = CaptureReport()
        n = sum(map(len, read_capture(path, report=report)))
        assert n == report.packets > 0 and not report.damage and n + report.left_out.total() == report.frames, path
