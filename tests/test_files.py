"""Laws of scoring from files and on clusters: same rows, same bits, nothing lost, nothing half-written.

One small detector serves all laws. Each law is shown to fail on a broken twin.
"""
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
from hypothesis import given, settings

from nfad import files
from nfad.detector import FlowDetector
from nfad.files import (FAILURES, capacity_plan, connect, disconnect, measure_files, plan_jobs, read_scored, recalibrate,
                        score_files, score_frame, score_partition, worker_settings, write_many)
from nfad.measure import n_threads
from nfad.seen import remember, write_seen
from nfad.serving import load_model
from nfad.tables import RESULT, open_table
from nights import DAMAGE, NAMES, damage, detector, fuzz, model, model_path, records, traffic, write_folder
from notebooks import ROOT


# ---------------------------------------------------------------- the same rows, in the same order, with the same bits

WRITERS = {
    "parquet": lambda frame, path: frame.to_parquet(path, index=False), "csv": lambda frame, path: frame.to_csv(path, index=False),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False), "txt": lambda frame, path: frame.to_csv(path, index=False, sep=";", decimal=","),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t", lineterminator="\r\n", encoding="utf-16"),
    "feather": lambda frame, path: frame.to_feather(path),
    "json": lambda frame, path: path.write_text("\n".join(map(json.dumps, frame.to_dict("records"))))}


def law_rows(score, folder: Path, ending: str):
    "Row i of the scores belongs to row i of the file: identifiers, scores to the last bit, a reason where there is none."
    frame, target = records(), folder / "scores.parquet"
    source = folder / f"records.{ending}"
    WRITERS[ending](frame, source)
    detector = score(source, target)
    scored = pd.read_parquet(target)
    good = np.isfinite(frame[NAMES]).all(axis=1).to_numpy()
    assert scored["Flow ID"].tolist() == frame["Flow ID"].tolist()
    assert np.array_equal(scored["anomaly_score"].to_numpy()[good], detector.anomaly_score(frame[NAMES][good]))
    for empty in (scored["anomaly_score"].isna(), scored["is_anomaly"].isna(), scored["reason"].notna()): assert (empty == ~good).all()


@pytest.mark.parametrize("ending, batch", [*[(ending, 7) for ending in WRITERS], ("parquet", 64), ("csv", 64), ("parquet", 65_536), ("csv", 65_536)])
def test_law_rows(model, tmp_path, monkeypatch, ending, batch):
    monkeypatch.setattr(files, "BATCH", batch)
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
    assert report.totals()["rows"] == 300 and report.totals()["bad"] == 3
    assert report.reasons == {"no number in 'Idle Max'": 2, "infinite in 'Flow Duration'": 1}
    assert (scored["is_anomaly"][good] == (scored["anomaly_score"][good] > model.threshold)).all()
    assert report.totals()["alarms"] == scored["is_anomaly"].sum() and scored["p_value"][good].between(0, 1, inclusive="right").all()


# ---------------------------------------------------------------- done, killed, changed

def law_nothing_half_written(score, folder: Path, source: Path):
    "When reading breaks in the middle, no file is there under the result's name."
    with pytest.raises(RuntimeError): score(source, folder / "scores.parquet")
    assert [p.name for p in folder.iterdir() if "scores" in p.name] == []


def breaking(path, **how):
    "A table that breaks after its first batch of numbers."
    table = open_table(path, **how)
    def read(wanted):
        if not wanted.numbers: yield from table.read(wanted)  # only looked at
        yield next(table.read(wanted._replace(rows=50)))
        raise RuntimeError("the disk is gone")
    return replace(table, read=read)


def test_law_nothing_half_written(model, tmp_path, monkeypatch):
    records().to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(files, "open_table", breaking)
    law_nothing_half_written(lambda source, target: score_files(model, source, target, progress=False), tmp_path, tmp_path / "a.parquet")


def test_law_nothing_half_written_catches(model, tmp_path):
    records().to_parquet(tmp_path / "a.parquet")
    def direct(source, target):
        with pq.ParquetWriter(target, pa.schema({"x": pa.float64()})): raise RuntimeError("gone")
    with pytest.raises(AssertionError): law_nothing_half_written(direct, tmp_path, tmp_path / "a.parquet")


def wait_for(condition, seconds: float = 300):
    "Looks until a condition is there, or time is up."
    begun = time.monotonic()
    while not condition() and time.monotonic() - begun < seconds: time.sleep(0.005)


def states(folder: Path) -> dict[str, int]: return {p.name: p.stat().st_mtime_ns for p in folder.glob("[!.]*")}


def test_done_is_skipped_and_changes_are_not(model, detector, tmp_path):
    source, target = write_folder(tmp_path / "in", 3, 100), tmp_path / "out"
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
from nfad import files
from nfad.detector import FlowDetector
score = FlowDetector.anomaly_score
def slow(*args):
    time.sleep(0.3)
    return score(*args)
FlowDetector.anomaly_score, files.BATCH = slow, 100
files.score_files(*sys.argv[1:4], progress=False)
"""


def test_a_killed_run_goes_on(model, model_path, tmp_path):
    source, target = write_folder(tmp_path / "in", 4), tmp_path / "out"
    run = subprocess.Popen([sys.executable, "-c", KILLED, model_path, source, target], cwd=ROOT, stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE)
    wait_for(lambda: (target / "0.parquet").exists() and list(target.glob(".1.*")) or run.poll() is not None)
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
    failed = dict.fromkeys(["other.csv", "torn.parquet"], "failed")
    assert status == {"deep/good.parquet": "scored", "header.csv": "scored"} | failed and report.totals()["failed"] == 2
    assert report.left_out == {"empty.csv": "empty", ".hidden.csv": "hidden"}
    assert report.files.set_index("file").loc["other.csv", "error"].startswith("KeyError: 4 columns are missing")
    assert len(pd.read_parquet(tmp_path / "out" / "header.csv.parquet")) == 0
    with pytest.raises(ValueError, match="other.csv"): score_files(model, source, tmp_path / "strict", strict=True, progress=False)


# ---------------------------------------------------------------- files that vanish, change, or end early

def law_the_rest_goes_on(score, folder: Path, spoil):
    "A file that is spoilt after the plan was made fails alone, leaves no scores, and the report says why."
    source = write_folder(folder / "in", 3, 100)
    traffic(100).to_csv(source / "1.csv", index=False)
    (source / "1.parquet").unlink()
    with pytest.MonkeyPatch.context() as patch:
        def planned(*where, **how):
            jobs = plan_jobs(*where, **how)
            spoil(source / "1.csv")
            return jobs
        patch.setattr(files, "plan_jobs", planned)
        report = score(source, folder / "out")
    assert report.files["status"].tolist() == ["scored", "failed", "scored"] and report.totals()["rows"] == 200
    assert report.files["error"][1] and sorted(states(folder / "out")) == ["0.parquet", "2.parquet"]


@pytest.mark.parametrize("where", ["here", "on a cluster"])
def test_law_the_rest_goes_on(model, client, tmp_path, where):
    scheduler = None if where == "here" else client
    law_the_rest_goes_on(lambda source, target: score_files(model, source, target, scheduler=scheduler, progress=False), tmp_path, Path.unlink)


def test_law_the_rest_goes_on_catches(model, tmp_path, monkeypatch):
    monkeypatch.setattr(files.Job, "size", lambda self: Path(self.source).stat().st_size)  # as it was
    with pytest.raises(FileNotFoundError):
        law_the_rest_goes_on(lambda source, target: score_files(model, source, target, progress=False), tmp_path, Path.unlink)


def growing(path, **how):
    "A table whose file grows while it is read."
    table = open_table(path, **how)
    def read(wanted):
        yield from table.read(wanted)
        with open(path, "ab") as file: file.write(b"1,2,3,4\n")
    return replace(table, read=read)


def test_a_file_that_changes_while_it_is_read_fails(model, tmp_path, monkeypatch):
    traffic(100).to_csv(tmp_path / "a.csv", index=False)
    monkeypatch.setattr(files, "open_table", growing)
    report = score_files(model, tmp_path / "a.csv", tmp_path / "s.parquet", progress=False)
    assert report.files["error"][0] == "ValueError: a.csv changed while it was read; score it again" and not (tmp_path / "s.parquet").exists()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.9999])
@pytest.mark.parametrize("ending", ["csv.gz", "csv.bz2", "csv.xz", "csv.zst", "parquet", "feather"])
def test_a_file_that_was_cut_fails(model, tmp_path, ending, share):
    frame = records(3000)[["Flow ID", *NAMES]]
    if ending == "feather": frame.to_feather(tmp_path / f"a.{ending}")
    elif ending == "parquet": frame.to_parquet(tmp_path / f"a.{ending}")
    elif ending == "csv.zst":
        with pa.CompressedOutputStream(str(tmp_path / "a.csv.zst"), "zstd") as file: file.write(frame.to_csv(index=False).encode())
    else: frame.to_csv(tmp_path / f"a.{ending}", index=False)
    whole = (tmp_path / f"a.{ending}").read_bytes()
    (tmp_path / f"a.{ending}").write_bytes(whole[:int(share * len(whole))])
    report = score_files(model, tmp_path / f"a.{ending}", tmp_path / "s.parquet", progress=False)
    assert report.files["status"].tolist() == ["failed"] and report.files["error"][0] and not (tmp_path / "s.parquet").exists()


def test_wide_tables_are_looked_at_in_part(model, tmp_path):
    wide = {f"k{i}": range(3) for i in range(5000)} | {name: [1.0, 2.0, 3.0] for name in NAMES} | {"Flow ID": ["a", "b", "c"]}
    pd.DataFrame(wide).to_csv(tmp_path / "a.csv", index=False)
    table = open_table(tmp_path / "a.csv")
    small = files.narrowed(table)
    assert small.names == (*table.names[:150], *NAMES, "Flow ID") and small.sample().equals(table.sample()[list(small.names)])
    assert score_files(model, tmp_path / "a.csv", tmp_path / "s.parquet", progress=False).totals()["bad"] == 0
    assert pd.read_parquet(tmp_path / "s.parquet")["Flow ID"].tolist() == ["a", "b", "c"]


QUOTED = {  # 500 rows between two quotes, in a column that is passed through, and elsewhere
    "text": lambda rows: {100: f'"x{rows[100]}', 600: f'{rows[600]}y"'}, "before": lambda rows: {100: '"' + rows[100], 600: rows[600].replace(",", '",', 1)},
    "one": lambda rows: {300: rows[300].replace(",", ',"', 1)}, "end": lambda rows: {699: rows[699] + '"'}}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("how", QUOTED)
def test_quotes_hide_no_rows(model, tmp_path, how, end):
    header, *rows = records(700)[["Flow ID", *NAMES]].to_csv(index=False).splitlines()
    for place, row in QUOTED[how](rows).items(): rows[place] = row
    (tmp_path / "a.csv").write_bytes((end.join([header, *rows]) + end).encode())
    report = score_files(model, tmp_path / "a.csv", tmp_path / "s.parquet", progress=False)
    scored = pd.read_parquet(tmp_path / "s.parquet")
    assert report.totals()["rows"] == len(scored) == 700 and report.totals()["bad"] <= 2 + 3 and report.totals()["failed"] == 0
    assert scored["reason"].isna()[101:600].sum() >= 498


def test_places_are_checked(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "a.csv.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="rename one"): plan_jobs(tmp_path, tmp_path.parent / "out")
    with pytest.raises(FileNotFoundError, match="no file or folder at"): plan_jobs(tmp_path / "no", tmp_path / "out")


MEMORY = """
import sys
import numpy as np
from nfad.drift import make_reference
from nfad.files import score_files
from nfad.measure import peak_resident_memory
from nfad.serving import LoadedModel
class Sum:
    feature_names_in_, calibration_scores_, fpr = np.array(["a", "b", "c", "d"]), np.arange(100.0), 0.01
    def anomaly_score(self, X): return X.sum(axis=1)
model = LoadedModel(Sum(), "sum", make_reference(np.arange(100.0), 98.0, 0.01))
peaks = []
for name in ("small", "large"):
    source = f"{sys.argv[1]}/{name}"
    if sys.argv[2] == "stream": score_files(model, source, source + "-scores", progress=False)
    else: import pandas; model.detector.anomaly_score(pandas.read_parquet(source).to_numpy())
    peaks.append(peak_resident_memory())
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
    run = lambda way: subprocess.run([sys.executable, "-c", MEMORY, tmp_path, way], cwd=ROOT, check=True, capture_output=True, text=True)
    grown = {way: float(run(way).stdout) for way in ("stream", "whole")}
    assert grown["stream"] < 40 < grown["whole"], grown  # MB for 1.8 million records more


# ---------------------------------------------------------------- many machines

@pytest.fixture(scope="module")
def client():
    client = connect("local", n_workers=2)
    yield client
    disconnect(client)


def test_workers_share_the_cores(client, monkeypatch):
    assert [(w["OMP_NUM_THREADS"], w["NFAD_THREADS"]) for w in (worker_settings(n, 4) for n in (1, 2, 3, 4, 9))] == [(4, 4), (2, 2), (1, 1), (1, 1), (1, 1)]
    with pytest.raises(ValueError, match="n_workers must be a whole number >= 1, got 0"): worker_settings(0, 4)
    wanted = worker_settings(2, n_threads())
    told = {name: os.environ.get(name, str(value)) for name, value in wanted.items()}  # what the user has set stays
    assert set(client.run(lambda: tuple(os.environ.get(name) for name in wanted)).values()) == {tuple(told.values())}


def law_same_on_a_cluster(score, model, folder: Path):
    "Files of scores hold the same values, wherever they were made."
    source = write_folder(folder / "in", 4)
    score_files(model, source, folder / "here", progress=False)
    score(source, folder / "there")
    for name in states(source): assert pd.read_parquet(folder / "here" / name).equals(pd.read_parquet(folder / "there" / name))


def test_law_same_on_a_cluster(model, client, tmp_path):
    law_same_on_a_cluster(lambda source, target: score_files(model, source, target, scheduler=client, progress=False), model, tmp_path)


def test_law_same_on_a_cluster_catches(model, detector, tmp_path):
    other = load_model(detector, fpr=0.2)
    score = lambda source, target: score_files(other, source, target, progress=False)
    with pytest.raises(AssertionError): law_same_on_a_cluster(score, model, tmp_path)


def test_a_killed_worker_loses_nothing(model, client, tmp_path):
    source = tmp_path / "in"
    write_many(traffic(500), source, 200_000, n_files=10)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(score_files, model, source, tmp_path / "there", scheduler=client, progress=False)
        wait_for(lambda: list((tmp_path / "there").glob(".part-*")) or running.done())
        assert not running.done()  # the first file is begun
        os.kill(next(iter(client.run(os.getpid, on_error="ignore").values())), signal.SIGKILL)
        report = running.result(timeout=300)
    assert set(report.files["status"]) == {"scored"} and report.totals()["rows"] == 200_000
    for path in sorted(source.iterdir())[:3]:
        wanted = model.detector.anomaly_score(pd.read_parquet(path))
        assert np.array_equal(pd.read_parquet(tmp_path / "there" / path.name)["anomaly_score"], wanted)


def test_frames_are_lazy_and_the_same(model, client):
    import dask.dataframe as dd
    frame = records().drop(columns="Destination Port")
    wanted = score_partition(frame, model)["anomaly_score"]
    for parts in (1, 7, 60):
        lazy = score_frame(model, dd.from_pandas(frame, npartitions=parts))
        assert list(lazy.columns) == ["Flow ID", *RESULT]
        assert np.array_equal(lazy["anomaly_score"].compute(scheduler="sync"), wanted, equal_nan=True)
    on_workers = score_frame(model, dd.from_pandas(frame, npartitions=3)).compute(scheduler=client)
    assert np.array_equal(on_workers["anomaly_score"], wanted, equal_nan=True)

    def forbidden(i): raise RuntimeError("computed")
    never = score_frame(model, dd.from_map(forbidden, [0, 1], meta=frame.iloc[:0]))
    with pytest.raises(RuntimeError, match="computed"): never.compute(scheduler="sync")


# ---------------------------------------------------------------- drift and a new threshold

def test_the_report_warns(model, tmp_path):
    (traffic(3000, 11) * [1, 1, 1, 4]).to_parquet(tmp_path / "a.parquet")
    first, again = (score_files(model, tmp_path / "a.parquet", tmp_path / "s.parquet", window=1000, progress=False) for _ in range(2))
    assert "'Idle Max'" in first.warning and "recalibrate" in first.warning and first.totals()["drifted_windows"] == 3
    assert again.files["status"].tolist() == ["was done"] and again.warning == first.warning  # from the file


def test_recalibrating_keeps_the_promise_again(detector, model_path, tmp_path):
    moved = traffic(4000, 12) * [1, 1, 1, 4]
    moved[:2000].to_parquet(tmp_path / "new.parquet")
    said = recalibrate(model_path, tmp_path / "new.parquet", tmp_path / "m.safetensors", fpr=0.02)
    fresh = FlowDetector.load(tmp_path / "m.safetensors")
    assert np.array_equal(fresh.anomaly_score(moved), detector.anomaly_score(moved))
    rates = [(fresh.predict(half) == -1).mean() for half in (moved[:2000], moved[2000:])]
    assert rates[0] <= 0.02 and 0.005 < rates[1] < 0.05
    assert said["n_calibration"] == 2000 and said["threshold"] == -fresh.offset_ and fresh.fpr == 0.02
    with pytest.raises(ValueError, match="at least 100"): recalibrate(model_path, _few(tmp_path), tmp_path / "n.safetensors")


def _few(folder: Path) -> Path:
    traffic(20).to_parquet(folder / "few.parquet")
    return folder / "few.parquet"


def test_records_that_the_model_was_made_from_are_no_drift_and_no_calibration(detector, tmp_path):
    training, fresh = traffic(1000), traffic(600, 21)
    path = write_seen(detector.save(tmp_path / "model.safetensors"), remember(training))
    for name, frame in {"training": training, "both": pd.concat([training, fresh]), "fresh": fresh, "moved": pd.concat([training, fresh * [1, 1, 1, 4]])}.items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
    def score(name): return score_files(path, tmp_path / f"{name}.parquet", tmp_path / f"{name}.scores.parquet", progress=False)
    assert score("training").note.startswith("1,000 of 1,000 records") and score("training").warning == "" and score("training").drift["known"].sum() == 1000
    assert score("both").note.startswith("1,000 of 1,600") and score("both").warning == "" and (score("fresh").note, score("fresh").warning) == ("", "")
    assert "recalibrate" in score("moved").warning
    assert np.array_equal(pd.read_parquet(tmp_path / "training.scores.parquet")["anomaly_score"], detector.anomaly_score(training))
    with pytest.raises(ValueError, match="at least 100 .* got 0 and 1,000 that it was trained on"): recalibrate(path, tmp_path / "training.parquet", tmp_path / "n.safetensors")
    said = recalibrate(path, tmp_path / "both.parquet", tmp_path / "new.safetensors")
    alone = recalibrate(path, tmp_path / "fresh.parquet", tmp_path / "alone.safetensors")
    assert said["n_calibration"] == 600 and said["seen"] == 1000 and alone["seen"] == 0 and said["threshold"] == alone["threshold"]
    assert np.array_equal(load_model(tmp_path / "new.safetensors").seen.rows, remember(training).rows)


def test_scores_of_an_earlier_version_are_reported(model):
    window = {"first_row": 0, "n": 300, "alarm_rate": 0.0, "score_distance": 0.0, "score_p": 1.0, "feature": "", "feature_distance": 0.0, "feature_p": 1.0}
    result = {"file": "a", "status": "was done", "rows": 300, "bad": 0, "alarms": 0, "reasons": {}, "seconds": 0.0}
    report = files.account([result | {"windows": [window]}, result | {"file": "b", "windows": [window | {"known": 300}]}], model, 1.0)
    assert report.note == "" and report.drift["known"].tolist() == [0, 300]


# ---------------------------------------------------------------- untrusted input and plans

@given(DAMAGE)
@settings(fuzz, max_examples=1000)
def test_fuzz_parquet(tmp_path_factory, how):
    path = tmp_path_factory.getbasetemp() / "whole.parquet"
    if not path.exists(): records(50).to_parquet(path)
    damaged = path.with_name("damaged.parquet")
    damaged.write_bytes(damage(path.read_bytes(), *how))
    try:
        for batch in open_table(damaged).records(NAMES): assert batch.X.shape[1] == 4
    except FAILURES: pass
    read_scored(damaged)


def test_a_fresh_process_is_watched(model_path, tmp_path):
    write_many(traffic(500), tmp_path / "in", 2000, n_files=2)
    said = measure_files(model_path, tmp_path / "in", tmp_path / "out")
    assert said["rows"] == 2000 and said["scored"] == 2 and said["wall_seconds"] > said["seconds"] and said["memory_mb"] > 100
    with pytest.raises(RuntimeError, match="no file or folder at"): measure_files(model_path, tmp_path / "nowhere", tmp_path / "out")


def test_plan_adds_up():
    plan = capacity_plan(1000, 100, 25, per_day=[86_400_000], load=0.25)
    assert plan.loc[0].round(9).tolist() == [86_400_000, 4, 0.00864, 0.00216, 0.001]
    with pytest.raises(ValueError): capacity_plan(0, 1, 1)
