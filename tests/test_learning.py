"""Laws of 11f_learning: which benign records may calibrate a model that learned."""
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nfad.answers import Answered, Answers, Verdict, append_verdict, fingerprints, read_verdicts
from nfad.cli import main
from nfad.learning import Learnt, Look, _forgotten, _fresh, _looks, learn_files
from nfad.seen import remember, write_seen
from nfad.serving import load_model, usable_records
from nfad.verdicts import VerdictModel
from nights import detector, strange, traffic


def test_calibration_records_that_came_more_than_once_still_calibrate():
    "Only what was trained on, and what a person answered, is left out; common held-out records are not."
    rng = np.random.default_rng(0)
    records = pd.DataFrame(rng.standard_normal((60, 3)), columns=list("abc"))
    trained, common, other = records[:20], records[20:40], records[40:]
    made_from = pd.concat([trained, common])
    seen = remember(made_from, copies=np.repeat([1, 5], 20), trained=np.repeat([True, False], 20))
    answers = SimpleNamespace(records=other[:3].reset_index(drop=True))
    fresh, left_out = _fresh(SimpleNamespace(seen=seen), pd.concat([records[15:]], ignore_index=True), answers)
    assert set(fingerprints(fresh)) == set(fingerprints(pd.concat([common, other[3:]])))
    assert left_out == {"that a person answered": 3, "that the model was trained on": 5}
    everything, nothing = _fresh(SimpleNamespace(seen=None), records, SimpleNamespace(records=records[:0]))
    assert len(everything) == 60 and not any(nothing.values())


def test_an_answer_that_does_not_fit_is_named_until_it_is_given_again(detector, tmp_path):
    known = pd.concat([strange(9, 3), traffic(11, 3)], ignore_index=True)
    words = ["benign", *["attack"] * 8, *["benign"] * 11]  # the first is wrong
    told = [Verdict(name, word, "m", "ben", f"2026-01-05T00:{i:02d}:00Z", "", {"file": "a.csv", "row": i}, values)
            for i, (name, word, values) in enumerate(zip(fingerprints(known), words, known.to_dict("records"), strict=True))]
    answers = SimpleNamespace(records=known, attack=np.array(words) == "attack", verdicts=told)
    first, second = _looks(detector, answers, set(), traffic(300, 4))
    assert first.verdict == told[0] and second.verdict.verdict == "attack"
    assert str(first).startswith("a.csv, row 0: ben says benign, but ") and "of the trees that know the attacks call it one" in str(first)
    assert "its leaves hold" in second.why

    path = tmp_path / "verdicts.jsonl"
    append_verdict(path, *told)
    (tmp_path / "copy.jsonl").write_bytes(path.read_bytes())
    assert read_verdicts([path, tmp_path / "copy.jsonl"]).settled() == set(), "a copied line is no second look"
    append_verdict(path, told[0]._replace(when="2026-01-06T00:00:00Z"))
    said = read_verdicts(path)
    assert isinstance(said, Answers) and said.settled() == {told[0].record}
    assert told[0] not in [look.verdict for look in _looks(detector, answers, said.settled(), traffic(300, 4))]


def test_without_attacks_the_strangest_benign_answer_is_named(detector):
    known = pd.concat([traffic(5, 3), strange(1, 3)], ignore_index=True)
    told = [Verdict(name, "benign", "m", "ben", "2026-01-05T00:00:00Z", "", {"row": i}, values)
            for i, (name, values) in enumerate(zip(fingerprints(known), known.to_dict("records"), strict=True))]
    look, = _looks(detector, SimpleNamespace(records=known, attack=np.zeros(6, bool), verdicts=told), set(), traffic(300, 4))
    assert look.verdict == told[5] and look.why.startswith("it scores above")
    evil = str(look._replace(verdict=told[5]._replace(note="a\n  b.csv: all is well\x1b[2J")))
    assert "\n" not in evil and "\x1b" not in evil


def test_an_answer_that_nothing_speaks_against_is_not_named(detector):
    known = pd.concat([strange(8, 3), traffic(8, 3)], ignore_index=True)
    told = [Verdict(name, word, "m", "ben", "2026-01-05T00:00:00Z", "", {"row": i}, values) for i, (name, word, values) in
            enumerate(zip(fingerprints(known), ["attack"] * 8 + ["benign"] * 8, known.to_dict("records"), strict=True))]
    answers = SimpleNamespace(records=known, attack=np.arange(16) < 8, verdicts=told)
    assert not any(look.verdict.verdict == "benign" for look in _looks(detector, answers, set(), traffic(300, 4)))
    ordinary = SimpleNamespace(records=known[8:9], attack=np.zeros(1, bool), verdicts=told[8:9])
    assert _looks(detector, ordinary, set(), traffic(300, 4)) == ()


def test_answers_that_a_model_forgets_are_counted(detector):
    known, calm = pd.concat([strange(4, 3), traffic(3, 3)], ignore_index=True), traffic(300, 4)
    first = VerdictModel.learn(detector, known, np.arange(7) < 4, calm)
    assert _forgotten(first, VerdictModel.learn(first, known[2:], np.arange(5) < 2, calm)) == 2
    assert _forgotten(first, VerdictModel.learn(first, known, np.arange(7) < 4, calm)) == 0
    assert _forgotten(detector, first) == 0


def test_the_command_says_which_answers_to_look_at_again_and_what_was_forgotten(monkeypatch, tmp_path, capsys):
    said = Verdict("0" * 16, "benign", "m", "ben", "2026-01-05T00:00:00Z", "", {"row": 7}, {"a": 1.0})
    account = Learnt(Answered(pd.DataFrame({"a": [1.0]}), np.zeros(1, bool), (said,), 0, 0, 0), 300, {}, (0, 0), (0, 0), None, 0.01, 3,
                     looks=(Look(said, "90% of the trees call it one"),), n_forgotten=2)
    monkeypatch.setattr("nfad.learning.learn_files", lambda *how: account)
    (tmp_path / "calibration.parquet").touch()
    assert main(["learn", str(tmp_path / "m.safetensors"), "v.jsonl", "out.safetensors", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["forgotten"] == 2 and told["looks"] == [said._asdict() | {"why": "90% of the trees call it one"}]
    assert "row 7: ben says benign, but 90%" in str(account) and "2 answers that the model knew" in str(account)
    assert "the score is what it was" not in str(account)


# ---------------------------------------------------------------- rows read = rows used + rows named

@pytest.fixture
def evening(detector, tmp_path):
    "A model that knows what it was trained from, answers, and tables with rows of every kind."
    write_seen(detector.save(tmp_path / "m.safetensors"), remember(traffic(1000)))
    model = load_model(tmp_path / "m.safetensors")
    known = pd.concat([strange(4, 3), traffic(4, 30)], ignore_index=True)
    told = [Verdict(name, word, model.identity, "ben", "2026-01-05T00:00:00Z", "", {"row": i}, values) for i, (name, word, values) in
            enumerate(zip(fingerprints(known), ["attack"] * 4 + ["benign"] * 4, known.to_dict("records"), strict=True))]
    append_verdict(tmp_path / "v.jsonl", *told)
    torn = traffic(500, 31)
    torn.iloc[:7, 2] = np.nan
    pd.concat([traffic(1000)[:50], known[4:], torn], ignore_index=True).to_parquet(tmp_path / "calibration.parquet")
    pd.concat([traffic(1000), torn], ignore_index=True).to_parquet(tmp_path / "came from.parquet")
    return tmp_path


def law_nothing_is_cut_in_silence(learn, evening, n_rows):
    "Calibration rows are used or named, and the account says how many of how many."
    account = learn(evening / "m.safetensors", [evening / "v.jsonl"], evening / "new.safetensors", evening / "calibration.parquet")
    assert account.n_calibration + sum(account.left_out.values()) == n_rows
    assert f"{account.n_calibration:,} of {n_rows:,} calibration records used; " in str(account)
    return account


@pytest.mark.parametrize("limit, beyond", [(50_000, 0), (300, 247)])
def test_law_nothing_is_cut_in_silence(evening, monkeypatch, limit, beyond):
    monkeypatch.setattr("nfad.learning.usable_records", lambda path, recipe: usable_records(path, recipe, limit))
    account = law_nothing_is_cut_in_silence(learn_files, evening, 554)
    found = {"without a score": 7, "beyond the limit": beyond, "that the model was trained on": 50, "that a person answered": 4}
    assert account.left_out == found and (not beyond or "247 beyond the limit" in str(account))


def test_law_nothing_is_cut_in_silence_catches(evening, monkeypatch):
    "As it was: the first records up to a limit, and not a word."
    careless = lambda path, recipe: usable_records(path, recipe, 300)._replace(left_out={})
    monkeypatch.setattr("nfad.learning.usable_records", careless)
    with pytest.raises(AssertionError): law_nothing_is_cut_in_silence(learn_files, evening, 554)


def test_what_else_is_given_and_not_used_is_said(evening):
    night = evening / "night"
    night.mkdir()
    (night / "notes.docx").write_text("x")
    (evening / "calibration.parquet").rename(night / "a.parquet")
    account = learn_files(evening / "m.safetensors", [evening / "v.jsonl"], evening / "new.safetensors", night,
                          source=night, training=evening / "came from.parquet")
    file = "file left out: notes.docx (ending .docx)"
    assert account.cut == (
        file, "1,000 of 1,500 records of training used; 7 without a score, 493 that the model was not trained on were left out",
        "547 of 554 further records used; 7 without a score were left out", file)
    assert account.night.records == 547 and all(line in str(account) for line in account.cut)


def test_training_records_that_stay_since_too_few_would_remain_are_said(evening, monkeypatch):
    monkeypatch.setattr("nfad.dirty.without_condemned", lambda detector, trained, attack, calm: (detector, np.full(len(trained), 99.0)))
    account = learn_files(evening / "m.safetensors", [evening / "v.jsonl"], evening / "new.safetensors", evening / "calibration.parquet",
                          training=evening / "came from.parquet")
    assert account.condemned is None and "too few training records would remain" in str(account)
