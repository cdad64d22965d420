"""Laws of nfad.pyod: one sign for all detectors, names that stay, and PyOD's interface to the letter."""
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

import nfad
from nfad.detector import FlowDetector
from nfad.pyod import PyodFlow, anomaly_score_of, explain_detector, held_out_scores

NAMES = ["pause", "packets", "bytes"]


def drawn(n: int, seed: int) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n, 3)) * [1, 10, 100], columns=NAMES)


BENIGN, NEW = drawn(300, 0), drawn(2000, 1)
STRANGE = pd.DataFrame([[0.0, 90.0, 0.0], [0.0, 0.0, 900.0], [-9.0, 0.0, 0.0]], columns=NAMES)


class Ecod:
    "As PyOD's detectors are: higher is stranger, on arrays."
    def fit(self, X):
        self.center, self.decision_scores_ = np.asarray(X).mean(axis=0), np.zeros(len(X))
        return self

    def decision_function(self, X): return np.abs((np.asarray(X) - self.center) / [1, 10, 100]).max(axis=1)


@pytest.fixture(scope="module")
def flow(): return PyodFlow(contamination=0.05, epochs=2).fit(BENIGN)


OTHERS = {"forest": IsolationForest(random_state=0), "lof": make_pipeline(StandardScaler(), LocalOutlierFactor(novelty=True)), "svm": make_pipeline(StandardScaler(), OneClassSVM(nu=0.05)),
          "like PyOD": Ecod(), "nfad": FlowDetector.preset("fast", epochs=2)}


def sign_faults(detector, score_of=anomaly_score_of) -> int:
    "How many strange records do not get a higher score than four of five benign ones."
    score = score_of(detector, NAMES)
    return int((score(STRANGE.to_numpy()) <= np.quantile(score(NEW.to_numpy()), 0.8)).sum())


@pytest.mark.parametrize("name", OTHERS)
def test_higher_is_stranger_whoever_scores(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn warns where names are lost
        assert sign_faults(OTHERS[name].fit(BENIGN)) == 0


@pytest.mark.parametrize("name", ["forest", "like PyOD", "nfad"])
def test_signs_catch_the_other_one(name):
    def turned(detector, names): return lambda X: -anomaly_score_of(detector, names)(X)
    assert sign_faults(OTHERS[name].fit(BENIGN), turned)


def test_what_is_no_outlier_detector_is_refused():
    with pytest.raises(ValueError, match="classifier"): anomaly_score_of(LogisticRegression().fit(BENIGN, np.arange(300) % 2), NAMES)
    with pytest.raises(ValueError, match="StandardScaler has neither"): anomaly_score_of(StandardScaler(), NAMES)


@pytest.mark.parametrize("name", ["forest", "like PyOD"])
def test_one_line_explains_any_detector_by_name(name):
    detector = OTHERS[name].fit(BENIGN)
    told = nfad.explain_detector(detector, BENIGN, STRANGE)
    assert [told.table(i).index[0] for i in range(3)] == ["packets", "bytes", "pause"]
    assert np.abs(told.efficiency_gap()).max() < 1e-6
    shuffled = explain_detector(detector, BENIGN, STRANGE[NAMES[::-1]])
    assert shuffled.names == NAMES and np.array_equal(shuffled.values, told.values)


# ---------------------------------------------------------------- PyOD's interface

def test_the_interface_is_that_of_pyod(flow):
    assert flow.labels_.sum() == 15 == (flow.decision_scores_ > flow.threshold_).sum()
    assert set(flow.predict(STRANGE[::2])) == {1} and flow.predict(STRANGE).dtype.kind == "i"
    assert np.array_equal(flow.predict(NEW), flow.decision_function(NEW) > flow.threshold_)
    for method in ("linear", "unify"):
        shares = flow.predict_proba(NEW, method)
        assert shares.shape == (2000, 2) and np.allclose(shares.sum(axis=1), 1) and shares.min() >= 0
        assert (np.diff(shares[np.argsort(flow.decision_function(NEW)), 1]) >= 0).all()
    assert clone(flow).get_params() == flow.get_params()
    assert PyodFlow(contamination=0.05, epochs=2).fit(BENIGN.to_numpy()).threshold_ == flow.threshold_
    with pytest.raises(ValueError, match="contamination must be in"): PyodFlow(contamination=0.7).fit(BENIGN)
    with pytest.raises(ValueError, match="method must be one of"): flow.predict_proba(NEW, "logistic")


def share_above(known: np.ndarray, detector: FlowDetector) -> float:
    "Share of new usual records above the threshold of 5 % from known scores."
    return float(np.mean(detector.anomaly_score(NEW) > np.quantile(known, 0.95)))


def test_known_scores_are_those_of_records_that_were_not_learned():
    detector = FlowDetector.preset("fast", epochs=2)
    apart = held_out_scores(detector, BENIGN, 0)
    detector.fit(BENIGN)
    assert share_above(apart, detector) < 0.15
    assert share_above(detector.anomaly_score(BENIGN), detector) > 0.2, "the twin that judges what it learned"


def test_pyod_takes_it_for_one_of_its_own(flow):
    base = pytest.importorskip("pyod.models.base").BaseDetector
    from pyod.models.ecod import ECOD
    from pyod.models.feature_bagging import FeatureBagging
    assert isinstance(flow, base)
    for method in ("linear", "unify"):
        assert np.allclose(base.predict_proba(flow, NEW, method=method), flow.predict_proba(NEW, method))
    assert np.array_equal(base.predict(flow, NEW), flow.predict(NEW))
    assert sign_faults(ECOD(contamination=0.05).fit(BENIGN)) == 0
    bag = FeatureBagging(PyodFlow(epochs=1), n_estimators=2, contamination=0.05, combination="max", random_state=0).fit(BENIGN.to_numpy())
    assert bag.labels_.sum() == 15 and bag.decision_function(STRANGE.to_numpy()).min() > np.median(bag.decision_scores_)
    pytest.importorskip("combo")
    from pyod.models.combination import average, maximization
    both = np.column_stack([ECOD().fit(BENIGN).decision_function(STRANGE), flow.decision_function(STRANGE)])
    assert average(both).shape == maximization(both).shape == (3,)
