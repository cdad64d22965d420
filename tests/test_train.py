"""Laws of nfad.train: the same settings give the same run, and a run that failed leaves nothing of another."""
import json

import numpy as np
import pytest

from nfad.detector import FlowDetector
from nfad.train import prepare, train_run
from nfad.training import TrainingDiverged

from flows import quick


SETTINGS = dict(dataset="demo", feature_set=["Flow Duration", "Total Fwd Packets", "Flow IAT Max"], split="random", sizes=None, seed=3)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory): return prepare(**SETTINGS, out_dir=str(tmp_path_factory.mktemp("runs")), progress=False)


def law_same_run(prepare, first):
    "The same settings give the same records, split, features and folder name."
    again = prepare(**json.loads(json.dumps(SETTINGS)), out_dir=str(first.folder.parent.parent), progress=False)
    assert again.features == first.features and again.folder == first.folder
    for part in ("train", "reference", "calibration", "test", "labelled"):
        assert np.array_equal(getattr(again.split, part), getattr(first.split, part)), part
    assert again.dataset.records.equals(first.dataset.records)


def test_law_same_run(prepared): law_same_run(prepare, prepared)


def test_law_same_run_catches_another_seed(prepared):
    with pytest.raises(AssertionError): law_same_run(lambda **kw: prepare(**kw | {"seed": 4}), prepared)


def test_prepared_parts_hold_the_features(prepared):
    assert prepared.features == SETTINGS["feature_set"] and prepared.folder.parent.name == "demo"
    assert list(prepared.part("train")) == prepared.features and len(prepared.part("train")) == len(prepared.split.train)
    assert not prepared.folder.exists()  # made when the first file is written
    with pytest.raises(ValueError, match="split|method"): prepare("demo", split="by moon")
    with pytest.raises((KeyError, ValueError), match="Flow Duratoin"): prepare("demo", ["Flow Duratoin"])


def test_a_run_leaves_a_record_and_a_model(prepared, untrained):
    d = quick(epochs=2)
    record = train_run(prepared, d, SETTINGS)
    stored = json.loads((prepared.folder / "train.json").read_text())
    assert sorted(p.name for p in prepared.folder.iterdir()) == ["calibration.parquet", "model.safetensors", "train.json"]
    assert stored["settings"] == SETTINGS and stored["features"] == prepared.features and stored["parameters"] == json.loads(json.dumps(d.get_params()))
    assert stored == json.loads(json.dumps(record)) and stored["threshold"] == -d.offset_ and stored["n_calibration"] == len(d.calibration_scores_)
    assert np.array_equal(FlowDetector.load(prepared.folder / "model.safetensors").anomaly_score(prepared.part("test")), d.anomaly_score(prepared.part("test")))


def test_a_failed_run_leaves_no_model_of_another(prepared, monkeypatch, untrained):
    train_run(prepared, quick(seed=1), SETTINGS)
    def broken(*args, **kwargs): raise OSError("no space left on device")
    monkeypatch.setattr("nfad.detector.save_file", broken)
    before = (prepared.folder / "train.json").read_text()
    with pytest.raises(OSError): train_run(prepared, quick(seed=2), SETTINGS)
    model, record = prepared.folder / "model.safetensors", prepared.folder / "train.json"
    assert not model.is_file() or record.read_text() == before  # never the new record beside the old model
    assert not list(prepared.folder.glob(".*"))


def test_divergence_leaves_the_earlier_run_alone(prepared, untrained, monkeypatch):
    train_run(prepared, quick(epochs=1), SETTINGS)
    before = {path.name: path.read_bytes() for path in prepared.folder.iterdir()}
    def diverge(*args, **settings): raise TrainingDiverged("the loss became nan")
    monkeypatch.setattr("nfad.detector.train_flow", diverge)
    with pytest.raises(TrainingDiverged): train_run(prepared, quick(seed=4), SETTINGS)
    assert {path.name: path.read_bytes() for path in prepared.folder.iterdir()} == before
