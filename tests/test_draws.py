"""Laws of drawing parts in whole units, each with a broken twin that must fail; sizes; classes in equal shares."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfad.draws import _PRESETS, account_for, draw_rows, fit_sizes, later_days, part_sizes, pick_labelled, stratified_units, take_units

few = settings(max_examples=150, deadline=None, derandomize=True, database=None)


# ---------------------------------------------------------------- whole units

def law_whole_units(take, units, counts, seed):
    "Parts have the sizes asked for, are disjoint, share no unit, and what is left holds whole untouched units."
    rows = np.arange(len(units))
    parts, rest = take(rows, units, np.random.default_rng(seed), counts)
    again, _ = take(rows, units, np.random.default_rng(seed), counts)
    assert {part: len(found) for part, found in parts.items()} == counts, "sizes"
    drawn = np.concatenate([*parts.values(), rest])
    assert len(np.unique(drawn)) == len(drawn), "a row is drawn twice"
    held = [set(units[found]) for found in (*parts.values(), rest)]
    assert not any(one & other for i, one in enumerate(held) for other in held[:i]), "a unit is in two parts"
    assert set(np.flatnonzero(np.isin(units, units[rest]))) == set(rest), "what is left is torn"
    assert all(np.array_equal(parts[part], again[part]) for part in parts), "same seed, other rows"


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.integers(0, 9), st.integers(0, 9), st.integers(0, 5))
@few
def test_law_whole_units(units, first, second, seed):
    try: law_whole_units(take_units, np.array(units), {"train": first, "calibration": second}, seed)
    except ValueError as error: assert "benign rows" in str(error)  # too few is an answer


def torn(rows, units, rng, counts):
    "Broken twin: cuts anywhere."
    order, parts, start = rng.permutation(rows), {}, 0
    for part, count in counts.items():
        parts[part] = order[start:start + count]
        start += count
    return parts, order[start:]


def overlapping(rows, units, rng, counts):
    "Broken twin: starts each part anew."
    order = rng.permutation(rows)
    return {part: order[:count] for part, count in counts.items()}, order[:0]


@pytest.mark.parametrize("broken, message", [(torn, "unit is in two parts"), (overlapping, "drawn twice")])
def test_law_whole_units_catches(broken, message):
    units = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    with pytest.raises(AssertionError, match=message): law_whole_units(broken, units, {"train": 4, "calibration": 2}, 0)


def law_units_are_as_likely(take, n_single=80, size=20, n_draws=400):
    "A large unit is in training as often as its share of the rows, and nothing is lost."
    units = np.r_[np.zeros(size, int), np.arange(1, n_single + 1)]
    drawn = [take(np.arange(len(units)), units, np.random.default_rng(seed), {"train": 40}) for seed in range(n_draws)]
    there = np.mean([0 in units[parts["train"]] for parts, _ in drawn])
    assert abs(there - 0.4) < 5 * np.sqrt(0.4 * 0.6 / n_draws), "large units first"
    assert all(len(parts["train"]) + len(rest) == len(units) for parts, rest in drawn), "rows are lost"


def by_shuffled_rows(rows, units, rng, counts):
    "Broken twin: a unit stands where the first of its shuffled rows does."
    order = rng.permutation(rows)
    order = order[np.argsort(pd.factorize(units[order])[0], kind="stable")]
    return {"train": order[:counts["train"]]}, order[counts["train"]:]


def by_shuffled_units(rows, units, rng, counts):
    "Broken twin: one unit after the other in random order; where a part ends, the rest of a unit is lost."
    order = rows[np.argsort(rng.permutation(units.max() + 1)[units[rows]], kind="stable")]
    train, rest = order[:counts["train"]], order[counts["train"]:]
    return {"train": train}, rest[~np.isin(units[rest], units[train])]


def test_law_units_are_as_likely(): law_units_are_as_likely(take_units)


@pytest.mark.parametrize("broken", [by_shuffled_rows, by_shuffled_units])
def test_law_units_are_as_likely_catches(broken):
    with pytest.raises(AssertionError, match="large units first|rows are lost"): law_units_are_as_likely(broken)


def test_a_unit_larger_than_any_part_is_left_for_the_test_while_others_do():
    units = np.r_[np.zeros(50, int), np.arange(1, 51)]
    parts, rest = take_units(np.arange(100), units, np.random.default_rng(0), {"train": 30, "calibration": 15})
    assert 0 not in units[parts["train"]] and 0 not in units[parts["calibration"]] and len(rest) == 55
    parts, rest = take_units(np.arange(100), units, np.random.default_rng(0), {"train": 45, "calibration": 15})
    assert [len(parts[name]) for name in parts] == [45, 15] and len(rest) == 0  # one had to be cut: 40 rows belong nowhere


def test_single_rows_are_drawn_as_they_are_shuffled():
    parts, rest = take_units(np.arange(9), np.arange(9), np.random.default_rng(3), {"train": 4})
    assert np.array_equal(np.r_[parts["train"], rest], np.random.default_rng(3).permutation(9))


def test_labelled_rows_are_apart_from_benign_ones():
    units, attacks = np.array([0, 0, 1, 2, 2, 2, 3]), np.array([1, 2, 3, 4, 5, 6])
    linked = units[:1]
    for n_rows in range(6):
        picked = pick_labelled(attacks, units, linked, np.random.default_rng(n_rows), n_rows)
        assert len(set(picked)) == n_rows and not np.isin(units[picked], linked).any()
    with pytest.raises(ValueError, match="at most 5"): pick_labelled(attacks, units, linked, np.random.default_rng(0), 6)


def test_rest_and_cap():
    rng = np.random.default_rng(0)
    assert len(draw_rows(np.arange(60_000), -1, "test", rng)) == 50_000 and len(draw_rows(np.arange(60_000), 60_000, "test", rng)) == 60_000


# ---------------------------------------------------------------- sizes

def test_sizes():
    assert part_sizes(None, 100_000, 9) == {"train": 5_000, "reference": 5_000, "calibration": 10_000, "test": -1, "attack": -1}
    assert part_sizes({"train": 0.9}, 100_000, 9)["train"] == 90_000, "a size that is given has no cap"
    assert part_sizes("paper", 9, 9) == _PRESETS["paper"] and part_sizes({"labelled": 7}, 100, 9)["labelled"] == 7
    assert part_sizes({"test": 1.0, "attack": 0.5}, 100, 9)["attack"] == 4


@pytest.mark.parametrize("sizes, message", [
    ("papers", "did you mean 'paper'"), ({"trian": 5}, "did you mean 'train'"), ({"train": -1}, "count >= 0 or a share"),
    ({"train": 1.5}, "count >= 0"), ({"train": True}, "count >= 0"), ({"train": "5"}, "count >= 0"), ({"train": 0.001}, "is no row")])
def test_bad_sizes(sizes, message):
    with pytest.raises(ValueError, match=message): part_sizes(sizes, 100, 9)


def test_days():
    day = np.array(["", "d1", "d1", "d2", "d2", "d3"])
    counts = {"train": 2, "reference": 0, "calibration": 1, "test": 2, "attack": -1}
    assert later_days(day, np.arange(6), counts).tolist() == [False] * 5 + [True]
    assert fit_sizes(counts, 9) == counts
    assert fit_sizes(counts, 1) == {"train": 0, "reference": 0, "calibration": 0, "test": 2, "attack": -1}
    for days in (None, np.array([""] * 6), np.array(["d1"] * 6)):
        with pytest.raises(ValueError, match="needs"): later_days(days, np.arange(6), counts)


# ---------------------------------------------------------------- class by class

def law_stratified(cut, y, ids, shares, seed):
    "All rows once, equal ids in one part, shares of each class kept up to one unit."
    parts = cut(y, ids, shares, seed)
    assert sorted(np.concatenate(parts)) == list(range(len(y))), "rows are lost or doubled"
    held = [set(ids[part]) for part in parts]
    assert not any(one & other for i, one in enumerate(held) for other in held[:i]), "equal records are torn apart"
    if len(set(ids)) == len(ids):
        for name in set(y):
            found = [np.sum(y[part] == name) for part in parts]
            assert np.abs(np.array(found) - np.array(shares) * np.sum(y == name)).max() <= 1, "shares"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 15)), min_size=1, max_size=60), st.integers(0, 5), st.booleans())
@few
def test_law_stratified(rows, seed, distinct):
    y, ids = np.array([name for name, _ in rows]), np.array([number for _, number in rows])
    law_stratified(stratified_units, y, np.arange(len(y)) if distinct else ids, (0.5, 0.2, 0.3), seed)


def test_law_stratified_catches():
    y, ids = np.repeat(["a", "b"], 20), np.tile(np.arange(20), 2)
    blind = lambda y, ids, *options: stratified_units(y, np.arange(len(y)), *options)
    halved = lambda *options: [np.arange(20), np.arange(20, 40)]
    with pytest.raises(AssertionError, match="torn"): law_stratified(blind, y, ids, (0.5, 0.5), 0)
    with pytest.raises(AssertionError, match="lost"): law_stratified(lambda *a: stratified_units(*a)[:1], y, ids, (0.5, 0.5), 0)
    with pytest.raises(AssertionError, match="shares"): law_stratified(halved, y, np.arange(40), (0.5, 0.5), 0)


# ---------------------------------------------------------------- where every row is

def law_account(account, parts, is_attack, units):
    "Counts add up to all rows, and a tied row is a benign one whose unit holds an attack."
    report = account(parts, is_attack, units)
    assert sum(n for name, n in report.items() if name not in ("units", "benign tied to an attack")) == len(is_attack), "rows are lost"
    tied = [not attack and any(units[j] == unit and is_attack[j] for j in range(len(units))) for attack, unit in zip(is_attack, units, strict=True)]
    assert report["benign tied to an attack"] == sum(tied) and report["units"] == len(set(units))


def accounted(seed):
    rng = np.random.default_rng(seed)
    is_attack, units = rng.random(30) < 0.3, np.unique(rng.integers(0, 20, 30), return_inverse=True)[1]
    benign, attacks = np.flatnonzero(~is_attack), np.flatnonzero(is_attack)
    test = np.concatenate([benign[9:12], attacks[2:]])
    return {"train": benign[:4], "reference": benign[4:6], "calibration": benign[6:9], "test": test, "labelled": attacks[:1]}, is_attack, units


@pytest.mark.parametrize("seed", range(5))
def test_law_account(seed): law_account(account_for, *accounted(seed))


def test_law_account_catches_ties_of_tested_attacks_only():
    def tested_only(parts, is_attack, units):
        tested = units[parts["test"]][is_attack[parts["test"]]]
        return account_for(parts, is_attack, units) | {"benign tied to an attack": int(np.isin(units[~is_attack], tested).sum())}
    with pytest.raises(AssertionError):
        for seed in range(20): law_account(tested_only, *accounted(seed))
