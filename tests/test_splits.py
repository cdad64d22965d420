"""Laws of splitting, each with a broken twin that must fail; bad sizes; real data sets."""
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import needs_data
from nfad.catalog import DATASETS, list_datasets
from nfad.data import row_ids
from nfad.draws import split_units
from nfad.splits import Split, split_dataset
from samples import demo, made, real


def law_split(split, dataset, **options):
    "Disjoint parts, benign where promised, no copy of a test or labelled row among the learnt ones, reproducible."
    s, again = split(dataset, **options), split(dataset, **options)
    parts = {p: getattr(s, p) for p in ("train", "reference", "calibration", "test", "labelled")}
    rows = np.concatenate(list(parts.values()))
    assert len(rows) == len(np.unique(rows)), "a row is in two parts"
    ids = row_ids(dataset.records)
    learnt = np.concatenate([parts["train"], parts["reference"], parts["calibration"]])
    assert not dataset.is_attack[learnt].any(), "an attack is learnt"
    assert dataset.is_attack[parts["labelled"]].all(), "a benign row is in the labelled pool"
    assert not np.isin(ids[learnt], ids[parts["test"]]).any(), "a copy of a test row is learnt"
    assert not np.isin(ids[parts["labelled"]], ids[parts["test"]]).any(), "a copy of a test row is labelled"
    for p in parts: assert np.array_equal(parts[p], getattr(again, p)), "same seed, other rows"
    assert s.report["train"] == len(s.train) and s.report["test attack"] == dataset.is_attack[s.test].sum()
    counted = [k for k in s.report if k not in ("units", "benign tied to an attack")]
    assert sum(s.report[k] for k in counted) == len(dataset), "the report loses rows"


def law_no_conversation_in_two_parts(split, dataset, **options):
    s = split(dataset, **options)
    seen = [set(dataset.groups[getattr(s, p)]) - {""} for p in ("train", "reference", "calibration", "test", "labelled")]
    for i, one in enumerate(seen):
        for other in seen[i + 1:]: assert not one & other, "a conversation is in two parts"


def law_test_is_later(split, dataset, **options):
    s = split(dataset, **options)
    benign_test = s.test[~dataset.is_attack[s.test]]
    learnt = np.concatenate([s.train, s.reference, s.calibration])
    assert max(set(dataset.day[learnt])) < min(set(dataset.day[benign_test])), "the test is not later than the training"


def by_row(dataset, method="random", *, n_labelled=0, seed=0, **_):
    "Broken twin: shuffles rows, so that copies are torn apart."
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~dataset.is_attack))
    cut = len(order) // 2
    attacks = np.flatnonzero(dataset.is_attack)
    report = {"train": cut, "test benign": len(order) - cut, "test attack": len(attacks) - n_labelled, "labelled": n_labelled}
    return Split(order[:cut], order[:0], order[:0], np.concatenate([order[cut:], attacks[n_labelled:]]), attacks[:n_labelled],
                      "random", seed, report)


TWINS = made([1, 2, 3, 4, 5, 6, 7, 8] * 2 + [1, 2, 30, 30, 31, 32], [False] * 16 + [True] * 6,
             groups=list("aabbccddeeffgghhijklmn"), day=["d1"] * 8 + ["d2"] * 8 + ["d1"] * 6)


@pytest.mark.parametrize("method", ["random", "grouped", "temporal"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_law_split_on_demo(demo, method, seed):
    law_split(split_dataset, demo, method=method, n_labelled=15, seed=seed)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.sampled_from("abcdef"), st.sampled_from(["d1", "d2", "d3"])),
                min_size=12, max_size=60), st.sampled_from(["random", "grouped", "temporal"]), st.integers(0, 5), st.integers(0, 3))
def test_law_split_on_any_data(rows, method, seed, n_labelled):
    dataset = made(*[list(column) for column in zip(*rows)][:2], *[list(column) for column in zip(*rows)][2:])
    options = {"method": method, "seed": seed, "sizes": {"train": 2, "reference": 0, "calibration": 1}}
    try: law_split(split_dataset, dataset, n_labelled=n_labelled, **options)
    except ValueError: return  # too few rows is an answer
    if method == "grouped": law_no_conversation_in_two_parts(split_dataset, dataset, **options)


def test_law_split_catches_copies(): 
    with pytest.raises(AssertionError, match="copy of a test row is learnt"): law_split(by_row, TWINS)


def test_law_split_catches_labelled_copies():
    dataset = made([1, 2, 3, 4, 30, 30], [False] * 4 + [True] * 2)
    with pytest.raises(AssertionError, match="labelled"): law_split(by_row, dataset, n_labelled=1)


def test_law_split_catches_overlap():
    broken = lambda d, **o: dataclasses.replace(split_dataset(d, **o), reference=split_dataset(d, **o).train[:1])
    dataset = made(np.arange(40), np.arange(40) >= 30)
    with pytest.raises(AssertionError, match="two parts"): law_split(broken, dataset)


def test_law_split_catches_a_forgotten_seed():
    counter = iter(range(99))
    broken = lambda d, **o: split_dataset(d, seed=next(counter), **o)
    dataset = made(np.arange(40), np.arange(40) >= 30)
    with pytest.raises(AssertionError, match="same seed"): law_split(broken, dataset)


def test_law_grouped(demo):
    law_no_conversation_in_two_parts(split_dataset, demo, method="grouped", n_labelled=15)
    with pytest.raises(AssertionError): law_no_conversation_in_two_parts(split_dataset, demo, method="random")


def test_law_temporal(demo):
    law_test_is_later(split_dataset, demo, method="temporal")
    with pytest.raises(AssertionError): law_test_is_later(split_dataset, demo, method="random")


def test_units_join_vectors_and_conversations():
    units = split_units(np.array([7, 7, 8, 9, 5]), np.array(["a", "b", "b", "", ""]))
    assert units[0] == units[1] == units[2] and len({units[2], units[3], units[4]}) == 3


def test_default_sizes_on_demo(demo):
    s, n = split_dataset(demo), int((~demo.is_attack).sum())
    assert len(s.train) == min(5000, int(0.6 * n)) and len(s.reference) == int(0.1 * n) and len(s.calibration) == int(0.15 * n)
    assert s.report["unused benign"] == s.report["unused attack"] == 0


def test_sizes_as_counts_shares_and_preset():
    dataset = made(np.arange(20_000), np.arange(20_000) >= 13_000)
    s = split_dataset(dataset, sizes={"train": 100, "reference": 0.5, "calibration": 0, "test": 50, "attack": 0.1})
    assert [len(s.train), len(s.reference), len(s.calibration)] == [100, 6500, 0]
    assert s.report["test benign"] == 50 and s.report["test attack"] == 700
    assert len(split_dataset(dataset, sizes={"labelled": 7}).labelled) == 7
    s = split_dataset(dataset, sizes="paper")
    assert [len(s.train), len(s.calibration), len(s.labelled), len(s.test)] == [5000, 1000, 1000, 10_000]


def test_the_pool_does_not_move_the_benign_parts(demo):
    assert np.array_equal(split_dataset(demo, n_labelled=0).train, split_dataset(demo, n_labelled=50).train)


@pytest.mark.parametrize("options, message", [
    ({"method": "stratified"}, "method must be one of"),
    ({"sizes": {"train": 5_000}}, "train needs 5,000"),
    ({"sizes": "paper"}, "train needs 5,000"),
    ({"sizes": "papers"}, "did you mean 'paper'"),
    ({"sizes": {"trian": 5}}, "did you mean 'train'"),
    ({"sizes": {"train": -1}}, "count >= 0 or a share"),
    ({"sizes": {"train": 1.5}}, "count >= 0 or a share"),
    ({"sizes": {"test": 40}}, "test needs 40"),
    ({"sizes": {"attack": 40}}, "attack needs 40"),
    ({"n_labelled": 11}, "n_labelled must be at most 10"),
    ({"method": "grouped"}, "needs conversations"),
    ({"method": "temporal"}, "needs days"),
])
def test_split_refuses(options, message):
    with pytest.raises(ValueError, match=message): split_dataset(made(np.arange(40), np.arange(40) >= 30), **options)


def test_split_refuses_tiny_and_one_day():
    with pytest.raises(ValueError, match="is no row"): split_dataset(made([1, 2, 3], [False, False, True]))
    dataset = made(np.arange(40), np.arange(40) >= 30, day=["2017-07-03"] * 40)
    with pytest.raises(ValueError, match="2 days or more"): split_dataset(dataset, "temporal")


# ---------------------------------------------------------------- real data

@needs_data
@pytest.mark.parametrize("name", [name for name in DATASETS if name != "demo"])
def test_law_split_on_real_sets(name):
    if not list_datasets().set_index("name").loc[name, "found"]: pytest.skip(f"{name} is not there")
    loaded = real(name)
    law_split(split_dataset, loaded, n_labelled=min(15, int(loaded.is_attack.sum()) // 2))


@needs_data
@pytest.mark.parametrize("name, method", [("cicids2017_improved", "grouped"), ("cicids2017_improved", "temporal"), ("tor2016", "grouped"),
                                          ("cicddos2019", "temporal"), ("cicids2017", "temporal")])
def test_real_splits(name, method):
    d = real(name)
    law_split(split_dataset, d, method=method, n_labelled=15)
    law = law_no_conversation_in_two_parts if method == "grouped" else law_test_is_later
    law(split_dataset, d, method=method)
    with pytest.raises(AssertionError): law(split_dataset, d, method="random")


@needs_data
def test_ambiguous_real_vectors_are_never_learnt():
    d = real("cicddos2019")
    assert d.report.n_ambiguous == 18
    with pytest.raises(AssertionError, match="copy of a test row"): law_split(by_row, d)


# ---------------------------------------------------------------- a benign record that equals an attack

def law_tied_are_only_tested(split, dataset, **options):
    "Benign rows with an attack's vector are neither learnt nor calibrated on, also where that attack is labelled or unused; all are counted."
    s, ids = split(dataset, **options), row_ids(dataset.records)
    tied = np.flatnonzero(~dataset.is_attack & np.isin(ids, ids[dataset.is_attack]))
    assert not np.isin(tied, np.concatenate([s.train, s.reference, s.calibration])).any(), "a record like an attack is learnt"
    assert s.report["benign tied to an attack"] == len(tied), "ties are miscounted"


@pytest.mark.parametrize("seed", range(4))
def test_law_tied_are_only_tested(seed):
    sizes = {"train": 4, "reference": 1, "calibration": 2, "attack": 1}
    law_tied_are_only_tested(split_dataset, TWINS, sizes=sizes, n_labelled=1, seed=seed)
    def learning(dataset, **options):
        s = split_dataset(dataset, **options)
        return dataclasses.replace(s, calibration=np.append(s.calibration, 0))  # row 0 equals an attack
    with pytest.raises(AssertionError, match="is learnt"): law_tied_are_only_tested(learning, TWINS, sizes=sizes, seed=seed)
