"""Laws of what a model has seen: equal records and no others are known, and as often as training lets expect they are left out."""
import numpy as np
import pandas as pd
import pytest

from nfad.core import read_header, read_model, write_model
from nfad.seen import Seen, read_seen, remember, write_seen


def made(n: int, seed: int = 0) -> np.ndarray: return np.random.default_rng(seed).lognormal(2, 2, size=(n, 5)).round(2)


# ---------------------------------------------------------------- which records

def law_equal_records_and_no_others(knows):
    "Records are known in any order and any company; one that differs in the last bit of one feature is not."
    X = made(500)
    X[::7, 2] = 0.0
    order = np.random.default_rng(1).permutation(800)
    mixed = np.concatenate([X, made(300, 1)])[order]
    assert np.array_equal(knows(X, mixed), order < 500)
    for j in range(5):
        nearly = X.copy()
        nearly[:, j] = np.nextafter(nearly[:, j], np.inf)
        assert not knows(X, nearly).any(), j
    signed = np.where(X == 0, -0.0, X)
    assert knows(X, signed).all() and not knows(X, X[:, ::-1]).any() and knows(X, X[:0]).shape == (0,)
    damaged = X.copy()
    damaged[::3, 1] = np.nan
    assert np.array_equal(knows(X, damaged), np.arange(500) % 3 > 0)


def by_fingerprint(X, Y): return remember(pd.DataFrame(X)).places(Y) >= 0


def test_law_equal_records_and_no_others(): law_equal_records_and_no_others(by_fingerprint)


@pytest.mark.parametrize("broken", [
    lambda X, Y: by_fingerprint(X.astype(np.float32), Y.astype(np.float32)),
    lambda X, Y: by_fingerprint(np.sort(X, axis=1), np.sort(Y, axis=1)),
    lambda X, Y: np.isin(X[:, 0], Y[:, 0])])
def test_law_equal_records_and_no_others_catches(broken):
    with pytest.raises((AssertionError, ValueError)): law_equal_records_and_no_others(broken)


# ---------------------------------------------------------------- how often

def law_as_often_as_in_training(left_out):
    "The training file is left out, live traffic of the same mix keeps its new records, and what comes too often is judged."
    query, others = np.ones((1, 5)), made(600)
    seen = remember(pd.DataFrame(np.concatenate([query, others[:300]])), [400] + [1] * 300, 1000)
    file = np.concatenate([np.repeat(query, 400, axis=0), others[:300]])
    assert left_out(seen, file).all()
    for n in (500, 5000):  # records of live traffic, of which 40 % are the query
        live = np.concatenate([np.repeat(query, int(0.4 * n), axis=0), made(int(0.6 * n), 3)])
        mixed = np.random.default_rng(2).permutation(n)
        assert np.array_equal(left_out(seen, live[mixed]), mixed < 0.4 * n)
    for X in (np.repeat(query, 4000, axis=0), np.repeat(others[:1], 4000, axis=0)):  # a sensor that repeats itself
        assert (~left_out(seen, X)).sum() >= 2000
    assert not left_out(seen, others[300:]).any()


def test_law_as_often_as_in_training(): law_as_often_as_in_training(Seen.expected)


@pytest.mark.parametrize("broken", [
    lambda seen, X: np.zeros(len(X), bool),
    lambda seen, X: seen.places(X) >= 0,
    lambda seen, X: (seen.places(X) >= 0) & ~pd.Series(seen.places(X)).duplicated().to_numpy(),
    lambda seen, X: (seen.places(X) >= 0) & (seen.copies[seen.places(X)] == 1)])
def test_law_as_often_as_in_training_catches(broken):
    with pytest.raises(AssertionError): law_as_often_as_in_training(broken)


def test_a_twentieth_is_found_in_a_long_stretch():
    X, order = made(20_000, 4), np.random.default_rng(0).permutation(20_000)
    assert remember(pd.DataFrame(X[order < 1000])).expected(X).sum() == 1000


def test_copies_of_equal_rows_add_up():
    seen = remember(pd.DataFrame({"a": [1.0, 2.0, 1.0, -0.0, 0.0]}), [5, 1, 2, 3, 4])
    assert sorted(seen.copies.tolist()) == [1, 7, 7] and seen.total == 15 and len(seen.rows) == 3


def law_held_out_records_are_known_and_not_trained_on(was_trained_on):
    "Of the records that are kept, those are told that were trained on, their copies included."
    X = made(300)
    order = np.random.default_rng(1).permutation(400)
    mixed = np.concatenate([X, made(100, 1)])[order]
    for trained in (np.arange(400) < 200, np.arange(400) // 100 == 2):
        seen = remember(pd.DataFrame(X), np.full(300, 2), trained=trained[:300])
        assert np.array_equal(seen.places(mixed) >= 0, order < 300) and np.array_equal(was_trained_on(seen, mixed), trained[order])
    assert remember(pd.DataFrame(X)).trained.all()


def test_law_held_out_records_are_known_and_not_trained_on(): law_held_out_records_are_known_and_not_trained_on(Seen.was_trained_on)


@pytest.mark.parametrize("broken", [lambda seen, X: seen.places(X) >= 0, lambda seen, X: seen.trained[seen.places(X)]])
def test_law_held_out_records_are_known_and_not_trained_on_catches(broken):
    with pytest.raises(AssertionError): law_held_out_records_are_known_and_not_trained_on(broken)


# ---------------------------------------------------------------- in a model file

@pytest.fixture
def path(tmp_path): return write_model(tmp_path / "m.safetensors", {"w": np.arange(3.0)}, {"unit": "nats"}, "line-1")


def test_what_was_seen_comes_back_and_the_model_stays(path):
    seen, before = remember(pd.DataFrame(made(100)), np.arange(100) + 1, 10_000, np.arange(100) < 60), read_model(path, "line-1")
    assert read_seen(path) is None and write_seen(path, None) == path and read_seen(path) is None
    for _ in range(2):
        again = read_seen(write_seen(path, seen))
        assert np.array_equal(again.rows, seen.rows) and np.array_equal(again.copies, seen.copies) and again.total == 10_000
        assert np.array_equal(again.trained, seen.trained) and again.trained.sum() == 60
        arrays, header = read_model(path, "line-1")
        assert np.array_equal(arrays["w"], before[0]["w"]) and header["unit"] == "nats" and len(arrays) == 5


SEEN = {"seen.rows": np.array([3, 5], np.uint64), "seen.copies": np.array([1, 2]), "seen.total": np.array(3)}
NONSENSE = [("seen.rows", np.array([5, 3], np.uint64)), ("seen.rows", np.array([3, 3], np.uint64)), ("seen.rows", np.array([3.0, 5.0])),
            ("seen.rows", np.zeros(0, np.uint64)), ("seen.rows", np.array(3, np.uint64)), ("seen.copies", np.array([0, 2])), ("seen.copies", np.array([1])),
            ("seen.total", np.array(2)), ("seen.total", np.array([3])), ("seen.total", None), ("seen.copies", None), ("seen.trained", np.array([1, 0])), ("seen.trained", np.array([True]))]


@pytest.mark.parametrize("name, value", NONSENSE)
def test_nonsense_is_refused(path, name, value):
    write_model(path, SEEN, {}, "line-1")
    assert read_seen(path).total == 3
    write_model(path, {key: array for key, array in (SEEN | {name: value}).items() if array is not None}, {}, "line-1")
    assert read_header(path)["format"] == "line-1"
    with pytest.raises(ValueError, match="makes no sense"): read_seen(path)
