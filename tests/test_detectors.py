"""Laws of nfad.detectors: every peer, the harness, the kit of checks."""
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from nfad.detectors import (PEERS, Nearest, Peer, Run, audit_split, bootstrap_by_group, cached,
                            choose_configuration, contamination_sweep, critical_difference, detector_names, feature_shortcuts,
                            judge, mean_interval, plot_class_heatmap, plot_promises, plot_ranks, rarity, require_signed, run_flow,
                            run_paper, run_peer, score_of, summarize)
from nfad.data import load_dataset, split_dataset
from nfad.score import bootstrap_interval, ranking_metrics
from nfad.train import FlowDetector

CHEAP = [name for name in PEERS if not PEERS[name].needs]


def records(n, seed=0, attack=False):
    "Benign records with two dependent features, a flag and a constant; attacks break the dependence."
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(4, 1, n))
    other = np.exp(rng.normal(4, 1, n)) * 30 if attack else size * np.exp(0.1 * rng.normal(size=n))
    return pd.DataFrame({"size": size, "other": other, "flag": rng.integers(0, 2, n), "still": np.zeros(n)})


@pytest.fixture(scope="module")
def parts():
    test = pd.concat([records(300, 4), records(200, 5, attack=True)], ignore_index=True)
    return {"train": records(500, 1), "reference": records(200, 2), "calibration": records(300, 3), "test": test}


ATTACK = np.repeat(["benign", "odd"], [300, 200])


# --- every peer ---------------------------------------------------------------------------------------------

def law_detector(run):
    "Scores are finite, one per record, and higher for attacks; the configuration is one of the budget."
    assert run.calibration.shape == (300,) and run.test.shape == (500,)
    assert np.isfinite(run.calibration).all() and np.isfinite(run.test).all()
    assert roc_auc_score(ATTACK != "benign", run.test) > 0.7
    assert run.facts["fit_cpu_seconds"] >= 0 and run.facts["score_rows_per_s"] > 0


@pytest.mark.parametrize("name", CHEAP)
def test_law_detector(name, parts): law_detector(run_peer(PEERS[name], parts))


@pytest.mark.parametrize("name", [name for name in PEERS if PEERS[name].needs == "pyod"])
def test_law_detector_of_pyod(name, parts):
    pytest.importorskip("pyod")
    law_detector(run_peer(PEERS[name], parts))


def test_law_detector_catches_the_wrong_sign(parts):
    run = run_peer(PEERS["knn"], parts)
    with pytest.raises(AssertionError): law_detector(run._replace(test=-run.test))


@pytest.mark.parametrize("name", CHEAP)
def test_the_same_seed_gives_the_same_scores(name, parts):
    assert np.array_equal(run_peer(PEERS[name], parts, 3).test, run_peer(PEERS[name], parts, 3).test)


@pytest.mark.parametrize("name", PEERS)
def test_the_budget_is_equal(name): assert 1 <= len(PEERS[name].configurations()) <= 4


def law_alone(score):
    "A test record's score does not depend on the other test records."
    Z = np.random.default_rng(0).normal(size=(60, 3))
    assert np.allclose(score(Z)[:10], score(Z[:10]))


@pytest.mark.parametrize("name", CHEAP)
def test_law_alone(name):
    peer = PEERS[name]
    model = peer.make(0, 3, **peer.options[0]).fit(np.random.default_rng(1).normal(size=(300, 3)))
    law_alone(lambda Z: score_of(model, Z))


def test_law_alone_catches_ranks_among_test_records():
    with pytest.raises(AssertionError): law_alone(lambda Z: rankdata(Z[:, 0]) / len(Z))


def test_a_broken_constant_is_strangest(parts):
    test = parts["test"].copy()
    test.loc[7, "still"] = 1.0
    for name in ("knn", "gmm"): assert run_peer(PEERS[name], parts | {"test": test}).test.argmax() == 7


def test_the_criterion_chooses(parts):
    "A blind configuration loses against one that sees."
    class Blind(Nearest):
        def anomaly_score(self, Z): return np.zeros(len(Z))
    peer = Peer(lambda seed, d, blind: Blind(1) if blind else Nearest(1), ({"blind": True}, {"blind": False}), ("log",))
    assert choose_configuration(peer, parts["train"], parts["reference"])[2]["configuration"]["blind"] is False


def test_flow_and_its_statistics(parts):
    runs = run_flow(lambda seed: FlowDetector(hidden=16, epochs=3, seed=seed), parts, statistics=("log_prob", "typicality"))
    assert list(runs) == ["nfad", "nfad_log_prob", "nfad_typicality"]
    for run in runs.values(): assert run.test.shape == (500,) and np.isfinite(run.test).all()
    assert roc_auc_score(ATTACK != "benign", runs["nfad"].test) > 0.7


def test_the_paper_is_a_peer(parts):
    run = run_paper(parts, epochs=1)["pzflow"]
    assert run.test.shape == (500,) and np.isfinite(run.test).all() and detector_names("pzflow") == (["pzflow"], [])


# --- the harness --------------------------------------------------------------------------------------------

def law_cache(store, tmp_path):
    "The same key computes once; another key computes again; arrays come back exactly."
    calls = []
    def compute(): calls.append(1); return {"a": Run(np.arange(3.0), np.arange(4) / 3, {"fit_cpu_seconds": 0.5, "score_rows_per_s": 1.0})}
    first, second, third = store(tmp_path, {"seed": 0}, compute), store(tmp_path, {"seed": 0}, compute), store(tmp_path, {"seed": 1}, compute)
    assert len(calls) == 2
    for run in (second["a"], third["a"]): assert np.array_equal(run.test, first["a"].test) and run.facts == first["a"].facts


def test_law_cache(tmp_path): law_cache(cached, tmp_path)


def test_law_cache_catches_a_forgotten_key(tmp_path):
    with pytest.raises(AssertionError): law_cache(lambda folder, key, compute: cached(folder, {}, compute), tmp_path)


def test_judge_agrees_with_score(parts):
    run = run_peer(PEERS["knn"], parts)
    found, expected = judge(ATTACK, run), ranking_metrics(ATTACK != "benign", run.test)
    assert all(found[key] == expected[key] for key in expected) and found["auroc of odd"] == found["min_auroc"] == found["macro_auroc"]


def law_interval(interval):
    "Covers the true mean in 95 % of draws."
    rng = np.random.default_rng(0)
    inside = [low <= 0 <= high for _, low, high in (interval(rng.normal(size=5)) for _ in range(2000))]
    assert 0.93 < np.mean(inside) < 0.97


def test_law_interval(): law_interval(mean_interval)


def test_law_interval_catches_a_normal_quantile():
    with pytest.raises(AssertionError): law_interval(lambda v: (v.mean(), *(v.mean() + np.array([-1.96, 1.96]) * v.std(ddof=1) / np.sqrt(len(v)))))


def test_summary_has_an_interval_for_every_metric():
    row = summarize({"a": [{"auroc": 0.8, "x": 1.0}, {"auroc": 0.9}]})["a"]
    assert row["auroc"] == pytest.approx(0.85) and row["auroc_ci95"][0] < 0.85 < row["auroc_ci95"][1] and row["x_ci95"] == [1.0, 1.0]


def test_names():
    assert detector_names(["knn", "nfad"])[0] == ["knn", "nfad"]
    names, absent = detector_names("all")
    assert set(names) | set(absent) == {"nfad", *PEERS} and all(not find_spec(PEERS[n].needs) or not find_spec("pyod") for n in absent)
    with pytest.raises(ValueError, match="detectors"): detector_names("knnn")


# --- the kit ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(3))
def test_a_split_shares_nothing(seed):
    data = load_dataset("demo", progress=False)
    split = split_dataset(data, seed=seed)
    assert (audit_split(data, split)[["same_row", "same_features"]] == 0).all(axis=None)


def test_the_audit_catches_a_leak():
    from dataclasses import replace
    data = load_dataset("demo", progress=False)
    split = split_dataset(data)
    leaky = replace(split, test=np.concatenate([split.test, split.train[:3]]))
    assert audit_split(data, leaky).loc["train - test", "same_row"] == 3


def test_shortcuts_are_signed(parts):
    y = ATTACK != "benign"
    table = feature_shortcuts(parts["test"][["size", "other"]].assign(down=-parts["test"]["other"]), y)
    assert table.loc["other", "auroc"] == pytest.approx(1 - table.loc["down", "auroc"]) and table.loc["down", "auroc"] < 0.5 < table.loc["down", "oracle"]


def test_rarity_by_hand(): assert np.allclose(rarity(np.array([80, 80, 443]), np.array([80, 443, 22])), np.log([2, 3, 6]))


def test_bootstrap_by_group_is_wider_for_similar_records():
    rng = np.random.default_rng(0)
    talks = np.repeat(np.arange(40), 25)
    y, scores = (np.arange(40) % 2)[talks], rng.normal(size=40)[talks] + 0.01 * rng.normal(size=1000)
    by_record = bootstrap_interval(roc_auc_score, y, scores)
    by_talk = bootstrap_by_group(roc_auc_score, y, scores, talks)
    alone = bootstrap_by_group(roc_auc_score, y, scores, np.full(1000, ""))
    assert by_talk[1] - by_talk[0] > 2.5 * (by_record[1] - by_record[0])
    assert alone[1] - alone[0] == pytest.approx(by_record[1] - by_record[0], rel=0.3)


def test_contamination_hurts(parts):
    intruders = records(100, 9, attack=True)
    sweep = contamination_sweep(lambda train: (lambda X, m=Nearest(1).fit(np.log1p(train)): m.anomaly_score(np.log1p(X))), parts["train"], intruders,
                                parts["test"], ATTACK, shares=(0.0, 0.1))
    assert sweep.loc[0.0, "auroc"] > sweep.loc[0.1, "auroc"]
    with pytest.raises(ValueError, match="intruders"): contamination_sweep(None, parts["train"], intruders, parts["test"], ATTACK, shares=(0.5,))


def test_a_metric_that_profits_from_being_wrong_is_refused():
    assert require_signed(roc_auc_score) is roc_auc_score
    for cheat in (lambda y, s: max(roc_auc_score(y, s), 1 - roc_auc_score(y, s)), lambda y, s: abs(2 * roc_auc_score(y, s) - 1), lambda y, s: 0.5):
        with pytest.raises(ValueError, match="perfect ranking"): require_signed(cheat)


def test_critical_difference_of_demsar():
    for k, q in ((2, 1.960), (5, 2.728), (10, 3.164)): assert critical_difference(k, 12) == pytest.approx(q * np.sqrt(k * (k + 1) / 72), abs=2e-3)


def test_figures(parts):
    table = pd.DataFrame(np.random.default_rng(0).random((3, 4)), columns=list("abcd"))
    run = run_peer(PEERS["pca"], parts)
    for axes in (plot_ranks(table), plot_class_heatmap(table), plot_promises({"pca": run}, ATTACK != "benign")):
        assert axes.has_data() and axes.get_xlabel() is not None
    pyplot.close("all")
