"""Laws of 06a_asking: every record once, nothing within reach twice while something new is left, floods and loners are found."""
import numpy as np
import pytest

from nfad.asking import candidates, few_of
from nfad.windows import Placed


def made_up(seed, n=200, near=40):
    "A window with a far clump of near copies, a flood inside, and a loner; benign records; the kinds."
    rng = np.random.default_rng(seed)
    benign, usual = rng.standard_normal((600, 3)), rng.standard_normal((n, 3))
    clump = [6, 6, 6] + 0.05 * rng.standard_normal((near, 3))
    flood = [1, 0.5, 0] + 0.01 * rng.standard_normal((near, 3))
    window = np.concatenate([usual, clump, flood, [[-6, 5, 0]]])
    kinds = np.repeat(["benign", "clump", "flood", "loner"], [n, near, near, 1])
    order = rng.permutation(len(window))
    def placed(A): return Placed(A, np.square(A).sum(axis=1))
    return candidates(placed(window[order]), placed(benign)), kinds[order]


@pytest.mark.parametrize("seed", range(6))
def test_ten_questions_find_all_strange_things_and_ask_about_the_clump_once(seed):
    found, kinds = made_up(seed)
    asked = found.choose(10)
    assert {"clump", "flood", "loner"} <= set(kinds[asked])
    assert list(kinds[asked]).count("clump") == 1
    assert list(kinds[(-found.orders["score"]).argsort()[:10]]).count("clump") == 10  # what the list of scores would ask


@pytest.mark.parametrize("seed", range(6))
def test_every_record_is_asked_once_in_any_rounds(seed):
    found, kinds = made_up(seed, n=60, near=5)
    rng = np.random.default_rng(seed)
    asked = []
    while len(asked) < len(kinds): asked += found.choose(int(rng.integers(1, 12)), asked)
    assert sorted(asked) == list(range(len(kinds)))
    assert found.choose(5, asked) == []


@pytest.mark.parametrize("seed", range(6))
def test_what_an_answer_speaks_for_is_passed_over_while_something_new_is_left(seed):
    found, _ = made_up(seed)
    asked = found.choose(30)
    for i, row in enumerate(asked):
        covered = found.covered(asked[:i]) if i else np.zeros(len(found.place), bool)
        assert not covered[row] or covered.all()


def test_rounds_are_the_same_as_one_long_round_of_a_single_order():
    found, _ = made_up(0)
    first = found.choose(7, orders=("score",))
    assert first + found.choose(5, first, orders=("score",)) == found.choose(12, orders=("score",))


@pytest.mark.parametrize("n", [0, 1, 5, 999, 1000, 1001, 4000, 4001, 50_000])
def test_few_of_keeps_the_highest_and_an_even_sample(n):
    scores = np.random.default_rng(n).exponential(size=n)
    if n: scores[:: 7] = np.nan
    kept = few_of(scores)
    known = np.flatnonzero(~np.isnan(scores))
    assert len(kept) == len(set(kept)) == min(len(known), 4000)
    assert (np.diff(kept) > 0).all() and not np.isnan(scores[kept]).any()
    highest = known[np.argsort(-scores[known])[:1000]]
    assert set(highest) <= set(kept)
    if n == 50_000:  # the sample reaches over the whole night
        places = np.histogram(kept, bins=10, range=(0, n))[0]
        assert places.min() > 300
