"""Laws of nfad.tail: surprises that never saturate, thresholds beyond the largest score."""
import numpy as np
import pytest
from scipy.stats import genpareto

from nfad.tail import Tail

SCORES = [np.arange(99.0), np.array([0.0, 1.0]), np.zeros(50), np.random.default_rng(0).standard_cauchy(400),
          np.random.default_rng(1).normal(size=3000), np.array([1e30, 2e30, 5e30]), np.repeat([1.0, 2.0], 40)]


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
