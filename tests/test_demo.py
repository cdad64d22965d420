"""Laws of nfad.demo: the same seed gives the same records, classes do not touch each other, and the set is neither hopeless nor trivial."""
import time

import numpy as np
import pandas as pd
import pytest
from traffic import KINDS, PROTOCOL

from nfad import demo
from nfad.demo import simulate_demo
from nfad.flowmeter import SYN, TCP, UDP
from nfad.vocabulary import FLOW_FEATURES

DEMO = simulate_demo(n_benign=1500, n_attack_per_class=60, seed=1)


def law_deterministic(simulate):
    pd.testing.assert_frame_equal(simulate(300, 10, seed=1), simulate(300, 10, seed=1))
    assert not simulate(300, 10, seed=1).equals(simulate(300, 10, seed=2))


def test_demo_is_deterministic(): law_deterministic(simulate_demo)


def test_determinism_law_catches_a_hidden_generator():
    def careless(n_benign, n_attack_per_class, seed): return simulate_demo(n_benign, n_attack_per_class, seed).sample(frac=1)
    with pytest.raises(AssertionError): law_deterministic(careless)


def law_classes_are_independent(simulate):
    "More records of one class leave the records of the others as they were."
    few, many = simulate(200, 10, seed=4), simulate(200, 30, seed=4)
    few, many = (d[d["Label"] == "BENIGN"].sort_values(["conversation", *FLOW_FEATURES]).reset_index(drop=True) for d in (few, many))
    pd.testing.assert_frame_equal(few, many)


def test_classes_are_independent(): law_classes_are_independent(simulate_demo)


def test_independence_law_catches_a_shared_stream():
    def shared(n_benign, n_attack_per_class, seed): return simulate_demo(n_benign, n_attack_per_class, seed + n_attack_per_class)
    with pytest.raises(AssertionError): law_classes_are_independent(shared)


def law_demo(d):
    assert list(d.columns) == [*FLOW_FEATURES, "Label", "service", "conversation", "day"]
    benign = d["Label"] == "BENIGN"
    assert benign.sum() == 1500 and (d["Label"][~benign].value_counts() == 60).all() and d["Label"].nunique() == 8
    assert set(d["day"][benign]) == set(demo.DAYS) and set(d["day"][~benign]) == set(demo.DAYS[2:])
    assert (d.groupby("conversation")["day"].nunique() == 1).all() and (d.groupby("conversation")["Label"].nunique() == 1).all()
    assert (d["day"].map(demo.DAYS.index).diff().dropna() >= 0).all()  # sorted by day
    assert (d["Total Fwd Packets"] + d["Total Backward Packets"] >= 2).all() and (d["Flow Duration"] <= 120e6).all()
    assert (d["Total Fwd Packets"] >= 1).all() and np.isfinite(d[list(FLOW_FEATURES)].to_numpy()).all()
    assert set(d["Protocol"][d["service"].str.startswith("DNS")]) == {17} and d["Protocol"].isin([6, 17]).all()


def test_demo(): law_demo(DEMO)


def test_demo_law_catches_attacks_on_monday():
    with pytest.raises(AssertionError): law_demo(DEMO.assign(day="Monday"))


def law_trace(flow, protocol):
    times = [row[0] for row in flow]
    assert len(flow) >= 2 and times == sorted(times) and 0 <= times[0] and times[-1] <= 120 and flow[0][2] is True
    for _, size, is_forward, header, flags, window in flow:
        assert 0 <= size <= 1500 and size == int(size)
        assert (header == 8 and flags == 0 and window == -1) if protocol == UDP else (20 <= header <= 60 and flags and 0 < window < 65536)
        if flags & SYN: assert size == 0


@pytest.mark.parametrize("kind", KINDS)
def test_traces(kind):
    for number in range(25):
        for flow in demo.simulate_conversation(kind, number)[1]: law_trace(flow, PROTOCOL[kind])


def test_trace_law_catches_time_running_backwards():
    flow = demo.simulate_conversation("web", 0)[1][0]
    with pytest.raises(AssertionError): law_trace(flow[:2] + flow[1::-1], TCP)


def test_demo_refuses_bad_arguments():
    for bad in (dict(n_benign=-1), dict(n_benign=1.5), dict(n_attack_per_class=True), dict(n_benign=0, n_attack_per_class=0)):
        with pytest.raises(ValueError, match="n_benign|n_attack_per_class"): simulate_demo(**bad)
    with pytest.raises(ValueError, match="service"): demo.simulate_conversation("gopher", 0)
    assert len(simulate_demo(n_benign=0, n_attack_per_class=1)) == 7 and len(simulate_demo(3, 0)) == 3


def law_fair_difficulty(d):
    "A nearest-neighbor detector finds the attacks well, not perfectly, and some classes stay hard."
    from sklearn.metrics import roc_auc_score
    from sklearn.neighbors import NearestNeighbors
    x = np.log1p(d[list(FLOW_FEATURES)].clip(lower=0)).to_numpy()
    benign = (d["Label"] == "BENIGN").to_numpy()
    train = benign & (d["conversation"].str.split().str[-1].astype(int) % 2 == 0).to_numpy()
    spread = x[train].std(0)
    x = ((x - x[train].mean(0)) / np.where(spread > 0, spread, 1)).clip(-10, 10)
    score = NearestNeighbors(n_neighbors=5).fit(x[train]).kneighbors(x[~train])[0].mean(1)
    kind, attack = d["Label"].to_numpy()[~train], ~benign[~train]
    each = {c: roc_auc_score(kind[(kind == c) | ~attack] == c, score[(kind == c) | ~attack]) for c in demo.ATTACK_CLASSES}
    assert 0.85 < roc_auc_score(attack, score) < 0.99, each
    assert min(each.values()) > 0.65 and each["HTTP flood"] < 0.97 and each["SSH brute force"] < 0.97, each


def test_fair_difficulty(): law_fair_difficulty(DEMO)


def test_difficulty_law_catches_a_giveaway():
    give_away = DEMO.assign(Init_Win_bytes_forward=np.where(DEMO["Label"] == "BENIGN", 64240.0, 0.0))
    with pytest.raises(AssertionError): law_fair_difficulty(give_away)


def test_default_demo_is_quick():
    begin = time.process_time()
    assert len(simulate_demo()) == 8000 + 7 * 300
    assert time.process_time() - begin < 10  # about 2.5 s on a quiet core
