"""Laws of nfad.architectures: the map back, sizes by name, and where pzflow's own parts fail."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pzflow.bijectors import NeuralSplineCoupling, ShiftBounds
from scipy.stats import t as scipy_t

from nfad.architectures import (ARCHITECTURES, AutoregressiveSpline, StudentT, build_flow, flow_inverse, flow_shapes, inverse_spline, network_width,
                                spline_config, terms_function)
from nfad.engine import find_bin
from nfad.flow import flow_forward, spline

from flows import BINS, BOUND, ORDERS, SIZES_OF_RAW, X, curves, law_finite_gradients, masks_for, points, slope_of, wild_params


# --- there and back --------------------------------------------------------------------------------------------

def forward(params, x, order):  # (n, d) -> latent (n, d), log slopes (n, d)
    return flow_forward(params, masks_for(params, order), x, BOUND)


def backward(params, u, order): return flow_inverse(params, masks_for(params, order), u, BOUND)


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


def law_inverse_spline(inverse_spline):
    "The curve's inverse, inside and outside, to the precision of the numbers; its slope is one over the curve's."
    with jax.enable_x64(True):
        there = jax.jit(lambda x, raw: spline(x, raw, BOUND, find_bin))
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


# --- sizes -----------------------------------------------------------------------------------------------------

def law_width(width):
    "The wanted width, or a multiple of 16, at least 32, with at least two units for each feature."
    for d in (1, 6, 16, 17, 58):
        assert width(7, d) == 7
        assert width(None, d) % 16 == 0 and max(32, 2 * d) <= width(None, d) < 2 * d + 32


def test_law_width(): law_width(network_width)


def test_law_width_catches_a_narrow_network():
    with pytest.raises(AssertionError): law_width(lambda hidden, d: hidden or 32)


def test_a_config_tells_what_made_a_flow():
    flow = build_flow("autoregressive", ["a", "b"], [1, 0], None, n_layers=3, hidden=None, n_bins=5)
    assert spline_config(flow) == ((1, 0), 3, 32, 5, 5.0)
    with pytest.raises(ValueError, match="flow must be of the architecture 'autoregressive'"):
        spline_config(build_flow("coupling", ["a", "b"], [0, 1], np.ones((2, 2))))


# --- against pzflow: tails, sums, gradients --------------------------------------------------------------------

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


def test_student_t_samples_follow_their_density():
    drawn = np.asarray(StudentT(2, 5.0).sample((), 4000, seed=0))
    assert drawn.shape == (4000, 2) and np.abs(np.quantile(drawn, [0.1, 0.5, 0.9]) - scipy_t.ppf([0.1, 0.5, 0.9], 5)).max() < 0.1


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


def test_pzflow_has_one_term_a_record():
    Z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    for name in ("pzflow", "coupling"):
        flow = build_flow(name, ["a", "b"], [0, 1], np.array([[-4, -4], [4, 4]]))
        terms, u = terms_function(flow)(flow._params, Z)
        assert terms.shape == (5, 1) and u.shape == (5, 2) and np.isfinite(terms).all()


def law_shapes(shapes):
    "The shapes said are those of the weights that are made."
    for architecture in ARCHITECTURES:
        for d, n_layers, hidden, n_bins in ((2, 1, 8, 4), (3, 2, None, 8), (7, 3, 20, 3)):
            flow = build_flow(architecture, [f"x{i}" for i in range(d)], range(d), np.stack([-np.ones(d), np.ones(d)]), n_layers, hidden, n_bins)
            made = [np.shape(leaf) for leaf in jax.tree.leaves(flow._params)]
            assert shapes(architecture, d, n_layers, hidden, n_bins) == made, (architecture, d)


def test_law_shapes(): law_shapes(flow_shapes)


def test_law_shapes_catches_one_of_another_size():
    with pytest.raises(AssertionError): law_shapes(lambda architecture, d, *rest: flow_shapes(architecture, d, *rest)[:-1] + [(d,)])


def test_pzflow_has_a_largest_size():
    with pytest.raises(ValueError, match="128"): build_flow("pzflow", [f"x{i}" for i in range(129)], range(129), np.zeros((2, 129)))
    with pytest.raises(ValueError, match="128"): flow_shapes("pzflow", 129)
