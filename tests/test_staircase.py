"""Laws of nfad.staircase: the terms of the plain flow, with the products left out that masks make zero."""
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from nfad.architectures import build_flow, terms_function
from nfad.flow import autoregressive_masks, autoregressive_terms
from nfad.staircase import cut_steps, staircase_terms, staircase_weights

from flows import BOUND, masks_for, wild_params

SIZES = [(1, 8), (2, 3), (5, 16), (17, 40), (33, 20), (48, 96)]  # features, hidden units


def orders_of(d): return [range(d), np.random.default_rng(d).permutation(d).tolist()]


def steps_terms(params, order, Z): return staircase_terms(staircase_weights(params, order), Z, BOUND, 5.0)


def law_same_terms(evaluate, sizes=SIZES):
    "Terms and latent coordinates are those of the plain flow but for the rounding of sums."
    for d, hidden in sizes:
        params = wild_params(d, seed=d, hidden=hidden)
        Z = np.random.default_rng(0).normal(0, 3, (64, d)).astype(np.float32)
        for order in orders_of(d):
            plain = autoregressive_terms(params, masks_for(params, order), Z, BOUND, 5.0)
            for a, b in zip(plain, evaluate(params, order, Z), strict=True):
                np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-3, err_msg=f"{d} features, {hidden} units")


def test_law_same_terms(): law_same_terms(steps_terms)


def test_law_same_terms_catches_a_step_that_reads_a_unit_too_few():
    def short(params, order, Z):
        weights = staircase_weights(params, order)
        return staircase_terms(weights | {"w_out": [w[..., :-1] for w in weights["w_out"]]}, Z, BOUND, 5.0)
    with pytest.raises(AssertionError): law_same_terms(short, [(33, 20)])


def test_law_same_terms_catches_the_order_backwards():
    with pytest.raises(AssertionError): law_same_terms(lambda params, order, Z: steps_terms(params, list(order)[::-1], Z), [(5, 16)])


def law_left_out_is_forbidden(cut):
    "What no step reads is zero by the masks, and with many features a good part is left out."
    for d, hidden in [*SIZES, (66, 128), (20, 128), (9, 2)]:
        for order in orders_of(d):
            steps = cut(order, hidden)
            allowed = autoregressive_masks(order, hidden).reads[steps.features][:, steps.units]
            for i, n in enumerate(steps.reads): assert not allowed[i * steps.size:(i + 1) * steps.size, n:].any(), (d, hidden)
            assert steps.size * len(steps.reads) >= d and len(steps.units) == hidden == steps.reads[-1]
    assert np.mean(cut(range(66), 128).reads) < 0.65 * 128


def test_law_left_out_is_forbidden(): law_left_out_is_forbidden(cut_steps)


def test_law_left_out_is_forbidden_catches_units_as_they_come():
    def unsorted(order, hidden): return cut_steps(order, hidden)._replace(units=np.arange(hidden))
    with pytest.raises(AssertionError): law_left_out_is_forbidden(unsorted)


def test_law_left_out_is_forbidden_catches_whole_products():
    def whole(order, hidden):
        steps = cut_steps(order, hidden)
        return steps._replace(reads=(hidden,) * len(steps.reads))
    with pytest.raises(AssertionError): law_left_out_is_forbidden(whole)


def law_sees_only_before(evaluate):
    "A term keeps its bits whatever stands in later features."
    d, rng = 33, np.random.default_rng(0)
    params, order = wild_params(d, hidden=40), rng.permutation(d).tolist()
    Z = rng.normal(0, 2, (64, d)).astype(np.float32)
    terms = np.asarray(evaluate(params, order, Z)[0])
    for k in (0, 10, 11, 12, 22, 31):
        changed = Z.copy()
        changed[:, order[k + 1:]] = rng.normal(0, 9, (64, d - k - 1))
        assert np.array_equal(np.asarray(evaluate(params, order, changed)[0])[:, order[:k + 1]], terms[:, order[:k + 1]]), k


def test_law_sees_only_before(): law_sees_only_before(steps_terms)


def test_law_sees_only_before_catches_another_order():
    with pytest.raises(AssertionError): law_sees_only_before(lambda params, order, Z: steps_terms(params, sorted(order), Z))


def test_extreme_records_have_finite_terms():
    hard = np.array([0, -0.0, 1e-45, BOUND, -BOUND, 2 * BOUND, 1e19, -1e30, np.finfo(np.float32).max], np.float32)
    Z = np.resize(hard, (64, 23))
    for part in steps_terms(wild_params(23, size=0.3), range(23), Z): assert np.isfinite(part).all()


def law_weights_of_the_moment(function_of):
    "Whoever evaluates a flow gets the terms of the weights that are given, also from several threads and under a gradient."
    flow = build_flow("autoregressive", ["a", "b", "c"], [2, 0, 1], None, hidden=16)
    terms, several = function_of(flow), [((), wild_params(3, seed=seed)) for seed in range(3)]
    Z = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    wanted = [np.asarray(steps_terms(params, [2, 0, 1], Z)[0]) for _, params in several]
    with ThreadPoolExecutor(3) as pool: found = list(pool.map(lambda i: np.asarray(terms(several[i % 3], Z)[0]), range(60)))
    assert all(np.array_equal(a, wanted[i % 3]) for i, a in enumerate(found))
    inside = jax.jit(lambda Z: terms(several[0], Z)[0])  # what is kept from inside a compilation must be numbers
    np.testing.assert_allclose(inside(Z), wanted[0], atol=1e-4)
    assert np.array_equal(terms(several[0], Z)[0], wanted[0])
    gradient = jax.grad(lambda params: terms(((), params), Z)[0].sum())(several[0][1])
    assert np.abs(gradient["w_out"]).max() > 0


def test_law_weights_of_the_moment(): law_weights_of_the_moment(terms_function)


def test_law_weights_of_the_moment_catches_weights_that_stay():
    def first(flow):
        terms, known = terms_function(flow), []
        return lambda params, Z: (known.append(params), terms(known[0], Z))[1]
    with pytest.raises(AssertionError): law_weights_of_the_moment(first)
