"""Laws of nfad.peers: every peer keeps the contract, within its budget, chosen without attacks."""
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from flows import ATTACK, odd_parts
from nfad.peers import Nearest, PEERS, Peer, choose_configuration, detector_names, finite_scores, fit_peer

CHEAP = [name for name in PEERS if not PEERS[name].needs]


@pytest.fixture(scope="module")
def parts(): return odd_parts()


def law_detector(found, parts):
    "Scores are finite, one per record, and higher for attacks; the facts name a configuration."
    score, facts = found
    scores = score(parts["test"])
    assert scores.shape == (500,) and np.isfinite(scores).all() and np.isfinite(score(parts["calibration"])).all()
    assert roc_auc_score(ATTACK != "benign", scores) > 0.7
    assert facts["fit_cpu_seconds"] >= 0 and "transform" in facts["configuration"]


def fitted(name, parts, seed=0): return fit_peer(PEERS[name], parts["train"], parts["reference"], seed)


@pytest.mark.parametrize("name", CHEAP)
def test_law_detector(name, parts): law_detector(fitted(name, parts), parts)


@pytest.mark.parametrize("name", [name for name in PEERS if PEERS[name].needs == "pyod"])
def test_law_detector_of_pyod(name, parts):
    pytest.importorskip("pyod")
    law_detector(fitted(name, parts), parts)


def test_law_detector_catches_the_wrong_sign(parts):
    score, facts = fitted("knn", parts)
    with pytest.raises(AssertionError): law_detector((lambda records: -score(records), facts), parts)


@pytest.mark.parametrize("name", CHEAP)
def test_the_same_seed_gives_the_same_scores(name, parts):
    assert np.array_equal(*(fitted(name, parts, 3)[0](parts["test"]) for _ in range(2)))


@pytest.mark.parametrize("name", PEERS)
def test_the_budget_is_equal(name): assert 1 <= len(PEERS[name].configurations()) <= 4


def law_alone(score):
    "A test record's score does not depend on the other test records."
    Z = np.random.default_rng(0).normal(size=(60, 3))
    assert np.allclose(score(Z)[:10], score(Z[:10]))


@pytest.mark.parametrize("name", CHEAP)
def test_law_alone(name):
    peer = PEERS[name]
    model = peer.make(0, 3, **peer.options[0]).fit(np.random.default_rng(1).normal(size=(300, 3)))
    law_alone(lambda Z: finite_scores(model, Z))


def test_law_alone_catches_ranks_among_test_records():
    with pytest.raises(AssertionError): law_alone(lambda Z: rankdata(Z[:, 0]) / len(Z))


def test_a_broken_constant_is_strangest(parts):
    test = parts["test"].copy()
    test.loc[7, "still"] = 1.0
    for name in ("knn", "gmm"): assert fitted(name, parts)[0](test).argmax() == 7


def test_the_criterion_chooses(parts):
    "A blind configuration loses against one that sees."
    class Blind(Nearest):
        def score_samples(self, Z): return np.zeros(len(Z))
    peer = Peer(lambda seed, d, blind: Blind(1) if blind else Nearest(1), ({"blind": True}, {"blind": False}), ("log",))
    assert choose_configuration(peer, parts["train"], parts["reference"])[2]["configuration"]["blind"] is False


def test_names():
    assert detector_names(["knn", "nfad"])[0] == ["knn", "nfad"]
    names, absent = detector_names("all")
    assert set(names) | set(absent) == {"nfad", *PEERS}
    assert all(not find_spec(PEERS[name].needs) or not find_spec("pyod") for name in absent)
    assert detector_names("pzflow") == (["pzflow"], []) and "nfad" in detector_names("quick")[0]
    assert detector_names("knn, nfad")[0] == ["knn", "nfad"]
    with pytest.raises(ValueError, match="detectors"): detector_names("knnn")


@pytest.mark.parametrize("name", CHEAP)
def test_every_peer_keeps_the_contract(name):
    "What is most normal has the highest `score_samples`, and fit returns the detector."
    peer, X = PEERS[name], np.random.default_rng(0).normal(size=(200, 3))
    model = peer.make(0, 3, **peer.options[0])
    assert model.fit(X) is model and model.score_samples(X * 0)[0] > model.score_samples(X * 0 + 9)[0]


def test_scores_without_a_number_are_ordered_last():
    class Odd:
        def fit(self, X): return self
        def score_samples(self, X): return np.array([np.nan, -np.inf, np.inf, 0.0])
    scores = finite_scores(Odd(), np.zeros((4, 1)))
    assert np.isfinite(scores).all() and scores[0] == scores[1] == scores.max() and scores[2] == scores.min()


def test_a_new_peer_is_one_entry(parts, monkeypatch):
    "A detector of scikit-learn's contract joins the table by an entry of `PEERS`."
    from sklearn.neighbors import KernelDensity
    entry = Peer(lambda seed, d, width: KernelDensity(bandwidth=width), ({"width": 0.3}, {"width": 1.0}), ("log",))
    monkeypatch.setitem(PEERS, "kde", entry)
    assert detector_names("nfad, kde") == (["nfad", "kde"], [])
    law_detector(fitted("kde", parts), parts)


def test_of_two_equal_configurations_the_first_is_kept(parts):
    peer = Peer(lambda seed, d, copy: Nearest(1), ({"copy": 1}, {"copy": 2}), ("log",))
    assert choose_configuration(peer, parts["train"], parts["reference"])[2]["configuration"]["copy"] == 1
