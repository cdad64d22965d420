"Laws of 12c_paper and 12d_claims: what is stale is run, and nothing else; sentences say what their tables hold."
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nfad.claims import OF, Claim, check_claims, read_claims
from nfad.core import read_json
from nfad.paper import Stage, accept_stages, find_stale, made_by, make_stages, plot_stages, read_stages

ROOT = Path(__file__).resolve().parent.parent
WORK = """import sys, time
WAIT = 0.0
source, target = sys.argv[1:]
start = time.time()
time.sleep(WAIT)
text = open(source).read() * 2
open(target, "w").write(text)
open(target + ".times", "w").write(f"{start} {time.time()}")
"""


def house(folder: Path, **stages: dict) -> dict[str, Stage]:
    "A folder with a script and stages that call it, `reads` -> `<name>.txt`."
    (folder / "work.py").write_text(WORK)
    for name in ("a", "b", "c"): (folder / f"{name}.in").write_text(name)
    return {name: Stage(name, "", (f"{name}.txt",), ("work.py", reads, f"{name}.txt"), inputs=(reads,), constants=("work.py:WAIT",), **more)
            for name, (reads, more) in stages.items()}


def test_a_clean_tree_has_nothing_to_do():
    stages = read_stages(ROOT / "figures" / "paper.toml")
    table = find_stale(stages, read_json(ROOT / "figures" / "paper.json"), ROOT)
    assert not table["stale"].any(), table[table["stale"]]["why"].to_dict()
    made = {output for stage in stages.values() for output in stage.outputs}
    tables = {f"figures/{path.name}" for path in (ROOT / "figures").glob("*.csv")}
    assert tables <= made, f"no stage makes {sorted(tables - made)}"


def test_one_parameter_runs_what_depends_on_it_and_nothing_else(tmp_path):
    stages = house(tmp_path, first=("a.in", {}), second=("first.txt", {}), other=("b.in", {}))
    account = tmp_path / "paper.json"
    assert make_stages(stages, account, tmp_path) == dict.fromkeys(["first", "other", "second"], "run")
    assert make_stages(stages, account, tmp_path) == {}
    (tmp_path / "a.in").write_text("moved")
    assert make_stages(stages, account, tmp_path) == {"first": "run", "second": "run"}
    assert (tmp_path / "second.txt").read_text() == "moved" * 4


def test_a_default_parameter_of_a_notebook_counts(tmp_path):
    (tmp_path / "nbs").mkdir()
    def notebook(value): return json.dumps({"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": f"epochs = {value}\nseed = 0"}]})
    (tmp_path / "nbs" / "lesson.ipynb").write_text(notebook(3))
    stage = Stage("lesson", "", ("a.in",), ("work.py",), settings_of=("lesson",))
    (tmp_path / "a.in").write_text("a")
    accept_stages({"lesson": stage}, tmp_path / "paper.json", tmp_path, ["lesson"])
    account = read_json(tmp_path / "paper.json")
    assert not find_stale({"lesson": stage}, account, tmp_path)["stale"]["lesson"]
    (tmp_path / "nbs" / "lesson.ipynb").write_text(notebook(4))
    assert find_stale({"lesson": stage}, account, tmp_path)["why"]["lesson"] == "parameter epochs of lesson"


def test_a_failure_stops_what_reads_its_file_and_nothing_else(tmp_path):
    stages = house(tmp_path, first=("a.in", {}), second=("first.txt", {}), other=("b.in", {}))
    (tmp_path / "a.in").unlink()
    said = make_stages(stages, tmp_path / "paper.json", tmp_path)
    assert said["other"] == "run" and "FileNotFoundError" in said["first"] and said["second"] == "failed: waits for first"
    assert list(read_json(tmp_path / "paper.json")) == ["other"]
    (tmp_path / "a.in").write_text("a")
    assert make_stages(stages, tmp_path / "paper.json", tmp_path) == {"first": "run", "second": "run"}


def overlap(folder: Path, first: str, second: str) -> bool:
    "Whether two stages ran at the same time."
    spans = [tuple(map(float, (folder / f"{name}.txt.times").read_text().split())) for name in (first, second)]
    return max(start for start, _ in spans) < min(end for _, end in spans)


def test_two_at_a_time_but_nothing_beside_one_that_measures_speed(tmp_path):
    stages = house(tmp_path, first=("a.in", {}), second=("b.in", {}), fast=("c.in", {"alone": True}))
    (tmp_path / "work.py").write_text(WORK.replace("WAIT = 0.0", "WAIT = 1.0"))
    make_stages(stages, tmp_path / "paper.json", tmp_path)
    assert overlap(tmp_path, "first", "second")
    assert not overlap(tmp_path, "fast", "first") and not overlap(tmp_path, "fast", "second")


def test_who_is_killed_goes_on_where_he_stopped(tmp_path):
    house(tmp_path)
    (tmp_path / "work.py").write_text(WORK.replace("WAIT = 0.0", "WAIT = 1.0"))
    (tmp_path / "go.py").write_text(f"""import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from nfad.paper import Stage, make_stages
def stage(name, reads): return Stage(name, "", (name + ".txt",), ("work.py", reads, name + ".txt"), inputs=(reads,))
stages = {{"first": stage("first", "a.in"), "second": stage("second", "first.txt")}}
print(make_stages(stages, "paper.json", Path.cwd()))
""")
    run = subprocess.Popen([sys.executable, "go.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout.readline() == "first: run\n"
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert list(read_json(tmp_path / "paper.json")) == ["first"] and not (tmp_path / "second.txt").exists()
    again = subprocess.run([sys.executable, "go.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stdout.splitlines()[-1] == "{'second': 'run'}"


def test_data_that_is_not_here_says_nothing(tmp_path, monkeypatch):
    stages = {"one": Stage("one", "", ("a.in",), ("work.py",), data=("traffic",))}
    (tmp_path / "a.in").write_text("a")
    (tmp_path / "data" / "traffic").mkdir(parents=True)
    (tmp_path / "data" / "traffic" / "x.csv").write_text("1")
    monkeypatch.setenv("NFAD_DATA", str(tmp_path / "data"))
    accept_stages(stages, tmp_path / "paper.json", tmp_path, ["one"])
    account = read_json(tmp_path / "paper.json")
    (tmp_path / "data" / "traffic" / "x.csv").write_text("2")
    assert find_stale(stages, account, tmp_path)["why"]["one"] == "data traffic"
    shutil.rmtree(tmp_path / "data" / "traffic")
    assert not find_stale(stages, account, tmp_path)["stale"]["one"]


@pytest.mark.parametrize("text, rule", [
    ('[x]\nsays = ""\noutputs = []\n', "either a command or a notebook"),
    ('[x]\nsays = ""\noutputs = []\ncommand = ["a"]\nnotebook = "b"\n', "either a command or a notebook"),
    ('[x]\nsays = ""\noutputs = []\ncommand = ["a"]\ncolour = 1\n', "colour"),
    ('[x]\nsays = ""\noutputs = ["f"]\ncommand = ["a"]\n[y]\nsays = ""\noutputs = ["f"]\ncommand = ["a"]\n', "two stages make f")])
def test_a_file_of_stages_is_checked(tmp_path, text, rule):
    (tmp_path / "paper.toml").write_text(text)
    with pytest.raises(ValueError, match=rule): read_stages(tmp_path / "paper.toml")


def test_a_table_says_who_made_it():
    assert made_by("figures/dirt.csv").startswith("figures/dirt.csv: stage dirt, commit ")
    with pytest.raises(ValueError, match="nothing.csv"): made_by("figures/nothing.csv")


def test_the_picture_shows_every_stage():
    stages = read_stages(ROOT / "figures" / "paper.toml")
    ax = plot_stages(stages, dict.fromkeys(stages, False))
    assert set(stages) <= {text.get_text() for text in ax.texts}


def test_sentences_say_what_their_tables_hold():
    table = check_claims(read_claims(ROOT / "figures" / "claims.toml"))
    wrong = table[~(table["found"] & table["holds"])]
    assert len(table) > 50 and wrong.empty, wrong.to_string()


@pytest.mark.parametrize("shown, holds", [("87", True), ("87.1", True), ("86", False), ("88", False), ("87.11", True), ("87.12", False)])
def test_the_tolerance_is_what_is_shown(tmp_path, shown, holds):
    (tmp_path / "t.csv").write_text("name,share\na,0.87111\n")
    assert Claim("n", f"found [{shown}] %", "t.csv", "share", "name == 'a'", "only", 100).holds(tmp_path) is holds


@pytest.mark.parametrize("of, value", list(zip(OF[1:], (1.0, 3.0, 2.0, 6.0, 3), strict=True)))
def test_a_claim_over_several_rows(tmp_path, of, value):
    (tmp_path / "t.csv").write_text("x\n1\n2\n3\n")
    assert Claim("n", "[0]", "t.csv", "x", of=of).value(tmp_path) == value
    with pytest.raises(ValueError, match="one row"): Claim("n", "[0]", "t.csv", "x").value(tmp_path)


def test_a_sentence_that_was_rewritten_is_missed(tmp_path):
    (tmp_path / "t.json").write_text('{"a": {"b": 1234.4}}')
    (tmp_path / "README.md").write_text("It took 1,234\nseconds.")
    claims = [Claim("README", "It took [1,234] seconds", "t.json", "a.b"), Claim("README", "It takes [1,234] seconds", "t.json", "a.b")]
    table = check_claims(claims, tmp_path)
    assert table["found"].tolist() == [True, False] and table["holds"].all()


@pytest.mark.parametrize("entry, rule", [('says = "no number"', "one number in brackets"), ('says = "[1] of [2]"', "one number in brackets"),
                                         ('says = "[1]"\nof = "median"', "of must be one of"), ('says = "[1]"\nunit = "s"', "unit")])
def test_a_file_of_claims_is_checked(tmp_path, entry, rule):
    (tmp_path / "claims.toml").write_text(f'[[claim]]\nnotebook = "x"\ntable = "t.csv"\ncolumn = "c"\n{entry}\n')
    with pytest.raises(ValueError, match=rule): read_claims(tmp_path / "claims.toml")
