"""Laws of nfad.together: pieces, files, pipes and clusters give one answer; windows keep their promise; what is refused."""
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from nfad.alerts import explain_alerts, find_alerts
from nfad.cli import main
from nfad.detector import FlowDetector
from nfad.files import read_scored, score_files, score_frame
from nfad.serving import load_model
from nfad.streams import Scorer, score_lines
from nfad.together import FEW, WINDOW_RESULT, WindowQueue, in_windows, load_windowed, windows_said, with_windows
from nfad.windows import place_of

NAMES = list("abcd")


def draw(n, seed): return pd.DataFrame(np.random.default_rng(seed).normal(size=(n, 4)), columns=NAMES)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A model, benign records, a night with copies of an ordinary record and a broken row."
    folder = tmp_path_factory.mktemp("together")
    benign = draw(2400, 1)
    detector = FlowDetector(hidden=4, epochs=2, transform="standard", n_points=100, progress=False).fit(draw(400, 0)).calibrate(benign)
    night = draw(430, 2)
    night.iloc[110:130] = 0.02 * night.iloc[110:130]
    night.loc[7, "b"] = np.nan
    benign.to_parquet(folder / "calibration.parquet")
    night.to_csv(folder / "night.csv", index=False)
    detector.save(folder / "model.safetensors")
    return folder, load_windowed(folder / "model.safetensors", None, folder / "calibration.parquet", 60), night


def answers(model, X, size, queue=WindowQueue):
    "(n, 7) numbers of a stream in batches."
    pieces = np.split(np.arange(len(X)), range(size, len(X), size))
    said = [found for _, found in in_windows(model, queue(model.together), ((rows, X[rows], None) for rows in pieces))]
    names = ("anomaly_score", "p_value", *WINDOW_RESULT)
    return np.concatenate([np.column_stack([found[name] for name in names]) for found in said])


def law_pieces(place, queue):
    "Windows do not depend on how a stream is cut: long, short, shorter than a window, ending anywhere."
    _, model, night = place
    X = night.to_numpy()
    for n in (430, 121, 61, 60, 31):
        whole = answers(model, X[:n], n, queue)
        assert len(whole) == n and np.isfinite(whole[np.arange(n) != 7]).all()
        for size in (1, 37, 60): assert np.array_equal(answers(model, X[:n], size, queue), whole, equal_nan=True)


def test_law_pieces(place): law_pieces(place, WindowQueue)


def test_law_pieces_catches_windows_of_batches(place):
    class Hasty(WindowQueue):
        def put(self, found, rows):
            first = super().put(found, rows)
            return np.concatenate([first, self.finish()])
    with pytest.raises(AssertionError): law_pieces(place, Hasty)


def test_a_file_a_folder_a_pipe_and_a_cluster_agree(place):
    folder, model, night = place
    (folder / "in").mkdir()
    for name in ("one", "two"): night.to_csv(folder / "in" / f"{name}.csv", index=False)
    report = score_files(model, folder / "night.csv", folder / "scores.parquet", progress=False)
    assert report.together["night.csv"]["windows"] == 8 and not report.files["error"].any()
    scores = pd.read_parquet(folder / "scores.parquet")
    np.testing.assert_array_equal(scores["p_value"].to_numpy(float), answers(model, night.to_numpy(), 500)[:, 1])
    assert scores["is_anomaly"][110:130].mean() > 0.9 and scores["record_p_value"][110:130].min() > 0.05
    said = list(score_lines(Scorer(model), (json.dumps(row) for row in night.to_dict("records"))))
    told = np.array([one["nfad"]["p_value"] for one in said], float)
    np.testing.assert_allclose(told, scores["p_value"].to_numpy(float))
    assert [one["nfad"]["line"] for one in said] == list(range(1, 431)) and said[7]["nfad"]["reason"]
    for scheduler in (None, "local"):
        target = folder / f"out-{scheduler}"
        score_files(model, folder / "in", target, scheduler=scheduler, n_workers=1, progress=False)
        for path in target.iterdir(): pd.testing.assert_frame_equal(pd.read_parquet(path), scores)


def test_scores_of_other_windows_are_made_anew(place, tmp_path):
    folder, model, _ = place
    alone, longer = (load_windowed(folder / "model.safetensors", None, folder / "calibration.parquet", n) for n in (0, 90))
    for model, status in ((model, "scored"), (model, "was done"), (alone, "scored"), (alone, "was done"), (longer, "scored")):
        report = score_files(model, folder / "night.csv", tmp_path / "s.parquet", progress=False)
        assert report.files["status"].tolist() == [status]
    task = read_scored(tmp_path / "s.parquet")["task"]
    assert task["together"] == 90 and task["threshold"] == longer.together.threshold


def law_promise(model):
    "Of benign records in benign windows as many are flagged as promised, and of whole windows at most."
    found = answers(model, draw(6000, 9).to_numpy(), 6000)
    flagged, windows = np.mean(found[:, 1] <= 0.05), found[::60, -1] <= 0.1
    assert abs(flagged - 0.05) < 0.03 and windows.sum() <= binom.ppf(0.999, 100, 0.1), (flagged, windows.mean())


def test_law_promise(place): law_promise(place[1])


def test_law_promise_catches_a_calibration_that_is_too_calm(place):
    _, model, _ = place
    together = model.together
    calmer = type(together)(60, together.history, together.calm, together.known)
    calmer.usual.calibration_scores = 0.5 * calmer.usual.calibration_scores
    with pytest.raises(AssertionError): law_promise(model._replace(together=calmer))


def test_alerts_of_windows_are_explained(place):
    folder, model, _ = place
    score_files(model, folder / "night.csv", folder / "s.parquet", progress=False)
    plain = load_model(folder / "model.safetensors")
    alerts = explain_alerts(plain, find_alerts(folder / "s.parquet", 0.1, 20), folder / "night.csv")
    assert set(alerts.table["row"]) & set(range(110, 130)) and "repetition" in alerts.table


def test_what_windows_refuse(place, tmp_path):
    folder, model, night = place
    benign = pd.read_parquet(folder / "calibration.parquet")
    plain = load_model(folder / "model.safetensors")
    with pytest.raises(ValueError, match="at most 900, half of 1,800"): with_windows(plain, 901, benign)
    with pytest.raises(ValueError, match="together must be"): with_windows(plain, 19, benign)
    with pytest.raises(FileNotFoundError, match="calibration.parquet"): load_windowed(folder / "model.safetensors", None, None, 60)
    with pytest.raises(ValueError, match="need rows in order"): score_frame(model, night)
    with pytest.raises(ValueError, match="default statistic"):
        with_windows(load_model(FlowDetector(hidden=4, epochs=1, statistic="log_prob", progress=False).fit(benign).calibrate(benign)), 60, benign)
    few = answers(model, night.to_numpy()[:3], 3)
    assert np.isnan(few[:, 0]).all()
    said, = (found for _, found in in_windows(model, WindowQueue(model.together), [(0, night.to_numpy()[:3], None)]))
    assert said["reason"].tolist() == [FEW] * 3 and said["is_anomaly"].tolist() == [None] * 3


def test_the_command_line_tells_of_windows(place, tmp_path, capsys):
    folder, _, _ = place
    words = ["score", str(folder / "model.safetensors"), str(folder / "night.csv"), str(tmp_path / "s.parquet"), "--together"]
    assert main([*words, "60"]) == 0 and "8 windows of 60 records" in capsys.readouterr().out
    assert main([*words, "5000"]) == 1 and "together must be at most 900" in capsys.readouterr().err
    said = {"a": {"n": 60, "windows": 3, "suspected": 1, "needed": 0, "calibration": 1800,
                  "strangest": [{"first_row": 60, "last_row": 1190, "p_value": 0.04}]}}
    assert windows_said(said)[1] == "  a: rows 60 to 1,190, p = 0.04" and windows_said({}) == []
    assert "takes 1,200 benign" in windows_said({"a": said["a"] | {"needed": 1200}})[0]


def test_places_are_those_of_a_table(place):
    _, model, night = place
    X = night.drop(7)
    np.testing.assert_array_equal(place_of(model.detector, X.to_numpy()).place, place_of(model.detector, X).place)
