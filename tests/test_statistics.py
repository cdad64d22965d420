"""Laws of nfad.statistics: tails, the profile statistic, pseudo-anomalies."""
import numpy as np
import pytest
from scipy.stats import genpareto

from nfad.nearest import usual_points
from nfad.statistics import (GaussianSurprise, KINDS, LATENT_STATISTICS, ProfileStatistic, STATE, STATISTICS, Tail,
                             benign_criterion, marginal_ratio, pseudo_anomalies, rank_surprise)

SCORES = [np.arange(99.0), np.array([0.0, 1.0]), np.zeros(50), np.random.default_rng(0).standard_cauchy(400),
          np.random.default_rng(1).normal(size=3000), np.array([1e30, 2e30, 5e30]), np.repeat([1.0, 2.0], 40)]


def records(n, seed=0, d=5):
    "Benign records: two modes and dependent features."
    rng = np.random.default_rng(seed)
    return rng.choice([-2.0, 2.0], size=(n, 1)) + 0.3 * rng.normal(size=(n, d)) * np.arange(1, d + 1)


@pytest.fixture(scope="module")
def fitted():
    train, held_out = records(600), records(300, 1)
    surprise = GaussianSurprise(train)
    return ProfileStatistic(200).fit(train, surprise(train), held_out, surprise(held_out)), surprise


# --- tails --------------------------------------------------------------------------------------------------

def law_tail(surprise, scores):
    "Not negative, not decreasing, finite however far out, and the empirical p-value inside."
    x = np.sort(np.concatenate([scores, scores + 1e-3, scores * 2 + 1, [-1e38, 1e38, np.finfo(np.float64).max / 1e10]]))
    s = surprise(x)
    assert np.isfinite(s).all() and (s >= 0).all() and (np.diff(s) >= -1e-9).all()
    inside = x <= scores.max()
    p = (1 + (scores[None, :] >= x[inside, None]).sum(axis=1)) / (len(scores) + 1)
    assert np.allclose(s[inside], -np.log(p))
    assert s[-1] > s[-2] > s[inside].max()


@pytest.mark.parametrize("scores", SCORES)
def test_law_tail(scores): law_tail(Tail(scores).surprise, scores)


def test_law_tail_catches_a_saturated_one():
    scores, broken = SCORES[0], lambda x: np.minimum(Tail(SCORES[0]).surprise(x), np.log(100))
    with pytest.raises(AssertionError): law_tail(broken, scores)


def law_extrapolates(threshold, shape):
    "In the median over draws the threshold for 1e-5 is near the truth."
    draws = [genpareto.rvs(shape, size=2000, random_state=seed) for seed in range(40)]
    found = np.median([threshold(d, 1e-5) for d in draws])
    assert 0.5 < found / genpareto.isf(1e-5, shape) < 2


@pytest.mark.parametrize("shape", [0.0, 0.2, 0.4])
def test_law_extrapolates(shape): law_extrapolates(lambda scores, rate: Tail(scores).threshold(rate), shape)


def test_law_extrapolates_catches_the_largest_score():
    with pytest.raises(AssertionError): law_extrapolates(lambda scores, rate: scores.max(), 0.4)


@pytest.mark.parametrize("scores", SCORES)
def test_threshold_inverts_surprise(scores):
    tail = Tail(scores)
    assert tail.surprise(np.array([tail.threshold(1e-6)]))[0] == pytest.approx(-np.log(1e-6), rel=1e-3)


@pytest.mark.parametrize("bad", [[1.0], [], [[1.0, 2.0]], [1.0, np.nan]])
def test_tail_refuses(bad):
    with pytest.raises(ValueError, match="scores"): Tail(np.array(bad))


# --- the profile statistic ----------------------------------------------------------------------------------

def law_promise(score, records_of):
    "Held-out and fresh benign records have the same scores, so that a threshold from some holds for the others."
    a, b = score(records_of(2000, 11)), score(records_of(2000, 12))
    assert abs(np.mean(b > np.quantile(a, 0.95)) - 0.05) < 0.02


def test_law_promise(fitted):
    statistic, surprise = fitted
    law_promise(lambda Z: statistic.score(Z, surprise(Z)), records)


def law_far(score):
    "Finite and rising the farther out a record is, to 1e30."
    far = np.ones((30, 5)) * np.geomspace(10, 1e30, 30)[:, None]
    s = score(far)
    assert np.isfinite(s).all() and (np.diff(s) > 0).all()


def test_law_far(fitted):
    statistic, surprise = fitted
    law_far(lambda Z: statistic.score(Z, surprise(Z)))
    with pytest.raises(AssertionError): law_far(lambda Z: statistic.parts(Z, surprise(Z))[:, 1])  # profiles are clipped


def test_what_is_found(fitted):
    statistic, surprise = fitted
    usual, between, swapped = records(500, 5), np.zeros((1, 5)), np.array([[2.0, -2, 2, -2, 2]])
    for strange, share in ((between, 0.95), (swapped, 0.99)):
        assert statistic.score(strange, surprise(strange))[0] > np.quantile(statistic.score(usual, surprise(usual)), share)


def law_company(score):
    "A record's score does not depend on the others, or on their order."
    Z = records(300, 6)
    order = np.random.default_rng(0).permutation(300)
    whole = score(Z)
    assert np.array_equal(whole[order], score(Z[order])) and np.allclose(whole[:5], np.concatenate([score(Z[i:i + 1]) for i in range(5)]))


def test_law_company(fitted):
    statistic, surprise = fitted
    law_company(lambda Z: statistic.score(Z, surprise(Z)))
    with pytest.raises(AssertionError): law_company(lambda Z: statistic.score(Z, surprise(Z)) - Z.mean())


def law_round_trip(copy, fitted):
    "A copy from plain arrays scores exactly the same."
    statistic, surprise = fitted
    Z = records(100, 7)
    state = {name: np.array(value) for name, value in statistic.get_state().items()}
    assert all(value.dtype != object for value in state.values())
    assert np.array_equal(copy(state).score(Z, surprise(Z)), statistic.score(Z, surprise(Z)))


def test_law_round_trip(fitted): law_round_trip(ProfileStatistic.from_state, fitted)


def test_law_round_trip_catches_a_lost_center(fitted):
    with pytest.raises(AssertionError): law_round_trip(lambda state: ProfileStatistic.from_state(state | {"center": state["center"] + 1}), fitted)


def test_the_number_of_points(fitted):
    _, surprise = fitted
    train, held_out = records(3000), records(1500, 1)
    statistic = ProfileStatistic().fit(train, surprise(train), held_out, surprise(held_out))
    assert len(statistic.points_) == len(statistic.profiles_) == len(statistic.neighborhood_.nearest.points) == usual_points(5)
    assert ProfileStatistic.from_state(statistic.get_state()).n_points is None and ProfileStatistic.from_state(fitted[0].get_state()).n_points == 200


@pytest.mark.parametrize("name", STATE)
def test_a_damaged_state_is_refused(fitted, name):
    state = fitted[0].get_state()
    with pytest.raises(ValueError, match=name): ProfileStatistic.from_state({k: v for k, v in state.items() if k != name})
    with pytest.raises(ValueError): ProfileStatistic.from_state(state | {name: state[name].reshape(-1)[:1]})
    with pytest.raises(ValueError, match="finite"): ProfileStatistic.from_state(state | {name: np.full_like(state[name], np.nan, dtype=float)})


def test_refusals(fitted):
    Z = records(50)
    with pytest.raises(ValueError, match="n_points"): ProfileStatistic(1)
    with pytest.raises(ValueError, match="low"): ProfileStatistic(low=1, high=1)
    with pytest.raises(ValueError, match="shapes"): ProfileStatistic().fit(Z, Z, Z, Z[:10])
    with pytest.raises(ValueError, match="all equal"): ProfileStatistic().fit(Z * 0, Z, Z * 0, Z)
    with pytest.raises(ValueError, match="not fitted"): ProfileStatistic().get_state()


def test_gaussian_surprise_is_a_density():
    Z = records(400)
    surprise = GaussianSurprise(Z)
    from scipy.stats import multivariate_normal
    expected = -multivariate_normal(Z.mean(axis=0), np.cov(Z.T) + 1e-3 * np.eye(5)).logpdf(Z)
    assert np.allclose(surprise(Z).sum(axis=1), expected)


# --- other statistics, pseudo-anomalies ---------------------------------------------------------------------

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
