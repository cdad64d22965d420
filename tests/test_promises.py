"""Laws of nfad.promises: confidence, groups, batches, tails."""
import numpy as np
import pytest

from nfad.promises import flag_batch, mondrian_p_values, threshold_by_tail, threshold_with_confidence
from nfad.score import conformal_p_values, threshold_at_fpr


def law_confidence(threshold, m=400, fpr=0.02, confidence=0.9):
    "The true rate of the threshold is above `fpr` in at most 1 - confidence of the draws, and is not far below it."
    rng = np.random.default_rng(0)
    true = np.array([1 - threshold(rng.uniform(size=m), fpr, confidence) for _ in range(1500)])
    assert np.mean(true > fpr) <= 1 - confidence + 0.02 and true.mean() > fpr / 3


def test_law_confidence(): law_confidence(threshold_with_confidence)


@pytest.mark.parametrize("wrong", [lambda s, fpr, confidence: threshold_at_fpr(s, fpr), lambda s, fpr, confidence: s.max()])
def test_law_confidence_catches(wrong):
    with pytest.raises(AssertionError): law_confidence(wrong)


@pytest.mark.parametrize("fpr, m", [(0.01, 299), (0.05, 59), (0.001, 2995)])
def test_how_many_records_confidence_needs(fpr, m):
    assert threshold_with_confidence(np.arange(float(m)), fpr) == m - 1
    with pytest.raises(ValueError, match=f"at least {m}"): threshold_with_confidence(np.arange(m - 1.0), fpr)


def law_within_groups(p_values):
    "Within every group, large or small, benign records have p <= 0.1 in about a tenth of the draws."
    rng, small = np.random.default_rng(0), []
    for _ in range(60):
        groups, known = (rng.choice(["a", "b", "c", "d"], p=[0.5, 0.44, 0.03, 0.03], size=n) for n in (800, 800))
        spread = {"a": 1, "b": 20, "c": 5, "d": 5}
        scores, calibration = (rng.normal(size=800) * [spread[g] for g in which] for which in (groups, known))
        p = p_values(scores, groups, calibration, known)
        small.append([np.mean(p[np.isin(groups, g)] <= 0.1) for g in (["a"], ["b"], ["c", "d"])])
    assert np.allclose(np.mean(small, axis=0), 0.1, atol=0.025)


def test_law_within_groups(): law_within_groups(lambda *a: mondrian_p_values(*a, minimum=40))


def test_law_within_groups_catches_a_common_calibration():
    def together(scores, groups, calibration, known): return conformal_p_values(scores, calibration)
    with pytest.raises(AssertionError): law_within_groups(together)


def test_groups_never_seen_use_all_records():
    p = mondrian_p_values(np.array([5.0]), np.array(["new"]), np.arange(100.0), np.repeat(["a", "b"], 50))
    assert p == conformal_p_values(np.array([5.0]), np.arange(100.0))


def law_false_discoveries(flag):
    "The mean share of benign records among the flagged is at most a tenth, and most attacks are flagged."
    rng, wrong, found = np.random.default_rng(0), [], []
    for _ in range(200):
        p = conformal_p_values(np.concatenate([rng.normal(size=180), rng.normal(5, 1, size=20)]), rng.normal(size=3000))
        flagged = flag(p, 0.1)
        wrong.append(flagged[:180].sum() / max(flagged.sum(), 1)), found.append(flagged[180:].mean())
    assert np.mean(wrong) <= 0.105 and np.mean(found) > 0.5


def test_law_false_discoveries(): law_false_discoveries(flag_batch)


def test_law_false_discoveries_catches_plain_p_values():
    with pytest.raises(AssertionError): law_false_discoveries(lambda p, fdr: p <= fdr)


def test_tail_threshold_joins_the_empirical_one():
    scores = np.random.default_rng(0).exponential(size=500)
    assert threshold_by_tail(scores, 0.01) == threshold_at_fpr(scores, 0.01)
    rare = [threshold_by_tail(scores, 10.0 ** -k) for k in range(2, 9)]
    assert (np.diff(rare) > 0).all() and rare[1] >= scores.max()
