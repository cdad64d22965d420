"""The user's commands: papermill on the notebooks, their results, and what a mistake leaves behind.

What a command says and leaves is looked at where papermill runs it: the way of the demo set, and an unknown name. The other laws
are about the cells of a run, which are run here, without the lessons; a process and a kernel for each would take longer than the run.
"""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import pyplot
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from nfad.demo import simulate_demo
from nfad.grid import without_lessons
from notebooks import NBS, ROOT

TRAIN, SCORE = NBS / "03_train.ipynb", NBS / "04_score.ipynb"
pytestmark = pytest.mark.skipif(not (TRAIN.exists() and SCORE.exists()), reason="03_train and 04_score are not written yet")

METRICS = ["auroc", "average_precision", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001", "macro_auroc", "min_auroc", "threshold", "realised_fpr",
           "precision", "recall", "f1", "accuracy", "n_train", "n_test_benign", "n_test_attack"]


def papermill(notebook: Path, folder: Path, **parameters) -> subprocess.CompletedProcess:
    "`papermill notebook out.ipynb -p name value ...`, as typed in the repository's root, with results in `folder`."
    folder.mkdir(parents=True, exist_ok=True)
    options = [text for name, value in ({"out_dir": folder / "runs"} | parameters).items() for text in ("-p", name, str(value))]
    environment = {key: value for key, value in os.environ.items() if key not in ("MPLBACKEND", "IN_TEST")}
    environment |= {"NFAD_DATA": str(folder / "no data"), "JUPYTER_PATH": f"{sys.prefix}/share/jupyter"}
    command = [Path(sys.executable).parent / "papermill", notebook, folder / f"out_{notebook.name}", "--no-progress-bar", *options]
    return subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)


def files(folder: Path) -> dict[str, int]:
    "Name and size of every file in a folder of results."
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def law_no_results(folder: Path):
    "A command that failed leaves no result behind, finished or half-written."
    assert files(folder) == {}


def said(run: subprocess.CompletedProcess) -> str:
    "What the user reads, without colors; the command must have failed."
    assert run.returncode != 0, "the command succeeded"
    return re.sub(r"\x1b\[[0-9;]*m", "", run.stderr + run.stdout)


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> dict[str, Path]:
    "Both notebooks without their lessons."
    folder = tmp_path_factory.mktemp("short")
    return {step.stem[3:]: without_lessons(step.stem, folder / step.name) for step in (TRAIN, SCORE)}


def run_here(notebook: Path, folder: Path, **parameters):
    "Runs the cells that papermill would run, in this process, with results in `folder`."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NFAD_DATA", str(folder / "no data"))
        given = {name: str(value) if isinstance(value, Path) else value for name, value in ({"out_dir": folder / "runs"} | parameters).items()}
        namespace: dict = {"In": []}
        for cell in parameterize_notebook(load_notebook_node(str(notebook)), given).cells:
            if cell.cell_type != "code": continue
            namespace["In"].append(cell.source)
            exec(compile(cell.source, notebook.name, "exec"), namespace)
            pyplot.close("all")


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory) -> Path:
    "Folder of the results of both notebooks on the demo set, after two epochs."
    folder = tmp_path_factory.mktemp("demo")
    for notebook, parameters in ((TRAIN, {"dataset": "demo", "epochs": 2}), (SCORE, {"dataset": "demo", "pairs": False})):
        run = papermill(notebook, folder, **parameters)
        assert run.returncode == 0, run.stderr[-3000:]
    return next((folder / "runs" / "demo").iterdir())


# ---------------------------------------------------------------- results

def test_training_and_scoring_leave_their_results(demo_run):
    left = files(demo_run)
    assert {"model.safetensors", "train.json", "scores.parquet", "score.json", "loss.png"} <= left.keys()
    assert sum(name.endswith(".png") for name in left) >= 4 and all(left.values())
    assert not [name for name in left if "tmp" in name or name.startswith(".")], left


def test_score_json_has_flat_finite_metrics(demo_run):
    score = json.loads((demo_run / "score.json").read_text(encoding="utf-8"))
    assert [key for key in METRICS if not isinstance(score.get(key), int | float)] == []
    assert score["per_class"] and all({"auroc", "n"} <= entry.keys() for entry in score["per_class"].values())
    assert sum(entry["n"] for entry in score["per_class"].values()) == score["n_test_attack"]


def test_train_json_says_what_was_run(demo_run):
    train = json.loads((demo_run / "train.json").read_text(encoding="utf-8"))
    assert train["n_epochs"] == 2 and train["n_train"] > 0 and {"fingerprint", "versions", "train_seconds"} <= train.keys()


def test_scores_are_one_row_a_test_record(demo_run):
    score, scores = json.loads((demo_run / "score.json").read_text(encoding="utf-8")), pd.read_parquet(demo_run / "scores.parquet")
    assert len(scores) == score["n_test_benign"] + score["n_test_attack"] and not scores.isna().any().any()


def test_the_users_own_file(short, tmp_path):
    demo = simulate_demo(n_benign=1500, n_attack_per_class=20)[["Flow Duration", "Fwd Packets/s", "Flow IAT Mean", "Label"]]
    demo.assign(Label=demo.Label.replace("BENIGN", "fine")).rename(columns={"Label": "kind"}).to_csv(tmp_path / "own.csv", index=False)
    labels = {"label_column": "kind", "benign_label": "fine"}
    run_here(short["train"], tmp_path, dataset=tmp_path / "own.csv", epochs=1, preset="fast", **labels)
    run_here(short["score"], tmp_path, dataset=tmp_path / "own.csv", pairs=False)
    assert {Path(name).name for name in files(tmp_path / "runs")} >= {"model.safetensors", "score.json", "scores.parquet"}


# ---------------------------------------------------------------- mistakes

def test_an_unknown_name_ends_the_command(tmp_path):
    message = said(papermill(TRAIN, tmp_path, epoch=3))
    assert "epoch" in message and "did you mean 'epochs'" in message, message[-1500:]
    law_no_results(tmp_path / "runs")


MISTAKES = {
    "name": ("train", {"epoch": 3}, ["epoch", "did you mean 'epochs'"]),
    "dataset": ("train", {"dataset": "tor206"}, ["tor206", "did you mean 'tor2016'"]),
    "optimizer": ("train", {"optimizer": "adamm"}, ["optimizer", "did you mean 'adam'"]),
    "column": ("train", {"dataset": Path("own.csv"), "label_column": "knd"}, ["knd", "kind"]),
    "order": ("score", {"dataset": Path("own.csv")}, ["papermill nbs/03_train.ipynb", "own.csv"])}


@pytest.mark.parametrize("step, parameters, words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_and_leaves_nothing(short, tmp_path, step, parameters, words):
    (tmp_path / "own.csv").write_text("Flow Duration,Flow Packets/s,kind\n" + "1.5,2,BENIGN\n" * 9, encoding="utf-8")
    placed = {name: tmp_path / value if isinstance(value, Path) else value for name, value in parameters.items()}
    with pytest.raises((ValueError, KeyError, FileNotFoundError)) as mistake: run_here(short[step], tmp_path, **placed)
    message = str(mistake.value)
    assert [word for word in words if word not in message] == [], message
    law_no_results(tmp_path / "runs")


def test_a_damaged_model_is_refused_and_nothing_is_scored(demo_run, short, tmp_path):
    folder = tmp_path / "runs" / "demo" / demo_run.name
    shutil.copytree(demo_run, folder)
    for result in ("scores.parquet", "score.json"): (folder / result).unlink()
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors"): run_here(short["score"], tmp_path, dataset="demo")
    assert not {"scores.parquet", "score.json"} & files(folder).keys()


def test_the_laws_catch_a_success_and_a_leftover(tmp_path):
    with pytest.raises(AssertionError): said(subprocess.CompletedProcess([], 0, "", ""))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / ".score.json.tmp").touch()
    with pytest.raises(AssertionError): law_no_results(tmp_path)
