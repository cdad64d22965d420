"Laws of 08c_protocols and 08d_thresholds: each choice changes what it says, and rules of decision look at what they say."
import numpy as np
import pandas as pd
import pytest

from nfad.data import load_dataset
from nfad.protocols import CHOICES, PUBLISHED_RANKING, Protocol, beside_published, draw_by_place, rank_agreement
from nfad.thresholds import four_rules

DEMO = load_dataset("demo")


def test_classes_are_drawn_equally_and_by_the_middle_of_their_file():
    labels = np.repeat(["a", "b", "c"], [4000, 2000, 30])
    rows = draw_by_place(labels, 500, seed=3)
    counts = pd.Series(labels[rows]).value_counts()
    assert counts.to_dict() == {"a": 500, "b": 500, "c": 30} and len(np.unique(rows)) == len(rows)
    place = rows[labels[rows] == "a"] / 4000
    assert abs(place.mean() - 0.5) < 0.03 and 0.17 < place.std() < 0.23  # an even draw: 0.289
    assert (draw_by_place(labels, 500, seed=3) == rows).all() and (draw_by_place(labels, 500, seed=4) != rows).any()


@pytest.mark.parametrize("name, protocol", CHOICES.items())
def test_parts_hold_what_their_protocol_says(name, protocol):
    rows = protocol.rows_of(DEMO, min_rows=100, seed=1)
    fitted, half, test = protocol.deal(rows, seed=1)
    assert not set(fitted) & set(test) and not set(fitted) & set(half)
    assert (set(half) <= set(test)) is protocol.inside
    assert set(fitted) | set(half) | set(test) == set(range(len(rows.labels)))
    counts = pd.Series(rows.labels).value_counts()
    assert (counts.nunique() == 1) is protocol.equal


def test_copies_count_and_stay_together_where_asked():
    X = pd.DataFrame({"x": np.arange(400.0), "y": 0.0})
    data = type("Data", (), {"attack": np.repeat(["benign", "a"], 200), "copies": np.r_[np.full(200, 3), np.full(200, 2)], "records": X})
    assert len(Protocol(equal=False).rows_of(data, 10).labels) == 1000
    assert len(Protocol(equal=False, copies=False).rows_of(data, 10).labels) == 400
    def shared(protocol):
        rows = protocol.rows_of(data, 10)
        fitted, _, test = protocol.deal(rows)
        return set(rows.X["x"].iloc[fitted]) & set(rows.X["x"].iloc[test])
    assert shared(Protocol(equal=False)) and not shared(Protocol(equal=False, apart=True))


def test_small_classes_are_left_out_or_refused():
    assert len(np.unique(Protocol().rows_of(DEMO, min_rows=100).labels)) > 2
    with pytest.raises(ValueError, match="min_rows"): Protocol().rows_of(DEMO, min_rows=10**6)


def test_the_published_ranking_agrees_with_itself():
    sizes = pd.Series(PUBLISHED_RANKING)
    assert rank_agreement(beside_published(sizes)) == 1.0
    assert rank_agreement(beside_published(-sizes)) == -1.0
    assert np.isnan(rank_agreement(beside_published(sizes[:2])))


def scores(seed=0, n=3000, shift=2.0):
    rng = np.random.default_rng(seed)
    return np.repeat([0, 1], n), np.concatenate([rng.normal(0, 1, n), rng.normal(shift, 1, n)]), rng.normal(0, 1, n)


def test_rules_see_what_they_say():
    y, s, benign = scores()
    table = four_rules(y, s, benign)
    assert table.loc["always attack", ["found", "false alarms"]].tolist() == [1.0, 1.0]
    assert abs(table.loc["1 % of benign records", "false alarms"] - 0.01) < 0.01
    assert table["accuracy at 1:1"].idxmax() == "Youden's J, labels of the test"  # it was found on what is judged
    swapped = four_rules(1 - y, s, benign)
    same = swapped.loc["1 % of benign records"]
    assert np.isclose(same["found"], table.loc["1 % of benign records", "false alarms"])  # labels move nothing for it


def test_accuracy_follows_the_balance_and_its_share_does_not():
    y, s, benign = scores()
    few = np.r_[np.flatnonzero(y == 1), np.flatnonzero(y == 0)[:60]]
    rare = four_rules(y[few], s[few], benign)
    assert rare.loc["always attack", "accuracy"] > 0.97 and rare.loc["always attack", "accuracy at 1:1"] == 0.5
