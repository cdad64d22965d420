"""The commands of answers: what they write, what they say, and what a mistake leaves behind."""
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nfad.answers import read_verdicts
from nfad.cli import main
from nfad.outputs import write_table
from nfad.suppression import read_rules
from nights import EVIL


@pytest.fixture
def folder(tmp_path) -> Path:
    "A list of twelve alerts."
    table = pd.DataFrame({"rank": range(1, 13), "file": "a.csv", "row": range(12), "Source IP": ["10.0.0.7", EVIL, "=1+1", "10.0.0.9"] * 3, "anomaly_score": 9.0,
                          "value: packets": np.arange(12.0), "value: bytes": np.arange(12.0) * 7})
    write_table(table, tmp_path / "alerts" / "alerts.parquet", "alerts", model="m1")
    return tmp_path / "alerts"


@pytest.fixture
def here(capsys):
    "Runs a command; gives exit code, standard output and standard error."
    def run(*words):
        capsys.readouterr()
        return main([str(word) for word in words]), *capsys.readouterr()
    return run


def test_ranks_become_verdicts_and_what_they_override_is_said(here, folder):
    status, out, _ = here("verdict", folder, "3-9,12", "attack", "--note", "scan", "--who", "anna")
    assert status == 0 and out.count("\n") == 1 and "attack for 8 records (rank 3-9,12) by anna" in out and "overrides" not in out
    status, out, _ = here("verdict", folder / "alerts.parquet", "4", "benign", "--who", "ben")
    assert status == 0 and out.count("\n") == 1 and "overrides attack by anna at 20" in out
    found = read_verdicts(folder / "verdicts.jsonl")
    assert len(found.every) == 9 and {verdict.model for verdict in found.every} == {"m1"} and len(found.conflicts()) == 1
    status, out, _ = here("verdicts", folder / "verdicts.jsonl", folder / "verdicts.jsonl", "--json")
    said = json.loads(out)
    assert status == 0 and (said["attack"], said["benign"], said["overridden"], said["copies"], len(said["conflicts"])) == (7, 1, 1, 0, 1)  # one file, read once


def test_the_user_says_it_where_nobody_else_is_named(here, folder, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "carla")
    assert here("verdict", folder, "1", "unsure", "--file", folder / "own.jsonl")[0] == 0
    assert [verdict.who for verdict in read_verdicts(folder / "own.jsonl").every] == ["carla"] and not (folder / "verdicts.jsonl").exists()
    def nobody(): raise KeyError("no such user")
    monkeypatch.setattr("getpass.getuser", nobody)
    assert "--who" in here("verdict", folder, "1", "unsure")[2]


def test_what_others_wrote_is_shown_never_obeyed(here, folder):
    here("verdict", folder, "2", "attack", "--who", "\x1b[2J\u202e", "--note", "=cmd()\x07\nnfad: all fine")
    (folder / "verdicts.jsonl").open("a").write('{"nfad": "verdict", "version": 1, "\x1b[31m')
    for words in (("verdict", folder, "2", "benign", "--who", "ben"), ("verdicts", folder / "verdicts.jsonl")):
        status, out, _ = here(*words)
        assert all(line.isprintable() for line in out.split("\n")) and "\\x1b[2J\\u202e" in out, words
    assert status == 3 and "line 2: no JSON" in out and '1 of 3 lines no verdict' in out


@pytest.mark.parametrize("words, why", {
    ("verdict", "99", "attack"): "ranks must be in the list", ("verdict", "1", "atack"): "did you mean 'attack'", ("verdict", "1,", "attack"): "ranks must be like",
    ("suppress", "1"): "no rule is for ever", ("suppress", "1", "--by", "Source IP", "--until", "2020-01-01"): "until must lie after",
    ("suppress", "1", "--by", "Sourc IP", "--until", "2020-01-01"): "by must name columns", ("suppress", "1-2", "--by", "Source IP", "--until", "2020-01-01"): "rank must be one",
    ("suppress", "--withdraw", "00000000"): "does not exist"}.items(), ids=lambda words: " ".join(words) if isinstance(words, tuple) else "")
def test_a_mistake_is_one_line_and_leaves_nothing(here, folder, words, why):
    status, out, error = here(words[0], folder, *words[1:])
    assert status == 1 and why in error and error.count("\n") == 1 and out == ""
    assert sorted(path.name for path in folder.iterdir()) == ["alerts.parquet"]


def test_other_files_are_no_lists_and_no_journals(here, folder, tmp_path):
    write_table(pd.DataFrame({"rank": [1]}), tmp_path / "scores.parquet", "scores")
    assert "no list of alerts" in here("verdict", tmp_path / "scores.parquet", "1", "attack")[2]
    before = (folder / "alerts.parquet").read_bytes()
    assert "nothing was added" in here("verdict", folder, "1", "attack", "--file", folder / "alerts.parquet")[2]
    assert (folder / "alerts.parquet").read_bytes() == before


def test_a_rule_is_written_and_withdrawn(here, folder):
    until = str(pd.Timestamp.now("UTC").date() + pd.Timedelta(days=3))
    status, out, _ = here("suppress", folder, "2", "--by", "Source IP", "--until", until, "--note", "lab", "--who", "anna", "--json")
    said = json.loads(out)
    assert status == 0 and said["columns"] == {"Source IP": EVIL} and said["listed"] == 3
    assert [rule.id for rule in read_rules(folder / "rules.jsonl").every] == [said["id"]]
    assert here("suppress", folder, "--withdraw", said["id"], "--who", "ben")[0] == 0
    assert [gone.withdraws for gone in read_rules(folder / "rules.jsonl").withdrawn] == [said["id"]]
