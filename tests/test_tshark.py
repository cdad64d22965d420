"""Packets, bytes and conversations of real captures are those that tshark counts; skipped where tshark or the captures are missing."""
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_data
from traffic import ip_frame, write_pcap

from nfad.capture import CaptureReport
from nfad.headers import packet_frame, read_capture

SIDES = ("source", "destination")
FIELDS = "frame.len ip.src ip.dst ipv6.src ipv6.dst tcp.srcport tcp.dstport udp.srcport udp.dstport sctp.srcport sctp.dstport icmp.type icmpv6.type"


def by_tshark(path: Path) -> tuple[int, Counter, Counter]:
    "Frames; packets and bytes of each conversation, an unordered pair of ends. ICMP and later fragments have no ports."
    told = [part for field in FIELDS.split() for part in ("-e", field)]
    apart = [part for name in ("ip", "ipv6") for part in ("-o", f"{name}.defragment:FALSE")]
    run = subprocess.run(["tshark", "-n", "-r", path, *apart, "-T", "fields", "-E", "occurrence=f", "-E", "separator=|", *told],
                         capture_output=True, text=True)
    rows = [dict(zip(FIELDS.split(), line.split("|"), strict=True)) for line in run.stdout.splitlines()]
    packets, size = Counter(), Counter()
    for row in rows:
        addresses = [row[f"ip.{end}"] or row[f"ipv6.{end}"] for end in ("src", "dst")]
        if not addresses[0]: continue
        quoted = row["icmp.type"] or row["icmpv6.type"]  # ICMP shows the ports of the packet that it is about
        ports = [next((row[f"{kind}.{end}port"] for kind in ("tcp", "udp", "sctp") if row[f"{kind}.{end}port"] and not quoted), "0")
                 for end in ("src", "dst")]
        ends = tuple(sorted((address, int(port)) for address, port in zip(addresses, ports, strict=True)))
        packets[ends] += 1
        size[ends] += int(row["frame.len"])
    return len(rows), packets, size


def by_nfad(path: Path) -> tuple[int, Counter, Counter]:
    "The same, by nfad's reader."
    report, packets, size = CaptureReport(), Counter(), Counter()
    for block in read_capture(path, report=report):
        frame = packet_frame(block)
        has_ports = np.isin(block["protocol"], (6, 17, 132)) & (block["fragment"] == 0)
        ends = [zip(frame[side], np.where(has_ports, frame[f"{side}_port"], 0).tolist()) for side in SIDES]
        for one, other, length in zip(*ends, block["length"].tolist(), strict=True):
            pair = tuple(sorted((one, other)))
            packets[pair] += 1
            size[pair] += length
    return report.frames, packets, size


def law_counts(ours, theirs):
    "Equal frames, conversations, packets and bytes."
    for mine, other in zip(ours, theirs, strict=True): assert mine == other


@needs_data
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("folder", ["captures/apps", "captures/attacks", "captures/iot", "pcap"])
def test_counts_are_those_of_tshark(data_dir, folder):
    paths = [path for path in sorted((data_dir / folder).rglob("*.pcap*")) if path.suffix != ".csv"]
    assert paths
    for path in paths:
        try: law_counts(by_nfad(path), by_tshark(path))
        except AssertionError as error: raise AssertionError(f"{path.name}: {error}") from error


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_the_law_catches_a_reader_that_loses_bytes(tmp_path):
    frames = [(1.4e9 + k, ip_frame(version, 6, 1, 2, 5000 + k % 5, 80, 10 * k, 16, 1000, 20)) for k in range(20) for version in (4, 6)]
    path = tmp_path / "talk.pcap"
    write_pcap(path, frames)
    frames, packets, size = by_nfad(path)
    law_counts((frames, packets, size), by_tshark(path))
    pair = next(iter(size))
    for spoilt in ((frames + 1, packets, size), (frames, packets - Counter([pair]), size), (frames, packets, size | {pair: size[pair] - 1})):
        with pytest.raises(AssertionError): law_counts(spoilt, by_tshark(path))
