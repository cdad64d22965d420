"""Laws of nfad.flow: the map, its splines, its density, its gradients."""
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import t as scipy_t

from nfad.engine import FLOOR, bin_shares, find_bin, in_blocks, search_bin
from nfad.flow import (autoregressive_masks, autoregressive_terms, flow_forward, mask_params, spline, spline_flow,
                       student_t_log_prob)

from flows import (BINS, BOUND, ORDERS, SIZES_OF_RAW, STEADY, X, curves, law_finite_gradients, law_same_derivatives, masks_for, points,
                   quick, slope_of, wild_params)

curve_of = partial(spline, find=find_bin)


# --- the map ------------------------------------------------------------------------------------------------

def forward(params, x, order):  # (n, d) -> latent (n, d), log slopes (n, d)
    return flow_forward(params, masks_for(params, order), x, BOUND)


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


def test_law_monotone_curve(): law_monotone_curve(curve_of)


def test_law_monotone_curve_catches_a_scaled_tail():
    with pytest.raises(AssertionError):
        law_monotone_curve(lambda x, raw, bound: tuple(jnp.where(jnp.abs(x) > bound, 1.1 * v, v) for v in curve_of(x, raw, bound)))


# --- the spline, against a reference ------------------------------------------------------------------------

def naive_spline(x, raw, bound):
    "Eq. 4 and 5 of Durkan et al. (2019) for one value in [-B, B]."
    b = search_bin((x + bound) / (2 * bound), raw)
    left, right = (FLOOR + jax.nn.softplus(number + jnp.log(jnp.expm1(1 - FLOOR))) for number in (b.raw_s0, b.raw_s1))
    t, r = ((x + bound) / (2 * bound) - b.x0) / b.width, b.height / b.width
    bottom = r + (left + right - 2 * r) * t * (1 - t)
    y = b.y0 + b.height * (r * t**2 + left * t * (1 - t)) / bottom
    return 2 * bound * y - bound, jnp.log(r**2 * (right * t**2 + 2 * r * t * (1 - t) + left * (1 - t)**2) / bottom**2)


def test_law_same_derivatives_of_the_spline():
    law_same_derivatives(lambda x, raw: curve_of(x, raw, BOUND), lambda x, raw: naive_spline(x, raw, BOUND))
    law_same_derivatives(lambda x, raw: curve_of(x, raw, BOUND), lambda x, raw: spline(x, raw, BOUND, search_bin))


def test_law_same_derivatives_catches_edges_held_fast():
    def wrong(x, raw):
        n_bins = (len(raw) + 1) // 3
        return curve_of(x, jnp.concatenate([jax.lax.stop_gradient(raw[:n_bins]), raw[n_bins:]]), BOUND)
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
                slope = float((g * way).sum() + (h * turn).sum())
                up, down = (float(total(x + e * way, raw + e * turn, weights)) for e in (1e-6, -1e-6))
                assert abs((up - down) / 2e-6 - slope) < 1e-4 * max(abs(slope), 1), (n_bins, size)


def test_law_differences(): law_differences(curve_of)


def test_law_differences_catches_a_log_slope_without_gradient():
    def wrong(x, raw, bound): return curve_of(x, raw, bound)[0], jax.lax.stop_gradient(curve_of(x, raw, bound)[1])
    with pytest.raises(AssertionError): law_differences(wrong)


# --- the density --------------------------------------------------------------------------------------------

def plane(reach, n):
    "A grid of n by n points on the square of side 2 * reach, and the area of one cell."
    side = np.linspace(-reach, reach, n, dtype=np.float32)
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2), float((2 * reach / (n - 1)) ** 2)


def law_integrates_to_one(log_prob, grid, cell):
    "A density sums to one over its plane."
    total = np.exp(np.asarray(log_prob(grid), dtype=np.float64)).sum() * cell
    assert abs(total - 1) < 0.02, total


def log_density(params, x, order): return (student_t_log_prob(forward(params, x, order)[0], 5.0) + forward(params, x, order)[1]).sum(axis=1)


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
    def wrong(x): return student_t_log_prob(forward(wild_params(2), jnp.asarray(x), (0, 1))[0], 5.0).sum(axis=1)
    with pytest.raises(AssertionError): law_integrates_to_one(wrong, *plane(10, 401))


def law_student_t(log_prob_terms):
    "Student's t as scipy computes it, finite and never rising however far out."
    u = np.concatenate([[0], np.geomspace(1e-8, 3e38, 600)]).astype(np.float32)
    for df in (0.5, 1, 3, 5, 30):
        ours, theirs = np.asarray(log_prob_terms(df, jnp.asarray(u))), scipy_t.logpdf(u.astype(np.float64), df)
        assert np.isfinite(ours).all() and (np.diff(ours) <= 0).all()
        assert np.allclose(ours, theirs, rtol=2e-5, atol=2e-5)
        assert np.array_equal(ours, np.asarray(log_prob_terms(df, jnp.asarray(-u))))


def test_law_student_t(): law_student_t(lambda df, u: student_t_log_prob(u, df))


def test_law_student_t_catches_a_square_that_overflows():
    def naive(df, u): return scipy_t.logpdf(0, df) - (df + 1) / 2 * jnp.log1p(jnp.square(u) / df)
    with pytest.raises(AssertionError): law_student_t(naive)


# --- design section 5, item 1: gradients --------------------------------------------------------------------

def loss_gradient(params, order=(0, 1)):
    "Gradient of the training loss by weights and by records."
    masks = masks_for(params, order)
    def loss(p, x): return -autoregressive_terms(p, masks, x, BOUND, 5.0)[0].sum(axis=1).mean()
    return jax.jit(lambda x: jax.grad(loss, argnums=(0, 1))(params, x))


def test_law_finite_gradients():
    law_finite_gradients(loss_gradient(wild_params(2, hidden=8)))


TINY = [0.0, -0.0, 1e-45, -1e-45, 1e-40, 1.2e-38, 1e-20, 6e-8]
EDGES = [v for b in (BOUND, STEADY) for v in (b, np.nextafter(np.float32(b), 0), np.nextafter(np.float32(b), np.inf))]
HUGE = [1e6, 1e12, 1e19, 2e19, 1e30, float(np.finfo(np.float32).max)]


def inner_edges(raw): return jnp.cumsum(jnp.stack(bin_shares(jnp.asarray(raw[:(len(raw) + 1) // 3], jnp.float32))))


def hard_floats(params):
    "All pairs of floats on which arithmetic breaks, inner edges of the bins among them; (n, 2) float32."
    raw = np.asarray(params["b_out"], np.float64)[0].reshape(-1, 2)[:, 0]
    inner = 2 * BOUND * np.asarray(inner_edges(raw)) - BOUND
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


def test_law_gradient_on_edges(): law_gradient_on_edges(curve_of)


def test_law_gradient_on_edges_catches_a_kink():
    def wrong(x, raw, bound): return jnp.abs(curve_of(x, raw, bound)[0]), curve_of(x, raw, bound)[1]
    with pytest.raises(AssertionError): law_gradient_on_edges(wrong)
