"""Laws of nfad.statistics: the profile statistic, and one more part."""
import numpy as np
import pytest

from nfad import detector, statistics as module
from nfad.detector import restore_statistic, statistic_arrays
from nfad.nearest import usual_points
from nfad.statistics import GaussianSurprise, PARTS, Part, ProfileStatistic

def records(n, seed=0, d=5):
    "Benign records: two modes and dependent features."
    rng = np.random.default_rng(seed)
    return rng.choice([-2.0, 2.0], size=(n, 1)) + 0.3 * rng.normal(size=(n, d)) * np.arange(1, d + 1)


@pytest.fixture(scope="module")
def fitted():
    train, held_out = records(600), records(300, 1)
    surprise = GaussianSurprise(train)
    return ProfileStatistic(200).fit(train, surprise(train), held_out, surprise(held_out)), surprise


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


def law_paid_back(score):
    "Two shocks that calm elsewhere pays for stand out; people are normal, the density has a Student t's tail."
    people, S = np.random.default_rng(3).normal(size=(3500, 30)), lambda Z: 3 * np.log1p(Z**2 / 5)
    machine = 0.25 * people[:100]
    machine[:, [9, 20]] = 6
    of = score(people[:1500], S(people[:1500]), people[1500:2000], S(people[1500:2000]))
    usual = of(people[2000:], S(people[2000:]))
    assert (of(machine, S(machine)) > np.quantile(usual, 0.99)).all()
    assert (of(people[:100] / 4, S(people[:100] / 4)) < np.median(usual)).all()  # calm alone is missed; 02c says so


def test_law_paid_back():
    law_paid_back(lambda *benign: ProfileStatistic().fit(*benign).score)
    with pytest.raises(AssertionError): law_paid_back(lambda *benign: lambda Z, S: S.sum(axis=1))  # the plain -log p


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
    state = {name: np.array(value) for name, value in statistic_arrays(statistic).items()}
    assert all(value.dtype != object for value in state.values())
    assert np.array_equal(copy(state).score(Z, surprise(Z)), statistic.score(Z, surprise(Z)))


def test_law_round_trip(fitted): law_round_trip(restore_statistic, fitted)


def test_law_round_trip_catches_a_lost_center(fitted):
    with pytest.raises(AssertionError): law_round_trip(lambda state: restore_statistic(state | {"center": state["center"] + 1}), fitted)


def points_of(statistic):
    "How many points each part compares with."
    arrays = statistic_arrays(statistic)
    return {name: len(arrays[name]) for name in ("points", "profiles", "neighbors", "spacing")}


@pytest.mark.parametrize("d", [5, 31, 45])
def test_the_number_of_points(d):
    train, held_out = (np.random.default_rng(seed).normal(size=(n, d)) for seed, n in ((0, 3000), (1, 1500)))
    statistic = ProfileStatistic().fit(train, train**2, held_out, held_out**2)
    assert set(points_of(statistic).values()) == {usual_points(d)}
    assert restore_statistic(statistic_arrays(statistic)).n_points is None


def test_a_chosen_number_of_points_holds_for_all_parts(fitted):
    assert set(points_of(fitted[0]).values()) == {200} and restore_statistic(statistic_arrays(fitted[0])).n_points == 200


STATE = ("settings", "center", "points", "profiles", "mean", "whitening", "record_mean", "record_whitening", "neighbors", "spacing", "held_out")


def test_the_state_keeps_its_names(fitted):
    "Model files of format nfad-flow-3 hold these arrays."
    assert tuple(statistic_arrays(fitted[0])) == STATE and [part.name for part in PARTS] == ["record", "profile", "total", "local"]


@pytest.mark.parametrize("name", STATE)
def test_a_damaged_state_is_refused(fitted, name):
    state = statistic_arrays(fitted[0])
    with pytest.raises(ValueError, match=name): restore_statistic({k: v for k, v in state.items() if k != name})
    with pytest.raises(ValueError): restore_statistic(state | {name: state[name].reshape(-1)[:1]})
    with pytest.raises(ValueError): restore_statistic(state | {name: state[name][..., None]})
    with pytest.raises(ValueError, match="finite"): restore_statistic(state | {name: np.full_like(state[name], np.nan, dtype=float)})


def test_refusals(fitted):
    Z = records(50)
    with pytest.raises(ValueError, match="n_points"): ProfileStatistic(1)
    with pytest.raises(ValueError, match="low"): ProfileStatistic(low=1, high=1)
    with pytest.raises(ValueError, match="shapes"): ProfileStatistic().fit(Z, Z, Z, Z[:10])
    with pytest.raises(ValueError, match="all equal"): ProfileStatistic().fit(Z * 0, Z, Z * 0, Z)
    with pytest.raises(ValueError, match="not fitted"): statistic_arrays(ProfileStatistic())


def test_gaussian_surprise_is_a_density():
    Z = records(400)
    surprise = GaussianSurprise(Z)
    from scipy.stats import multivariate_normal
    expected = -multivariate_normal(Z.mean(axis=0), np.cov(Z.T) + 1e-3 * np.eye(5)).logpdf(Z)
    assert np.allclose(surprise(Z).sum(axis=1), expected)


# --- one more part ------------------------------------------------------------------------------------------

class Ceiling:
    "Distance above the largest benign sum of features."
    width = 5
    def __init__(self, top): self.top = top
    def distance(self, Z): return np.maximum(Z.sum(axis=1) - self.top, 0)


CEILING = Part("ceiling", "records", fit=lambda Z, held, n_points: (Ceiling(Z.sum(axis=1).max()), Ceiling(Z.sum(axis=1).max()).distance(held)),
               distance=lambda model, Z: model.distance(Z), state=lambda model: {"ceiling": np.array([model.top])},
               restore=lambda arrays: Ceiling(arrays["ceiling"][0]))


def law_one_more_part(fit, score):
    "What is fitted and scored has one more column, the others as before, and the state brings it back."
    (train, held_out), surprise = (records(600), records(300, 1)), GaussianSurprise(records(600))
    statistic = fit(train, surprise(train), held_out, surprise(held_out))
    Z = records(50, 7) * 3
    again = restore_statistic(statistic_arrays(statistic))
    found = score(statistic, Z, surprise(Z))
    assert found.shape == (50, len(module.PARTS)) and found[:, -1].max() > 3
    assert np.array_equal(score(again, Z, surprise(Z)), found)
    return statistic, found


def test_law_one_more_part(monkeypatch):
    fit, parts = lambda *given: ProfileStatistic(200).fit(*given), lambda statistic, Z, S: statistic.parts(Z, S)
    before, four = law_one_more_part(fit, lambda statistic, Z, S: np.roll(statistic.parts(Z, S), 3, axis=1))
    state = statistic_arrays(before)
    def use(parts_now):
        for place in (module, detector): monkeypatch.setattr(place, "PARTS", parts_now)
    use((*PARTS, CEILING))
    more, five = law_one_more_part(fit, parts)
    assert np.array_equal(five[:, :4], np.roll(four, -3, axis=1)) and "ceiling" in statistic_arrays(more)
    with pytest.raises(AssertionError): law_one_more_part(fit, lambda *given: parts(*given)[:, :4])  # a forgotten part
    assert parts(before, records(3), records(3)).shape == (3, 4)  # a fitted statistic keeps its own parts
    with pytest.raises(ValueError, match="hold 'ceiling'"): restore_statistic(state)
    grown = statistic_arrays(more)
    use(PARTS)
    with pytest.raises(ValueError, match="held_out must be scores of"): restore_statistic(grown)
    assert parts(more, records(3), records(3)).shape == (3, 5)
    with pytest.raises(ValueError, match="no part of the score knows the array 'ceiling'"):
        restore_statistic(state | {"ceiling": np.ones(1)})
