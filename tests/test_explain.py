"""Laws of nfad.explain: Shapley values, games, planted anomalies, metrics, reports."""
from dataclasses import replace
from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
import pytest

from nfad import explain
from nfad.shapley import (Background, GAMES, latin_orders, plan_coalitions, shapley_matrix, shapley_values,
                          standard_errors, summarize_background)
from nfad.reasons import accused, counterfactual, explain_records, readable, typical_ranges
from nfad.explain import (METHODS, PLANTS, Setting, agreement, attribute, attribution_metrics, curve_share,
                          explain_record, irrelevant_credit, kernelshap, mean_spearman, measure_methods, occlusion,
                          plant, race_kernelshap, relatives, replacement_curves, summarize_methods)
from nfad.prep import Transform
from nfad.statistics import GaussianSurprise


def bent(X):
    "A score with interactions of every order."
    X = np.asarray(X)
    return np.tanh(X[:, 0] * X[:, 1]) + X[:, 2] * X[:, 3] * X[:, 0] + np.exp(-np.square(X).sum(axis=1) / 9) + X[:, -1]


def records(n, d=5, seed=0, repeats=True):
    "Normal numbers; some values occur in many records, as in real traffic."
    X = np.random.default_rng(seed).normal(size=(n, d))
    if repeats: X[:, 1] = np.round(X[:, 1])
    return X


def slow_shapley(score, x, background):
    "The definition: the mean over all orders, one record of the background after the other."
    d, total = len(x), np.zeros(len(x))
    for b in background:
        for order in permutations(range(d)):
            now = b.copy()
            for j in order:
                before = score(now[None])[0]
                now[j] = x[j]
                total[j] += score(now[None])[0] - before
    return total / factorial(d) / len(background)


# --- exact values -------------------------------------------------------------------------------------------

def law_exact(values):
    "Exact values are those of the definition."
    for seed in range(3):
        B, x = records(3, 4, seed), records(1, 4, seed + 50)
        assert np.allclose(values(Background(bent, B), x), slow_shapley(bent, x[0], B), atol=1e-9)


def test_law_exact(): law_exact(lambda b, x: shapley_values(b, x, "marginal", exact=True).values[0])


def test_law_exact_catches_equal_weights():
    def banzhaf(b, x):
        present = explain.coalitions(x.shape[1])
        v = np.array([b.score_fn(np.where(row, x, b.records)).mean() for row in present])
        return np.array([v[present[:, j]].mean() - v[~present[:, j]].mean() for j in range(x.shape[1])])
    with pytest.raises(AssertionError): law_exact(banzhaf)


@pytest.mark.parametrize("p", range(1, 9))
def test_matrix_shares_out_everything(p):
    W = shapley_matrix(p)
    worths = np.random.default_rng(p).normal(size=2 ** p)
    assert (W @ worths).sum() == pytest.approx(worths[-1] - worths[0])
    assert np.allclose(W @ np.ones(2 ** p), 0)


def test_exact_agrees_with_shap():
    import shap
    B, X = records(12, 6), records(2, 6, 9)
    found = shapley_values(Background(bent, B), X, "marginal", exact=True)
    theirs = shap.ExactExplainer(bent, shap.maskers.Independent(B, max_samples=100))(X)
    assert np.abs(found.values - theirs.values).max() < 1e-6 and np.allclose(found.base_values, theirs.base_values)


# --- orders and walks ---------------------------------------------------------------------------------------

def law_latin(orders, n, p):
    "Every order is a permutation, and in full squares every player stands in every place equally often."
    found = orders(n, p, 3)
    assert found.shape == (n, p) and (np.sort(found, axis=1) == np.arange(p)).all()
    counts = np.array([np.bincount(column, minlength=p) for column in found[:n // p * p].T]) if n % p == 0 else np.ones((p, p))
    assert (counts == counts[0, 0]).all()


@pytest.mark.parametrize("n, p", [(1, 1), (4, 4), (12, 3), (58, 58), (7, 3), (3, 7), (20, 5)])
def test_law_latin(n, p): law_latin(latin_orders, n, p)


def test_law_latin_catches_independent_orders():
    with pytest.raises(AssertionError): law_latin(lambda n, p, seed: np.random.default_rng(seed).permuted(np.tile(np.arange(p), (n, 1)), axis=1), 20, 5)


def law_unbiased(estimate):
    "Over seeds the mean of walked values is the exact value, within what chance explains."
    B, x = records(6, 5), records(1, 5, 9)
    truth = shapley_values(Background(bent, B), x, "marginal", exact=True).values[0]
    draws = np.array([estimate(Background(bent, B), x, seed) for seed in range(60)])
    assert (np.abs(draws.mean(axis=0) - truth) < 4.5 * draws.std(axis=0) / np.sqrt(60) + 1e-9).all()


@pytest.mark.parametrize("each", [1, 2, 4])
def test_law_unbiased(each): law_unbiased(lambda b, x, seed: shapley_values(b, x, "marginal", n_walks=6 * each, seed=seed).values[0])


def test_law_unbiased_catches_one_fixed_order():
    def fixed(b, x, seed):
        steps = [np.where(np.arange(5) < t, x, b.records) for t in range(6)]
        return np.diff([b.score_fn(step).mean() for step in steps]) + 1e-3 * np.random.default_rng(seed).normal(size=5)
    with pytest.raises(AssertionError): law_unbiased(fixed)


def test_pairs_are_exact_for_pairwise_interactions():
    Q = np.random.default_rng(0).normal(size=(6, 6))
    b, x = Background(lambda X: np.einsum("ni,ij,nj->n", X, Q, X), records(4, 6)), records(2, 6, 5)
    walked, exact = shapley_values(b, x, "marginal", n_walks=16), shapley_values(b, x, "marginal", exact=True)
    assert np.allclose(walked.values, exact.values) and np.allclose(walked.standard_errors, 0, atol=1e-9)


@pytest.mark.parametrize("n_walks", [1, 2, 6])
def test_plans_mix_walks_and_enumeration(n_walks):
    differs = np.random.default_rng(0).random((8, 6)) < 0.6
    differs[0] = False
    plan, additive = plan_coalitions(differs, n_walks), np.arange(1.0, 7)
    starts = np.array([additive[~row].sum() for row in differs])
    worths = np.array([additive[present | ~differs[g]].sum() for present, g in zip(plan.present, plan.games)])
    paid = plan.credits(worths, starts, additive.sum())
    assert paid.shape == (8, explain.looks(n_walks), 6) and np.allclose(paid, np.where(differs, additive, 0)[:, None])


# --- additivity, dummies, symmetry, linearity ----------------------------------------------------------------

def law_additive(explainer, game):
    "Base value and attributions add up to the score."
    for d, m in ((1, 5), (2, 8), (7, 30)):
        b, X = Background(lambda X: 1e3 * np.square(X).sum(axis=1) + X[:, 0], records(m, d, repeats=d > 1)), records(3, d, 4, repeats=d > 1)
        found = explainer(b, X, game)
        assert np.abs(found.base_values + found.values.sum(axis=1) - b.score_fn(X)).max() < 1e-8


@pytest.mark.parametrize("game", GAMES)
def test_law_additive(game): law_additive(lambda b, X, game: shapley_values(b, X, game, k=4), game)


def test_law_additive_catches_rounded_values():
    def rounded(b, X, game):
        found = shapley_values(b, X, game, k=4)
        return replace(found, values=found.values.astype(np.float16).astype(float))
    with pytest.raises(AssertionError): law_additive(rounded, "marginal")


def law_dummy(explainer, game):
    "A feature that the score ignores gets nothing."
    b = Background(lambda X: bent(X[:, :5]), np.hstack([records(20), records(20, 1, 8, repeats=False)]))
    assert np.abs(explainer(b, np.ones((2, 6)), game)[:, 5]).max() < 1e-12


@pytest.mark.parametrize("game", ["marginal", "nearest"])
def test_law_dummy(game): law_dummy(lambda b, X, game: shapley_values(b, X, game, k=4).values, game)


def test_law_dummy_catches_shared_leftovers():
    def smeared(b, X, game): return shapley_values(b, X, game, k=4).values + 1e-3
    with pytest.raises(AssertionError): law_dummy(smeared, "marginal")


@pytest.mark.parametrize("game", ["marginal", "nearest"])
def test_linear_scores(game):
    w, B, X = np.array([1.0, -2, 0, 3, 0.5]), records(20), records(3, seed=4)
    b = Background(lambda X: X @ w, B)
    found = shapley_values(b, X, game, k=20)
    assert np.allclose(found.values, w * (X - B.mean(axis=0)))


@pytest.mark.parametrize("game", GAMES)
def test_groups_add_up(game):
    b, X = Background(bent, pd.DataFrame(records(20), columns=list("abcde"))), records(2, seed=3)
    groups = {"one": ["a", "d"], "two": ["b"], "three": ["c", "e"]}
    found = shapley_values(b, X, game, k=4, groups=groups, exact=True)
    assert found.values.shape == (2, 3) and found.efficiency_gap().max() < 1e-9 and found.names == list(groups)


def test_named_groups_of_features():
    names = ["Flow Duration", "Flow IAT Mean", "SYN Flag Count", "Fwd Packet Length Mean"]
    found = shapley_values(Background(lambda X: X.sum(axis=1), pd.DataFrame(np.abs(records(9, 4)), columns=names)), np.ones((1, 4)), groups="group", k=4)
    assert found.names[0] == "timing" and 1 < len(found.names) < 4


@pytest.mark.parametrize("game", GAMES)
def test_blocks_and_column_order_change_nothing(game):
    frame = pd.DataFrame(records(30), columns=list("abcde"))
    b, X = Background(bent, frame), pd.DataFrame(records(4, seed=2), columns=list("abcde"))
    one, other = shapley_values(b, X, game, k=4), shapley_values(b, X[list("edcba")], game, k=4, block=17, workers=2)
    many = shapley_values(b, X, game, k=4, workers=2)
    assert np.allclose(one.values, other.values) and np.allclose(one.values, many.values) and np.array_equal(one.n_evaluations, other.n_evaluations)


def test_conditional_donors_agree_with_what_is_present():
    line = np.repeat(np.linspace(-3, 3, 200), 2).reshape(-1, 2)
    b = Background(lambda X: np.square(X[:, 0] - X[:, 1]), line)
    near_line, off = np.array([[2.0, 2.5]]), np.array([[2.0, -2.0]])  # scores 0.25 and 16
    largest = {game: np.abs(shapley_values(b, near_line, game, k=3, exact=True).values).max() for game in GAMES}
    assert max(largest["nearest"], largest["conditional"], largest["minimised"]) < 0.4 < 1 < largest["marginal"]
    assert shapley_values(b, off, "minimised", k=3).base_values[0] < 1e-3


# --- errors ---------------------------------------------------------------------------------------------------

def law_honest_error(explainer):
    "Standard errors are about the error made, or too large."
    B = records(12, 7, repeats=False)
    b, x = Background(lambda X: np.maximum.reduce(X, axis=1) * np.tanh(X[:, 0] + X[:, 1]), B), records(1, 7, 5) + 1
    truth = shapley_values(b, x, "marginal", exact=True).values
    runs = [explainer(b, x, seed) for seed in range(25)]
    made = np.sqrt(np.mean([np.square(r.values - truth) for r in runs]))
    told = np.sqrt(np.mean([np.square(r.standard_errors) for r in runs]))
    assert 0.75 < told / made < 8


@pytest.mark.parametrize("each", [1, 2, 6])
def test_law_honest_error(each): law_honest_error(lambda b, x, seed: shapley_values(b, x, "marginal", n_walks=12 * each, seed=seed))


def test_law_honest_error_catches_an_optimist():
    def halved(b, x, seed):
        found = shapley_values(b, x, "marginal", n_walks=72, seed=seed)
        return replace(found, standard_errors=found.standard_errors / 3)
    with pytest.raises(AssertionError): law_honest_error(halved)


def test_max_error_is_reached_or_refused():
    b, x = Background(bent, records(10)), records(2, seed=5)
    coarse = shapley_values(b, x, "marginal", n_walks=20)
    goal = coarse.standard_errors.max() / 2
    fine = shapley_values(b, x, "marginal", n_walks=20, max_error=goal)
    assert fine.standard_errors.max() <= goal and fine.n_evaluations.sum() > coarse.n_evaluations.sum()
    with pytest.raises(ValueError, match="max_walks"): shapley_values(b, x, "marginal", n_walks=20, max_error=1e-9, max_walks=100)


@pytest.mark.parametrize("call, match", [
    (lambda b: Background(bent, np.empty((0, 5))), "background"), (lambda b: Background(bent, np.full((2, 5), np.nan)), "background"),
    (lambda b: Background(lambda X: X, records(5)), "one score per record"), (lambda b: Background(lambda X: X[:, 0] / 0, records(5)), "finite"),
    (lambda b: shapley_values(b, np.ones((1, 4))), "5 features"), (lambda b: shapley_values(b, np.full((1, 5), np.inf)), "X must be finite"),
    (lambda b: shapley_values(b, np.ones((1, 5)), "shapley"), "game"), (lambda b: shapley_values(b, np.ones((1, 5)), "marginal", n_walks=21), "multiple"),
    (lambda b: shapley_values(b, np.ones((1, 5)), "marginal", n_walks=60), "even"), (lambda b: shapley_values(b, np.ones((1, 5)), "conditional", n_walks=2), "at least 4"),
    (lambda b: shapley_values(b, np.ones((1, 5)), k=99), "k must be at most"), (lambda b: shapley_values(b, np.ones((1, 5)), groups={"a": ["x0"]}), "exactly once"),
    (lambda b: shapley_values(Background(bent, records(3, 18)), np.ones((1, 18)), "marginal", exact=True), "exact values"),
    (lambda b: attribute("shap", Setting(b), np.ones((1, 5))), "method"), (lambda b: attribute("surprise", Setting(b), np.ones((1, 5))), "surprise_fn"),
    (lambda b: explain_records(b, pd.DataFrame(np.ones((1, 5)), columns=b.names), np.array([])), "calibration"),
    (lambda b: standard_errors(np.zeros((1, 1, 3))), "at least 4")])
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match): call(Background(bent, records(20)))


def test_missing_columns_are_named():
    with pytest.raises(KeyError, match="lack"): shapley_values(Background(bent, pd.DataFrame(records(5), columns=list("abcde"))), pd.DataFrame({"a": [1.0]}))


def test_a_score_that_turns_bad_ends_the_run():
    with pytest.raises(ValueError, match="finite"): shapley_values(Background(lambda X: np.where(X[:, 0] > 1.5, np.nan, X[:, 1]), np.zeros((4, 5))), np.array([[2.0, 0, 0, 0, 0]]), "marginal")


# --- shap ---------------------------------------------------------------------------------------------------

def test_shap_takes_the_result():
    import matplotlib.pyplot as plt
    import shap
    X = records(4, seed=2)
    found = shapley_values(Background(bent, records(8)), X, "marginal").to_shap(X)
    assert found.shape == (4, 5) and np.allclose(found.values.sum(axis=1) + found.base_values, bent(X))
    for plot in (lambda: shap.plots.waterfall(found[0], show=False), lambda: shap.plots.beeswarm(found, show=False),
                 lambda: shap.plots.bar(found, show=False), lambda: shap.plots.heatmap(found, show=False)):
        plot()
        plt.close("all")


def test_sampling_is_cheap_beside_kernelshap():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(30, 60))
    score = lambda X: np.tanh(X @ W / 2).max(axis=1) + np.tanh(X @ W / 4).sum(axis=1) ** 2 / 20
    race = race_kernelshap(score, pd.DataFrame(rng.normal(size=(20, 30))), pd.DataFrame(rng.normal(size=(2, 30)) + 1))
    assert race["engine_error"] < 4 * race["kernelshap_error"] and race["cpu_ratio_vs_kernelshap"] > 2


def test_kernelshap_leaves_the_global_stream_alone():
    np.random.seed(1)
    wanted = np.random.random()
    np.random.seed(1)
    kernelshap(Setting(Background(bent, records(5)), kernel_samples=50), np.ones((1, 5)))
    assert np.random.random() == wanted


# --- planted anomalies and metrics ----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def benign() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    base = rng.lognormal(3, 1, size=(400, 1))
    factors = rng.lognormal(0, 0.1, (400, 4)) * np.array([1, 2, 5, 0.5])
    return pd.DataFrame(np.hstack([base * factors, rng.lognormal(0, 1, (400, 2)), np.full((400, 1), 3.0)]), columns=list("abcdefg"))


@pytest.fixture(scope="module")
def setting(benign) -> Setting:
    scale = Transform("log").fit(benign)
    surprise = GaussianSurprise(scale.transform(benign))
    def terms(X): return np.hstack([surprise(scale.transform(X)), np.zeros((len(X), 1))])
    return Setting(Background(lambda X: terms(X).sum(axis=1), benign), 20, 60, terms)


def law_plant(planted, before, k):
    "Exactly k features differ, and the truth says which."
    changed = planted.records.to_numpy() != before.to_numpy()[:len(planted.records)]
    assert (planted.truth.sum(axis=1) == k).all() and np.array_equal(changed, planted.truth)
    assert np.isfinite(planted.records.to_numpy()).all() and not planted.truth[:, -1].any()


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("k", [1, 2])
def test_law_plant(benign, kind, k):
    few = benign[:30]
    planted = plant(few, benign, kind, k, size=0.3, seed=1)
    kept = few[[any((row == other).sum() >= 7 - k for other in planted.records.to_numpy()) for row in few.to_numpy()]]
    if len(kept) == len(planted.records): law_plant(planted, kept, k)
    assert (planted.truth.sum(axis=1) == k).all() and len(planted.records) > 5


def test_law_plant_catches_a_wrong_truth(benign):
    planted = plant(benign[:30], benign, "global", 2)
    law_plant(planted, benign[:30], 2)
    with pytest.raises(AssertionError): law_plant(planted._replace(truth=np.roll(planted.truth, 1, axis=0)), benign[:30], 2)


def test_global_values_are_beyond_benign_ones(benign):
    planted = plant(benign[:30], benign, "global", 1)
    assert ((planted.records.to_numpy() > benign.max().to_numpy()) == planted.truth).all()


@pytest.mark.parametrize("kind", ["swap", "mirror"])
def test_swapped_values_exist(benign, kind):
    planted = plant(benign[:30], benign, kind, 1)
    scale = Transform("log").fit(benign)
    Z, known = scale.transform(planted.records), scale.transform(benign)
    assert max(np.abs(known[:, j] - Z[i, j]).min() for i, j in zip(*np.nonzero(planted.truth))) < 1e-4


def law_metrics(metrics):
    "Perfect attributions are perfect, reversed ones are worst, equal ones earn nothing."
    truth = np.random.default_rng(0).random((20, 8)) < 0.3
    truth[:, 0], truth[:, 1] = True, False
    good, flat = metrics(truth * 1.0, truth).mean(), metrics(np.zeros(truth.shape), truth).mean()
    assert np.allclose(good, 1) and np.allclose(metrics(1 - 2.0 * truth, truth)[["hit_at_1", "precision_at_k"]].to_numpy()[truth.sum(axis=1) < 5], 0)
    assert flat["hit_at_1"] == 0 and flat["attribution_auroc"] == pytest.approx(0.5)


def test_law_metrics(): law_metrics(attribution_metrics)


def test_law_metrics_catches_ties_in_favor():
    def lucky(values, truth): return attribution_metrics(values + 1e-9 * truth, truth)
    with pytest.raises(AssertionError): law_metrics(lucky)


def test_auroc_is_scikit_learns():
    from sklearn.metrics import roc_auc_score
    rng = np.random.default_rng(0)
    values, truth = rng.integers(-3, 4, size=(30, 9)).astype(float), rng.random((30, 9)) < 0.4
    truth[:, 0], truth[:, 1] = True, False
    assert np.allclose(attribution_metrics(values, truth)["attribution_auroc"], [roc_auc_score(t, np.abs(v)) for t, v in zip(truth, values)])


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("random", "diffi")])
def test_every_method_finds_a_shouting_feature(setting, benign, method):
    planted = plant(benign[:6], benign, "global", 1, size=6)
    values = attribute(method, setting, planted.records)
    assert values.shape == (len(planted.records), 7)
    if method in ("nearest", "marginal", "minimised", "occlusion", "kernelshap", "z_score"): assert attribution_metrics(values, planted.truth)["hit_at_1"].mean() > 0.8


@pytest.mark.parametrize("method", ["lime", "marginal", "nearest", "occlusion"])
def test_signs(benign, method):
    scale = Transform("log").fit(benign)
    rising = Setting(Background(lambda X: scale.transform(X).sum(axis=1), benign), 20)
    values = attribute(method, rising, plant(benign[:4], benign, "global", 1, size=4).records)
    assert (values.max(axis=1) > 2 * -values.min(axis=1)).all()


def test_measured_methods_and_record(setting, benign):
    planted = [plant(benign[:8], benign, kind, 1, seed=i) for i, kind in enumerate(PLANTS)]
    measured = measure_methods(setting, planted, ["nearest", "z_score", "random"], n_slow=2)
    table = summarize_methods(measured)
    assert table.index[-1] == "random" and table["n"].nunique() == 1 and table.loc["nearest", "hit_at_1"] > 0.6
    assert table.loc["nearest", "deletion"] < table.loc["random", "deletion"]
    written = explain_record(measured, "nearest", {"x": 1})
    assert written["hit_at_1"] == written["methods"]["nearest"]["hit_at_1"] and written["x"] == 1
    explain.plot_methods(measured)


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_stability_and_noise(setting):
    X = setting.background.records[:3]
    assert max(irrelevant_credit(setting.background, X, game) for game in ("marginal", "nearest")) < 1e-9
    assert mean_spearman(X, X) == 1 and mean_spearman(X, -X) == -1 and mean_spearman(X, np.zeros_like(X)) == 0


def test_curves_start_and_end_where_they_should(setting, benign):
    planted = plant(benign[:5], benign, "global", 1, size=4)
    curves = replacement_curves(setting.background, planted.records, planted.truth * 1.0, 7)
    scores = setting.background.score_fn(planted.records)
    assert np.allclose(curves["deletion"][:, 0], scores) and np.allclose(curves["insertion"][:, -1], scores)
    assert curve_share(np.tile(scores[:, None], 3), scores, 0.0) == pytest.approx(1)


def test_agreement_with_expected_features(benign):
    assert relatives(benign, ["e"]).tolist() == [False] * 4 + [True, False, False]
    assert relatives(benign, ["a"], 0.9).sum() >= 4
    found, chance = agreement(np.eye(4), np.array([True, False, False, False]), 1)
    assert (found, chance) == (0.25, 0.25)


# --- reports --------------------------------------------------------------------------------------------------

def law_counterfactual(find, setting, benign):
    "Normal at the threshold, no change can be taken back, and benign records stay as they are."
    b, threshold = setting.background, float(np.quantile(setting.background.scores, 0.95))
    for x in [*plant(benign[:4], benign, "global", 2, size=4).records.to_numpy(), benign.to_numpy()[0]]:
        found = find(b, x, occlusion(b, x[None])[0], threshold)
        assert b.score_fn(found.record[None])[0] <= max(threshold, b.score_fn(x[None])[0] if not found.changed.any() else threshold)
        assert np.array_equal(found.changed, found.record != x)
        for j in np.flatnonzero(found.changed):
            back = np.where(np.arange(len(x)) == j, x, found.record)
            assert b.score_fn(back[None])[0] > threshold


def test_law_counterfactual(setting, benign): law_counterfactual(counterfactual, setting, benign)


def test_law_counterfactual_catches_a_whole_other_record(setting, benign):
    def other(b, x, values, threshold): return explain.Counterfactual(b.records[0], b.records[0] != x, float(b.scores[0]))
    with pytest.raises(AssertionError): law_counterfactual(other, setting, benign)


def test_typical_ranges_look_at_the_rest(setting, benign):
    x = benign.to_numpy()[0].copy()
    x[1] = benign["b"].max() * 10
    low, high = typical_ranges(setting.background, x, np.arange(7) == 1)[1]
    assert low < benign["b"].iloc[0] * 1.5 and high < x[1] and high - low < np.ptp(benign["b"]) / 2


def test_accused_are_few():
    assert accused(np.array([5.0, 1, 0, -9])).tolist() == [True, False, False, False]
    assert accused(np.ones(20)).sum() == 5 and not accused(-np.ones(4)).any()


@pytest.fixture(scope="module")
def explained(setting, benign):
    strange = plant(benign[:10], benign, "global", 2, size=3).records
    return explain_records(setting.background, strange, setting.background.scores, 0.05, 3)


def test_report_is_whole_and_self_contained(explained, tmp_path):
    paths = explained.save(tmp_path, "a <b> title")
    page, table = paths[1].read_text(encoding="utf-8"), pd.read_parquet(paths[0])
    assert len(table) == 3 * 7 and not any(word in page for word in ("http:", "https:", "<script", "<link", "@import")) and "a &lt;b&gt; title" in page
    assert page.count("<section>") == 3 == page.count("<svg") and table["is_anomaly"].all()
    assert np.allclose(table.groupby("alert")["attribution"].sum() + table.groupby("alert")["base_value"].first(), table.groupby("alert")["anomaly_score"].first())


def test_report_escapes_names(setting):
    frame = pd.DataFrame(np.abs(records(40)), columns=["<script>", "b", "c", "d", "e"])
    b = Background(lambda X: np.square(X).sum(axis=1), frame)
    page = explain_records(b, frame * 9, b.scores, 0.05, 1, k=4).to_html(picture=False)
    assert "<script>" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize("value, unit, text", [(2_500_000, "us", "2.5 s"), (3, "packets", "3 packets"), (0, "us", "0 us"), (1500, "bytes", "1.5 kB"), (-1, "", "-1")])
def test_readable(value, unit, text): assert readable(value, unit) == text


@pytest.mark.parametrize("method", ["sample", "kmeans"])
def test_backgrounds_are_real_records(benign, method):
    few = summarize_background(benign, 10, method)
    assert 5 <= len(few) <= 10 and few.index.isin(benign.index).all() and few.equals(benign.loc[few.index])
