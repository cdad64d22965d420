"""Laws of 06b_dirty and 11f_suspects: the named accuse their like and hardly anybody else, and what is condemned is gone."""
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nfad.detector import FlowDetector
from nfad.dirty import LEVEL, accusations, strangeness, suspects, without_condemned
from nfad.learning import trained_records
from nfad.seen import remember


@pytest.fixture(scope="module")
def crowd():
    "Benign training records with 12 intruders at their end, named attacks of the same kind, benign records."
    rng = np.random.default_rng(0)
    benign = rng.standard_normal((1000, 4))
    kind = np.array([3.5, -3.5, 0.0, 0.0])
    intruders, named = (kind + 0.3 * rng.standard_normal((n, 4)) for n in (12, 8))
    return np.concatenate([benign, intruders]), named, rng.standard_normal((400, 4))


def law_accusations_find_their_like(accuse, crowd) -> None:
    "Most intruders are accused, and few benign records."
    train, named, calm = crowd
    told = accuse(train, named, calm)
    assert (told[-12:] > LEVEL).mean() >= 0.75 and (told[:-12] > LEVEL).mean() < 0.08


def test_law_accusations_find_their_like(crowd): law_accusations_find_their_like(accusations, crowd)


def test_the_law_finds_broken_twins(crowd):
    "Accusing the wrong ones, everybody, or nobody."
    everybody, nobody = (lambda train, *others, told=told: np.full(len(train), told) for told in (9.0, 0.0))
    for twin in (everybody, nobody):
        with pytest.raises(AssertionError): law_accusations_find_their_like(twin, crowd)
    with pytest.raises(AssertionError): law_accusations_find_their_like(lambda *parts: accusations(*parts)[::-1], crowd)
    with pytest.raises(ValueError, match="at least one named attack"): accusations(crowd[0], crowd[1][:0], crowd[2])


@pytest.fixture(scope="module")
def dirty(crowd):
    train, named, calm = (pd.DataFrame(part, columns=list("abcd")) for part in crowd)
    return FlowDetector(hidden=4, epochs=2, n_points=200).fit(train).calibrate(calm), train, named, calm


def test_the_condemned_are_no_points_any_more_and_the_old_detector_stays(dirty):
    detector, train, named, calm = dirty
    before = detector.anomaly_score(named)
    cleaned, told = without_condemned(detector, train, named, calm)
    assert np.array_equal(detector.anomaly_score(named), before) and detector.caution == 1 and cleaned.caution == 3
    points = cleaned.statistic_.models_["record"].points
    condemned = detector.transform_.transform(train[told > LEVEL])
    assert not any((points == row).all(axis=1).any() for row in condemned)
    assert (cleaned.predict(named) == -1).mean() > (detector.predict(named) == -1).mean()


def test_few_of_a_kind_are_strange_to_the_others(dirty):
    detector, train, _, calm = dirty
    few = pd.concat([train[:-11], calm[:50]], ignore_index=True)  # one intruder is left, at row 1000
    strange = strangeness(detector, few, calm)
    assert (strange >= strange[1000]).mean() < 0.01
    place = detector.transform_.transform(few)
    listed = suspects(place, strange, n=20)
    assert 1000 in listed and len(set(listed)) == 20
    told = np.zeros(len(few)); told[[5, 6]] = 1e3
    assert {5, 6} & set(suspects(place, strange, told, n=1))


def test_only_records_that_were_trained_on_are_looked_at(dirty):
    _, train, named, calm = dirty
    everything = pd.concat([calm, train, named], ignore_index=True)
    model = SimpleNamespace(seen=remember(train))
    assert trained_records(model, everything).equals(train)
    with pytest.raises(ValueError, match="at least 200 records that the model was trained on, got 0 of 400"): trained_records(model, calm)
    with pytest.raises(ValueError, match="no fingerprints"): trained_records(SimpleNamespace(seen=None), train)
