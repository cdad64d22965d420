"""Laws of nfad.plans: exact values, orders, walks, what places add, standard errors."""
from itertools import permutations

import numpy as np
import pytest

from nfad.plans import (DEPTHS, Steps, _orders, coalitions, looks, paired_orders, plan_coalitions, plan_walks,
                        players_and_places, runway_shares, settled, shapley_matrix, standard_errors, walk)


def drawn_game(p, seed=0):
    "A game with interactions of every order: each coalition has a worth of its own."
    value = np.random.default_rng(seed).normal(size=2 ** p)
    return lambda present: value[present @ (2 ** np.arange(p))]


def play(plan, worth, p, apart=True):
    "Looks at one game of p players; without `apart`, what was paid as it came."
    none, everyone = np.zeros((1, p), bool), np.ones((1, p), bool)
    start, end = worth(none), worth(everyone)[0]
    steps = plan.steps(worth(plan.present), start, end)
    return settled(steps, end - start)[0] if apart else steps.paid[0]


# --- exact values -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("p", range(1, 9))
def test_matrix_shares_out_everything(p):
    W = shapley_matrix(p)
    worths = np.random.default_rng(p).normal(size=2 ** p)
    assert (W @ worths).sum() == pytest.approx(worths[-1] - worths[0])
    assert np.allclose(W @ np.ones(2 ** p), 0)


def test_the_mean_over_all_orders_is_the_exact_value():
    worth = drawn_game(4, 1)
    walked = [walk(worth, np.array(order)) for order in permutations(range(4))]
    assert np.allclose(np.mean(walked, axis=0), shapley_matrix(4) @ worth(coalitions(4)))


# --- orders -------------------------------------------------------------------------------------------------

def law_half_square(orders, p):
    "Half a square and its reverses put every player in every place once."
    found = orders(p // 2, p, 3)
    both = np.concatenate([found, found[:, ::-1]])
    assert (np.sort(both, axis=0) == np.arange(p)[:, None]).all()


@pytest.mark.parametrize("p", [2, 4, 6, 58])
def test_law_half_square(p): law_half_square(paired_orders, p)


def test_law_half_square_catches_independent_orders():
    def independent(n, p, seed): return np.random.default_rng(seed).permuted(np.tile(np.arange(p), (n, 1)), axis=1)
    with pytest.raises(AssertionError): law_half_square(independent, 6)


@pytest.mark.parametrize("n, p", [(1, 1), (7, 3), (3, 7), (20, 5), (30, 58)])
def test_orders_are_permutations(n, p):
    found = paired_orders(n, p, 3)
    assert found.shape == (n, p) and (np.sort(found, axis=1) == np.arange(p)).all()


def law_uniform(orders):
    "Each order by itself is uniformly random."
    counts = {order: 0 for order in permutations(range(4))}
    for seed in range(1200): counts[tuple(orders(2, 4, seed)[0])] += 1
    expected = 1200 / 24
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 55  # chi squared, 23: 1 in 5,000


def test_law_uniform(): law_uniform(paired_orders)


def test_law_uniform_catches_players_without_a_lot():
    def unshuffled(n, p, seed):
        shift = np.random.default_rng(seed).permutation(p)[:n, None]
        return (np.arange(p) + shift) % p
    with pytest.raises(AssertionError): law_uniform(unshuffled)


# --- walks --------------------------------------------------------------------------------------------------

def law_walks(paid, orders, worth):
    "Where a walk was seen, a step of a pair is the mean of a plain walk's and its reverse's."
    plain = np.array([(walk(worth, order) + walk(worth, order[::-1])) / 2 for order in orders[:len(paid)]])
    seen = ~np.isnan(paid)
    assert np.allclose(paid[seen], plain[seen]) and 0.3 < seen.mean() <= 1


@pytest.mark.parametrize("depths", [(5,), (5, 1)])
def test_law_walks(depths):
    worth, alone = drawn_game(5), np.ones((1, 5), bool)
    paid = play(plan_walks(alone, 40, 3, depths), worth, 5, apart=False)
    law_walks(paid, _orders(alone, 40, 3), worth)
    with pytest.raises(AssertionError): law_walks(paid, _orders(alone, 40, 4), worth)


def test_short_walks_ask_for_less():
    alone = np.ones((1, 40), bool)
    asked = [len(plan_walks(alone, 6, depths=depths).present) for depths in ((40,), DEPTHS)]
    assert asked == [6 * 39 + 40 - 6, 2 * (39 + 16 + 6) + 40 - 6]  # and everybody alone
    sizes = plan_walks(alone, 2, depths=(3,)).present.sum(axis=1)
    assert set(sizes) == {1, 2, 3, 37, 38, 39}


def test_turns_go_on_where_they_ended():
    alone = np.ones((1, 40), bool)
    once = len(plan_walks(alone, 6, alone=np.full((1, 40), np.nan)).present)
    assert sum(len(plan_walks(alone, 2, before=before).present) for before in range(3)) == once


@pytest.mark.parametrize("n_walks", [1, 2, 6])
def test_plans_mix_walks_and_enumeration(n_walks):
    differs = np.random.default_rng(0).random((8, 6)) < 0.6
    differs[0] = False
    plan, additive = plan_coalitions(differs, n_walks), np.arange(1.0, 7)
    starts = np.array([additive[~row].sum() for row in differs])
    worths = np.array([additive[present | ~differs[g]].sum() for present, g in zip(plan.present, plan.games)])
    found = settled(plan.steps(worths, starts, additive.sum()), additive.sum() - starts)
    assert found.shape == (8, looks(n_walks), 6) and np.allclose(found, np.where(differs, additive, 0)[:, None])


def test_an_enumeration_may_be_allowed_to_cost_more():
    alone = np.ones((1, 6), bool)
    assert len(plan_coalitions(alone, 4).present) < 62 == len(plan_coalitions(alone, 4, worth=16).present)


# --- players and places -------------------------------------------------------------------------------------

def law_apart(fit):
    "What is a sum of two parts is taken apart, whoever was seen where."
    rng = np.random.default_rng(0)
    player, place = rng.integers(6, size=60), rng.integers(4, size=60)
    parts = rng.normal(size=6), rng.normal(size=4)
    of_player, of_place = fit(parts[0][player] + parts[1][place], player, place, rng.random(60) + 0.1)
    assert np.allclose(of_player + of_place.mean(), parts[0] + parts[1].mean())


def test_law_apart(): law_apart(players_and_places)


def test_law_apart_catches_plain_means():
    def plain(paid, player, place, weight): return np.bincount(player, paid) / np.bincount(player), np.zeros(4)
    with pytest.raises(AssertionError): law_apart(plain)


# --- the runway ---------------------------------------------------------------------------------------------

def law_shares(shares):
    "What each pays for a runway is the mean over all orders of arrival."
    for needs in ([6.0, 42.0, 12.0, 12.0], [0.0, 3.0, 1.0, 5.0]):
        longest = lambda present: (present * np.array(needs)).max(axis=1)
        orders = [walk(longest, np.array(order)) for order in permutations(range(4))]
        assert np.allclose(shares(np.array([needs]))[0], np.mean(orders, axis=0))


def test_law_shares(): law_shares(runway_shares)


def test_law_shares_catches_parts_by_length():
    with pytest.raises(AssertionError): law_shares(lambda needs: needs * needs.max() / needs.sum())


NEEDS = 1.5 * np.maximum(np.arange(14.0) - 5, 0)
UNASKED = np.full((1, 14), np.nan)  # nobody is asked alone: no runway


def law_runway(looks_of):
    "A game that is a runway is exact in every look, short walks or not."
    runway = lambda present: (present * NEEDS).max(axis=1)
    for seed in range(3): assert np.allclose(looks_of(seed, runway), runway_shares(NEEDS[None])[0])


def test_law_runway():
    law_runway(lambda seed, worth: play(plan_walks(np.ones((1, 14), bool), 6, seed), worth, 14))


def test_law_runway_catches_walks_without_it():
    def plain(seed, worth): return play(plan_walks(np.ones((1, 14), bool), 6, seed, alone=UNASKED), worth, 14)
    with pytest.raises(AssertionError): law_runway(plain)


def far(present):
    "A distance: who comes first adds most."
    return np.sqrt(present @ np.square(np.arange(1.0, 15)))


def law_saves(runs_of):
    "At a distance the runway halves the coalitions for the same error, those of single players counted."
    truth = shapley_matrix(14) @ far(coalitions(14))
    costs = []
    for alone in (UNASKED, None):
        runs = [runs_of(seed, alone) for seed in range(30)]
        error = np.mean([np.square(values - truth).mean() for values, _ in runs])
        costs.append(error * np.mean([n for _, n in runs]))
    assert costs[1] < costs[0] / 2


def by_runway(seed, alone):
    plan = plan_walks(np.ones((1, 14), bool), 18, seed, alone=alone)
    return play(plan, far, 14).mean(axis=0), len(plan.present)


def test_law_saves(): law_saves(by_runway)


def test_law_saves_catches_a_runway_that_is_paid_for_and_not_used():
    def unused(seed, alone): return by_runway(seed, UNASKED)[0], by_runway(seed, alone)[1]
    with pytest.raises(AssertionError): law_saves(unused)


def test_nobody_is_asked_twice():
    everyone = np.ones((1, 14), bool)
    first = plan_walks(everyone, 6, 0)
    steps = first.steps(far(first.present), np.zeros(1), far(everyone)[0])
    later = plan_walks(everyone, 6, 1, before=3, alone=steps.alone)
    assert [(plan.present.sum(axis=1) == 1).sum() for plan in (first, later)] == [14, 0]
    again = later.steps(far(later.present), np.zeros(1), far(everyone)[0])
    assert np.allclose(again.alone[0], np.arange(1.0, 15)) and np.array_equal(again.alone, steps.alone)
    assert np.allclose(np.nansum(again.beyond, axis=2), 0)  # the runway's luck adds up to nothing


def law_nothing_to_correct(looks_of):
    "In a full half square of walks that go through, the mean of the looks is that of the plain walks."
    worth, alone = drawn_game(6, 2), np.ones((1, 6), bool)
    plan = plan_walks(alone, 6, 1, depths=(6,), alone=np.full((1, 6), np.nan))  # nobody was asked alone
    assert np.allclose(looks_of(plan, worth).mean(axis=0), play(plan, worth, 6, apart=False).mean(axis=0))


def test_law_nothing_to_correct(): law_nothing_to_correct(lambda plan, worth: play(plan, worth, 6))


def test_law_nothing_to_correct_catches_a_shrunken_fit():
    def shrunken(plan, worth): return 0.9 * play(plan, worth, 6)
    with pytest.raises(AssertionError): law_nothing_to_correct(shrunken)


def law_adds_up(looks_of):
    "Each look adds up to what all are worth more than none, short walks or not."
    worth = drawn_game(12, 3)
    found = looks_of(plan_walks(np.ones((1, 12), bool), 12, 0), worth)
    assert np.allclose(found.sum(axis=1), worth(np.ones((1, 12), bool)) - worth(np.zeros((1, 12), bool)))


def test_law_adds_up(): law_adds_up(lambda plan, worth: play(plan, worth, 12))


def test_law_adds_up_catches_steps_that_were_not_seen():
    with pytest.raises(AssertionError): law_adds_up(lambda plan, worth: np.nan_to_num(play(plan, worth, 12, apart=False)))


def law_nothing_for_nothing(looks_of):
    "Who never adds anything gets exactly nothing."
    worth = drawn_game(11, 4)
    found = looks_of(plan_walks(np.ones((1, 12), bool), 12, 0), lambda present: worth(present[:, :11]))
    assert (found[:, 11] == 0).all() and (found[:, :11] != 0).any()


def test_law_nothing_for_nothing(): law_nothing_for_nothing(lambda plan, worth: play(plan, worth, 12))


def test_law_nothing_for_nothing_catches_a_shared_rest():
    def smeared(plan, worth): return play(plan, worth, 12) + 1e-9
    with pytest.raises(AssertionError): law_nothing_for_nothing(smeared)


def torn(present):
    "High in the middle, and steep at both ends."
    weight = np.arange(1.0, 15)
    return present @ weight / 20 + np.sqrt((present @ weight) * (~present @ weight[::-1]))


def law_unbiased(looks_of):
    "Over seeds the mean of the values is the exact value, within a tenth of one estimate's error and chance."
    truth = shapley_matrix(14) @ torn(coalitions(14))
    runs = np.array([looks_of(plan_walks(np.ones((1, 14), bool), 12, seed)).mean(axis=0) for seed in range(150)])
    made = runs.std(axis=0)
    assert (np.abs(runs.mean(axis=0) - truth) < (0.1 + 4.5 / np.sqrt(150)) * made).all()


def test_law_unbiased(): law_unbiased(lambda plan: play(plan, torn, 14))


def test_law_unbiased_catches_places_that_count_once():
    def unweighted(plan): return np.nan_to_num(play(plan, torn, 14, apart=False)) * 1.6
    with pytest.raises(AssertionError): law_unbiased(unweighted)


def law_less_for_the_same_error(ways):
    "The plan needs less than three quarters of the coalitions of independent orders, at the same error."
    truth = shapley_matrix(14) @ torn(coalitions(14))
    costs = []
    for way in ways:
        runs = [way(seed) for seed in range(40)]
        error = np.mean([np.square(values - truth).mean() for values, _ in runs])
        costs.append(error * np.mean([n for _, n in runs]))
    assert costs[1] < 0.75 * costs[0]


def by_plan(seed):
    plan = plan_walks(np.ones((1, 14), bool), 18, seed)
    return play(plan, torn, 14).mean(axis=0), len(plan.present)


def by_independent_orders(seed):
    rng = np.random.default_rng(seed)
    pairs = [walk(torn, order[::way]) for order in (rng.permutation(14) for _ in range(9)) for way in (1, -1)]
    return np.mean(pairs, axis=0), 18 * 13


def test_law_less_for_the_same_error(): law_less_for_the_same_error([by_independent_orders, by_plan])


def test_law_less_for_the_same_error_catches_no_gain():
    with pytest.raises(AssertionError): law_less_for_the_same_error([by_independent_orders, by_independent_orders])


# --- standard errors ----------------------------------------------------------------------------------------

def law_honest_error(looks_of):
    "Standard errors of walked values are about the error made, or a little too large."
    truth = shapley_matrix(14) @ torn(coalitions(14))
    found = [looks_of(plan_walks(np.ones((1, 14), bool), 18, seed)) for seed in range(40)]
    made = np.sqrt(np.mean([np.square(each.mean(axis=0) - truth) for each in found]))
    told = np.sqrt(np.mean([np.square(standard_errors(each[None])) for each in found]))
    assert 0.8 < told / made < 2


def test_law_honest_error(): law_honest_error(lambda plan: play(plan, torn, 14))


def test_law_honest_error_catches_an_optimist():
    def optimist(plan):
        found = play(plan, torn, 14)
        return found.mean(axis=0) + (found - found.mean(axis=0)) / 3
    with pytest.raises(AssertionError): law_honest_error(optimist)


def test_too_few_walks_and_too_many_players_are_named():
    with pytest.raises(ValueError, match="at least 4"): standard_errors(np.zeros((1, 1, 3)))
    with pytest.raises(ValueError, match="exact values need 1 to 16"): shapley_matrix(18)
    with pytest.raises(ValueError, match="even"): looks(3)
    assert Steps._fields == ("paid", "places", "beyond", "alone")
