"""Laws of the network: folding, compiling and files change nothing; parameters out of range are refused."""
import numpy as np
import optax
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from nfad.core import read_header, write_model
from nfad.network import (ACTIVATIONS, NETWORK_FORMAT, NeuralClassifier, class_weights, fold_network, folded_logits,
                          init_network, make_epoch, make_step, network, plot_learning, _State)

SMALL = dict(transform="standard", hidden=(16, 16), dropout=(0.1,), epochs=8, batch_size=64, learning_rate=0.02)


def blobs(n=300, k=3, seed=0):
    "Records around k centers."
    rng = np.random.default_rng(seed)
    code = rng.integers(0, k, n)
    X = pd.DataFrame(rng.normal(size=(n, 4)) + 3 * np.eye(k, 4)[code], columns=list("abcd"))
    return X, np.array([f"class {c}" for c in code])


@pytest.fixture(scope="module")
def fitted():
    X, y = blobs()
    return NeuralClassifier(**SMALL).fit(X, y)


def law_folding_changes_nothing(fold):
    import jax
    for seed in range(3):
        layers, stats = init_network(jax.random.key(seed), (6, 8, 5, 3))
        rng = np.random.default_rng(seed)
        moments = lambda n: {"mean": rng.normal(size=n).astype(np.float32), "var": rng.uniform(0.5, 2, n).astype(np.float32)}
        stats = [moments(len(s["mean"])) for s in stats]
        x = rng.normal(size=(20, 6)).astype(np.float32)
        for activation in ("relu", "elu"):
            expected = network(layers, stats, x, activation)[0]
            assert np.allclose(folded_logits(fold(layers, stats), x, activation), expected, atol=1e-4)


def test_folding(): law_folding_changes_nothing(fold_network)


def test_folding_catches_a_forgotten_batch_norm():
    def forgetful(layers, stats): return [(np.asarray(layer["w"]), np.asarray(layer["b"])) for layer in layers]
    with pytest.raises(AssertionError): law_folding_changes_nothing(forgetful)


def law_epoch_is_a_loop_of_steps(make):
    "An epoch in one compiled function gives what the same batches give one after another."
    import jax
    import jax.numpy as jnp
    from functools import partial
    rng = np.random.default_rng(0)
    X, t = jnp.asarray(rng.normal(size=(200, 4)), jnp.float32), jnp.asarray(rng.integers(0, 3, 200), jnp.int32)
    weights, adam, rates = np.array([1.0, 2.0, 0.5], np.float32), optax.scale_by_adam(), np.linspace(0.01, 0.03, 5).astype(np.float32)
    for activation in ACTIVATIONS:
        logits, key = partial(network, activation=activation), jax.random.key(1)
        layers, stats = init_network(jax.random.key(0), (4, 8, 6, 3))
        carry, step = (layers, stats, adam.init(layers)), make_step(logits, adam, jnp.asarray(weights), ())
        rows = jax.random.permutation(jax.random.split(key)[0], 200).reshape(5, 40)
        for batch, rate in zip(rows, rates, strict=True):
            carry, _ = step(carry, X[batch], t[batch], jnp.zeros(2, jnp.int32), None, rate)
        copy = lambda: jax.tree.map(lambda w: jnp.array(w, copy=True), (layers, stats))
        state = _State(*copy(), adam.init(layers), copy(), jnp.float32(np.inf))
        state, _ = make(logits, adam, 40, weights, ())(state, key, rates, X, t, X, t)
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-4), carry[:2], tuple(state[:2]))))


def test_epoch(): law_epoch_is_a_loop_of_steps(make_epoch)


def test_epoch_catches_forgotten_class_weights():
    def forgetful(logits, optimizer, n, weights, dropout): return make_epoch(logits, optimizer, n, np.ones_like(weights), dropout)
    with pytest.raises(AssertionError): law_epoch_is_a_loop_of_steps(forgetful)


def test_sklearn_contract(fitted):
    X, y = blobs(seed=1)
    assert fitted.classes_.tolist() == ["class 0", "class 1", "class 2"] and fitted.score(X, y) > 0.85
    P = fitted.predict_proba(X)
    assert P.shape == (300, 3) and np.allclose(P.sum(axis=1), 1) and (fitted.classes_[P.argmax(axis=1)] == fitted.predict(X)).all()
    assert clone(fitted).get_params() == fitted.get_params()
    assert cross_val_score(NeuralClassifier(**SMALL), X, y, cv=2).min() > 0.8
    assert np.allclose(fitted.predict_proba(X[["d", "c", "b", "a"]]), P)  # columns by name


def test_same_seed_same_network(fitted):
    X, y = blobs()
    again = NeuralClassifier(**SMALL).fit(X, y)
    assert (again.decision_function(X) == fitted.decision_function(X)).all()


def test_files(fitted, tmp_path):
    X, _ = blobs(seed=2)
    path = fitted.save(tmp_path / "n.safetensors")
    again = NeuralClassifier.load(path)
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all() and again.history_.equals(fitted.history_)
    assert read_header(path)["format"] == NETWORK_FORMAT and len(read_header(path)["sha256"]) == 64
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="cannot be read"): NeuralClassifier.load(path)
    with pytest.raises(FileNotFoundError): NeuralClassifier.load(tmp_path / "none.safetensors")


def test_a_changed_weight_is_seen(fitted, tmp_path):
    path = fitted.save(tmp_path / "n.safetensors")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="hash"): NeuralClassifier.load(path)


def law_no_flip_is_silent(load, path, predict, n=400):
    "After any one bit is flipped a file is refused, or predicts the same bits."
    content, wanted, rng = path.read_bytes(), predict(load(path)), np.random.default_rng(0)
    for place in [*range(12), *rng.integers(0, len(content), n)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try: same = np.array_equal(predict(load(path)), wanted)
        except ValueError as error: same = path.name in str(error)
        assert same, place


def test_law_no_flip_is_silent(fitted, tmp_path):
    X, _ = blobs(seed=2)
    law_no_flip_is_silent(NeuralClassifier.load, fitted.save(tmp_path / "n.safetensors"), lambda network: network.predict_proba(X))


def test_law_no_flip_is_silent_catches_a_file_without_hash(fitted, tmp_path, monkeypatch):
    X, _ = blobs(seed=2)
    monkeypatch.setattr("nfad.core._hash_model", lambda arrays, header: "0" * 64)
    with pytest.raises(AssertionError):
        law_no_flip_is_silent(NeuralClassifier.load, fitted.save(tmp_path / "n.safetensors"), lambda network: network.predict_proba(X))


@pytest.mark.parametrize("change, message", [(lambda a, h: h.update(classes=["a" * 10**6, "b", "c"]), "200 letters"), (lambda a, h: h.update(classes=["a", "a", "b"]), "different"),
                                             (lambda a, h: h.update(classes=[["a"], ["b"], ["c"]]), "classes"), (lambda a, h: h.update(classes=["a", 1, 2.0]), "classes"),
                                             (lambda a, h: h.update(history={"training": ["low"]}), "low"), (lambda a, h: a.update({"w.0": a["w.0"].astype(np.float64)}), "float32"),
                                             (lambda a, h: h["parameters"].update(hidden=[16]), "do not fit"),
                                             (lambda a, h: a.pop("b.0"), "b.0"),
                                             (lambda a, h: h["parameters"].update(activation="tanh"), "activation"),
                                             (lambda a, h: a["w.0"].fill(np.nan), "finite"),
                                             (lambda a, h: a.update({"b.0": a["b.0"][:1]}), "do not fit"), (lambda a, h: h.pop("classes"), "classes")])
def test_a_file_that_makes_no_network_is_refused(fitted, tmp_path, change, message):
    "Hash and container are right, and what they hold is not a network."
    arrays, transform = fitted.transform_.get_state()
    arrays = {f"transform.{name}": value for name, value in arrays.items()}
    for i, (w, b) in enumerate(fitted.weights_): arrays |= {f"w.{i}": w.copy(), f"b.{i}": b}
    parameters = fitted.get_params() | {"hidden": list(fitted.hidden), "dropout": list(fitted.dropout)}
    header = {"parameters": parameters, "transform": transform, "classes": fitted.classes_.tolist(), "history": {}}
    change(arrays, header)
    path = write_model(tmp_path / "n.safetensors", arrays, header, NETWORK_FORMAT)
    with pytest.raises(ValueError, match=message): NeuralClassifier.load(path)


def test_an_unfitted_network_says_so(tmp_path):
    for act in (lambda net: net.predict(np.zeros((2, 2))), lambda net: net.save(tmp_path / "n.safetensors")):
        with pytest.raises(ValueError, match="not fitted"): act(NeuralClassifier())


BAD = {"activation": "tanh", "class_weight": "x", "epochs": 0, "dropout": (1.5,), "learning_rate": -1, "validation_fraction": 1}


@pytest.mark.parametrize("name", BAD)
def test_parameters_are_checked(name):
    X, y = blobs(60)
    with pytest.raises(ValueError, match=name): NeuralClassifier(**{name: BAD[name]}).fit(X, y)


def test_a_class_with_one_row_is_refused():
    X, y = blobs(60)
    y[:] = "a"
    with pytest.raises(ValueError, match="two classes"): NeuralClassifier(**SMALL).fit(X, y)
    with pytest.raises(ValueError, match="one length"): NeuralClassifier(**SMALL).fit(X, y[:-1])


def test_class_weights():
    codes = np.repeat([0, 1], [90, 10])
    assert np.allclose(class_weights(codes, "balanced") * [90, 10], 50) and np.allclose(class_weights(codes, "none"), 1)
    assert np.allclose(class_weights(codes, "sqrt") ** 2, class_weights(codes, "balanced"))


def test_picture_of_learning(fitted):
    import matplotlib.pyplot as plt
    axes = plot_learning(fitted.history_)
    best = fitted.history_["held_out"].argmin()
    assert axes.lines[2].get_xdata()[0] == best + 1 and f"{fitted.history_['held_out_accuracy'][best]:.3f}" in axes.lines[2].get_label()
    plt.close("all")
