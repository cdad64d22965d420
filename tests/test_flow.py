"""Laws of the flow in nfad.train: the map, its splines, its density, its gradients."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pzflow.bijectors import NeuralSplineCoupling
from scipy.stats import t as scipy_t

from nfad.engine import Bin, FLOOR, bin_shares, find_bin, in_blocks
from nfad.flow import (StudentT, autoregressive_masks, autoregressive_terms, flow_forward, flow_inverse, inverse_spline, mask_params,
                       spline, spline_flow)

from flows import BOUND, STEADY, X, masks_for, points, quick, wild_params


# --- the map ------------------------------------------------------------------------------------------------

def forward(params, x, order):  # (n, d) -> latent (n, d), log slopes (n, d)
    return flow_forward(params, masks_for(params, order), x, BOUND)


def backward(params, u, order): return flow_inverse(params, masks_for(params, order), u, BOUND)


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
