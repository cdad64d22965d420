"""Laws of the classifiers: parts share no record, the ceiling bounds every rule, codes keep their own label out."""
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from conftest import needs_data
from nfad.splits import stratified_units
from nfad.classify import (CODED, FlowStructure, LARGEST, MERGES, SEGMENT, Scaled, SoftVote, accuracy_ceiling,
                           class_labels, classification_metrics, compare_models, confused_pairs, explain_class,
                           make_models, make_task, plot_tree_top, shared_vectors)
from nfad.data import load_dataset, row_ids


def blobs(n=300, k=3, seed=0):
    "Records around k centers."
    rng = np.random.default_rng(seed)
    code = rng.integers(0, k, n)
    return pd.DataFrame(rng.normal(size=(n, 4)) + 3 * np.eye(k, 4)[code], columns=list("abcd")), np.array([f"class {c}" for c in code])


# ---------------------------------------------------------------- parts and ceiling

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
        ids, y = rng.integers(0, 30, 200), rng.choice(["a", "b", "c"], 200)
        commonest = pd.Series(y).groupby(ids).agg(lambda s: s.value_counts().idxmax())
        assert np.isclose(accuracy_score(y, commonest[ids].to_numpy()), ceiling(ids, y))  # reached by the best rule
        assert accuracy_score(y, rng.choice(["a", "b", "c"], 30)[ids]) <= ceiling(ids, y)


def test_ceiling(): law_ceiling_bounds_every_rule(accuracy_ceiling)


def test_ceiling_catches_the_share_of_unique_records():
    with pytest.raises(AssertionError): law_ceiling_bounds_every_rule(lambda ids, y: len(np.unique(ids)) / len(ids))


def test_shared_vectors_count_rows():
    table = shared_vectors(np.array([1, 1, 1, 2, 3]), np.array(["a", "b", "b", "a", "c"]))
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
    task = make_task(data, max_per_class=100, seed=3)
    assert task.report["capped"] == len(data) - 8 * 100 and task.table().sum().sum() == 800
    assert make_task(data, min_rows=298).report["left_out"] == {"PortScan": 297}
    with pytest.raises(ValueError, match="two classes"): make_task(data, min_rows=5000)


# ---------------------------------------------------------------- structure

def test_structure_counts_training_rows_only():
    train = pd.DataFrame({SEGMENT: [8.0, 8.0, 20.0], LARGEST: [8.0, 512.0, 60.0]})
    wide = FlowStructure().fit(train).transform(pd.DataFrame({LARGEST: [60.0], SEGMENT: [7.0], "extra": [1.0]}))
    assert wide[f"count of {SEGMENT}"].item() == 0 and wide[f"count of {LARGEST}"].item() == 1 and "extra" not in wide


def law_codes_do_not_tell_the_own_label(codes_of_training_rows):
    "On labels that are pure noise, the codes of training rows must not carry them."
    rng = np.random.default_rng(0)
    X, y = pd.DataFrame({CODED[0]: np.arange(400.0) // 2}), rng.choice(["a", "b"], 400)
    codes = codes_of_training_rows(X, y)
    assert abs(np.corrcoef(codes, y == "b")[0, 1]) < 0.25


def test_codes(): law_codes_do_not_tell_the_own_label(lambda X, y: FlowStructure(codes=True).fit_transform(X, y).iloc[:, -1])


def test_codes_catch_fitting_without_folds():
    with pytest.raises(AssertionError): law_codes_do_not_tell_the_own_label(lambda X, y: FlowStructure(codes=True).fit(X, y).transform(X).iloc[:, -1])


# ---------------------------------------------------------------- judging

def law_metrics_equal_sklearn(metrics):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y, predicted = rng.choice(list("abc"), 100), rng.choice(list("abc"), 100)
        found = metrics(y, predicted)
        assert np.isclose(found["accuracy"], accuracy_score(y, predicted)) and np.isclose(found["balanced_accuracy"], balanced_accuracy_score(y, predicted))
        assert np.isclose(found["macro_f1"], f1_score(y, predicted, average="macro")) and np.isclose(found["weighted_f1"], f1_score(y, predicted, average="weighted"))


def test_metrics(): law_metrics_equal_sklearn(classification_metrics)


def test_metrics_catch_swapped_arguments():
    with pytest.raises(AssertionError): law_metrics_equal_sklearn(lambda y, p: classification_metrics(p, y))


def test_unknown_classes_are_counted_and_wrong():
    found = classification_metrics(["a", "b", "new"], ["a", "b", "a"], known=["a", "b"])
    assert found["n_unknown"] == 1 and np.isclose(found["accuracy"], 2 / 3)


def test_confused_pairs_find_the_separating_feature():
    y, predicted = np.repeat(["a", "b", "c"], 20), np.repeat(["b", "b", "c"], 20)
    X = pd.DataFrame({"noise": np.tile([0.0, 1.0], 30), "good": np.repeat([0.0, 1.0, 2.0], 20)})
    row = confused_pairs(y, predicted, X).iloc[0]
    assert (row.a, row.b, row.errors, row.best_feature, row.auroc) == ("a", "b", 20, "good", 1.0)


def test_vote_is_the_mean_of_its_members():
    X, y = blobs()
    names = ["decision tree", "random forest"]
    members = [make_models(names, n_trees=5)[name].fit(X, y) for name in names]
    vote = SoftVote(members).join()
    assert np.allclose(vote.predict_proba(X), (members[0].predict_proba(X) + members[1].predict_proba(X)) / 2)
    with pytest.raises(ValueError, match="equal classes"): SoftVote([members[0], members[1].__class__(members[1].steps).fit(X, np.where(y == "class 0", y, "x"))]).join()


def test_compare_models_on_demo():
    task = make_task(load_dataset("demo"), max_per_class=200)
    models = {name: make_models(name)[name] for name in ("decision tree",)}
    results, predicted = compare_models(task, models, progress=False)
    assert results["decision tree"]["accuracy"] > 0.8 and results["decision tree"]["size_mb"] > 0 and len(predicted["decision tree"]) == len(task.test)


def law_explanations_add_up(explain):
    "Base value and values give the probability, and a feature that the model does not use gets nothing."
    X, y = blobs()
    model = make_models("decision tree")["decision tree"].fit(X[["a", "b", "c"]].assign(d=1.0), y)
    told = explain(model, "class 1", X.head(5), X.iloc[20:30])
    P = model.predict_proba(X.head(5))[:, 1]
    assert np.allclose(told.base_values + told.values.sum(axis=1), P, atol=1e-6) and np.allclose(told.values[:, 3], 0)


def test_explanations(): law_explanations_add_up(explain_class)


def test_explanations_catch_another_class():
    with pytest.raises(AssertionError): law_explanations_add_up(lambda model, name, X, background: explain_class(model, "class 2", X, background))


@needs_data
def test_ceiling_of_cicddos2019():
    data = load_dataset("cicddos2019")
    ids = row_ids(data.records)
    assert abs(accuracy_ceiling(ids, data.attack) - 0.932) < 0.002
    assert accuracy_ceiling(ids, class_labels(data.attack, merge="traffic")) > 0.98
    pair = shared_vectors(ids, data.attack).iloc[0]
    assert {pair.a, pair.b} in ({"UDP", "DrDoS UDP"}, {"MSSQL", "DrDoS MSSQL"})


# ---------------------------------------------------------------- pictures

def law_tree_asks_in_original_units(draw):
    import matplotlib.pyplot as plt
    X = pd.DataFrame({"small": np.tile([0.0, 1.0], 100), "large": np.linspace(1e6, 3e6, 200)})
    model = make_pipeline(Scaled(), DecisionTreeClassifier(max_depth=1)).fit(X, np.where(X["large"] > 2e6, "right", "left"))
    asked = [t.get_text() for t in draw(model, 1).texts if "≤" in t.get_text()]
    plt.close("all")
    assert len(asked) == 1 and asked[0].startswith("large")
    assert float(asked[0].split("≤ ")[1].split()[0].replace(",", "")) == pytest.approx(2e6, rel=1e-3)


def test_tree_picture(): law_tree_asks_in_original_units(plot_tree_top)


def test_tree_picture_catches_scaled_units():
    import matplotlib.pyplot as plt
    from sklearn.tree import plot_tree

    def scaled(model, depth):
        ax = plt.subplots()[1]
        for box in plot_tree(model.steps[-1][1], feature_names=["small", "large"], ax=ax): box.set_text(box.get_text().replace("<=", "≤"))
        return ax
    with pytest.raises(AssertionError): law_tree_asks_in_original_units(scaled)
