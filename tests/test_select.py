"""Laws of nfad.select: evidence, rankings, the rule for k, reweighting, judging, planted noise."""
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from nfad import select
from nfad.core import read_json, write_json
from nfad.prep import feature_names
from nfad.metrics import class_metrics, ranking_metrics
from nfad.select import (Bench, Evidence, LABEL_FREE, RIVALS, Ranking, Reweighted, SELECTORS, SEPARATIONS, View,
                         auroc_alone, drawn, few_shot, joined, judged, label_free, look, mean_ranking,
                         measure_selectors, noise_places, permutation_drop, rank_features, retrained, select_record,
                         summarize_selectors, thinned, with_noise)

D = 12
NAMES = [f"f{j}" for j in range(D)]


def evidence(n, shown=(), size=4.0, seed=0):
    "Evidence of n records: benign in all columns but `shown`."
    return np.random.default_rng(seed).exponential(size=(n, D)) + size * np.isin(np.arange(D), shown)


def view(n, shown=(), size=4.0, seed=0):
    E = evidence(n, shown, size, seed)
    return View(E, E, E.sum(axis=1))


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


# ---------------------------------------------------------------- evidence

def records(X, constant=3.0): return pd.DataFrame(X, columns=NAMES).assign(constant=constant)


def law_evidence(make):
    "On benign records every feature has exponential evidence; it rises with surprise; constants count only when they break."
    surprise = lambda X: np.asarray(X, dtype=float) * np.append(np.geomspace(0.01, 100, D), 0)  # features differ in how surprising they are
    train, held_out, fresh = (records(evidence(n, seed=s)) for n, s in ((50, 1), (800, 2), (800, 3)))
    e = make(surprise, train, held_out)
    E = e(fresh)
    assert E.shape == (800, D + 1) and (E >= 0).all() and np.isfinite(E).all()
    assert np.allclose(E[:, :D].mean(axis=0), 1, atol=0.2) and (E[:, D] == 0).all()
    assert (e(fresh + records(np.ones((800, D)), 0))[:, :D] >= E[:, :D]).all()
    broken = e(fresh.assign(constant=[3.0] * 400 + [4.0] * 200 + [1e12] * 200))[:, D]
    assert (broken[:400] == 0).all() and np.allclose(broken[400:600], np.log(802) + np.log(2)) and (broken[600:] > broken[500]).all() and np.isfinite(broken).all()
    assert np.array_equal(e(fresh[fresh.columns[::-1]]), E)  # columns are taken by name


def test_law_evidence(): law_evidence(Evidence)


def test_law_evidence_catches_plain_surprise():
    def plain(surprise, train, held_out): return lambda X: surprise(X[train.columns])
    with pytest.raises(AssertionError): law_evidence(plain)


def test_law_evidence_catches_ignored_constants():
    def blind(surprise, train, held_out):
        e = Evidence(surprise, train, held_out)
        return lambda X: e(X.assign(constant=3.0))
    with pytest.raises(AssertionError): law_evidence(blind)


@pytest.mark.parametrize("args, match", [((None, 5, 5), "surprise_fn"), ((lambda X: X.to_numpy(), 5, 0), "held_out")])
def test_evidence_names_bad_input(args, match):
    with pytest.raises(ValueError, match=match): Evidence(args[0], records(evidence(args[1])), records(evidence(args[2])))


# ---------------------------------------------------------------- rankings

def law_finds(rank, stands_out=True):
    "The features that show come first, stand out from chance, and noise stays behind them, over many draws."
    for seed in range(4):
        ranking = rank(evidence(10, [2, 5, 8], seed=100 + seed), evidence(500, seed=200 + seed), seed)
        assert set(ranking.chosen(3)) == {"f2", "f5", "f8"}
        if stands_out: assert set(ranking.table.index[ranking.table["low"] > ranking.null]) >= {"f2", "f5", "f8"}
        assert (ranking.table["low"] > ranking.null).sum() <= 4 and ranking.k == 6
        assert (ranking.table["low"] <= ranking.table["value"]).all() and (ranking.table["value"] <= ranking.table["high"]).all()
        assert (np.diff(ranking.table["value"]) <= 0).all()


@pytest.mark.parametrize("by", SEPARATIONS)
def test_law_finds_few_shot(by): law_finds(lambda few, benign, seed: few_shot(few, benign, NAMES, by, n_draws=20, seed=seed), by == "mean")


@pytest.mark.parametrize("spread", ["variance", "tail"])
def test_law_finds_label_free(spread):
    law_finds(lambda few, benign, seed: label_free(np.concatenate([benign[:150], few]), benign, NAMES, spread, n_draws=20, seed=seed), False)
    many = label_free(np.concatenate([evidence(200, seed=1), evidence(40, [2, 5, 8], seed=2)]), evidence(500, seed=3), NAMES, spread)
    out = set(many.table.index[many.table["low"] > many.null])
    assert out <= {"f2", "f5", "f8"} and len(out) >= 2


def test_law_finds_catches_a_reversed_sign():
    with pytest.raises(AssertionError): law_finds(lambda few, benign, seed: rank_features(-select.mean_gap(few, benign), NAMES))


def test_law_finds_catches_the_median_distance():
    "Which is why `mad` is no default: it does not see a minority."
    with pytest.raises(AssertionError): law_finds(lambda few, benign, seed: label_free(np.concatenate([benign[:150], few]), benign, NAMES, "mad", n_draws=20, seed=seed))


def law_chance(rank):
    "Among records that are all benign nothing stands out, nearly always."
    out = [(r.table["low"] > r.null).sum() for r in (rank(evidence(10, seed=300 + s), evidence(400, seed=400 + s), s) for s in range(6))]
    assert sum(out) <= 1, out


@pytest.mark.parametrize("by", SEPARATIONS)
def test_law_chance(by): law_chance(lambda few, benign, seed: few_shot(few, benign, NAMES, by, n_draws=20, seed=seed))


def test_law_chance_catches_a_null_of_single_features():
    def lenient(few, benign, seed):
        r = few_shot(few, benign, NAMES, "mean", n_draws=20, seed=seed)
        return Ranking(r.table, 0.0)
    with pytest.raises(AssertionError): law_chance(lenient)


def test_same_seed_same_ranking():
    few, benign = evidence(5, [3]), evidence(300, seed=1)
    a, b, c = (few_shot(few, benign, NAMES, seed=s, n_draws=10) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(a.table, b.table)
    assert a.null == b.null and a.null != c.null and list(a.table["value"]) == list(c.table["value"])


def law_k(ranking_of):
    "k counts the features that stand out, between 6 and 12, and never more than there are."
    for d in (1, 4, 6, 9, 20):
        for out in range(d + 1):
            values = np.where(np.arange(d) < out, 2.0, 0.0)
            k = ranking_of(values, [f"x{j}" for j in range(d)], np.stack([values, values]), np.ones((3, d))).k
            assert k == min(max(6, min(out, 12)), d)


def test_law_k(): law_k(rank_features)


def test_law_k_catches_an_unbounded_count():
    class Loose(Ranking):
        k = property(lambda self: int((self.table["low"] > self.null).sum()))
    with pytest.raises(AssertionError): law_k(lambda *args: Loose(*vars(rank_features(*args)).values()))


@pytest.mark.parametrize("call, match", [
    (lambda: few_shot(evidence(0), evidence(9), NAMES), "few must have shape"),
    (lambda: few_shot(evidence(2), evidence(9), NAMES[:3]), "few must have shape"),
    (lambda: few_shot(evidence(9), evidence(9), NAMES), "more records than few"),
    (lambda: few_shot(evidence(2) * np.nan, evidence(9), NAMES), "few must be finite"),
    (lambda: few_shot(evidence(2), evidence(9), NAMES, "median"), "by must be one of"),
    (lambda: label_free(evidence(2), evidence(9), NAMES, "std"), "spread must be one of"),
    (lambda: rank_features(np.ones(3), "abc").chosen(4), "at most 3"),
    (lambda: rank_features(np.ones(3), "abc").chosen(0), "k must be"),
    (lambda: Reweighted([]), "chosen"), (lambda: Reweighted([1], n_trees=0), "n_trees"),
    (lambda: with_noise(records(evidence(9)), records(evidence(9)), 0), "n must be"),
    (lambda: judged(np.repeat("benign", 5), np.ones(5)), "benign records and attacks"),
])
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match): call()


# ---------------------------------------------------------------- reweighting

def law_join(join):
    "Labels lift; they never push down; below the start they say nothing; without them the order is that of the default."
    rng = np.random.default_rng(0)
    base, told = rng.exponential(size=500), rng.exponential(2, size=500)
    s = join(base, told)
    assert (s >= base).all() and np.array_equal(s[told <= 3], base[told <= 3])
    assert (join(base, told + 1) >= s).all() and np.array_equal(np.argsort(join(base, np.zeros(500))), np.argsort(base))


def test_law_join(): law_join(joined)


def test_law_join_catches_the_mean():
    with pytest.raises(AssertionError): law_join(lambda base, told: (base + told) / 2)


def law_lifts(make):
    "A labelled kind is found more often; an unlabelled kind is not lost; the promised rate of false alarms is about kept."
    benign, known, other = view(4000, seed=3), view(300, [1, 4], 2.5, seed=4), view(300, [7, 9], 4.0, seed=5)
    calibration = view(600, seed=6)
    score = make().fit(view(10, [1, 4], 2.5, seed=7), evidence(600, seed=8), view(600, seed=9), calibration).anomaly_score
    limit = np.quantile(score(calibration), 0.99, method="higher")
    found = lambda v: np.mean(score(v) > np.quantile(score(benign), 0.99))
    usual = lambda v: np.mean(v.score > np.quantile(benign.score, 0.99))
    assert found(known) > usual(known) + 0.1 and found(other) > usual(other) - 0.2
    assert np.mean(score(benign) > limit) < 0.03 and np.isfinite(score(benign)).all()


def test_law_lifts(): law_lifts(lambda: Reweighted([1, 4, 6], n_trees=30))


def test_law_lifts_catches_other_features():
    with pytest.raises(AssertionError): law_lifts(lambda: Reweighted([2, 3, 6], n_trees=30))


def test_law_lifts_catches_labels_alone():
    class Alone(Reweighted):
        def anomaly_score(self, records): return self._outputs(records)[1]
    with pytest.raises(AssertionError): law_lifts(lambda: Alone([1, 4, 6], n_trees=30))


def test_reweighting_reads_only_chosen_columns(bench):
    model = Reweighted([1, 4], n_trees=10).fit(bench.pool.take(np.arange(10)), bench.train, bench.reference, bench.calibration)
    v = bench.test.take(np.arange(50))
    other = View(v.values.copy(), v.evidence.copy(), v.score)
    for part in other[:2]: part[:, [0, 2, 3, *range(5, D)]] = -77
    assert np.array_equal(model.anomaly_score(v), model.anomaly_score(other))


# ---------------------------------------------------------------- judging and measuring

def law_judged(judge):
    "Agrees with scikit-learn where nothing is thinned, and thinning with sizes changes little."
    rng = np.random.default_rng(0)
    attack = np.repeat(["benign", "a", "b", "c"], [3000, 4000, 300, 20])
    scores = np.round(rng.normal(size=len(attack)) + np.select([attack == "a", attack == "b"], [0.5, 2.0], (attack == "c") * 1.0), 2)
    whole, usual = judge(attack, scores, None), ranking_metrics(attack != "benign", scores)
    assert np.isclose(whole["auroc"], usual["auroc"]) and np.isclose(whole["auroc"], roc_auc_score(attack != "benign", scores))
    assert np.isclose(whole["tpr_at_fpr_0.01"], usual["tpr_at_fpr_0.01"]) and np.isclose(whole["macro_auroc"], class_metrics(attack, scores)["auroc"].mean())
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
    small = Bench(NAMES, evidence(200), view(100, seed=1), view(50, seed=2), attacks(10, 3)[0], view(60, seed=4), np.repeat("benign", 60), {}, {})
    calibration, test = RIVALS["devnet"](small, small.pool, 5, 0)
    assert len(calibration) == 50 and np.isfinite(test).all()


def test_measure_summarize_and_record(bench, tmp_path):
    measured, rankings = measure_selectors(bench, [2, 10], 2, [3, 6], 10, names=["few_shot", "random", "shapley"], rivals=["all_features", "logistic"], n_trees=10, progress=False)
    again, _ = measure_selectors(bench, [2, 10], 2, [3, 6], 10, names=["few_shot", "random", "shapley"], rivals=["all_features", "logistic"], n_trees=10, progress=False)
    pd.testing.assert_frame_equal(measured, again)
    table = summarize_selectors(measured[measured["by_rule"]])
    assert table.loc[("few_shot", 10), "macro_auroc"] > table.loc[("default", 0), "macro_auroc"]
    assert np.isclose(table.loc[("few_shot", 10), "auroc"], measured.query("name == 'few_shot' and n_labels == 10 and by_rule")["auroc"].mean())
    result = read_json(write_json(tmp_path / "select.json", select_record(measured, rankings, 10, {"dataset": "toy"})))
    assert result["dataset"] == "toy" and sorted(result["ranking"]) == sorted(NAMES) and set(result["auroc_by_k"]) == {"3", "6"}
    assert {"k", "macro_auroc_selected", "macro_auroc_all", "default_macro_auroc"} <= set(result) and "2" in result["selectors"]["random"]
    path = write_json(tmp_path / "few_shot_6.json", {"features": result["ranking"][:6]})
    assert feature_names(path, available=NAMES) == result["ranking"][:6]
    for axes in (select.plot_curves(measured[measured["by_rule"]], "n_labels", ["few_shot", "random"]), [select.plot_ranking(rankings["few_shot", 10, 0])]):
        assert all(ax.has_data() for ax in axes)


def test_mean_ranking():
    a, b = rank_features(np.array([3.0, 2, 1]), list("xyz")), rank_features(np.array([2.0, 3, 1]), list("xyz"))
    assert mean_ranking([a, a, b]) == ["x", "y", "z"] and mean_ranking([b]) == ["y", "x", "z"]


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
    with pytest.raises(AssertionError): law_noise(lambda few, benign, names: rank_features(np.random.default_rng(0).random(len(names)), names))


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
    parts = {name: make(n) for name, n in (("train", 600), ("reference", 200), ("calibration", 300), ("test", 400))} | {"few": make(10, True), "attack": make(100, True)}
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
