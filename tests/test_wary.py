"""Laws of 02c_wary: the middle answer of several crowds, whatever a minority of them says; and detectors that ask them."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from nfad.core import read_header, read_model, write_model
from nfad.detector import FlowDetector
from nfad.statistics import PARTS
from nfad.wary import WaryPart, wary_parts

RECORD = PARTS[0]


def crowds_of(part: WaryPart, n: int) -> np.ndarray:
    "Which crowd each of n training rows is dealt to: learned from where a lone point is found."
    A = np.arange(n, dtype=float)[:, None]
    several, _ = part.fit(A, A[:6] + 0.25, 3 * n)
    return np.array([next(i for i, near in enumerate(several.models) if (near.points == row).any()) for row in A])


def law_a_minority_does_not_deceive(part: WaryPart, seed: int, n_liars: int) -> None:
    "Liars that are dealt to a minority of the crowds leave the distance of their kind what honest crowds say."
    rng = np.random.default_rng(seed)
    A, held_out = rng.standard_normal((90, 2)), rng.standard_normal((30, 2))
    dealt = crowds_of(part, 90)
    rows = np.flatnonzero(dealt == 1)[:n_liars]
    A[rows] = [40.0, 40.0]
    several, _ = part.fit(A, held_out, 300)
    assert part.distance(several, np.array([[40.0, 40.0]]))[0] > 30


class Nearest(WaryPart):
    "The broken twin: any crowd that knows a record is believed."
    def distance(self, several, rows):
        return np.min([self.part.distance(model, rows) for model in several.models], axis=0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20))
def test_law_a_minority_does_not_deceive(seed, n_liars): law_a_minority_does_not_deceive(WaryPart(RECORD, 3), seed, n_liars)


def test_the_law_finds_a_broken_twin():
    with pytest.raises(AssertionError): law_a_minority_does_not_deceive(Nearest(RECORD, 3), 0, 3)


@pytest.mark.parametrize("caution", [2, 3, 4, 5])
def test_every_training_record_is_in_one_crowd_and_crowds_are_alike_in_size(caution):
    counts = np.bincount(crowds_of(WaryPart(RECORD, caution), 60), minlength=caution)
    assert counts.sum() == 60 and counts.max() - counts.min() <= 1


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_states_of_all_parts_come_back(part):
    rng = np.random.default_rng(1)
    A, held_out, X = (rng.standard_normal((n, 4)).astype(np.float32) for n in (120, 40, 50))
    wary = WaryPart(part, 3)
    several, own = wary.fit(A, held_out, 60)
    again = wary.restore(wary.state(several))
    assert np.array_equal(wary.distance(again, X), wary.distance(several, X))
    assert own.shape == (40,) and several.width == again.width == 4
    with pytest.raises(KeyError): WaryPart(part, 4).restore(wary.state(several))


@pytest.fixture(scope="module")
def wary_detector():
    X = pd.DataFrame(np.random.default_rng(2).standard_normal((300, 3)), columns=list("abc"))
    return FlowDetector(hidden=4, epochs=1, n_points=60, caution=3).fit(X), X


def test_a_wary_detector_travels_in_one_file(wary_detector, tmp_path):
    detector, X = wary_detector
    path = detector.save(tmp_path / "m.safetensors")
    again = FlowDetector.load(path)
    assert again.caution == 3 and np.array_equal(again.anomaly_score(X), detector.anomaly_score(X))
    arrays, header = read_model(path, read_header(path)["format"])
    for caution in (1, 2, 4):
        changed = header | {"parameters": header["parameters"] | {"caution": caution}}
        with pytest.raises(ValueError, match="m.safetensors"):
            FlowDetector.load(write_model(path, arrays, changed, header["format"]))


@pytest.mark.parametrize(("settings_", "n", "words"), [
    ({"caution": 3}, 23, "at least 24 benign records"), ({"caution": 0}, 300, "caution"), ({"caution": 200}, 300, "caution"),
    ({"caution": 3, "statistic": "log_prob"}, 300, "caution must be 1")])
def test_settings_that_make_no_crowds_are_refused(settings_, n, words):
    X = np.random.default_rng(3).standard_normal((n, 2))
    with pytest.raises(ValueError, match=words): FlowDetector(hidden=4, epochs=1, **settings_).fit(X, validation=X[:20])


def test_a_wary_detector_does_not_become_onnx(wary_detector):
    pytest.importorskip("onnx")
    from nfad.export_flow import flow_to_onnx
    with pytest.raises(ValueError, match="caution 1"): flow_to_onnx(wary_detector[0])


def test_one_crowd_is_the_parts_as_they_are(): assert wary_parts(PARTS, 1) == PARTS
