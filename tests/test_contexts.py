"""Laws of nfad.contexts: a file, its batches and a stream are judged alike; what a model with a view refuses."""
import json

import numpy as np
import pandas as pd
import pytest

from nfad.cli import main
from nfad.context import HostMemory
from nfad.contexts import NO_CONTEXT, VIEW_RESULT, Hosts, fit_view, with_contexts
from nfad.detector import FlowDetector
from nfad.files import recalibrate, score_files
from nfad.runs import prepare, train_run
from nfad.serving import frame_numbers, load_model
from nfad.streams import Scorer, score_lines
from nfad.tables import open_table
from nfad.views import write_view


def connections(n, seed, scan=0):
    rng = np.random.default_rng(seed)
    is_scan = np.arange(n + scan) >= n
    source, target = np.where(is_scan, 7, rng.integers(1, 9, n + scan)), np.where(is_scan, np.arange(n + scan), rng.integers(200, 205, n + scan))
    size = rng.lognormal(6, 1, n + scan)
    return pd.DataFrame({
        "Timestamp": 1.6e9 + np.cumsum(np.where(is_scan, 1, rng.exponential(4, n + scan))),
        "Source IP": [f"10.0.0.{i}" for i in source], "Destination IP": [f"10.1.{i // 250}.{i % 250}" for i in target],
        "Destination Port": 443, "Protocol": 6, "Flow Duration": 1e3 * rng.lognormal(3, 1, n + scan),
        "Total Fwd Packets": 1 + rng.poisson(5, n + scan), "Total Backward Packets": 1 + rng.poisson(5, n + scan),
        "Total Length of Fwd Packets": size, "Total Length of Bwd Packets": 3 * size + rng.exponential(50, n + scan)})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A model with a view, a night with a scan, and its scores."
    folder = tmp_path_factory.mktemp("contexts")
    connections(2500, 0).to_csv(folder / "usual.csv", index=False)
    connections(400, 1, scan=60).to_csv(folder / "night.csv", index=False)
    settings = {"dataset": str(folder / "usual.csv"), "label_column": "none"}
    prepared = prepare(**settings, out_dir=folder, progress=False)
    detector = FlowDetector(hidden=8, epochs=2, progress=False)
    train_run(prepared, detector, settings)
    write_view(prepared.folder / "model.safetensors", fit_view(prepared, detector, settings["dataset"]).view)
    (prepared.folder / "model.safetensors").rename(folder / "model.safetensors")
    model = load_model(folder / "model.safetensors")
    report = score_files(model, folder / "night.csv", folder / "scores.parquet", progress=False)
    assert not report.files["error"].any()
    return folder, model, pd.read_parquet(folder / "scores.parquet")


def law_batches(contexts, folder):
    "However many rows are read at a time."
    table = lambda: open_table(folder / "night.csv")
    whole = np.concatenate(list(contexts(table(), 10_000)))
    for rows in (1, 33): assert np.array_equal(np.concatenate(list(contexts(table(), rows))), whole)


def test_law_batches(place):
    hosts = lambda: Hosts(HostMemory())
    law_batches(lambda table, rows: (context for _, context in with_contexts(table, ["Flow Duration"], hosts(), rows=rows)), place[0])


def test_law_batches_catches_a_memory_for_each_batch(place):
    def forgetful(table, rows):
        hosts = Hosts(HostMemory())
        for _, context in with_contexts(table, ["Flow Duration"], hosts, rows=rows):
            hosts.memory = HostMemory()
            yield context
    with pytest.raises(AssertionError): law_batches(forgetful, place[0])


def test_both_verdicts_are_in_the_scores_and_the_scan_is_found(place):
    folder, model, scores = place
    assert set(VIEW_RESULT) < set(scores) and scores["reason"].isna().all()
    X, _ = frame_numbers(pd.read_csv(folder / "night.csv"), model.recipe)
    assert np.allclose(scores["record_score"], model.detector.anomaly_score(X), rtol=1e-6)
    is_scan = np.arange(len(scores)) >= 400
    flagged = scores["is_anomaly"].astype(bool)
    assert flagged[is_scan].mean() > 0.7 > 0.2 > (scores["record_p_value"][is_scan] <= 0.01).mean() and flagged[~is_scan].mean() < 0.1


def test_a_stream_says_what_a_file_says(place):
    folder, model, scores = place
    for kind in ("csv", "json"):
        night = pd.read_csv(folder / "night.csv", dtype=str)
        lines = (folder / "night.csv").read_bytes().splitlines() if kind == "csv" else [json.dumps(row).encode() for row in night.to_dict("records")]
        said = [found["nfad"] for found in score_lines(Scorer(model), lines)]
        for name in ("anomaly_score", *VIEW_RESULT):
            assert np.allclose([answer[name] for answer in said], scores[name], rtol=1e-5), (kind, name)
    assert (pd.Series([answer["is_anomaly"] for answer in said]) == scores["is_anomaly"]).mean() > 0.99


def test_rows_without_a_time_or_an_address_say_so(place):
    folder, model, _ = place
    night = connections(50, 5)
    night.loc[3, "Source IP"] = None
    night.loc[4, "Timestamp"] = None
    night.to_csv(folder / "holes.csv", index=False)
    score_files(model, folder / "holes.csv", folder / "holes.parquet", progress=False)
    scores = pd.read_parquet(folder / "holes.parquet")
    assert np.flatnonzero(scores["reason"] == NO_CONTEXT).tolist() == [3, 4] and scores["anomaly_score"].isna().sum() == 2
    bare = [json.dumps({name: 1.0 for name in model.features}).encode()]
    assert next(score_lines(Scorer(model), bare))["nfad"]["reason"] == NO_CONTEXT


def test_another_rate_moves_the_threshold_of_the_view(place):
    folder, model, _ = place
    loose = load_model(folder / "model.safetensors", fpr=0.2)
    assert loose.view.threshold_ < model.view.threshold_ and (loose.view.calibration_scores_ > loose.view.threshold_).mean() == pytest.approx(0.2, abs=0.01)


def law_renewed(renew, folder):
    "A network that asks twice as often is flagged no more than promised, once some of its hours were calibrated on."
    day = connections(2400, 5)
    day["Timestamp"] = 1.6e9 + (day["Timestamp"] - 1.6e9) / 2
    day[:1200].to_csv(folder / "first.csv", index=False)
    day.to_csv(folder / "both.csv", index=False)
    said = renew(folder / "model.safetensors", folder / "first.csv", folder / "renewed.safetensors")
    model = load_model(folder / "renewed.safetensors")
    assert model.view.threshold_ == said["threshold"] and said["n_calibration"] == len(model.view.calibration_scores_)
    score_files(model, folder / "both.csv", folder / "both.parquet", progress=False)
    assert pd.read_parquet(folder / "both.parquet")["is_anomaly"][1200:].mean() <= 0.03 < said["alarm_rate_before"]


def test_law_renewed(place): law_renewed(recalibrate, place[0])


def test_law_renewed_catches_records_alone(place):
    def alone(model, source, target):
        loaded = load_model(model)
        said = recalibrate(loaded.detector, source, target)
        write_view(target, loaded.view)
        return said
    with pytest.raises(AssertionError): law_renewed(alone, place[0])


def test_what_a_view_refuses(place):
    folder, _, _ = place
    connections(50, 2).drop(columns="Timestamp").to_csv(folder / "timeless.csv", index=False)
    report = score_files(load_model(folder / "model.safetensors"), folder / "timeless.csv", folder / "t.parquet", progress=False)
    assert "time and both addresses" in report.files["error"][0]


def test_the_command_learns_context(place, capsys):
    folder, _, _ = place
    assert main(["train", str(folder / "usual.csv"), "--label-column", "none", "--context", "--epochs", "1", "--out-dir", str(folder / "runs"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["n_context"] > 500 and said["n_context_calibration"] > 50 and load_model(said["model"]).view is not None
    assert main(["train", str(folder / "timeless.csv"), "--label-column", "none", "--context", "--epochs", "1", "--out-dir", str(folder / "runs")]) == 1
    assert "time and both addresses" in capsys.readouterr().err
