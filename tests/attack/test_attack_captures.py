"""Attacks on captures: cut, changed, forged lengths, blocks nested and huge; an error or a count, never a crash, a hang, or much memory.

`make test` throws 500, `make attack` 20,000; `attacks.py` draws them. Kernels check no bounds, so each case also runs with the
capture at the end of its memory: what reads behind it would read the marks that stand there, and say something else.
"""
import bz2
import gzip
import io
import struct
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from attacks import damage, run_attacks
from nfad import capture, headers
from nfad.capture import CaptureReport
from nfad.headers import ICMP_ANSWER, PACKET, _REASONS, read_capture
from nfad.vocabulary import FLOW_FEATURES
from nfad.wire import FlowMeter, flow_batches
from traffic import ip_frame, ng_block, ng_interface, ng_packet, ng_section


def frames(rng, n=12):
    "Frames of all kinds, some of them noise."
    made = []
    for k in range(n):
        version, protocol = rng.choice([4, 6]), int(rng.choice([6, 17, 1, 58, 132, 47, 4, 41, 44, 51, 0]))
        ends = rng.integers(1, 5, 2).tolist()
        frame = ip_frame(version, 6 if protocol == 6 else 17, *ends, *rng.integers(0, 65536, 2).tolist(), int(rng.integers(0, 1000)),
                         int(rng.integers(256)), 9, int(rng.choice([20, 32, 60])), bool(rng.integers(2)), int(rng.integers(0, 200)))
        frame = bytearray(frame)
        for place in rng.integers(12, len(frame), int(rng.integers(0, 4))).tolist(): frame[place] = int(rng.choice([0, 1, 4, 0x45, 0x60, 47, 0x88, 0xFF]))
        made.append(bytes(frame[:int(rng.integers(1, len(frame) + 1))] if rng.random() < 0.2 else frame))
    return made


def sound(attack):
    "A capture in one of the formats."
    rng, link = attack.rng, int(attack.rng.choice([1, 1, 1, 0, 9, 50, 51, 101, 104, 105, 109, 113, 119, 127, 138, 166, 192, 276, 147]))
    order = attack.one_of("<>")
    when = 1_600_000_000_000_000 + np.cumsum(rng.integers(-10**6, 10**8, 12))
    if rng.random() < 0.5:
        magic = attack.one_of([0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34])
        out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
        for t, frame in zip(when.tolist(), frames(rng)):
            more = struct.pack(order + "IHH", 0, 0, 0) if magic == 0xA1B2CD34 else b""
            out += struct.pack(order + "IIII", t // 10**6, t % 10**6, len(frame), len(frame) + int(rng.integers(3))) + more + frame
        return out
    out = ng_section(order)
    for _ in range(int(rng.integers(1, 4))): out += ng_interface(order, link, int(rng.choice([6, 9, 3, 0x8A, 0xBF, 20, 0])), int(rng.integers(-10**9, 10**9)))
    for t, frame in zip(when.tolist(), frames(rng)):
        kind = rng.random()
        if kind < 0.1: out += ng_block(int(rng.integers(7, 3000)), frame, order)
        elif kind < 0.2: out += ng_block(3, struct.pack(order + "I", len(frame)) + frame, order)
        elif kind < 0.25: out += ng_section(order) + ng_interface(order, link)
        else: out += ng_packet(t, frame, order, int(rng.integers(2)))
    return out


def forged(data, attack):
    "A capture with a number of four bytes that lies, in either order."
    data, at = bytearray(data), int(attack.rng.integers(0, max(len(data) // 4, 1))) * 4
    lie = attack.one_of([0, 1, 3, 12, 28, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 1 << 20, (1 << 20) + 4, len(data), 0x0A0D0D0A, 6])
    data[at:at + 4] = struct.pack(attack.one_of("<>") + "I", lie)[:len(data) - at]
    return bytes(data)


def hostile(attack):
    data = sound(attack)
    for _ in range(int(attack.rng.integers(1, 4))):
        data = attack.one_of([damage, forged, forged])(data, attack)
    if attack.rng.random() < 0.05: data += ng_section() + ng_interface() * int(attack.rng.integers(1, 3000))  # many descriptions
    return data


def case(attack):
    data = hostile(attack)
    packed = attack.one_of([lambda d: d, lambda d: d, gzip.compress, bz2.compress])(data)
    if attack.rng.random() < 0.1: packed = damage(packed, attack)
    frames, meter = CaptureReport(), FlowMeter(attack.one_of(["nfad", "cicflowmeter"]), max_flows=int(attack.rng.choice([1, 3, 100])))
    try: records = pd.concat(list(flow_batches(io.BytesIO(packed), inside=bool(attack.rng.integers(2)), report=frames, meter=meter)))
    except ValueError as error:
        assert "the stream" in str(error) or "BytesIO" in str(error)
        return "refused"
    assert frames.frames <= frames.packets + frames.left_out.total() <= frames.frames + 1
    n = (records["Total Fwd Packets"] + records["Total Backward Packets"]).sum()
    told = meter.report
    assert told.packets == frames.packets and n + told.belated + told.other + told.short == told.packets
    assert np.isfinite(records[list(FLOW_FEATURES)].to_numpy(float)).all()
    assert (records["Flow Duration"] >= 0).all() and (records["Flow End"] >= records["Timestamp"]).all()
    return "damaged" if frames.damage else "left out" if frames.left_out else "read"


def test_captures():
    outcomes = run_attacks("captures", case)
    assert outcomes.keys() >= {"damaged", "left out"}


def test_the_law_catches_a_reader_that_counts_nothing(monkeypatch):
    monkeypatch.setattr(headers._Reader, "packets", lambda self, frames: np.zeros(0, PACKET))
    with pytest.raises(AssertionError): run_attacks("captures", case, 0.2)


def behind_case(attack):
    "The same packets whatever stands behind the captured bytes."
    rng = attack.rng
    frame, link = frames(rng, 1)[0], int(rng.choice([1, 1, *headers.LINKS])) if rng.random() < 0.4 else 1
    if rng.random() < 0.2: frame = rng.integers(0, 256, int(rng.integers(0, 60)), dtype=np.uint8).tobytes() + frame
    said = []
    for fill in (0, 0x45, 0xFF):
        data = np.frombuffer(frame + bytes([fill]) * 200, np.uint8)
        packets, reasons = np.zeros(2, PACKET), np.zeros(len(_REASONS), np.int64)
        one = [np.array([value], np.int64) for value in (0, len(frame), len(frame) + 3, 5, link)]
        n = headers._packets(data, *one, True, ICMP_ANSWER, np.zeros((8, 2), np.uint64), packets, reasons)
        said.append((n, packets[:n].tobytes(), reasons.tobytes()))
    assert said[0] == said[1] == said[2]
    return "packet" if said[0][0] else "reason"


def test_nothing_is_read_behind_a_frame(): run_attacks("behind", behind_case)


def test_memory_does_not_follow_what_a_capture_says():
    "A block of 4 GB that is announced, and a small file of gz that unpacks to 200 MB of blocks."
    huge = ng_section() + struct.pack("<II", 77, 0xFFFFFFFC) + bytes(100)
    bomb = gzip.compress(ng_section() + ng_interface() + ng_block(77, bytes(1 << 20)) * 200)
    for data in (huge, bomb):
        tracemalloc.start()
        assert sum(map(len, read_capture(io.BytesIO(data)))) == 0
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100 << 20, peak
    assert capture._CHUNK <= 1 << 23
