"""Laws of nfad.packets: which packets belong together; agreement with what CICFlowMeter exported from the same capture."""
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import needs_data
from traffic import close, talk, write_pcap

import nfad
from nfad.headers import read_pcap
from nfad.flowmeter import _ECE, ACK, FIN, PSH, RST, SYN, one_flow
from nfad.packets import assign_flows, flows_from_packets, plot_packets
from nfad.vocabulary import FLOW_FEATURES


# ---------------------------------------------------------------- assembling flows
def law_teardown(assign):
    closing = talk((0, True, SYN, 0), (1, False, SYN | ACK, 0), (2, True, ACK | FIN, 0), (3, False, ACK, 50), (4, False, ACK | FIN, 0),
                   (5, True, ACK, 0), (6, True, SYN, 0), (7, False, RST | ACK, 0), (8, True, ACK, 0), (9, True, SYN, 0))
    flow, is_forward = assign(closing)
    assert flow.tolist() == [0] * 6 + [1] * 3 + [2]  # late packets stay, a new SYN opens the next flow
    assert is_forward.tolist() == closing["source"].eq("c").tolist()


def test_teardown(): law_teardown(assign_flows)


def test_teardown_law_catches_the_first_fin_rule():
    with pytest.raises(AssertionError): law_teardown(lambda packets: assign_flows(packets, tcp_end="first_fin"))


def law_timeout(assign):
    "A flow lasts at most the timeout; its continuation keeps the direction."
    rows = talk(*((10.0 * k, k % 13 != 0 or k == 0, ACK, 5) for k in range(40)))
    flow, is_forward = assign(rows)
    lasts = rows.groupby(flow)["time"].agg(lambda t: t.max() - t.min())
    assert (lasts <= 120).all() and len(lasts) == 4
    assert is_forward.tolist() == rows["source"].eq("c").tolist()


def test_timeout(): law_timeout(assign_flows)


def test_timeout_law_catches_an_endless_flow():
    with pytest.raises(AssertionError): law_timeout(lambda packets: assign_flows(packets, timeout=1e9))


def test_assembly_refuses_bad_arguments():
    rows = talk((0, True, SYN, 0), (1, False, ACK, 0))
    with pytest.raises(ValueError, match="tcp_end"): assign_flows(rows, tcp_end="fin")
    with pytest.raises(ValueError, match="timeout"): assign_flows(rows, timeout=0)
    with pytest.raises(ValueError, match="order of time"): assign_flows(rows.iloc[::-1])


# ---------------------------------------------------------------- agreement with CICFlowMeter
# Every feature that differs, with the reason, and a function that computes CICFlowMeter's value from the packets of a flow
# (t: times, s: sizes, f: is_forward, b: flag bits, w: windows). A reason is accepted only if it predicts every value exactly.
FIRST_ONLY = "only the first packet reaches updateFlowBulk, detectUpdateSubflows and checkFlags (CICFlowMeter issue 41)"
HASHED = FIRST_ONLY + "; flags are written in the order of a Java HashMap under a fixed header, so the columns are permuted"
PSH_FIRST = "PSH and URG are counted in firstPacket alone, not in addPacket (issue 129)"
TWICE = "the first packet enters the length statistics twice (issue 94; pull request 170)"
ONE_SUBFLOW = FIRST_ONLY + "; a misplaced bracket makes the pause test true, so there is always one subflow"


def twice(s): return np.concatenate([s[:1], s])


EXPLAINED = {
    "Fwd PSH Flags": (PSH_FIRST, lambda t, s, f, b, w: b[0] & PSH > 0),
    "Bwd PSH Flags": (PSH_FIRST, lambda t, s, f, b, w: 0),
    "Packet Length Mean": (TWICE, lambda t, s, f, b, w: twice(s).mean()),
    "Packet Length Std": (TWICE, lambda t, s, f, b, w: twice(s).std(ddof=1)),
    "Packet Length Variance": (TWICE, lambda t, s, f, b, w: twice(s).var(ddof=1)),
    "Average Packet Size": (TWICE, lambda t, s, f, b, w: twice(s).sum() / len(s)),
    **{f"{column} Flag Count": (HASHED, lambda t, s, f, b, w, bit=bit: b[0] & bit > 0)
       for column, bit in dict(FIN=RST, SYN=PSH, RST=_ECE, PSH=SYN, ACK=ACK, URG=FIN).items()},
    "Down/Up Ratio": ("an integer division (getDownUpRatio)", lambda t, s, f, b, w: (~f).sum() // f.sum()),
    **{f"Bwd Avg {what}": (FIRST_ONLY, lambda t, s, f, b, w: 0) for what in ("Bytes/Bulk", "Packets/Bulk", "Bulk Rate")},
    "Subflow Fwd Packets": (ONE_SUBFLOW, lambda t, s, f, b, w: f.sum()),
    "Subflow Bwd Packets": (ONE_SUBFLOW, lambda t, s, f, b, w: (~f).sum()),
    "Subflow Fwd Bytes": (ONE_SUBFLOW, lambda t, s, f, b, w: s[f].sum()),
    "Subflow Bwd Bytes": (ONE_SUBFLOW, lambda t, s, f, b, w: s[~f].sum()),
    "Init_Win_bytes_backward": ("addPacket overwrites it, so it is the window of the last backward packet",
                                lambda t, s, f, b, w: w[~f][-1] if (~f).any() else -1),
    "act_data_pkt_fwd": ("the first packet is not looked at (counted in addPacket alone)", lambda t, s, f, b, w: (s[1:][f[1:]] > 0).sum()),
}


def reference_flows(data_dir, tcp_end="first_fin"):
    "Our records, CICFlowMeter's records in the same order, and the packets of each flow."
    packets = read_pcap(data_dir / "pcap" / "cicflowmeter_test.pcap")
    packets = packets[packets["protocol"] != 1]  # CICFlowMeter leaves ICMP out
    ours = flows_from_packets(packets, tcp_end=tcp_end)
    theirs = pd.read_csv(data_dir / "pcap" / "cicflowmeter_test.csv")
    names = [name for name in FLOW_FEATURES if name != "Protocol"]
    assert len(theirs.columns) == 7 + len(names) + 1  # the V4 names come in the order of the V3 names
    theirs.columns = ["Flow ID", "Source IP", "Source Port", "Destination IP", "Destination Port", "Protocol", "Timestamp", *names, "Label"]
    local = pd.to_datetime(theirs["Timestamp"], format="%d/%m/%Y %H:%M:%S")
    theirs["Timestamp"] = (local - pd.Timestamp(0)) // pd.Timedelta("1s")
    return packets, ours, theirs


def matched(ours, theirs):
    "Their rows in the order of ours, by addresses, ports and start; the clock of the file may be off by whole hours."
    key = ["Source IP", "Source Port", "Destination IP", "Destination Port", "Flow Duration"]
    both = ours[key + ["Timestamp"]].reset_index().merge(theirs[key + ["Timestamp"]].reset_index(), on=key, suffixes=("", "_theirs"))
    both["offset"] = np.floor(both["Timestamp"]) - both["Timestamp_theirs"]
    both = both[both["offset"] == both["offset"].mode()[0]]
    return theirs.loc[both.sort_values("index")["index_theirs"]].reset_index(drop=True), both["offset"].iloc[0]


def agreement(ours, theirs):
    "Feature -> fraction of flows with the same value."
    return pd.Series({name: np.isclose(ours[name].astype(float), theirs[name].astype(float), rtol=1e-9, atol=1e-6).mean()
                      for name in FLOW_FEATURES})


def law_agreement(ours, theirs, explained):
    table = agreement(ours, theirs)
    assert set(table.index[table < 1]) == set(explained), table[table < 1].to_string()


@needs_data
def test_the_same_96_flows_as_cicflowmeter(data_dir):
    packets, ours, theirs = reference_flows(data_dir)
    assert len(packets) == 3291
    assert len(ours) == len(theirs) == 96
    same, offset = matched(ours, theirs)
    assert len(same) == 96 and offset == 3 * 3600  # the file's clock is that of New Brunswick
    ends = [f"{side} {what}" for side in ("Source", "Destination") for what in ("IP", "Port")]
    assert (same[ends] == ours[ends]).all(axis=None)


@needs_data
def test_every_feature_agrees_or_is_explained(data_dir):
    _, ours, theirs = reference_flows(data_dir)
    theirs, _ = matched(ours, theirs)
    law_agreement(ours, theirs, EXPLAINED)
    assert (agreement(ours, theirs) == 1).sum() == 77 - len(EXPLAINED) == 55
    with pytest.raises(AssertionError): law_agreement(ours.assign(**{"Flow IAT Std": ours["Flow IAT Std"] * 0.99}), theirs, EXPLAINED)


@needs_data
def test_each_explanation_predicts_every_value(data_dir):
    packets, ours, theirs = reference_flows(data_dir)
    theirs, _ = matched(ours, theirs)
    flow, is_forward = assign_flows(packets, tcp_end="first_fin")
    groups = [g for _, g in packets.assign(f=is_forward).groupby(flow) if len(g) > 1]
    arrays = [[g[name].to_numpy() for name in ("time", "size", "f", "flags", "window")] for g in groups]
    for name, (reason, predict) in EXPLAINED.items():
        close([predict(*columns) for columns in arrays], theirs[name], err_msg=f"{name}: {reason}")


@needs_data
def test_half_of_the_reference_flows_are_appendices(data_dir):
    "Engelen et al. (2021): ending a connection at its first FIN makes flows out of its last packets."
    _, split, _ = reference_flows(data_dir)
    _, whole, _ = reference_flows(data_dir, tcp_end="teardown")
    assert len(whole) == 48 and not whole.duplicated(["Source Port", "Destination Port"]).any()
    assert (split["Total Fwd Packets"] + split["Total Backward Packets"] <= 4).sum() == 48
    assert whole["SYN Flag Count"].eq(2).all()  # each is one whole connection, from its SYN on


# ---------------------------------------------------------------- doors
def test_a_path_is_read(tmp_path):
    write_pcap(tmp_path / "none", [])
    for capture in (tmp_path / "none", str(tmp_path / "none"), read_pcap(tmp_path / "none")):
        table = nfad.flows_from_packets(capture)
        assert len(table) == 0 and list(table.columns)[-77:] == list(FLOW_FEATURES)


def test_forward_is_up():
    ax = plot_packets(one_flow([0, 1, 3], [10, -20, 30]), "x", plt.figure().gca())
    forward, backward = ax.lines[:2]
    assert forward.get_ydata().tolist() == [10, 30] and backward.get_ydata().tolist() == [-20] and ax.get_title() == "x"
    plt.close("all")
