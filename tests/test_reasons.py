"""Laws of nfad.reasons: who is accused, typical ranges, counterfactuals, the table of alerts."""
import numpy as np
import pandas as pd
import pytest

from dependent import dependent_records, surprises
from nfad.explain import occlusion, plant
from nfad.reasons import Counterfactual, accused, counterfactual, explain_records, typical_ranges
from nfad.shapley import Background, shapley_values


@pytest.fixture(scope="module")
def benign() -> pd.DataFrame: return dependent_records()


@pytest.fixture(scope="module")
def background(benign) -> Background:
    terms = surprises(benign)
    return Background(lambda X: terms(X).sum(axis=1), benign)


# --- counterfactuals ------------------------------------------------------------------------------------------

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


# --- ranges and accused -----------------------------------------------------------------------------------------

def test_typical_ranges_look_at_the_rest(background, benign):
    x = benign.to_numpy()[0].copy()
    x[1] = benign["b"].max() * 10
    low, high = typical_ranges(background, x, np.arange(7) == 1)[1]
    assert low < benign["b"].iloc[0] * 1.5 and high < x[1] and high - low < np.ptp(benign["b"]) / 2


def test_accused_are_few():
    assert accused(np.array([5.0, 1, 0, -9])).tolist() == [True, False, False, False]
    assert accused(np.ones(20)).sum() == 5 and not accused(-np.ones(4)).any()
    assert accused(np.array([1.0, 4.0])).tolist() == [False, True]


# --- the table --------------------------------------------------------------------------------------------------

def law_table(frame, told, n, d):
    "A row for each alert and feature, largest first, that adds up to the score; alerts by score."
    assert len(frame) == n * d and frame["alert"].tolist() == np.repeat(np.arange(1, n + 1), d).tolist()
    alerts = frame.groupby("alert")
    total = alerts["attribution"].sum() + alerts["base_value"].first()
    assert np.allclose(total, alerts["anomaly_score"].first())
    assert (np.diff(alerts["anomaly_score"].first()) <= 0).all()
    for i, (_, rows) in enumerate(alerts):
        assert rows["rank"].tolist() == list(range(1, d + 1)) and (np.diff(rows["attribution"].abs()) <= 0).all()
        assert rows.set_index("feature")["attribution"][told.names].tolist() == told.values[i].tolist()


@pytest.fixture(scope="module")
def explained(background, benign):
    strange = plant(benign[:10], benign, "global", 2, size=3).records
    return explain_records(background, strange, background.scores, 0.05, 3)


def test_law_table(explained): law_table(explained.frame, explained.attributions, 3, 7)


def test_law_table_catches_mixed_alerts(explained):
    mixed = explained.frame.assign(alert=explained.frame["alert"].to_numpy()[::-1])
    with pytest.raises(AssertionError): law_table(mixed, explained.attributions, 3, 7)


def test_columns_may_stand_in_any_order(background, benign):
    one, other = (explain_records(background, benign[:20][names], background.scores, n_alerts=2, seed=1).frame
                  for names in (list("abcdefg"), list("gfedcba")))
    pd.testing.assert_frame_equal(one, other)


def test_same_values_as_the_engine(explained, background):
    told = shapley_values(background, explained.records)
    assert np.array_equal(told.values, explained.attributions.values)


def test_bad_input_is_named(background, benign):
    with pytest.raises(ValueError, match="calibration"): explain_records(background, benign[:1], np.array([]))
    with pytest.raises(TypeError, match="shapley_values for groups"):
        explain_records(background, benign[:1], background.scores, groups="group")
    with pytest.raises(ValueError, match="at most 200 records, got 400"):
        explain_records(background, benign[:1], background.scores, game="marginal")
    with pytest.raises(KeyError, match="lack"): explain_records(background, benign[["a"]], background.scores)
    with pytest.raises(ValueError, match="n_alerts"): explain_records(background, benign, background.scores, n_alerts=0)
