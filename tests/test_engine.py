"""Laws of nfad.engine: what is fast equals what is plain, and does not depend on company."""
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfad.architectures import build_flow, terms_function
from nfad.engine import (BLOCK, _SHAPES, FLOOR, Bin, bin_shares, find_bin, in_blocks, in_few_shapes, log1p_square, place_in_box, position_in_bin, product, side_by_side,
                         use_compilation_cache)
from nfad.flow import autoregressive_terms
from nfad.measure import n_threads

from flows import BOUND, compilations, law_same_derivatives, masks_for, plain_bin, run_child


# --- bins ------------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("by_height", [False, True])
def test_law_same_derivatives_of_a_bin(by_height):
    box = lambda find: lambda x, raw: find(jax.lax.stop_gradient(x) / (2 * BOUND) + 0.5, raw, by_height)
    law_same_derivatives(box(find_bin), box(plain_bin))


def test_law_same_derivatives_of_a_bin_catches_edges_held_fast():
    def wrong(x, raw): return find_bin(x / (2 * BOUND) + 0.5, raw.at[:3].set(jax.lax.stop_gradient(raw[:3])))
    with pytest.raises(AssertionError):
        law_same_derivatives(wrong, lambda x, raw: plain_bin(jax.lax.stop_gradient(x) / (2 * BOUND) + 0.5, raw))


# --- gradients that are numbers ---------------------------------------------------------------------------------

EXTREMES = [0.0, 1e-45, BOUND, np.nextafter(np.float32(BOUND), np.inf), 10.1, 1e12, 2e19, 3e38]


def law_gradients_are_numbers(function):
    "Values and derivatives are finite for every float, of either sign."
    x = jnp.asarray([*EXTREMES, *(-np.array(EXTREMES))], jnp.float32)
    value, slope = jax.vmap(jax.value_and_grad(function))(x)
    assert np.isfinite(value).all() and np.isfinite(slope).all()


def test_law_gradients_are_numbers():
    law_gradients_are_numbers(lambda u: log1p_square(u, 5.0))
    law_gradients_are_numbers(lambda x: jnp.where(place_in_box(x, BOUND)[0], jnp.sqrt(1.1 - place_in_box(x, BOUND)[1]), 0.0))


def test_law_gradients_are_numbers_catches_what_where_hides():
    with pytest.raises(AssertionError): law_gradients_are_numbers(lambda u: jnp.log1p(jnp.square(u) / 5))
    with pytest.raises(AssertionError):
        law_gradients_are_numbers(lambda x: jnp.where(jnp.abs(x) <= BOUND, jnp.sqrt(1.1 * BOUND - x), 0.0))


def law_position_in_bin(position):
    "Never outside the bin, and always with the slope 1 / width."
    found = Bin(0.25, 0.0, 0.5, 0.5, 0.0, 0.0)
    for place, wanted in ((0.25, 0), (0.5, 0.5), (0.75, 1), (0.25 - 1e-6, 0), (0.75 + 1e-6, 1)):
        t, slope = jax.value_and_grad(lambda place: position(place, found))(place)
        assert 0 <= t <= 1 and abs(t - wanted) < 1e-6 and slope == 2, place


def test_law_position_in_bin(): law_position_in_bin(position_in_bin)


def test_law_position_in_bin_catches_a_plain_clip():
    with pytest.raises(AssertionError): law_position_in_bin(lambda place, found: jnp.clip((place - found.x0) / found.width, 0, 1))


# --- products and blocks ---------------------------------------------------------------------------------------

def law_products_keep_their_bits(product):
    "A column of a product has the same bits, whatever the multiple of 64 columns, and those of `w @ h` up to rounding."
    rng, compiled = np.random.default_rng(0), jax.jit(product)
    for m, k in ((3, 32), (32, 6), (70, 40), (128, 128)):
        w, h = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, 64)).astype(np.float32)
        one, many = (np.asarray(compiled(w, np.tile(h, n))) for n in (1, 32))
        assert np.array_equal(one, many[:, :64]) and np.array_equal(one, many[:, -64:]), (m, k)
        assert np.allclose(one, w @ h, atol=1e-4)


def test_law_products_keep_their_bits(): law_products_keep_their_bits(product)


def test_law_products_keep_their_bits_catches_a_mean():
    with pytest.raises(AssertionError): law_products_keep_their_bits(lambda w, h: w @ (h - 1e-6 * h.sum()))


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
    "Each record goes through the function once, in its place, in full blocks but for the last."
    for n, block in ((0, BLOCK), (1, BLOCK), (2048, BLOCK), (5000, BLOCK), (7, 3), (9, 3)):
        Z, sizes = np.arange(2 * n, dtype=np.float32).reshape(n, 2), []
        def function(rows):
            sizes.append(len(rows))
            return rows * 2, rows.sum(axis=1)
        double, total = in_blocks(function, Z, block)
        assert np.array_equal(double, 2 * Z) and np.array_equal(total, Z.sum(axis=1))
        assert sorted(sizes) == sorted([block] * (n // block) + [n % block] * (n % block > 0 or n == 0))


def test_law_blocks_are_put_together(): law_blocks_are_put_together(in_blocks)


def law_what_follows_sees_its_own_rows(in_blocks):
    "`then` gets each block's rows and results, and its own results come back in place."
    for n, block in ((0, 4), (1, 4), (9, 4), (700, BLOCK)):
        Z = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
        total, = in_blocks(lambda rows: (rows * 2,), Z, block, then=lambda rows, double: ((rows + double).sum(axis=1),))
        assert np.array_equal(total, 3 * Z.sum(axis=1))


def test_law_what_follows_sees_its_own_rows(): law_what_follows_sees_its_own_rows(in_blocks)


def test_law_what_follows_sees_its_own_rows_catches_rows_of_the_first_block():
    def wrong(function, Z, block, then): return in_blocks(function, Z, block, then=lambda rows, double: then(Z[:len(rows)], double))
    with pytest.raises(AssertionError): law_what_follows_sees_its_own_rows(wrong)


def test_law_blocks_are_put_together_catches_a_lost_remainder():
    with pytest.raises(AssertionError): law_blocks_are_put_together(lambda f, Z, block: in_blocks(f, Z[:len(Z) // 3 * 3], block))


def law_filling_is_cut_off(few_shapes):
    "A function sees few shapes, and whoever asks sees the results of his own rows."
    seen = set()
    def function(rows): return seen.add(rows.shape) or (rows * 2, rows.sum(axis=1) + 1)
    for n in (0, 1, 63, 64, 65, 256, 300, 2048):
        Z = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
        double, total = few_shapes(function)(Z)
        assert np.array_equal(double, 2 * Z) and np.array_equal(total, Z.sum(axis=1) + 1), n
    assert seen == {(64, 2), (256, 2), (2048, 2)}


def test_law_filling_is_cut_off(): law_filling_is_cut_off(in_few_shapes)


def test_law_filling_is_cut_off_catches_rows_of_zeros():
    with pytest.raises(AssertionError): law_filling_is_cut_off(lambda function: lambda Z: function(np.resize(Z, (64, 2)) if len(Z) < 64 else Z))


# --- one shape, one compilation --------------------------------------------------------------------------------

def law_one_compilation(score):
    "Scoring compiles once for each size of blocks."
    for sizes in ((1, 7, _SHAPES[0], 0), (_SHAPES[0] + 1, _SHAPES[1]), (_SHAPES[1] + 1, 1024, _SHAPES[2])):
        with compilations() as seen:
            for n in sizes: score(np.zeros((n, 4), np.float32))
        assert len(seen) == 1, (sizes, len(seen))


def fresh_terms(detector):
    "The detector's evaluation of scaled records, not compiled yet."
    masks = masks_for(detector.flow_._params[1], range(4))
    return jax.jit(lambda params, Z: autoregressive_terms.__wrapped__(params[1], masks, Z, BOUND, 5.0))


def test_law_one_compilation(detector):
    terms, params = fresh_terms(detector), detector.flow_._params
    law_one_compilation(in_few_shapes(lambda rows: terms(params, rows)))


def test_law_one_compilation_catches_one_per_number_of_records(detector):
    terms, params = fresh_terms(detector), detector.flow_._params
    with pytest.raises(AssertionError): law_one_compilation(lambda Z: terms(params, Z) if len(Z) else None)


def test_the_cache_can_be_switched_off(monkeypatch):
    for word in ("off", "0", "no", "OFF"):
        monkeypatch.setenv("NFAD_COMPILATION_CACHE", word)
        assert use_compilation_cache() == ""


# --- several devices -------------------------------------------------------------------------------------------

def test_spread_keeps_values_on_four_devices():
    "Divided where the number of devices divides the records, whole copies where not."
    script = ("import numpy as np; from nfad.engine import spread; X = np.arange(24.0).reshape(8, 3)\n"
              "for n, whole in ((8, False), (7, True)):\n"
              "    there = spread(X[:n], 0)\n"
              "    assert np.array_equal(there, X[:n]) and there.sharding.is_fully_replicated == whole and len(there.devices()) == 4")
    run_child(script, XLA_FLAGS="--xla_force_host_platform_device_count=4")


# ---------------------------------------------------------------- threads that stay

def law_threads_stay(run):
    "However often work is given out, no more threads do it than there may be, and work within work ends."
    seen = set()
    for _ in range(20): run(lambda i: seen.add(threading.get_ident()), range(4 * n_threads()))
    assert len(seen) <= n_threads(), f"{len(seen)} threads"
    done = []
    run(lambda i: run(lambda j: done.append((i, j)), range(3)), range(5))
    assert sorted(done) == [(i, j) for i in range(5) for j in range(3)]


def test_law_threads_stay():
    law_threads_stay(side_by_side)
    with pytest.raises(AssertionError, match="threads"): law_threads_stay(fresh_threads)


def fresh_threads(work, items):
    "Work by threads of which each does one item and waits for the others, so that no identity comes again."
    barrier = threading.Barrier(len(items))
    threads = [threading.Thread(target=lambda i=i: (work(i), barrier.wait())) for i in items]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
