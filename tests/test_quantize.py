"""Laws of exported models: they answer as their originals; int8 is small and close; flows keep their order."""
import copy

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from nfad.network import NeuralClassifier
from nfad.prep import Transform
from nfad.quantize import (Graph, VARIANTS, _threshold32, compare_variants, flow_to_onnx, network_to_onnx, open_session,
                           quantize_network, run_session, scaled_records, trees_to_onnx)
from nfad.detector import FlowDetector


def blobs(n=400, k=3, seed=0):
    rng = np.random.default_rng(seed)
    code = rng.integers(0, k, n)
    return pd.DataFrame(np.exp(rng.normal(size=(n, 5)) + 2 * np.eye(k, 5)[code]), columns=list("abcde")).astype(np.float32), np.array([f"c{c}" for c in code])


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
        law_export_equals_original(network_to_onnx, [(model, lambda m: m.decision_function(X.assign(flat=3.0)))], X.assign(flat=3.0)[frame.columns])


def test_network(network): law_export_equals_original(network_to_onnx, [(network, lambda m: m.decision_function(X))])


def test_network_catches_a_missing_offset(network):
    def broken(model):
        graph = network_to_onnx(model)
        last = max((c for c in graph.graph.initializer if c.dims == [3]), key=lambda c: int(c.name[1:]))
        last.CopyFrom(onnx.numpy_helper.from_array(np.zeros(3, np.float32) - 1, last.name))
        return graph
    with pytest.raises(AssertionError): law_export_equals_original(broken, [(network, lambda m: m.decision_function(X))])


KINDS = ["standard", "robust", "log", "quantile", "none"]


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


TREES = [DecisionTreeClassifier(max_depth=5), RandomForestClassifier(7, random_state=0), ExtraTreesClassifier(7, random_state=0), HistGradientBoostingClassifier(max_iter=8)]


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("model", TREES, ids=lambda m: type(m).__name__)
def test_trees(model, k):
    model.fit(X.to_numpy(), np.array([f"c{i % k}" for i in range(len(X))]))
    law_export_equals_original(trees_to_onnx, [(model, lambda m: m.predict_proba(X.to_numpy()))])


def law_thresholds_decide_alike(rounding):
    rng = np.random.default_rng(0)
    t = np.concatenate([rng.normal(size=2000) * 10.0 ** rng.integers(-5, 9, 2000), [0.0, 16777217.0]])
    for x in (t.astype(np.float32), np.nextafter(t.astype(np.float32), np.float32(np.inf)), np.nextafter(t.astype(np.float32), np.float32(-np.inf))):
        assert ((x.astype(np.float64) <= t) == (x <= rounding(t))).all()


def test_thresholds(): law_thresholds_decide_alike(_threshold32)


def test_thresholds_catch_rounding_to_nearest():
    with pytest.raises(AssertionError): law_thresholds_decide_alike(lambda t: t.astype(np.float32))


@pytest.mark.parametrize("kind", VARIANTS)
def test_variants_are_close(network, kind, tmp_path):
    graph = network_to_onnx(network)
    path = quantize_network(graph, kind, X, tmp_path / "a" / "n.onnx")
    logits, exact = run_session(open_session(path), X), network.decision_function(X)
    assert np.mean(logits.argmax(axis=1) == exact.argmax(axis=1)) > (0.999 if kind == "float32" else 0.93)
    assert [p.name for p in path.parent.iterdir()] == ["n.onnx"]


def test_int8_is_small(tmp_path):
    model = NeuralClassifier(transform="log", epochs=1, batch_size=64).fit(X, Y)
    sizes = {kind: quantize_network(network_to_onnx(model), kind, X, tmp_path / f"{i}.onnx").stat().st_size for i, kind in enumerate(VARIANTS)}
    assert sizes["dynamic int8"] <= 0.35 * sizes["float32"] and sizes["static int8"] <= 0.35 * sizes["float32"]
    with pytest.raises(ValueError, match="kind must be"): quantize_network(network_to_onnx(model), "int4", X, tmp_path / "x.onnx")


def test_table(network, tmp_path):
    paths = {kind: quantize_network(network_to_onnx(network), kind, X, tmp_path / f"{i}.onnx") for i, kind in enumerate(VARIANTS[:2])}
    table, speed = compare_variants(paths, network.classes_, X, Y, batches=(1, 64), threads=1)
    assert table.loc["float32", "agreement"] == 1 and (table["latency_p50_ms"] <= table["latency_p99_ms"]).all()
    assert speed.shape == (2, 2) and (speed > 0).all().all() and np.isclose(table.loc["float32", "accuracy"], network.score(X, Y))


def test_input_width_is_checked(network):
    with pytest.raises(ValueError, match="shape"): run_session(open_session(network_to_onnx(network)), np.ones((2, 9)))


SMALL = dict(epochs=3, hidden=16, n_bins=5, n_layers=2)
FLOWS = {"profile": SMALL, "log_prob": SMALL | {"statistic": "log_prob"}, "members": SMALL | {"n_members": 2, "feature_order": "shuffled"}}


@pytest.fixture(scope="module")
def flows(): return {name: FlowDetector(**settings).fit(X.assign(flat=2.0)) for name, settings in FLOWS.items()}


def probes():
    "Records that no flow has seen: usual ones, far ones, all zero, with a broken constant, and very far ones."
    base = blobs(seed=1)[0].assign(flat=2.0)
    return pd.concat([base, base * 1000, base * 0, base.assign(flat=7.0), base * 1e12]).astype(np.float32)


def law_flow_scores_agree(export, flow):
    Z = probes()
    exact, exported = flow.anomaly_score(Z), run_session(open_session(export(flow)), Z)
    assert np.isfinite(exported).all() and np.allclose(exported, exact, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("name", list(FLOWS))
def test_flow(flows, name): law_flow_scores_agree(flow_to_onnx, flows[name])


def test_flow_without_its_statistic(flows):
    flow = flows["profile"]
    exported = run_session(open_session(flow_to_onnx(flow, "log_prob")), probes())
    assert np.allclose(exported, -flow.log_prob(probes()), rtol=1e-4, atol=2e-3)
    with pytest.raises(ValueError, match="statistic must be"): flow_to_onnx(flows["log_prob"], "profile")


def broken(flow, change):
    "A copy of a detector with something changed."
    twin = copy.deepcopy(flow)
    change(twin)
    return twin


@pytest.mark.parametrize("change", [lambda twin: setattr(twin, "constant_cost_", 0.0), lambda twin: setattr(twin.statistic_, "high", 5.0),
                                    lambda twin: setattr(twin.statistic_.tails_["record"], "scale", 1.0), lambda twin: setattr(twin, "latent_df", 9.0)])
def test_flow_catches(flows, change):
    with pytest.raises(AssertionError): law_flow_scores_agree(lambda flow: flow_to_onnx(broken(flow, change)), flows["profile"])


@pytest.mark.parametrize("change, message", [(lambda twin: setattr(twin, "architecture", "pzflow"), "architecture of an exported flow")])
def test_what_cannot_be_exported_is_refused(flows, change, message):
    with pytest.raises(ValueError, match=message): flow_to_onnx(broken(flows["profile"], change))
