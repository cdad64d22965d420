"Laws of 11m_hosts: benign hosts are called as rarely as promised, strange ones are, and no row is lost."
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nfad.cli import main
from nfad.detector import FlowDetector
from nfad.files import score_files
from nfad.hosts import add_up, find_hosts, hour_sums, judge_hours
from nfad.score import conformal_p_values
from nfad.serving import load_model

START = pd.Timestamp("2026-11-27")


def day(seed: int, m=300, hosts=12, n=40, shift=0.0, together=0.7) -> tuple[pd.DataFrame, int]:
    "Records of one day: those of a host and hour move together; the last host is stranger by `shift`."
    rng = np.random.default_rng(seed)
    scores = np.sqrt(together) * rng.normal(size=(hosts, 4, 1)) + np.sqrt(1 - together) * rng.normal(size=(hosts, 4, n // 4))
    scores[-1] += shift
    host = np.repeat([f"h{i}" for i in range(hosts)], n)
    time = START + pd.to_timedelta(np.tile(np.repeat(np.arange(4), n // 4), hosts), unit="h")
    p = conformal_p_values(scores.ravel(), rng.normal(size=m))
    return pd.DataFrame({"Source IP": host, "Timestamp": time, "anomaly_score": scores.ravel(), "p_value": p}), m


def law_promise(judge):
    "Of benign days at most a share `fdr` calls a host, though records of an hour depend on each other."
    hits = []
    for seed in range(120):
        frame, m = day(seed)
        hits.append(judge(hour_sums(frame, m), len(frame))["passes_fdr"].any())
    assert np.mean(hits) <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 120)


def test_law_promise(): law_promise(judge_hours)


def test_law_promise_catches_records_of_the_host_alone():
    "Divided by the records of the hour instead of all, evidence forgets how many hours were looked at."
    with pytest.raises(AssertionError): law_promise(lambda sums, n: judge_hours(sums.assign(worth=sums["worth"] / sums["records"]), 1))


def test_a_strange_host_is_called_and_hardly_another():
    calls = []
    for seed in range(20):
        frame, m = day(seed, shift=4.0, together=0.1)
        table = judge_hours(hour_sums(frame, m), len(frame))
        assert table["evidence"].is_monotonic_decreasing
        calls.append(set(table.loc[table["passes_fdr"], "host"]))
    assert sum("h11" in found for found in calls) >= 18
    assert np.mean([len(found - {"h11"}) / max(len(found), 1) for found in calls]) <= 0.1


def test_pieces_in_any_order_are_the_whole():
    frame, m = day(1)
    whole = hour_sums(frame, m)
    parts = [hour_sums(part, m) for part in (frame[300:], frame[:7], frame[7:300])]
    pd.testing.assert_frame_equal(add_up(parts), whole)


@pytest.mark.parametrize("hours, rows", [(1, 48), (4, 12), (0.5, 48)])
def test_spans(hours, rows):
    frame, m = day(2)
    assert len(hour_sums(frame, m, hours=hours)) == rows


def test_what_cannot_be_asked_is_said():
    frame, m = day(3)
    with pytest.raises(ValueError, match="by must be one of"): hour_sums(frame, m, by="router")
    with pytest.raises(ValueError, match="target addresses"): hour_sums(frame, m, by="target")
    with pytest.raises(ValueError, match="of times"): hour_sums(frame.drop(columns="Timestamp"), m)
    with pytest.raises(ValueError, match="hours"): hour_sums(frame, m, hours=0)


def test_files_and_the_command(tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = ["a", "b", "c"]
    benign = pd.DataFrame(rng.normal(size=(600, 3)), columns=names)
    model = FlowDetector(hidden=8, epochs=1, n_layers=1, progress=False).fit(benign[:300]).calibrate(benign[300:])
    night = pd.DataFrame(rng.normal(size=(400, 3)), columns=names)
    night.loc[300:339] += 9.0
    night["Source IP"] = [f"10.0.0.{i % 10}" for i in range(300)] + ["10.0.0.99"] * 40 + ["10.0.0.1"] * 60
    night["Timestamp"] = START + pd.to_timedelta(np.arange(400) * 20, unit="s")
    night.loc[5, "a"] = np.nan
    night.loc[6, "Timestamp"] = pd.NaT
    (tmp_path / "in").mkdir()
    for i in range(2): night[200 * i:200 * i + 200].to_parquet(tmp_path / "in" / f"{i}.parquet")
    score_files(load_model(model), tmp_path / "in", tmp_path / "scores", progress=False)
    found = find_hosts(tmp_path / "scores")
    assert found.left_out == {"without a score": 1, "without a host or a time": 1}
    assert found.table["records"].sum() + sum(found.left_out.values()) == len(night) and found.n_records == 399
    assert found.table["host"][0] == "10.0.0.99" and found.table["passes_fdr"][0] and not found.table["passes_fdr"][2:].any()
    assert main(["hosts", str(tmp_path / "scores"), "--top", "3"]) == 0
    said = capsys.readouterr().out
    assert "10.0.0.99" in said and "1 without a score" in said and "pass a false discovery rate" in said
    (tmp_path / "in" / "2.parquet").unlink(missing_ok=True)
    night[:50].drop(columns="Timestamp").to_parquet(tmp_path / "in" / "timeless.parquet")
    score_files(load_model(model), tmp_path / "in", tmp_path / "scores", progress=False)
    more = find_hosts(tmp_path / "scores")  # one file without times is named, and the rest goes on
    assert more.left_out == {"without a score": 2, "without a host or a time": 50} and more.table["host"][0] == "10.0.0.99"
    with pytest.raises(ValueError, match="of times"): find_hosts(tmp_path / "scores" / "timeless.parquet")
    with pytest.raises(FileNotFoundError): find_hosts(tmp_path / "nowhere")


def test_a_time_of_an_unknown_name_and_other_files(tmp_path):
    frame, m = day(4)
    said = {"kind": "scores", "task": {"n_calibration": m, "model": "x", "threshold": 1.0}, "result": {}}
    frame = frame.assign(is_anomaly=False, reason=None)
    write = lambda path, rows: pq.write_table(
        pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata({"nfad": json.dumps(said)}), path)
    (tmp_path / "scores").mkdir()
    write(tmp_path / "scores" / "a.parquet", frame.rename(columns={"Timestamp": "Zeit"}))
    (tmp_path / "scores" / "torn.parquet").write_bytes((tmp_path / "scores" / "a.parquet").read_bytes()[:999])
    (tmp_path / "scores" / "notes.txt").write_text("x")
    found = find_hosts(tmp_path / "scores")
    pd.testing.assert_frame_equal(found.table, judge_hours(hour_sums(frame, m), len(frame)))
    assert set(found.others) == {"torn.parquet", "notes.txt"}
    (tmp_path / "far").mkdir()
    for name in ("a.parquet", "notes.txt"): (tmp_path / "scores" / name).rename(tmp_path / "far" / name)
    (tmp_path / "scores" / "day").symlink_to(tmp_path / "far")
    (tmp_path / "scores" / "again.parquet").symlink_to(tmp_path / "far" / "a.parquet")
    behind = find_hosts(tmp_path / "scores")  # a linked folder is followed, and a file is read once
    pd.testing.assert_frame_equal(behind.table, found.table)
    assert behind.others == {"torn.parquet": "no scores of nfad, or damaged", "day/notes.txt": "no scores of nfad, or damaged",
                             "day/a.parquet": "the same file as again.parquet"}
    write(tmp_path / "none.parquet", frame.rename(columns={"Timestamp": "Zeit"}).assign(Zeit="soon"))
    with pytest.raises(ValueError, match="one of times"): find_hosts(tmp_path / "none.parquet")


@pytest.mark.parametrize("score, n", [([], 0), ([np.nan], 1)])
def test_scores_without_a_scored_record_are_refused(tmp_path, monkeypatch, score, n):
    path = tmp_path / "s.parquet"
    columns = {"anomaly_score": score, "p_value": score, "Source IP": ["h"] * n, "Timestamp": [START] * n}
    pd.DataFrame(columns).astype({"anomaly_score": float, "p_value": float, "Timestamp": "datetime64[ns]"}).to_parquet(path)
    monkeypatch.setattr("nfad.hosts.scored_files", lambda target: [(path, {"task": {"n_calibration": 10}})])
    with pytest.raises(ValueError, match=f"holds no scored record, {n} rows"): find_hosts(path)
