"""Packets for tests: simulated and wild network flows, single talks, and capture files byte by byte."""
import struct

import numpy as np
import pandas as pd

from nfad import demo
from nfad.flowmeter import TCP, Packets

KINDS = list(demo.STORIES)
PROTOCOL = {kind: story.protocol for kind, story in demo.STORIES.items()}


def close(a, b, **more): np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-9, atol=1e-6, **more)


def simulated_packets(n_conversations: int = 6) -> Packets:
    flows, protocols = [], []
    for kind in KINDS:
        for number in range(n_conversations):
            some = demo.simulate_conversation(kind, number, seed=11)[1]
            flows += some
            protocols += [PROTOCOL[kind]] * len(some)
    return demo.packets_of(flows, protocols)


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


def ip_frame(version, protocol, source, destination, sport, dport, size, flags, window, header=20, vlan=False, keep=0):
    "A frame whose payload is cut to `keep` bytes, as captures with a snap length have it."
    transport = struct.pack(">HHHH", sport, dport, 8 + size, 0)
    if protocol == TCP:
        transport = struct.pack(">HHIIBBHHH", sport, dport, 0, 0, header // 4 << 4, flags, window, 0, 0) + bytes(header - 20)
    if version == 4:
        ip = struct.pack(">BBHIBBH", 0x45, 0, 20 + len(transport) + size, 0, 64, protocol, 0)
        ip += bytes([10, 0, 0, source, 10, 0, 0, destination])
    else:
        ip = struct.pack(">IHBB", 6 << 28, len(transport) + size, protocol, 64)
        ip += bytes(15) + bytes([source]) + bytes(15) + bytes([destination])
    kind = {4: b"\x08\x00", 6: b"\x86\xdd"}[version]
    return bytes(12) + (b"\x81\x00\x00\x05" if vlan else b"") + kind + ip + transport + bytes(min(size, keep))


def write_pcap(path, frames, order="<", nano=False, link=1):
    ticks = 1e9 if nano else 1e6
    out = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    for when, frame in frames:
        out += struct.pack(order + "IIII", int(when), int(round((when % 1) * ticks)), len(frame), len(frame) + 99) + frame
    path.write_bytes(out)


def talk(*rows):
    "Packets (time, sender is client, flags, size) of one pair of ports."
    ends = {True: {"source": "c", "destination": "s", "source_port": 9, "destination_port": 80},
            False: {"source": "s", "destination": "c", "source_port": 80, "destination_port": 9}}
    return pd.DataFrame([{"time": when, "protocol": TCP, "size": size, "header_bytes": 20, "flags": flags, "window": 1} | ends[client]
                         for when, client, flags, size in rows])


def a_request(i: int, start: int = 1_700_000_000_000) -> dict:
    "One of many small network flows, in the names of NetFlow, times in ms."
    return {"Source IP": f"10.0.0.{i % 200 + 1}", "Destination IP": "192.0.2.53", "Source Port": 40000 + i % 20000, "Destination Port": 53, "Protocol": 17, "TCP_FLAGS": 0,
            "IN_BYTES": 60 + i % 40, "IN_PKTS": 1 + i % 3, "Timestamp": start + 9 * i, "FLOW_END_MILLISECONDS": start + 9 * i + i % 7}


def ng_block(kind, body, order="<"):
    "A block of pcapng."
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def ng_section(order="<"): return ng_block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def ng_interface(order="<", link=1, resolution=6, offset=0):
    options = struct.pack(order + "HHB3x", 9, 1, resolution) + struct.pack(order + "HHq", 14, 8, offset) + bytes(4)
    return ng_block(1, struct.pack(order + "HHI", link, 0, 0) + options, order)


def ng_packet(micros, frame, order="<", interface=0, per_second=10**6, length=None):
    ticks = micros * per_second // 10**6
    body = struct.pack(order + "IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), length or len(frame)) + frame
    return ng_block(6, body, order)


def random_packets(seed, n=600):
    "Packets (of `PACKET`) of a few pairs with every flag and pause, in order of time; ICMP among them."
    from nfad.headers import PACKET
    rng = np.random.default_rng(seed)
    packets = np.zeros(n, PACKET)
    gaps = rng.choice([0, 10, 1000, 400_000, 1_500_000, 7_000_000, 130_000_000, 700_000_000], n, p=[.1, .2, .2, .2, .15, .1, .04, .01])
    packets["time"] = 1_600_000_000_000_000 + np.cumsum(gaps)
    pair, up = rng.integers(0, 6, n), rng.random(n) < 0.6
    for side, mine in (("source", up), ("destination", ~up)):
        packets[f"{side}_low"] = np.where(mine, 0x0A000001, 0x0A000002 + pair % 2)
        packets[f"{side}_port"] = np.where(mine, 4000 + pair, 80)
    packets["version"] = 4
    packets["protocol"] = np.where(pair == 5, 17, 6)
    packets["size"] = rng.choice([0, 0, 1, 100, 1460], n)
    packets["length"] = packets["size"] + 54
    packets["header_bytes"] = rng.choice([20, 32], n)
    is_tcp = packets["protocol"] == 6
    packets["flags"] = np.where(is_tcp, rng.choice([2, 18, 16, 24, 17, 4, 1, 0x52, 255], n, p=[.15, .1, .3, .15, .1, .05, .05, .05, .05]), 0)
    packets["window"] = np.where(is_tcp, rng.integers(0, 65536, n), -1)
    return packets
