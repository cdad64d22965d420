"""Laws of nfad.rankings: what shows comes first, what is chance does not stand out, and how many features count."""
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from nfad.rankings import (SEPARATIONS, Ranking, few_shot, label_free, mean_gap, mean_ranking, plot_ranking,
                           rank_features)
from test_evidence import NAMES, evidence


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


def by_spread(spread):
    "A ranking of traffic, 150 benign records and the attacks, without labels."
    def rank(few, benign, seed):
        return label_free(np.concatenate([benign[:150], few]), benign, NAMES, spread, n_draws=20, seed=seed)
    return rank


@pytest.mark.parametrize("spread", ["variance", "tail"])
def test_law_finds_label_free(spread):
    law_finds(by_spread(spread), stands_out=False)
    many = label_free(np.concatenate([evidence(200, seed=1), evidence(40, [2, 5, 8], seed=2)]), evidence(500, seed=3), NAMES, spread)
    out = set(many.table.index[many.table["low"] > many.null])
    assert out <= {"f2", "f5", "f8"} and len(out) >= 2


def test_law_finds_catches_a_reversed_sign():
    with pytest.raises(AssertionError): law_finds(lambda few, benign, seed: rank_features(-mean_gap(few, benign), NAMES))


def test_law_finds_catches_the_median_distance():
    "Which is why `mad` is no default: it does not see a minority."
    with pytest.raises(AssertionError): law_finds(by_spread("mad"))


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


def test_mean_ranking():
    a, b = rank_features(np.array([3.0, 2, 1]), list("xyz")), rank_features(np.array([2.0, 3, 1]), list("xyz"))
    assert mean_ranking([a, a, b]) == ["x", "y", "z"] and mean_ranking([b]) == ["y", "x", "z"]


def test_figure_of_a_ranking():
    ranking = few_shot(evidence(10, [1, 4]), evidence(100, seed=1), NAMES, n_draws=5)
    ax = pyplot.subplots()[1]
    assert plot_ranking(ranking, 3, ax) is ax and plot_ranking(ranking) is pyplot.gca() is ax
    assert [text.get_text() for text in ax.get_yticklabels()][:3] == ranking.chosen(3)
    pyplot.close("all")


@pytest.mark.parametrize("call, match", [
    (lambda: few_shot(evidence(0), evidence(9), NAMES), "few must have shape"),
    (lambda: few_shot(evidence(2), evidence(9), NAMES[:3]), "few must have shape"),
    (lambda: few_shot(evidence(9), evidence(9), NAMES), "more records than few"),
    (lambda: few_shot(evidence(2) * np.nan, evidence(9), NAMES), "few must be finite"),
    (lambda: few_shot(evidence(2), evidence(9), NAMES, "median"), "by must be one of"),
    (lambda: label_free(evidence(2), evidence(9), NAMES, "std"), "spread must be one of"),
    (lambda: rank_features(np.ones(3), "abc").chosen(4), "at most 3"),
    (lambda: rank_features(np.ones(3), "abc").chosen(0), "k must be"),
])
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match): call()
