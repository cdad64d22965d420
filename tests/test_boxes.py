"""Laws of nfad.boxes: no point that could be the nearest is missed, and the way of searching cannot be seen."""
import numpy as np
import pytest

import nfad.nearest
from nfad.boxes import LANES, Boxes, halved
from nfad.nearest import NearestPoints


def crowd(n, d, seed=0):
    "Two kinds of records in few directions, some of them copies."
    rng = np.random.default_rng(seed)
    kinds = rng.choice([-3.0, 3.0], size=(n, 1)) + rng.normal(size=(n, 3)) @ rng.normal(size=(3, d)) + 0.1 * rng.normal(size=(n, d))
    return np.concatenate([kinds, kinds[:n // 10]])


def grid(n, d, seed=0): return np.random.default_rng(seed).integers(0, 3, size=(n, d)).astype(float)


KINDS = {"crowd": crowd, "grid": grid, "far": lambda n, d, seed=0: crowd(n, d, seed) * 1e6, "one": lambda n, d, seed=0: np.ones((1, d))}
SIZES = [(700, 20), (130, 9), (65, 1), (3, 4)]


def spacing_of(points, seed=0): return np.exp(np.random.default_rng(seed).normal(size=len(points)))


def squares_to(X, points, spacing):
    "Plain squared distances in units of the spacings, 64 bits."
    return np.square((X[:, None] - points) / spacing[None, :, None]).sum(axis=2)


def law_none_missed(candidates, X, points, spacing):
    "All points that are nearest to a record by 64 bits are among its candidates, and each candidate is named once."
    nearest, more, _ = candidates(X)
    squares = squares_to(X, points, spacing)
    found = np.zeros(squares.shape, dtype=int)
    found[np.arange(len(X)), nearest] += 1
    np.add.at(found, tuple(more.T), 1)
    assert found.max() == 1 and found[squares == squares.min(axis=1, keepdims=True)].all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m, d", SIZES)
def test_law_none_missed(kind, m, d):
    points = KINDS[kind](m, d).astype(np.float32)
    X = np.concatenate([KINDS[kind](90, d, 1) + 0.5, points[:20]])
    for spacing in (None, spacing_of(points)):
        of_each = np.ones(len(points)) if spacing is None else spacing
        law_none_missed(Boxes(points, spacing).candidates, X, points, of_each)


def test_law_none_missed_catches_boxes_that_are_too_small():
    points, X = crowd(700, 20).astype(np.float32), crowd(300, 20, 1)
    small = Boxes(points)
    small.half = small.half * 0
    with pytest.raises(AssertionError): law_none_missed(small.candidates, X, points, np.ones(len(points)))


def test_law_none_missed_catches_forgotten_ties():
    points, X = grid(700, 9).astype(np.float32), grid(90, 9, 1) + 0.5
    def one_each(X): return Boxes(points).candidates(X)[0], np.empty((0, 2), int), 0
    with pytest.raises(AssertionError): law_none_missed(one_each, X, points, np.ones(len(points)))


@pytest.mark.parametrize("m, size", [(1, 4), (4, 4), (5, 4), (700, LANES)])
def test_parts_hold_each_point_once(m, size):
    parts = halved(crowd(m, 3)[:m], np.arange(m), size)
    assert sorted(np.concatenate(parts)) == list(range(m)) and max(map(len, parts)) <= size


def test_boxes_skip_most():
    points, X = np.split(crowd(2500, 20), [2000])
    assert Boxes(points).candidates(X)[2] < 0.2


def law_same_bits(search, X, points, spacing):
    "A search that was asked often gives the bits of one that was not; so do parts of the records, in any order."
    alone = NearestPoints(points, spacing).distance(X)
    assert np.array_equal(search(points, spacing, X), alone)
    assert np.array_equal(search(points, spacing, X[::-1][:7])[::-1], alone[-7:])


def by_boxes(points, spacing, X):
    often = NearestPoints(points, spacing)
    often._asked, often._boxes = 10**9, Boxes(points, spacing)
    return often.distance(X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m, d", SIZES)
def test_law_same_bits(kind, m, d):
    points = KINDS[kind](m, d).astype(np.float32)
    X = np.concatenate([KINDS[kind](300, d, 1) + 0.5, points[:20], np.full((1, d), 1e20)])
    for spacing in (None, spacing_of(points)): law_same_bits(by_boxes, X, points, spacing)


def test_law_same_bits_catches_the_first_of_many(monkeypatch):
    "Spacings like 1/3 make equally near points unequal in the last digit."
    points, spacing = grid(700, 9).astype(np.float32), np.tile([1.0, 3.0], 350)
    def of_the_first(points, spacing, X):
        far = NearestPoints(points, spacing)
        return far._gap(X, Boxes(points, spacing).candidates(X)[0])
    X = (grid(400, 9, 1) + 0.5) / 3
    with pytest.raises(AssertionError): law_same_bits(of_the_first, X, points, spacing)


def test_boxes_come_when_they_pay(monkeypatch):
    monkeypatch.setattr(nfad.nearest, "_PRUNE_AFTER", 500)
    points, X = np.split(crowd(2500, 20), [2000])
    often, directionless = NearestPoints(points), NearestPoints(np.random.default_rng(0).normal(size=(300, 60)))
    for _ in range(3): often.distance(X)
    for _ in range(3): directionless.distance(np.random.default_rng(1).normal(size=(220, 60)))
    assert isinstance(often._boxes, Boxes) and directionless._boxes is False
