"""Laws of nfad.select: judging, selectors, rivals, the measurement, planted noise, a flow of the chosen features."""
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from sklearn.metrics import roc_auc_score

from nfad.core import read_json, write_json
from nfad.evidence import Evidence, View, look
from nfad.metrics import class_metrics, ranking_metrics
from nfad.prep import feature_names
from nfad.rankings import SEPARATIONS, few_shot, rank_features
from nfad.select import (LABEL_FREE, RIVALS, SELECTORS, Bench, auroc_alone, drawn, judged, measure_selectors, noise_places,
                         permutation_drop, plot_curves, retrained, select_record, summarize_selectors, thinned, with_noise)
from test_evidence import D, NAMES, evidence, records, view


def attacks(n, seed=0):
    "Two kinds, each strange in two features."
    kinds = [view(n, shown, seed=seed + i) for i, shown in enumerate(([1, 4], [7, 9]))]
    return View(*(np.concatenate(parts) for parts in zip(*kinds))), np.repeat(["a", "b"], n)


@pytest.fixture(scope="module")
def bench() -> Bench:
    (pool, _), (strange, names), benign = attacks(60, 1), attacks(80, 11), view(600, seed=20)
    test = View(*(np.concatenate(parts) for parts in zip(benign, strange)))
    attack = np.concatenate([np.repeat("benign", 600), names])
    few = np.full((120, D), np.nan)
    few[:60] = pool.evidence[:60]
    return Bench(NAMES, evidence(800, seed=30), view(400, seed=31), view(400, seed=32), pool, test, attack, {"a": 80, "b": 160},
                 {"diffi": (pool.evidence, evidence(100, seed=33)), "shapley": (few, evidence(50, seed=34))}, 0)


# ---------------------------------------------------------------- judging and measuring

def law_judged(judge):
    "Agrees with scikit-learn where nothing is thinned, and thinning with sizes changes little."
    rng = np.random.default_rng(0)
    attack = np.repeat(["benign", "a", "b", "c"], [3000, 4000, 300, 20])
    scores = np.round(rng.normal(size=len(attack)) + np.select([attack == "a", attack == "b"], [0.5, 2.0], (attack == "c") * 1.0), 2)
    whole, usual = judge(attack, scores, None), ranking_metrics(attack != "benign", scores)
    assert np.isclose(whole["auroc"], usual["auroc"]) and np.isclose(whole["auroc"], roc_auc_score(attack != "benign", scores))
    assert np.isclose(whole["tpr_at_fpr_0.01"], usual["tpr_at_fpr_0.01"])
    assert np.isclose(whole["macro_auroc"], class_metrics(attack, scores)["auroc"].mean())
    rows = thinned(attack, 500, 2000)
    some = judge(attack[rows], scores[rows], {"a": 4000, "b": 300, "c": 20})
    assert all(abs(some[key] - whole[key]) < 0.03 for key in whole), (some, whole)


def test_law_judged(): law_judged(judged)


def test_law_judged_catches_thinning_without_sizes():
    with pytest.raises(AssertionError): law_judged(lambda attack, scores, sizes: judged(attack, scores))


def test_fewer_labels_are_a_part_of_more(bench):
    for draw in range(3):
        assert np.array_equal(bench.labelled(5, draw), bench.labelled(50, draw)[:5]) and len(set(bench.labelled(50, draw))) == 50
    assert not np.array_equal(bench.labelled(5, 0), bench.labelled(5, 1)) and np.array_equal(drawn(120, 5, 1), bench.labelled(5, 1))
    with pytest.raises(ValueError, match="at most 120"): bench.labelled(121, 0)


@pytest.mark.parametrize("name", [name for name in SELECTORS if name not in (*LABEL_FREE, "shapley")])
def test_selectors_with_labels_find_what_shows(bench, name):
    ranking = SELECTORS[name](bench, np.arange(30), 0)  # the first kind
    assert set(ranking.chosen(2)) == {"f1", "f4"} and sorted(ranking.table.index) == sorted(NAMES)


@pytest.mark.parametrize("name", LABEL_FREE)
def test_selectors_without_labels_ignore_them(bench, name):
    a, b = (SELECTORS[name](bench, rows, 0) for rows in (np.arange(5), np.arange(60, 90)))
    assert list(a.table.index) == list(b.table.index)
    if name in ("label_free_variance", "label_free_tail"): assert set(a.chosen(4)) == {"f1", "f4", "f7", "f9"}


def test_attributions_that_are_lacking(bench):
    assert SELECTORS["shapley"](bench, np.arange(55, 65), 0) is None and SELECTORS["shapley"](bench, np.arange(10), 0).chosen(2)


@pytest.mark.parametrize("name", [name for name in RIVALS if name != "devnet"])
def test_rivals_find_labelled_attacks(bench, name):
    calibration, test = RIVALS[name](bench, bench.pool.take(np.arange(0, 120, 6)), 20, 0)
    assert len(calibration) == 400 and judged(bench.attack, test)["auroc"] > 0.9


def test_devnet():
    pytest.importorskip("torch"), pytest.importorskip("pyod")
    pool, benign = attacks(10, 3)[0], np.repeat("benign", 60)
    small = Bench(NAMES, evidence(200), view(100, seed=1), view(50, seed=2), pool, view(60, seed=4), benign, {}, {})
    calibration, test = RIVALS["devnet"](small, small.pool, 5, 0)
    assert len(calibration) == 50 and np.isfinite(test).all()


def test_measure_summarize_and_record(bench, tmp_path):
    few = dict(names=["few_shot", "random", "shapley"], rivals=["all_features", "logistic"], n_trees=10, progress=False)
    measured, rankings = measure_selectors(bench, [2, 10], 2, [3, 6], 10, **few)
    again, _ = measure_selectors(bench, [2, 10], 2, [3, 6], 10, **few)
    pd.testing.assert_frame_equal(measured, again)
    table = summarize_selectors(measured[measured["by_rule"]])
    assert table.loc[("few_shot", 10), "macro_auroc"] > table.loc[("default", 0), "macro_auroc"]
    of_ten = measured.query("name == 'few_shot' and n_labels == 10 and by_rule")
    assert np.isclose(table.loc[("few_shot", 10), "auroc"], of_ten["auroc"].mean())
    result = read_json(write_json(tmp_path / "select.json", select_record(measured, rankings, 10, {"dataset": "toy"})))
    assert result["dataset"] == "toy" and sorted(result["ranking"]) == sorted(NAMES) and set(result["auroc_by_k"]) == {"3", "6"}
    assert {"k", "macro_auroc_selected", "macro_auroc_all", "default_macro_auroc"} <= set(result) and "2" in result["selectors"]["random"]
    path = write_json(tmp_path / "few_shot_6.json", {"features": result["ranking"][:6]})
    assert feature_names(path, available=NAMES) == result["ranking"][:6]
    for x, ax in zip(("n_labels", "k"), pyplot.subplots(1, 2)[1], strict=True):
        assert plot_curves(measured[measured["by_rule"]], x, ["few_shot", "random"], "auroc", ax) is ax and ax.has_data()
    pyplot.close("all")


def test_single_features():
    few, benign = evidence(20, [3]), evidence(300, seed=1)
    assert auroc_alone(few, benign).argmax() == 3 and permutation_drop(few, benign).argmax() == 3
    y = np.repeat([0, 1], [300, 20])
    assert np.isclose(auroc_alone(few, benign)[3], roc_auc_score(y, np.r_[benign[:, 3], few[:, 3]]))
    assert np.allclose(auroc_alone(-few, -benign), auroc_alone(few, benign))


# ---------------------------------------------------------------- planted noise

def law_noise(rank):
    "Columns of noise rank behind what shows and do not stand out."
    donors = pd.DataFrame(evidence(400, seed=50), columns=NAMES)
    for seed in range(3):
        few = pd.DataFrame(evidence(10, range(D), 4.0, seed=60 + seed), columns=NAMES)
        A, B = (with_noise(part, donors, 8, seed) for part in (few, donors))
        places = noise_places(rank(A.to_numpy(), B.to_numpy(), list(A.columns)))
        assert places["n_noise"] == 8 and places["noise_chosen"] == places["noise_standing_out"] == 0 and places["noise_median_place"] > 0.7


@pytest.mark.parametrize("by", SEPARATIONS)
def test_law_noise(by): law_noise(lambda few, benign, names: few_shot(few, benign, names, by, n_draws=20))


def test_law_noise_catches_random_choice():
    def random(few, benign, names): return rank_features(np.random.default_rng(0).random(len(names)), names)
    with pytest.raises(AssertionError): law_noise(random)


def test_noise_is_plausible_and_independent():
    donors = pd.DataFrame(evidence(400, seed=50), columns=NAMES)
    noisy = with_noise(donors, donors, 4)
    known = [set(donors[name]) for name in NAMES]
    for name in noisy.columns[D:]:
        assert any(set(noisy[name]) <= values for values in known) and noisy[NAMES].corrwith(noisy[name]).abs().max() < 0.3
    assert with_noise(donors[:50], donors, 4).columns.equals(noisy.columns)


# ---------------------------------------------------------------- with a flow

@pytest.fixture(scope="module")
def flow():
    from nfad.detector import FlowDetector
    rng = np.random.default_rng(0)
    def make(n, odd=False):
        X = rng.normal(size=(n, 5))
        X[:, 1] = X[:, 0] + 0.1 * rng.normal(size=n) + (3 if odd else 0)  # each value is usual, the pair is not
        return pd.DataFrame(X, columns=list("abcde")).assign(f=1.0)
    sizes = {"train": 600, "reference": 200, "calibration": 300, "test": 400}
    parts = {name: make(n) for name, n in sizes.items()} | {"few": make(10, True), "attack": make(100, True)}
    return FlowDetector.preset("fast", epochs=6).fit(parts["train"], validation=parts["reference"]), parts


def test_evidence_of_a_flow_sees_a_broken_dependence(flow):
    from nfad.explain import surprises_of
    detector, parts = flow
    e = Evidence(surprises_of(detector), parts["train"], pd.concat([parts["reference"], parts["calibration"]]))
    few, benign = (look(parts[name], e, detector.anomaly_score) for name in ("few", "reference"))
    assert few_shot(few.evidence, benign.evidence, e.names, "mean").chosen(1) == ["b"]
    assert few.evidence.shape == (10, 6) and (few.evidence[:, 5] == 0).all()
    assert e(parts["few"].assign(f=2.0))[:, 5].min() > 6


def test_retrained(flow):
    detector, parts = flow
    small = retrained(detector, parts["train"], parts["reference"], ["b", "a"])
    assert list(small.feature_names_in_) == ["b", "a"] and small.get_params() == detector.get_params()
    assert np.median(small.anomaly_score(parts["attack"])) > np.quantile(small.anomaly_score(parts["test"]), 0.95)


@pytest.mark.parametrize("call, match", [
    (lambda: with_noise(records(evidence(9)), records(evidence(9)), 0), "n must be"),
    (lambda: judged(np.repeat("benign", 5), np.ones(5)), "benign records and attacks"),
])
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match): call()
