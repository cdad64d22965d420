"""Laws of 11f_learning: which benign records may calibrate a model that learned."""
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd

from nfad.answers import Answered, Answers, Verdict, append_verdict, fingerprints, read_verdicts
from nfad.cli import main
from nfad.learning import Learnt, Look, _forgotten, _fresh, _looks
from nfad.seen import remember
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
    assert left_out == {"a person answered them": 3, "the model was trained on them": 5}
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
    assert read_verdicts([path, path]).settled() == set(), "a copied line is no second look"
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
