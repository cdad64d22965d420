"""Laws of nfad.reweight: labels lift, never push down, and what is not labelled stays."""
import numpy as np
import pytest

from nfad.evidence import View
from nfad.reweight import Reweighted, joined, tie_break
from test_evidence import D, evidence, view


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


def test_reweighting_reads_only_chosen_columns():
    model = Reweighted([1, 4], n_trees=10).fit(view(10, [1, 4]), evidence(300, seed=1), view(200, seed=2), view(200, seed=3))
    v = view(50, [1, 7], seed=4)
    other = View(v.values.copy(), v.evidence.copy(), v.score)
    for part in other[:2]: part[:, [0, 2, 3, *range(5, D)]] = -77
    assert np.array_equal(model.anomaly_score(v), model.anomaly_score(other))


def law_tie_break(trace):
    "In the order of the scores, and less than what two neighboring p-values differ by."
    scores = np.sort(np.r_[-1e38, np.random.default_rng(0).normal(size=50) * 1e3, 0, 1e38])
    assert (np.diff(trace(scores)) > 0).all() and np.abs(trace(scores)).max() < 0.1


def test_law_tie_break(): law_tie_break(tie_break)


def test_law_tie_break_catches_the_score_itself():
    with pytest.raises(AssertionError): law_tie_break(lambda scores: 1e-3 * scores)


@pytest.mark.parametrize("call, match", [(lambda: Reweighted([]), "chosen"), (lambda: Reweighted([1], n_trees=0), "n_trees")])
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match): call()
