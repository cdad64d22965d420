"""Laws of nfad.train: a run is opened where it was made, and made only for the embedded demo."""
import numpy as np
import pytest

from nfad import train
from nfad.runs import prepare, train_run
from nfad.train import open_run

from flows import quick

FEATURES = ["Flow Duration", "Total Fwd Packets"]


def law_opened_where_made(open_run, out_dir, monkeypatch):
    "The demo is trained once, where it is missing; afterwards the same run is read."
    trained = []
    def few(prepared, detector, settings):
        trained.append(settings["seed"])
        return train_run(prepared, quick(seed=settings["seed"]), settings)
    monkeypatch.setattr(train, "train_run", few)
    first, again = (open_run("demo", FEATURES, out_dir, seed) for seed in (5, 6))
    assert trained == [5] and again.record == first.record and again.prepared.folder == first.prepared.folder
    X = first.prepared.part("test")
    assert np.array_equal(again.detector.anomaly_score(X), first.detector.anomaly_score(X))


def test_law_opened_where_made(tmp_path, monkeypatch, untrained): law_opened_where_made(open_run, str(tmp_path), monkeypatch)


def test_law_opened_where_made_catches_training_anew(tmp_path, monkeypatch, untrained):
    def anew(dataset, feature_set, out_dir, seed):
        settings = dict(dataset=dataset, feature_set=feature_set, seed=seed)
        train.train_run(prepare(**settings, out_dir=out_dir), None, settings)
        return open_run(dataset, feature_set, out_dir, seed)
    with pytest.raises(AssertionError): law_opened_where_made(anew, str(tmp_path), monkeypatch)


@pytest.mark.parametrize("feature_set, command", [("default", "-p dataset tor2016$"), ("timing", "-p dataset tor2016 -p feature_set 'timing'$")])
def test_a_missing_run_names_its_command(tmp_path, feature_set, command):
    with pytest.raises(FileNotFoundError, match=command): open_run("tor2016", feature_set, str(tmp_path))
