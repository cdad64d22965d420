"""Laws of nfad.throughput: copies are whole, in order and apart; what a command used is what the system counts."""
import sys

import numpy as np
import pandas as pd
import pytest

from nfad.capture import CaptureReport
from nfad.headers import read_capture
from nfad.throughput import Template, costs, frames_of, simulated_frames, template_of, used_by, write_copies
from nfad.wire import flow_records


def law_copies(template, path):
    "Every copy has all packets, later than the one before it, between other addresses; so flows are multiplied."
    n = write_copies(path, template, 3 * len(template.time))
    report = CaptureReport()
    packets = np.concatenate(list(read_capture(path, report=report)))
    assert n == report.frames == report.packets == len(packets) == 3 * len(template.time) and not report.damage
    assert (np.diff(packets["time"]) >= 0).all()
    ends = [set(part["source_low"].tolist()) for part in np.split(packets, 3)]
    assert ends[0].isdisjoint(ends[1]) and ends[0].isdisjoint(ends[2]) and ends[1].isdisjoint(ends[2])
    assert len(flow_records(path)) == 3 * 40


def test_copies(tmp_path): law_copies(template_of(simulated_frames(40, 6)), tmp_path / "a.pcap")


@pytest.mark.parametrize("spoil", [lambda t: t._replace(is_ip4=np.zeros(len(t.time), bool)), lambda t: t._replace(time=-t.time),
                                   lambda t: t._replace(content=t.content[:-3])])
def test_the_law_catches(tmp_path, spoil):
    with pytest.raises((AssertionError, ValueError)): law_copies(spoil(template_of(simulated_frames(40, 6))), tmp_path / "a.pcap")


def test_a_capture_comes_back_as_its_frames(tmp_path):
    frames = simulated_frames(5, 5, seed=2)
    write_copies(tmp_path / "a.pcap", template_of(frames), 1)
    assert frames_of([tmp_path / "a.pcap"]) == frames
    assert isinstance(template_of(frames), Template)


def test_a_command_that_fails_is_no_fast_one():
    idle, busy = (used_by([sys.executable, "-c", f"sum(range({n}))"]) for n in (10, 8_000_000))
    assert busy.cpu > idle.cpu + 0.03 and idle.memory < 80
    with pytest.raises(RuntimeError, match="status 7"): used_by([sys.executable, "-c", "raise SystemExit(7)"])


def test_a_slope_leaves_the_start_out():
    rows = [{"tool": tool, "packets": n, "cpu": start + 1e-6 * each * n} for tool, start, each in (("a", 2, 1), ("b", 0.5, 9)) for n in (10**5, 10**6)]
    table = costs(pd.DataFrame(rows))
    np.testing.assert_allclose(table["us_per_packet"].dropna(), [1, 9])
