"""Small records and flows, and laws that more than one test file holds them to."""
import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from nfad.architectures import init_params
from nfad.detector import FlowDetector
from nfad.engine import Bin, search_bin
from nfad.flow import autoregressive_masks

BOUND = 5.0
STEADY = 2 * BOUND  # beyond it a feature no longer steers the terms of others, and its own tail alone decides
UNBOUNDED = ["log", "standard", "quantile", "none"]
quick = partial(FlowDetector, statistic="log_prob", hidden=16, epochs=6, batch_size=64)


def records(n=320, seed=0):
    "Benign-like records: two heavy tails that move together, a counter, an exponential, and a constant."
    rng = np.random.default_rng(seed)
    a = rng.normal(0, 1, n)
    return pd.DataFrame({"duration": np.exp(2 * a + 5), "bytes": np.exp(1.5 * a + rng.normal(0, 0.3, n)),
                         "flags": rng.integers(0, 4, n).astype(float), "gap": rng.exponential(100, n), "version": np.full(n, 4.0)})


X = records()
MILD = np.log(X[["duration", "bytes"]])  # on heavier tails pzflow's default flow diverges at once


def wild_params(d, seed=0, size=0.1, hidden=16, n_layers=2):
    "Random weights, about as far from the identity as those of a trained flow."
    key, rng = jax.random.PRNGKey(seed), np.random.default_rng(seed)
    params = init_params(key, d, n_layers, hidden, 8)
    return params | {"w_out": jnp.asarray(rng.normal(0, size, params["w_out"].shape), jnp.float32),
                     "b_out": jnp.asarray(rng.normal(0, size, params["b_out"].shape), jnp.float32)}


def masks_for(params, order): return autoregressive_masks(order, params["w_in"].shape[1])


def points(n, d, seed=0, scale=3.0): return jnp.asarray(np.random.default_rng(seed).normal(0, scale, (n, d)), jnp.float32)


def far_out(detector, frame, feature, sign):
    "One record, repeated, with ever stranger values of one feature: from `STEADY` on, in scaled units, and up to at least 1e12."
    values = sign * np.geomspace(np.abs(frame[feature]).max() + 1, 1e24, 80)
    rows = pd.concat([frame.iloc[[5]]] * len(values), ignore_index=True).assign(**{feature: values})
    if feature in detector.constant_: return rows
    place = list(detector.transform_.feature_names_out_).index(feature)
    return rows[np.abs(detector.transform_.transform(rows)[:, place]) > STEADY][:60]


def law_strange_is_ordered(detector, frame, features):
    "Scores are finite and rise strictly with the strangeness of any one feature, beyond `STEADY`."
    for feature in features:
        for sign in (1, -1):
            rows = far_out(detector, frame, feature, sign)
            scores = detector.anomaly_score(rows)
            assert len(rows) > 5 and np.isfinite(scores).all(), feature
            assert (np.diff(scores) > 0).all(), (feature, sign)


def law_constants_are_kept(detector, frame, constant):
    "A constant is reported, and breaking it makes every record stranger, most of all those that are strange already."
    scores = detector.anomaly_score(frame)
    assert detector.constant_ == [constant]
    rows = scores >= np.median(scores)
    for value in (0.0, 3.9, 5.0, -1.0, 1e12):
        broken = detector.anomaly_score(frame.assign(**{constant: value}))
        assert (broken > scores).all() and (broken[rows] > scores.max()).all() and np.isfinite(broken).all(), value


def law_round_trip(detector, load, path, frame):
    "A loaded detector is the saved one, bit for bit."
    other = load(path)
    for method in ("anomaly_score", "log_prob_terms", "to_latent", "decision_function", "predict"):
        assert np.array_equal(getattr(other, method)(frame), getattr(detector, method)(frame)), method
    assert other.get_params() == detector.get_params() and other.history_ == detector.history_
    assert np.array_equal(other.calibration_scores_, detector.calibration_scores_) and other.offset_ == detector.offset_
    assert list(other.feature_names_in_) == list(detector.feature_names_in_) and other.constant_ == detector.constant_
    assert (other.n_train_, other.constant_cost_, other.n_features_in_) == (detector.n_train_, detector.constant_cost_, detector.n_features_in_)
    assert other.sample(5, seed=2).equals(detector.sample(5, seed=2))


def strange(frame): return pd.concat([frame, frame * 1e6, -frame], ignore_index=True)


# --- records whose attacks break the dependence of two features -----------------------------------------------

ATTACK = np.repeat(["benign", "odd"], [300, 200])  # classes of the test part below


def odd_records(n, seed=0, attack=False, gap=0):
    "Two dependent features, a flag and a constant; attacks break the dependence; a gap makes two kinds of them."
    rng = np.random.default_rng(seed)
    size = np.exp(rng.normal(4, 1, n) + (rng.choice([0, gap], n) if gap else 0))
    other = np.exp(rng.normal(4, 1, n)) * 30 if attack else size * np.exp(0.1 * rng.normal(size=n))
    return pd.DataFrame({"size": size, "other": other, "flag": rng.integers(0, 2, n), "still": np.zeros(n)})


def odd_parts(gap=0):
    "Train, reference, calibration and test records; 200 of the test are attacks."
    test = pd.concat([odd_records(300, 4, gap=gap), odd_records(200, 5, attack=True, gap=gap)], ignore_index=True)
    return {"train": odd_records(500, 1, gap=gap), "reference": odd_records(200, 2, gap=gap), "calibration": odd_records(300, 3, gap=gap), "test": test}


# --- curves and their derivatives -----------------------------------------------------------------------------

ORDERS = [(0, 1, 2), (2, 0, 1)]
BINS, SIZES_OF_RAW = (3, 8), (0.1, 1, 4)


def plain_bin(value, raw, by_height=False):
    "The bin of one value by search, also among the heights; differentiated as it stands."
    if not by_height: return search_bin(value, raw)
    n_bins = (len(raw) + 1) // 3
    turned = search_bin(value, jnp.concatenate([raw[n_bins:2 * n_bins], raw[:n_bins], raw[2 * n_bins:]]))
    return Bin(turned.y0, turned.x0, turned.height, turned.width, turned.raw_s0, turned.raw_s1)


def curves(n_bins, size, n=40, seed=0):
    "Random values inside, none of them on an edge, and the numbers of a curve for each; double precision."
    rng = np.random.default_rng([seed, n_bins])
    return rng.uniform(-0.999 * BOUND, 0.999 * BOUND, n), rng.normal(0, size, (3 * n_bins - 1, n)), rng.normal(size=(6, n))


def weighted(function):
    "Values, and gradient of their weighted sum by value and raw numbers; compiled."
    def total(x, raw, weights): return sum((w * part).sum() for w, part in zip(weights, function(x, raw)))
    return jax.jit(lambda x, raw, weights: (tuple(function(x, raw)), jax.grad(total, argnums=(0, 1))(x, raw, weights)))


def law_same_derivatives(ours, theirs, tolerance=1e-7):
    "Values and gradients of two functions of value and raw numbers agree, in double precision."
    with jax.enable_x64(True):
        ours, theirs = weighted(ours), weighted(jax.vmap(theirs, (0, 1)))
        for n_bins in BINS:
            for size in SIZES_OF_RAW:
                got, wanted = (jax.tree.leaves(f(*curves(n_bins, size))) for f in (ours, theirs))
                assert len(got) == len(wanted) and all(np.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(got, wanted)), (n_bins, size)


def slope_of(curve, x):
    "What (value, aux) = curve(x) gives for every element of x, and the slope of the value there."
    value, pull, aux = jax.vjp(curve, x, has_aux=True)
    return value, pull(jnp.ones_like(value))[0], aux


SIZES = [0.0, 1.0, 4.999, 5.0, 5.001, 9.999, 10.0, 10.001, 11.0, 50.0, 1e3, 1e6, 1e12, 1e30]


def law_finite_gradients(gradient):
    "The loss has a finite gradient wherever a record lies."
    for size in SIZES:
        for sign in (1, -1):
            x = jnp.asarray([[0.3, -0.2], [sign * size, 0.1], [0.1, sign * size], [sign * size, size]], jnp.float32)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(x))), sign * size


# --- processes and compilations -------------------------------------------------------------------------------

COMPILE = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compilations():
    "A list that grows with each function that XLA is asked to compile."
    seen = []
    def listen(event, seconds, **_):
        if event == COMPILE: seen.append(seconds)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try: yield seen
    finally: jax.monitoring.unregister_event_duration_listener(listen)


def run_child(script, *args, **environment):
    "Runs a script in a fresh process."
    done = subprocess.run([sys.executable, "-c", script, *map(str, args)], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
