"""Laws of the classifiers: codes keep their own label out, figures equal scikit-learn's, explanations add up."""
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from nfad.data import load_dataset
from nfad.labels import split_labelled
from nfad.classify import (CODED, FlowStructure, LARGEST, SEGMENT, Scaled, SoftVote, classification_metrics, compare_models,
                           confused_pairs, explain_class, make_models, plot_class_ranking, plot_confusion, plot_tree_top,
                           summarize_models)


def blobs(n=300, k=3, seed=0):
    "Records around k centers."
    rng = np.random.default_rng(seed)
    code = rng.integers(0, k, n)
    return pd.DataFrame(rng.normal(size=(n, 4)) + 3 * np.eye(k, 4)[code], columns=list("abcd")), np.array([f"class {c}" for c in code])


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
    def without_folds(X, y): return FlowStructure(codes=True).fit(X, y).transform(X).iloc[:, -1]
    with pytest.raises(AssertionError): law_codes_do_not_tell_the_own_label(without_folds)


# ---------------------------------------------------------------- judging

def law_metrics_equal_sklearn(metrics):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y, predicted = rng.choice(list("abc"), 100), rng.choice(list("abc"), 100)
        found = metrics(y, predicted)
        assert np.isclose(found["accuracy"], accuracy_score(y, predicted))
        assert np.isclose(found["balanced_accuracy"], balanced_accuracy_score(y, predicted))
        for kind in ("macro", "weighted"): assert np.isclose(found[f"{kind}_f1"], f1_score(y, predicted, average=kind))
        assert sum(row["support"] for row in found["per_class"].values()) == 100


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
    other = make_models(["decision tree"])["decision tree"].fit(X, np.where(y == "class 0", y, "x"))
    with pytest.raises(ValueError, match="equal classes"): SoftVote([members[0], other]).join()


def test_compare_models_on_demo():
    job = split_labelled(load_dataset("demo"), max_per_class=200)
    models = {name: make_models(name)[name] for name in ("decision tree",)}
    results, predicted = compare_models(job, models, progress=False)
    found = results["decision tree"]
    assert found["accuracy"] > 0.8 and found["size_mb"] > 0 and len(predicted["decision tree"]) == len(job.test)


def law_explanations_add_up(explain):
    "Base value and values give the probability, and a feature that the model does not use gets nothing."
    X, y = blobs()
    model = make_models("decision tree")["decision tree"].fit(X[["a", "b", "c"]].assign(d=1.0), y)
    told = explain(model, "class 1", X.head(5), X.iloc[20:30])
    P = model.predict_proba(X.head(5))[:, 1]
    assert np.allclose(told.base_values + told.values.sum(axis=1), P, atol=1e-6) and np.allclose(told.values[:, 3], 0)


def test_explanations(): law_explanations_add_up(explain_class)


def test_explanations_catch_another_class():
    def another(model, name, X, background): return explain_class(model, "class 2", X, background)
    with pytest.raises(AssertionError): law_explanations_add_up(another)


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


def test_confusion_picture_counts_true_classes():
    import matplotlib.pyplot as plt
    axes = plot_confusion(["a", "a", "b"], ["a", "b", "b"])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a (2)", "b (1)"]
    assert [t.get_text() for t in axes.texts] == ["50", "50", "", "100"]
    plt.close("all")


def test_ranking_picture_is_relative_to_each_class():
    import matplotlib.pyplot as plt
    axes = plot_class_ranking(pd.DataFrame({"one": [2.0, 1.0], "other": [0.1, 0.4]}, index=["x", "y"]))
    assert np.allclose(axes.collections[0].get_array(), [[1, 0.25], [0.5, 1]])
    plt.close("all")


def test_summary_is_a_mean_over_seeds():
    merits = classification_metrics(["a", "b"], ["a", "a"]) | {"train_cpu_seconds": 1.0, "size_mb": 1.0, "rows_per_s": 1.0}
    row = summarize_models([{"m": merits | {"accuracy": value}} for value in (0.4, 0.6)]).loc["m"]
    assert row["accuracy"] == pytest.approx(0.5) and row["accuracy_half_interval"] == pytest.approx(12.706 * 0.1, rel=1e-3)
