"""The desk in Jupyter: the face is text of the package, messages are answered, learning changes what is listed, a missing package is named."""
import re
from importlib.resources import files
from types import SimpleNamespace

import pandas as pd
import pytest

import nfad
from nfad.answers import read_verdicts
from nfad.cli import main
from nfad.outputs import write_table
from nfad.widget import open_desk, triage
from nights import NAMES, detector, model_path, strange, traffic

FACE = {name: files("nfad").joinpath(name).read_text(encoding="utf-8") for name in ("widget.js", "widget.css", "widget_page.js")}


@pytest.fixture(scope="module")
def night(model_path, tmp_path_factory) -> SimpleNamespace:
    "A scored and explained night."
    folder = tmp_path_factory.mktemp("night")
    traffic(800, 3).to_parquet(folder / "calm.parquet")
    pd.concat([traffic(400, 5), strange(40, 6)]).to_parquet(folder / "night.parquet")
    assert main(f"score {model_path} {folder}/night.parquet {folder}/scores.parquet --quiet --reference {folder}/calm.parquet".split()) == 0
    assert main(f"explain {model_path} {folder}/night.parquet {folder}/scores.parquet --out {folder}/alerts --top 60 --quiet --background {folder}/calm.parquet".split()) == 0
    return SimpleNamespace(folder=folder, alerts=folder / "alerts", calm=folder / "calm.parquet", source=folder / "night.parquet")


def law_no_html(script: str):
    "A script that makes no HTML of strings, and loads nothing."
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\b|new Function|https?://|importScripts|import\(", script)


def test_law_no_html():
    for script in FACE.values(): law_no_html(script)


@pytest.mark.parametrize("evil", ["cell.innerHTML = name;", "import('https://cdn.example/x.js')", "eval(text)"])
def test_law_no_html_catches(evil):
    with pytest.raises(AssertionError): law_no_html(FACE["widget.js"] + evil)


def test_the_face_is_readable():
    assert all(len(line) <= 120 for text in FACE.values() for line in text.splitlines()) and len(FACE["widget.js"].splitlines()) < 750


def test_a_widget_answers_and_writes(night):
    pytest.importorskip("anywidget")
    widget, sent = triage(night.alerts, file=night.folder / "own.jsonl", who="anna"), []
    widget.send = sent.append
    for message in ({"id": "a-1", "question": {"ask": "say", "rank": 1, "verdict": "attack"}}, {"id": "a-2"}, "no question", None):
        widget._handle_custom_msg(message, [])
    assert [reply["id"] for reply in sent] == ["a-1", "a-2"] and "error" in sent[1]["answer"]
    assert [said.verdict for said in read_verdicts(night.folder / "own.jsonl").every] == ["attack"]
    assert widget._esm == FACE["widget.js"] and nfad.triage is triage


def test_cards_have_reasons_and_typical_ranges(night):
    card = open_desk(night.alerts, who="anna").card({"incident": 1})
    assert card["explained"] and card["reasons"] and any(entry["outside"] and entry["typical"] for entry in card["features"])
    assert {entry["name"] for entry in card["features"]} == set(NAMES)


def test_learning_says_what_is_gone(night, model_path):
    desk = open_desk(night.alerts, night.folder / "learn.jsonl", "anna", model_path, night.calm, night.source)
    before = model_path.read_bytes()
    for row in desk.overview()["incidents"][:3]: desk.say({"incident": row["number"], "verdict": "attack"})
    told = desk.answer({"ask": "learn"})
    assert "answered attacks" in told["text"] and len(told["gone"]) == len(told["signs"]) and (night.folder / "learnt.safetensors").is_file()
    assert model_path.read_bytes() == before
    assert "error" in open_desk(night.alerts, night.folder / "none.jsonl", "anna", model_path, night.calm).answer({"ask": "learn"})  # nothing was said


def test_learning_needs_benign_records(night, model_path):
    with pytest.raises(FileNotFoundError, match="calibration"): open_desk(night.alerts, model=model_path)


def test_a_missing_package_names_the_extra(night, monkeypatch):
    from nfad.widget import _widget_class
    _widget_class.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "anywidget", None)
    with pytest.raises(ModuleNotFoundError, match=r"nfad\[triage\]"): triage(night.alerts)
    _widget_class.cache_clear()


def test_what_is_no_list_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nfad explain"): triage(tmp_path)
    write_table(traffic(5), tmp_path / "alerts.parquet", "records")
    with pytest.raises(ValueError, match="no list of alerts"): triage(tmp_path)
