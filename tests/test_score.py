"""Laws of nfad.score: the threshold, p-values, the band, the record of a run."""
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, binom

from nfad.metrics import ranking_metrics, threshold_youden
from nfad.score import alarm_facts, conformal_p_values, evaluate, fpr_band, threshold_at_fpr
from test_metrics import labelled, many_classes, refuses

few = settings(max_examples=60, deadline=None, derandomize=True)
numbers = st.floats(-1e38, 1e38, allow_nan=False)
tied = st.integers(-3, 3).map(float)
arrays = st.lists(st.one_of(numbers, tied), min_size=1, max_size=60).map(np.array)


def law_promise(threshold, scores, fpr):
    "An observed score, above which at most a fraction `fpr` of the scores lies; the next lower one would break that."
    t = threshold(scores, fpr)
    assert t in scores and np.mean(scores > t) <= fpr
    lower = scores[scores < t]
    assert not len(lower) or np.mean(scores > lower.max()) > fpr - 1e-9


@few
@given(arrays, st.floats(1e-6, 1 - 1e-6))
def test_law_promise(scores, fpr): law_promise(threshold_at_fpr, scores, fpr)


@pytest.mark.parametrize("m", [1, 2, 3, 7, 10, 29, 49, 100, 1000])
def test_law_promise_at_round_rates(m):
    for k in range(1, min(m, 60)):
        for fpr in (k / m, np.nextafter(k / m, 0), np.nextafter(k / m, 1)):
            if fpr < 1: law_promise(threshold_at_fpr, np.arange(m, dtype=float), float(fpr))


@pytest.mark.parametrize("broken", [lambda s, fpr: np.quantile(s, 1 - fpr), lambda s, fpr: np.sort(s)[-int(fpr * len(s)) - 2],
                                    lambda s, fpr: s.max()])
def test_law_promise_catches(broken):
    with pytest.raises(AssertionError):
        for fpr in (0.013, 0.1, 0.25): law_promise(broken, np.random.default_rng(0).normal(size=97), fpr)


# --- p-values and intervals ---------------------------------------------------------------------------------

def law_p_values(p_values, scores, calibration):
    "One plus the calibration scores at least as large, over one plus all of them; never rising with the score."
    p = p_values(scores, calibration)
    assert np.allclose(p, [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores], rtol=1e-14)
    order = np.argsort(scores)
    assert (np.diff(p[order]) <= 0).all() and (p > 0).all() and (p <= 1).all()


@few
@given(arrays, arrays)
def test_law_p_values(scores, calibration): law_p_values(conformal_p_values, scores, calibration)


@pytest.mark.parametrize("broken", [lambda s, c: np.array([(1 + sum(c > x)) / (len(c) + 1) for x in s]),
                                    lambda s, c: np.array([np.mean(c >= x) for x in s])])
def test_law_p_values_catches(broken):
    with pytest.raises(AssertionError): law_p_values(broken, np.array([0.0, 1, 2, 9]), np.array([0.0, 1, 1, 2]))


def law_super_uniform(p_values):
    "For exchangeable records P(p <= a) <= a, ties included."
    rng = np.random.default_rng(0)
    for m, draw in ((1, rng.normal), (19, rng.normal), (99, rng.normal), (19, lambda size: rng.integers(0, 3, size).astype(float))):
        p = np.array([p_values(draw(size=1), draw(size=m))[0] for _ in range(1500)])
        for a in (0.01, 0.05, 0.1, 0.5, 0.9): assert np.mean(p <= a) <= a + 3.5 * np.sqrt(a * (1 - a) / 1500), (m, a)


def test_law_super_uniform(): law_super_uniform(conformal_p_values)


def test_law_super_uniform_catches_p_values_without_the_record():
    with pytest.raises(AssertionError): law_super_uniform(lambda s, c: np.array([np.mean(c >= x) for x in s]))


def test_small_p_values_and_alarms_agree():
    rng = np.random.default_rng(0)
    calibration, scores = rng.normal(size=199), rng.normal(size=500)
    alarms = conformal_p_values(scores, calibration) <= 0.05
    assert not (alarms & ~(scores > threshold_at_fpr(calibration, 0.05))).any()  # the p-value is the more careful of the two


def law_band_covers(band):
    "For exchangeable benign records the realised rate lies in the band about as often as promised, and the band is not idle."
    rng = np.random.default_rng(0)
    for m, n, fpr in ((200, 500, 0.05), (1000, 300, 0.01), (50, 2000, 0.1), (99, 400, 0.3)):
        low, high = band(m, n, fpr)
        realised = [np.mean(rng.random(n) > threshold_at_fpr(rng.random(m), fpr)) for _ in range(1000)]
        inside = np.mean([(low <= r <= high) for r in realised])
        assert 0.93 < inside < 0.995 and 0 <= low < high <= 1, (m, n, fpr, inside)


def test_law_band_covers(): law_band_covers(fpr_band)


def law_band_is_scipys(band):
    "The band is the central part of scipy's beta-binomial distribution."
    for m, n, fpr, confidence in ((1, 1, 0.5, 0.9), (30, 7, 0.3, 0.99), (1200, 16384, 0.01, 0.999), (10, 90_000, 0.99, 0.95), (5000, 300, 1e-4, 0.5)):
        above = int(m * fpr + 1e-9)
        wanted = betabinom(n, above + 1, m - above).interval(confidence)
        assert band(m, n, fpr, confidence) == pytest.approx(np.array(wanted) / n)


def test_law_band_is_scipys(): law_band_is_scipys(fpr_band)


def test_law_band_is_scipys_catches_one_alarm_less():
    def less(m, n, fpr, confidence): return tuple(np.array(fpr_band(m, n, fpr, confidence)) - 1 / n)
    with pytest.raises(AssertionError): law_band_is_scipys(less)


def test_law_band_covers_catches_a_band_without_the_threshold_error():
    def binomial(m, n, fpr): return tuple(np.array(binom.interval(0.95, n, fpr)) / n)
    with pytest.raises(AssertionError): law_band_covers(binomial)


def law_chance_of_alarms(facts):
    "`chance` is how often exchangeable records give as many alarms, or as few; outside the 95 % band it is below 1 in 40, inside it is not."
    m, n, fpr, rng = 200, 300, 0.05, np.random.default_rng(0)
    drawn = np.array([np.sum(rng.random(n) > threshold_at_fpr(rng.random(m), fpr)) for _ in range(4000)])
    for alarms in (4, 9, 14, 16, 22, 30, 40):
        got = facts(alarms, m, n, fpr)
        share = np.mean(drawn >= alarms) if alarms > got["expected"] else np.mean(drawn <= alarms)
        assert got["chance"] == pytest.approx(share, abs=0.025) and got["expected"] == pytest.approx(drawn.mean(), abs=0.5), alarms
    for alarms in range(n + 1):
        got = facts(alarms, m, n, fpr)
        assert (got["place"] == "outside") == (got["chance"] < 0.025) == (not got["low"] <= got["alarms"] <= got["high"]), alarms


def test_law_chance_of_alarms(): law_chance_of_alarms(alarm_facts)


def test_law_chance_of_alarms_catches_a_rate_taken_as_known():
    def known_rate(alarms, m, n, fpr):
        tail = binom.sf(alarms - 1, n, fpr) if alarms > n * fpr else binom.cdf(alarms, n, fpr)
        return alarm_facts(alarms, m, n, fpr) | {"chance": tail, "expected": n * fpr}
    with pytest.raises(AssertionError): law_chance_of_alarms(known_rate)


def test_law_chance_of_alarms_catches_a_tail_without_the_alarms_found():
    def strictly_more(alarms, m, n, fpr): return alarm_facts(min(alarms + 1, n), m, n, fpr) | {"alarms": alarms}
    with pytest.raises(AssertionError): law_chance_of_alarms(strictly_more)


def test_the_alarms_of_one_in_two():  # one calibration record, one test record: either may be larger
    assert alarm_facts(1, 1, 1, 0.5)["chance"] == pytest.approx(0.5)


# --- the record -----------------------------------------------------------------------------------------------

KEYS = {"auroc", "average_precision", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001", "macro_auroc", "min_auroc", "per_class", "threshold",
        "realised_fpr", "precision", "recall", "f1", "accuracy", "n_test_benign", "n_test_attack"}


def law_evaluation(evaluate, attack, scores, calibration):
    "All keys that score.json promises, finite, flat but for `per_class`, and consistent with the single functions."
    result = evaluate(attack, scores, calibration, 0.05)
    assert KEYS <= set(result) and json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(isinstance(value, (int, float)) and np.isfinite(value) for key, value in result.items() if key != "per_class")
    assert set(result["per_class"]) == set(attack) - {"benign"} and all({"auroc", "n"} <= set(row) for row in result["per_class"].values())
    aurocs = [row["auroc"] for row in result["per_class"].values()]
    assert result["macro_auroc"] == pytest.approx(np.mean(aurocs)) and result["min_auroc"] == min(aurocs)
    y = (attack != "benign").astype(int)
    assert result["threshold"] == threshold_at_fpr(calibration, 0.05) and result["auroc"] == ranking_metrics(y, scores)["auroc"]
    assert result["realised_fpr"] == np.mean(scores[y == 0] > result["threshold"]) and result["promised_fpr"] == 0.05
    assert (result["n_test_benign"], result["n_test_attack"], result["n_calibration"]) == ((y == 0).sum(), y.sum(), len(calibration))
    assert result["oracle_threshold"] == threshold_youden(y, scores) and result["auroc_low"] <= result["auroc"] <= result["auroc_high"]
    assert all(isinstance(row["n"], int) for row in result["per_class"].values())


@pytest.mark.parametrize("seed", range(3))
def test_law_evaluation(seed): law_evaluation(evaluate, *many_classes(seed=seed), np.random.default_rng(seed).normal(size=150))


def test_law_evaluation_of_huge_and_equal_scores():
    attack, scores = many_classes()
    calibration = np.random.default_rng(0).normal(size=20)
    law_evaluation(evaluate, attack, np.where(scores > 1, 3.4e38, scores), calibration)
    law_evaluation(evaluate, attack, 0 * scores, 0 * calibration)


def test_law_evaluation_catches_a_threshold_from_the_test_records():
    attack, scores = many_classes()
    def peeking(attack, scores, calibration, fpr): return evaluate(attack, scores, scores[attack == "benign"], fpr)
    with pytest.raises(AssertionError): law_evaluation(peeking, attack, scores, np.random.default_rng(0).normal(size=150))


# --- bad input ----------------------------------------------------------------------------------------------

Y, S = labelled(40)
ATTACK = np.where(Y == 1, "scan", "benign")
NAN, SHORT, EMPTY = np.where(np.arange(40) == 3, np.nan, S), S[:-1], S[:0]
BAD = {
    "fpr of 0": (lambda: threshold_at_fpr(S, 0), "fpr"), "fpr of 1": (lambda: threshold_at_fpr(S, 1.0), "fpr"),
    "fpr NaN": (lambda: threshold_at_fpr(S, float("nan")), "fpr"), "band at fpr 0": (lambda: fpr_band(100, 100, 0), "fpr"),
    "evaluate at fpr 2": (lambda: evaluate(ATTACK, S, S, 2), "fpr"), "alarms at fpr 1": (lambda: alarm_facts(3, 10, 10, 1.0), "fpr"),
    "band of no calibration records": (lambda: fpr_band(0, 10), "m"), "band of no test records": (lambda: fpr_band(10, 0), "n"),
    "confidence of a band": (lambda: fpr_band(10, 10, 0.1, 1.5), "confidence"),
    "threshold of NaN": (lambda: threshold_at_fpr(NAN), "scores"), "threshold of nothing": (lambda: threshold_at_fpr(EMPTY), "scores"),
    "threshold of a table": (lambda: threshold_at_fpr(S.reshape(8, 5)), "scores"),
    "p-values of NaN": (lambda: conformal_p_values(NAN, S), "scores"),
    "p-values from NaN": (lambda: conformal_p_values(S, NAN), "calibration"),
    "p-values from nothing": (lambda: conformal_p_values(S, EMPTY), "calibration"),
    "evaluate lengths": (lambda: evaluate(ATTACK, SHORT, S), "scores"), "evaluate NaN": (lambda: evaluate(ATTACK, NAN, S), "scores"),
    "evaluate without calibration": (lambda: evaluate(ATTACK, S, EMPTY), "calibration"),
    "evaluate calibration NaN": (lambda: evaluate(ATTACK, S, NAN), "calibration"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_named(kind): refuses(*BAD[kind])
