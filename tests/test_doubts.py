"""Laws of nfad.doubts: what does not fit is looked at again, and nothing else moves."""
import numpy as np
import pandas as pd
import pytest

from nfad.detector import FlowDetector
from nfad.doubts import Doubts, doubt_answers, second_looks
from nfad.verdicts import VerdictModel
from nights import detector, strange, traffic


def a_night(seed):
    "Eight attacks, eight odd benign records, one of each called by the other's name: rows 0 and 8."
    calm = traffic(400, seed)
    odd = calm.iloc[calm.sub(calm.mean()).div(calm.std()).pow(2).sum(axis=1).argsort()[-8:]]
    known = pd.concat([strange(8, seed), odd], ignore_index=True)
    said = np.repeat([True, False], 8)
    said[[0, 8]] = [False, True]
    return known, said


def law_wrong_ones_first(order_of, model):
    "Of two wrong answers among sixteen, most are among the first four second looks."
    seen = []
    for seed in range(6):
        known, said = a_night(50 + seed)
        seen += np.isin([0, 8], order_of(doubt_answers(model, known, said, traffic(600, 99)), 4)).tolist()
    assert np.mean(seen) > 0.7


def test_law_wrong_ones_first(detector): law_wrong_ones_first(second_looks, detector)


def test_law_wrong_ones_first_catches_a_fixed_order(detector):
    with pytest.raises(AssertionError): law_wrong_ones_first(lambda doubts, n: list(range(4, 4 + n)), detector)


def test_both_sorts_come_in_turn_and_settled_answers_do_not_come():
    doubts = Doubts(np.array([True, True, False, False]), np.array([0, 0, 0.9, 0.4]), np.array([0.1, 0.2, 0, 0]))
    assert second_looks(doubts, 4) == [2, 1, 3, 0]
    assert second_looks(doubts, 4, settled=[2, 1]) == [3, 0] and second_looks(doubts, 1) == [2]
    assert second_looks(doubts._replace(attack=np.zeros(4, bool)), 9) == [2, 3, 0, 1]
    with pytest.raises(ValueError, match="n must"): second_looks(doubts, 0)


def test_without_a_named_attack_the_detector_speaks(detector):
    known = pd.concat([traffic(10, 3), strange(2, 3)], ignore_index=True)
    doubts = doubt_answers(detector, known, np.zeros(12, bool), traffic(300, 4))
    assert (doubts.like_attack[[10, 11]] == 1).all() and (doubts.like_attack[second_looks(doubts, 2)] == 1).all()
    assert not doubts.like_benign.any()


def test_nothing_is_overruled(detector):
    known, said = a_night(7)
    before = said.copy()
    doubts = doubt_answers(detector, known, said, traffic(300, 4))
    assert (said == before).all() and (doubts.attack == before).all()
    assert ((doubts.like_attack >= 0) & (doubts.like_attack <= 1) & (doubts.like_benign >= 0) & (doubts.like_benign <= 1)).all()
    assert (VerdictModel.learn(detector, known, said, traffic(300, 4)).attack_ == before).all()


def test_answers_must_fit_records(detector):
    with pytest.raises(ValueError, match="attack must hold one answer for each of 12"):
        doubt_answers(detector, traffic(12, 3), np.zeros(11, bool), traffic(300, 4))


def test_one_attack_apart_from_benign_traffic_resembles_none_of_it(detector):
    "Trees that were resampled without the attack are one leaf, which all benign records share; they do not count."
    doubts = doubt_answers(detector, strange(1, 3), [True], traffic(300, 4))
    assert doubts.like_benign[0] < 0.05


def test_what_cannot_be_taught_is_refused_by_name(detector):
    plain = FlowDetector(hidden=8, epochs=1, n_layers=1, statistic="log_prob").fit(traffic(300))
    for model, message in ((plain, "statistic 'profile'"), (FlowDetector(), "fitted")):
        with pytest.raises(Exception, match=message): doubt_answers(model, traffic(3), np.ones(3, bool), traffic(30))
    with pytest.raises(ValueError, match="number of calibration records"): doubt_answers(detector, traffic(3), np.ones(3, bool), traffic(3)[:0])
