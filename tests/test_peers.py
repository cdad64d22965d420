"""Laws of nfad.peers: every peer keeps the contract, within its budget, chosen without attacks."""
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from flows import ATTACK, odd_parts
from nfad.peers import (DiffusionTime, InternalContrast, Nearest, NearestMean, NearestNormalised, PEERS, Peer, choose_configuration,
                        detector_names, finite_scores, fit_peer)

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
    peer, rng = PEERS[name], np.random.default_rng(0)
    X = rng.normal(size=(200, 1)) + 0.3 * rng.normal(size=(200, 3))  # what belongs together is seen by all of them
    model = peer.make(0, 3, **peer.options[0])
    assert model.fit(X) is model and model.score_samples(X[:1] * 0)[0] > model.score_samples(X[:1] * 0 + [9, -9, 9])[0]


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


# --- peers in a few lines -----------------------------------------------------------------------------------

def two_densities(seed=0):
    "A dense and a sparse cloud, and a record beside each: as far from its cloud as the typical gap of the sparse one."
    rng = np.random.default_rng(seed)
    dense, sparse = rng.normal(0, 0.05, (300, 2)), rng.normal(10, 1, (300, 2))
    return np.concatenate([dense, sparse]), np.array([[0.0, 0.5]]), np.array([[10.0, 12.5]])


def law_units(model):
    "A gap beside dense records is stranger than the same gap among sparse ones."
    benign, by_dense, by_sparse = two_densities()
    model.fit(benign)
    assert model.score_samples(by_dense)[0] < model.score_samples(by_sparse)[0]


def test_law_units(): law_units(NearestNormalised(5))


def test_law_units_catches_plain_distances():
    with pytest.raises(AssertionError): law_units(Nearest(5))


def test_distances_by_hand():
    "Both peers of nearest records against all pairs."
    rng = np.random.default_rng(0)
    benign, X = rng.normal(size=(80, 3)), rng.normal(size=(20, 3))
    gaps = np.linalg.norm(X[:, None] - benign, axis=2)
    among = np.sort(np.linalg.norm(benign[:, None] - benign, axis=2), axis=1)[:, 4]  # itself is the first
    assert np.allclose(NearestMean(4).fit(benign).score_samples(X), -np.sort(gaps, axis=1)[:, :4].mean(axis=1))
    assert np.allclose(NearestNormalised(4).fit(benign).score_samples(X), -(gaps / (among + np.median(among) / 10)).min(axis=1), atol=1e-5)


def law_belongs(model):
    "Records put together from two are stranger than whole ones."
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(600, 1)) + np.arange(6) + rng.normal(0, 0.1, size=(600, 6))
    torn = np.concatenate([whole[300:, :3], whole[:300, 3:]], axis=1)
    scores = -model.fit(whole[:300]).score_samples(np.concatenate([whole[300:], torn]))
    assert roc_auc_score(np.repeat([0, 1], 300), scores) > 0.8


def test_law_belongs(): law_belongs(InternalContrast())


def test_law_belongs_catches_one_that_never_trained(monkeypatch):
    monkeypatch.setattr("nfad.peers._contrast_step", lambda networks, state, X, width: (networks, state))
    with pytest.raises(AssertionError): law_belongs(InternalContrast(n_batches=1))


def test_a_window_needs_a_rest():
    with pytest.raises(ValueError, match="at least 2 features"): InternalContrast().fit(np.zeros((9, 1)))


def law_time(model):
    "The farther from benign records, the more noise is seen; on them, the least."
    far = np.array([[0.0, 0], [2, 2], [4, 4]])
    seen = -model.fit(np.random.default_rng(0).normal(0, 0.1, size=(400, 2))).score_samples(far)
    assert (np.diff(seen) > 0).all() and 0 <= seen.min() and seen.max() <= 6


def test_law_time(): law_time(DiffusionTime(epochs=40))


def test_law_time_catches_classes_without_order():
    class Shuffled(DiffusionTime):
        def score_samples(self, X): return -self.network.predict_proba(np.asarray(X, np.float32))[:, [6, 0, 3, 5, 1, 2, 4]] @ np.arange(7)
    with pytest.raises(AssertionError): law_time(Shuffled(epochs=40))
