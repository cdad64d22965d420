"""Laws of packets from a pipe: the flows of a file, whatever pieces it comes in; errors are raised; time goes on while nothing comes."""
import io
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest

from nfad.cli import main
from nfad.flowmeter import TCP, UDP
from nfad.pipe import PacketQueue, answer_flows, flows_of_pipe
from nfad.serving import frame_numbers, load_model
from nfad.streams import Scorer
from nfad.wire import FlowMeter, flow_records
from notebooks import ROOT
from traffic import ip_frame, write_pcap

START = "import sys; from nfad.cli import main; sys.exit(main())"


def write_talks(path, n=60, start=1_700_000_000.0):
    "A capture of n short connections of TCP and n requests of UDP, of different sizes."
    rng, frames = np.random.default_rng(4), []
    for i in range(n):
        t, port, sizes = start + 0.03 * i, 2000 + i, rng.integers(20, 900, 8)
        flags = [2, 18, 16, 24, 24, 24, 17, 17]
        frames += [(t + 0.002 * k, ip_frame(4, TCP, *((7, 8, port, 443) if k % 2 == 0 else (8, 7, 443, port)), int(sizes[k]) if 2 < k < 6 else 0, flags[k], 500)) for k in range(8)]
        frames += [(t + 0.001, ip_frame(4, UDP, 7, 9, port, 53, int(sizes[0]), 0, 0)), (t + 0.005, ip_frame(4, UDP, 9, 7, 53, port, int(sizes[1]), 0, 0))]
    write_pcap(path, sorted(frames))
    return path


@pytest.fixture(scope="module")
def capture(tmp_path_factory): return write_talks(tmp_path_factory.mktemp("captures") / "a.pcap")


class Pieces(io.RawIOBase):
    "A stream that gives what it has in pieces of any size."
    def __init__(self, content: bytes, sizes): self.content, self.sizes = content, iter(sizes)
    def readable(self): return True
    def readinto(self, view):
        part = self.content[:min(len(view), next(self.sizes, len(view)))]
        self.content = self.content[len(part):]
        view[:len(part)] = part
        return len(part)


def in_order(frames): return pd.concat(list(frames)).sort_values(["Timestamp", "Source Port"], ignore_index=True)


def law_pieces(flows, capture, seed):
    "The flows of a pipe are those of the file, however it is cut."
    sizes = np.random.default_rng(seed).integers(1, 4000, 100_000)
    found = in_order(flows(PacketQueue(Pieces(capture.read_bytes(), sizes)), FlowMeter("nfad")))
    assert found.equals(in_order([flow_records(capture)]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_law_pieces(capture, seed): law_pieces(flows_of_pipe, capture, seed)


def test_law_pieces_catches_a_lost_block(capture):
    def careless(packets, meter):
        inner = packets.get
        packets.get = lambda patience: None if (some := inner(patience)) is None else some[1:]
        return flows_of_pipe(packets, meter)
    with pytest.raises(AssertionError): law_pieces(careless, capture, 0)


def law_time_goes_on(flows, capture):
    "An open pipe in which nothing comes gives its flows when their time-out is over."
    reading, writing = os.pipe()
    os.write(writing, capture.read_bytes())
    found = flows(PacketQueue(open(reading, "rb")), FlowMeter("nfad", idle_timeout=0.3, reorder=0.1))
    n, end = 0, threading.Timer(20, os.close, [writing])  # nothing waits for ever
    end.start()
    while n < 120 and (frame := next(found, None)) is not None: n += len(frame)
    still_open = end.is_alive()
    end.cancel()
    if still_open: os.close(writing)
    assert n == 120 and still_open


def test_law_time_goes_on(capture): law_time_goes_on(flows_of_pipe, capture)


def test_law_time_goes_on_catches(capture):
    def waits_for_the_end(packets, meter):
        began = time.monotonic()
        while time.monotonic() - began < 2: yield meter.update(packets.get(0.2))
    with pytest.raises(AssertionError): law_time_goes_on(waits_for_the_end, capture)


@pytest.mark.parametrize("content", [b"", b"no capture at all"])
def test_what_is_no_capture_is_an_error(content):
    with pytest.raises(ValueError, match="is no capture|empty|starts with"): list(flows_of_pipe(PacketQueue(io.BytesIO(content)), FlowMeter("nfad")))


def test_a_cut_capture_gives_what_is_whole(capture):
    queue = PacketQueue(io.BytesIO(capture.read_bytes()[:-7]))
    assert len(in_order(flows_of_pipe(queue, FlowMeter("nfad")))) == 120 and queue.report.packets == 599 and queue.report.left_out.total() == 1


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_talks(folder / "benign.pcap", 300)
    names = "Flow Duration,Total Fwd Packets,Total Length of Fwd Packets,Total Length of Bwd Packets"
    assert main(["train", str(folder / "benign.pcap"), "--label-column", "none", "--feature-set", names, "--preset", "fast", "--epochs", "1", "--out-dir", str(folder), "--quiet"]) == 0
    return next(folder.rglob("model.safetensors"))


def test_answers_have_the_bits_of_a_file(model_path, capture, tmp_path):
    scorer = Scorer(model_path)
    answers = list(answer_flows(scorer, flows_of_pipe(PacketQueue(open(capture, "rb")), FlowMeter("nfad"))))
    records = pd.DataFrame(answers).drop(columns="nfad")
    assert [answer["nfad"]["anomaly_score"] for answer in answers] == load_model(model_path).detector.anomaly_score(frame_numbers(records, scorer.recipe)[0]).tolist()
    few = list(answer_flows(scorer, flows_of_pipe(PacketQueue(open(capture, "rb")), FlowMeter("nfad")), alerts_only=True))
    assert [answer["nfad"] for answer in few] == [answer["nfad"] for answer in answers]
    assert all((len(answer) > 1) == answer["nfad"]["is_anomaly"] for answer in few)


def test_a_sniffer_is_scored_and_counted(model_path, capture):
    run = subprocess.run([sys.executable, "-c", START, "score", model_path, "-", "--pcap"], cwd=ROOT, stdin=open(capture, "rb"), capture_output=True, timeout=120)
    answers = list(map(json.loads, run.stdout.splitlines()))
    assert run.returncode == 0 and len(answers) == 120 and all("Source IP" in answer for answer in answers), run.stderr
    assert b"received: 600 packets" in run.stderr and b"received: 120 flows" in run.stderr


def test_netflow_or_packets(model_path, capsys):
    assert main(["score", str(model_path), "-", "--pcap", "--netflow", "2055"]) == 1 and "not both" in capsys.readouterr().err
