"""Laws of nfad.lanes: sums of products, first to last, that have the same bits in every lane and on every kind of processor."""
import numpy as np
import pytest

import nfad.lanes
from nfad.kernels import kernel
from nfad.lanes import LANES, ROWS, exp32, log1p32, log32, pack_all, pack_rows, product_of_tile, six_rows, vector_shape

SHAPES = [(16, 4), (8, 2), (4, 4), (4, 2)]  # of all kinds of processors
SIZES = [(1, 1), (6, 3), (7, 30), (30, 128), (13, 0)]  # rows, units


def drawn(m, k, seed=0):
    "Weights, biases, how many units each row reads, units."
    rng = np.random.default_rng(seed)
    reads = np.sort(rng.integers(0, k + 1, m))
    W = rng.normal(size=(m, k)) * (np.arange(k) < reads[:, None])
    return W.astype(np.float32), rng.normal(size=m).astype(np.float32), reads, rng.normal(size=(k, LANES)).astype(np.float32)


def through(packed, units):
    out = np.empty((ROWS * len(packed.groups), LANES), np.float32)
    product_of_tile(packed, units, out)
    return out


def law_first_to_last(multiplied):
    "A sum is the bias, and then each product in turn, with no rounding between product and sum, or with one."
    for m, k in SIZES:
        W, b, reads, units = drawn(m, k)
        out = multiplied(pack_rows(W, b, reads), units)
        exact = W.astype(float) @ units.astype(float) + b[:, None]
        sizes = np.abs(W).astype(float) @ np.abs(units).astype(float) + np.abs(b)[:, None]
        assert (np.abs(out[:m] - exact) <= (k + 2) * 2.0**-24 * sizes).all(), (m, k)
        assert not out[m:].any()


def test_law_first_to_last(): law_first_to_last(through)


def test_law_first_to_last_catches_a_unit_left_out():
    def short(packed, units): return through(packed._replace(groups=np.maximum(packed.groups - [0, 1], 0)), units)
    with pytest.raises(AssertionError): law_first_to_last(short)


def test_law_first_to_last_catches_biases_that_are_lost():
    def none(packed, units):
        numbers = packed.numbers.copy()
        for start, _ in packed.groups: numbers[start:start + ROWS] = 0
        return through(packed._replace(numbers=numbers), units)
    with pytest.raises(AssertionError): law_first_to_last(none)


def law_same_bits_in_every_lane(multiplied):
    "A record's sums do not know their lane, nor the other lanes."
    for m, k in SIZES:
        W, b, reads, units = drawn(m, k)
        packed = pack_rows(W, b, reads)
        out = multiplied(packed, units)
        for lane in (0, 17, 63):
            alone = multiplied(packed, np.repeat(units[:, lane:lane + 1], LANES, axis=1))
            assert np.array_equal(alone, np.repeat(out[:, lane:lane + 1], LANES, axis=1)), (m, k, lane)


def test_law_same_bits_in_every_lane(): law_same_bits_in_every_lane(through)


def test_law_same_bits_in_every_lane_catches_halves():
    "Lanes of which some are summed in two halves."
    def halves(packed, units):
        out = through(packed, units)
        n = packed.groups[:, 1].max() // 2
        some = pack_rows(*unpacked(packed, slice(0, n)), np.full(len(packed.groups) * ROWS, n))
        W, b = unpacked(packed, slice(n, None))
        rest = pack_rows(W, np.zeros_like(b), np.full(len(b), W.shape[1]))
        out[:, :32] = (through(some, units[:n]) + through(rest, units[n:]))[:, :32]
        return out
    with pytest.raises(AssertionError): law_same_bits_in_every_lane(halves)


def unpacked(packed, units):
    "Plain weights of some units, and biases."
    k = packed.groups[:, 1].max()
    rows = [np.pad(packed.numbers[start:start + ROWS * (n + 1)].reshape(n + 1, ROWS).T, ((0, 0), (0, k - n))) for start, n in packed.groups]
    whole = np.concatenate(rows)
    return whole[:, 1:][:, units], whole[:, 0]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_kinds_of_vectors_give_the_same_bits(shape, monkeypatch):
    six, at_once = six_rows(shape), int(np.prod(shape))
    @kernel()
    def through_pieces(numbers, groups, units, out):
        for group in range(len(groups)):
            for lane in range(0, LANES, at_once): six(numbers, groups[group, 0], groups[group, 1], units, lane, out, ROWS * group)
    for m, k in SIZES:
        W, b, reads, units = drawn(m, k)
        packed = pack_rows(W, b, reads)
        out = np.empty((ROWS * len(packed.groups), LANES), np.float32)
        through_pieces(packed.numbers, packed.groups, units, out)
        assert np.array_equal(out, through(packed, units)), (m, k)


def test_shapes_of_processors():
    x86, arm = "x86_64-unknown-linux-gnu", "aarch64-apple-darwin"
    found = [vector_shape(*of) for of in (("+sse2,+avx,+avx2,+avx512f", x86), ("+avx,+avx2", x86), ("+sse4.2", x86), ("+neon", arm))]
    assert found == [(16, 4), (8, 2), (4, 2), (4, 4)]
    assert all(LANES % (width * n) == 0 for width, n in SHAPES) and nfad.lanes._SHAPE in SHAPES


def test_packed_rows_join():
    parts = [pack_rows(*drawn(m, 9, seed=m)[:3]) for m in (5, 12, 1)]
    units = drawn(1, 9)[3]
    assert np.array_equal(through(pack_all(parts), units), np.concatenate([through(part, units) for part in parts]))


@kernel(fastmath={"contract", "nsz"})
def of_each(x, e, g, p):
    for i in range(len(x)): e[i], g[i], p[i] = exp32(min(max(x[i], np.float32(-87)), np.float32(88))), log32(x[i]), log1p32(x[i])


def law_functions_are_exact(evaluate):
    "Exponentials and logarithms of numbers of all sizes, to 4e-7."
    x = np.concatenate([np.geomspace(1.2e-38, 3e38, 30_001), np.linspace(0.5, 2, 30_001)]).astype(np.float32)
    e, g, p = np.empty((3, len(x)), np.float32)
    evaluate(x, e, g, p)
    assert np.abs(e / np.exp(np.clip(x, -87, 88).astype(float)) - 1).max() < 4e-7
    assert (np.abs(g - np.log(x.astype(float))) <= 2e-7 * np.maximum(np.abs(np.log(x.astype(float))), 1)).all()
    assert np.abs(p / np.log1p(x.astype(float)) - 1).max() < 4e-7


def test_law_functions_are_exact(): law_functions_are_exact(of_each)


def test_law_functions_are_exact_catches_a_plain_log1p():
    def plain(x, e, g, p):
        of_each(x, e, g, p)
        p[:] = np.log(np.float32(1) + x)
    with pytest.raises(AssertionError): law_functions_are_exact(plain)


def test_weights_that_a_row_may_not_read_count_as_nothing():
    units = np.ones((2, LANES), np.float32)
    for reads in ([1, 2, 2, 2, 2, 2], [1, 7, 2, 2, 2, 2]):
        out = through(pack_rows(np.ones((6, 2)), np.zeros(6), np.array(reads)), units)
        assert out[:, 0].tolist() == [1, 2, 2, 2, 2, 2]
