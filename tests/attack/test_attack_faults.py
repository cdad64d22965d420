"""Faults around every write: a full disk, a read-only one, a folder that goes away, and SIGKILL at random moments.

A command that cannot write says so in a plain sentence, leaves nothing half-written, and the same command goes on afterwards.
"""
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import attacks
from attacks import ATTACKS, run_attacks
from invariants import all_is_whole, cheap_model, contents, no_traceback, same_scores
from nfad.answers import read_verdicts
from nfad.cli import main
from nfad.core import read_header, read_model
from nfad.detector import FlowDetector
from nfad.files import connect, disconnect, score_files, write_many
from nfad.journal import entries_of, numbered_lines
from nfad.suppression import read_rules
from nights import NAMES, detector, model_path, records, strange, traffic, write_folder
from notebooks import ROOT

as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk takes root")


@pytest.fixture
def small_disk(tmp_path):
    "A folder on a disk of 1 MB."
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode: pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def home(model_path, tmp_path):
    "A model, records and scores of them, on another disk."
    (tmp_path / "m.safetensors").write_bytes(model_path.read_bytes())
    write_folder(tmp_path / "in", 2, 300)
    pd.concat([traffic(300).assign(Label="BENIGN"), strange(40).assign(Label="Bot")]).to_csv(tmp_path / "a.csv", index=False)
    assert main(["score", str(model_path), str(tmp_path / "in"), str(tmp_path / "scores"), "--quiet"]) == 0
    return tmp_path


def commands(home: Path, disk: Path) -> dict[str, list]:
    "Everything that writes, told to write to a disk."
    train = ["train", home / "a.csv", "--out-dir", disk / "runs", *"--epochs 1 --preset fast --train-size 100 --val-size 100 --quiet".split()]
    return {"score": ["score", home / "m.safetensors", home / "in", disk / "out", "--quiet", "--keep", "all"],
            "one": ["score", home / "m.safetensors", home / "in" / "0.parquet", disk / "s.parquet", "--quiet"],
            "recalibrate": ["recalibrate", home / "m.safetensors", home / "a.csv", disk / "n.safetensors"],
            "explain": ["explain", home / "m.safetensors", home / "in", home / "scores", "--out", disk / "page", "--quick", "--quiet"], "train": train}


def run(words, capsys) -> tuple[int, str]:
    capsys.readouterr()
    status = main([str(word) for word in words])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def law_no_room(status, said, disk):
    "Too little room: another exit code than 0, a sentence, no traceback, nothing half-written."
    no_traceback(said)
    assert status in (1, 3) and ("No space left" in said or "Read-only" in said or "No such file" in said), said[-500:]
    all_is_whole(disk)


@as_root
@pytest.mark.parametrize("name", ["score", "one", "recalibrate", "explain", "train"])
def test_a_full_disk(home, small_disk, capsys, patient, name):
    def case(attack):
        for path in small_disk.iterdir(): shutil.rmtree(path) if path.is_dir() else path.unlink()
        room = 0 if attack.number == 0 else int(attack.rng.integers(0, 120_000))
        (small_disk / "filler.bin").write_bytes(bytes((1 << 20) - (room // 4096) * 4096))
        before = contents(home / "in") | contents(home / "scores")
        status, said = run(commands(home, small_disk)[name], capsys)
        if status: law_no_room(status, said, small_disk)
        all_is_whole(small_disk)
        assert contents(home / "in") | contents(home / "scores") == before
        (small_disk / "filler.bin").unlink()
        assert run(commands(home, small_disk)[name], capsys)[0] == 0  # the same command, with room
        return status
    outcomes = run_attacks(f"full disk, {name}", case, share=0.006)
    assert outcomes[0] < outcomes.total()


@as_root
def test_a_read_only_disk(home, small_disk, capsys):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for words in commands(home, small_disk).values(): law_no_room(*run(words, capsys), small_disk)


@as_root
def test_an_old_run_outlives_a_full_disk(home, small_disk, capsys):
    train = commands(home, small_disk)["train"]
    assert run(train, capsys)[0] == 0
    before = contents(small_disk)
    used = sum(path.stat().st_size + 4096 for path in small_disk.rglob("*"))
    (small_disk / "filler.bin").write_bytes(bytes((((1 << 20) - used - 20_000) // 4096) * 4096))
    law_no_room(*run(train, capsys), small_disk)
    (small_disk / "filler.bin").unlink()
    assert contents(small_disk) == before


def test_a_folder_that_goes_away(home, monkeypatch, capsys):
    score = FlowDetector.anomaly_score
    def removing(*how):
        shutil.rmtree(home / "disk" / "out", ignore_errors=True)
        return score(*how)
    monkeypatch.setattr(FlowDetector, "anomaly_score", removing)
    law_no_room(*run(commands(home, home / "disk")["score"], capsys), home / "disk")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["info"], ["score", "-"]])
def test_output_that_nothing_takes(model_path, words):
    line = '{"Flow Duration": 1, "Total Fwd Packets": 1, "Flow IAT Mean": 1, "Idle Max": 1}\n'
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", START, words[0], model_path, *words[1:]], cwd=ROOT, input=line, stdout=full, stderr=subprocess.PIPE, text=True)
    no_traceback(done.stderr)
    assert done.returncode == 1 and "No space left" in done.stderr


def test_law_no_room_catches(tmp_path):
    with pytest.raises(AssertionError): law_no_room(0, "", tmp_path)
    with pytest.raises(AssertionError): law_no_room(1, "Traceback: No space left", tmp_path)
    (tmp_path / ".a.12.tmp.parquet").touch()
    with pytest.raises(AssertionError, match="left over"): law_no_room(1, "No space left", tmp_path)
    (tmp_path / ".a.12.tmp.parquet").rename(tmp_path / "a.parquet")
    with pytest.raises(Exception, match="Parquet"): law_no_room(1, "No space left", tmp_path)


# ---------------------------------------------------------------- killed at random, and begun again

START = "import sys; from nfad.cli import main; sys.exit(main())"


@pytest.fixture
def patient(monkeypatch):
    "Two starts of Python may take longer than a case that hangs."
    monkeypatch.setattr(attacks, "LONGEST", 120)


def start(words) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", START, *map(str, words)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def killed_at_random(words, seconds: float, attack, until) -> int:
    "Starts a command, kills it at a random moment after its first result began, then lets it end; how often it was killed."
    process = start(words)
    while not until() and process.poll() is None: time.sleep(0.001)
    time.sleep(attack.rng.uniform(0, seconds))
    process.kill()
    n_killed = int(process.wait() == -signal.SIGKILL)
    process.stderr.close()
    process = start(words)
    error = process.stderr.read().decode()
    assert process.wait() == 0, error
    no_traceback(error)
    return n_killed


def test_killed_scoring_goes_on(model_path, tmp_path, patient):
    write_many(traffic(500), tmp_path / "in", 300_000, n_files=12)
    score = lambda name: ["score", model_path, tmp_path / "in", tmp_path / name, "--quiet"]
    assert start(score("whole")).wait() == 0
    def case(attack):
        out = tmp_path / f"out-{attack.number}"
        n_killed = killed_at_random(score(out.name), 0.4, attack, out.exists)
        all_is_whole(out)
        same_scores(tmp_path / "whole", out)
        shutil.rmtree(out)
        return n_killed
    run_attacks("killed, score", case, share=KILLS)


def test_killed_explaining_goes_on(model_path, tmp_path, patient):
    write_folder(tmp_path / "in", 2, 300)
    assert main(["score", str(model_path), str(tmp_path / "in"), str(tmp_path / "scores"), "--quiet"]) == 0
    explain = lambda name: ["explain", model_path, tmp_path / "in", tmp_path / "scores", "--out", tmp_path / name, "--quick", "--quiet"]
    assert start(explain("whole")).wait() == 0
    def case(attack):
        out = tmp_path / f"out-{attack.number}"
        n_killed = killed_at_random(explain(out.name), 0.05, attack, out.exists)
        assert contents(out) == contents(tmp_path / "whole")
        return n_killed
    run_attacks("killed, explain", case, share=KILLS)


def test_killed_training_goes_on(tmp_path, patient):
    traffic(900).to_csv(tmp_path / "a.csv", index=False)
    settings = "--epochs 6 --preset fast --train-size 500 --val-size 200 --quiet".split()
    train = lambda name: ["train", "--benign-path", tmp_path / "a.csv", "--out-dir", tmp_path / name, *settings]
    found = lambda name: next((tmp_path / name).glob("*/*"))
    assert start(train("whole")).wait() == 0
    arrays = lambda name: read_model(found(name) / "model.safetensors", read_header(found(name) / "model.safetensors")["format"])[0]
    wanted = arrays("whole")
    def case(attack):
        name = f"runs-{attack.number}"
        n_killed = killed_at_random(train(name), 0.4, attack, lambda: any((tmp_path / name).rglob("checkpoint*")))
        all_is_whole(tmp_path / name)
        assert sorted(path.name for path in found(name).iterdir()) == ["calibration.parquet", "model.safetensors", "train.json"]
        made = arrays(name)
        assert made.keys() == wanted.keys() and all(np.array_equal(made[key], wanted[key], equal_nan=True) for key in wanted), "other bits"
        shutil.rmtree(tmp_path / name)
        return n_killed
    run_attacks("killed, train", case, share=KILLS)


KILLS = 0.002 if ATTACKS <= 500 else 0.005  # of ATTACKS: 1, or 100


def test_leftovers_of_killed_workers_are_cleaned(tmp_path):
    write_many(traffic(500), tmp_path / "in", 100_000, n_files=5)
    client = connect(n_workers=1, processes=False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".part-3.99.tmp.parquet").write_bytes(b"PAR1")  # of a worker on another machine, perhaps
    (tmp_path / "out" / ".mine.tmp.parquet").write_bytes(b"somebody's")
    try: report = score_files(cheap_model()._replace(detector=FlowDetector(hidden=8, epochs=1, n_layers=1).fit(traffic(300)).calibrate(traffic(200, 1))),
                              tmp_path / "in", tmp_path / "out", scheduler=client, progress=False)
    finally: disconnect(client)
    assert report.totals()["scored"] == 5 and [path.name for path in (tmp_path / "out").glob(".*")] == [".mine.tmp.parquet"]


# ---------------------------------------------------------------- answers, rules and what is learnt from them

APPEND = ("import sys; from nfad.journal import append_lines, line_of\n"
          "for i in range(int(sys.argv[2]), 400):\n"
          "    append_lines(sys.argv[1], [line_of({'i': i, 'note': 'x' * (i % 7 * 400)}, 'verdict')], 'verdict')\n"
          "    print(i, flush=True)")


def appending(path, first: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", APPEND, str(path), str(first)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def read_journal(path) -> tuple[list[int], int]:
    "The numbers in a journal, and how many lines are none."
    found, named = [], 0
    for _, line in numbered_lines(path):
        try: found.append(entries_of(line, "verdict")["i"])
        except ValueError: named += 1
    return found, named


def law_journals_keep_what_was_said(path, attack, read) -> int:
    "What was acknowledged before a kill is there, in order, once; at most the line in work is cut, and the rest can be added."
    process = appending(path, 0)
    process.stdout.readline()
    time.sleep(attack.rng.uniform(0, 0.1))
    process.kill()
    acknowledged = 1 + len(process.stdout.read().splitlines())
    n_killed = int(process.wait() == -signal.SIGKILL)
    process.stdout.close()
    found, named = read(path)
    assert found == list(range(len(found))) and acknowledged <= len(found) <= acknowledged + 1 and named <= 1, "a line is lost, torn or invented"
    rest = appending(path, len(found))
    rest.communicate()
    assert read(path) == (list(range(400)), named), "the journal cannot be gone on with"
    return n_killed


def test_killed_journals_keep_what_was_said(tmp_path, patient):
    def case(attack):
        path = tmp_path / f"{attack.number}.jsonl"
        return law_journals_keep_what_was_said(path, attack, read_journal)
    run_attacks("killed, journals", case, share=KILLS)


def test_law_journals_keep_what_was_said_catches(tmp_path, patient):
    def forgetful(path):
        found, named = read_journal(path)
        return found[:-2], named
    with pytest.raises(AssertionError, match="lost"): run_attacks("forgetful", lambda attack: law_journals_keep_what_was_said(tmp_path / f"{attack.number}", attack, forgetful), share=0.002)


@pytest.fixture
def listed(home):
    "A list of alerts, with answers on it."
    assert main(["explain", *map(str, (home / "m.safetensors", home / "in", home / "scores")), "--out", str(home / "list"), "--quick", "--quiet"]) == 0
    assert main(["verdict", str(home / "list"), "1-6", "attack", "--who", "anna"]) == 0
    return home


def test_killed_answers_go_on(listed, patient):
    "A command that was killed and is given again leaves what it leaves undisturbed; earlier answers stay."
    before = (listed / "list" / "verdicts.jsonl").read_bytes()
    soon = str(date.today() + timedelta(days=9))
    words = {"verdict": ["verdict", listed / "list", "3-9", "benign", "--who", "ben", "--file"],
             "suppress": ["suppress", listed / "list", "1", "--by", "file", "--until", soon, "--who", "ben", "--file"]}
    def said(path):
        if "verdict" in path.name: return {(each.record, each.verdict, each.who) for each in read_verdicts(path).current()}
        return {(str(rule.columns), rule.until, rule.who) for rule in read_rules(path).every}
    def case(attack):
        name = attack.one_of(words)
        path, whole = listed / f"{name}-{attack.number}.jsonl", listed / f"{name}-whole-{attack.number}.jsonl"
        if name == "verdict": path.write_bytes(before), whole.write_bytes(before)
        assert main([*map(str, words[name]), str(whole)]) == 0
        size = path.stat().st_size if path.exists() else -1
        grown = lambda: path.exists() and path.stat().st_size > size
        n_killed = killed_at_random([*words[name], path], 0.01, attack, grown)
        assert said(path) == said(whole) and path.read_bytes().startswith(before if name == "verdict" else b"")
        return n_killed
    run_attacks("killed, answers", case, share=KILLS)


def test_killed_learning_goes_on(listed, patient):
    calm = listed / "calm.parquet"
    traffic(300, 9).to_parquet(calm)
    learn = lambda name: ["learn", listed / "m.safetensors", listed / "list" / "verdicts.jsonl", listed / name / "new.safetensors", "--calibration", calm]
    arrays = lambda name: read_model(listed / name / "new.safetensors", read_header(listed / name / "new.safetensors")["format"])[0]
    assert main(list(map(str, learn("whole")))) == 0
    wanted = arrays("whole")
    def case(attack):
        out = listed / f"out-{attack.number}"
        n_killed = killed_at_random(learn(out.name), 0.05, attack, out.exists)
        all_is_whole(out)
        found = arrays(out.name)
        assert found.keys() == wanted.keys() and all(np.array_equal(found[key], wanted[key], equal_nan=True) for key in wanted), "other bits"
        return n_killed
    run_attacks("killed, learn", case, share=KILLS)


@pytest.mark.parametrize("name", ["score", "one", "recalibrate", "explain", "train"])
def test_leftovers_of_a_killed_command_go(home, capsys, name):
    "Whatever was killed while it wrote, the same command clears up after it."
    words, disk = commands(home, home / "disk")[name], home / "disk"
    assert run(words, capsys)[0] == 0
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    written = [path for path in disk.rglob("*") if path.is_file() and path.name != "cell.json"]
    for path in written: path.with_name(f".{path.stem}.{gone.pid}.tmp{path.suffix}").write_bytes(b"half")
    assert written and run(words, capsys)[0] == 0
    all_is_whole(disk)
