"""Laws of nfad.staircase: the terms of the plain flow, with the products left out that masks make zero, in any company."""
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

import nfad.staircase
from nfad.architectures import build_flow, terms_function
from nfad.flow import autoregressive_terms, mask_params
from nfad.lanes import ROWS, pack_rows
from nfad.staircase import staircase_terms, staircase_weights

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
        stairs = staircase_weights(params, order)
        groups = np.maximum(stairs.weights.groups - [0, 1], 0)
        return staircase_terms(stairs._replace(weights=stairs.weights._replace(groups=groups)), Z, BOUND, 5.0)
    with pytest.raises(AssertionError): law_same_terms(short, [(33, 20)])


def test_law_same_terms_catches_the_order_backwards():
    with pytest.raises(AssertionError): law_same_terms(lambda params, order, Z: steps_terms(params, list(order)[::-1], Z), [(5, 16)])


def kept_sizes(packed):
    "Sizes of all weights that are multiplied, largest first, without biases and zeros."
    rows = [packed.numbers[start + ROWS:start + ROWS * (n + 1)] for start, n in packed.groups]
    sizes = np.sort(np.abs(np.concatenate(rows)))[::-1]
    return sizes[sizes > 0]


def law_left_out_is_forbidden(weights_of):
    "What is not multiplied is zero by the masks, and with many features nearly half is left out."
    for d, hidden in [*SIZES, (66, 128), (20, 128), (9, 2)]:
        params = wild_params(d, seed=d, hidden=hidden)
        for order in orders_of(d):
            masked = mask_params(params, masks_for(params, order))
            wanted = np.sort(np.abs(np.concatenate([np.ravel(masked[name]) for name in ("w_in", "w_1", "w_2", "w_out")])))[::-1]
            np.testing.assert_array_equal(kept_sizes(weights_of(params, order).weights), wanted[wanted > 0])
    params = wild_params(66, hidden=128)
    n_all = sum(np.size(params[name]) for name in ("w_in", "w_1", "w_2", "w_out"))
    assert weights_of(params, range(66)).weights.groups[:, 1].sum() * ROWS < 0.6 * n_all


def test_law_left_out_is_forbidden(): law_left_out_is_forbidden(staircase_weights)


def with_reads(change):
    "`staircase_weights` whose rows are told to read another number of units."
    def weights_of(params, order):
        def pack(W, b, reads): return pack_rows(W, b, np.minimum(change(reads, W.shape[1]), W.shape[1]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nfad.staircase, "pack_rows", pack)
            return staircase_weights(params, order)
    return weights_of


def test_law_left_out_is_forbidden_catches_too_few_units():
    with pytest.raises(AssertionError): law_left_out_is_forbidden(with_reads(lambda reads, k: np.maximum(reads - 1, 0)))


def test_law_left_out_is_forbidden_catches_whole_products():
    with pytest.raises(AssertionError): law_left_out_is_forbidden(with_reads(lambda reads, k: np.full(len(reads), k)))


def law_no_company(evaluate):
    "A record has the same bits alone, in any place, and among any number of others."
    rng = np.random.default_rng(0)
    for d, hidden in ((1, 8), (5, 16), (33, 40)):
        params = wild_params(d, seed=d, hidden=hidden)
        Z = rng.normal(0, 3, (150, d)).astype(np.float32)
        terms, latent = evaluate(params, range(d), Z)
        for some in (slice(0, 1), slice(63, 65), slice(7, 140), slice(149, 150)):
            for whole, part in zip((terms, latent), evaluate(params, range(d), Z[some]), strict=True):
                assert np.array_equal(whole[some], part), (d, some)
    assert evaluate(params, range(33), Z[:0])[0].shape == (0, 33)


def test_law_no_company(): law_no_company(steps_terms)


def test_law_no_company_catches_lanes_that_mix():
    def mixed(params, order, Z):
        terms, latent = steps_terms(params, order, Z)
        return terms + 1e-6 * len(Z), latent
    with pytest.raises(AssertionError): law_no_company(mixed)


def test_records_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"Z must have shape \(n, 5\), got \(3, 4\)"): steps_terms(wild_params(5), range(5), np.zeros((3, 4)))


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


def test_arrays_of_any_kind_are_scored_alike_and_compile_nothing_new():
    params, Z = wild_params(5), np.random.default_rng(0).normal(size=(70, 5)).astype(np.float32)
    wanted = steps_terms(params, range(5), Z)[0]
    locked = Z.copy()
    locked.flags.writeable = False
    before = len(nfad.staircase.flow_tiles.signatures)
    for records in (locked, np.asfortranarray(Z), Z.astype(float), jax.device_put(Z)): assert np.array_equal(steps_terms(params, range(5), records)[0], wanted)
    assert len(nfad.staircase.flow_tiles.signatures) == before
