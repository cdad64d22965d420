"""Laws of nfad.audit: leaks are counted, shortcuts signed, intervals know conversations, metrics know wrong."""
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from flows import ATTACK, odd_parts
from nfad.audit import audit_split, bootstrap_by_group, feature_shortcuts, rarity, require_signed
from nfad.data import load_dataset
from nfad.metrics import bootstrap_interval
from nfad.splits import split_dataset


@pytest.mark.parametrize("seed", range(3))
def test_a_split_shares_nothing(seed):
    data = load_dataset("demo", progress=False)
    split = split_dataset(data, seed=seed)
    assert (audit_split(data, split)[["same_row", "same_features"]] == 0).all(axis=None)


def test_the_audit_catches_a_leak():
    from dataclasses import replace
    data = load_dataset("demo", progress=False)
    split = split_dataset(data)
    leaky = replace(split, test=np.concatenate([split.test, split.train[:3]]))
    assert audit_split(data, leaky).loc["train - test", "same_row"] == 3


def test_shortcuts_are_signed():
    y, records = ATTACK != "benign", odd_parts()["test"][["size", "other"]]
    table = feature_shortcuts(y, records.assign(down=-records["other"]))
    assert table.loc["other", "auroc"] == pytest.approx(1 - table.loc["down", "auroc"])
    assert table.loc["down", "auroc"] < 0.5 < table.loc["down", "oracle"]


def test_rarity_by_hand(): assert np.allclose(rarity(np.array([80, 80, 443]), np.array([80, 443, 22])), np.log([2, 3, 6]))


def test_bootstrap_by_group_is_wider_for_similar_records():
    rng = np.random.default_rng(0)
    talks = np.repeat(np.arange(40), 25)
    y, scores = (np.arange(40) % 2)[talks], rng.normal(size=40)[talks] + 0.01 * rng.normal(size=1000)
    by_record = bootstrap_interval(roc_auc_score, y, scores)
    by_talk = bootstrap_by_group(roc_auc_score, y, scores, talks)
    alone = bootstrap_by_group(roc_auc_score, y, scores, np.full(1000, ""))
    assert by_talk[1] - by_talk[0] > 2.5 * (by_record[1] - by_record[0])
    assert alone[1] - alone[0] == pytest.approx(by_record[1] - by_record[0], rel=0.3)


def test_a_metric_that_profits_from_being_wrong_is_refused():
    assert require_signed(roc_auc_score) is roc_auc_score
    unsigned = lambda y, s: max(roc_auc_score(y, s), 1 - roc_auc_score(y, s))
    for cheat in (unsigned, lambda y, s: abs(2 * roc_auc_score(y, s) - 1), lambda y, s: 0.5):
        with pytest.raises(ValueError, match="perfect ranking"): require_signed(cheat)


def test_conversations_that_parts_share_are_counted():
    "By hand: two conversations of the first part are in the second one; a record without conversation shares nothing."
    import dataclasses
    data = load_dataset("demo", progress=False)
    split = split_dataset(data)
    few = dataclasses.replace(split, train=np.arange(4), reference=np.arange(4, 8), calibration=np.arange(8, 9), test=np.arange(9, 10))
    groups = np.array(["a", "b", "", "c", "a", "b", "b", "", "", "d"] + ["x"] * (len(data) - 10))
    table = audit_split(dataclasses.replace(data, groups=groups), few)
    assert table.loc["train - reference", "same_conversation"] == 3 and table["same_conversation"].sum() == 3
    assert (audit_split(dataclasses.replace(data, groups=None), few)["same_conversation"] == -1).all()
