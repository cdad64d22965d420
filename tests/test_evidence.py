"""Laws of nfad.evidence: one unit for all features, constants that break, columns by name."""
import numpy as np
import pandas as pd
import pytest

from nfad.evidence import Evidence, View

D = 12
NAMES = [f"f{j}" for j in range(D)]


def evidence(n, shown=(), size=4.0, seed=0):
    "Evidence of n records: benign in all columns but `shown`."
    return np.random.default_rng(seed).exponential(size=(n, D)) + size * np.isin(np.arange(D), shown)


def view(n, shown=(), size=4.0, seed=0):
    E = evidence(n, shown, size, seed)
    return View(E, E, E.sum(axis=1))


def records(X, constant=3.0): return pd.DataFrame(X, columns=NAMES).assign(constant=constant)


def law_evidence(make):
    "On benign records every feature has exponential evidence; it rises with surprise; constants count only when they break."
    surprise = lambda X: np.asarray(X, dtype=float) * np.append(np.geomspace(0.01, 100, D), 0)  # features differ in how surprising they are
    train, held_out, fresh = (records(evidence(n, seed=s)) for n, s in ((50, 1), (800, 2), (800, 3)))
    e = make(surprise, train, held_out)
    E = e(fresh)
    assert E.shape == (800, D + 1) and (E >= 0).all() and np.isfinite(E).all()
    assert np.allclose(E[:, :D].mean(axis=0), 1, atol=0.2) and (E[:, D] == 0).all()
    assert (e(fresh + records(np.ones((800, D)), 0))[:, :D] >= E[:, :D]).all()
    broken = e(fresh.assign(constant=[3.0] * 400 + [4.0] * 200 + [1e12] * 200))[:, D]
    assert (broken[:400] == 0).all() and np.allclose(broken[400:600], np.log(802) + np.log(2))
    assert (broken[600:] > broken[500]).all() and np.isfinite(broken).all()
    assert np.array_equal(e(fresh[fresh.columns[::-1]]), E)  # columns are taken by name


def test_law_evidence(): law_evidence(Evidence)


def test_law_evidence_catches_plain_surprise():
    def plain(surprise, train, held_out): return lambda X: surprise(X[train.columns])
    with pytest.raises(AssertionError): law_evidence(plain)


def test_law_evidence_catches_ignored_constants():
    def blind(surprise, train, held_out):
        e = Evidence(surprise, train, held_out)
        return lambda X: e(X.assign(constant=3.0))
    with pytest.raises(AssertionError): law_evidence(blind)


@pytest.mark.parametrize("args, match", [((None, 5, 5), "surprise_fn"), ((lambda X: X.to_numpy(), 5, 0), "held_out")])
def test_evidence_names_bad_input(args, match):
    with pytest.raises(ValueError, match=match): Evidence(args[0], records(evidence(args[1])), records(evidence(args[2])))


def test_view_takes_rows_of_all_parts():
    v = view(9, [3])
    some = v.take(np.arange(9) % 2 == 0)
    assert all(np.array_equal(part, whole[::2]) for part, whole in zip(some, v, strict=True))
