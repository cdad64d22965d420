"""Laws of labels: parts share no record, the ceiling bounds every rule, merges are stated."""
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from conftest import needs_data
from nfad.data import load_dataset, row_ids
from nfad.draws import stratified_units
from nfad.labels import (MERGES, accuracy_ceiling, class_labels, plot_balance, shared_vectors, split_labelled)


def law_parts_share_no_record(cut):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        ids, y = rng.integers(0, 150, 400), rng.choice(["a", "b", "c"], 400, p=[0.7, 0.2, 0.1])
        parts = cut(y, ids, seed)
        assert sorted(np.concatenate(parts)) == list(range(400))
        for i, one in enumerate(parts):
            for other in parts[i + 1:]: assert not set(ids[one]) & set(ids[other])


def test_parts_share_no_record(): law_parts_share_no_record(lambda y, ids, seed: stratified_units(y, ids, seed=seed))


def test_parts_catch_a_split_of_rows():
    with pytest.raises(AssertionError): law_parts_share_no_record(lambda y, ids, seed: stratified_units(y, np.arange(len(y)), seed=seed))


def law_ceiling_bounds_every_rule(ceiling):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ids, labels = rng.integers(0, 30, 200), rng.choice(["a", "b", "c"], 200)
        commonest = pd.Series(labels).groupby(ids).agg(lambda s: s.value_counts().idxmax())
        assert np.isclose(accuracy_score(labels, commonest[ids].to_numpy()), ceiling(labels, ids))  # reached by the best rule
        assert accuracy_score(labels, rng.choice(["a", "b", "c"], 30)[ids]) <= ceiling(labels, ids)


def test_ceiling(): law_ceiling_bounds_every_rule(accuracy_ceiling)


def test_ceiling_catches_the_share_of_unique_records():
    with pytest.raises(AssertionError): law_ceiling_bounds_every_rule(lambda labels, ids: len(np.unique(ids)) / len(ids))


def test_shared_vectors_count_rows():
    table = shared_vectors(np.array(["a", "b", "b", "a", "c"]), np.array([1, 1, 1, 2, 3]))
    assert table.loc[0, ["a", "b", "rows", "share"]].tolist() == ["a", "b", 3, 0.5] and len(table) == 1


@pytest.mark.parametrize("shares", [(0.5, 0.6), (1.2, -0.2)])
def test_shares_are_checked(shares):
    with pytest.raises(ValueError, match="shares must"): stratified_units(np.array(["a"] * 9), np.arange(9), shares)


def test_labels():
    attack = np.array(["benign", "DrDoS UDP", "DrDoS LDAP", "Syn"])
    assert class_labels(attack, "binary").tolist() == ["benign", "attack", "attack", "attack"]
    assert class_labels(attack, merge="traffic").tolist() == ["benign", "UDP flood", "DNS, LDAP, SNMP", "Syn"]
    assert all("benign" not in mapping for mapping in MERGES.values())
    for bad in (dict(task="multi"), dict(merge="twins")):
        with pytest.raises(ValueError, match="must be one of"): class_labels(attack, **bad)
    with pytest.raises(TypeError, match="class names"): class_labels(np.array([0, 1]))


def test_demo_task():
    data = load_dataset("demo")
    job = split_labelled(data, max_per_class=100, seed=3)
    assert job.report["capped"] == len(data) - 8 * 100 and job.table().sum().sum() == 800
    assert [len(job.part(name)[0]) for name in ("train", "validation", "test")] == [560, 80, 160]
    assert split_labelled(data, min_rows=298).report["left_out"] == {"PortScan": 297}
    with pytest.raises(ValueError, match="two classes"): split_labelled(data, min_rows=5000)
    with pytest.raises(ValueError, match="part must be"): job.part("holdout")


@needs_data
def test_ceiling_of_cicddos2019():
    data = load_dataset("cicddos2019")
    ids = row_ids(data.records)
    assert abs(accuracy_ceiling(data.attack, ids) - 0.932) < 0.002
    assert accuracy_ceiling(class_labels(data.attack, merge="traffic"), ids) > 0.98
    pair = shared_vectors(data.attack, ids).iloc[0]
    assert {pair.a, pair.b} in ({"UDP", "DrDoS UDP"}, {"MSSQL", "DrDoS MSSQL"})


def test_rows_of_a_class_are_drawn_by_the_seed():
    data = load_dataset("demo")
    one, other = (split_labelled(data, max_per_class=50, seed=seed).X for seed in (0, 1))
    assert not one.equals(other) and one.equals(split_labelled(data, max_per_class=50, seed=0).X)


def test_picture_of_balance():
    import matplotlib.pyplot as plt
    axes = plot_balance(np.repeat(["benign", "Syn"], [30, 5]))
    assert [bar.get_width() for bar in axes.patches] == [5, 30] and axes.get_xscale() == "log"
    plt.close("all")
