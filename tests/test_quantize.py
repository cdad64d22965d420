"""Laws of quantized networks: int8 is small and close, and its cost is measured."""
import numpy as np
import pandas as pd
import pytest

from nfad.export import network_to_onnx, open_session, run_session
from nfad.network import NeuralClassifier
from nfad.quantize import VARIANTS, compare_variants, plot_throughput, plot_variants, quantize_network, session_memory
from test_export import X, Y


@pytest.fixture(scope="module")
def network(): return NeuralClassifier(hidden=(32, 48), dropout=(0.1,), epochs=6, batch_size=64).fit(X, Y)


@pytest.mark.parametrize("kind", VARIANTS)
def test_variants_are_close(network, kind, tmp_path):
    graph = network_to_onnx(network)
    path = quantize_network(graph, kind, X, tmp_path / "a" / "n.onnx")
    logits, exact = run_session(open_session(path), X), network.decision_function(X)
    assert np.mean(logits.argmax(axis=1) == exact.argmax(axis=1)) > (0.999 if kind == "float32" else 0.93)
    assert [p.name for p in path.parent.iterdir()] == ["n.onnx"]


def test_int8_is_small(tmp_path):
    model = NeuralClassifier(transform="log", epochs=1, batch_size=64).fit(X, Y)
    graph = network_to_onnx(model)
    sizes = {kind: quantize_network(graph, kind, X, tmp_path / "n.onnx").stat().st_size for kind in VARIANTS}
    assert sizes["dynamic int8"] <= 0.35 * sizes["float32"] and sizes["static int8"] <= 0.35 * sizes["float32"]
    with pytest.raises(ValueError, match="kind must be"): quantize_network(graph, "int4", X, tmp_path / "x.onnx")


def test_table(network, tmp_path):
    paths = {kind: quantize_network(network_to_onnx(network), kind, X, tmp_path / f"{i}.onnx") for i, kind in enumerate(VARIANTS[:2])}
    table, speed = compare_variants(paths, network.classes_, Y, X, batches=(1, 64), threads=1)
    assert table.loc["float32", "agreement"] == 1 and (table["latency_p50_ms"] <= table["latency_p99_ms"]).all()
    assert speed.shape == (2, 2) and (speed > 0).all(axis=None) and (table["peak_memory_mb"] > 0).all()
    assert np.isclose(table.loc["float32", "accuracy"], network.score(X, Y))


def test_memory_grows_with_the_batch(tmp_path):
    path = quantize_network(network_to_onnx(NeuralClassifier(hidden=(64,), epochs=1).fit(X, Y)), "float32", X, tmp_path / "n.onnx")
    assert session_memory(path, 5, 100_000) > session_memory(path, 5, 10) + 20  # 100,000 x 64 numbers of 4 bytes


def test_pictures():
    import matplotlib.pyplot as plt
    speed = pd.DataFrame({"a": [1.0, 10.0], "b": [2.0, 5.0]}, index=[1, 64])
    table = pd.DataFrame({"size_mb": [0.4, 0.1], "accuracy": [0.8, 0.7]}, index=["a", "b"])
    left, right = plot_throughput(speed, plt.figure().gca()), plot_variants(table, plt.figure().gca())
    assert len(left.lines) == 2 and left.get_xscale() == "log" and len(right.collections) == 2
    plt.close("all")
