"""Laws of nfad.train: the flow, its training, the detector and its file."""
import builtins
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import warnings
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from pzflow import Flow
from pzflow.bijectors import NeuralSplineCoupling, ShiftBounds, UniformDequantizer
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.stats import t as scipy_t
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from nfad import train
from nfad.train import (BLOCK, BLOCKS, FLOOR, PRESETS, ArraySource, AutoregressiveSpline, FlowDetector, History, ParquetRecords, ParquetSource,
                        StudentT, TrainingDiverged, Bin, autoregressive_masks, autoregressive_terms, bin_shares, build_flow, find_bin, flow_forward,
                        flow_inverse, in_blocks, init_params, inverse_spline, load_detector, mask_params, noisy_blocks, one_cycle, plan_blocks,
                        network_width, prepare, spline, spline_flow, terms_function, train_flow, train_run)

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


@pytest.fixture(scope="module")
def fitted():
    "One small detector per transform, trained on first use."
    made = {}

    def get(transform="log"):
        if transform not in made: made[transform] = quick(transform=transform).fit(X)
        return made[transform]
    return get


@pytest.fixture(scope="module")
def detector(fitted): return fitted()


@pytest.fixture(scope="module")
def pair(): return quick().fit(X[["duration", "bytes"]])


MILD = np.log(X[["duration", "bytes"]])  # on heavier tails pzflow's default flow diverges at once


@pytest.fixture(scope="module")
def paper(): return FlowDetector.preset("paper", epochs=2, batch_size=144).fit(MILD)


@pytest.fixture(scope="module")
def trio(): return quick(n_members=3, epochs=3, feature_order="shuffled").fit(X)


@pytest.fixture
def untrained(monkeypatch):
    "Skips the training itself, for tests of what is around it."
    monkeypatch.setattr(train, "train_flow", lambda *args, **settings: History([1.0], [1.0], 1, 0.0))


# --- the map ------------------------------------------------------------------------------------------------

def wild_params(d, seed=0, size=0.1, hidden=16, n_layers=2):
    "Random weights, about as far from the identity as those of a trained flow."
    key, rng = jax.random.PRNGKey(seed), np.random.default_rng(seed)
    params = init_params(key, d, n_layers, hidden, 8)
    return params | {"w_out": jnp.asarray(rng.normal(0, size, params["w_out"].shape), jnp.float32),
                     "b_out": jnp.asarray(rng.normal(0, size, params["b_out"].shape), jnp.float32)}


def masks_for(params, order): return autoregressive_masks(order, params["w_in"].shape[1])


def forward(params, x, order):  # (n, d) -> latent (n, d), log slopes (n, d)
    return flow_forward(params, masks_for(params, order), x, BOUND)


def backward(params, u, order): return flow_inverse(params, masks_for(params, order), u, BOUND)


def points(n, d, seed=0, scale=3.0): return jnp.asarray(np.random.default_rng(seed).normal(0, scale, (n, d)), jnp.float32)


ORDERS = [(0, 1, 2), (2, 0, 1)]


def law_inverse(forward, backward, tolerance=1e-4):
    "Going to the latent space and back returns the record, inside and outside the splines."
    for order in ORDERS:
        params, x = wild_params(3, seed=order[0], size=0.05), jnp.concatenate([points(48, 3), 40 * points(16, 3, 1)])
        error = np.abs(backward(params, forward(params, x, order)[0], order) - x) / np.maximum(np.abs(x), 1)
        assert error.max() < tolerance, error.max()


def test_law_inverse(): law_inverse(forward, backward)


def test_law_inverse_catches_layers_in_the_wrong_order():
    def wrong(params, u, order): return backward(jax.tree.map(lambda w: w[::-1], params), u, order)
    with pytest.raises(AssertionError): law_inverse(forward, wrong)


def test_trained_flow_inverts(detector):
    Z = detector.transform_.transform(X[:256])
    back = detector.flow_._inverse(detector.flow_._params[1], jnp.asarray(detector.to_latent(X[:256])), conditions=None)[0]
    assert np.abs(np.asarray(back) - Z).max() < 1e-4


def law_log_det(forward):
    "The sum of the log slopes is the log determinant that automatic differentiation finds."
    for order in ORDERS:
        params, x = wild_params(3, seed=order[0]), points(64, 3, 2)
        one = lambda point: spline_flow(mask_params(params, masks_for(params, order)), point[:, None], BOUND)[0][:, 0]
        jacobian = jax.jit(jax.vmap(jax.jacrev(one)))(x)
        sign, log_det = np.linalg.slogdet(np.asarray(jacobian, dtype=np.float64))
        assert (sign > 0).all()
        assert np.abs(log_det - np.asarray(forward(params, x, order)[1]).sum(axis=1)).max() < 1e-3


def test_law_log_det(): law_log_det(forward)


def test_law_log_det_catches_the_slopes_of_one_layer():
    def wrong(params, x, order):
        u, log_slopes = forward(params, x, order)
        return u, log_slopes - forward(jax.tree.map(lambda w: w[:1], params), x, order)[1]
    with pytest.raises(AssertionError): law_log_det(wrong)


def law_autoregressive(forward):
    "A feature moves neither latent coordinates nor terms of the features before it, and always its own."
    for order in ORDERS:
        params, x = wild_params(3, seed=order[0]), points(64, 3, 3, scale=2.0)
        u, log_slopes = map(np.asarray, forward(params, x, order))
        for place, feature in enumerate(order):
            moved_u, moved_slopes = map(np.asarray, forward(params, x.at[:, feature].add(0.5), order))
            before = list(order[:place])
            assert np.array_equal(u[:, before], moved_u[:, before])
            assert np.array_equal(log_slopes[:, before], moved_slopes[:, before])
            assert (moved_u[:, feature] >= u[:, feature]).all() and (moved_u[:, feature] > u[:, feature]).mean() > 0.9
            assert place == 2 or (moved_u[:, order[place + 1]] != u[:, order[place + 1]]).any()


def test_law_autoregressive(): law_autoregressive(forward)


def test_law_autoregressive_catches_missing_masks():
    ones = jax.tree.map(np.ones_like, autoregressive_masks((0, 1, 2), 16))
    with pytest.raises(AssertionError): law_autoregressive(lambda params, x, order: flow_forward(params, ones, x, BOUND))


@pytest.mark.parametrize("d", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("hidden", [1, 4, 33])
def test_masks_leave_every_feature_only_those_before_it(d, hidden):
    order = np.random.default_rng(d).permutation(d)
    sees, passes, reads = autoregressive_masks(order, hidden)
    reach = (reads @ passes @ sees > 0)[np.ix_(order, order)]
    assert not np.triu(reach).any()
    if hidden >= d: assert reach[np.tril_indices(d, -1)].all()  # and those fully, when the network is wide enough


def law_order_of_terms(terms, features, frame):
    "Changing a feature never changes the terms of those before it."
    before = terms(frame)
    for j, feature in enumerate(features):
        after = terms(frame.assign(**{feature: frame[feature] * 3 + 1}))
        assert np.array_equal(before[:, :j], after[:, :j]), feature
        assert not np.array_equal(before[:, j], after[:, j]), feature


def test_law_order_of_terms(detector):
    law_order_of_terms(detector.log_prob_terms, list(detector.transform_.feature_names_out_), X[:64])


def test_law_order_of_terms_catches_another_order(detector):
    with pytest.raises(AssertionError): law_order_of_terms(lambda f: detector.log_prob_terms(f)[:, ::-1], list(X)[:4], X[:64])


def test_feature_order_is_the_order_of_the_factorization(untrained):
    order = ["gap", "flags", "version", "bytes", "duration"]  # a constant among them is skipped
    d = quick(feature_order=order, epochs=1).fit(X)
    assert list(d.transform_.feature_names_out_) == ["duration", "bytes", "flags", "gap"]  # terms stay in the frame's order
    d.flow_._params = (d.flow_._params[0], wild_params(4))  # with fresh weights no feature steers another
    law_order_of_terms(lambda frame: d.log_prob_terms(frame)[:, [3, 2, 1, 0]], ["gap", "flags", "bytes", "duration"], X[:64])
    for wrong in (order[:2], [*order, "gap"]):
        with pytest.raises(ValueError, match="feature_order"): quick(feature_order=wrong, epochs=1).fit(X)


def law_monotone_curve(curve):
    "Increasing and continuous, the identity outside, with the slope that differences show."
    rng = np.random.default_rng(0)
    x = np.unique(np.concatenate([np.linspace(-9, 9, 4001), [-BOUND, BOUND]])).astype(np.float32)
    for size in (0.1, 1, 3):
        raw = jnp.asarray(np.tile(rng.normal(0, size, (23, 1)), (1, len(x))), jnp.float32)
        y, log_slope = map(np.asarray, curve(jnp.asarray(x), raw, BOUND))
        outside = np.abs(x) > BOUND
        assert (np.diff(y) >= 0).all() and np.array_equal(y[outside], x[outside]) and not log_slope[outside].any()
        assert abs(np.trapezoid(np.exp(log_slope.astype(np.float64)), x) - 18) < 0.05
        assert np.abs(y[np.abs(x) == BOUND] - x[np.abs(x) == BOUND]).max() < 1e-4


def test_law_monotone_curve(): law_monotone_curve(spline)


def test_law_monotone_curve_catches_a_scaled_tail():
    with pytest.raises(AssertionError):
        law_monotone_curve(lambda x, raw, bound: tuple(jnp.where(jnp.abs(x) > bound, 1.1 * v, v) for v in spline(x, raw, bound)))


# --- the spline, against a reference ------------------------------------------------------------------------

def naive_edges(raw, x_or_y):
    "Edges of the bins along one axis of the unit box: a softmax with a floor, added up."
    n_bins = (len(raw) + 1) // 3
    shares = FLOOR + (1 - FLOOR * n_bins) * jax.nn.softmax(raw[x_or_y * n_bins:(x_or_y + 1) * n_bins])
    return jnp.concatenate([jnp.zeros(1), jnp.cumsum(shares)])


def naive_bin(value, raw, by_height=False):
    "The bin of one value, by search; differentiated as it stands."
    x, y = naive_edges(raw, 0), naive_edges(raw, 1)
    slopes = jnp.concatenate([jnp.zeros(1), raw[2 * (len(x) - 1):], jnp.zeros(1)])
    k = jnp.clip(jnp.searchsorted(y if by_height else x, value, side="right") - 1, 0, len(x) - 2)
    return Bin(x[k], y[k], x[k + 1] - x[k], y[k + 1] - y[k], slopes[k], slopes[k + 1])


def naive_spline(x, raw, bound):
    "Eq. 4 and 5 of Durkan et al. (2019) for one value in [-B, B]."
    b = naive_bin((x + bound) / (2 * bound), raw)
    left, right = (FLOOR + jax.nn.softplus(number + jnp.log(jnp.expm1(1 - FLOOR))) for number in (b.left, b.right))
    t, r = ((x + bound) / (2 * bound) - b.x) / b.width, b.height / b.width
    bottom = r + (left + right - 2 * r) * t * (1 - t)
    y = b.y + b.height * (r * t**2 + left * t * (1 - t)) / bottom
    return 2 * bound * y - bound, jnp.log(r**2 * (right * t**2 + 2 * r * t * (1 - t) + left * (1 - t)**2) / bottom**2)


def curves(n_bins, size, n=40, seed=0):
    "Random values inside, none of them on an edge, and the numbers of a curve for each; double precision."
    rng = np.random.default_rng([seed, n_bins])
    return rng.uniform(-0.999 * BOUND, 0.999 * BOUND, n), rng.normal(0, size, (3 * n_bins - 1, n)), rng.normal(size=(6, n))


BINS, SIZES_OF_RAW = (3, 8), (0.1, 1, 4)


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


@pytest.mark.parametrize("by_height", [False, True])
def test_law_same_derivatives_of_a_bin(by_height):
    box = lambda find: lambda x, raw: find(jax.lax.stop_gradient(x) / (2 * BOUND) + 0.5, raw, by_height)
    law_same_derivatives(box(find_bin), box(naive_bin))


def test_law_same_derivatives_of_the_spline():
    law_same_derivatives(lambda x, raw: spline(x, raw, BOUND), lambda x, raw: naive_spline(x, raw, BOUND))


def test_law_same_derivatives_catches_edges_held_fast():
    def wrong(x, raw):
        n_bins = (len(raw) + 1) // 3
        return spline(x, jnp.concatenate([jax.lax.stop_gradient(raw[:n_bins]), raw[n_bins:]]), BOUND)
    with pytest.raises(AssertionError): law_same_derivatives(wrong, lambda x, raw: naive_spline(x, raw, BOUND))


def law_differences(curve):
    "The derivative is what differences show, along a random direction of values and raw numbers."
    with jax.enable_x64(True):
        total = jax.jit(lambda x, raw, weights: sum((w * part).sum() for w, part in zip(weights, curve(x, raw, BOUND))))
        gradient, rng = jax.jit(jax.grad(total, argnums=(0, 1))), np.random.default_rng(2)
        for n_bins in BINS:
            for size in SIZES_OF_RAW:
                x, raw, weights = curves(n_bins, size, seed=1)
                way, turn = rng.normal(size=x.shape), rng.normal(size=raw.shape)
                g, h = gradient(x, raw, weights)
                slope, up, down = float((g * way).sum() + (h * turn).sum()), *(float(total(x + e * way, raw + e * turn, weights)) for e in (1e-6, -1e-6))
                assert abs((up - down) / 2e-6 - slope) < 1e-4 * max(abs(slope), 1), (n_bins, size)


def test_law_differences(): law_differences(spline)


def test_law_differences_catches_a_log_slope_without_gradient():
    with pytest.raises(AssertionError): law_differences(lambda x, raw, bound: (spline(x, raw, bound)[0], jax.lax.stop_gradient(spline(x, raw, bound)[1])))


def slope_of(curve, x):
    "What (value, aux) = curve(x) gives for every element of x, and the slope of the value there."
    value, pull, aux = jax.vjp(curve, x, has_aux=True)
    return value, pull(jnp.ones_like(value))[0], aux


def law_inverse_spline(inverse_spline):
    "The curve's inverse, inside and outside, to the precision of the numbers; its slope is one over the curve's."
    with jax.enable_x64(True):
        there = jax.jit(lambda x, raw: spline(x, raw, BOUND))
        back = jax.jit(lambda y, raw: slope_of(lambda y: (inverse_spline(y, raw, BOUND), 0.0), y)[:2])
        for n_bins in BINS:
            for size in SIZES_OF_RAW:
                x, raw, _ = curves(n_bins, size, seed=3)
                x[:6] = [-BOUND, BOUND, -7.0, 7.0, 1e12, -1e12]
                y, log_slope = there(x, raw)
                again, slope = back(y, raw)
                assert (np.abs(again - x) * np.exp(np.minimum(log_slope, 0)) < 1e-8).all()
                assert np.allclose((slope * np.exp(log_slope))[6:], 1, rtol=1e-4), (n_bins, size)


def test_law_inverse_spline(): law_inverse_spline(inverse_spline)


def test_law_inverse_spline_catches_a_curve_with_axes_swapped():
    def wrong(y, raw, bound):
        n_bins = (len(raw) + 1) // 3
        return inverse_spline(y, jnp.concatenate([raw[n_bins:2 * n_bins], raw[:n_bins], raw[2 * n_bins:]]), bound)
    with pytest.raises(AssertionError): law_inverse_spline(wrong)


def law_shares(shares):
    "Positive shares that sum to one, whatever the numbers."
    shares = jax.jit(shares)
    for n_bins in (2, 8):
        for size in (0.0, 1.0, 1e3, 1e30, 1e38):
            raw = np.random.default_rng(n_bins).uniform(-size, size, (n_bins, 20)).astype(np.float32)
            got = np.array(shares(raw))
            assert (got >= 0.999 * FLOOR).all() and np.abs(got.sum(axis=0) - 1).max() < 1e-5, (n_bins, size)


def test_law_shares(): law_shares(bin_shares)


def test_law_shares_catches_an_exponential_that_overflows():
    with pytest.raises(AssertionError): law_shares(lambda raw: [jnp.exp(r) / sum(map(jnp.exp, raw)) for r in raw])


# --- the density --------------------------------------------------------------------------------------------

def plane(reach, n):
    "A grid of n by n points on the square of side 2 * reach, and the area of one cell."
    side = np.linspace(-reach, reach, n, dtype=np.float32)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2), float((2 * reach / (n - 1)) ** 2)


def law_integrates_to_one(log_prob, grid, cell):
    "A density sums to one over its plane."
    total = np.exp(np.asarray(log_prob(grid), dtype=np.float64)).sum() * cell
    assert abs(total - 1) < 0.02, total


def log_density(params, x, order): return (StudentT(x.shape[1]).log_prob_terms(forward(params, x, order)[0]) + forward(params, x, order)[1]).sum(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_law_integrates_to_one_in_one_dimension(seed):
    line = np.linspace(-30, 30, 60001, dtype=np.float32)[:, None]
    law_integrates_to_one(lambda x: log_density(wild_params(1, seed, size=0.5), jnp.asarray(x), (0,)), line, 1e-3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_law_integrates_to_one_in_two_dimensions(order):
    law_integrates_to_one(lambda x: log_density(wild_params(2, order[0]), jnp.asarray(x), order), *plane(10, 401))


def test_law_integrates_to_one_for_a_trained_flow(pair):
    law_integrates_to_one(lambda Z: in_blocks(pair.terms_, Z)[0].sum(axis=1), *plane(12, 481))


def test_law_integrates_to_one_catches_a_forgotten_determinant():
    with pytest.raises(AssertionError):
        law_integrates_to_one(lambda x: StudentT(2).log_prob(None, forward(wild_params(2), jnp.asarray(x), (0, 1))[0]), *plane(10, 401))


def law_student_t(log_prob_terms):
    "Student's t as scipy computes it, finite and never rising however far out."
    u = np.concatenate([[0], np.geomspace(1e-8, 3e38, 600)]).astype(np.float32)
    for df in (0.5, 1, 3, 5, 30):
        ours, theirs = np.asarray(log_prob_terms(df, jnp.asarray(u))), scipy_t.logpdf(u.astype(np.float64), df)
        assert np.isfinite(ours).all() and (np.diff(ours) <= 0).all()
        assert np.allclose(ours, theirs, rtol=2e-5, atol=2e-5)
        assert np.array_equal(ours, np.asarray(log_prob_terms(df, jnp.asarray(-u))))


def test_law_student_t(): law_student_t(lambda df, u: StudentT(1, df).log_prob_terms(u))


def test_law_student_t_catches_a_square_that_overflows():
    def naive(df, u): return scipy_t.logpdf(0, df) - (df + 1) / 2 * jnp.log1p(jnp.square(u) / df)
    with pytest.raises(AssertionError): law_student_t(naive)


def test_student_t_samples_follow_their_density():
    drawn = np.asarray(StudentT(2, 5.0).sample((), 4000, seed=0))
    assert drawn.shape == (4000, 2) and np.abs(np.quantile(drawn, [0.1, 0.5, 0.9]) - scipy_t.ppf([0.1, 0.5, 0.9], 5)).max() < 0.1


# --- design section 5, item 1: gradients --------------------------------------------------------------------

SIZES = [0.0, 1.0, 4.999, 5.0, 5.001, 9.999, 10.0, 10.001, 11.0, 50.0, 1e3, 1e6, 1e12, 1e30]


def law_finite_gradients(gradient):
    "The loss has a finite gradient wherever a record lies."
    for size in SIZES:
        for sign in (1, -1):
            x = jnp.asarray([[0.3, -0.2], [sign * size, 0.1], [0.1, sign * size], [sign * size, size]], jnp.float32)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(x))), sign * size


def loss_gradient(params, order=(0, 1)):
    "Gradient of the training loss by weights and by records."
    masks = masks_for(params, order)
    def loss(p, x): return -autoregressive_terms(p, masks, x, BOUND, 5.0)[0].sum(axis=1).mean()
    return jax.jit(lambda x: jax.grad(loss, argnums=(0, 1))(params, x))


def test_law_finite_gradients():
    law_finite_gradients(loss_gradient(wild_params(2, hidden=8)))


def coupling_gradient():
    "Gradient of the log density of one of pzflow's spline couplings."
    params, coupling, _ = NeuralSplineCoupling(hidden_dim=8)[0](jax.random.PRNGKey(0), 2)
    def loss(p, x):
        u, log_det = coupling(p, x, conditions=jnp.zeros((len(x), 1)))
        return (jnp.log1p(jnp.square(u / 1e20)).sum(axis=1) - log_det).mean()
    return jax.jit(lambda x: jax.grad(loss)(params, x))


def test_law_finite_gradients_catches_pzflow_couplings():
    gradient = coupling_gradient()
    with pytest.raises(AssertionError): law_finite_gradients(gradient)
    inside, outside = (jax.tree.leaves(gradient(jnp.asarray([[0.1, 0.0], [0.1, x]], jnp.float32))) for x in (9.9, 10.1))
    assert all(np.isfinite(leaf).all() for leaf in inside) and any(np.isnan(leaf).any() for leaf in outside)  # the trap starts at 2 B


TINY = [0.0, -0.0, 1e-45, -1e-45, 1e-40, 1.2e-38, 1e-20, 6e-8]
EDGES = [v for b in (BOUND, STEADY) for v in (b, np.nextafter(np.float32(b), 0), np.nextafter(np.float32(b), np.inf))]
HUGE = [1e6, 1e12, 1e19, 2e19, 1e30, float(np.finfo(np.float32).max)]


def hard_floats(params):
    "All pairs of floats on which arithmetic breaks, inner edges of the bins among them; (n, 2) float32."
    raw = np.asarray(params["b_out"], np.float64)[0].reshape(-1, 2)[:, 0]
    inner = 2 * BOUND * np.asarray(naive_edges(jnp.asarray(raw, jnp.float32), 0)) - BOUND
    values = np.array([*TINY, *EDGES, *HUGE, *(-np.array(EDGES + HUGE)), *inner], np.float32)
    return np.stack(np.meshgrid(values, values), axis=-1).reshape(-1, 2)


def law_hard_floats(evaluate, gradient):
    "Terms, latent coordinates and gradients are finite for every pattern of floats, alone or all at once; equal records score equally."
    params = wild_params(2, seed=4, size=0.3)
    params["w_out"] = params["w_out"].at[0, ::2].set(0)  # so that the bins of the first feature are where its biases say
    x = hard_floats(params)
    for part in evaluate(params, jnp.asarray(x)): assert np.isfinite(part).all()
    terms, _ = evaluate(params, jnp.asarray(np.repeat(x[:3], 40, axis=0)))
    assert all(len(np.unique(np.asarray(terms)[i:i + 40], axis=0)) == 1 for i in (0, 40, 80))
    by_weights, by_records = gradient(params, jnp.asarray(x))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((by_weights, by_records)))


def hard_evaluate(params, x): return autoregressive_terms(params, masks_for(params, (0, 1)), x, BOUND, 5.0)
def hard_gradient(params, x): return loss_gradient(params)(x)


def test_law_hard_floats(): law_hard_floats(hard_evaluate, hard_gradient)


def test_law_hard_floats_catches_a_bad_branch_behind_where():
    def selected(x, raw):  # evaluates the spline outside as well, where its quotient overflows
        return jnp.where(jnp.abs(x) <= BOUND, naive_spline(x, raw, BOUND)[0], x)
    def gradient(params, x): return jax.vmap(jax.grad(selected), (0, None))(x[:, 0], params["b_out"][0].reshape(-1, 2)[:, 0]), 0.0
    with pytest.raises(AssertionError): law_hard_floats(hard_evaluate, gradient)


def law_gradient_on_edges(curve):
    "The curve is smooth: on an edge between bins, and at both ends, its slope is the one that it reports."
    with jax.enable_x64(True):
        raw = np.random.default_rng(5).normal(0, 1, 23)
        slopes = jax.jit(lambda x, raw: slope_of(lambda x: curve(x, raw, BOUND), x))
        even = np.concatenate([np.zeros(16), raw[16:]])  # eight bins of equal size: the inner edges are exact
        for raw, x in ((even, 2 * BOUND * np.arange(1, 8) / 8 - BOUND), (raw, np.array([-BOUND, BOUND, 0.1, 1.7, 2.1, -3.0, -4.0]))):
            _, slope, log_slope = slopes(x, np.tile(raw[:, None], (1, len(x))))
            assert np.abs(slope - np.exp(log_slope)).max() < 1e-6, (slope, np.exp(log_slope))


def test_law_gradient_on_edges(): law_gradient_on_edges(spline)


def test_law_gradient_on_edges_catches_a_kink():
    with pytest.raises(AssertionError): law_gradient_on_edges(lambda x, raw, bound: (jnp.abs(spline(x, raw, bound)[0]), spline(x, raw, bound)[1]))


# --- item 2: the strangest records --------------------------------------------------------------------------

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


@pytest.mark.parametrize("transform", UNBOUNDED)
def test_law_strange_is_ordered(fitted, transform): law_strange_is_ordered(fitted(transform), X, list(X))


def test_law_strange_is_ordered_catches_pzflow(paper):
    with pytest.raises(AssertionError): law_strange_is_ordered(paper, MILD, ["duration"])
    far = paper.anomaly_score(pd.DataFrame({"duration": [1e9, 1e10, 1e11], "bytes": 5.0}))
    assert (far == -np.finfo(np.float32).min).all()  # finite, but all the same


def test_law_strange_is_ordered_catches_a_clipped_score(detector):
    class Clipped(FlowDetector):
        def anomaly_score(self, X): return np.minimum(super().anomaly_score(X), 20.0)
    clipped = Clipped()
    vars(clipped).update(vars(detector))
    with pytest.raises(AssertionError): law_strange_is_ordered(clipped, X, ["gap"])


def law_strange_is_strange(detector, frame):
    "On these records (it is no promise: the strangest of real ones differ in many features) 1e12 in one feature scores above all."
    highest = detector.anomaly_score(frame).max()
    for feature in frame:
        for value in (1e12, -1e12):
            assert (detector.anomaly_score(frame[:20].assign(**{feature: value})) > highest).all(), (feature, value)


@pytest.mark.parametrize("transform", ["log", "standard", "quantile"])
def test_law_strange_is_strange(fitted, transform): law_strange_is_strange(fitted(transform), X)


def test_law_strange_is_strange_catches_values_clipped_to_the_training_range(fitted):
    with pytest.raises(AssertionError): law_strange_is_strange(quick(transform="robust", epochs=1).fit(X), X)


# --- items 3 and 4: many columns, constants, values that are no numbers ---------------------------------------

WIDE = 78


def wide_records(n=300, seed=1):
    "Seventy-eight columns of every size, correlated, a few constant."
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 6)) @ rng.normal(size=(6, WIDE)) + rng.normal(0, 0.3, (n, WIDE))
    values = np.exp(hidden * rng.uniform(0.1, 2, WIDE)) * 10 ** rng.uniform(-3, 8, WIDE)
    values[:, ::10] = 3.0
    return pd.DataFrame(values, columns=[f"f{i}" for i in range(WIDE)])


@pytest.fixture(scope="module")
def wide():
    frame = wide_records()
    return frame, FlowDetector(hidden=16, epochs=3, batch_size=64).fit(frame)


def test_all_columns_at_once(wide):
    frame, d = wide
    assert len(d.constant_) == 8 and np.isfinite(d.anomaly_score(frame)).all() and np.isfinite(d.history_.train_loss).all()
    for value in (0.0, 1e12, -1e12, 1e30):
        scores = d.anomaly_score(pd.DataFrame(np.full((3, WIDE), value), columns=frame.columns))
        assert np.isfinite(scores).all() and (value == 0 or (scores > d.anomaly_score(frame).max()).all())


def test_law_strange_is_ordered_in_many_columns(wide): law_strange_is_ordered(wide[1], wide[0], ["f0", "f1", "f40", "f77"])


def law_no_overflow(log_det):
    "Log determinants of many features stay finite, whatever the scales."
    for scale in (1e-6, 1e-2, 1.0, 1e2, 1e6):
        assert np.isfinite(log_det(80, scale)).all(), scale


def spline_log_det(d, scale):
    "Log determinants with random weights of the given size."
    params, bijector, _ = AutoregressiveSpline(range(d), hidden=8)[0](jax.random.PRNGKey(0), d)
    wild = wild_params(d, size=float(scale), hidden=8)
    return bijector(wild, points(16, d), conditions=None)[1]


def test_law_no_overflow(): law_no_overflow(spline_log_det)


def test_law_no_overflow_catches_shift_bounds():
    def shift_bounds(d, scale):
        _, bijector, _ = ShiftBounds(-scale * np.ones(d), scale * np.ones(d), 4.0)[0](None, d)
        return bijector((), jnp.zeros((1, d)))[1]
    with pytest.raises(AssertionError): law_no_overflow(shift_bounds)
    assert not np.isfinite(shift_bounds(80, 100.0)) and np.isfinite(shift_bounds(4, 100.0))


def law_constants_are_kept(detector, frame, constant):
    "A constant is reported, and breaking it makes every record stranger, most of all those that are strange already."
    scores = detector.anomaly_score(frame)
    assert detector.constant_ == [constant]
    rows = scores >= np.median(scores)
    for value in (0.0, 3.9, 5.0, -1.0, 1e12):
        broken = detector.anomaly_score(frame.assign(**{constant: value}))
        assert (broken > scores).all() and (broken[rows] > scores.max()).all() and np.isfinite(broken).all(), value


def test_law_constants_are_kept(detector): law_constants_are_kept(detector, X, "version")


def test_law_constants_are_kept_catches_silence(detector):
    class Silent(FlowDetector):
        def anomaly_score(self, X): return -self.log_prob_terms(X).sum(axis=1)
    silent = Silent()
    vars(silent).update(vars(detector))
    with pytest.raises(AssertionError): law_constants_are_kept(silent, X, "version")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(detector, value):
    bad = X[:40].copy()
    bad.iloc[7, 1] = value
    for use in (quick().fit, detector.anomaly_score, detector.predict, detector.log_prob_terms, detector.calibrate,
                lambda frame: quick().fit(X, validation=frame)):
        with pytest.raises(ValueError, match="records must be finite.*bytes"): use(bad)
    assert len(detector.calibration_scores_) == 32  # the failed calibration changed nothing


def test_text_and_all_constant_columns_are_refused():
    with pytest.raises(TypeError, match="bytes"): quick().fit(X.assign(bytes="many"))
    with pytest.raises(ValueError, match="constant"): quick().fit(X * 0)


# --- item 5: training noise ---------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def seen_in_training():
    "Mean square of what the training step is given in each of four epochs; all records are zero."
    def seen(noise):
        def listen(state, masks, batches, *settings): return state, jnp.square(batches).mean()
        flow = build_flow("autoregressive", ["a", "b", "c"], [0, 1, 2], None, hidden=4, n_layers=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "train_steps", listen)
            return np.array(train_flow(flow, np.zeros((256, 3)), np.zeros((4, 3)), epochs=4, batch_size=64, noise=noise).train_loss)
    return seen


def law_noise_is_fresh(seen, noise=0.5):
    "Every epoch sees the records with new noise of the size asked for."
    squares = seen(noise)
    assert len(set(squares.tolist())) == 4 and np.abs(np.sqrt(squares) / noise - 1).max() < 0.15


def test_law_noise_is_fresh(seen_in_training):
    law_noise_is_fresh(seen_in_training)
    assert not seen_in_training(0.0).any()


def test_law_noise_is_fresh_catches_a_dropped_result(seen_in_training):
    with pytest.raises(AssertionError): law_noise_is_fresh(lambda noise: seen_in_training(0.0))


def test_law_noise_is_fresh_catches_pzflow_dequantizer():
    "pzflow's dequantizer draws with one fixed key: every call gives the same shift, so it is no noise over epochs."
    _, dequantize, _ = UniformDequantizer([0, 1, 2])[0](None, 3)
    def seen(noise):
        drawn = [2 * noise * np.sqrt(3) * (np.asarray(dequantize((), jnp.zeros((256, 3)))[0]) - 0.5) for _ in range(4)]
        return np.array([np.square(z).mean() for z in drawn])
    with pytest.raises(AssertionError): law_noise_is_fresh(seen)


def law_discrete_data_has_bounded_density(fit):
    "On data with few values the log density stays near the peak of the noise's own density."
    values = np.random.default_rng(0).integers(0, 2, (320, 2)).astype(float)
    d = fit(pd.DataFrame(values, columns=["syn", "ack"]))
    peak = -np.log(0.02 * np.sqrt(2 * np.pi))
    highest = d.log_prob_terms(values).max()
    assert highest < peak + 0.5, highest


def fit_discrete(noise, frame): return FlowDetector(hidden=16, batch_size=64, epochs=150, patience=150, learning_rate=0.02, noise=noise, transform="standard").fit(frame)


def test_law_discrete_data_has_bounded_density(): law_discrete_data_has_bounded_density(partial(fit_discrete, 0.02))


def test_law_discrete_data_has_bounded_density_catches_no_noise():
    with pytest.raises(AssertionError): law_discrete_data_has_bounded_density(partial(fit_discrete, 0.0))


# --- item 6: one shape, one compilation ---------------------------------------------------------------------

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


def law_one_compilation(score):
    "Scoring compiles once for each size of blocks."
    for sizes in ((1, 7, BLOCKS[0], 0), (BLOCKS[0] + 1, BLOCKS[1]), (BLOCKS[1] + 1, 1024, 5000)):
        with compilations() as seen:
            for n in sizes: score(np.zeros((n, 4), np.float32))
        assert len(seen) == 1, (sizes, len(seen))


def fresh_terms(detector):
    "The detector's evaluation of scaled records, not compiled yet."
    masks = masks_for(detector.flow_._params[1], range(4))
    return jax.jit(lambda params, Z: autoregressive_terms.__wrapped__(params[1], masks, Z, BOUND, 5.0))


def test_law_one_compilation(detector):
    terms, params = fresh_terms(detector), detector.flow_._params
    law_one_compilation(lambda Z: in_blocks(lambda rows: terms(params, rows), Z))


def test_law_one_compilation_catches_one_per_number_of_records(detector):
    terms, params = fresh_terms(detector), detector.flow_._params
    with pytest.raises(AssertionError): law_one_compilation(lambda Z: terms(params, Z) if len(Z) else None)


def test_scoring_compiles_nothing_after_fit(detector):
    frame = pd.concat([X] * (BLOCK // len(X) + 2), ignore_index=True)
    with compilations() as seen:
        for n in (1, 7, BLOCK, BLOCK + 1): detector.anomaly_score(frame[:n]), detector.to_latent(frame[:n]), detector.predict(frame[:n])
    assert not seen


def law_independent_of_company(score):
    "A record's score does not depend, to the last bit, on the number and order of its neighbors."
    frame = pd.concat([X] * (2 * BLOCK // len(X) + 2), ignore_index=True)[:2 * BLOCK + 400]
    scores, order = score(frame), np.random.default_rng(0).permutation(len(frame))
    assert np.array_equal(score(frame.iloc[order]), scores[order])
    for cut in (1, 13, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK):
        assert np.array_equal(np.concatenate([score(frame[:cut]), score(frame[cut:])]), scores), cut


def test_law_independent_of_company(detector): law_independent_of_company(detector.anomaly_score)


def test_law_independent_of_company_catches_statistics_of_the_batch(detector):
    with pytest.raises(AssertionError): law_independent_of_company(lambda f: detector.anomaly_score(f) - detector.anomaly_score(f).mean())


def law_width(width):
    "The wanted width, or a multiple of 16, at least 32, with at least two units for each feature."
    for d in (1, 6, 16, 17, 58):
        assert width(7, d) == 7
        assert width(None, d) % 16 == 0 and max(32, 2 * d) <= width(None, d) < 2 * d + 32


def test_law_width(): law_width(network_width)


def test_law_width_catches_a_narrow_network():
    with pytest.raises(AssertionError): law_width(lambda hidden, d: hidden or 32)


def test_the_fast_preset_trains_saves_and_loads_by_the_number_of_features(tmp_path):
    fast = FlowDetector.preset("fast", epochs=1).fit(MILD)
    assert (fast.hidden, fast.optimizer, fast.flow_._bijector_info[1][2]) == (None, "adam_short", 32)
    again = FlowDetector.load(fast.save(tmp_path / "fast.safetensors"))
    assert np.array_equal(again.anomaly_score(MILD), fast.anomaly_score(MILD))
    with pytest.raises(ValueError, match="optimizer"): FlowDetector.preset("paper", optimizer="adam_short").fit(MILD)
    with pytest.raises(ValueError, match="hidden"): FlowDetector(hidden=0).fit(MILD)


def law_any_number_of_records(evaluate, d=4):
    "The first record of each of many tables, and the last, have the same bits in every table they are in."
    most = 2 * BLOCK + 52
    Z = np.random.default_rng(0).normal(0, 3, (most, d)).astype(np.float32)
    whole = evaluate(Z)
    for n in [*range(1, 70), *range(97, most, 263), *(b + i for b in (BLOCK, 2 * BLOCK) for i in (-1, 0, 1)), most]:
        assert np.array_equal(evaluate(Z[:n]), whole[:n]), n
        assert np.array_equal(evaluate(Z[::-1][:n])[::-1], whole[most - n:]), n


def test_law_any_number_of_records(detector): law_any_number_of_records(lambda Z: in_blocks(detector.terms_, Z)[0])


@pytest.mark.parametrize("d, hidden", [(2, 24), (6, 32), (20, 48), (70, 40)])
def test_law_any_number_of_records_for_narrow_networks(d, hidden):
    flow = build_flow("autoregressive", [f"x{i}" for i in range(d)], range(d), None, hidden=hidden)
    terms = terms_function(flow)
    law_any_number_of_records(lambda Z: in_blocks(lambda rows: terms(flow._params, rows), Z)[0], d)


def test_law_any_number_of_records_catches_padding_that_leaks(detector):
    def wrong(Z):
        padded = np.concatenate([Z, np.zeros((-len(Z) % BLOCK, 4), np.float32)])
        return in_blocks(detector.terms_, padded - padded.mean(axis=0))[0][:len(Z)]
    with pytest.raises(AssertionError): law_any_number_of_records(wrong)


def law_blocks_are_put_together(in_blocks):
    "Each record goes through the function once, in its place, in blocks of one size."
    for n, block in ((0, None), (1, None), (32, None), (33, None), (257, None), (5000, None), (7, 3), (9, 3)):
        Z, sizes = np.arange(2 * n, dtype=np.float32).reshape(n, 2), []
        def function(rows):
            sizes.append(len(rows))
            return rows * 2, rows.sum(axis=1)
        double, total = in_blocks(function, Z, block)
        assert np.array_equal(double, 2 * Z) and np.array_equal(total, Z.sum(axis=1))
        assert set(sizes) == {block or min(size for size in (32, 256, 2048) if n <= size or size == 2048)} and len(sizes) == max(-(-n // sizes[0]), 1)


def test_law_blocks_are_put_together(): law_blocks_are_put_together(in_blocks)


def test_law_blocks_are_put_together_catches_a_lost_remainder():
    with pytest.raises(AssertionError): law_blocks_are_put_together(lambda f, Z, block: in_blocks(f, Z[:len(Z) // 3 * 3], block))


def law_second_fit_compiles_nothing(fit):
    "Once a detector of the same sizes was fitted, another compiles nothing: other records, seed, order, rates, noise, latent, transform."
    fit({})
    for settings in ({}, {"seed": 7}, {"feature_order": ["gap", "flags", "version", "bytes", "duration"]}, {"feature_order": "shuffled", "seed": 3},
                     {"learning_rate": 1e-3, "noise": 0.1, "fpr": 0.2}, {"transform": "standard"}):
        with compilations() as seen: fit(settings)
        assert not seen, settings


def quick_scores(settings): return quick(**{"epochs": 2} | settings).fit(records(seed=settings.get("seed", 0))).anomaly_score(X[:50])


def test_law_second_fit_compiles_nothing(): law_second_fit_compiles_nothing(quick_scores)


def test_law_second_fit_compiles_nothing_catches_other_sizes():
    with pytest.raises(AssertionError): law_second_fit_compiles_nothing(lambda settings: quick_scores(settings | {"batch_size": 40 + 3 * len(settings)}))


def test_second_ensemble_compiles_nothing(trio):
    with compilations() as seen: quick(n_members=3, epochs=3, feature_order="shuffled", seed=11).fit(X).anomaly_score(X)
    assert not seen


def test_no_records_give_no_scores(detector):
    assert detector.anomaly_score(X[:0]).shape == (0,) and detector.log_prob_terms(X[:0]).shape == (0, 4) and detector.predict(X[:0]).shape == (0,)


# --- item 8: seeds ------------------------------------------------------------------------------------------

def law_seed_decides(fit):
    "Equal seeds give equal bits, different seeds different scores."
    first = fit(0)
    assert np.array_equal(first, fit(0)) and not np.array_equal(first, fit(1))


def test_law_seed_decides(): law_seed_decides(lambda seed: quick(seed=seed, epochs=1).fit(X).anomaly_score(X))


def test_law_seed_decides_catches_a_fixed_seed():
    with pytest.raises(AssertionError): law_seed_decides(lambda seed: np.zeros(3))


def test_law_seed_decides_catches_a_hidden_source():
    with pytest.raises(AssertionError): law_seed_decides(lambda seed: np.random.default_rng().random(3))


# --- divergence ---------------------------------------------------------------------------------------------

def diverging(monkeypatch):
    "Makes the training noise, and so the loss, NaN."
    monkeypatch.setattr(train, "noise_scale", lambda Z, *_, **__: np.full(Z.shape[1], np.nan, np.float32))
    return quick(epochs=1)


def test_divergence_is_an_error_and_leaves_no_model(monkeypatch, tmp_path):
    d = diverging(monkeypatch)
    with pytest.raises(TrainingDiverged, match="learning_rate"): d.fit(X)
    with pytest.raises(NotFittedError): d.anomaly_score(X)
    with pytest.raises(NotFittedError): d.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_divergence_of_a_second_fit_does_not_pass_for_the_first(detector, monkeypatch):
    d = quick(epochs=1)
    vars(d).update(vars(detector))
    diverging(monkeypatch)
    with pytest.raises(TrainingDiverged): d.set_params(seed=5).fit(X)
    with pytest.raises(NotFittedError): d.predict(X)


@pytest.mark.parametrize("losses", [[[3.0, np.nan], [3.0, np.nan]], [[3.0, 2.0], [3.0, np.nan]], [[3.0, np.inf], [3.0, 2.0]]])
def test_pzflow_divergence_is_an_error(monkeypatch, losses):
    monkeypatch.setattr(Flow, "train", lambda *args, **settings: losses)
    d = FlowDetector.preset("paper", epochs=2)
    with pytest.raises(TrainingDiverged, match="pzflow"): d.fit(MILD)
    with pytest.raises(NotFittedError): d.anomaly_score(MILD)


def law_best_epoch_is_kept(train_flow):
    "The weights kept are those of the lowest validation loss, and never of a NaN."
    flow = build_flow("autoregressive", ["a", "b"], [0, 1], None, hidden=16, seed=0)
    Z = np.asarray(points(320, 2, scale=1.0))
    history = train_flow(flow, Z[:288], Z[288:], epochs=8, batch_size=64, learning_rate=0.5, noise=0.0)  # too fast on purpose
    kept = float(-terms_function(flow)(flow._params, jnp.asarray(Z[288:]))[0].sum(axis=1).mean())
    assert history.best_epoch == int(np.argmin(history.validation_loss)) + 1 and np.isfinite(history.validation_loss).all()
    assert kept == pytest.approx(min(history.validation_loss), abs=1e-4)
    assert history.best_epoch < 8 or len(history.validation_loss) == 8


def test_law_best_epoch_is_kept(): law_best_epoch_is_kept(train_flow)


def test_law_best_epoch_is_kept_catches_the_last_weights():
    def last(flow, *args, **settings):
        history = train_flow(flow, *args, **settings)
        flow._params = jax.tree.map(lambda w: w * 1.05, flow._params)
        return history
    with pytest.raises(AssertionError): law_best_epoch_is_kept(last)


def test_patience_ends_training():
    history = quick(epochs=40, patience=1, learning_rate=0.5).fit(X).history_
    assert len(history.train_loss) < 40 and len(history.train_loss) - history.best_epoch <= 2


# --- batches, schedule --------------------------------------------------------------------------------------

def numbered(n): return ArraySource(np.arange(n, dtype=np.float32)[:, None])


def law_every_record_once(blocks, batch_size=8):
    "An epoch shows no record twice, all but less than a batch per block, in blocks of one shape, in a new order each time."
    for n in (8, 9, 100, 1000):
        epochs = [list(blocks(numbered(n), np.random.default_rng(i), batch_size, np.zeros(1, np.float32))) for i in (0, 1)]
        for parts in epochs:
            n_blocks, n_steps = plan_blocks(n, batch_size)
            assert [part.shape for part in parts] == [(n_steps, batch_size, 1)] * n_blocks and n_steps <= train.MAX_STEPS
            seen = np.concatenate([part.ravel() for part in parts])
            assert len(np.unique(seen)) == len(seen) and n - len(seen) < batch_size * max(n_blocks, 1)
        assert n < 10 or not np.array_equal(epochs[0][0], epochs[1][0])


def test_law_every_record_once(monkeypatch):
    law_every_record_once(noisy_blocks)
    monkeypatch.setattr(train, "MAX_STEPS", 5)
    law_every_record_once(noisy_blocks)


def test_law_every_record_once_catches_draws_with_replacement():
    def wrong(source, rng, batch_size, scale):
        return noisy_blocks(ArraySource(source.sample[rng.integers(0, source.n_records, source.n_records)]), rng, batch_size, scale)
    with pytest.raises(AssertionError): law_every_record_once(wrong)


def law_one_cycle(rates):
    "Up from a tenth of the peak for a fifth of the steps, then down to a thousandth; smooth."
    for n in (50, 1000, 4321):
        r = rates(n, 0.01)
        assert r.shape == (n,) and r.dtype == np.float32 and r.max() == pytest.approx(0.01, rel=1e-2) and r[0] == pytest.approx(0.001)
        assert abs(int(r.argmax()) - n / 5) <= 1 and r[-1] < 2e-4 and (np.diff(r[:n // 5]) > 0).all() and (np.diff(r[n // 5 + 1:]) < 0).all()


def test_law_one_cycle(): law_one_cycle(one_cycle)


def test_law_one_cycle_catches_a_constant_rate():
    with pytest.raises(AssertionError): law_one_cycle(lambda n, peak: np.full(n, peak, np.float32))


def test_blocks_of_any_size_train_alike(monkeypatch):
    "An epoch cut into several compiled calls gives the same weights as one call."
    def weights():
        flow = build_flow("autoregressive", ["a", "b"], [0, 1], None, hidden=16, seed=0)
        train_flow(flow, np.asarray(points(320, 2, scale=1.0)), np.zeros((8, 2)), epochs=2, batch_size=32, noise=0.0)
        return flow._params[1]
    whole = weights()
    monkeypatch.setattr(train, "MAX_STEPS", 5)
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(weights())))


# --- checkpoints --------------------------------------------------------------------------------------------

class Killed(BaseException):
    "Stands in for the end of the process."


@contextmanager
def killed_after(epochs):
    "Ends the training right after its checkpoint of an epoch."
    write = train.write_checkpoint
    def write_and_die(path, progress, identity):
        write(path, progress, identity)
        if len(progress.losses) == epochs: raise Killed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "write_checkpoint", write_and_die)
        with pytest.raises(Killed): yield


def same_model(a, b):
    "Weights, losses, threshold and scores agree to the last bit."
    weights = [jax.tree.leaves([flow._params for flow in d.flows_]) for d in (a, b)]
    return (all(np.array_equal(u, v) for u, v in zip(*weights, strict=True)) and a.offset_ == b.offset_ and a.history_.train_loss == b.history_.train_loss
            and a.history_.validation_loss == b.history_.validation_loss and a.history_.best_epoch == b.history_.best_epoch)


def law_killed_goes_on(make, records, path, epochs=(1, 3)):
    "A training killed after any epoch ends as one that never was, and leaves no checkpoint."
    whole = make().fit(records)
    for epoch in epochs:
        with killed_after(epoch): make().fit(records, checkpoint=path)
        assert path.is_file()
        assert same_model(make().fit(records, checkpoint=path), whole), epoch
        assert not list(path.parent.iterdir())


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "checkpoint.safetensors"


def test_law_killed_goes_on(checkpoint): law_killed_goes_on(partial(quick, epochs=4), X, checkpoint)


def test_law_killed_goes_on_for_an_ensemble(checkpoint):
    law_killed_goes_on(partial(quick, n_members=3, epochs=3, feature_order="shuffled"), X, checkpoint, epochs=(2,))


def test_law_killed_goes_on_with_parquet(checkpoint, parquet):
    law_killed_goes_on(partial(quick, epochs=3), ParquetRecords(parquet, chunk_rows=100), checkpoint, epochs=(2,))


def test_law_killed_goes_on_catches_a_forgotten_optimizer(checkpoint, monkeypatch):
    read = train.read_checkpoint
    def forgetful(path, start, identity):
        fresh = jax.tree.map(jnp.copy, start.state.optimizer)
        found = read(path, start, identity)
        return train.Progress(found.state._replace(optimizer=fresh), found.best_params, found.losses)
    monkeypatch.setattr(train, "read_checkpoint", forgetful)
    with pytest.raises(AssertionError): law_killed_goes_on(partial(quick, epochs=4), X, checkpoint)


def test_a_finished_training_with_its_checkpoint_left_behind_trains_no_more(checkpoint, monkeypatch):
    with killed_after(3): quick(epochs=3).fit(X, checkpoint=checkpoint)
    monkeypatch.setattr(train._Loop, "epoch", lambda *args: pytest.fail("trained again"))
    assert len(quick(epochs=3).fit(X, checkpoint=checkpoint).history_.train_loss) == 3 and not checkpoint.exists()


def law_foreign_is_refused(fit, path):
    "A checkpoint of other settings or other records is not used, and that is said."
    for settings, frame in (({"seed": 1}, X), ({"learning_rate": 1e-3}, X), ({"epochs": 5}, X), ({"batch_size": 32}, X), ({"noise": 0.1}, X), ({}, X ** 1.1),
                            ({"optimizer": "sgd"}, X), ({"latent_df": 3.0}, X), ({"hidden": 8}, X), ({"feature_order": list(X)[::-1]}, X), ({"patience": 3}, X)):
        path.unlink(missing_ok=True)
        with killed_after(1): quick(**{"epochs": 2}).fit(X, checkpoint=path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train._Loop, "epoch", lambda loop, at, rates: (_ for _ in ()).throw(Killed(len(at.losses))))  # how many epochs it starts from
            with pytest.warns(UserWarning, match="another training"), pytest.raises(Killed) as caught: fit(settings, frame, path)
        assert caught.value.args == (0,), settings


def fit_from(settings, frame, path): quick(**{"epochs": 2} | settings).fit(frame, checkpoint=path)


def test_law_foreign_is_refused(checkpoint): law_foreign_is_refused(fit_from, checkpoint)


def test_law_foreign_is_refused_catches_a_checkpoint_of_no_one(checkpoint, monkeypatch):
    write = train.read_checkpoint
    def anyone(path, start, identity):
        if not path.is_file(): return start
        with safe_open(path, framework="numpy") as file: return write(path, start, file.metadata()["identity"])
    monkeypatch.setattr(train, "read_checkpoint", anyone)
    with pytest.raises((AssertionError, pytest.fail.Exception)): law_foreign_is_refused(fit_from, checkpoint)


DAMAGE = {"truncated": lambda content: content[:len(content) // 2], "empty": lambda content: b"", "text": lambda content: b"epoch,loss\n" * 99,
          "header only": lambda content: content[:8 + struct.unpack("<Q", content[:8])[0]]}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_an_error_that_names_it(kind, checkpoint):
    with killed_after(1): quick(epochs=2).fit(X, checkpoint=checkpoint)
    checkpoint.write_bytes(DAMAGE[kind](checkpoint.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(str(checkpoint))): quick(epochs=2).fit(X, checkpoint=checkpoint)


def test_a_model_file_is_no_checkpoint_and_stays(saved, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved.read_bytes())
    with pytest.raises(ValueError, match="checkpoint"): quick(epochs=1).fit(X, checkpoint=path)
    assert path.read_bytes() == saved.read_bytes()


def test_divergence_leaves_no_weights_behind(monkeypatch, checkpoint):
    "Neither a checkpoint of NaN, nor changed weights of the flow."
    flow = build_flow("autoregressive", ["a", "b"], [0, 1], None, hidden=16, seed=0)
    before = [np.array(leaf) for leaf in jax.tree.leaves(flow._params)]
    Z = np.asarray(points(320, 2, scale=1.0))
    steps, calls = train.train_steps, []
    def breaking(state, *rest):
        calls.append(1)
        state, loss = steps(state, *rest)
        return (state, loss) if len(calls) < 3 else (jax.tree.map(lambda w: w * np.nan if w.dtype == np.float32 else w, state), loss)  # seen by validation only
    monkeypatch.setattr(train, "train_steps", breaking)
    with pytest.raises(TrainingDiverged, match="epoch 3"): train_flow(flow, Z, Z[:9], epochs=5, batch_size=64, checkpoint=checkpoint)
    assert all(np.array_equal(a, b) for a, b in zip(before, jax.tree.leaves(flow._params)))
    with safe_open(checkpoint, framework="numpy") as file:
        assert all(np.isfinite(file.get_tensor(name)).all() for name in file.keys()) and len(json.loads(file.metadata()["losses"])) == 2


# --- Parquet ------------------------------------------------------------------------------------------------

def write_parquet(folder, frame, rows=(60, 45, 110, 85, 20), group=25):
    "Several files of unequal length, in row groups."
    folder.mkdir(parents=True, exist_ok=True)
    edges = np.cumsum([0, *rows])
    for i, (a, b) in enumerate(zip(edges[:-1], edges[1:])): frame.iloc[a:b].to_parquet(folder / f"{i}.parquet", row_group_size=group, index=False)
    return folder


@pytest.fixture(scope="module")
def parquet(tmp_path_factory): return write_parquet(tmp_path_factory.mktemp("parquet") / "benign", X)


@pytest.fixture(scope="module")
def tickets(tmp_path_factory):
    "Records that are their own number."
    return write_parquet(tmp_path_factory.mktemp("parquet") / "tickets", pd.DataFrame({"ticket": np.arange(320.0), "other": np.arange(320.0)[::-1]}))


def law_parquet_epochs(chunks):
    "Every record once per epoch, none of the validation records, no chunk beyond `chunk_rows` and one row group, in a new order."
    for chunk_rows, n_groups, fraction in ((1, 16, 0.1), (60, 4, 0.3), (100, 16, 0.5), (10**6, 3, 0.1)):
        epochs, validation = chunks(chunk_rows, n_groups, fraction)
        for parts in epochs:
            seen = np.concatenate(parts)[:, 0]
            assert len(validation) and not set(seen) & set(validation)
            assert np.array_equal(np.sort([*seen, *validation]), np.arange(320))
            assert all(len(part) < chunk_rows + 25 for part in parts) and all(len(part) >= chunk_rows for part in parts[:-1])
        assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))


def ticket_chunks(folder, chunk_rows, n_groups, fraction, held_out=ParquetRecords.held_out):
    source = ParquetSource(ParquetRecords(folder, chunk_rows=chunk_rows), fraction, 0, n_groups)
    source.scale(train.Transform("none").fit(source.train))
    assert source.n_records == 320 - len(source.validation) and len(source.sample) == len(source.train)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParquetRecords, "held_out", held_out)
        return [list(source.chunks(np.random.default_rng(i))) for i in (0, 1)], source.validation.ticket.to_numpy()


def test_law_parquet_epochs(tickets): law_parquet_epochs(partial(ticket_chunks, tickets))


def test_law_parquet_epochs_catches_validation_records_in_training(tickets):
    def none(records, group, fraction, seed): return np.zeros(records.groups[group][2], bool)
    with pytest.raises(AssertionError): law_parquet_epochs(partial(ticket_chunks, tickets, held_out=none))


def test_law_parquet_epochs_catches_another_draw(tickets):
    draw = ParquetRecords.held_out
    with pytest.raises(AssertionError): law_parquet_epochs(partial(ticket_chunks, tickets, held_out=lambda self, group, fraction, seed: draw(self, group, fraction, seed + 1)))


def test_law_parquet_epochs_catches_a_lost_chunk(tickets):
    def wrong(*args):
        epochs, validation = ticket_chunks(tickets, *args)
        return [parts[:-1] or parts for parts in epochs], validation
    with pytest.raises(AssertionError): law_parquet_epochs(wrong)


def test_training_reads_parquet_like_a_frame(parquet):
    d = quick().fit(ParquetRecords(parquet, chunk_rows=100))
    assert d.n_train_ + len(d.calibration_scores_) == 320 and list(d.feature_names_in_) == list(X) and d.constant_ == ["version"]
    scores = d.anomaly_score(X)
    assert abs(np.median(scores) - np.median(quick().fit(X).anomaly_score(X))) < 0.7
    assert np.array_equal(quick().fit(ParquetRecords(sorted(parquet.iterdir()), chunk_rows=100)).anomaly_score(X), scores)
    narrow = quick(epochs=1).fit(ParquetRecords(str(parquet), columns=["gap", "bytes"]), validation=X[:40])
    assert list(narrow.feature_names_in_) == ["gap", "bytes"] and len(narrow.calibration_scores_) == 40


def test_memory_holds_one_chunk_of_parquet(parquet, monkeypatch):
    "No more rows are ever put together than a chunk, a row group, and what a block waits for."
    largest, concatenate = [0], np.concatenate
    def watch(parts, *args, **settings):
        result = concatenate(parts, *args, **settings)
        if result.ndim == 2 and result.shape[1] == 4: largest.append(len(result))
        return result
    source = ParquetSource(ParquetRecords(parquet, chunk_rows=50), 0.1, 0, n_groups=4)
    source.scale(train.Transform("log").fit(source.train))
    monkeypatch.setattr(train, "MAX_STEPS", 2)
    with monkeypatch.context() as patch:
        patch.setattr(np, "concatenate", watch)
        n = sum(block.shape[0] * block.shape[1] for block in noisy_blocks(source, np.random.default_rng(0), 16, np.zeros(4, np.float32)))
    assert n >= 160 and max(largest) <= 50 + 25 + 2 * 16, max(largest)


def test_parquet_errors_say_what_is_wrong(parquet, tmp_path):
    with pytest.raises(FileNotFoundError, match="Parquet"): ParquetRecords(tmp_path)
    with pytest.raises(FileNotFoundError, match="none.parquet"): ParquetRecords(tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="chunk_rows"): ParquetRecords(parquet, chunk_rows=0)
    with pytest.raises((KeyError, ValueError), match="durations"): quick(epochs=1).fit(ParquetRecords(parquet, columns=["durations", "bytes", "gap"]))


def test_a_file_that_is_no_parquet_is_named(parquet, tmp_path):
    (tmp_path / "bad.parquet").write_text("duration,bytes\n")
    with pytest.raises(ValueError, match="bad.parquet"): ParquetRecords(tmp_path)


def test_parquet_without_rows_is_refused(tmp_path):
    X[:0].to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="at least 20 benign records"): quick(epochs=1).fit(ParquetRecords(tmp_path))


def test_a_missing_number_in_parquet_names_its_file(tmp_path):
    bad = X.copy()
    bad.iloc[310, 1] = np.nan
    with pytest.raises(ValueError, match="bytes.*4.parquet|4.parquet.*bytes"): quick(epochs=1).fit(ParquetRecords(write_parquet(tmp_path / "bad", bad)))


def test_files_of_different_columns_are_refused(parquet, tmp_path):
    X[["duration", "gap"]].to_parquet(tmp_path / "other.parquet")
    with pytest.raises((KeyError, ValueError), match="bytes"): quick(epochs=1).fit(ParquetRecords([parquet, tmp_path / "other.parquet"]))


@pytest.mark.parametrize("settings", [{"architecture": "coupling"}, {"architecture": "pzflow"}])
def test_couplings_refuse_what_they_would_ignore(settings, parquet, checkpoint):
    "pzflow's own loop needs all records in memory, and keeps no checkpoint."
    with pytest.raises(ValueError, match="architecture"): quick(epochs=1, **settings).fit(ParquetRecords(parquet))
    with pytest.raises(ValueError, match="checkpoint"): quick(epochs=1, **settings).fit(MILD, checkpoint=checkpoint)


# --- ensembles ----------------------------------------------------------------------------------------------

def alone(detector, i):
    "Member i as a detector of its own."
    single = FlowDetector(**detector.get_params() | {"n_members": 1, "seed": detector.seed + i})
    vars(single).update({name: value for name, value in vars(detector).items() if name.endswith("_") and name != "flows_"})
    single._set_flow(detector._bounds)
    single.flow_._params = detector.flows_[i]._params
    return single


def law_mean_of_members(terms, trio):
    "The terms of an ensemble are the mean over its members, which differ in weights and order."
    each = np.stack([alone(trio, i).log_prob_terms(X) for i in range(3)])
    assert np.allclose(terms(X), each.mean(axis=0), atol=1e-5) and np.abs(each[0] - each[1]).max() > 0.1
    assert len({flow._bijector_info[1][0] for flow in trio.flows_}) > 1
    assert np.allclose(trio.score_samples(X), each.mean(axis=0).sum(axis=1), atol=1e-4)


def test_law_mean_of_members(trio): law_mean_of_members(trio.log_prob_terms, trio)


def test_law_mean_of_members_catches_the_first_alone(trio):
    with pytest.raises(AssertionError): law_mean_of_members(alone(trio, 0).log_prob_terms, trio)


def test_law_round_trip_of_an_ensemble(trio, tmp_path):
    law_round_trip(trio, load_detector, trio.save(tmp_path / "model.safetensors"), strange(X))


def law_members_train_alike(together, Z, orders=((0, 1, 2), (2, 0, 1), (1, 2, 0)), epochs=3):
    "Each member of an ensemble learns what it would learn alone from the same batches."
    def flows(): return [build_flow("autoregressive", list("abc"), order, None, hidden=16, seed=i) for i, order in enumerate(orders)]
    settings = dict(epochs=epochs, batch_size=64, patience=99, seed=4, learning_rate=1e-3)
    members, singles = flows(), flows()
    history = together(members, Z[:288], Z[288:], **settings)
    apart = [train_flow(flow, Z[:288], Z[288:], **settings) for flow in singles]
    assert all(h.best_epoch == epochs for h in (history, *apart))  # so that all keep their last weights
    assert np.allclose(history.train_loss, np.mean([h.train_loss for h in apart], axis=0), atol=1e-3)
    assert np.allclose(history.validation_loss, np.mean([h.validation_loss for h in apart], axis=0), atol=1e-3)
    for a, b in zip(members, singles): assert np.allclose(terms_function(a)(a._params, Z)[0], terms_function(b)(b._params, Z)[0], atol=2e-2)


RING = np.asarray(points(320, 3, seed=6, scale=1.0)) * np.float32([1, 0.2, 2])


def test_law_members_train_alike(): law_members_train_alike(train_flow, RING)


def test_law_members_train_alike_catches_batches_of_their_own():
    def wrong(flows, *args, **settings):
        histories = [train_flow(flow, *args, **settings | {"seed": i}) for i, flow in enumerate(flows)]
        return History(*np.mean([[h.train_loss, h.validation_loss] for h in histories], axis=0).tolist(), 3, 0.0)
    with pytest.raises(AssertionError): law_members_train_alike(wrong, RING)


# --- several devices, and what is imported ------------------------------------------------------------------

CHILD = """
import sys, numpy as np, pandas as pd, jax
from nfad.train import FlowDetector
X = pd.read_csv(sys.argv[1])
results = {"devices": jax.device_count()}
for name, settings in {"single": {}, "odd batch": {"batch_size": 66}, "lonely batch": {"batch_size": 63}, "ensemble": {"n_members": 2, "epochs": 1}}.items():
    d = FlowDetector(**{"statistic": "log_prob", "hidden": 16, "epochs": 2, "batch_size": 64} | settings).fit(X)
    for part, values in {"loss": d.history_.train_loss, "validation": d.history_.validation_loss, "scores": d.anomaly_score(X), "few": d.anomaly_score(X[:5])}.items():
        results[f"{name}: {part}"] = values
np.savez(sys.argv[2], **results)
"""


def run_child(script, *args, **environment):
    "Runs a script in a fresh process."
    done = subprocess.run([sys.executable, "-c", script, *map(str, args)], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def by_devices(tmp_path_factory):
    "The same trainings on one device, and on four simulated ones."
    folder = tmp_path_factory.mktemp("devices")
    X.to_csv(folder / "X.csv", index=False)
    for n in (1, 4): run_child(CHILD, folder / "X.csv", folder / f"{n}.npz", XLA_FLAGS=f"--xla_force_host_platform_device_count={n}")
    return [dict(np.load(folder / f"{n}.npz")) for n in (1, 4)]


def law_devices_agree(one, four):
    "Losses and scores of data-parallel training are those of one device, up to rounding."
    assert (one["devices"], four["devices"]) == (1, 4)
    for key in set(one) - {"devices"}: assert np.allclose(one[key], four[key], rtol=5e-3, atol=5e-2), (key, np.abs(one[key] - four[key]).max())


def test_law_devices_agree(by_devices): law_devices_agree(*by_devices)


def test_law_devices_agree_catches_a_gradient_of_one_device(by_devices):
    one, four = by_devices
    with pytest.raises(AssertionError): law_devices_agree(one, four | {"single: scores": one["odd batch: scores"]})


def test_scikit_learn_is_not_imported(saved, tmp_path):
    "Neither by the module nor to load and score: that would double the time to the first score."
    X.to_csv(tmp_path / "X.csv", index=False)
    script = ("import sys, pandas as pd; import nfad.train as t; assert 'sklearn' not in sys.modules, 'by the import';"
              "d = t.load_detector(sys.argv[1]); d.predict(pd.read_csv(sys.argv[2])); repr(d); assert 'sklearn' not in sys.modules, 'by the scores'")
    run_child(script, saved, tmp_path / "X.csv")


# --- the detector's contract --------------------------------------------------------------------------------

def test_scikit_learn_contract():
    d = FlowDetector(hidden=24, fpr=0.05, feature_order=["a", "b"])
    copy = clone(d)
    assert copy is not d and copy.get_params() == d.get_params() and set(d.get_params()) == set(PRESETS["paper"]) | {
        "feature_order", "n_layers", "hidden", "n_bins", "latent_df", "n_members", "validation_fraction", "patience", "fpr", "seed", "progress"}
    assert d.set_params(epochs=3).epochs == 3 and copy.epochs == FlowDetector().epochs
    with pytest.raises(ValueError, match="depth"): d.set_params(depth=3)
    with pytest.raises(TypeError): FlowDetector(depth=3)
    assert is_outlier_detector(d)


def test_a_detector_prints_what_is_not_usual():
    assert repr(FlowDetector()) == "FlowDetector()" and repr(FlowDetector(hidden=16, feature_order=["a"])) == "FlowDetector(feature_order=['a'], hidden=16)"
    assert eval(repr(quick(seed=3)), {"FlowDetector": FlowDetector}).get_params() == quick(seed=3).get_params()
    assert "FlowDetector" in repr(FlowDetector(feature_order=np.array(["a", "b"])))


def test_scikit_learn_tools_use_it(tmp_path):
    "Pipelines, cross-validation and grid search treat it as an outlier detector of their own."
    attack = np.arange(320) % 8 == 0
    frame = X[["duration", "bytes"]].mask(np.tile(attack[:, None], 2), 1e9)
    pipe = make_pipeline(FunctionTransformer(np.log1p), quick(transform="standard", epochs=2)).fit(X[["duration", "bytes"]])
    assert is_outlier_detector(pipe) and pipe.predict(frame)[attack].max() == -1 and pipe.decision_function(frame).shape == pipe.score_samples(frame).shape == (320,)
    assert clone(pipe).get_params()["flowdetector__epochs"] == 2 and pipe.set_params(flowdetector__epochs=1)[-1].epochs == 1
    flags = quick(epochs=2, fpr=0.1).fit_predict(X)
    assert set(flags) == {-1, 1} and np.array_equal(flags, quick(epochs=2, fpr=0.1).fit(X).predict(X)) and (flags == -1).mean() < 0.3
    benign_first = [(np.flatnonzero(~attack)[:240], np.r_[np.flatnonzero(~attack)[240:], np.flatnonzero(attack)])]
    scores = cross_val_score(quick(epochs=2), frame, np.where(attack, -1, 1), scoring="roc_auc", cv=benign_first)
    assert scores.shape == (1,) and scores[0] > 0.95
    search = GridSearchCV(quick(epochs=1), {"latent_df": [3.0, 5.0]}, scoring="roc_auc", cv=benign_first, refit=False)
    assert len(search.fit(frame, np.where(attack, -1, 1)).cv_results_["params"]) == 2


# Those that fit on 20 records or more. By name: the parameter `transform` makes scikit-learn's collection of checks take the detector for a transformer.
CHECKS = ("check_estimator_cloneable", "check_estimator_repr", "check_no_attributes_set_in_init", "check_parameters_default_constructible",
          "check_get_params_invariance", "check_set_params", "check_valid_tag_types", "check_estimators_unfitted", "check_fit_score_takes_y")


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learn_checks(name):
    from sklearn.utils import estimator_checks
    getattr(estimator_checks, name)("FlowDetector", FlowDetector(hidden=16, n_layers=2, epochs=1, batch_size=16))


def law_decisions_agree(detector, frame):
    "Score, distance, decision and threshold say the same, with `>` for anomalies."
    scores, decision, label = detector.anomaly_score(frame), detector.decision_function(frame), detector.predict(frame)
    if detector.statistic == "log_prob": assert np.array_equal(scores, -detector.score_samples(frame))
    assert np.array_equal(label == -1, scores > -detector.offset_) and set(label) <= {-1, 1}
    assert np.array_equal(label == -1, decision < 0) and np.array_equal(decision, -scores - detector.offset_)


def test_law_decisions_agree(detector):
    frame = pd.concat([X, X.iloc[:50] * 20], ignore_index=True)
    assert {-1, 1} == set(detector.predict(frame))
    law_decisions_agree(detector, frame)
    assert -detector.offset_ in detector.calibration_scores_  # an observed score, so ties are met


def test_law_decisions_agree_catches_at_least(detector):
    class AtLeast(FlowDetector):
        def predict(self, X): return np.where(self.decision_function(X) <= 0, -1, 1)
    wrong = AtLeast()
    vars(wrong).update(vars(detector))
    wrong.calibrate(X)
    with pytest.raises(AssertionError): law_decisions_agree(wrong, X)
    detector.calibrate(X[:32])


def law_calibration_keeps_its_promise(calibrated):
    "At most a fraction `fpr` of the calibration records is flagged, and no lower observed score would do."
    for fpr in (1e-6, 0.01, 0.05, 0.1, 0.29, 0.5, 0.999):
        for m in (1, 2, 3, 10, 99, 100, 101, 320):
            scores, threshold = calibrated(fpr, X[:m])
            assert (scores > threshold).mean() <= fpr and threshold in scores
            lower = scores[scores < threshold]
            assert not len(lower) or (scores > lower.max()).mean() > fpr - 1e-9


def calibrated_with(detector, fpr, frame):
    d = FlowDetector()
    vars(d).update(vars(detector))
    d.set_params(fpr=fpr).calibrate(frame)
    return d.anomaly_score(frame), -d.offset_


def test_law_calibration_keeps_its_promise(detector): law_calibration_keeps_its_promise(partial(calibrated_with, detector))


def test_law_calibration_keeps_its_promise_catches_one_alarm_too_many(detector):
    def wrong(fpr, frame):
        scores = np.sort(calibrated_with(detector, fpr, frame)[0])
        return scores, scores[max(len(scores) - 2 - int(fpr * len(scores)), 0)]
    with pytest.raises(AssertionError): law_calibration_keeps_its_promise(wrong)


def test_calibration_scores_stay_with_the_model(detector):
    d = FlowDetector()
    vars(d).update(vars(detector))
    assert d.calibrate(X[:30]) is d and np.array_equal(d.calibration_scores_, np.sort(d.anomaly_score(X[:30])))
    with pytest.raises(ValueError, match="at least one benign record"): d.calibrate(X[:0])


def law_columns_by_name(score, frame):
    "Columns are found by name: order and further columns change nothing, a missing one is named."
    scores = score(frame)
    assert np.array_equal(score(frame[frame.columns[::-1]]), scores)
    assert np.array_equal(score(frame.assign(Label="BENIGN", extra=np.nan)), scores)
    for name in frame:
        with pytest.raises(KeyError, match=name): score(frame.drop(columns=name))


def test_law_columns_by_name(detector): law_columns_by_name(detector.anomaly_score, X[:50])


def test_law_columns_by_name_catches_positions(detector):
    with pytest.raises((AssertionError, ValueError)): law_columns_by_name(lambda f: detector.anomaly_score(f.to_numpy()), X[:50])


def test_frames_and_arrays(detector, untrained):
    assert list(detector.feature_names_in_) == list(X) and detector.n_features_in_ == 5
    assert np.array_equal(detector.anomaly_score(X.to_numpy()), detector.anomaly_score(X))
    d = quick(epochs=1).fit(X.to_numpy())
    assert list(d.feature_names_in_) == ["x0", "x1", "x2", "x3", "x4"] and np.isfinite(d.anomaly_score(X.to_numpy())).all()
    with pytest.raises(ValueError, match="shape"): detector.anomaly_score(X.to_numpy()[:, :3])
    with pytest.raises(ValueError, match="shape"): detector.anomaly_score(X.to_numpy()[0])
    with pytest.raises(KeyError, match="x0"): d.anomaly_score(X)
    assert np.array_equal(detector.anomaly_score(X.astype("float32").astype("float64")), detector.anomaly_score(X.astype("float32")))


UNFITTED = {"anomaly_score": (X,), "score_samples": (X,), "decision_function": (X,), "predict": (X,), "log_prob_terms": (X,),
            "to_latent": (X,), "calibrate": (X,), "sample": (3,), "save": ("never.safetensors",)}


@pytest.mark.parametrize("method", UNFITTED)
def test_not_fitted_is_said(method):
    with pytest.raises(NotFittedError, match="fit"): getattr(FlowDetector(), method)(*UNFITTED[method])


BAD = {"architecture": ["mlp", None, "Autoregressive"], "statistic": ["nll", None, 1], "transform": ["minmax", None], "optimizer": ["lbfgs", 3], "n_layers": [0, 1.5, True],
       "hidden": [0, -3, "64"], "epochs": [0, 2.0, None], "n_members": [0, 2.5, None], "batch_size": [0, -1], "patience": [0, None], "n_bins": [1, 0, 1000, 10**6],
       "seed": [-1, 0.5, None, "a"], "learning_rate": [0, -1, 10, np.nan, "fast", None], "latent_df": [0, -2, np.inf, np.nan],
       "noise": [-0.1, 1, np.nan, None], "validation_fraction": [0, 1, None], "fpr": [0, 1, -0.1, np.nan, "1%"]}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values])
def test_bad_parameters_are_named_before_any_work(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must"): FlowDetector(**{name: value}).fit(None)


def test_every_parameter_is_checked():
    "All parameters but `feature_order`, whose check needs the records, and `progress`, of which any value means something."
    assert set(BAD) == set(FlowDetector().get_params()) - {"feature_order", "progress"}


@pytest.mark.parametrize("n", [0, 1, 5, 19])
def test_too_few_records(n, untrained):
    with pytest.raises(ValueError, match="at least 20 benign records"): quick().fit(X[:n])
    with pytest.raises(ValueError, match="at least 20 benign records"): quick().fit(X[:n], validation=X)


def test_an_empty_validation_part_is_refused(untrained):
    with pytest.raises(ValueError, match="validation"): quick().fit(X, validation=X[:0])


def test_validation_records_are_not_trained_on(untrained):
    d = quick(epochs=1).fit(X, validation=records(50, seed=9))
    assert d.n_train_ == len(X) and len(d.calibration_scores_) == 50
    assert quick(epochs=1).fit(X).n_train_ == 288  # a tenth is cut off


def test_a_detector_can_be_copied_and_pickled(detector):
    "As scikit-learn's tools do to send it to other processes. (A pickle is no model file: `save` is.)"
    copy = pickle.loads(pickle.dumps(detector))
    assert np.array_equal(copy.anomaly_score(X), detector.anomaly_score(X)) and copy.get_params() == detector.get_params()


def test_the_paper_preset_is_the_released_protocol():
    d = FlowDetector.preset("paper")
    assert (d.architecture, d.transform, d.optimizer, d.learning_rate, d.epochs, d.noise) == ("pzflow", "standard", "sgd", 1e-3, 100, 0.0)
    assert FlowDetector.preset().get_params() == FlowDetector().get_params()
    assert FlowDetector.preset("paper", epochs=7, optimizer=None).get_params() == d.get_params() | {"epochs": 7}
    with pytest.raises(ValueError, match="preset must be one of.*did you mean 'paper'"): FlowDetector.preset("papers")
    with pytest.raises(ValueError, match="unknown parameters.*epoch"): FlowDetector.preset("paper", epoch=3)


def test_the_paper_flow_is_pzflow_default(paper):
    "The same bijectors, with the same settings, as pzflow builds when it is given none."
    default = Flow(["duration", "bytes"], latent=None)
    Z = pd.DataFrame(paper.transform_.transform(MILD), columns=["duration", "bytes"])
    default._set_default_bijector(Z, seed=0)
    assert [part[0] for part in default._bijector_info[1]] == [part[0] for part in paper.flow_._bijector_info[1]]
    assert jax.tree.map(jnp.shape, default._params) == jax.tree.map(jnp.shape, paper.flow_._params)
    assert default.latent.info[0] == paper.flow_.latent.info[0]
    assert np.isfinite(paper.anomaly_score(MILD * 9)).all() and paper.log_prob_terms(MILD).shape == (len(X), 1)


@pytest.fixture(scope="module")
def tuned(): return FlowDetector.preset("tuned", epochs=2, batch_size=144).fit(MILD)


def test_the_tuned_preset_is_a_strong_rival(tuned):
    "Four couplings of eight bins and 64 hidden units, Adam, one cycle of rates."
    assert (tuned.architecture, tuned.optimizer, FlowDetector.preset("tuned").epochs) == ("coupling", "adam", 100)
    couplings = tuned.flow_._bijector_info
    assert sum(part[0] == "NeuralSplineCoupling" for part in couplings[1]) == 4 and "64" in repr(couplings) and "(8" in repr(couplings)
    assert tuned.log_prob_terms(MILD).shape == (320, 1) and np.isfinite(tuned.anomaly_score(MILD)).all() and tuned.history_.validation_loss[-1] < 20
    with pytest.raises(ValueError, match="n_members"): FlowDetector.preset("tuned", n_members=2).fit(MILD)


def test_only_the_tuned_flow_has_a_cycle_of_rates(monkeypatch, untrained):
    seen = []
    monkeypatch.setattr(Flow, "train", lambda *args, optimizer, **settings: seen.append(optimizer) or [[1.0, 1.0], [1.0, 1.0]])
    for name in ("tuned", "paper"): FlowDetector.preset(name, epochs=1).fit(MILD)
    for optimizer, cycles in zip(seen, (True, False)):
        state, steps = optimizer.init(jnp.ones(1)), []
        for _ in range(2):
            update, state = optimizer.update(jnp.ones(1), state)
            steps.append(float(update[0]))
        assert (abs(steps[1] / steps[0] - 1) > 1e-3) == cycles


def test_law_round_trip_of_the_tuned_flow(tuned, tmp_path):
    law_round_trip(tuned, FlowDetector.load, tuned.save(tmp_path / "model.safetensors"), strange(MILD))


def law_flow_is_pzflow(detector, frame):
    "The flow is pzflow's: its log_prob of a DataFrame is the sum of the terms, and it samples."
    flow, names = detector.flow_, list(detector.transform_.feature_names_out_)
    scaled = pd.DataFrame(detector.transform_.transform(frame), columns=names)
    assert isinstance(flow, Flow) and list(flow.data_columns) == names
    log_prob = np.asarray(flow.log_prob(scaled[names[::-1]]))
    assert np.abs(log_prob - detector.log_prob_terms(frame).sum(axis=1)).max() < 1e-4
    drawn = flow.sample(50, seed=1)
    assert list(drawn) == names and len(drawn) == 50 and np.isfinite(drawn.to_numpy()).all()


def test_law_flow_is_pzflow(detector, paper):
    law_flow_is_pzflow(detector, X[:64])
    law_flow_is_pzflow(paper, MILD[:64])


def test_law_flow_is_pzflow_catches_missing_terms(detector):
    class Short(FlowDetector):
        def log_prob_terms(self, X): return super().log_prob_terms(X)[:, 1:]
    short = Short()
    vars(short).update(vars(detector))
    with pytest.raises(AssertionError): law_flow_is_pzflow(short, X[:64])


def test_samples_look_like_records(detector):
    drawn = detector.sample(400, seed=3)
    assert list(drawn) == list(X) and (drawn.version == 4).all() and detector.sample(400, seed=3).equals(drawn)
    low, high = np.log(X.duration).quantile([0.05, 0.95])
    assert low < np.log(drawn.duration.clip(lower=1)).median() < high
    with pytest.raises(ValueError, match="^n must"): detector.sample(0)


def test_an_unknown_architecture_and_a_single_feature_for_pzflow(untrained):
    with pytest.raises(ValueError, match="architecture"): build_flow("glow", ["a"], [0], None)
    with pytest.raises(ValueError, match="at least 2 features"): build_flow("pzflow", ["a"], [0], np.array([[0.0], [1.0]]))
    with pytest.raises(ValueError, match="order"): build_flow("autoregressive", ["a", "b"], [0, 0], None)
    d = quick(epochs=1).fit(X[["gap"]])
    assert d.log_prob_terms(X).shape == (len(X), 1)


# --- item 7: the model file ---------------------------------------------------------------------------------

@pytest.fixture
def saved(detector, tmp_path): return detector.save(tmp_path / "saved.safetensors")  # anew for each test: some calibrate again


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


def test_law_round_trip(detector, saved): law_round_trip(detector, load_detector, saved, strange(X))


def test_law_round_trip_of_the_paper_flow(paper, tmp_path):
    law_round_trip(paper, FlowDetector.load, paper.save(tmp_path / "model.safetensors"), strange(MILD))


@pytest.mark.parametrize("transform", ["standard", "quantile"])
def test_law_round_trip_of_transforms(fitted, transform, tmp_path):
    law_round_trip(fitted(transform), load_detector, fitted(transform).save(tmp_path / "m.safetensors"), strange(X))


def test_law_round_trip_catches_forgotten_weights(detector, saved):
    def forgetful(path):
        other = load_detector(path)
        other._set_flow(other._bounds)
        return other
    with pytest.raises(AssertionError): law_round_trip(detector, forgetful, saved, X)


def test_loading_runs_no_code(saved, monkeypatch):
    def never(*args, **kwargs): raise AssertionError("loading a model must not unpickle, evaluate or execute")
    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (builtins, "eval"), (np, "load")): monkeypatch.setattr(module, name, never)
    load_detector(saved)
    content = saved.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    assert json.loads(content[8:start]) and b"cnumpy" not in content and b"c__builtin__" not in content and not content.startswith(b"\x80")
    source = __import__("pathlib").Path(train.__file__).read_text()
    assert not re.search(r"\b(pickle|joblib|dill|eval\(|exec\(|np\.load)\b", source)


def refuses(path, match=None):
    "Loading says, in a ValueError that names the file, why not."
    with pytest.raises(ValueError, match=match) as caught: load_detector(path)
    assert str(path) in str(caught.value)


def law_damage_is_seen(load, content, folder, detector):
    "After any bit is flipped a file is refused, or (e.g. 1e-3 to 1E-3) still means exactly the same."
    path, header = folder / "damaged.safetensors", 8 + struct.unpack("<Q", content[:8])[0]
    rng = np.random.default_rng(0)
    places = [*range(10), *rng.integers(8, header, 60), *rng.integers(header, len(content), 25), header - 1, header, len(content) - 1]
    places += [found.start() + found.group().rindex(found.group()[-1:]) for found in re.finditer(rb'\\"(offset|constant_cost|n_records|latent_df)\\": \d', content)]
    for place in places:
        for bit in ((0, 2) if place >= header else range(7)) if place > 10 else range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try: load(path)
            except ValueError as error: assert str(path) in str(error)
            else: assert header_of(path) == header_of_bytes(content, folder), (int(place), bit, bytes(content[place - 20:place + 20]))


def header_of(path):
    with safe_open(path, framework="numpy") as file: return json.loads(file.metadata()["nfad"])


def header_of_bytes(content, folder):
    (folder / "whole.safetensors").write_bytes(content)
    return header_of(folder / "whole.safetensors")


def test_law_damage_is_seen(saved, tmp_path, detector):
    law_damage_is_seen(load_detector, saved.read_bytes(), tmp_path, detector)


def test_law_damage_is_seen_catches_a_loader_without_hash(saved, tmp_path, detector, monkeypatch):
    monkeypatch.setattr(train, "sha256", NoHash)
    content = detector.save(tmp_path / "unsealed.safetensors").read_bytes()
    with pytest.raises(AssertionError): law_damage_is_seen(load_detector, content, tmp_path, detector)


@pytest.mark.parametrize("share", [0, 0.0001, 0.002, 0.05, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_refused(saved, tmp_path, share):
    content, path = saved.read_bytes(), tmp_path / "short.safetensors"
    path.write_bytes(content[:int(share * len(content))])
    refuses(path)
    path.write_bytes(content + b"more")
    refuses(path)


def bfloat16_file(path):
    "What other programs write: a tensor type that numpy does not have."
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x00\x3f\x80\x3f")


FOREIGN = {"text": lambda p: p.write_text("duration,bytes\n1,2\n" * 50), "zeros": lambda p: p.write_bytes(bytes(4096)),
           "pickle": lambda p: p.write_bytes(pickle.dumps({"weights": np.zeros(3)})), "npz": lambda p: np.savez(p.open("wb"), a=np.zeros(3)),
           "random": lambda p: p.write_bytes(np.random.default_rng(0).bytes(4096)),
           "weights of another program": lambda p: save_file({"w": np.zeros((3, 3))}, p),
           "with other metadata": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"format": "pt"}),
           "metadata that is no JSON": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": "{"}),
           "metadata that is a list": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": "[1]"}),
           "a later format": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": '{"format": "nfad-flow-99"}'}),
           "endless brackets": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": "[" * 200_000}),
           "endless digits": lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": '{"format": ' + "9" * 9000 + "}"}),
           "a header longer than the file": lambda p: p.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
           "a header of 200 MB": lambda p: p.write_bytes(struct.pack("<Q", 2 * 10**8) + b"{" * 64),
           "bfloat16": bfloat16_file}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_other_programs_are_refused(kind, tmp_path):
    FOREIGN[kind](tmp_path / "model.safetensors")
    refuses(tmp_path / "model.safetensors")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises((FileNotFoundError, ValueError), match=re.escape(str(path))): load_detector(path)


class NoHash:
    "Stands in for sha256, so that a forged file has the right hash."
    def __init__(self, *_): pass
    def update(self, *_): pass
    def hexdigest(self): return "0" * 64


def forged(detector, path, change, monkeypatch):
    "The file of `detector` after `change(arrays, header)`, with a hash that fits."
    monkeypatch.setattr(train, "sha256", NoHash)
    detector.save(path)
    with safe_open(path, framework="numpy") as file:
        arrays, header = {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["nfad"])
    change(arrays, header)
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path, metadata={"nfad": json.dumps(header)})
    return path


def drop(name): return lambda arrays, header: arrays.pop(name)
def swap(name, new): return lambda arrays, header: arrays.update({name: new(arrays[name])})
def claim(**parameters): return lambda arrays, header: header["parameters"].update(parameters)
def write(**entries): return lambda arrays, header: header.update(entries)
def poke(value):
    def put(weights):
        weights = weights.copy()
        weights.flat[3] = value
        return weights
    return put


FORGERIES = {
    **{f"without {name}": drop(name) for name in ("flow.0", "flow.7", "calibration_scores", "bounds", "transform.center", "transform.kept")},
    **{f"header without {key}": (lambda arrays, header, key=key: header.pop(key)) for key in ("parameters", "transform", "offset", "constant_cost", "history", "n_train")},
    "NaN weights": swap("flow.4", poke(np.nan)), "infinite weights": swap("flow.4", poke(np.inf)),
    "weights of another shape": swap("flow.4", lambda w: w[:, :-1]), "weights turned": swap("flow.6", lambda w: w.swapaxes(-1, -2).copy()),
    "whole numbers as weights": swap("flow.4", lambda w: w.astype(np.int32)), "double weights": swap("flow.4", lambda w: w.astype(np.float64)),
    "NaN calibration scores": swap("calibration_scores", poke(np.nan)), "no calibration scores": swap("calibration_scores", lambda s: s[:0]),
    "calibration scores in a table": swap("calibration_scores", lambda s: s.reshape(2, -1)),
    "unsorted calibration scores": swap("calibration_scores", lambda s: s[::-1].copy()),
    "a scale of zero": swap("transform.scale", lambda s: 0 * s), "no feature kept": swap("transform.kept", lambda k: k & False),
    "another width": claim(hidden=17), "another depth": claim(n_layers=3), "other bins": claim(n_bins=9), "other transform": claim(transform="quantile"),
    "the other architecture": claim(architecture="pzflow"), "an unknown architecture": claim(architecture="evil"), "a width beyond memory": claim(hidden=10**7),
    "a depth beyond memory": claim(n_layers=10**9), "a size beyond any number": claim(hidden=10**30), "another number of members": claim(n_members=2), "far too many members": claim(n_members=10**6), "an unknown parameter": claim(command="rm"),
    "a wrong type": claim(hidden="16"), "df of zero": claim(latent_df=0), "an order of other features": claim(feature_order=["a"]),
    "parameters as a list": write(parameters=[1]), "parameters as null": write(parameters=None), "transform as null": write(transform=None),
    "offset as text": write(offset="low"), "offset NaN": write(offset=float("nan")), "offset as null": write(offset=None), "cost infinite": write(constant_cost=float("inf")),
    "a count as text": write(n_train="many"), "history as a list": write(history=[1]),
    "infinitely many records": lambda arrays, header: header["transform"].update(n_records=float("inf")),
    "names as numbers": lambda arrays, header: header["transform"].update(names=5),
    "names twice": lambda arrays, header: header["transform"].update(names=["gap"] * 5),
    "another kind of transform": lambda arrays, header: header["transform"].update(kind="quantile")}


@pytest.mark.parametrize("kind", FORGERIES)
def test_files_that_contradict_themselves_are_refused(kind, detector, tmp_path, monkeypatch):
    "And before a flow of the claimed size is built: a file must not decide how much memory is taken."
    build = train.build_flow
    def guarded(architecture, names, order, bounds, *sizes, **rest):
        assert max(sizes[:3], default=0) < 10**4, "built before it is checked"
        return build(architecture, names, order, bounds, *sizes, **rest)
    monkeypatch.setattr(train, "build_flow", guarded)
    refuses(forged(detector, tmp_path / "forged.safetensors", FORGERIES[kind], monkeypatch))


def test_an_honest_file_passes_where_the_forged_fail(detector, tmp_path, monkeypatch):
    law_round_trip(detector, load_detector, forged(detector, tmp_path / "honest.safetensors", lambda arrays, header: None, monkeypatch), X)


def law_saving_is_atomic(save, path, monkeypatch):
    "When writing fails the old file stays, and nothing lies beside it."
    old = path.read_bytes()
    def broken(arrays, target, metadata=None):
        open(target, "wb").write(b"half")
        raise OSError("no space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(train, "save_file", broken)
        with pytest.raises(OSError, match="no space"): save(path)
    assert path.read_bytes() == old and list(path.parent.iterdir()) == [path]


def test_law_saving_is_atomic(detector, tmp_path, monkeypatch):
    law_saving_is_atomic(detector.save, detector.save(tmp_path / "model.safetensors"), monkeypatch)


def test_law_saving_is_atomic_catches_writing_in_place(detector, tmp_path, monkeypatch):
    path = detector.save(tmp_path / "model.safetensors")
    with pytest.raises(AssertionError): law_saving_is_atomic(lambda path: train.save_file({}, path), path, monkeypatch)


def test_a_saved_file_says_what_made_it(saved):
    with safe_open(saved, framework="numpy") as file: header, names = json.loads(file.metadata()["nfad"]), set(file.keys())
    assert header["format"] == train.FILE_FORMAT and header["transform"]["names"] == list(X) and header["versions"]["pzflow"]
    assert {"calibration_scores", "transform.center", "flow.0"} <= names


# --- a run --------------------------------------------------------------------------------------------------

SETTINGS = dict(dataset="demo", feature_set=["Flow Duration", "Total Fwd Packets", "Flow IAT Max"], split="random", sizes=None, seed=3)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory): return prepare(**SETTINGS, out_dir=str(tmp_path_factory.mktemp("runs")), progress=False)


def law_same_run(prepare, first):
    "The same settings give the same records, split, features and folder name."
    again = prepare(**json.loads(json.dumps(SETTINGS)), out_dir=str(first.folder.parent.parent), progress=False)
    assert again.features == first.features and again.folder == first.folder
    for part in ("train", "reference", "calibration", "test", "labelled"):
        assert np.array_equal(getattr(again.split, part), getattr(first.split, part)), part
    assert again.dataset.records.equals(first.dataset.records)


def test_law_same_run(prepared): law_same_run(prepare, prepared)


def test_law_same_run_catches_another_seed(prepared):
    with pytest.raises(AssertionError): law_same_run(lambda **kw: prepare(**kw | {"seed": 4}), prepared)


def test_prepared_parts_hold_the_features(prepared):
    assert prepared.features == SETTINGS["feature_set"] and prepared.folder.parent.name == "demo"
    assert list(prepared.part("train")) == prepared.features and len(prepared.part("train")) == len(prepared.split.train)
    assert not prepared.folder.exists()  # made when the first file is written
    with pytest.raises(ValueError, match="split|method"): prepare("demo", split="by moon")
    with pytest.raises((KeyError, ValueError), match="Flow Duratoin"): prepare("demo", ["Flow Duratoin"])


def test_a_run_leaves_a_record_and_a_model(prepared, untrained):
    d = quick(epochs=2)
    record = train_run(prepared, d, SETTINGS)
    stored = json.loads((prepared.folder / "train.json").read_text())
    assert sorted(p.name for p in prepared.folder.iterdir()) == ["calibration.parquet", "model.safetensors", "train.json"]
    assert stored["settings"] == SETTINGS and stored["features"] == prepared.features and stored["parameters"] == json.loads(json.dumps(d.get_params()))
    assert stored == json.loads(json.dumps(record)) and stored["threshold"] == -d.offset_ and stored["n_calibration"] == len(d.calibration_scores_)
    assert np.array_equal(FlowDetector.load(prepared.folder / "model.safetensors").anomaly_score(prepared.part("test")), d.anomaly_score(prepared.part("test")))


def test_a_failed_run_leaves_no_model_of_another(prepared, monkeypatch, untrained):
    train_run(prepared, quick(seed=1), SETTINGS)
    def broken(*args, **kwargs): raise OSError("no space left on device")
    monkeypatch.setattr(train, "save_file", broken)
    before = (prepared.folder / "train.json").read_text()
    with pytest.raises(OSError): train_run(prepared, quick(seed=2), SETTINGS)
    model, record = prepared.folder / "model.safetensors", prepared.folder / "train.json"
    assert not model.is_file() or record.read_text() == before  # never the new record beside the old model
    assert not list(prepared.folder.glob(".*"))


def test_divergence_leaves_the_earlier_run_alone(prepared, untrained, monkeypatch):
    train_run(prepared, quick(epochs=1), SETTINGS)
    before = {path.name: path.read_bytes() for path in prepared.folder.iterdir()}
    def diverge(*args, **settings): raise TrainingDiverged("the loss became nan")
    monkeypatch.setattr(train, "train_flow", diverge)
    with pytest.raises(TrainingDiverged): train_run(prepared, quick(seed=4), SETTINGS)
    assert {path.name: path.read_bytes() for path in prepared.folder.iterdir()} == before


# --- figures ------------------------------------------------------------------------------------------------

def test_figures(pair):
    from matplotlib import pyplot as plt
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for history in (pair.history_, History([1.0], [2.0], 1, 0.1)): assert train.plot_loss(history).get_xlabel() == "epoch"
        Z = pair.transform_.transform(X)
        log_prob = lambda points: in_blocks(pair.terms_, points)[0].sum(axis=1)
        for is_attack in (None, np.arange(len(Z)) % 3 == 0, np.zeros(len(Z), bool)):
            assert train.plot_density(log_prob, Z, is_attack, labels=["a", "b"]).get_xlabel() == "a"
        for axes in plt.get_fignums(): plt.figure(axes).canvas.draw()
    plt.close("all")


# --- the default statistic ----------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def profiled(): return FlowDetector(hidden=16, epochs=6, batch_size=64).fit(X)


def test_the_default_statistic_keeps_the_laws(profiled, tmp_path):
    assert profiled.statistic == "profile"
    law_round_trip(profiled, load_detector, profiled.save(tmp_path / "m.safetensors"), strange(X))
    law_decisions_agree(profiled, pd.concat([X, X.iloc[:50] * 20], ignore_index=True))
    law_constants_are_kept(profiled, X, "version")
    law_strange_is_ordered(profiled, X, list(X))


def law_company_does_not_matter(score, frame):
    "A record's score is the same to the last bit alone, in any number, and in any order."
    whole = score(frame)
    for n in (1, 5, 31, 33, 100, 255, 257): assert np.array_equal(score(frame[:n]), whole[:n]), n
    assert np.array_equal(score(frame[::-1]), whole[::-1])


def test_law_company_does_not_matter(profiled): law_company_does_not_matter(profiled.anomaly_score, X)


def test_law_company_does_not_matter_catches_ranks(profiled):
    with pytest.raises(AssertionError): law_company_does_not_matter(lambda frame: np.argsort(profiled.anomaly_score(frame)), X)


def test_score_parts_add_up(profiled, detector):
    for d, names in ((profiled, ["record", "profile", "total", "constants"]), (detector, ["log_prob", "constants"])):
        parts = d.score_parts(X.assign(version=[5.0] * 3 + [4.0] * (len(X) - 3)))
        assert list(parts) == names and (parts.constants[:3] > 0).all() and (parts.constants[3:] == 0).all()
        assert np.allclose(parts.sum(axis=1)[3:], d.anomaly_score(X)[3:])


def test_couplings_have_no_profile():
    with pytest.raises(ValueError, match="statistic must be 'log_prob' for architecture 'pzflow'"): FlowDetector(architecture="pzflow").fit(MILD)
