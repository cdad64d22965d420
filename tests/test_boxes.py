"""Laws of nfad.boxes: the nearest point is found, measured with 64 bits, and a record does not know its company."""
from unittest.mock import patch

import numpy as np
import pytest

import nfad.boxes
from nfad.boxes import BOX, Boxes, boxed, halved
from nfad.nearest import NearestPoints


def crowd(n, d, seed=0):
    "Two kinds of records in few directions, some of them copies."
    rng = np.random.default_rng(seed)
    kinds = rng.choice([-3.0, 3.0], size=(n, 1)) + rng.normal(size=(n, 3)) @ rng.normal(size=(3, d)) + 0.1 * rng.normal(size=(n, d))
    return np.concatenate([kinds, kinds[:n // 10]])


def grid(n, d, seed=0): return np.random.default_rng(seed).integers(0, 3, size=(n, d)).astype(float)


KINDS = {"crowd": crowd, "grid": grid, "far": lambda n, d, seed=0: crowd(n, d, seed) * 1e6, "one": lambda n, d, seed=0: np.ones((1, d)),
         "beside": lambda n, d, seed=0: 1000 + 1e-4 * crowd(n, d, seed)}
SIZES = [(700, 20), (130, 9), (65, 1), (3, 4), (300, 40)]


def spacing_of(points, seed=0): return np.exp(np.random.default_rng(seed).normal(size=len(points)))


def plain(X, points, spacing, own=None):
    "Distances in units of the spacings, everything with everything, 64 bits."
    distances = np.sqrt(np.square(X[:, None] - points).sum(axis=2)) / spacing
    if own is not None: distances[own >= 0, own[own >= 0]] = np.inf
    return distances.min(axis=1)


def law_exact(search, X, points, spacing, own=None):
    "The distance is that to the nearest point, to the rounding of 64 bits."
    found = search(points, spacing, X, own)
    np.testing.assert_allclose(found, plain(X, points.astype(float), np.ones(len(points)) if spacing is None else spacing, own), rtol=1e-13)


def by_boxes(points, spacing, X, own=None): return Boxes(points, spacing).distance(X, own)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m, d", SIZES)
def test_law_exact(kind, m, d):
    points = KINDS[kind](m, d).astype(np.float32)
    X = np.concatenate([KINDS[kind](90, d, 1) + 0.5, points[:20], KINDS[kind](10, d, 2), np.full((1, d), 1e20)])
    for spacing in (None, spacing_of(points)): law_exact(by_boxes, X, points, spacing)


@pytest.mark.parametrize("m, d", SIZES)
def test_law_exact_of_points_themselves(m, d):
    points = crowd(m, d).astype(np.float32)
    own = np.where(np.arange(len(points)) % 3, np.arange(len(points)), -1)
    for spacing in (None, spacing_of(points)): law_exact(by_boxes, points.astype(float), points, spacing, own)


def test_law_exact_catches_records_that_find_themselves():
    points = grid(200, 9)
    with pytest.raises(AssertionError):
        law_exact(lambda points, spacing, X, own: by_boxes(points, spacing, X), points, points, None, np.arange(200))


def test_law_exact_catches_boxes_that_are_too_far():
    "Corners that are moved away make boxes seem out of reach."
    def moved(points, spacing, X, own):
        boxes = Boxes(points, spacing)
        low, high, unit = boxes.table.corners
        boxes.table = boxes.table._replace(corners=(low + 100, high + 100, unit))
        return boxes.distance(X)[0]
    with pytest.raises(AssertionError): law_exact(moved, crowd(300, 20, 1), crowd(700, 20).astype(np.float32), None)


def test_law_exact_catches_32_bits():
    def single(points, spacing, X, own): return by_boxes(points, spacing, X.astype(np.float32)).astype(np.float32)
    with pytest.raises(AssertionError): law_exact(single, crowd(90, 9, 1), crowd(130, 9).astype(np.float32), None)


def test_law_exact_catches_a_limit_without_rounding():
    "Where points lie far from zero and close together, numbers of 32 bits name the wrong one."
    sharp = nfad.boxes.lanes_kernel(lambda square, slack, rounding, length: square)
    points, X = 1000 + 1e-4 * crowd(700, 20), 1000 + 1e-4 * crowd(300, 20, 1)
    points = np.concatenate([points, -points])  # the middle is far away, so that turned coordinates are long
    def without(points, spacing, X, own):
        with patched_kernels(candidate_limit=sharp): return by_boxes(points, spacing, X)
    law_exact(by_boxes, X, points, None)
    with pytest.raises(AssertionError): law_exact(without, X, points, None)


class patched_kernels:
    "The kernels of boxes, compiled anew around another function."
    def __init__(self, **changes): self.changes = changes

    def __enter__(self):
        self.patches = []
        for name, new in self.changes.items(): self.replace(name, new)
        for name in ("lower_limits", "open_boxes"): self.replace(name, nfad.boxes.lanes_kernel(getattr(nfad.boxes, name).py_func))
        uncached = nfad.boxes.kernel(error_model="numpy", forceinline=True, fastmath={"contract", "nsz"})
        self.replace("search", uncached(nfad.boxes.search.py_func))

    def replace(self, name, new):
        self.patches.append(patch.object(nfad.boxes, name, new))
        self.patches[-1].start()

    def __exit__(self, *_):
        for change in self.patches[::-1]: change.stop()


def law_no_company(search, X, points, spacing):
    "Parts of the records, in any order, have the bits that they have among all."
    whole = search(points, spacing, X)
    for some in (slice(0, 1), slice(None, None, -1), slice(5, 70), slice(len(X) - 1, None)):
        assert np.array_equal(search(points, spacing, X[some]), whole[some])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m, d", SIZES)
def test_law_no_company(kind, m, d):
    points = KINDS[kind](m, d).astype(np.float32)
    X = np.concatenate([KINDS[kind](300, d, 1) + 0.5, points[:20], np.full((1, d), 1e20)])
    for spacing in (None, spacing_of(points)): law_no_company(by_boxes, X, points, spacing)


def test_law_no_company_catches_the_first_of_many():
    "Spacings like 1/3 make equally near points unequal in the last digit: whoever stops at the first candidate is found out."
    points, spacing = grid(700, 9).astype(np.float32), np.tile([1.0, 3.0], 350)
    def hasty(points, spacing, X):
        squares = np.square((X[:, None] - points) / spacing[None, :, None]).sum(axis=2, dtype=np.float32)
        first = squares[::-1 if len(X) > 100 else 1, ::-1 if len(X) > 100 else 1].argmin(axis=1)
        first = len(points) - 1 - first[::-1] if len(X) > 100 else first
        return np.linalg.norm(X - points[first], axis=1) / spacing[first]
    with pytest.raises(AssertionError): law_no_company(hasty, (grid(400, 9, 1) + 0.5) / 3, points, spacing)


@pytest.mark.parametrize("m, size", [(1, 4), (4, 4), (5, 4), (700, BOX)])
def test_parts_hold_each_point_once(m, size):
    parts = halved(crowd(m, 3)[:m], np.arange(m), size)
    assert sorted(np.concatenate(parts)) == list(range(m)) and max(map(len, parts)) <= size


def test_boxes_hold_each_point_once():
    for unit in (np.ones(700), np.random.default_rng(0).uniform(0, 1, 700)):
        numbers = boxed(crowd(700, 5)[:700], unit)
        assert sorted(numbers[numbers >= 0]) == list(range(700))


def test_boxes_skip_most():
    points, X = np.split(crowd(2500, 20), [2000])
    assert Boxes(points).distance(X)[1] < 0.2


def test_searches_from_several_threads_agree():
    from concurrent.futures import ThreadPoolExecutor
    points, X = np.split(crowd(2500, 20), [2000])
    near = NearestPoints(points)
    with ThreadPoolExecutor(4) as pool: found = list(pool.map(lambda _: near.distance(X), range(12)))
    assert all(np.array_equal(one, NearestPoints(points).distance(X)) for one in found)


def test_arrays_of_any_kind_are_searched_alike_and_compile_nothing_new():
    points, X = np.split(crowd(300, 5), [200])
    wanted = Boxes(points).distance(X)[0]
    locked = X.copy()
    locked.flags.writeable = False
    before = len(nfad.boxes.search.signatures)
    for records in (locked, np.asfortranarray(X), X[::-1][::-1], X.astype(">f8")): assert np.array_equal(Boxes(points).distance(records)[0], wanted)
    assert len(nfad.boxes.search.signatures) == before
    whole = X.round().astype(int)
    assert np.array_equal(Boxes(points).distance(whole)[0], Boxes(points).distance(whole.astype(float))[0])


@pytest.mark.parametrize("X, own", [(np.zeros((3, 1)), None), (np.zeros(5), None), (np.zeros((5, 5)), np.arange(3)), (np.zeros((2, 6)), None)])
def test_arrays_of_another_shape_are_refused(X, own):
    with pytest.raises(ValueError, match="X and own must have shapes"): Boxes(crowd(100, 5)).distance(X, own)


def test_what_is_no_number_has_no_distance():
    X = np.array([[0.0, 0], [np.nan, 0], [1, 1]])
    assert np.isnan(Boxes(crowd(100, 2)).distance(X)[0]).tolist() == [False, True, False]
