"""Laws of quantized networks: int8 is small and close, runs in integers, and its cost is measured."""
import time

import numpy as np
import onnx
import pandas as pd
import pytest

import nfad.quantize as q
from nfad.export import network_to_onnx, open_session, run_session
from nfad.measure import Cost
from nfad.network import NeuralClassifier
from nfad.quantize import (VARIANTS, compare_variants, int8_instructions, int8_network, plot_layers, plot_throughput, plot_variants,
                           product_rate, quantize_network, session_memory, throughput, time_by_layer)
from test_export import X, Y


@pytest.fixture(scope="module")
def network(): return NeuralClassifier(hidden=(32, 48), dropout=(0.1,), epochs=6, batch_size=64).fit(X, Y)


@pytest.mark.parametrize("kind", VARIANTS)
def test_variants_are_close(network, kind, tmp_path):
    path = quantize_network(network, kind, X, tmp_path / "a" / "n.onnx")
    logits, exact = run_session(open_session(path), X), network.decision_function(X)
    assert np.mean(logits.argmax(axis=1) == exact.argmax(axis=1)) > (0.999 if kind == "float32" else 0.93)
    assert [p.name for p in path.parent.iterdir()] == ["n.onnx"]


def test_int8_is_small(tmp_path):
    model = NeuralClassifier(transform="log", epochs=1, batch_size=64).fit(X, Y)
    sizes = {kind: quantize_network(model, kind, X, tmp_path / "n.onnx").stat().st_size for kind in VARIANTS}
    for kind in VARIANTS[1:]: assert sizes[kind] <= 0.35 * sizes["float32"], kind
    with pytest.raises(ValueError, match="kind must be"): quantize_network(model, "int4", X, tmp_path / "x.onnx")


# ---------------------------------------------------------------- integers from the inputs on

def law_integers_are_close(build, model, records):
    "Nearly all decisions are the original's, and logits are off by a few hundredths of their spread."
    exact, logits = model.decision_function(records), run_session(open_session(build(model)), records)
    assert np.mean(logits.argmax(axis=1) == exact.argmax(axis=1)) > 0.95
    assert np.quantile(np.abs(logits - exact), 0.9) < 0.1 * exact.std()


CASES = [("log", "relu"), ("log", "elu"), ("quantile", "relu"), ("standard", "relu"), ("robust", "elu")]


@pytest.mark.parametrize("transform, activation", CASES)
def test_integers_are_close(transform, activation):
    frame = X.assign(flat=2.0)[["flat", *X.columns]]  # a constant column first, so that places matter
    model = NeuralClassifier(transform=transform, activation=activation, hidden=(32, 24), epochs=6, batch_size=64).fit(frame, Y)
    law_integers_are_close(lambda m: int8_network(m, frame), model, frame)


def test_integers_without_a_transform():
    Z = np.log(X)
    law_integers_are_close(lambda m: int8_network(m, Z), NeuralClassifier("none", (32,), epochs=6, batch_size=64).fit(Z, Y), Z)


@pytest.mark.parametrize("broken", ["low", "zero"])
def test_integers_catch_a_forgotten_shift(monkeypatch, broken):
    model = NeuralClassifier(transform="log", activation="elu", hidden=(32, 24), epochs=6, batch_size=64).fit(X, Y)
    steps, layer = q._input_steps, q._int8_layer
    if broken == "low":  # the lowest values are not in the records, only in the offsets
        monkeypatch.setattr(q, "_byte_records", lambda g, t, low, step, right=q._byte_records: right(g, t, 0 * low, step))
    else: monkeypatch.setattr(q, "_int8_layer", lambda g, x, scale, zero, *rest: layer(g, x, scale, 0, *rest))
    with pytest.raises(AssertionError): law_integers_are_close(lambda m: int8_network(m, X), model, X)


def law_small_features_keep_their_steps(build):
    "A feature that ranges a thousand times further does not make the others coarse."
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(600, 3)) * [1, 1, 1000], np.repeat(["a", "b"], 300)
    Z[300:, 0] += 3
    model = NeuralClassifier("none", (16,), epochs=1, batch_size=64).fit(Z, y)
    w = np.zeros((3, 16), np.float32)
    w[0, 0] = w[1, 1] = 1
    model.weights_ = [(w, np.full(16, 10, np.float32)), (np.eye(16, 2, dtype=np.float32), np.zeros(2, np.float32))]
    gap = np.abs(run_session(open_session(build(model, Z)), Z) - model.decision_function(Z))
    assert np.quantile(gap, 0.99) < 0.1  # one record in a thousand is cut off at each end


def test_small_features_keep_their_steps(): law_small_features_keep_their_steps(int8_network)


def test_small_features_catch_one_range_for_all():
    with pytest.raises(AssertionError): law_small_features_keep_their_steps(lambda m, Z: int8_network(m, Z, by_feature=False))


def test_rare_values_keep_their_range():
    Z = np.zeros((5000, 2))
    Z[:2, 0], Z[:, 1] = 1.0, np.linspace(0, 1, 5000)
    low, step = q._input_steps(Z, by_feature=True)
    assert low[0] == 0 and np.isclose(255 * step[0], 1) and 0 < low[1] < 0.0011 and 0.997 < 255 * step[1] < 0.999


def law_pairs_fit_16_bits(model: onnx.ModelProto):
    "Processors without 8-bit dot products add two products of a byte and a weight in 16 bits."
    weights = [onnx.numpy_helper.to_array(c) for c in model.graph.initializer if c.data_type == onnx.TensorProto.INT8 and len(c.dims) == 2]
    assert len(weights) == 3 and max(2 * 255 * int(np.abs(w.astype(int)).max()) for w in weights) < 2 ** 15


def test_pairs_fit_16_bits(network): law_pairs_fit_16_bits(int8_network(network, X))


def test_pairs_catch_8_bits(network):
    with pytest.raises(AssertionError): law_pairs_fit_16_bits(int8_network(network, X, bits=8))
    with pytest.raises(ValueError, match="bits must be"): int8_network(network, X, bits=9)


def law_runs_in_integers(model: onnx.ModelProto):
    times = time_by_layer(model, [5, 32, 48, 3], X, repeats=2)
    assert times["operations"].tolist()[1:] == ["QGemm"] * 3


def test_runs_in_integers(network): law_runs_in_integers(int8_network(network, X))


def test_runs_in_integers_catches_missing_zero_points(network):
    "The same numbers without zero points: right answers, in float32, and nothing says so."
    model = int8_network(network, X)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and len(node.attribute): del node.input[2:]
    law_integers_are_close(lambda m: model, network, X)
    with pytest.raises(AssertionError): law_runs_in_integers(model)


# ---------------------------------------------------------------- measuring

def test_table(network, tmp_path):
    paths = {kind: quantize_network(network, kind, X, tmp_path / f"{i}.onnx") for i, kind in enumerate(VARIANTS[:2])}
    table, speed = compare_variants(paths, network.classes_, Y, X, batches=(1, 64), threads=1)
    assert table.loc["float32", "agreement"] == 1 and (table["latency_p50_ms"] <= table["latency_p99_ms"]).all()
    assert speed.shape == (2, 2) and (speed > 0).all(axis=None) and (table["peak_memory_mb"] > 0).all()
    assert np.isclose(table.loc["float32", "accuracy"], network.score(X, Y))


def law_all_calls_count(monkeypatch):
    "On a clock that each call moves by 10 ms, there are 100 calls a second, whichever thread made them."
    calls = []
    class Waits:
        def run(self, names, records):
            time.sleep(0.001)
            calls.append(records["records"])
    monkeypatch.setattr(q, "clock", lambda: Cost(0.01 * len(calls), 0.01 * len(calls)))
    for of in Cost._fields:
        assert np.isclose(throughput({"waits": Waits()}, np.zeros((1, 2)), [7], 1, 0.5, of, threads=2).loc[7, "waits"], 700)


def test_all_calls_count(monkeypatch): law_all_calls_count(monkeypatch)


def test_all_calls_count_catches_a_forgotten_thread(monkeypatch):
    monkeypatch.setattr(q, "sum", max, raising=False)
    with pytest.raises(AssertionError): law_all_calls_count(monkeypatch)


def test_memory_grows_with_the_batch(tmp_path):
    model = NeuralClassifier(hidden=(64,), epochs=1).fit(X, Y)
    path = quantize_network(model, "float32", X, tmp_path / "n.onnx")
    assert session_memory(path, 5, 100_000) > session_memory(path, 5, 10) + 20  # 100,000 x 64 numbers of 4 bytes


@pytest.mark.parametrize("text, found", [
    ("flags\t\t: sse2 avx2\n", ()), ("flags : avx2 avx512_vnni avx_vnni\n", ("avx_vnni", "avx512_vnni")),
    ("Features\t: fp asimd asimddp i8mm\n", ("asimddp", "i8mm")), ("flags : my_avx_vnni_not\n", ()), ("processor : 0\n", None)])
def test_instructions(tmp_path, text, found):
    (tmp_path / "cpuinfo").write_text(text)
    assert int8_instructions(tmp_path / "cpuinfo") == found
    assert int8_instructions(tmp_path / "none") is None


def test_large_products_are_faster_than_small_ones():
    for kind in ("float32", "int8"): assert product_rate(kind, 512, 3) > 2 * product_rate(kind, 8, 3)


def law_layers_hold_their_products(sizes, model):
    times = time_by_layer(model, sizes, X, repeats=5)
    assert times.index.tolist() == ["scaling", *(f"{k} to {m}" for k, m in zip(sizes[:-1], sizes[1:], strict=True))]
    assert "Log" in times.loc["scaling", "operations"] and (times["us"] >= 0).all()
    done = (times["per_s"] * times["us"] / 1e6).to_numpy()[1:]
    assert np.allclose(done, [2e3 * k * m for k, m in zip(sizes[:-1], sizes[1:], strict=True)])


def test_layers():
    model = NeuralClassifier(transform="log", hidden=(64, 256), epochs=1, batch_size=64).fit(X, Y)
    law_layers_hold_their_products([5, 64, 256, 3], network_to_onnx(model))
    with pytest.raises(ValueError, match="name 2 layers"): law_layers_hold_their_products([5, 64, 3], network_to_onnx(model))
    with pytest.raises(AssertionError):
        law_layers_hold_their_products([5, 64, 256, 3], network_to_onnx(NeuralClassifier("standard", (64, 256), epochs=1).fit(X, Y)))


def test_pictures():
    import matplotlib.pyplot as plt
    speed = pd.DataFrame({"a": [1.0, 10.0], "b": [2.0, 5.0]}, index=[1, 64])
    table = pd.DataFrame({"size_mb": [0.4, 0.1], "accuracy": [0.8, 0.7]}, index=["a", "b"])
    left, right = plot_throughput(speed, plt.figure().gca()), plot_variants(table, plt.figure().gca())
    assert len(left.lines) == 2 and left.get_xscale() == "log" and len(right.collections) == 2
    layers = pd.DataFrame({"us": [10.0, 8.0], "per_s": [np.nan, 2e9]}, index=["scaling", "a"])
    ax = plot_layers({"x": layers, "y": layers}, {"x": 4e9, "y": 8e9}, plt.figure().gca())
    assert [c.get_segments()[-1][0][0] for c in ax.collections] == [4.0, 2.0] and len(ax.patches) == 4
    plt.close("all")
