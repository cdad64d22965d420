"""Laws of 06a_verdicts: what answers may do, what they may not, and that a model file never leads a walk astray."""
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from nfad.core import read_model, write_model
from nfad.detector import FlowDetector
from nfad.serving import load_model, score_rows
from nfad.verdicts import Forest, VerdictModel, grow_forest, log_odds

NAMES = [f"f{i}" for i in range(4)]


def benign_of(n, seed):
    "Records of two kinds of traffic."
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)[:, None]
    return pd.DataFrame(np.exp(rng.standard_normal((n, 4)) * 0.5 + kind * [2, 0, 2, 0]), columns=NAMES)


def attacks_of(n, seed, place=(3.0, -2.0, 0.0, 1.0)):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(np.exp(np.asarray(place) + 0.1 * rng.standard_normal((n, 4))), columns=NAMES)


@pytest.fixture(scope="module")
def detector():
    made = FlowDetector(hidden=8, epochs=2, n_points=200, noise=0.05)
    return made.fit(benign_of(600, 0), validation=benign_of(300, 1)).calibrate(benign_of(400, 2))


@pytest.fixture(scope="module")
def answers():
    "Ten records of an attack, ten benign ones, and what a person said."
    return pd.concat([attacks_of(10, 3), benign_of(10, 4)], ignore_index=True), np.repeat([True, False], 10)


@pytest.fixture(scope="module")
def model(detector, answers):
    return VerdictModel.learn(detector, *answers, benign_of(400, 2))


@pytest.mark.parametrize("seed", range(5))
def test_the_forest_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    benign, attack = rng.standard_normal((300, 5)).round(2), rng.standard_normal((8, 5)).round(2) + 1
    forest = grow_forest(benign, attack, n_trees=20, seed=seed)
    X = np.concatenate([benign, attack]).astype(np.float32)
    settings = dict(class_weight="balanced_subsample", random_state=seed)
    halves = [kind(10, **settings).fit(X, np.repeat([0, 1], [300, 8])) for kind in (ExtraTreesClassifier, RandomForestClassifier)]
    fresh = np.concatenate([rng.standard_normal((200, 5)), X]).astype(np.float32)  # training values lie on no threshold's wrong side
    same = np.mean([half.predict_proba(fresh)[:, 1] for half in halves], axis=0)
    np.testing.assert_allclose(forest.votes(fresh), same, atol=1e-6)
    np.testing.assert_allclose(forest.value[forest.leaves(fresh)].mean(axis=1), forest.votes(fresh), atol=1e-6)


def test_answers_lift_and_never_push_down(detector, model):
    records = pd.concat([benign_of(300, 5), attacks_of(100, 6)], ignore_index=True)
    lifts = model.lifts(records)
    assert (lifts["answers"] >= 0).all()
    untouched = (lifts["answers"] == 0).to_numpy()
    assert untouched.sum() > 50
    order = detector.anomaly_score(records)[untouched].argsort(kind="stable")
    assert (np.diff(model.anomaly_score(records)[untouched][order]) >= 0).all()
    found = [(m.predict(attacks_of(100, 6)) == -1).mean() for m in (detector, model)]
    assert found[1] > 0.9 and found[1] >= found[0]


def test_a_kind_that_nobody_answered_keeps_its_place(detector, model):
    other = attacks_of(100, 7, place=(-4.0, 3.0, -4.0, 3.0))
    found = [(m.predict(other) == -1).mean() for m in (detector, model)]
    assert found[0] > 0.5 and found[1] >= found[0] - 0.02


def test_false_alarms_keep_their_promise(detector, answers):
    "Over draws of the calibration the mean rate is that of the promise; a model that compares a record with itself exceeds it."
    rates = []
    for seed in range(12):
        model = VerdictModel.learn(detector, *answers, benign_of(150, 100 + seed), seed=seed)
        rates.append((model.predict(benign_of(2000, 500 + seed)) == -1).mean())
    expected = 2 / 151  # one calibration record is above, of 150
    assert 0.5 * expected < np.mean(rates) < 1.6 * expected, np.mean(rates)


def test_without_an_attack_nothing_changes(detector):
    benign = benign_of(20, 8)
    model = VerdictModel.learn(detector, benign, np.zeros(20, bool), benign_of(400, 2))
    np.testing.assert_array_equal(model.anomaly_score(benign_of(50, 9)), detector.anomaly_score(benign_of(50, 9)))
    none = VerdictModel.learn(detector, benign[:0], np.zeros(0, bool), benign_of(400, 2))
    assert none.threshold_ == detector.threshold_ and (none.resemblance(benign) == 0).all()


def test_benign_answers_do_not_calibrate(detector, answers):
    records, attack = answers
    more = pd.concat([records, benign_of(300, 8).assign(f0=1e6)], ignore_index=True)  # strange ones that a person called benign
    model = VerdictModel.learn(detector, more, np.concatenate([attack, np.zeros(300, bool)]), benign_of(400, 2))
    assert len(model.calibration_scores_) == 400


def test_a_score_does_not_depend_on_its_company(model):
    records = pd.concat([benign_of(200, 10), attacks_of(60, 11)], ignore_index=True)
    together = model.anomaly_score(records)
    alone = np.concatenate([model.anomaly_score(records[i:i + 1]) for i in range(0, 260, 13)])
    np.testing.assert_array_equal(alone, together[::13])


def test_learning_again_forgets_the_old_forest(detector, model, answers):
    again = VerdictModel.learn(model, *answers, benign_of(400, 2))
    records = benign_of(100, 12)
    np.testing.assert_array_equal(again.anomaly_score(records), model.anomaly_score(records))


def test_a_record_resembles_its_own_answer_most(model, answers):
    shares = model.resemblance(answers[0])
    assert (shares.argmax(axis=1)[:10] < 10).all() and np.allclose(np.diag(shares), 1)
    assert model.why(attacks_of(5, 13))["resembles"].str.contains("attack").all()


@pytest.mark.parametrize("changed", [{"records": benign_of(3, 0)}, {"statistic": "log_prob"}])
def test_learn_refuses_what_does_not_fit(detector, answers, changed):
    if "records" in changed:
        with pytest.raises(ValueError, match="attack must hold one answer for each of 3 records"):
            VerdictModel.learn(detector, changed["records"], answers[1], benign_of(50, 2))
        return
    plain = FlowDetector(hidden=8, epochs=1, statistic="log_prob").fit(benign_of(200, 0))
    with pytest.raises(ValueError, match="statistic 'profile'"): VerdictModel.learn(plain, *answers, benign_of(50, 2))


def test_files_serving_and_other_processes(model, tmp_path):
    path = model.save(tmp_path / "verdicts.safetensors")
    records = pd.concat([benign_of(50, 14), attacks_of(20, 15)], ignore_index=True)
    for other in (VerdictModel.load(path), load_model(path).detector, pickle.loads(pickle.dumps(model))):
        assert isinstance(other, VerdictModel)
        np.testing.assert_array_equal(other.anomaly_score(records), model.anomaly_score(records))
        np.testing.assert_array_equal(other.lifts(records), model.lifts(records))
        np.testing.assert_array_equal(other.resemblance(records), model.resemblance(records))
    with pytest.raises(ValueError, match="nfad-verdicts"): FlowDetector.load(path)
    scored = score_rows(load_model(path), records.to_numpy())
    np.testing.assert_array_equal(scored["anomaly_score"], model.anomaly_score(records))
    assert scored["is_anomaly"][50:].all()


BROKEN = {
    "a child that is its own parent": ("forest.child", lambda a: np.where(a > 0, np.arange(len(a), dtype=np.int32)[:, None], a)),
    "a child beyond the last node": ("forest.child", lambda a: np.where(a > 0, np.int32(10**6), a)),
    "a feature that is not there": ("forest.feature", lambda a: np.where(a >= 0, np.int32(99), a)),
    "a feature of no record": ("forest.feature", lambda a: np.full_like(a, -2)),
    "a root beyond the last node": ("forest.root", lambda a: a + np.int32(10**6)),
    "no tree": ("forest.root", lambda a: a[:0]),
    "a vote above one": ("forest.value", lambda a: a + np.float32(2)),
    "a threshold without a number": ("forest.threshold", lambda a: np.full_like(a, np.nan)),
    "an array of another type": ("forest.child", lambda a: a.astype(np.int64)),
    "an array of another length": ("forest.value", lambda a: a[:-1]),
    "answers of another width": ("answered", lambda a: a[:, :-1]),
    "answers that are numbers": ("attack", lambda a: a.astype(np.int64)),
    "calibration scores without a number": ("default_calibration", lambda a: np.full_like(a, np.inf)),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_forest_is_refused(model, tmp_path, fault):
    path = model.save(tmp_path / "verdicts.safetensors")
    arrays, header = read_model(path, "nfad-verdicts-1")
    name, damage = BROKEN[fault]
    arrays[f"verdicts.{name}"] = damage(arrays[f"verdicts.{name}"])
    plain = {key: value for key, value in header.items() if key != "sha256"}
    write_model(path, arrays, plain, "nfad-verdicts-1")  # with a hash that fits
    with pytest.raises(ValueError): VerdictModel.load(path)


def test_log_odds_rise_and_are_finite():
    votes = np.linspace(0, 1, 50)
    odds = log_odds(votes, 60)
    assert np.isfinite(odds).all() and (np.diff(odds) > 0).all() and np.isclose(odds[0], -odds[-1])


def realised_rate(among_themselves, m=100, n=2000, draws=200, fpr=0.02):
    "Mean false-alarm rate of joined scores of made-up halves, when calibration records are judged by `among_themselves`."
    from nfad.reweight import joined
    from nfad.score import conformal_p_values, threshold_at_fpr
    from nfad.tail import Tail
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(draws):
        (base, odds), (other_base, other_odds) = rng.standard_normal((2, m)), rng.standard_normal((2, n))
        threshold = threshold_at_fpr(joined(among_themselves(base), among_themselves(odds)), fpr)
        fresh = joined(-np.log(conformal_p_values(other_base, base)), Tail(odds).surprise(other_odds))
        rates.append((fresh > threshold).mean())
    return np.mean(rates)


def test_calibration_records_are_compared_with_the_others():
    from nfad.score import conformal_p_values
    from nfad.verdicts import _among_themselves
    promised = 3 / 101  # two of a hundred are above, the fresh record may be one of the three highest
    assert realised_rate(_among_themselves) < 1.1 * promised
    assert realised_rate(lambda values: -np.log(conformal_p_values(values, values))) > 1.1 * promised  # in the crowd with itself
