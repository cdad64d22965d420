"""Floors on real data: what the default settings must reach, and that every data set runs. Skipped without the data."""
import numpy as np
import pytest

from conftest import needs_data
from nfad.score import evaluate
from nfad.detector import FlowDetector
from nfad.runs import prepare

pytestmark = needs_data

FLOORS = {  # random split, seed 0, default settings; floors, not equalities: versions of JAX differ in the last digits
    "tor2016": {"auroc": 0.995, "tpr_at_fpr_0.01": 0.98},
    "cicids2017_improved": {"auroc": 0.985, "macro_auroc": 0.98, "tpr_at_fpr_0.01": 0.58},
    "cicddos2019": {"auroc": 0.985, "macro_auroc": 0.96, "tpr_at_fpr_0.01": 0.8},
}
OTHERS = ("cicids2017", "csecicids2018", "ciciot2023", "tiissrc23", "tor2016_15s")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    "Prepared records, detector and evaluation per data set, made on first use."
    made = {}

    def get(name, **settings):
        if name not in made:
            prepared = prepare(name, out_dir=str(tmp_path_factory.mktemp("runs")), progress=False)
            detector = FlowDetector(seed=0, **settings).fit(prepared.part("train"), validation=prepared.part("reference"))
            detector.calibrate(prepared.part("calibration"))
            scores, attack = detector.anomaly_score(prepared.part("test")), prepared.dataset.attack[prepared.split.test]
            made[name] = prepared, detector, scores, evaluate(attack, scores, detector.calibration_scores_)
        return made[name]
    return get


def law_floors(result, floors):
    "Every figure reaches its floor."
    missed = {key: (result[key], floor) for key, floor in floors.items() if not result[key] >= floor}
    assert not missed, missed


@pytest.mark.parametrize("name", FLOORS)
def test_law_floors(trained, name): law_floors(trained(name)[3], FLOORS[name])


@pytest.mark.parametrize("name", FLOORS)
def test_law_floors_catches_scores_that_do_not_look(trained, name):
    prepared, _, scores, _ = trained(name)
    attack = prepared.dataset.attack[prepared.split.test]
    blind = evaluate(attack, np.random.default_rng(0).permutation(scores), scores[attack == "benign"])
    with pytest.raises(AssertionError): law_floors(blind, FLOORS[name])


@pytest.mark.parametrize("name", FLOORS)
def test_training_and_scores_are_finite(trained, name):
    prepared, detector, scores, result = trained(name)
    assert np.isfinite(detector.history_.validation_loss).all()
    assert np.isfinite(scores).all() and np.isfinite(detector.log_prob_terms(prepared.part("reference"))).all()
    assert len(prepared.features) >= {"tor2016": 24, "cicids2017_improved": 75, "cicddos2019": 60}[name]  # all columns at once
    assert result["realised_fpr"] < 0.03 and result["n_test_benign"] == (prepared.dataset.attack[prepared.split.test] == "benign").sum()


def law_far_is_ordered(score, transform, frame):
    "Ever larger values of one feature score ever higher, once beyond 10 in scaled units; always finite."
    names = list(transform.feature_names_out_)
    for place, feature in list(enumerate(names))[::7]:
        rows = frame.iloc[[0] * 30].assign(**{feature: np.geomspace(1e9, 1e36, 30)})
        scores, far = score(rows), transform.transform(rows)[:, place] > 10
        assert np.isfinite(scores).all() and far.sum() > 3 and (np.diff(scores[far]) > 0).all(), feature


@pytest.mark.parametrize("name", FLOORS)
def test_law_far_is_ordered(trained, name):
    prepared, detector, *_ = trained(name)
    law_far_is_ordered(detector.anomaly_score, detector.transform_, prepared.part("test"))


def test_law_far_is_ordered_catches_clipping(trained):
    prepared, detector, *_ = trained("tor2016")
    high = prepared.part("train").max()
    with pytest.raises(AssertionError):
        law_far_is_ordered(lambda frame: detector.anomaly_score(frame.clip(upper=high, axis=1)), detector.transform_, prepared.part("test"))


@pytest.mark.parametrize("name", FLOORS)
def test_no_test_record_was_trained_on(trained, name):
    prepared, detector, *_ = trained(name)
    seen = set(map(tuple, prepared.part("train").to_numpy())) | set(map(tuple, prepared.part("calibration").to_numpy()))
    assert not any(tuple(row) in seen for row in prepared.part("test").to_numpy())


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_data_set_runs(trained, name):
    prepared, detector, scores, result = trained(name, epochs=1, hidden=16)
    assert np.isfinite(scores).all() and len(scores) == result["n_test_benign"] + result["n_test_attack"] > 100
    assert set(result["per_class"]) == set(prepared.dataset.attack[prepared.split.test]) - {"benign"}
    assert 0 <= result["min_auroc"] <= result["macro_auroc"] <= 1
