"""Laws of scoring from files, on clusters and online: same rows, same bits, nothing lost, nothing believed.

One small detector serves all laws. Each law is shown to fail on a broken twin.
"""
import html
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfad import deploy
from nfad.tables import RESULT, open_table, plan_columns
from nfad.drift import LoadedModel, compare_batch, judge_windows, load_model, model_bytes, restore_model
from nfad.files import (capacity_plan, find_reasons, plan_jobs, read_scored, recalibrate, score_files, score_frame,
                        score_partition, write_many)
from nfad.streams import Scorer, from_suricata, from_zeek, in_bursts, parse_line, read_lines, score_lines
from nfad.grid import Cell, plan_grid, run_grid
from nfad.alerts import (alert_records, alerts_html, explain_alerts, find_alerts, p_value_limit, surprising_features,
                         write_alerts)
from nfad.promises import flag_batch
from nfad.detector import FlowDetector
from notebooks import ROOT

NAMES = ["Flow Duration", "Total Fwd Packets", "Flow IAT Mean", "Idle Max"]
fuzz = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


def traffic(n: int, seed: int = 0) -> pd.DataFrame:
    "Simulated benign records with heavy tails."
    rng = np.random.default_rng(seed)
    base = rng.lognormal(3, 1, n)
    return pd.DataFrame({"Flow Duration": base * 1e3, "Total Fwd Packets": rng.poisson(base) + 1.0, "Flow IAT Mean": base * rng.lognormal(0, 0.3, n), "Idle Max": rng.exponential(5, n)})


def strange(n: int, seed: int = 1) -> pd.DataFrame: return traffic(n, seed) * [1, 300, 1, 40]


@pytest.fixture(scope="module")
def detector() -> FlowDetector: return FlowDetector(hidden=8, epochs=3, n_layers=1).fit(traffic(1000)).calibrate(traffic(800, 2))


@pytest.fixture(scope="module")
def model(detector) -> LoadedModel: return load_model(detector, reference=traffic(800, 3))


@pytest.fixture(scope="module")
def model_path(detector, tmp_path_factory) -> Path: return detector.save(tmp_path_factory.mktemp("model") / "model.safetensors")


def records(n: int = 300, seed: int = 5) -> pd.DataFrame:
    "Benign and strange records with identifiers, some of which cannot be scored."
    frame = pd.concat([traffic(n - n // 10, seed), strange(n // 10, seed + 1)]).sample(frac=1, random_state=seed).reset_index(drop=True)
    frame.loc[[3, 40], "Idle Max"], frame.loc[7, "Flow Duration"] = np.nan, np.inf
    return frame.assign(**{"Flow ID": [f"id-{i:04d}" for i in range(n)], "Destination Port": np.arange(n) % 1000})


# ---------------------------------------------------------------- the same rows, in the same order, with the same bits

def law_rows(score, folder: Path, ending: str):
    "Row i of the scores belongs to row i of the file: identifiers, scores to the last bit, a reason where there is none."
    frame, target = records(), folder / "scores.parquet"
    source = folder / f"records.{ending}"
    frame.to_parquet(source, index=False) if ending == "parquet" else frame.to_csv(source, index=False)
    detector = score(source, target)
    scored = pd.read_parquet(target)
    good = np.isfinite(frame[NAMES]).all(axis=1).to_numpy()
    assert scored["Flow ID"].tolist() == frame["Flow ID"].tolist()
    assert np.array_equal(scored["anomaly_score"].to_numpy()[good], detector.anomaly_score(frame[NAMES][good]))
    assert (scored["anomaly_score"].isna() == ~good).all() and (scored["reason"].notna() == ~good).all() and (scored["is_anomaly"].isna() == ~good).all()


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("batch", [65_536, 64, 7])
def test_law_rows(model, tmp_path, monkeypatch, ending, batch):
    monkeypatch.setattr(deploy, "BATCH", batch)
    def score(source, target):
        score_files(model, source, target, progress=False)
        return model.detector
    law_rows(score, tmp_path, ending)


@pytest.mark.parametrize("fault", ["dropped", "sorted", "float32"])
def test_law_rows_catches(model, tmp_path, fault):
    def score(source, target):
        score_files(model, source, target, progress=False)
        scored = pd.read_parquet(target)
        twins = {"dropped": scored.dropna(subset="anomaly_score"), "sorted": scored.sort_values("anomaly_score"),
                 "float32": scored.assign(anomaly_score=scored["anomaly_score"].astype("float32"))}
        twins[fault].to_parquet(target, index=False)
        return model.detector
    with pytest.raises(AssertionError): law_rows(score, tmp_path, "parquet")


def test_counts_decisions_and_p_values(model, tmp_path):
    records().to_parquet(tmp_path / "a.parquet", index=False)
    report = score_files(model, tmp_path / "a.parquet", tmp_path / "s.parquet", progress=False)
    scored = pd.read_parquet(tmp_path / "s.parquet")
    good = scored["anomaly_score"].notna()
    assert report.totals()["rows"] == 300 and report.totals()["bad"] == 3 and report.reasons == {"no number in 'Idle Max'": 2, "infinite in 'Flow Duration'": 1}
    assert (scored["is_anomaly"][good] == (scored["anomaly_score"][good] > model.threshold)).all()
    assert report.totals()["alarms"] == scored["is_anomaly"].sum() and scored["p_value"][good].between(0, 1, inclusive="right").all()


@pytest.mark.parametrize("line, reason", [
    ("1,2,3,4,x", "line with too many fields"), ("1,2,3", "no number in 'Idle Max'"), ("a,2,3,4", "no number in 'Flow Duration'"), ("", "empty line"),
    ("1,2,inf,4", "infinite in 'Flow IAT Mean'"), ("1,2,3,1e400", "infinite in 'Idle Max'"), ("1,2,3,4", None), ("1,2,3,4e0", None)])
def test_lines_of_a_csv_file(tmp_path, line, reason):
    (tmp_path / "a.csv").write_text(",".join(NAMES) + f"\n1,2,3,4\n{line}\n5,6,7,8\n")
    batch, = open_table(tmp_path / "a.csv").records(NAMES)
    assert find_reasons(batch.X, NAMES, batch.faults).tolist() == [None, reason, None]


def test_parquet_types(tmp_path):
    n = 4
    columns = {"Flow Duration": pa.array([1, 2, None, 4], pa.int64()), "Total Fwd Packets": pa.array(["1", "x", "3", "4"]),
               "Flow IAT Mean": pa.array([1.5, 2.5, 3.5, 4.5], pa.float32()), "Idle Max": pa.array(["7", "8", "9", "9"]).dictionary_encode()}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    batch, = open_table(tmp_path / "a.parquet").records(NAMES)
    assert find_reasons(batch.X, NAMES).tolist() == [None, "no number in 'Total Fwd Packets'", "no number in 'Flow Duration'", None]
    assert batch.X[0].tolist() == [1, 1, 1.5, 7]
    pq.write_table(pa.table(columns | {"Idle Max": pa.array([[1]] * n)}), tmp_path / "b.parquet")
    with pytest.raises(TypeError, match="'Idle Max' must hold numbers"): list(open_table(tmp_path / "b.parquet").records(NAMES))


# ---------------------------------------------------------------- columns

@given(st.permutations(NAMES), st.sampled_from([str, str.upper, lambda s: f" {s} ", lambda s: s.replace(" ", "_").lower()]))
@settings(deadline=None, max_examples=60, database=None, derandomize=True)
def test_columns_are_found_by_name(order, spelling):
    header = ["Flow ID", *map(spelling, order), "Label"]
    layout = plan_columns(header, NAMES)
    assert [order[i - 1] for i in layout.features] == NAMES and list(layout.kept.values()) == ["Flow ID", "Label"]


def test_columns_errors():
    with pytest.raises(KeyError, match="1 columns are missing.*Idle Maxx"): plan_columns(NAMES, ["Idle Maxx"])
    with pytest.raises(ValueError, match="names of results"): plan_columns([*NAMES, "p_value"], NAMES, "all")
    with pytest.raises(ValueError, match="at most 10,000"): plan_columns([str(i) for i in range(10_001)], NAMES)
    with pytest.raises(KeyError, match="keep names"): plan_columns(NAMES, NAMES, ["Hots"])
    assert plan_columns([*NAMES, "own"], NAMES, "all").kept == dict(enumerate([*NAMES, "own"])) and plan_columns(["Label", *NAMES], NAMES, "none").kept == {}


# ---------------------------------------------------------------- done, killed, changed

def law_nothing_half_written(score, folder: Path, source: Path):
    "When reading breaks in the middle, no file is there under the result's name."
    with pytest.raises(RuntimeError): score(source, folder / "scores.parquet")
    assert [p.name for p in folder.iterdir() if "scores" in p.name] == []


def breaking(path):
    "A table that breaks after its first batch."
    table = open_table(path)
    def read(wanted):
        yield next(table.read(wanted._replace(rows=50)))
        raise RuntimeError("the disk is gone")
    return replace(table, read=read)


def test_law_nothing_half_written(model, tmp_path, monkeypatch):
    records().to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(deploy, "open_table", breaking)
    law_nothing_half_written(lambda source, target: score_files(model, source, target, progress=False), tmp_path, tmp_path / "a.parquet")


def test_law_nothing_half_written_catches(model, tmp_path):
    records().to_parquet(tmp_path / "a.parquet")
    def direct(source, target):
        with pq.ParquetWriter(target, pa.schema({"x": pa.float64()})): next(breaking(source).records(NAMES)); raise RuntimeError("gone")
    with pytest.raises(AssertionError): law_nothing_half_written(direct, tmp_path, tmp_path / "a.parquet")


def states(folder: Path) -> dict[str, int]: return {p.name: p.stat().st_mtime_ns for p in folder.glob("[!.]*")}


def test_done_is_skipped_and_changes_are_not(model, detector, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for i in range(3): records(100, i).to_parquet(source / f"{i}.parquet")
    score_files(model, source, target, progress=False)
    first = states(target)
    assert score_files(model, source, target, progress=False).files["status"].tolist() == ["was done"] * 3 and states(target) == first
    records(101, 9).to_parquet(source / "1.parquet")
    (target / "2.parquet").write_bytes((target / "2.parquet").read_bytes()[:-9])  # damaged
    assert score_files(model, source, target, progress=False).files["status"].tolist() == ["was done", "scored", "scored"]
    other = load_model(detector, fpr=0.05, reference=traffic(800, 3))
    assert score_files(other, source, target, progress=False).files["status"].tolist() == ["scored"] * 3


KILLED = """
import sys, time
from nfad import deploy
score_rows = deploy.score_rows
def slow(*args):
    time.sleep(0.3)
    return score_rows(*args)
deploy.score_rows, deploy.BATCH = slow, 100
deploy.score_files(*sys.argv[1:4], progress=False)
"""


def test_a_killed_run_goes_on(model, model_path, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for i in range(4): records(300, i).to_parquet(source / f"{i}.parquet")
    run = subprocess.Popen([sys.executable, "-c", KILLED, model_path, source, target], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    begun = time.monotonic()
    while not ((target / "0.parquet").exists() and list(target.glob(".1.*"))) and run.poll() is None and time.monotonic() - begun < 300: time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, run.stderr.read()
    before = states(target)
    assert all(read_scored(target / name) for name in before) and list(target.glob(".*.tmp.parquet"))  # whole files, and one begun
    report = score_files(model_path, source, target, progress=False)
    assert report.files["status"].tolist() == ["was done"] * len(before) + ["scored"] * (4 - len(before))
    assert states(target).items() >= before.items() and not list(target.glob(".*"))
    again = score_files(model_path, source, tmp_path / "whole", progress=False)
    assert again.files["rows"].tolist() == report.files["rows"].tolist()
    for name in states(target): assert pd.read_parquet(target / name).equals(pd.read_parquet(tmp_path / "whole" / name))


def test_bad_files_are_reported_and_the_rest_goes_on(model, tmp_path):
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    records().to_parquet(source / "deep" / "good.parquet")
    (source / "empty.csv").touch()
    (source / "header.csv").write_text(",".join(NAMES) + "\n")
    (source / "other.csv").write_text("a,b\n1,2\n")
    (source / "torn.parquet").write_bytes((source / "deep" / "good.parquet").read_bytes()[:700])
    (source / ".hidden.csv").write_text("a\n")
    report = score_files(model, source, tmp_path / "out", progress=False)
    status = dict(zip(report.files["file"], report.files["status"]))
    assert status == {"deep/good.parquet": "scored", "empty.csv": "failed", "header.csv": "scored", "other.csv": "failed", "torn.parquet": "failed"}
    assert report.files.set_index("file").loc["other.csv", "error"].startswith("KeyError: 4 columns are missing") and report.totals()["failed"] == 3
    assert len(pd.read_parquet(tmp_path / "out" / "header.csv.parquet")) == 0
    with pytest.raises(ValueError, match="empty.csv"): score_files(model, source, tmp_path / "strict", strict=True, progress=False)


def test_places_are_checked(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "a.csv.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="rename one"): plan_jobs(tmp_path, tmp_path.parent / "out")
    with pytest.raises(ValueError, match="outside source"): plan_jobs(tmp_path, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="does not exist"): plan_jobs(tmp_path / "no", tmp_path / "out")
    with pytest.raises(ValueError, match="another file"): plan_jobs(tmp_path / "a.csv.parquet", tmp_path / "a.csv.parquet")


MEMORY = """
import sys
import numpy as np
from nfad import deploy
class Sum:
    feature_names_in_, calibration_scores_, fpr = np.array(["a", "b", "c", "d"]), np.arange(100.0), 0.01
    def anomaly_score(self, X): return X.sum(axis=1)
model = deploy.LoadedModel(Sum(), "sum", 4.0, deploy.Reference(np.arange(99.0), None, 100, 0.01))
peaks = []
for name in ("small", "large"):
    source = f"{sys.argv[1]}/{name}"
    if sys.argv[2] == "stream": deploy.score_files(model, source, source + "-scores", progress=False)
    else: import pandas; model.detector.anomaly_score(pandas.read_parquet(source).to_numpy())
    peaks.append(deploy.peak_memory())
print(peaks[1] - peaks[0])
"""


def test_memory_is_flat(tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).random((1000, 4)), columns=list("abcd"))
    for name, rows in (("small", 200_000), ("large", 2_000_000)):
        write_many(frame, tmp_path / "one", rows, n_files=1)
        table = pq.read_table(tmp_path / "one" / "part-0.parquet")
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "a.parquet", row_group_size=rows)  # one row group: the worst case
    del table
    grown = {way: float(subprocess.run([sys.executable, "-c", MEMORY, tmp_path, way], cwd=ROOT, check=True, capture_output=True, text=True).stdout) for way in ("stream", "whole")}
    assert grown["stream"] < 40 < grown["whole"], grown  # MB for 1.8 million records more


# ---------------------------------------------------------------- many machines

@pytest.fixture(scope="module")
def client():
    client = deploy.connect("local", n_workers=2)
    yield client
    deploy.disconnect(client)


def test_workers_share_the_cores(client, monkeypatch):
    assert [deploy.worker_settings(n, 4)["OMP_NUM_THREADS"] for n in (1, 2, 3, 4, 9)] == [4, 2, 1, 1, 1]
    with pytest.raises(ValueError, match="n_workers must be a whole number >= 1, got 0"): deploy.worker_settings(0, 4)
    wanted = deploy.worker_settings(2, os.cpu_count())
    told = {name: os.environ.get(name, str(value)) for name, value in wanted.items()}  # what the user has set stays
    assert set(client.run(lambda: tuple(os.environ.get(name) for name in wanted)).values()) == {tuple(told.values())}


def law_same_on_a_cluster(score, model, folder: Path):
    "Files of scores hold the same values, wherever they were made."
    source = folder / "in"
    source.mkdir()
    for i in range(4): records(200 + 40 * i, i).to_parquet(source / f"{i}.parquet")
    score_files(model, source, folder / "here", progress=False)
    score(source, folder / "there")
    for i in range(4): assert pd.read_parquet(folder / "here" / f"{i}.parquet").equals(pd.read_parquet(folder / "there" / f"{i}.parquet"))


def test_law_same_on_a_cluster(model, client, tmp_path):
    law_same_on_a_cluster(lambda source, target: score_files(model, source, target, scheduler=client, progress=False), model, tmp_path)


def test_law_same_on_a_cluster_catches(model, detector, tmp_path):
    other = load_model(detector, fpr=0.2)
    with pytest.raises(AssertionError): law_same_on_a_cluster(lambda source, target: score_files(other, source, target, progress=False), model, tmp_path)


def test_a_killed_worker_loses_nothing(model, client, tmp_path):
    source = tmp_path / "in"
    write_many(traffic(500), source, 200_000, n_files=10)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(score_files, model, source, tmp_path / "there", scheduler=client, progress=False)
        begun = time.monotonic()
        while not list((tmp_path / "there").glob(".part-*")) and not running.done() and time.monotonic() - begun < 300: time.sleep(0.005)
        assert not running.done()  # the first file is begun
        os.kill(next(iter(client.run(os.getpid, on_error="ignore").values())), signal.SIGKILL)
        report = running.result(timeout=300)
    assert set(report.files["status"]) == {"scored"} and report.totals()["rows"] == 200_000
    for path in sorted(source.iterdir())[:3]:
        assert np.array_equal(pd.read_parquet(tmp_path / "there" / path.name)["anomaly_score"], model.detector.anomaly_score(pd.read_parquet(path)))


def test_frames_are_lazy_and_the_same(model, client):
    import dask.dataframe as dd
    frame = records().drop(columns="Destination Port")
    for parts in (1, 7, 60):
        lazy = score_frame(model, dd.from_pandas(frame, npartitions=parts))
        assert list(lazy.columns) == ["Flow ID", *RESULT]
        assert np.array_equal(lazy["anomaly_score"].compute(scheduler="sync"), score_partition(frame, model)["anomaly_score"], equal_nan=True)
    on_workers = score_frame(model, dd.from_pandas(frame, npartitions=3)).compute(scheduler=client)
    assert np.array_equal(on_workers["anomaly_score"], score_partition(frame, model)["anomaly_score"], equal_nan=True)

    def forbidden(i): raise RuntimeError("computed")
    never = score_frame(model, dd.from_map(forbidden, [0, 1], meta=frame.iloc[:0]))
    with pytest.raises(RuntimeError, match="computed"): never.compute(scheduler="sync")


# ---------------------------------------------------------------- drift

def law_drift(judge, model):
    "New benign records of the same kind raise no warning; a changed kind does, in the score or in a feature."
    for seed in range(6):
        same = traffic(4000, 100 + seed).to_numpy()
        assert not judge(same).any(), seed
    for change in ([5, 1, 1, 1], [1, 1, 1, 4]): assert judge(traffic(4000, 7).to_numpy() * change).all(), change


def judge_with(model, **options): return lambda X: judge_windows(compare_batch(model, model.detector.anomaly_score(X), X, window=1000), model.reference, **options)["drifted"]


def test_law_drift(model): law_drift(judge_with(model), model)


def test_law_drift_catches_a_careless_and_a_blind_judge(model):
    with pytest.raises(AssertionError): law_drift(judge_with(model, alpha=0.999, least=1e-6), model)
    with pytest.raises(AssertionError): law_drift(judge_with(model, least=0.99), model)


def test_attacks_are_not_drift(model):
    X = np.concatenate([traffic(3600, 8).to_numpy(), strange(400, 9).to_numpy()])[np.random.default_rng(0).permutation(4000)]
    judged = judge_windows(compare_batch(model, model.detector.anomaly_score(X), X, window=1000), model.reference)
    assert not judged["drifted"].any() and (judged["alarm_rate"] > judged["alarm_limit"]).all()


def test_the_report_warns(model, tmp_path):
    (traffic(3000, 11) * [1, 1, 1, 4]).to_parquet(tmp_path / "a.parquet")
    report = score_files(model, tmp_path / "a.parquet", tmp_path / "s.parquet", window=1000, progress=False)
    assert "'Idle Max'" in report.warning and "recalibrate" in report.warning and report.totals()["drifted_windows"] == 3
    assert score_files(model, tmp_path / "a.parquet", tmp_path / "s.parquet", window=1000, progress=False).warning == report.warning  # from the file


def test_recalibrating_keeps_the_promise_again(detector, model_path, tmp_path):
    moved = traffic(4000, 12) * [1, 1, 1, 4]
    moved[:2000].to_parquet(tmp_path / "new.parquet")
    said = recalibrate(model_path, tmp_path / "new.parquet", tmp_path / "m.safetensors", fpr=0.02)
    fresh = FlowDetector.load(tmp_path / "m.safetensors")
    assert np.array_equal(fresh.anomaly_score(moved), detector.anomaly_score(moved))
    assert (fresh.predict(moved[:2000]) == -1).mean() <= 0.02 and 0.005 < (fresh.predict(moved[2000:]) == -1).mean() < 0.05
    assert said["n_calibration"] == 2000 and said["threshold"] == -fresh.offset_ and fresh.fpr == 0.02
    with pytest.raises(ValueError, match="at least 100"): recalibrate(model_path, _few(tmp_path), tmp_path / "n.safetensors")


def _few(folder: Path) -> Path:
    traffic(20).to_parquet(folder / "few.parquet")
    return folder / "few.parquet"


# ---------------------------------------------------------------- alerts

def law_same_as_benjamini_hochberg(limit):
    "The rule from counts flags what the rule from all p-values flags."
    rng = np.random.default_rng(0)
    for _ in range(300):
        m, n, fdr = int(rng.integers(5, 300)), int(rng.integers(1, 200)), float(rng.uniform(0.01, 0.9))
        k = np.minimum(rng.integers(1, m + 2, n), rng.integers(1, m + 2, n) if rng.random() < 0.5 else m + 1)
        assert np.array_equal(k <= limit(np.bincount(k, minlength=m + 2), fdr), flag_batch(k / (m + 1), fdr))


def test_law_same_as_benjamini_hochberg(): law_same_as_benjamini_hochberg(p_value_limit)


def test_law_same_as_benjamini_hochberg_catches():
    with pytest.raises(AssertionError): law_same_as_benjamini_hochberg(lambda counts, fdr: int(fdr * (len(counts) - 1)))
    with pytest.raises(AssertionError): law_same_as_benjamini_hochberg(lambda counts, fdr: 0)


@pytest.fixture(scope="module")
def scored(model, tmp_path_factory) -> Path:
    "A folder with `in` and `out`."
    folder = tmp_path_factory.mktemp("scored")
    (folder / "in").mkdir()
    for i in range(3): records(400, i).to_parquet(folder / "in" / f"{i}.parquet")
    score_files(model, folder / "in", folder / "out", progress=False)
    return folder


def test_alerts_are_the_top_of_all_files(model, scored):
    alerts = find_alerts(scored / "out", fdr=0.2, top=30)
    frames = [pd.read_parquet(scored / "out" / f"{i}.parquet").assign(file=f"{i}.parquet", row=range(400)) for i in range(3)]
    every = pd.concat(frames).dropna(subset="anomaly_score")
    flagged = every[flag_batch(every["p_value"].to_numpy(), 0.2)].sort_values("anomaly_score", ascending=False, kind="stable")
    assert alerts.n_records == len(every) and alerts.n_flagged == len(flagged) > 30
    assert alerts.table[["file", "row", "Flow ID"]].values.tolist() == flagged[["file", "row", "Flow ID"]][:30].values.tolist()


def test_alerts_get_their_records_and_reasons(model, scored):
    alerts = find_alerts(scored / "out", fdr=0.2, top=10)
    X = alert_records(alerts, scored / "in", NAMES)
    assert np.array_equal(model.detector.anomaly_score(X), alerts.table["anomaly_score"])
    told = explain_alerts(model, alerts, scored / "in", background=traffic(100))
    assert told.table["surprising"].str.contains("Total Fwd Packets|Idle Max").all()
    shares = told.table.filter(like="attribution: ").to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1) + told.explanation.attributions.base_values, told.table["anomaly_score"], atol=1e-4)
    assert np.array_equal(told.explanation.records.to_numpy(), X)  # the reports stand in the order of the alerts
    page = alerts_html(told)
    assert page.count("<section>") == 10 and f"record {told.table['file'][0]}, row {told.table['row'][0]:,}" in page
    with pytest.raises(KeyError, match="the background of attributions needs"): explain_alerts(model, alerts, scored / "in", traffic(100)[NAMES[:2]])


def test_broken_constants_are_named(tmp_path):
    still = FlowDetector(hidden=8, epochs=1, n_layers=1).fit(traffic(300).assign(still=2.0))
    assert surprising_features(still, traffic(2, 5).assign(still=[2.0, 3.0]))[1].startswith("still is not 2") and "still" not in surprising_features(still, traffic(1, 5).assign(still=2.0))[0]


def test_alerts_notice_changed_records(model, scored, tmp_path):
    alerts = find_alerts(scored / "out", fdr=0.2, top=10)
    for i in range(3): pd.read_parquet(scored / "in" / f"{i}.parquet")[::-1].to_parquet(tmp_path / f"{i}.parquet")
    with pytest.raises(ValueError, match="score them again"): explain_alerts(model, alerts, tmp_path)


# ---------------------------------------------------------------- one record at a time

@pytest.fixture(scope="module")
def scorer(model) -> Scorer: return Scorer(model)


def law_online(score, detector):
    "One record at a time, as a dict in any order or as numbers, gets the detector's score to the last bit."
    X, wanted = records()[NAMES].dropna(), None
    X = X[np.isfinite(X).all(axis=1)]
    wanted = detector.anomaly_score(X)
    assert [score(row) for row in X.to_numpy()[:100]] == wanted[:100].tolist()
    assert [score(dict(reversed(row.items()))) for row in X[:50].to_dict("records")] == wanted[:50].tolist()


def test_law_online(scorer, detector):
    law_online(lambda record: scorer.score_one(record).anomaly_score, detector)


def test_law_online_catches(scorer, detector):
    with pytest.raises(AssertionError): law_online(lambda r: scorer.score_one(list(r.values()) if isinstance(r, dict) else r).anomaly_score, detector)
    with pytest.raises(AssertionError): law_online(lambda r: float(np.float32(scorer.score_one(r).anomaly_score)), detector)


def test_online_few_many_and_from_threads(scorer, detector):
    X = traffic(500, 20)
    wanted = detector.anomaly_score(X).tolist()
    for n in (1, 2, 63, 64, 65, 500): assert [a.anomaly_score for a in scorer.score(X.to_numpy()[:n])] == wanted[:n]
    assert [a.anomaly_score for a in scorer.score(X)] == wanted
    with ThreadPoolExecutor(8) as threads: assert list(threads.map(lambda row: scorer.score_one(row).anomaly_score, X.to_numpy())) == wanted


@pytest.mark.parametrize("record, reason", [
    ({}, "no number in 'Flow Duration'"), (dict.fromkeys(NAMES, None), "no number in 'Flow Duration'"), (dict.fromkeys(NAMES, 1) | {"Idle Max": "x"}, "no number in 'Idle Max'"),
    (dict.fromkeys(NAMES, 1) | {"Idle Max": 1e999}, "infinite in 'Idle Max'"), (dict.fromkeys(NAMES, 1) | {"Idle Max": [1]}, "no number in 'Idle Max'"),
    (dict.fromkeys(NAMES, 1) | {"Idle Max": 10**400}, "no number in 'Idle Max'"), (dict.fromkeys(NAMES, "1"), None)])
def test_online_reasons(scorer, record, reason):
    alert = scorer.score_one(record)
    assert alert.reason == reason and (alert.anomaly_score is None) == (alert.is_anomaly is None) == (reason is not None)


def test_sensors_agree():
    zeek = {"duration": 2.0, "orig_pkts": 10, "resp_pkts": 5, "orig_bytes": 900, "resp_bytes": 3000}
    eve = {"flow": {"pkts_toserver": 10, "pkts_toclient": 5, "bytes_toserver": 900, "bytes_toclient": 3000, "start": "2026-01-01T00:00:00+0000", "end": "2026-01-01T00:00:02+0000"}}
    features = from_zeek(zeek)
    assert features == from_suricata(eve) and features["Flow Bytes/s"] == 1950 and features["Down/Up Ratio"] == 0.5
    assert all(np.isfinite(list(from_zeek({"orig_pkts": 1}).values())))


def test_bursts_keep_order_and_errors():
    assert sum(in_bursts(range(5000), 64), []) == list(range(5000))
    def broken():
        yield 1
        raise KeyError("stream")
    with pytest.raises(KeyError, match="stream"): list(in_bursts(broken()))


def test_a_lone_line_is_answered_at_once(scorer):
    import queue
    waiting = queue.Queue()
    answers = score_lines(scorer, iter(waiting.get, None))
    for _ in range(3):
        waiting.put(json.dumps(dict.fromkeys(NAMES, 3)))
        assert next(answers)["nfad"]["anomaly_score"] is not None  # would wait forever for a full burst
    waiting.put(None)


# ---------------------------------------------------------------- untrusted input: an error, never a crash, a hang or a wrong result

def damage(content: bytes, edits: list[tuple[int, int]], cut: int) -> bytes:
    "Bytes with some changed, and the end cut off."
    damaged = bytearray(content)
    for place, value in edits: damaged[place % len(damaged)] = value
    return bytes(damaged[:len(damaged) - cut % len(damaged)])


DAMAGE = st.tuples(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4), st.sampled_from([0, 0, 0, 1, 7, 100, 5000]))


CONNECTION = json.dumps({"uid": "C1", "duration": 2.5, "orig_pkts": 10, "resp_pkts": 5, "orig_bytes": 900, "resp_bytes": 3000, "Flow Duration": 1e6,
                         "flow": {"pkts_toserver": 10, "pkts_toclient": 5, "bytes_toserver": 900, "bytes_toclient": 3000, "age": 2}}).encode()


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "flow", "a"]), inner, max_size=4), max_leaves=8)


@given(st.one_of(st.binary(max_size=40), DAMAGE.map(lambda how: damage(CONNECTION, *how)), JSON.map(lambda value: json.dumps(value).encode())))
@settings(fuzz, max_examples=2500)
def test_fuzz_json_lines(line):
    for convert in (dict, from_zeek, from_suricata):
        record, features, reason = parse_line(line, convert)
        assert (reason is None) or features == {}
        X = np.array([[deploy._cell(features.get(name)) for name in NAMES]])
        for name, value in zip(NAMES, X[0]):
            if np.isfinite(value): assert float(features[name]) == value


def test_hostile_lines(scorer):
    lines = [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"\xff\xfe", None, b"{}", b"NaN", b'{"Flow Duration": 1' + b"0" * 4000 + b"}"]
    answers = list(score_lines(scorer, lines))
    assert len(answers) == len(lines) and all(a["nfad"]["reason"] for a in answers)
    json.dumps(answers, allow_nan=False)


def test_long_lines_are_skipped():
    import io
    assert list(read_lines(io.BytesIO(b"a\n" + b"x" * 5000 + b"\nb\n" + b"y" * 70), limit=64)) == [b"a\n", None, b"b\n", None]


@given(st.lists(st.lists(st.sampled_from(["1", "2.5", "-3", "", "x", "inf", "nan", "1e999", " 7", "0x1", "é", "1,2"]), max_size=6).map(",".join), max_size=6), st.sampled_from(["\n", "\r\n"]))
@settings(fuzz, max_examples=1000)
def test_fuzz_csv(tmp_path_factory, lines, end):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_text(end.join([",".join(NAMES), *lines]) + end, encoding="utf-8", newline="")
    batches = list(open_table(path).records(NAMES, rows=3))
    X, broken = np.concatenate([b.X for b in batches] or [np.empty((0, 4))]), np.concatenate([b.faults for b in batches] or [np.zeros(0, object)])
    assert len(X) == len(lines)
    for line, row, bad in zip(lines, X, broken):
        cells = line.split(",")
        if len(cells) > 4: assert bad is not None or not any(cells[4:5])
        for text, value in zip(cells, row):
            if np.isfinite(value): assert float(text) == value  # what was read stands there


@given(st.binary(max_size=300))
@settings(fuzz, max_examples=1500)
def test_fuzz_csv_bytes(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(",".join(NAMES).encode() + b"\n" + content)
    try:
        for batch in open_table(path).records(NAMES, rows=5): assert len(batch.X) == len(batch.faults)
    except deploy.FAILURES: pass


@given(DAMAGE)
@settings(fuzz, max_examples=2500)
def test_fuzz_parquet(tmp_path_factory, how):
    path = tmp_path_factory.getbasetemp() / "whole.parquet"
    if not path.exists(): records(50).to_parquet(path)
    damaged = path.with_name("damaged.parquet")
    damaged.write_bytes(damage(path.read_bytes(), *how))
    try:
        for batch in open_table(damaged).records(NAMES): assert batch.X.shape[1] == 4
    except deploy.FAILURES: pass
    read_scored(damaged)


@given(DAMAGE)
@settings(fuzz, max_examples=3000)
def test_fuzz_model_file(tmp_path_factory, model_path, detector, how):
    damaged = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    content = damage(model_path.read_bytes(), *how)
    damaged.write_bytes(content)
    try: loaded = restore_model(model_bytes(damaged))
    except ValueError: return
    X = traffic(5)
    assert np.array_equal(loaded.anomaly_score(X), detector.anomaly_score(X))  # only bytes without a meaning changed


def test_hostile_sizes(tmp_path):
    for first in (b"\xff" * 8, (10**9).to_bytes(8, "little"), b""):
        (tmp_path / "m.safetensors").write_bytes(first + b"{}")
        with pytest.raises(ValueError): restore_model(model_bytes(tmp_path / "m.safetensors"))
    (tmp_path / "a.csv").write_bytes(b"a" * (2 << 20))
    with pytest.raises(ValueError, match="no header"): open_table(tmp_path / "a.csv")


def test_scores_cannot_point_outside(model, scored, tmp_path):
    path = tmp_path / "forged.parquet"
    with pq.ParquetWriter(path, pq.read_schema(scored / "out" / "0.parquet").remove_metadata()) as writer:
        writer.write_table(pq.read_table(scored / "out" / "0.parquet").replace_schema_metadata(None))
        said = read_scored(scored / "out" / "0.parquet")
        writer.add_key_value_metadata({"nfad": json.dumps(said | {"task": said["task"] | {"source": "../../secret.parquet"}})})
    with pytest.raises(ValueError, match="lies outside"): explain_alerts(model, find_alerts(path, 0.2, 3), scored / "in")


EVIL = "<script>alert('x')</script>"


def law_page_is_harmless(render, alerts):
    "Nothing from the data is markup."
    evil = alerts._replace(table=alerts.table.assign(**{EVIL: EVIL, "surprising": EVIL}))
    page = render(evil, EVIL, EVIL)
    assert "<script" not in page and html.escape(EVIL) in page and "http" not in page


def test_law_page_is_harmless(scored, tmp_path):
    alerts = find_alerts(scored / "out", fdr=0.2, top=3)
    law_page_is_harmless(alerts_html, alerts)
    assert "script" not in write_alerts(alerts, tmp_path).read_text() and len(pd.read_parquet(tmp_path / "alerts.parquet")) == 3


def test_law_page_is_harmless_catches(scored):
    with pytest.raises(AssertionError): law_page_is_harmless(lambda a, *_: a.table.to_html(escape=False), find_alerts(scored / "out", fdr=0.2, top=3))


# ---------------------------------------------------------------- plans and grids

def test_plan_adds_up():
    plan = capacity_plan(1000, 100, 25, per_day=[86_400_000], load=0.25)
    assert plan.loc[0].round(9).tolist() == [86_400_000, 4, 0.00864, 0.00216, 0.001]
    with pytest.raises(ValueError): capacity_plan(0, 1, 1)


@pytest.fixture
def fake(monkeypatch):
    "Notebooks that only leave a score.json, and a list of those that ran."
    ran = []
    def papermill(notebook, out, parameters):
        ran.append((notebook.stem, parameters))
        if parameters.get("seed") == 13: raise RuntimeError("ValueError: no luck")
        if notebook.stem == "04_score": deploy.write_json(out.parent / "score.json", {"auroc": 0.5 + parameters["seed"] / 10})
    monkeypatch.setattr(deploy, "_papermill", papermill)
    return ran


def test_grid_runs_each_cell_once(fake, tmp_path):
    cells = plan_grid(["demo"], ["timing", "sizes"], [0, 1, 13], str(tmp_path), epochs=2)
    table = run_grid(cells, n_jobs=2, progress=False)
    assert len(fake) == 2 * (2 * 2 + 1) and all(p["epochs"] == 2 for step, p in fake if step == "03_train") and all("epochs" not in p and p["pairs"] is False for step, p in fake if step == "04_score")
    assert table["status"].tolist() == ["run", "run", "failed"] * 2 and table["auroc"].tolist()[:2] == [0.5, 0.6] and "no luck" in table["error"][2]
    fake.clear()
    assert run_grid(cells, progress=False)["status"].tolist() == ["was done", "was done", "failed"] * 2 and len(fake) == 2
    fake.clear()
    assert run_grid(plan_grid(["demo"], ["timing"], [0], str(tmp_path), epochs=3), progress=False)["status"].tolist() == ["run"] and len(fake) == 2


def test_grid_refuses_unknown_names_and_traversal(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'epochs'"): plan_grid(["demo"], epoch=3)
    with pytest.raises(ValueError, match="seed"): plan_grid(["demo"], seeds=[-1])
    with pytest.raises(ValueError, match="one folder"): plan_grid(["demo", "../demo"], ["timing"])
    assert Cell("../../etc/demo", "timing", 0, str(tmp_path), {}).folder == tmp_path / "demo" / "timing"
