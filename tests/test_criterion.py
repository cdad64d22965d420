"""Laws of nfad.criterion: other statistics of surprises, pseudo-anomalies, the criterion without attacks."""
import numpy as np
import pytest

from nfad.criterion import (KINDS, LATENT_STATISTICS, STATISTICS, benign_criterion, marginal_ratio, pseudo_anomalies,
                            rank_surprise)
from nfad.statistics import GaussianSurprise, ProfileStatistic

from test_statistics import fitted, records  # noqa: F401


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_are_finite_and_rise(name):
    held_out = records(200, 8) ** 2
    S = np.tile(np.geomspace(30, 1e30, 12)[:, None], 5)
    s = STATISTICS[name](S, held_out)
    assert np.isfinite(s).all() and s.shape == (12,) and s[0] >= np.quantile(STATISTICS[name](held_out, held_out), 0.9) - 1e-9


def law_invariant(statistic):
    "Does not change when a feature's surprise is measured in another unit."
    S, held_out, scale = records(50, 1) ** 2, records(200, 2) ** 2, np.array([1, 10, 0.1, 3, 7])
    assert np.allclose(statistic(S, held_out), statistic(S * scale, held_out * scale))


@pytest.mark.parametrize("name", ["fisher", "truncated_fisher", "top_5", "higher_criticism"])
def test_law_invariant(name): law_invariant(STATISTICS[name])


def test_law_invariant_catches_the_plain_sum():
    with pytest.raises(AssertionError): law_invariant(STATISTICS["log_prob"])


@pytest.mark.parametrize("name", LATENT_STATISTICS)
def test_latent_statistics_are_finite_and_rise(name):
    usual = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    s = LATENT_STATISTICS[name]((np.ones((12, 5)) * np.geomspace(9, 1e30, 12)[:, None]).astype(np.float32), usual)
    assert np.isfinite(s).all() and (np.diff(s) >= 0).all() and s[0] > LATENT_STATISTICS[name](usual, usual).max()


def law_free_of_units(statistic):
    "Other units of the features change their densities, and no score."
    rng, (a, b) = np.random.default_rng(3), (np.array([1, 10, 0.1, 3, 7]), np.array([0, 1, -2, 5, 0.5]))
    S, Z, held_out = rng.normal(size=(60, 5)) ** 2, records(60, 1), records(300, 2)
    assert np.allclose(statistic(S, Z, held_out), statistic(S + np.log(a), Z * a + b, held_out * a + b))


def test_law_free_of_units():
    law_free_of_units(marginal_ratio)
    with pytest.raises(AssertionError): law_free_of_units(lambda S, Z, held_out: S.sum(axis=1))


def test_the_ratio_knows_dependence_and_tails():
    Z, still = records(600), np.zeros((600, 1))  # the last feature never varies
    surprise = GaussianSurprise(Z)
    score = lambda A: marginal_ratio(surprise(A), np.hstack([A, still[:len(A)]]), np.hstack([Z, still])[300:])
    usual, far = score(Z[:300]), score(np.ones((9, 5)) * np.geomspace(20, 1e12, 9)[:, None])
    assert score(np.array([[2.0, -2, 2, -2, 2]]))[0] > np.quantile(usual, 0.99) and np.isfinite(far).all() and (np.diff(far) > 0).all() and far[0] > usual.max()


def test_rank_surprise_by_hand(): assert np.allclose(np.exp(-rank_surprise(np.array([[5.0]]), np.arange(9.0)[:, None])), 5 / 10)


@pytest.mark.parametrize("kind", KINDS)
def test_pseudo_anomalies_change_something(kind):
    Z = records(100)
    made = pseudo_anomalies(Z, kind, seed=1)
    assert made.shape == Z.shape and (made != Z).any(axis=1).mean() > 0.9 and np.array_equal(made, pseudo_anomalies(Z, kind, seed=1))
    if kind.startswith("swap"): assert all(np.isin(made[:, j], Z[:, j]).all() for j in range(5))


def test_the_criterion_prefers_a_detector_that_sees(fitted):
    statistic, surprise = fitted
    Z = records(400, 9)
    good, blind = (benign_criterion(f, Z)["auroc"].mean() for f in (lambda Z: statistic.score(Z, surprise(Z)), lambda Z: Z[:, 0] * 0 + np.arange(len(Z)) % 7))
    assert good > 0.7 > blind
