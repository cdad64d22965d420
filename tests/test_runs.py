"""Laws of nfad.runs and nfad.train: the same settings give the same run, and a run that failed leaves nothing of another."""
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nfad import runs
from nfad.core import write_json
from nfad.data import Dataset
from nfad.detector import FlowDetector
from nfad.drift import compare_batch, drift_warning, judge_windows, make_reference
from nfad.runs import prepare, read_run, run_folder, train_run
from nfad.seen import read_seen, remember
from nfad.splits import split_dataset
from nfad.training import TrainingDiverged

from flows import quick
from nights import strange, traffic


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
    assert stored == {"nfad": "record"} | json.loads(json.dumps(record)) and stored["threshold"] == -d.offset_ and stored["n_calibration"] == len(d.calibration_scores_)
    assert np.array_equal(FlowDetector.load(prepared.folder / "model.safetensors").anomaly_score(prepared.part("test")), d.anomaly_score(prepared.part("test")))


def law_a_run_remembers(seen, prepared):
    "A model was trained on the records of train and reference; it keeps how often they were read, and which of the others came more than once."
    for part in ("train", "reference"): assert seen.was_trained_on(prepared.part(part).to_numpy()).all(), part
    data = prepared.dataset
    for part in ("calibration", "test"):
        assert not seen.was_trained_on(prepared.part(part).to_numpy()).any(), part
        rows = getattr(prepared.split, part)
        often = (data.copies[rows] > 1) & ~data.is_attack[rows]
        assert np.array_equal(seen.places(prepared.part(part).to_numpy())[~data.is_attack[rows]] >= 0, often[~data.is_attack[rows]]), part
    assert seen.total == data.copies[~data.is_attack].sum()
    assert seen.copies[seen.trained].sum() == data.copies[np.concatenate([prepared.split.train, prepared.split.reference])].sum()


def test_law_a_run_remembers(prepared, untrained):
    train_run(prepared, quick(epochs=1, statistic="profile"), SETTINGS)
    seen = read_seen(prepared.folder / "model.safetensors")
    law_a_run_remembers(seen, prepared)
    for broken in (remember(prepared.part("train")), remember(prepared.dataset.records[prepared.features]), seen._replace(total=1), seen._replace(trained=~seen.trained)):
        with pytest.raises(AssertionError): law_a_run_remembers(broken, prepared)


def of_copies(n=1200, n_rows=6000, seed=0):
    "A prepared data set of which a few records come very often: its rows as they were read, and what a run works on."
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(n, 2)).round(6)
    often = rng.zipf(1.6, n_rows - n) % n
    rows = kinds[rng.permutation(np.concatenate([np.arange(n), often]))]
    records, copies = np.unique(rows, axis=0, return_counts=True)
    frame = pd.DataFrame(records, columns=["a", "b"])
    data = Dataset("copies", frame, np.zeros(n, bool), np.full(n, "benign"), None, None, None, copies)
    return rows, runs.Prepared(data, split_dataset(data, "random", seed=seed), ["a", "b"], None)


def law_the_own_file_is_no_drift(seen_by):
    "A file with very many copies raises no warning about drift on itself; a stuck sensor and other traffic do."
    rows, prepared = of_copies()
    training = prepared.part("train").to_numpy()
    score = lambda X: np.linalg.norm(X[:, None] - training, axis=2).min(axis=1)
    known = prepared.part("calibration").to_numpy()
    threshold = float(np.quantile(score(known), 0.99))
    reference = make_reference(score(known), threshold, 0.01, "ab", known, score(known), seen_by(prepared))
    warned = lambda X: drift_warning(judge_windows(compare_batch(reference, score(X), X), reference), 0.01)
    assert reference.records is not None and warned(rows) == ""
    assert warned(np.repeat(known[:1], 6000, axis=0)), "a stuck sensor is hidden"
    assert warned(rows + [0, 0.3]), "other traffic is hidden"


def test_law_the_own_file_is_no_drift(): law_the_own_file_is_no_drift(lambda prepared: runs._seen(prepared, "reference"))


def trained_only(prepared):
    "Fingerprints of the training records alone, as before."
    data, rows = prepared.dataset, np.concatenate([prepared.split.train, prepared.split.reference])
    return remember(prepared.dataset.records.iloc[rows], data.copies[rows], int(data.copies.sum()))


@pytest.mark.parametrize("broken", [trained_only, lambda prepared: None, lambda prepared: remember(prepared.dataset.records, prepared.dataset.copies * 10**6)])
def test_law_the_own_file_is_no_drift_catches(broken):
    with pytest.raises(AssertionError): law_the_own_file_is_no_drift(broken)


def test_validation_records_that_calibrate_are_not_seen(tmp_path, untrained):
    settings = SETTINGS | {"sizes": "paper"}
    small = prepare("demo", SETTINGS["feature_set"], sizes={"train": 300, "reference": 0, "calibration": 200}, out_dir=str(tmp_path), progress=False)
    train_run(small, quick(epochs=1), settings)
    seen = read_seen(small.folder / "model.safetensors")
    assert seen.was_trained_on(small.part("train").to_numpy()).all() and not seen.was_trained_on(small.part("calibration").to_numpy()).any()


@pytest.mark.parametrize("n, word", [(11, "at least 12 different benign records, got 11"), (8, "got 8"), (12, None), (16, None), (37, None), (60, None)])
def test_few_benign_records(tmp_path, untrained, n, word):
    traffic(n).to_csv(tmp_path / "few.csv", index=False)
    settings = dict(dataset=str(tmp_path / "few.csv"), feature_set="all", label_column="none")
    make = lambda: prepare(**settings, out_dir=str(tmp_path), progress=False)
    if word:
        with pytest.raises(ValueError, match=word): make()
        return
    record = train_run(make(), quick(epochs=1), settings)
    m = record["n_calibration"]
    assert record["weak_promise"] == f"{m} calibration records can promise a false-alarm rate of {1 / (m + 1):.2%} at best, not 1.00%: that needs at least 99"
    assert record["few_to_learn"].startswith(f"{record['n_train']} training records show little")


def law_few_sizes(sizes):
    "Every part but the reference has its records, training at least 10, and calibration no fewer than the usual share where there is room."
    for n in range(12, 200):
        parts = sizes(n)
        test = n - sum(parts.values())
        assert parts["train"] >= max(10, int(0.6 * n)) and parts["reference"] == 0 and parts["calibration"] >= 1 and test >= 1, n
        assert parts["calibration"] >= min(0.15 * n, test) - 1, n


def test_law_few_sizes():
    law_few_sizes(runs.few_sizes)
    for broken in (lambda n: {"train": int(0.6 * n), "reference": 0, "calibration": int(0.15 * n)}, lambda n: {"train": max(10, int(0.6 * n)), "reference": 0, "calibration": n // 4}):
        with pytest.raises(AssertionError): law_few_sizes(broken)


def test_few_records_are_split_alike_when_the_run_is_opened(tmp_path, untrained):
    pd.concat([traffic(60).assign(Label="BENIGN"), strange(20).assign(Label="PortScan")]).to_csv(tmp_path / "few.csv", index=False)
    settings = dict(dataset=str(tmp_path / "few.csv"), feature_set="all", sizes="default")
    prepared = prepare(**settings, out_dir=str(tmp_path), progress=False)
    train_run(prepared, quick(epochs=1), settings)
    aside = read_run(prepared.folder, progress=False).set_aside(5)
    assert len(prepared.split.calibration) == 12 and len(aside.split.labelled) == 5
    for part in ("train", "calibration"): assert aside.part(part).equals(prepared.part(part))


def law_weak_promise(weak):
    "Something is said exactly where the expected rate, (k + 1) / (m + 1), passes the wished one by more than a tenth; the number said is that rate."
    for fpr in (0.5, 1 / 3, 0.29, 0.1, 0.05, 0.01, 0.005, 0.001, 1e-4):
        for m in {*range(1, 40), 100, 400, 999, 1000, *(max(round(1 / fpr) + k, 1) for k in (-3, -2, -1, 0, 1))}:
            k = max(j for j in range(m + 1) if j / m <= fpr)
            said = weak(m, fpr)
            assert bool(said) == ((k + 1) / (m + 1) > 1.1 * fpr), (m, fpr)
            if said: assert f"{(k + 1) / (m + 1):.2%}" in said


def test_law_weak_promise():
    law_weak_promise(runs.weak_promise)
    for broken in (lambda m, fpr: m < 1 / fpr, lambda m, fpr: "" if m >= 99 else runs.weak_promise(m, fpr), lambda m, fpr: runs.weak_promise(m, fpr).replace("with", "") and "few"):
        with pytest.raises(AssertionError): law_weak_promise(broken)


def test_a_failed_run_leaves_no_model_of_another(prepared, monkeypatch, untrained):
    train_run(prepared, quick(seed=1), SETTINGS)
    def broken(*args, **kwargs): raise OSError("no space left on device")
    monkeypatch.setattr("pathlib.Path.write_bytes", broken)
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


# --- a run opened again -------------------------------------------------------------------------------------

def test_a_run_is_found_where_it_was_made(prepared):
    assert run_folder(SETTINGS["dataset"], SETTINGS["feature_set"], prepared.folder.parent.parent) == prepared.folder


def test_a_run_of_a_users_file_can_be_opened_from_any_folder(tmp_path, untrained, monkeypatch):
    (tmp_path / "mon").mkdir()
    monkeypatch.chdir(tmp_path)
    traffic(400).to_csv("mon/flows.csv", index=False)
    settings = dict(dataset="mon/flows.csv", feature_set="all", label_column="none")
    prepared = prepare(**settings, out_dir="out", progress=False)
    assert prepared.folder.relative_to(tmp_path).parts[:1] == ("out",) and prepared.folder.parent.name.startswith("mon-flows-csv-")
    train_run(prepared, quick(epochs=1), settings)
    monkeypatch.chdir(tmp_path / "mon")
    assert run_folder("flows.csv", "all", "../out").resolve() == prepared.folder
    opened = read_run(prepared.folder, progress=False).prepared
    assert opened.part("test").equals(prepared.part("test")) and settings["dataset"] == "mon/flows.csv"


def law_opened_as_trained(opened, prepared, detector):
    "Records, split and scores of an opened run are those of the training."
    assert opened.prepared.features == prepared.features and opened.prepared.folder == prepared.folder
    for part in ("train", "reference", "calibration", "test"):
        assert opened.prepared.part(part).equals(prepared.part(part)), part
    assert np.array_equal(opened.detector.anomaly_score(prepared.part("test")), detector.anomaly_score(prepared.part("test")))


def test_law_opened_as_trained(prepared, untrained):
    d = quick(epochs=1)
    train_run(prepared, d, SETTINGS)
    opened = read_run(prepared.folder, progress=False)
    law_opened_as_trained(opened, prepared, d)
    with pytest.raises(AssertionError): law_opened_as_trained(opened._replace(prepared=prepare("demo", seed=4)), prepared, d)
    aside = opened.set_aside(7)
    assert len(aside.split.labelled) == 7 and not set(aside.split.labelled) & set(aside.split.test)
    for part in ("train", "reference", "calibration"): assert aside.part(part).equals(prepared.part(part))


def test_a_run_that_is_missing_or_did_not_finish(tmp_path):
    "The error names the command that makes it."
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=re.escape("papermill me")): read_run(tmp_path, "papermill me")
        write_json(tmp_path / "train.json", {"fingerprint": "x"})  # the record alone is a run that did not finish
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(ValueError, match="train.json"): read_run(tmp_path, "papermill me")


def test_a_record_that_is_none_of_a_run_is_named(tmp_path):
    (tmp_path / "model.safetensors").touch()
    write_json(tmp_path / "train.json", {"settings": {}})
    with pytest.raises(ValueError, match="lacks .'fingerprint'"): read_run(tmp_path)


def test_a_run_of_other_records_is_refused(prepared, untrained, monkeypatch):
    train_run(prepared, quick(epochs=1), SETTINGS)
    read = lambda: read_run(prepared.folder, progress=False)
    assert read().record["fingerprint"]
    for change in (lambda X: X[::-1], lambda X: X + 1e-3, lambda X: X.rename(columns=str.upper)):
        frame = change(prepared.dataset.records)
        with monkeypatch.context() as patched:
            patched.setattr(runs, "prepare", lambda **_: prepared._replace(dataset=replace(prepared.dataset, records=frame)))
            with pytest.raises(ValueError, match="fingerprint.*train again"): read()


@pytest.mark.parametrize("settings", [None, [], {"dataset": 3}, {"dataset": "demo", "header": [["a"]]}, {"dataset": "demo", "seed": -1}, {"dataset": "demo", "sizes": {"train": "all"}}])
def test_settings_that_make_no_sense_are_refused(tmp_path, settings):
    "A record is a file that a person can change."
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "train.json").write_text(json.dumps({"settings": settings, "fingerprint": "0"}))
    with pytest.raises(ValueError, match="make no sense"): read_run(tmp_path)
