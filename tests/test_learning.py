"""Laws of 11f_learning: which benign records may calibrate a model that learned."""
from types import SimpleNamespace

import numpy as np
import pandas as pd

from nfad.answers import Answers, Verdict, fingerprints, read_verdicts, append_verdict
from nfad.learning import _fresh, _looks
from nfad.seen import remember
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
