"""Laws of nfad.nearest: points that cover, distances to them, neighborhoods."""
import pickle

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from nfad.nearest import Neighborhood, NearestPoints, Whitening, farthest_first, nearest_in_features, usual_points


def records(n, seed=0, d=5):
    "Benign records: two modes and dependent features."
    rng = np.random.default_rng(seed)
    return rng.choice([-2.0, 2.0], size=(n, 1)) + 0.3 * rng.normal(size=(n, d)) * np.arange(1, d + 1)


def nearest_distance(X, points, own=None, spacing=None): return NearestPoints(points, spacing).distance(X, own)


# --- points and distances -----------------------------------------------------------------------------------

def law_cover(choose, X, m):
    "The largest gap is at most twice the distance between the closest two of m + 1 points chosen so (Gonzalez)."
    chosen, more = choose(X, m), choose(X, m + 1)
    assert len(set(chosen)) == len(chosen) == m
    gap = cdist(X, X[chosen]).min(axis=1).max()
    between = cdist(X[more], X[more])
    assert gap <= between[np.triu_indices(m + 1, 1)].min() + 1e-4


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("m", [2, 7, 40])
def test_law_cover(seed, m): law_cover(farthest_first, records(200, seed), m)


def test_law_cover_catches_random_points():
    with pytest.raises(AssertionError): law_cover(lambda X, m: np.random.default_rng(m).permutation(len(X))[:m], records(200), 7)


def test_copies_are_no_points():
    assert len(farthest_first(np.repeat(records(10), 5, axis=0), 30)) == 10
    assert farthest_first(np.zeros((4, 2)), 3).tolist() == [0]


def law_nearest(distance, X, points):
    "Equal to the distances of scipy, also one record at a time."
    expected = cdist(X, points).min(axis=1)
    assert np.allclose(distance(X, points), expected, rtol=1e-4, atol=1e-4)
    assert np.array_equal(distance(X, points)[7:9], distance(X[7:9], points))


@pytest.mark.parametrize("n", [9, 255, 256, 257, 700])
def test_law_nearest(n): law_nearest(nearest_distance, records(n, 3), records(60, 4).astype(np.float32))


def test_far_away_and_no_records():
    near = NearestPoints(records(20))
    assert near.distance(np.zeros((0, 5))).shape == (0,) and np.isfinite(near.distance(np.full((1, 5), 1e150)))


def test_a_copy_gives_the_same():
    near = NearestPoints(records(20), np.arange(1.0, 21))
    before = near.distance(records(9, 1))
    assert np.array_equal(pickle.loads(pickle.dumps(near)).distance(records(9, 1)), before)


@pytest.mark.parametrize("points, spacing", [(np.zeros(3), None), (np.zeros((0, 3)), None), (np.zeros((2, 3)), np.ones(3)), (np.zeros((2, 3)), np.zeros(2))])
def test_points_that_fit_nothing_are_refused(points, spacing):
    with pytest.raises(ValueError, match="points must have shape|spacing must be one number > 0"): NearestPoints(points, spacing)


def law_kth(to_kth, points, X, k):
    "Equal to the sorted distances of scipy; the points themselves are apart from their own row."
    assert np.allclose(to_kth(X, k), np.sort(cdist(X, points), axis=1)[:, k - 1])
    assert np.allclose(to_kth(None, k), np.sort(cdist(points, points), axis=1)[:, k])


@pytest.mark.parametrize("algorithm", ["auto", "brute"])
def test_law_kth(algorithm):
    near = NearestPoints(records(60, 4))
    for k in (1, 2, 5): law_kth(lambda X, k: near.to_kth(X, k, algorithm), records(60, 4), records(30, 1), k)
    with pytest.raises(AssertionError): law_kth(lambda X, k: near.to_kth(X, k + 1), records(60, 4), records(30, 1), 2)
    same = NearestNeighbors(n_neighbors=5).fit(records(60, 4)).kneighbors(records(30, 1))[0][:, -1]
    assert np.array_equal(near.to_kth(records(30, 1), 5), same)


def law_nearest_in_features(search, points, x, present, k):
    "The k points that are nearest in the features that count, whatever lies in the others."
    found = search(np.square(points - x), present, k)
    for row, counts in zip(found, present, strict=True):
        distance = np.square(points - x)[:, counts].sum(axis=1)
        assert len(set(row)) == k and np.allclose(np.sort(distance[row]), np.sort(distance)[:k], rtol=1e-4)


@pytest.mark.parametrize("k", [1, 3, 40])
def test_law_nearest_in_features(k):
    points, present = records(40), np.random.default_rng(k).random((30, 5)) < 0.5
    law_nearest_in_features(nearest_in_features, points, records(1, 9), present, k)
    if k < 40:
        with pytest.raises(AssertionError):
            law_nearest_in_features(lambda gaps, present, k: nearest_in_features(gaps, ~present, k), points, records(1, 9), present, k)


def test_law_nearest_catches_a_lost_square_root():
    with pytest.raises(AssertionError): law_nearest(lambda X, points: nearest_distance(X, points) ** 2, records(20), records(30, 1))


def test_nearest_apart_from_itself():
    points = records(50).astype(np.float32)
    alone = nearest_distance(points, points, np.arange(50))
    between = cdist(points, points) + np.diag(np.full(50, np.inf))
    assert np.allclose(alone, between.min(axis=1), atol=1e-4) and (nearest_distance(points, points) == 0).all()


def law_white(whiten, Z):
    "Benign rows are uncorrelated with unit variance, and a row does not depend on its company."
    W = whiten(Z)
    assert np.allclose(np.cov(W.T), np.eye(Z.shape[1]), atol=0.05) and np.allclose(W.mean(axis=0), 0, atol=1e-6)
    assert np.array_equal(W[7:9], whiten(Z[7:9])) and np.array_equal(W[::-1], whiten(Z[::-1]))


def test_law_white():
    Z = records(3000)
    law_white(Whitening.fit(Z), Z)
    with pytest.raises(AssertionError): law_white(lambda A: (A - Z.mean(axis=0)) / Z.std(axis=0), Z)


def law_local(distance, dense, sparse):
    "A step that is strange beside a dense kind of records is usual beside a sparse one, whatever the unit."
    step = np.array([[0.3, -0.3]])
    beside = distance(dense[:1] + step)[0], distance(sparse[:1] + step)[0]
    usual = np.concatenate([distance(dense[300:]), distance(sparse[100:])])
    assert np.mean(usual >= beside[0]) < 0.01 and np.mean(usual >= beside[1]) > 0.1


def two_kinds(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(scale=0.02, size=(900, 2)), rng.normal(loc=8, size=(300, 2))


@pytest.mark.parametrize("unit", [1.0, 0.01, [1.0, 30.0]])
def test_law_local(unit):
    dense, sparse = two_kinds()
    around, held_out = Neighborhood.fit(*(np.concatenate([dense[i:300:2], sparse[i:100:2]]) * unit for i in (0, 1)), 400)
    law_local(lambda Z: around.distance(Z * unit), dense, sparse)
    assert held_out.shape == (200,) and (held_out >= 0).all()


def test_law_local_catches_plain_distances():
    dense, sparse = two_kinds()
    points = np.concatenate([dense[:300], sparse[:100]])
    with pytest.raises(AssertionError): law_local(lambda Z: nearest_distance(Z, points), dense, sparse)


def test_local_by_hand():
    "Points 0, 1 and 5 on a line, spacings 1, 1 and 4, and their median 1; whitening is off."
    around = Neighborhood(Whitening(np.zeros(1), np.eye(1)), np.array([[0.0], [1.0], [5.0]], np.float32), np.array([1.0, 1.0, 4.0]) + 1)
    assert np.allclose(around.distance(np.array([[0.0], [2.0], [3.5], [1e30]])), [0, 0.5, 0.3, 2e29])


def law_spaced(distance, X, points, spacing):
    "Equal to the smallest quotient of scipy's distances, also apart from the record itself."
    assert np.allclose(distance(X, points, spacing=spacing), (cdist(X, points) / spacing).min(axis=1), rtol=1e-3, atol=1e-3)
    between = (cdist(points, points) + np.diag(np.full(len(points), np.inf))) / spacing
    assert np.allclose(distance(points, points, np.arange(len(points)), spacing), between.min(axis=1), rtol=1e-3, atol=1e-3)


def test_law_spaced():
    X, points, spacing = records(300, 3), records(60, 4).astype(np.float32), np.random.default_rng(0).uniform(0.1, 2, 60)
    law_spaced(nearest_distance, X, points, spacing)
    def of_the_nearest(X, points, own=None, spacing=None):  # not the smallest quotient: it jumps where the nearest point changes
        gap = cdist(X, points) + (0 if own is None else np.where(own[:, None] == np.arange(len(points)), np.inf, 0))
        return gap.min(axis=1) / spacing[gap.argmin(axis=1)]
    with pytest.raises(AssertionError): law_spaced(of_the_nearest, X, points, spacing)


def test_copies_have_a_neighborhood():
    Z = np.repeat(two_kinds()[1][:20], 5, axis=0)
    around, held_out = Neighborhood.fit(Z, Z[::5], 20)
    assert np.isfinite(around.distance(Z + 1)).all() and (around.nearest.spacing > 0).all() and np.isfinite(held_out).all()


def law_usual_points(n_points):
    "Narrow records get more points, never fewer than 2,000 or more than 4,000, and a product of at most 80,000 between."
    points = [n_points(d) for d in range(1, 100)]
    assert points == sorted(points, reverse=True) and points[0] == 4000 and points[-1] == 2000
    assert all(n * d <= 80_000 for d, n in enumerate(points, 1) if n > 2000)


def test_law_usual_points():
    law_usual_points(usual_points)
    with pytest.raises(AssertionError): law_usual_points(lambda d: 2000)
