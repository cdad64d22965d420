"""Laws of nfad.running: what is carried along is what all packets together say, in both dialects."""
import numba
import numpy as np
import pytest
from test_packets import EXPLAINED
from traffic import CASES, close

from nfad.flowmeter import flow_table
from nfad.headers import PACKET
from nfad.running import FLOW, add_packet, begin_flow, flow_columns
from nfad.vocabulary import FLOW_FEATURES


@numba.njit
def _carry(packets, number, forward, flows, statistics):
    for i in range(len(packets)):
        row = number[i]
        if i == 0 or number[i - 1] != row: begin_flow(flows[row], statistics[row], packets[i], packets[i].time)
        add_packet(flows[row], statistics[row], packets[i], packets[i].time, forward[i])


def carried(p, dialect="nfad"):
    packets = np.zeros(len(p.flow), PACKET)
    for name in ("time", "size", "header_bytes", "flags", "window"): packets[name] = getattr(p, name)
    n = int(p.flow[-1]) + 1
    flows, statistics = np.zeros(n, FLOW), np.zeros((n, 8, 6))
    _carry(packets, p.flow, p.is_forward, flows, statistics)
    flows["protocol"] = p.protocol[np.flatnonzero(np.diff(p.flow, prepend=-1))]
    return flow_columns(flows, statistics, dialect)


def law_nothing_is_lost(columns, p):
    got, expected = columns(p), flow_table(p)
    for name in FLOW_FEATURES: close(got[name], expected[name], err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_lost(case): law_nothing_is_lost(carried, CASES[case])


def test_the_law_catches_a_forgotten_pause():
    with pytest.raises(AssertionError): law_nothing_is_lost(lambda p: carried(p).assign(**{"Idle Max": 0.0}), CASES["wild"])


def law_dialect(columns, p):
    "CICFlowMeter's values, each predicted from the packets as in test_packets."
    got = columns(p, "cicflowmeter")
    groups = [np.flatnonzero(p.flow == k) for k in range(int(p.flow[-1]) + 1)]
    for name, (reason, predict) in EXPLAINED.items():
        values = [predict(*(np.asarray(field)[g] for field in (p.time, p.size, p.is_forward, p.flags, p.window))) for g in groups if len(g) > 1]
        close(got[name][[len(g) > 1 for g in groups]], values, err_msg=f"{name}: {reason}")
    same = [name for name in FLOW_FEATURES if name not in EXPLAINED]
    close(got[same], columns(p)[same])


@pytest.mark.parametrize("case", CASES)
def test_the_dialect_is_predicted(case): law_dialect(carried, CASES[case])


def test_the_dialect_law_catches_the_other_dialect():
    with pytest.raises(AssertionError): law_dialect(lambda p, dialect="nfad": carried(p), CASES["wild"])
