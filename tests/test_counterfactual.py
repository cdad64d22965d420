"""Laws of nfad.counterfactual: normal at the threshold, and no change can be taken back."""
import numpy as np
import pytest

from dependent import background, benign
from nfad.counterfactual import Counterfactual, counterfactual
from nfad.explain import occlusion, plant
from nfad.shapley import Background


def law_counterfactual(find, b, benign):
    "Normal at the threshold, no change can be taken back, and benign records stay as they are."
    threshold = float(np.quantile(b.scores, 0.95))
    for x in [*plant(benign[:4], benign, "global", 2, size=4).records.to_numpy(), benign.to_numpy()[0]]:
        found = find(b, x, occlusion(b, x[None])[0], threshold)
        assert b.score_fn(found.record[None])[0] <= threshold
        assert np.array_equal(found.changed, found.record != x)
        for j in np.flatnonzero(found.changed):
            back = np.where(np.arange(len(x)) == j, x, found.record)
            assert b.score_fn(back[None])[0] > threshold


def test_law_counterfactual(background, benign): law_counterfactual(counterfactual, background, benign)


def test_law_counterfactual_catches_a_whole_other_record(background, benign):
    def other(b, x, values, threshold): return Counterfactual(b.records[0], b.records[0] != x, float(b.scores[0]))
    with pytest.raises(AssertionError): law_counterfactual(other, background, benign)


def test_a_threshold_below_all_is_named(background):
    with pytest.raises(ValueError, match="threshold must leave"):
        counterfactual(background, background.records[0], np.zeros(7), background.scores.min() - 1)


def test_equally_near_donors_are_the_most_ordinary():
    X = np.column_stack([np.linspace(1, 9, 81), np.ones(81)])
    for sign in (1, -1):
        b = Background(lambda A: sign * np.minimum(A[:, 0], 10) + 20 * (A[:, 0] > 10), X)
        found = counterfactual(b, np.array([1e6, 1.0]), np.array([1.0, 0.0]), threshold=float(b.scores[-1]))
        assert found.record[0] == (1 if sign > 0 else 9) and found.changed.tolist() == [True, False]
