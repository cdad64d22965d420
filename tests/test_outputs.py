"""Laws of what may be written over: no file that a command reads, none that nfad did not write, whatever it is called.

Each law is shown to fail on a broken twin.
"""
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from nfad import files, outputs
from nfad.cli import main
from nfad.core import read_json, save_figure, write_json
from nfad.files import plan_jobs, score_files
from nfad.outputs import kind_of, require_free, safe_cells, write_table
from nfad.report import html_page
from nights import NAMES, detector, model, model_path, records, strange, traffic, write_folder


def contents(folder: Path) -> dict[str, str]:
    "Name and hash of every file below a folder."
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---------------------------------------------------------------- marks

MADE = {
    "a.parquet": ("alerts", lambda path: write_table(traffic(3), path, "alerts")),
    "a.json": ("record", lambda path: write_json(path, {"a": 1, "Z": 2, "": 3})),
    "a.html": ("report", lambda path: path.write_text(html_page("<x>" * 900))),
    "a.png": ("figure", lambda path: save_figure(_axes(), path)),
    "a.csv": ("grid", lambda path: pd.DataFrame({"dataset": ["demo"], "feature_set": "all", "seed": 0, "status": "run"}).to_csv(path, index=False))}
THEIRS = {
    "a.parquet": lambda path: traffic(3).to_parquet(path), "a.json": lambda path: path.write_text('{"auroc": 1, "nfad": "record"}'),
    "a.html": lambda path: path.write_text("<!DOCTYPE html><html>about nfad report</html>"), "a.png": lambda path: _axes().figure.savefig(path),
    "a.csv": lambda path: traffic(3).to_csv(path), "a.txt": lambda path: path.write_text("nfad"), "a.bin": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "b.parquet": lambda path: path.write_bytes(b"PAR1nfadPAR1"), "empty": lambda path: path.touch()}


def _axes():
    from matplotlib import pyplot
    return pyplot.subplots(figsize=(1, 1))[1]


@pytest.mark.parametrize("name", MADE)
def test_each_format_says_who_wrote_it(tmp_path, name):
    kind, write = MADE[name]
    write(tmp_path / name)
    assert kind_of(tmp_path / name) == kind


@pytest.mark.parametrize("name", THEIRS)
def test_files_of_others_have_no_kind(tmp_path, name):
    THEIRS[name](tmp_path / name)
    assert kind_of(tmp_path / name) == "" and kind_of(tmp_path / "absent") == "" and kind_of(tmp_path) == ""


def test_models_say_what_they_are(model_path, tmp_path):
    from nfad.core import write_model
    write_model(tmp_path / "c.safetensors", {"a": np.zeros(2)}, {}, "nfad-checkpoint-2")
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(graph, producer_name="nfad"), tmp_path / "m.onnx")
    onnx.save(onnx.helper.make_model(graph, producer_name="somebody"), tmp_path / "o.onnx")
    assert [kind_of(path) for path in (model_path, tmp_path / "c.safetensors", tmp_path / "m.onnx", tmp_path / "o.onnx")] == ["flow", "checkpoint", "onnx", ""]


# ---------------------------------------------------------------- one law for every command

def law_refused(run, folder: Path, what: str):
    "A command that would write over a file says so in a sentence, and no file below the folder changes or comes."
    before = contents(folder)
    status, error = run()
    assert contents(folder) == before, "a file was lost, changed or made"
    assert status == 1 and what in error and "--force" in error and "Traceback" not in error, error


@pytest.fixture
def run(capsys):
    "Runs a command in this process; gives exit code and standard error."
    def run(*words):
        capsys.readouterr()
        return main([str(word) for word in words]), capsys.readouterr().err
    return run


def linked(folder: Path, how: str) -> Path:
    "Another name of the records in a folder."
    name = folder / "other" / "good.parquet"
    name.parent.mkdir()
    if how == "symbolic": name.symlink_to(folder / "d1" / "good.parquet")
    elif how == "hard": os.link(folder / "d1" / "good.parquet", name)
    elif how == "folder":
        name.parent.rmdir()
        name.parent.symlink_to(folder / "d1")
    else: return folder / "d1" / ".." / "d1" / "good.parquet"
    return name


@pytest.mark.parametrize("how", ["symbolic", "hard", "folder", "spelling"])
@pytest.mark.parametrize("command", ["score", "recalibrate"])
def test_no_name_hides_a_file_that_is_read(run, model_path, tmp_path, how, command):
    (tmp_path / "d1").mkdir()
    traffic(300, 9).to_parquet(tmp_path / "d1" / "good.parquet")
    target = linked(tmp_path, how)
    law_refused(lambda: run(command, model_path, tmp_path / "d1" / "good.parquet", target), tmp_path, "is read")


def test_scores_never_replace_records(run, model_path, tmp_path, monkeypatch):
    for day in ("day1", "day2"): write_folder(tmp_path / day, 2, 100)
    (tmp_path / "day2" / "1.parquet").unlink()
    traffic(50).to_csv(tmp_path / "g.csv")
    law_refused(lambda: run("score", model_path, tmp_path / "day1", tmp_path / "day1"), tmp_path, "is read")
    law_refused(lambda: run("score", model_path, tmp_path / "day1" / "0.parquet", tmp_path / "day1"), tmp_path, "is read")
    law_refused(lambda: run("score", model_path, tmp_path / "day2", tmp_path / "day1"), tmp_path, "not written by nfad")
    law_refused(lambda: run("score", model_path, tmp_path / "day2", tmp_path / "day1", "--scheduler", "local"), tmp_path, "not written by nfad")
    law_refused(lambda: run("recalibrate", model_path, tmp_path / "g.csv", tmp_path / "g.csv"), tmp_path, "is read")
    monkeypatch.setattr(files, "require_free", lambda *how: None)
    with pytest.raises(AssertionError, match="lost, changed"):
        law_refused(lambda: run("score", model_path, tmp_path / "day2", tmp_path / "day1", "--quiet"), tmp_path, "not written by nfad")


def test_a_model_that_is_read_is_not_written_over(run, model_path, tmp_path):
    own = tmp_path / "m.safetensors"
    own.write_bytes(model_path.read_bytes())
    traffic(300, 9).to_csv(tmp_path / "g.csv", index=False)
    law_refused(lambda: run("recalibrate", own, tmp_path / "g.csv", own), tmp_path, "is read")
    assert run("recalibrate", own, tmp_path / "g.csv", tmp_path / "n.safetensors")[0] == 0
    assert run("recalibrate", own, tmp_path / "g.csv", tmp_path / "n.safetensors")[0] == 0  # its own output
    assert run("recalibrate", own, tmp_path / "g.csv", own, "--force")[0] == 0


def test_explaining_spares_what_others_wrote(run, model_path, tmp_path):
    write_folder(tmp_path / "in", 1, 100)
    explain = "explain", model_path, tmp_path / "in", tmp_path / "out", "--out", tmp_path / "page", "--quick", "--quiet"
    assert run("score", model_path, tmp_path / "in", tmp_path / "out", "--quiet")[0] == 0
    assert run(*explain)[0] == 0 and run(*explain)[0] == 0
    for name, text in {"alerts.html": "<!doctype html>my notes", "alerts.parquet": "x"}.items():
        (tmp_path / "page" / name).write_text(text)
        law_refused(lambda: run(*explain), tmp_path, "not written by nfad")
        assert run(*explain, "--force")[0] == 0
    write_table(records(50), tmp_path / "night" / "alerts.parquet", "alerts")  # scores of a list of alerts, explained beside it
    assert run("score", model_path, tmp_path / "night" / "alerts.parquet", tmp_path / "s.parquet", "--quiet", "--keep", "none")[0] == 0
    law_refused(lambda: run("explain", model_path, tmp_path / "night" / "alerts.parquet", tmp_path / "s.parquet", "--out", tmp_path / "night", "--quick"),
                tmp_path, "is read")


TRAIN = "--epochs 1 --preset fast --train-size 100 --val-size 100 --quiet".split()


def test_training_and_evaluating_spare_what_others_wrote(run, tmp_path):
    pd.concat([traffic(400).assign(Label="BENIGN"), strange(60).assign(Label="Bot")]).to_csv(tmp_path / "a.csv", index=False)
    train = "train", tmp_path / "a.csv", "--out-dir", tmp_path / "runs", *TRAIN
    assert run(*train)[0] == 0
    folder, = tmp_path.glob("runs/*/*/")
    assert run(*train)[0] == 0 and run("evaluate", folder)[0] == 0 and run("evaluate", folder)[0] == 0
    for name, command in {"calibration.parquet": train, "model.safetensors": train, "train.json": train, "score.json": ("evaluate", folder)}.items():
        held = (folder / name).read_bytes()
        (folder / name).write_text('{"mine": 1}')
        if name == "calibration.parquet": traffic(9).to_parquet(folder / name)
        law_refused(lambda: run(*command), tmp_path, "not written by nfad")
        (folder / name).write_bytes(held)
    traffic(9).to_parquet(folder / "calibration.parquet")
    assert run(*train, "--force")[0] == 0 and kind_of(folder / "calibration.parquet") == "calibration"


def test_runs_of_earlier_versions_are_trained_again(run, tmp_path):
    traffic(400).to_csv(tmp_path / "a.csv", index=False)
    train = "train", "--benign-path", tmp_path / "a.csv", "--out-dir", tmp_path / "runs", *TRAIN
    assert run(*train)[0] == 0
    record, = tmp_path.glob("runs/*/*/train.json")
    said = json.loads(record.read_text())
    del said["nfad"]
    record.write_text(json.dumps(said))
    traffic(9).to_parquet(record.parent / "calibration.parquet")
    assert run(*train)[0] == 0


def test_a_grid_spares_what_others_wrote(run, tmp_path, monkeypatch):
    ran = []
    def pretend(cell):
        ran.append(cell.folder)
        return {"dataset": "=1+1", "feature_set": "all", "seed": 0, "status": "failed", "seconds": -1.0, "error": "@x"}
    monkeypatch.setattr("nfad.grid.run_cell", pretend)
    grid = "run", "demo", "--out-dir", tmp_path / "own", "--table", tmp_path / "t.csv", "--quiet"
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    law_refused(lambda: run(*grid), tmp_path, "not written by nfad")
    (tmp_path / "t.csv").unlink()
    assert run(*grid)[0] == 3 and run(*grid)[0] == 3  # its own table
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == "'=1+1,all,0,failed,-1.0,'@x"
    ran[0].mkdir(parents=True)
    (ran[0] / "train.txt").write_text("mine")
    law_refused(lambda: run(*grid), tmp_path, "not written by nfad")
    assert run(*grid, "--force")[0] == 3


# ---------------------------------------------------------------- results among records

def law_results_are_no_records(score, folder: Path):
    "Scores written below the records are not scored by the next run, which finds its work done."
    write_folder(folder / "in", 2, 100)
    traffic(50).to_csv(folder / "in" / "2.csv", index=False)
    first = score(folder / "in", folder / "in" / "scores")
    second = score(folder / "in", folder / "in" / "scores")
    assert second.files["file"].tolist() == first.files["file"].tolist(), "results were read"
    assert set(second.files["status"]) == {"was done"} and set(second.left_out.values()) == {"scores of nfad"}


def test_law_results_are_no_records(model, tmp_path):
    law_results_are_no_records(lambda source, target: score_files(model, source, target, progress=False), tmp_path)


def test_law_results_are_no_records_catches(model, tmp_path, monkeypatch):
    monkeypatch.setattr("nfad.sources.kind_of", lambda path: "")
    with pytest.raises(AssertionError, match="were read"):
        law_results_are_no_records(lambda source, target: score_files(model, source, target, progress=False, force=True), tmp_path)


def test_training_beside_its_own_results_reads_the_same_rows(run, tmp_path):
    traffic(400).to_csv(tmp_path / "a.csv", index=False)
    train = "train", "--benign-path", tmp_path, "--out-dir", tmp_path / "runs", *TRAIN
    assert run(*train)[0] == 0 and run(*train)[0] == 0
    record, = tmp_path.glob("runs/*/*/train.json")
    assert json.loads(record.read_text())["data_report"]["rows_read"] == 400


def test_two_names_that_a_disk_takes_for_one_are_refused(tmp_path, monkeypatch):
    for name in ("a.csv", "A.csv"): traffic(5).to_csv(tmp_path / name)
    assert len(plan_jobs(tmp_path, tmp_path / "out")) == 2
    monkeypatch.setattr(files, "_ignores_case", lambda folder: True)
    with pytest.raises(ValueError, match="rename one"): plan_jobs(tmp_path, tmp_path / "out")


# ---------------------------------------------------------------- spreadsheets

def law_no_formula(safe, texts: list[str]):
    "No text begins as a formula does, numbers stay, and one apostrophe less gives back what was there."
    frame = pd.DataFrame({"a": texts, "n": np.arange(len(texts)) - 1.5})
    marked = safe(frame)
    assert not any(cell[0] in "=+-@\t\r" for cell in marked["a"] if cell), "a formula"
    assert marked["n"].tolist() == frame["n"].tolist() and marked["a"].str.removeprefix("'").tolist() == texts, "another text"


FORMULAS = ["=1+1", "+a", "-b", "@x", "\tx", "\r=x", "'", "''=1", "", "plain", "1e-5x", " =1"]


def test_law_no_formula(): law_no_formula(safe_cells, FORMULAS)


@pytest.mark.parametrize("twin, message", [
    (lambda frame: frame, "a formula"), (lambda frame: frame.map(lambda cell: f"'{cell}" if str(cell)[:1] in tuple("=+-@\t\r") else cell), "another")])
def test_law_no_formula_catches(twin, message):
    with pytest.raises(AssertionError, match=message): law_no_formula(twin, FORMULAS)


def test_tables_are_written_with_checksums(tmp_path):
    path = write_table(traffic(5000), tmp_path / "a.parquet", "records")
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    with pytest.raises(OSError, match="checksum|CRC"): pq.read_table(path, page_checksum_verification=True)


# ---------------------------------------------------------------- what notebooks write

def _graph(path):
    from nfad.export import Graph, write_graph
    graph = Graph()
    return write_graph(graph.model(graph("Mul", "records", 2.0), ["n", 3], 3), path)


WRITERS = {
    "a.json": lambda path: write_json(path, {"auroc": 1, "versions": {}}), "a.png": lambda path: save_figure(_axes(), path),
    "a.pdf": lambda path: save_figure(_axes(), path), "a.parquet": lambda path: write_table(traffic(3), path, "study"), "a.onnx": _graph}


def law_writers_spare_others(writers, folder):
    "A writer replaces what it wrote itself, and nothing that somebody else wrote."
    for name, write in writers.items():
        write(folder / name)
        write(folder / name)
        for number, content in enumerate((b"", b"mine", b'{"auroc": 0.9}', b'{"a": 1, "nfad": "record"}', b"\x89PNG\r\n mine", b"%PDF mine", b"PAR1PAR1")):
            path = folder / f"{number}-{name}"
            path.write_bytes(content)
            with pytest.raises(ValueError, match="nfad"): write(path)
            assert path.read_bytes() == content


def test_law_writers_spare_others(tmp_path): law_writers_spare_others(WRITERS, tmp_path)


@pytest.mark.parametrize("name", ["a.json", "a.png", "a.parquet"])
def test_law_writers_spare_others_catches(tmp_path, name):
    forced = {"a.json": lambda path: write_json(path, {"auroc": 1}, force=True), "a.png": lambda path: save_figure(_axes(), path, force=True),
              "a.parquet": lambda path: write_table(traffic(3), path, "study", force=True)}
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"): law_writers_spare_others({name: forced[name]}, tmp_path)


def test_a_record_from_before_there_were_marks_is_replaced(tmp_path):
    record = {"auroc": 0.9, "versions": {}, "seed": 0, "dataset": "demo", "n": 3}
    (tmp_path / "score.json").write_text(json.dumps(record))
    assert read_json(write_json(tmp_path / "score.json", record | {"auroc": 1.0, "threshold": 2.0}))["auroc"] == 1.0
