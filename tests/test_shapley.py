"""Laws of nfad.shapley: exact and walked values, games, standard errors, backgrounds."""
from dataclasses import replace
from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
import pytest
from tqdm import tqdm

from nfad.plans import coalitions, shapley_matrix
from nfad.shapley import (GAMES, _TOLERANCE, Background, _Ledger, _players, _Queue, _Terms, shapley_values,
                          summarize_background, worths)


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
        present = coalitions(x.shape[1])
        v = np.array([b.score_fn(np.where(row, x, b.records)).mean() for row in present])
        return np.array([v[present[:, j]].mean() - v[~present[:, j]].mean() for j in range(x.shape[1])])
    with pytest.raises(AssertionError): law_exact(banzhaf)


def test_exact_agrees_with_shap():
    import shap
    B, X = records(12, 6), records(2, 6, 9)
    found = shapley_values(Background(bent, B), X, "marginal", exact=True)
    theirs = shap.ExactExplainer(bent, shap.maskers.Independent(B, max_samples=100))(X)
    assert np.abs(found.values - theirs.values).max() < 1e-6 and np.allclose(found.base_values, theirs.base_values)


# --- the plain form -----------------------------------------------------------------------------------------

def law_plain(engine, game):
    "Where it enumerates, the engine equals the plain enumeration of worths, whoever differs from whom."
    for seed in range(3):
        b, X = Background(bent, records(12, 5, seed)), records(3, 5, seed + 9)
        X[0, :2] = b.records[4, :2]  # dummies
        b.ties[:] = 0
        plain = [shapley_matrix(5) @ worths(b, x, game, 3) for x in X]
        assert np.allclose(engine(b, X, game), plain, atol=1e-9)


@pytest.mark.parametrize("game", GAMES)
def test_law_plain(game): law_plain(lambda b, X, game: shapley_values(b, X, game, k=3, exact=True).values, game)


@pytest.mark.parametrize("game", ["nearest", "conditional", "minimised"])
def test_law_plain_catches_another_donor(game):
    with pytest.raises(AssertionError): law_plain(lambda b, X, game: shapley_values(b, X, game, k=4, exact=True).values, game)


# --- walks --------------------------------------------------------------------------------------------------

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
    b, x = Background(lambda X: np.einsum("ni,ij,nj->n", X, Q, X), records(1, 6)), records(2, 6, 5)
    walked, exact = shapley_values(b, x, "marginal", n_walks=4), shapley_values(b, x, "marginal", exact=True)
    assert np.allclose(walked.values, exact.values) and np.allclose(walked.standard_errors, 0, atol=1e-9)


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
    b = Background(lambda X: X.sum(axis=1), pd.DataFrame(np.abs(records(9, 4)), columns=names))
    found = shapley_values(b, np.ones((1, 4)), groups="group", k=4)
    assert found.names[0] == "timing" and 1 < len(found.names) < 4


@pytest.mark.parametrize("game", GAMES)
def test_blocks_and_column_order_change_nothing(game):
    frame = pd.DataFrame(records(30), columns=list("abcde"))
    b, X = Background(bent, frame), pd.DataFrame(records(4, seed=2), columns=list("abcde"))
    one, other = shapley_values(b, X, game, k=4), shapley_values(b, X[list("edcba")], game, k=4, block=17, workers=2)
    many = shapley_values(b, X, game, k=4, workers=2)
    assert np.allclose(one.values, other.values) and np.allclose(one.values, many.values)
    assert np.array_equal(one.n_evaluations, other.n_evaluations)


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


def wide(n=20, d=20, seed=0):
    "A background of so many features that values are sampled, and records to explain."
    score = lambda X: 3 * np.sqrt(np.abs(X).sum(axis=1)) + np.maximum.reduce(X, axis=1) * np.tanh(X[:, 0])
    return Background(score, records(n, d, seed)), records(3, d, seed + 5) + 1


def law_tolerance(explainer):
    "No standard error is above the tolerated share of a record's largest attribution; the less is tolerated, the more it costs."
    b, X = wide()
    costs = []
    for tolerance in (0.3, 0.2, 0.1):
        found = explainer(b, X, tolerance)
        assert (found.standard_errors.max(axis=1) <= tolerance * np.abs(found.values).max(axis=1)).all()
        costs.append(found.n_evaluations.sum())
    assert costs == sorted(costs) and costs[0] < costs[-1]


def test_law_tolerance(): law_tolerance(lambda b, X, tolerance: shapley_values(b, X, n_walks=24, tolerance=tolerance, k=4))


def test_law_tolerance_catches_a_fixed_budget():
    with pytest.raises(AssertionError): law_tolerance(lambda b, X, tolerance: shapley_values(b, X, n_walks=24, k=4))


def test_the_default_is_decided_by_the_error():
    b, X = wide()
    told = shapley_values(b, X, k=4)
    assert (told.standard_errors.max(axis=1) <= _TOLERANCE * np.abs(told.values).max(axis=1)).all()
    fixed = shapley_values(b, X, k=4, n_walks=24)
    assert fixed.n_evaluations.max() <= 24 * 19 and fixed.efficiency_gap().max() < 1e-9
    few = shapley_values(b, X, k=4, tolerance=1e-6, max_walks=64)  # a tolerance is a goal: the errors say what was reached
    assert (few.standard_errors.max(axis=1) > 1e-6).all() and (few.n_evaluations >= fixed.n_evaluations).all()


def law_no_company(explainer):
    "An explanation depends neither on what else is explained nor on the order; equal records are explained once."
    b, X = wide()
    together, repeated = explainer(b, X), explainer(b, X[[2, 0, 2, 1]])
    for i, row in enumerate([2, 0, 2, 1]):
        alone = explainer(b, X[[row]])
        for found, at in ((together, row), (repeated, i)):
            assert np.array_equal(alone.values[0], found.values[at]) and alone.n_evaluations[0] == found.n_evaluations[at]


def test_law_no_company(): law_no_company(lambda b, X: shapley_values(b, X, k=4))


def test_law_no_company_catches_seeds_by_place():
    def by_place(b, X):
        found = [shapley_values(b, X[[i]], k=4, seed=i) for i in range(len(X))]
        return replace(found[0], values=np.concatenate([f.values for f in found]), n_evaluations=np.concatenate([f.n_evaluations for f in found]))
    with pytest.raises(AssertionError): law_no_company(by_place)


def test_equal_records_are_scored_once():
    b, X = wide()
    rows = []
    def counting(A):
        rows.append(len(A))
        return b.score_fn(A)
    watched = Background(counting, b.records)
    sizes = []
    for some in (X[:1], X[[0, 0, 0]]):
        rows.clear()
        shapley_values(watched, some, k=4)
        sizes.append(sum(rows))
    assert sizes[0] == sizes[1]


def law_rounds(rounds):
    "A second round walks in new orders, and does not ask again what was enumerated, nor forget it."
    b, X = wide()
    x = X[0].copy()
    near = b.records.copy()
    near[:2, 3:] = x[3:]  # two donors that differ in three features: enumerated
    b = Background(b.score_fn, near)
    steps, counts, total, paid = rounds(b, x)
    half = steps.places.shape[1] // 2
    sure = (steps.places < 0).all(axis=(1, 2))
    assert sure.sum() == 2 and np.array_equal(steps.paid[sure][:, 0], steps.paid[sure][:, -1])
    assert not np.array_equal(steps.places[:, :half], steps.places[:, half:])
    assert counts[1] < counts[0] and paid == pytest.approx(total)


def two_rounds(b, x, seeds=(0, 0), forget=False):
    ledger = _Ledger(b, _Terms("nearest", _players(b.names, None), 4, False), x[None])
    counts = []
    for seed in seeds:
        if forget and ledger.steps: ledger.steps[0].paid[...] = 0
        ledger.walk({0: 6}, _Queue(b, 4096), seed, tqdm(disable=True))
        counts.append(int(ledger.counts[0]) - sum(counts))
    return ledger.steps[0], counts, ledger.scores[0], ledger.base_values[0] + ledger.values[0].sum()


def test_law_rounds(): law_rounds(two_rounds)


def test_law_rounds_catches_a_round_that_forgets():
    with pytest.raises(AssertionError): law_rounds(lambda b, x: two_rounds(b, x, forget=True))


def test_no_records_no_values():
    b, _ = wide()
    assert shapley_values(b, np.empty((0, 20))).values.shape == (0, 20)


@pytest.mark.parametrize("records, match", [
    (np.empty((0, 5)), "at least one record"), (np.full((2, 5), np.nan), "background must be finite")])
def test_a_bad_background_is_named(records, match):
    with pytest.raises(ValueError, match=match): Background(bent, records)


@pytest.mark.parametrize("score, match", [
    (lambda X: X, "one score per record"), (lambda X: X[:, 0] / 0, "finite")])
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_bad_score_is_named(score, match):
    with pytest.raises(ValueError, match=match): Background(score, records(5))


@pytest.mark.parametrize("x, settings, match", [
    (np.ones((1, 4)), {}, "5 features"),
    (np.full((1, 5), np.inf), {}, "X must be finite"),
    (np.ones((1, 5)), {"game": "shapley"}, "game"),
    (np.ones((1, 5)), {"game": "marginal", "n_walks": 21}, "multiple"),
    (np.ones((1, 5)), {"game": "marginal", "n_walks": 60}, "even"),
    (np.ones((1, 5)), {"game": "conditional", "n_walks": 2}, "at least 4"),
    (np.ones((1, 5)), {"k": 99}, "k must be at most"),
    (np.ones((1, 5)), {"tolerance": 0}, "tolerance"), (np.ones((1, 5)), {"max_walks": 0}, "max_walks"),
    (np.ones((1, 5)), {"block": 0}, "block"), (np.ones((1, 5)), {"workers": 0}, "workers"),
    (np.ones((1, 5)), {"groups": {"a": ["x0"]}}, "exactly once"),
    (np.ones((1, 5)), {"groups": {"a": [f"x{j}" for j in (0, 1, 2, 3, 4, 4)]}}, "repeated: \\['x4'\\]")])
def test_bad_input_is_named(x, settings, match):
    with pytest.raises(ValueError, match=match): shapley_values(Background(bent, records(20)), x, **settings)


def test_too_many_players_are_named():
    wide = Background(bent, records(3, 18))
    with pytest.raises(ValueError, match="exact values need 1 to 16"): shapley_values(wide, np.ones((1, 18)), "marginal", exact=True)


def test_missing_columns_are_named():
    b = Background(bent, pd.DataFrame(records(5), columns=list("abcde")))
    with pytest.raises(KeyError, match="lack"): shapley_values(b, pd.DataFrame({"a": [1.0]}))


def test_a_score_that_turns_bad_ends_the_run():
    b = Background(lambda X: np.where(X[:, 0] > 1.5, np.nan, X[:, 1]), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="finite"): shapley_values(b, np.array([[2.0, 0, 0, 0, 0]]), "marginal")


# --- shap and backgrounds ------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("method", ["sample", "kmeans"])
def test_backgrounds_are_real_records(method):
    benign = pd.DataFrame(np.random.default_rng(0).lognormal(size=(200, 4)), columns=list("abcd"))
    few = summarize_background(benign, 10, method)
    assert 5 <= len(few) <= 10 and few.index.isin(benign.index).all() and few.equals(benign.loc[few.index])
