"""Laws of nfad.groups: features that say the same are together, and many that say the same are one reason."""
import numpy as np
import pandas as pd
import pytest
import scipy

from nfad.groups import Groups, feature_groups, group_credits, name_of_group, rank_alike
from nfad.vocabulary import FEATURES


def some_records(seed, n=200):
    "Columns of which some are monotone functions of others."
    rng = np.random.default_rng(seed)
    base = rng.lognormal(size=(n, 3))
    columns = {"a": base[:, 0], "b": base[:, 1], "log a": np.log(base[:, 0]), "1 / b": 1 / base[:, 1], "c": base[:, 2], "same": np.ones(n)}
    names = rng.permutation(list(columns))
    return pd.DataFrame({name: columns[name] for name in names})


def law_together(learn):
    "Whatever ranks alike is one group, in any order of columns; nothing else is, and a constant is alone."
    for seed in range(5):
        records = some_records(seed)
        found = learn(records)
        of = dict(zip(records.columns, found.of, strict=True))
        assert of["a"] == of["log a"] and of["b"] == of["1 / b"] and len({of["a"], of["b"], of["c"], of["same"]}) == 4
        assert len(set(found.names)) == len(found.names) == found.of.max() + 1 and found.of[0] == 0


def test_law_together(): law_together(feature_groups)


def test_law_together_catches_values_instead_of_ranks(monkeypatch):
    monkeypatch.setattr("nfad.groups.scipy.stats.rankdata", lambda X, axis: X.copy())
    with pytest.raises(AssertionError): law_together(feature_groups)


def law_every_pair(learn):
    "All pairs of a group are alike: no chain of neighbors makes one."
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.normal(size=(300, 12)), axis=1)
    alike, found = rank_alike(walk), learn(pd.DataFrame(walk))
    for k in range(found.of.max() + 1): assert alike[np.ix_(found.of == k, found.of == k)].min() >= 0.9 - 1e-9


def single_linkage(records):
    "Groups by chains."
    near = rank_alike(records.to_numpy()) >= 0.9
    of = scipy.sparse.csgraph.connected_components(near)[1]
    return Groups(tuple(map(str, range(of.max() + 1))), of)


def test_law_every_pair(): law_every_pair(feature_groups)


def test_law_every_pair_catches_chains():
    with pytest.raises(AssertionError): law_every_pair(single_linkage)


def test_alike_equals_scipy():
    X = np.random.default_rng(0).integers(0, 5, size=(60, 4)).astype(float)
    assert np.allclose(rank_alike(X), np.abs(scipy.stats.spearmanr(X).statistic))


def law_credit(credit):
    "Between the highest member and the sum of what was raised; what was lowered takes nothing."
    rng = np.random.default_rng(0)
    groups = Groups(("x", "y"), np.array([0, 1, 0, 1, 0, 1, 1]))
    for _ in range(20):
        values = rng.normal(size=7)
        for k, found in enumerate(credit(values, groups)):
            raised = np.maximum(values[groups.of == k], 0)
            assert raised.max() - 1e-12 <= found <= raised.sum() + 1e-12


def test_law_credit(): law_credit(group_credits)


def test_law_credit_catches_sums():
    with pytest.raises(AssertionError): law_credit(lambda values, groups: np.bincount(groups.of, values))


def test_every_known_feature_has_a_name_in_words():
    names = FEATURES["name"].tolist()
    for one, other in zip(names, names[1:]):
        assert name_of_group([one]) == one and len(name_of_group([one, other])) > 3


def test_few_columns():
    assert feature_groups(pd.DataFrame({"only": [1.0, 2.0]})).names == ("only",)
    with pytest.raises(ValueError, match="correlation"): feature_groups(some_records(0), 0.0)
