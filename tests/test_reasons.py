"""Laws of nfad.reasons: who is accused, typical ranges, the table of alerts."""
import numpy as np
import pandas as pd
import pytest

from dependent import background, benign
from nfad.explain import plant
from nfad.reasons import accused, explain_records, typical_ranges
from nfad.shapley import Background, shapley_values


# --- ranges and accused -----------------------------------------------------------------------------------------

def test_typical_ranges_look_at_the_rest(background, benign):
    x = benign.to_numpy()[0].copy()
    x[1] = benign["b"].max() * 10
    low, high = typical_ranges(background, x, np.arange(7) == 1)[1]
    assert low < benign["b"].iloc[0] * 1.5 and high < x[1] and high - low < np.ptp(benign["b"]) / 2


def law_equally_near(ranges, d=3):
    "Equally near records all count, in whatever order: by hand, with every other feature accused, constant or out of reach."
    X = np.random.default_rng(0).lognormal(size=(400, d))
    X[:, 2] = 1.0                                   # varies for nobody
    x = np.array([1e9, 1.0, 1.0])                   # its first feature is equally far from all
    for j, suspects in ((0, [False, True, False]), (1, [False, False, False]), (2, [True, True, False])):
        for sign in (1, -1):                        # the background is sorted by score
            found = ranges(Background(lambda A: sign * A[:, j], X), x, np.array(suspects))[j]
            assert np.array_equal(found, np.quantile(X[:, j], [0.05, 0.95], method="nearest"))


def first_rows(background, x, suspects, n=50):
    "As typical_ranges, with the first of the equally near records."
    gaps = background.gaps(x)
    distances = gaps[:, ~suspects].sum(axis=1)[:, None] - np.where(suspects, 0, gaps)
    rows = np.argpartition(distances, n - 1, axis=0)[:n]
    return np.quantile(np.take_along_axis(background.records, rows, axis=0), [0.05, 0.95], axis=0, method="nearest").T


def test_law_equally_near(): law_equally_near(typical_ranges)


def test_law_equally_near_catches_the_first_rows():
    with pytest.raises(AssertionError): law_equally_near(first_rows)


def test_typical_ranges_of_one_feature():
    b = Background(lambda A: A[:, 0], np.arange(1.0, 102)[:, None])
    assert typical_ranges(b, np.array([7.0]), np.array([False])).tolist() == [[6, 96]]


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


def test_a_threshold_comes_before_a_rate(background, benign):
    middle = float(np.median(background.scores))
    told = explain_records(background, benign[:8], background.scores, 0.05, threshold=middle)
    assert told.threshold == middle and (told.frame["is_anomaly"] == (told.frame["anomaly_score"] > middle)).all()
    assert 0 < told.frame["is_anomaly"].mean() and told.frame["counterfactual_score"].max() <= middle


def test_bad_input_is_named(background, benign):
    with pytest.raises(ValueError, match="calibration"): explain_records(background, benign[:1], np.array([]))
    with pytest.raises(TypeError, match="shapley_values for groups"):
        explain_records(background, benign[:1], background.scores, groups="group")
    with pytest.raises(ValueError, match="at most 200 records, got 400"):
        explain_records(background, benign[:1], background.scores, game="marginal")
    with pytest.raises(KeyError, match="lack"): explain_records(background, benign[["a"]], background.scores)
    with pytest.raises(ValueError, match="n_alerts"): explain_records(background, benign, background.scores, n_alerts=0)
