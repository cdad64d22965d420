"""Laws of exported models: they answer as their originals, with their scaling inside."""
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from nfad.export import (Graph, _quantile_nodes, _signed_log_nodes, _threshold32, export_errors, network_to_onnx, open_session, run_session,
                         scaled_records, trees_to_onnx)
from nfad.network import NeuralClassifier
from nfad.prep import Transform


def blobs(n=400, k=3, seed=0):
    "Records around k centers, with heavy tails, and their classes."
    rng = np.random.default_rng(seed)
    code = rng.integers(0, k, n)
    X = np.exp(rng.normal(size=(n, 5)) + 2 * np.eye(k, 5)[code])
    return pd.DataFrame(X, columns=list("abcde")).astype(np.float32), np.array([f"c{c}" for c in code])


X, Y = blobs()


@pytest.fixture(scope="module", params=["relu", "elu"])
def network(request):
    return NeuralClassifier(hidden=(32, 48), dropout=(0.1,), epochs=6, batch_size=64, activation=request.param).fit(X, Y)


def law_export_equals_original(export, models, records=X):
    for model, answer in models: assert np.abs(run_session(open_session(export(model)), records) - answer(model)).max() <= 1e-4


def test_networks_with_constant_columns():
    frame = X.assign(flat=2.0)[["flat", *X.columns]]
    for transform in ("log", "quantile"):
        model = NeuralClassifier(transform=transform, hidden=(8,), epochs=2, batch_size=64).fit(frame, Y)
        other = X.assign(flat=3.0)[frame.columns]  # the constant is broken, and the network never looked at it
        law_export_equals_original(network_to_onnx, [(model, lambda m: m.decision_function(other))], other)


def test_network(network): law_export_equals_original(network_to_onnx, [(network, lambda m: m.decision_function(X))])


def test_network_catches_a_missing_offset(network):
    def broken(model):
        graph = network_to_onnx(model)
        last = max((c for c in graph.graph.initializer if c.dims == [3]), key=lambda c: int(c.name[1:]))
        last.CopyFrom(onnx.numpy_helper.from_array(np.zeros(3, np.float32) - 1, last.name))
        return graph
    with pytest.raises(AssertionError): law_export_equals_original(broken, [(network, lambda m: m.decision_function(X))])


KINDS = ["standard", "robust", "log", "quantile", "none"]


def law_signed_logarithm_has_no_hole(nodes):
    "Where 1 + x or 1 - x is 0, near 0, and far out, in both widths."
    sizes = np.concatenate([[0, 1, 0.5, 1 - 1e-7], 10.0 ** np.arange(-6, 31, 4)])
    x = np.concatenate([-sizes, sizes]).astype(np.float32)[:, None]
    wanted = np.sign(x) * np.log1p(np.abs(x.astype(np.float64)))
    for wide in (False, True):
        graph = Graph()
        one = graph.constant(1.0, np.float64 if wide else np.float32)
        node = nodes(graph, graph.double("records") if wide else "records", one)
        found = run_session(open_session(graph.model(graph.single(node), ["n", 1], 1)), x)
        assert np.allclose(found, wanted, rtol=1e-6, atol=2e-7)


def test_signed_logarithm_has_no_hole(): law_signed_logarithm_has_no_hole(_signed_log_nodes)


def test_signed_logarithm_catches_a_pole():
    without_abs = lambda g, x, one: g("Log", g("Max", g("Add", x, one), g("Reciprocal", g("Sub", one, x))))
    with pytest.raises(AssertionError): law_signed_logarithm_has_no_hole(without_abs)


def law_scaling_equals_the_transform(scale, kind):
    wide = X.assign(flat=3.0) * 5 - 1  # also negative numbers, and numbers beyond the training range
    graph, transform = Graph(), Transform(kind).fit(X.assign(flat=3.0))
    model = graph.model(scale(graph, transform), ["n", 5], 6)
    assert np.allclose(run_session(open_session(model), wide), transform.transform(wide), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_transforms(kind, exact): law_scaling_equals_the_transform(lambda g, t: scaled_records(g, t, exact), kind)


@pytest.mark.parametrize("kind", KINDS[:4])
def test_transforms_catch_other_scales(kind):
    other = Transform(kind).fit((X * 1.1).assign(flat=3.0))
    with pytest.raises(AssertionError): law_scaling_equals_the_transform(lambda g, t: scaled_records(g, other), kind)


TREES = [DecisionTreeClassifier(max_depth=5), RandomForestClassifier(7, random_state=0),
         ExtraTreesClassifier(7, random_state=0), HistGradientBoostingClassifier(max_iter=8)]


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("model", TREES, ids=lambda m: type(m).__name__)
def test_trees(model, k):
    model.fit(X.to_numpy(), np.array([f"c{i % k}" for i in range(len(X))]))
    law_export_equals_original(trees_to_onnx, [(model, lambda m: m.predict_proba(X.to_numpy()))])


def law_thresholds_decide_alike(rounding):
    rng = np.random.default_rng(0)
    t = np.concatenate([rng.normal(size=2000) * 10.0 ** rng.integers(-5, 9, 2000), [0.0, 16777217.0]])
    single = t.astype(np.float32)
    for x in (single, np.nextafter(single, np.float32(np.inf)), np.nextafter(single, np.float32(-np.inf))):
        assert ((x.astype(np.float64) <= t) == (x <= rounding(t))).all()


def test_thresholds(): law_thresholds_decide_alike(_threshold32)


def test_thresholds_catch_rounding_to_nearest():
    with pytest.raises(AssertionError): law_thresholds_decide_alike(lambda t: t.astype(np.float32))


def test_input_width_is_checked(network):
    with pytest.raises(ValueError, match="shape"): run_session(open_session(network_to_onnx(network)), np.ones((2, 9)))


def law_blocks_keep_the_order():
    graph = Graph()
    session = open_session(graph.model(graph("Mul", "records", 2.0), ["n", 2], 2))
    rows = np.arange(60, dtype=np.float32).reshape(30, 2)
    for block in (1, 7, 30, 1000):
        for threads in (1, 3): assert np.array_equal(run_session(session, rows, block, threads), 2 * rows)
    assert run_session(session, rows[:0]).shape == (0, 2)


def test_blocks_keep_the_order(): law_blocks_keep_the_order()


def test_blocks_catch_another_order(monkeypatch):
    class Backwards(ThreadPoolExecutor):
        def map(self, function, blocks): return [function(block) for block in blocks[::-1]]
    monkeypatch.setattr("nfad.export.ThreadPoolExecutor", Backwards)
    with pytest.raises(AssertionError): law_blocks_keep_the_order()


def test_broken_lines_by_hand():
    "Slopes 2, 1/2 between the knots, 1/10 beyond them on both sides."
    line = {"knots": np.array([0.0, 1, 3]), "scores": np.array([0.0, 2, 3]), "starts": np.array([0, 3]), "scale": np.array([10.0])}
    graph = Graph()
    y = graph.single(_quantile_nodes(graph, graph.double("records"), line))
    found = run_session(open_session(graph.model(y, ["n", 1], 1)), [[-10.0], [0.0], [0.5], [1.0], [2.0], [3.0], [13.0]])
    assert np.allclose(found.ravel(), [-1, 0, 1, 2, 2.5, 3, 4])


def test_errors_of_an_export_count_decisions():
    exact = np.array([[0.0, 1.0]] * 400)
    graph = Graph()
    swapped = graph.model(graph("Add", graph("Mul", "records", 0.0), np.array([1.0, 0.5], np.float32)), ["n", 2], 2)
    found = export_errors(swapped, exact, pd.DataFrame(np.ones((400, 2))))
    assert found["other_decisions"] == 1 and found["max"] == 1 and found["median"] == 0.75
