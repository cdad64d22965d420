"""Laws of nfad.outlying: the first reason is a value outside its typical range, or it says combination."""
import numpy as np
import pandas as pd
import pytest

from dependent import background, benign
from nfad import outlying
from nfad.explain import plant
from nfad.groups import feature_groups
from nfad.outlying import Reason, alike, all_reasons, outside, readable, reasons_of
from nfad.shapley import Background, shapley_values


@pytest.fixture(scope="module")
def groups(benign): return feature_groups(benign)


@pytest.fixture(scope="module")
def planted(background, benign):
    "Anomalies, their attributions, what was changed."
    parts = [plant(benign[i::6][:15], benign, kind, k, seed=i) for i, (kind, k) in
             enumerate((kind, k) for kind in ("global", "swap", "mirror") for k in (1, 2))]
    X, truth = (np.concatenate([np.asarray(getattr(part, name)) for part in parts]) for name in ("records", "truth"))
    return X, shapley_values(background, X).values, truth


def law_honest(find, background, groups, planted):
    "The first reason is outside its range or says combination; each reason is about the record; at least one, at most five."
    for x, values, _ in zip(*planted, strict=True):
        told = find(background, x, values, groups)
        assert 1 <= len(told) <= 5 and (told[0].is_outside or (told[0].partner and "combination" in str(told[0])))
        for reason in told:
            assert reason.value == x[background.names.index(reason.feature)] and 0 <= reason.beyond <= reason.n
            assert reason.group in groups.names


def highest(background, x, values, groups):
    "The highest attribution, wherever its value lies."
    j = int(values.argmax())
    low, high = np.quantile(background.records[:, j], [0.05, 0.95])
    return [Reason(groups.names[groups.of[j]], background.names[j], x[j], low, high, "", 0, 1, False, values[j])]


def test_law_honest(background, groups, planted): law_honest(reasons_of, background, groups, planted)


def test_law_honest_catches_attributions_alone(background, groups, planted):
    with pytest.raises(AssertionError): law_honest(highest, background, groups, planted)


def test_planted_features_are_named(background, groups, planted):
    "Not below the highest attribution alone."
    X, values, truth = planted
    named = [background.names.index(reasons_of(background, x, row, groups)[0].feature) for x, row in zip(X, values, strict=True)]
    hit = truth[np.arange(len(X)), named].mean()
    assert hit >= 0.7 and hit >= truth[np.arange(len(X)), values.argmax(axis=1)].mean() - 0.03


def ten_sizes():
    "Ten columns of one size, and a flag that nothing is typical of; the score sees all of them."
    rng = np.random.default_rng(0)
    size = rng.lognormal(4, 0.5, size=(400, 1)) * rng.lognormal(0, 0.05, size=(400, 10))
    benign = pd.DataFrame(size, columns=[f"size {i}" for i in range(10)]).assign(flag=(rng.random(400) < 0.3) * 1.0)
    return benign


def law_one_thing(find):
    "A thing that ten columns measure is named before a usual flag that was paid more than each of them."
    benign = ten_sizes()
    background = Background(lambda X: np.log1p(X).sum(axis=1), benign)
    x = np.append(np.full(10, 1434.0), 0.0)
    first = find(background, x, np.append(np.full(10, 2.0), 3.0), feature_groups(benign))[0]
    assert first.feature.startswith("size") and first.is_outside and first.beyond == 0


def test_law_one_thing(): law_one_thing(reasons_of)


def test_law_one_thing_catches_attributions_alone():
    with pytest.raises(AssertionError): law_one_thing(highest)


def test_a_pair_is_a_combination():
    "Each value usual, both never together."
    rng = np.random.default_rng(0)
    a = rng.normal(size=500)
    benign = pd.DataFrame({"a": a, "b": a + 0.1 * rng.normal(size=500), "c": rng.normal(size=500)})
    background = Background(lambda X: np.abs(X[:, 0] - X[:, 1]), benign)
    first = reasons_of(background, np.array([1.2, -1.2, 0]), np.array([1.2, 1.1, 0.0]), feature_groups(benign, 0.999))[0]
    assert {first.feature, first.partner} == {"a", "b"} and first.n and first.beyond == 0
    text = str(first)
    assert text.startswith("combination: a = 1.2 with b = -1.2")


def test_no_pair_says_many():
    benign = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 3)), columns=list("abc"))
    background = Background(lambda X: X.sum(axis=1), benign)
    assert "many values" in str(reasons_of(background, np.zeros(3), np.ones(3), feature_groups(benign))[0])


def test_one_feature_alone():
    background = Background(lambda X: np.abs(X[:, 0]), np.arange(101.0)[:, None])
    groups = feature_groups(pd.DataFrame(background.records, columns=background.names))
    inside, out = (reasons_of(background, np.array([x]), np.array([1.0]), groups)[0] for x in (50.0, 500.0))
    assert "inside its typical range of 5 to 95" in str(inside) and str(out).startswith("x0 = 500; ")


def law_counts(see):
    "Counts by hand: how many values lie as far out on the same side; a constant that is not kept is far out."
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.lognormal(size=300), np.full(300, 7.0)])
    background = Background(lambda A: A[:, 0], X)
    every = np.ones(300, bool)
    for x in (np.array([1e4, 7.0]), np.array([1e-9, 8.0]), np.array([np.median(X[:, 0]), 7.0])):
        z = background.scaled(x[None])[0]
        found = [see(background, x, z, every, j) for j in (0, 1)]
        side = (X[:, 0] >= x[0]) if x[0] > np.median(X[:, 0]) else (X[:, 0] <= x[0])
        assert found[0].beyond == side.sum() and (found[0].far > 0) == (x[0] in (1e4, 1e-9))
        assert (found[1].far > 0) == (x[1] != 7)


def test_law_counts(): law_counts(outside)


def test_law_counts_catches_a_forgotten_constant():
    def blind(background, *words):
        found = outside(background, *words)
        return found if background.varies[found.feature] else outlying.replace(found, far=0.0)
    with pytest.raises(AssertionError): law_counts(blind)


def test_whatever_is_equally_near_is_alike():
    gaps = np.array([[0.0], [1], [1], [1], [2]])
    assert alike(gaps, np.array([True]), 2).tolist() == [True, True, True, True, False]
    assert alike(gaps, np.array([False]), 2).all()


def test_an_empty_cell_is_missing(background, benign):
    X = benign.to_numpy()[:1] * 50
    values = shapley_values(background, X).values
    full, gone = (all_reasons(background, X, values, np.full(X.shape, empty))[0][0] for empty in (False, True))
    assert f"{gone.feature} is missing" in str(gone) and "missing" not in str(full)


@pytest.mark.parametrize("value, unit, text", [(2_500_000, "us", "2.5 s"), (1472, "bytes", "1.47 kB"), (0, "us", "0 us")])
def test_readable(value, unit, text): assert readable(value, unit) == text
