"""The command line: what it prints, what it leaves, its exit codes, and that asking for help costs nothing."""
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nfad.cli import COMMANDS, Said, main
from nfad.files import read_scored, write_many
from nights import NAMES, detector, model_path, strange, traffic
from notebooks import ROOT

START = "import sys; from nfad.cli import main; sys.exit(main())"
HEAVY = {"jax", "pandas", "numpy", "sklearn", "pyarrow", "scipy", "distributed", "fastcore"}


def nfad(*words, **options) -> subprocess.CompletedProcess:
    "`nfad words...` in a process of its own."
    return subprocess.run([sys.executable, "-c", START, *map(str, words)], cwd=ROOT, capture_output=True, text=True, **options)


@pytest.fixture
def here(capsys):
    "Runs a command in this process; gives exit code, standard output and standard error."
    def run(*words):
        capsys.readouterr()
        return main([str(word) for word in words]), *capsys.readouterr()
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> SimpleNamespace:
    "A model made by `nfad train` from benign records, with folders of records."
    folder = tmp_path_factory.mktemp("cli")
    traffic(1500).to_csv(folder / "benign.csv", index=False)
    options = "--epochs 2 --train-size 800 --val-size 400 --quiet".split()
    status = main(["train", "--benign-path", str(folder / "benign.csv"), "--out-dir", str(folder / "runs"), *options])
    model, = folder.glob("runs/*/*/model.safetensors")
    assert status == 0
    (folder / "in").mkdir()
    for name, frame in {"night": pd.concat([traffic(500, 5), strange(60, 6)]), "calm": traffic(300, 7)}.items():
        frame.assign(**{"Flow ID": [f"{name}-{i}" for i in range(len(frame))]}).to_parquet(folder / "in" / f"{name}.parquet", index=False)
    return SimpleNamespace(folder=folder, model=model, records=folder / "in")


# ---------------------------------------------------------------- help

def loaded_by(*words) -> set[str]:
    "Heavy packages that a command loads."
    code = f"import sys\nfrom nfad.cli import main\ntry: main({list(words)!r})\nexcept SystemExit: pass\nprint('modules', *sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return HEAVY & set(run.stdout.splitlines()[-1].split())


def test_help_loads_nothing(): assert loaded_by("--help") == set() and loaded_by("--version") == set()


def test_loading_is_noticed(): assert "pandas" in loaded_by("datasets")


def test_every_command_explains_itself(here, capsys):
    with pytest.raises(SystemExit) as end: main(["--help"])
    overview = capsys.readouterr().out
    assert end.value.code == 0 and set(COMMANDS) == set("train score explain evaluate run datasets info inspect demo recalibrate verdict verdicts suppress learn collect watch flows audit triage hosts".split())
    for name, function in COMMANDS.items():
        assert name in overview
        with pytest.raises(SystemExit): main([name, "--help"])
        text = capsys.readouterr().out
        for parameter in inspect.signature(function).parameters.values():
            assert parameter.name.rstrip("_").replace("_", "-") in text or parameter.name in text, (name, parameter.name)
        assert "--json" in text and "--verbose" in text


OF_TRAIN = "--train-size --val-size --test-size --feature-set --feature-indexes --learning-rate --epochs --optimizer"
RELEASED = dict.fromkeys(OF_TRAIN.split(), "train") | {
    "--benign-path": "train evaluate", "--attack-path": "evaluate", "--verbose": "train score evaluate"}


@pytest.mark.parametrize("option", RELEASED)
def test_options_of_the_released_scripts(option, capsys):
    for command in RELEASED[option].split():
        with pytest.raises(SystemExit): main([command, "--help"])
        assert option in capsys.readouterr().out


# ---------------------------------------------------------------- from any folder

@pytest.fixture
def elsewhere(trained, tmp_path, monkeypatch) -> SimpleNamespace:
    "A current folder with relative names of a model and of records, that of a clone far away."
    for name, source in {"in": trained.records, "model.safetensors": trained.model, "calibration.parquet": trained.model.parent / "calibration.parquet"}.items():
        (tmp_path / name).symlink_to(source)
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(folder=tmp_path)


RELATIVE = {  # words of a command -> what it leaves in the current folder
    "train --benign-path calm.csv --feature-set all --epochs 1 --preset fast --quiet": "runs/*calm-csv-*/all/model.safetensors",
    "train --benign-path calm.csv --feature-set all --epochs 1 --preset fast --quiet --out-dir own/results": "own/results/*calm-csv-*/all/model.safetensors",
    "score model.safetensors in scores --quiet": "scores/calm.parquet",
    "score model.safetensors in/calm.parquet calm.scored.parquet --quiet --reference calibration.parquet": "calm.scored.parquet",
    "recalibrate model.safetensors calm.csv new.safetensors": "new.safetensors",
    "evaluate model.safetensors --benign-path in/calm.parquet --attack-path in/night.parquet": "",
    "info model.safetensors": "",
    "demo --epochs 1 --out-dir own --quiet": "own/demo/timing/alerts.html",
}


@pytest.mark.parametrize("words", RELATIVE)
def test_relative_paths_count_from_the_current_folder(words, elsewhere, here):
    traffic(700, 9).to_csv("calm.csv", index=False)
    status, _, error = here(*words.split())
    assert status == 0, error
    assert not RELATIVE[words] or len(list(elsewhere.folder.glob(RELATIVE[words]))) == 1


def test_alerts_go_to_the_current_folder(elsewhere, here):
    assert here("score", "model.safetensors", "in", "scores", "--quiet")[0] == 0
    assert here("explain", "model.safetensors", "in", "scores", "--quick", "--quiet")[0] == 0
    assert (elsewhere.folder / "alerts" / "alerts.html").is_file()


def test_a_grid_is_planned_from_the_current_folder(elsewhere, here, monkeypatch):
    seen = []
    def pretend(cell):
        seen.append(cell)
        return {"dataset": cell.dataset, "status": "failed", "error": ""}
    monkeypatch.setattr("nfad.grid.run_cell", pretend)
    here("run", "mon/flows.csv,tue/flows.csv", "--feature-sets", "all", "--out-dir", "own", "--quiet")
    assert len({cell.folder for cell in seen}) == 2 and {cell.folder.parents[2] for cell in seen} == {elsewhere.folder / "own"}


def test_data_sets_are_looked_for_from_the_current_folder(elsewhere, here, monkeypatch):
    monkeypatch.setenv("NFAD_DATA", "records")
    assert json.loads(here("datasets", "--json")[1])["folder"] == str(elsewhere.folder / "records")


def test_two_files_of_one_name_have_two_models(elsewhere, here):
    for day, seed in (("mon", 1), ("tue", 2)):
        Path(day).mkdir()
        traffic(300, seed).to_csv(f"{day}/flows.csv", index=False)
        assert here(*f"train --benign-path {day}/flows.csv --feature-set all --epochs 1 --preset fast --quiet --out-dir own".split())[0] == 0
    found = sorted(elsewhere.folder.glob("own/*/all/train.json"))
    assert [json.loads(path.read_text())["settings"]["dataset"] for path in found] == [str(elsewhere.folder / day / "flows.csv") for day in ("mon", "tue")]


def test_a_home_that_cannot_be_written(trained, tmp_path):
    words = f"train --benign-path {trained.folder / 'benign.csv'} --feature-set all --epochs 1 --preset fast --quiet --out-dir {tmp_path}".split()
    environment = {name: value for name, value in os.environ.items() if name not in ("NFAD_CACHE", "XDG_CACHE_HOME")}
    run = nfad(*words, env=environment | {"HOME": "/dev/null"})
    assert run.returncode == 0 and run.stderr.startswith("WARNING: the cache folder /dev/null") and run.stderr.count("NFAD_CACHE") == 1 and "engine.py" not in run.stderr and len(list(tmp_path.glob("*/all/model.safetensors"))) == 1


# ---------------------------------------------------------------- few records, and records that were trained on

@pytest.mark.parametrize("n_benign, m", [(45, 9), (12, 1)])
def test_few_benign_records_are_trained_scored_and_explained(here, tmp_path, monkeypatch, n_benign, m):
    monkeypatch.chdir(tmp_path)
    pd.concat([traffic(n_benign).assign(Label="BENIGN"), strange(15).assign(Label="PortScan")]).to_csv("flows.csv", index=False)
    status, out, _ = here("train", "flows.csv", "--preset", "fast", "--epochs", 2, "--out-dir", "own")
    assert status == 0 and f"WARNING: {m} calibration records can promise a false-alarm rate of {1 / (m + 1):.2%} at best, not 1.00%: that needs at least 99" in out
    model = out.splitlines()[0]
    assert f"{n_benign + 15} rows of flows.csv (CSV, comma between fields)" in out, "what was understood"
    assert "training records show little of what is normal" in out
    status, out, error = here("score", model, "flows.csv", "scores.parquet")
    assert status == 0 and f"{n_benign + 15} records" in out and f"drift cannot be judged: {m} calm" in out and "WARNING" not in out, error
    assert here("explain", model, "flows.csv", "scores.parquet", "--top", 5)[0] == 0


def test_too_few_benign_records_say_what_became_of_the_rows(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    traffic(5).loc[[0] * 30].assign(Label="BENIGN").to_csv("flows.csv", index=False)
    status, _, error = here("train", "flows.csv", "--out-dir", "own")
    assert status == 1 and "at least 12 different benign records, got 1; 30 rows of flows.csv" in error and "29 duplicate" in error


def test_many_names_on_the_command_line(here, tmp_path, monkeypatch):
    "More than a file may have in its name."
    monkeypatch.chdir(tmp_path)
    wide = pd.concat([traffic(90).add_suffix(f" of the {place} interface") for place in ("first", "second", "third", "fourth")], axis=1)
    wide.to_csv("flows.csv", index=False, header=False)
    names = ",".join(wide)
    assert len(names) > 255 and here("train", "flows.csv", "--header", names, "--feature-set", names, "--label-column", "none", "--preset", "fast", "--epochs", 1, "--quiet")[0] == 0
    status, _, error = here("inspect", "x" * 100_000)
    assert status == 1 and len(error) < 5000


def test_the_training_records_are_known(here, trained, tmp_path):
    benign = trained.folder / "benign.csv"
    status, out, _ = here("score", trained.model, benign, tmp_path / "scores.parquet")
    known = 800 + 150  # train and reference
    assert status == 0 and f"{known} of 1,500 records are ones that the model was made from" in out and "WARNING" not in out
    status, out, _ = here("recalibrate", trained.model, benign, tmp_path / "new.safetensors")
    assert status == 0 and "from 550 records" in out and f"{known} that the model was trained on were left out" in out


# ---------------------------------------------------------------- the way from records to alerts

def test_train_leaves_a_model_and_says_so(trained):
    record = json.loads((trained.model.parent / "train.json").read_text())
    assert record["n_train"] == 800 and record["n_epochs"] == 2
    assert len(pd.read_parquet(trained.model.parent / "calibration.parquet")) == 400


def test_feature_indexes_and_options_arrive(tmp_path):
    frame = traffic(400).assign(kind="fine")
    frame.to_csv(tmp_path / "own.csv", index=False)
    options = "--label-column kind --benign-label fine --epochs 1 --learning-rate 0.01 --optimizer sgd --seed 3 --fpr 0.05 --quiet".split()
    words = ["train", str(tmp_path / "own.csv"), "--feature-set", "Idle Max,Flow Duration", "--out-dir", str(tmp_path)]
    assert main(words + options) == 0
    record = json.loads(next(tmp_path.glob("*/*/train.json")).read_text())
    assert record["features"] == ["Idle Max", "Flow Duration", "missing cells"]
    wanted = {"learning_rate": 0.01, "optimizer": "sgd", "seed": 3, "fpr": 0.05, "epochs": 1}
    assert {name: record["parameters"][name] for name in wanted} == wanted


def test_info_reads_the_header_only(trained, here):
    status, out, _ = here("info", trained.model, "--json")
    said = json.loads(out)
    assert status == 0 and said["features"] == [*NAMES, "missing cells"] and said["n_train"] == 800 and said["n_calibration"] == 400 and said["weights"] > 1000
    assert here("info", trained.model)[1].startswith("file")


def law_info_is_not_fooled(info, folder):
    "Names in a model file add no line and steer no terminal; a header that was changed is not believed."
    import re
    from flows import X, quick
    from nfad.core import read_model, write_model
    arrays, header = read_model(quick(epochs=1).fit(X).save(folder / "m.safetensors"), "nfad-flow-3")
    header["transform"]["names"][:3] = ["a\nthreshold     999", "b\x1b[2J", "c\u202ed\u200b"]
    path = write_model(folder / "named\x1b[31m.safetensors", arrays, header, "nfad-flow-3")
    said = info(path)
    assert sum(line.startswith("threshold") for line in said.splitlines()) == 1 and "threshold     999" in said
    assert not re.search("[\x00-\x08\x0b-\x1f\u200b\u202e]", said)
    content = path.read_bytes()
    found = re.search(rb'offset.{3,5}-?([0-9])', content)  # the first digit: a change of the last may be the same number
    path.write_bytes(content[:found.start(1)] + (b"7" if found[1] != b"7" else b"3") + content[found.end(1):])
    assert "threshold " not in info(path)


def test_law_info_is_not_fooled(here, tmp_path): law_info_is_not_fooled(lambda path: "".join(here("info", path)[1:]), tmp_path)


@pytest.mark.parametrize("twin", ["believes", "prints"])
def test_law_info_is_not_fooled_catches(here, tmp_path, monkeypatch, twin):
    if twin == "believes": monkeypatch.setattr("nfad.core._require_hash", lambda arrays, header: None)
    else: monkeypatch.setattr("nfad.cli.printable", str)
    with pytest.raises(AssertionError): law_info_is_not_fooled(lambda path: "".join(here("info", path)[1:]), tmp_path)


def test_info_reads_networks_too(here, tmp_path):
    from nfad.network import NeuralClassifier
    X = pd.concat([traffic(200), strange(200)])
    path = NeuralClassifier(hidden=(8,), epochs=1).fit(X, ["calm"] * 200 + ["odd"] * 200).save(tmp_path / "network.safetensors")
    status, out, _ = here("info", path, "--json")
    said = json.loads(out)
    assert status == 0 and said["features"] == NAMES and said["classes"] == ["calm", "odd"] and said["weights"] >= 4 * 8 + 8 * 2
    assert "classes" in here("info", path)[1]


def test_info_names_an_unknown_format(here, tmp_path):
    from nfad.core import write_model
    path = write_model(tmp_path / "other.safetensors", {"a": np.ones(2)}, {}, "other-1")
    status, _, error = here("info", path)
    assert status == 1 and "other-1" in error and "nfad-flow" in error


def test_score_then_explain(trained, here, tmp_path):
    status, out, _ = here("score", trained.model, trained.records, tmp_path / "out", "--json", "--quiet")
    totals = json.loads(out)
    assert status == 0 and totals["rows"] == 860 and totals["files"] == 2 and totals["alarms"] > 30
    assert json.loads(here("score", trained.model, trained.records, tmp_path / "out", "--json", "--quiet")[1])["was_done"] == 2
    status, out, _ = here("explain", trained.model, trained.records, tmp_path / "out", "--out", tmp_path / "alerts", "--top", 5, "--json")
    alerts = json.loads(out)
    assert status == 0 and len(alerts["alerts"]) == 5 and {a["file"] for a in alerts["alerts"]} == {"night.parquet"}
    assert alerts["n_anomalies"] == totals["alarms"] and all(a["is_anomaly"] for a in alerts["alerts"])
    assert (tmp_path / "alerts" / "alerts.html").is_file() and len(pd.read_parquet(tmp_path / "alerts" / "alerts.parquet")) == 5


def test_explain_without_scores_says_what_is_missing(trained, model_path, here, tmp_path):
    (tmp_path / "empty").mkdir()
    status, out, said = here("explain", trained.model, trained.records, tmp_path / "empty")
    assert status == 1 and out == "" and "holds no scores of nfad; make them with: nfad score" in said
    traffic(5).assign(**{NAMES[0]: np.nan}).to_parquet(tmp_path / "bad.parquet")
    assert here("score", model_path, tmp_path / "bad.parquet", tmp_path / "s.parquet", "--quiet")[0] == 0
    status, out, _ = here("explain", model_path, tmp_path / "bad.parquet", tmp_path / "s.parquet", "--out", tmp_path / "alerts")
    assert status == 3 and "No record has a score" in out and f"no number in '{NAMES[0]}' (5)" in out


def test_evaluate_on_files(trained, here, tmp_path):
    traffic(500, 8).to_parquet(tmp_path / "benign.parquet")
    strange(200, 9).to_csv(tmp_path / "attack.csv", index=False)
    places = "--benign-path", tmp_path / "benign.parquet", "--attack-path", tmp_path / "attack.csv"
    status, out, _ = here("evaluate", trained.model, *places, "--json")
    said = json.loads(out)
    assert status == 0 and said["auroc"] > 0.95 and said["n_test_attack"] == 200
    assert {"precision", "recall", "f1", "oracle_threshold"} <= said.keys()
    status, out, _ = here("evaluate", trained.model.parent, *places, "--json")  # the folder of the run does as well
    assert status == 0 and json.loads(out)["auroc"] == said["auroc"]
    status, _, said = here("evaluate", trained.model.parent)
    assert status == 1 and "no attack" in said and "attack_path" in said


def law_scoring_loads_what_it_uses(words: list[str], before: str = ""):
    "`nfad score` of a table loads neither scipy's tests nor anything of training, pictures and explanations, and documents nothing."
    code = f"import sys\nsys.argv[0] = 'nfad'\n{before}\nfrom nfad.cli import main\nassert main({words!r}) == 0\nprint('modules', *sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.splitlines()[-1].split())
    assert {"jax", "pandas"} <= loaded
    assert not {"scipy.stats", "sklearn", "matplotlib", "seaborn", "shap", "duckdb", "distributed", "nfad.docs"} & loaded


def test_law_scoring_loads_what_it_uses(trained, tmp_path):
    words = ["score", str(trained.model), str(trained.records), str(tmp_path / "scores"), "--quiet"]
    law_scoring_loads_what_it_uses(words)
    assert len(list((tmp_path / "scores").iterdir())) == 2
    with pytest.raises(AssertionError): law_scoring_loads_what_it_uses(words, "import scipy.stats")


def test_recalibrate(trained, here, tmp_path):
    (traffic(500, 9) * 3).to_parquet(tmp_path / "new.parquet")
    status, out, _ = here("recalibrate", trained.model, tmp_path / "new.parquet", tmp_path / "m.safetensors", "--json")
    assert status == 0 and json.loads(out)["n_calibration"] == 500
    assert json.loads(here("info", tmp_path / "m.safetensors", "--json")[1])["threshold"] == json.loads(out)["threshold"]


def test_recalibrate_counts_records_beyond_its_limit(trained, here, tmp_path, monkeypatch):
    monkeypatch.setattr("nfad.files.recalibrate.__defaults__", (None, 300, False, ()))
    for name, seed in (("a", 9), ("b", 10)): (traffic(250, seed) * 3).to_parquet(tmp_path / f"{name}.parquet")
    status, out, _ = here("recalibrate", trained.model, tmp_path, tmp_path / "m.safetensors", "--json")
    assert status == 0 and (json.loads(out)["n_calibration"], json.loads(out)["beyond"]) == (300, 200)
    said = here("recalibrate", trained.model, tmp_path, tmp_path / "m.safetensors")[1]
    assert "from 300 records" in said and "; 200 beyond the limit were left out" in said
    out = here("recalibrate", trained.model, tmp_path / "a.parquet", tmp_path / "m.safetensors")[1]
    assert "beyond" not in out


def test_recalibrate_and_evaluate_name_files_that_are_no_tables(trained, here, tmp_path):
    for name, rows in (("calm", traffic(500, 9)), ("loud", strange(20))):
        (tmp_path / name).mkdir()
        rows.to_parquet(tmp_path / name / "new.parquet")
        (tmp_path / name / f"{name}.docx").write_text("x")
    status, out, _ = here("recalibrate", trained.model, tmp_path / "calm", tmp_path / "m.safetensors")
    assert status == 0 and "file left out: calm.docx (ending .docx)" in out
    for name in ("calm", "loud"): (tmp_path / name / "notes.txt").touch()
    asked = "evaluate", trained.model, "--benign-path", tmp_path / "calm", "--attack-path", tmp_path / "loud"
    status, out, _ = here(*asked, "--json")
    others = {str(tmp_path / name) for name in ("calm/calm.docx", "calm/notes.txt", "loud/loud.docx", "loud/notes.txt")}
    assert status == 0 and set(json.loads(out)["files_left_out"]) == others
    assert "2 files left out: " in here(*asked)[1]


# ---------------------------------------------------------------- pipes

def test_lines_of_a_pipe(trained):
    lines = [json.dumps(row | {"uid": i}) for i, row in enumerate(pd.concat([traffic(5), strange(1)]).to_dict("records"))]
    run = nfad("score", trained.model, "-", input="\n".join([*lines, "no json"]) + "\n")
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0 and [a.get("uid") for a in answers] == [0, 1, 2, 3, 4, 5, None], run.stderr
    assert answers[5]["nfad"]["is_anomaly"] and answers[6]["nfad"]["reason"] == "no JSON"


def from_pipe(monkeypatch, here, text: str, *words, status: int = 0) -> list[dict]:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    found, out, said = here(*words)
    assert found == status and "without a score" in said
    return [json.loads(line) for line in out.splitlines()]


def test_csv_of_a_pipe_scores_like_a_file(trained, monkeypatch, here, tmp_path):
    frame = pd.concat([traffic(20, 4), strange(3)])
    frame.to_csv(tmp_path / "a.csv", index=False)
    answers = from_pipe(monkeypatch, here, (tmp_path / "a.csv").read_text(), "score", trained.model, "-")
    assert here("score", trained.model, tmp_path / "a.csv", tmp_path / "s.parquet", "--quiet")[0] == 0
    assert [a["nfad"]["anomaly_score"] for a in answers] == pd.read_parquet(tmp_path / "s.parquet")["anomaly_score"].tolist()
    flagged = from_pipe(monkeypatch, here, (tmp_path / "a.csv").read_text(), "score", trained.model, "-", "--alerts-only")
    assert len(flagged) == sum(a["nfad"]["is_anomaly"] for a in answers) < 23
    assert from_pipe(monkeypatch, here, "", "score", trained.model, "-") == []


def test_a_pipe_without_a_header_has_names(trained, monkeypatch, here):
    text = traffic(5, 4).to_csv(index=False, header=False)
    named = from_pipe(monkeypatch, here, text, "score", trained.model, "-", "--header", ",".join(NAMES))
    assert [a["nfad"]["reason"] for a in named] == [None] * 5
    nameless = from_pipe(monkeypatch, here, text, "score", trained.model, "-", status=3)
    assert [a["nfad"]["reason"] for a in nameless] == ["no header line before it"] * 5


# ---------------------------------------------------------------- tables as people have them

def test_a_file_without_a_header_is_trained_scored_and_explained(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.concat([traffic(400).assign(Label="BENIGN"), strange(20).assign(Label="PortScan")])
    frame.to_csv("flows.csv", index=False, header=False, sep=";")
    names = "--header", ",".join([*NAMES, "Label"])
    assert "pass header" in here("train", "flows.csv", "--quiet")[2]
    status, out, said = here("train", "flows.csv", *names, "--preset", "fast", "--epochs", 2, "--out-dir", "own")
    assert status == 0, said
    model = next(Path("own").glob("*/*/model.safetensors"))
    status, out, said = here("score", model, "flows.csv", "scores.parquet", *names, "--quiet")
    assert status == 0 and len(pd.read_parquet("scores.parquet")) == 420, said
    status, out, said = here("explain", model, "flows.csv", "scores.parquet", *names, "--top", 5, "--quiet")
    assert status == 0, said
    for part in ("BENIGN", "PortScan"): frame[frame["Label"] == part].to_csv(f"{part}.csv", index=False, header=False)
    status, out, said = here("evaluate", model, "--benign-path", "BENIGN.csv", "--attack-path", "PortScan.csv", *names)
    assert status == 0 and out.startswith("auroc"), said
    traffic(300, 7).assign(Label="BENIGN").to_csv("new.csv", index=False, header=False)
    status, out, said = here("recalibrate", model, "new.csv", "new.safetensors", *names)
    assert status == 0 and "from 300 records" in out, said
    for words in (("evaluate", model, "--benign-path", "BENIGN.csv", "--attack-path", "PortScan.csv"), ("recalibrate", model, "new.csv", "x.safetensors")):
        status, _, said = here(*words)
        assert status == 1 and "pass header" in said


def test_a_pipe_as_a_path_is_read(trained, here, tmp_path):
    content = traffic(300, 4).to_csv(index=False).encode()
    for words in (("inspect", "PIPE"), ("score", trained.model, "PIPE", tmp_path / "s.parquet", "--quiet"),
                  ("train", "PIPE", "--label-column", "none", "--preset", "fast", "--epochs", 1, "--out-dir", tmp_path / "runs", "--quiet")):
        ends = os.pipe()
        writer = threading.Thread(target=lambda: os.fdopen(ends[1], "wb").write(content))
        writer.start()
        status, out, said = here(*[f"/dev/fd/{ends[0]}" if word == "PIPE" else word for word in words])
        writer.join()
        os.close(ends[0])
        assert status == 0, (words, said)
    assert len(pd.read_parquet(tmp_path / "s.parquet")) == 300 and len(list(tmp_path.glob("runs/*/*/model.safetensors"))) == 1


def test_train_says_what_it_understood(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.concat([traffic(300).assign(Label="BENIGN"), strange(20).assign(Label="PortScan")]).assign(**{"Flow ID": "x"})
    frame.iloc[5, 3] = np.nan
    Path("flows.csv").write_text(frame.to_csv(index=False) + "1,2\n\n")
    Path("days").mkdir()
    Path("flows.csv").rename("days/flows.csv")
    Path("days/README.md").write_text("about")
    status, out, said = here("train", "days", "--preset", "fast", "--epochs", 1, "--out-dir", "own")
    understood = out[out.index("322 rows"):]
    assert status == 0 and len(out.splitlines()) <= 12 and out.splitlines()[0].endswith("model.safetensors"), said
    for part in ("322 rows of ", "1 line with too few fields", "1 empty line", "300 benign", "20 PortScan", "1 rows with missing numbers",
                 "README.md", "CSV, comma between fields", "columns left out: ", "identifier: Flow ID"): assert part in understood, part


@pytest.mark.parametrize("kind", ["csv.gz", "tsv", "json"])
def test_what_can_be_scored_can_be_explained(trained, here, tmp_path, kind):
    frame = pd.concat([traffic(60, 5), strange(6, 6)]).assign(**{"Flow ID": "x"})
    path = tmp_path / f"night.{kind}"
    if kind == "json": frame.to_json(path, orient="records", lines=True)
    else: frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ";", decimal=",")
    assert here("score", trained.model, path, tmp_path / "s.parquet", "--quiet")[0] == 0
    status, out, said = here("explain", trained.model, path, tmp_path / "s.parquet", "--out", tmp_path / "alerts", "--top", 3, "--json", "--quiet")
    assert status == 0 and len(json.loads(out)["alerts"]) == 3, said
    assert here("evaluate", trained.model, "--benign-path", path, "--attack-path", path)[0] == 0


def test_inspect_reads_any_table(here, tmp_path):
    frame = traffic(50).assign(Label="BENIGN", host="10.0.0.1")
    frame.to_csv(tmp_path / "a.csv", index=False, sep=";", decimal=",")
    status, out, said = here("inspect", tmp_path / "a.csv")
    assert status == 0 and "semicolon" in out and "decimal comma" in out and "Idle Max" in out, said
    json.loads(here("inspect", tmp_path / "a.csv", "--json")[1])


# ---------------------------------------------------------------- mistakes

def test_exit_codes(trained, here, tmp_path):
    assert here("info", tmp_path / "none.safetensors")[0] == 1
    with pytest.raises(SystemExit) as end: main(["scoer"])
    assert end.value.code == 2
    (tmp_path / "in").mkdir()
    traffic(100).to_parquet(tmp_path / "in" / "good.parquet")
    (tmp_path / "in" / "bad.csv").write_text("a\n1\n")
    status, out, _ = here("score", trained.model, tmp_path / "in", tmp_path / "out", "--json", "--quiet")
    assert status == 3 and json.loads(out)["failed_files"][0]["file"] == "bad.csv" and json.loads(out)["scored"] == 1
    assert here("score", trained.model, tmp_path / "in", tmp_path / "strict", "--strict", "--quiet")[0] == 1


MISTAKES = {
    "train tor206": "did you mean 'tor2016'", "train demo --optimizer adamm": "optimizer", "datasets tor206": "did you mean 'tor2016'",
    "train --feature-set timing --feature-indexes 1": "not both", "score MODEL nowhere out": "nowhere", "score MODEL IN": "target",
    "score MODEL IN OUT --strict --keep Hots": "keep names", "score MODEL - --sensor zeke": "zeek",
    "explain MODEL IN nowhere": "nfad score",
    "evaluate MODEL --attack-path x": "both", "run demo --set epoch=3": "did you mean 'epochs'", "run demo --set epochs": "name=value"}


@pytest.mark.parametrize("words, text", MISTAKES.items())
def test_a_mistake_is_one_line(trained, here, tmp_path, words, text):
    places = {"MODEL": trained.model, "IN": trained.records, "OUT": tmp_path / "out"}
    status, out, said = here(*[places.get(word, word) for word in words.split()])
    last = [line for line in said.splitlines() if line.startswith("nfad ")]
    assert status == 1 and out == "" and len(last) == 1 and text in last[0], said


def test_a_damaged_model_is_refused(trained, here, tmp_path):
    for name, content in {"cut": trained.model.read_bytes()[:-100], "text": b"no model", "huge": b"\xff" * 64}.items():
        (tmp_path / name).write_bytes(content)
        for words in (["info", tmp_path / name], ["score", tmp_path / name, trained.records, tmp_path / "out", "--quiet"]):
            status, out, said = here(*words)
            assert status == 1 and name in said and not (tmp_path / "out").exists(), (words, said)


def test_verbose_shows_where(trained):
    with pytest.raises(FileNotFoundError): main(["info", "nowhere", "--verbose"])


# ---------------------------------------------------------------- Ctrl-C, and a reader that goes away

class Ignores:
    "Whoever lets it go gets an interrupt that Python ignores, as while jax collects garbage."
    def __del__(self): raise KeyboardInterrupt


def law_interrupts_end(run):
    "A command ends by an interrupt, also by one that was ignored, with the code 130."
    def command():
        "Takes long."
        Ignores()
        time.sleep(3)
        return Said({}, "not interrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMMANDS, "datasets", command)
        assert run("datasets") == 130


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_law_interrupts_end():
    law_interrupts_end(lambda word: main([word]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_law_interrupts_end_catches(monkeypatch):
    monkeypatch.setattr("nfad.cli.insistent_interrupts", nullcontext)
    with pytest.raises(AssertionError): law_interrupts_end(lambda word: main([word]))


def test_an_idle_stream_is_interrupted(model_path):
    run = subprocess.Popen([sys.executable, "-c", START, "score", model_path, "-"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdin.write(json.dumps(dict.fromkeys(NAMES, 3)).encode() + b"\n")
    run.stdin.flush()
    assert json.loads(run.stdout.readline())["nfad"]["anomaly_score"]
    run.send_signal(signal.SIGINT)
    output, error = run.communicate(timeout=60)
    assert (run.returncode, output, error) == (130, b"", b"interrupted; the same command goes on where it was\n")


def test_a_reader_that_goes_away_is_no_trouble(model_path):
    run = subprocess.Popen([sys.executable, "-c", START, "score", model_path, "-"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run.stdin.write(20 * (json.dumps(dict.fromkeys(NAMES, 3)).encode() + b"\n"))
    run.stdin.flush()
    assert run.stdout.readline()
    run.stdout.close()
    run.stdin.write(20 * (json.dumps(dict.fromkeys(NAMES, 3)).encode() + b"\n"))
    run.stdin.flush()  # and it is left open
    assert run.stderr.read() == b"" and run.wait(timeout=60) == 0


def test_scoring_is_interrupted_and_goes_on(model_path, tmp_path):
    write_many(traffic(500), tmp_path / "in", 400_000, n_files=20)
    score = [sys.executable, "-c", START, "score", str(model_path), str(tmp_path / "in"), str(tmp_path / "out"), "--quiet"]
    for after in (1, 5):
        run = subprocess.Popen(score, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while len(list(tmp_path.glob("out/[!.]*"))) < after and run.poll() is None: time.sleep(0.002)
        run.send_signal(signal.SIGINT)
        assert (run.wait(timeout=60), run.stderr.read()) == (130, b"interrupted; the same command goes on where it was\n")
        assert not list(tmp_path.glob("out/.*")) and all(read_scored(path) for path in tmp_path.glob("out/*"))
    run = json.loads(subprocess.run([*score, "--json"], cwd=ROOT, capture_output=True, check=True).stdout)
    assert run["rows"] == 400_000 and run["was_done"] >= 5 and run["failed"] == 0


# ---------------------------------------------------------------- answers

def test_from_a_list_to_a_rule_and_a_shorter_list(here, trained, tmp_path):
    "What `explain` writes can be answered and suppressed, and what a rule hides is counted in text, JSON and page, and kept."
    folder, scores = tmp_path / "alerts", tmp_path / "scores"
    assert here("score", trained.model, trained.records, scores, "--quiet")[0] == 0
    explain = ("explain", trained.model, trained.records, scores, "--out", folder, "--top", 5, "--quick")
    assert here(*explain)[0] == 0
    assert "attack for 2 records" in here("verdict", folder, "1,3", "attack", "--who", "anna")[1]
    until = str(pd.Timestamp.now("UTC").date() + pd.Timedelta(days=2))
    assert "1 of the 5 listed now" in here("suppress", folder, "2", "--by", "Flow ID", "--until", until, "--who", "anna")[1]
    rules = folder / "rules.jsonl"
    status, text, _ = here(*explain, "--suppress", rules)
    said = json.loads(here(*explain, "--suppress", rules, "--json")[1])
    page, table = (folder / "alerts.html").read_text(), pd.read_parquet(folder / "alerts.parquet")
    assert status == 0 and all("1 alert not shown by 1 rule, the next expires" in where for where in (text, said["said"], page))
    assert [row["rank"] for row in said["alerts"]] == [1, 3, 4, 5, 6] and said["suppressed"]["n"] == 1
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6] and (table["suppressed_by"] != "").tolist() == [False, True, False, False, False, False]
    before = rules.read_bytes()
    assert here("explain", *explain[1:4], "--out", rules, "--suppress", rules)[0] == 1 and rules.read_bytes() == before


def test_from_questions_to_a_model_that_knows_the_answers(here, trained, tmp_path):
    "Questions, answers, a new model, and the new model does what the old one did."
    scores, asked, learnt = tmp_path / "scores", tmp_path / "asked", tmp_path / "learnt.safetensors"
    calm = Path(trained.model).parent / "calibration.parquet"
    assert here("score", trained.model, trained.records, scores, "--quiet")[0] == 0
    explain = ("explain", trained.model, trained.records, scores, "--out", asked, "--ask", 6, "--quiet")
    assert here(*explain)[0] == 0 and calm.is_file()
    first = pd.read_parquet(asked / "alerts.parquet")
    assert first["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert here("verdict", asked, "1-4", "attack", "--who", "anna")[0] == here("verdict", asked, "5,6", "benign", "--who", "anna")[0] == 0
    status, text, _ = here("learn", trained.model, asked / "verdicts.jsonl", learnt, "--calibration", calm, "--source", trained.records)
    assert status == 0 and "6 answers, 4 of them attack" in text and "of 4 answered attacks" in text and "disappear" in text
    facts = json.loads(here("info", learnt, "--json")[1])
    assert facts["answers"] == 6 and len(facts["ancestors"]) == 1
    again = tmp_path / "again"
    assert here("score", learnt, trained.records, again, "--quiet")[0] == 0
    assert here("explain", learnt, trained.records, again, "--out", tmp_path / "alerts", "--quick", "--quiet")[0] == 0
    more = here(*explain[:4], "--out", tmp_path / "more", "--ask", 6, "--answered", asked / "verdicts.jsonl", "--quiet")
    assert more[0] == 0
    names = ["file", "row"]
    second = pd.read_parquet(tmp_path / "more" / "alerts.parquet")
    assert not set(map(tuple, first[names].to_numpy())) & set(map(tuple, second[names].to_numpy()))
    records = Path(trained.model).read_bytes()
    assert here("learn", trained.model, asked / "verdicts.jsonl", trained.model)[0] == 1  # it reads that file
    assert Path(trained.model).read_bytes() == records


def test_every_command_says_what_it_does_not_use_of_benign_records(trained, here, tmp_path, monkeypatch):
    "Scores, alerts, questions and the audit of training, with 200 of 300 records, of which ten are none."
    from nfad import serving
    whole = serving.usable_records
    monkeypatch.setattr("nfad.serving.usable_records", lambda path, recipe, *how: whole(path, recipe, 200))
    (tmp_path / "calm.csv").write_text(traffic(290, 12).to_csv(index=False) + "1,2,3,4,5,6,7\n" * 10)
    calm, scores, out = tmp_path / "calm.csv", tmp_path / "scores", ("--out", tmp_path / "alerts", "--force")
    cut = "records used; 10 without a score, 90 beyond the limit were left out"
    assert f"200 of 300 reference {cut}" in here("score", trained.model, trained.records, scores, "--reference", calm)[1]
    again = ("score", trained.model, trained.records, tmp_path / "more", "--reference", calm, "--json")
    assert cut in json.loads(here(*again)[1])["note"]
    explain = ("explain", trained.model, trained.records, scores, "--background", calm, "--top", 2, *out)
    audit = ("audit", trained.model, trained.folder / "benign.csv", "--calibration", calm, "--top", 2, *out)
    for words in (explain, (*explain, "--ask", 2, "--quick"), (*audit, "--quick")):
        assert f"200 of 300 benign {cut}" in here(*words)[1]
        assert json.loads(here(*words, "--json")[1])["cut"] == [f"200 of 300 benign {cut}"]
    assert "were left out" not in here(*explain, "--quick")[1], "nothing was read"
