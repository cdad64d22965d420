"""Laws of nfad.desk: what is said is in the file and nowhere else, a step taken back leaves what was there, no question breaks it."""
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfad.answers import ANSWERS, Listed, append_verdict, answered, read_verdicts, verdicts_on
from nfad.desk import _TAKEN_BACK, Desk, kinds_of
from nights import EVIL, fuzz


def table(n=12, seed=0, **columns) -> pd.DataFrame:
    "Alerts of three to five records an incident; two records are equal."
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9, (n, 2)).astype(float)
    if n > 4: values[4] = values[1]
    return pd.DataFrame({"rank": range(1, n + 1), "file": "a.csv", "row": range(n), "Source IP": ["10.0.0.7", EVIL, "a\u202eb", "=1+1"] * (n // 4) + ["x"] * (n % 4),
                         "anomaly_score": np.sort(rng.gamma(3, size=n))[::-1], "p_value": 0.01, "is_anomaly": True, "passes_fdr": True, "incident": 1 + np.arange(n) % 3,
                         "first_reason": "Flow Duration = 0 us; benign records have 1 s", "value: Flow Duration": values[:, 0], "value: Idle Max": values[:, 1]} | columns)


def open_desk(tmp_path, frame=None, **about) -> Desk:
    frame = table() if frame is None else frame
    return Desk(Listed(frame.set_index("rank"), "m1", tmp_path / "alerts.parquet"), tmp_path / "verdicts.jsonl", "anna", **about)


# ---------------------------------------------------------------- saying and taking back

STEPS = st.lists(st.one_of(st.tuples(st.just("rank"), st.integers(1, 12), st.sampled_from(ANSWERS)), st.tuples(st.just("incident"), st.integers(1, 3), st.sampled_from(ANSWERS)), st.just(("undo", 0, ""))), max_size=12)


def law_steps(make, steps):
    "After any steps the desk says what a plain record of them says, what another desk reads from the file, and no line is ever changed."
    desk = make()
    plain, before, kept = {}, [], ""
    for kind, number, answer in steps:
        if kind == "undo":
            desk.undo()
            if before: plain = before.pop()
        else:
            before.append(dict(plain))
            for i in np.flatnonzero(np.isin(desk.records, desk.records[desk.rows_of({kind: number})])): plain[i] = answer[0]
            desk.say({kind: number, "verdict": answer})
        text = desk.file.read_text() if desk.file.exists() else ""
        assert text.startswith(kept) and (not text or not read_verdicts(desk.file).named)
        kept = text
    signs = "".join(plain.get(i, "-") for i in range(12))
    assert desk.state()["signs"] == signs == make().state()["signs"] and desk.state()["steps"] == len(before)


@fuzz
@given(steps=STEPS)
def test_law_steps(steps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    law_steps(lambda: open_desk(folder), steps)


def test_law_steps_catches_a_desk_that_takes_back_to_open(tmp_path, monkeypatch):
    true = Desk.say
    def forgetful(self, about):
        told = true(self, about)
        self.steps[-1] = [one._replace(before=None) for one in self.steps[-1]]
        return told
    monkeypatch.setattr(Desk, "say", forgetful)
    with pytest.raises(AssertionError): law_steps(lambda: open_desk(tmp_path), [("rank", 1, "attack"), ("rank", 1, "benign"), ("undo", 0, "")])


def test_what_was_taken_back_is_not_learnt(tmp_path):
    desk = open_desk(tmp_path)
    desk.say({"rank": 1, "verdict": "attack"})
    desk.undo()
    told = answered(read_verdicts(desk.file).every, desk.listed.features, "m1")
    assert len(told.records) == 0 and told.n_unsure == 1 and read_verdicts(desk.file).every[-1].note == _TAKEN_BACK


def test_a_large_step_is_taken_back_at_once(tmp_path, monkeypatch):
    "One call for all records that had the same answer; one a record takes minutes for ten thousand."
    calls = []
    monkeypatch.setattr("nfad.desk.verdicts_on", lambda listed, ranks, *words: calls.append(len(ranks)) or verdicts_on(listed, ranks, *words))
    desk = open_desk(tmp_path, table(300).assign(incident=1, **{"value: Flow Duration": np.arange(300.0)}))
    desk.say({"incident": 1, "verdict": "attack"})
    desk.undo()
    assert calls == [300, 300]


def test_the_answer_of_somebody_else_stays(tmp_path):
    desk = open_desk(tmp_path)
    desk.say({"incident": 1, "verdict": "attack"})
    append_verdict(desk.file, *verdicts_on(desk.listed, [1], "benign", "ben"))
    assert desk.undo()["signs"][0] == "b" and set(desk.state()["signs"][1:]) == {"-"}


def test_equal_records_share_an_answer(tmp_path):
    assert open_desk(tmp_path).say({"rank": 2, "verdict": "unsure"})["signs"] == "-u--u" + "-" * 7


def test_a_failed_write_is_no_step(tmp_path):
    desk = open_desk(tmp_path)
    for note in ("x" * 10_001, 7, ["a"]):
        assert "error" in desk.answer({"ask": "say", "rank": 1, "verdict": "attack", "note": note})
    assert desk.steps == [] and not desk.file.exists()


def test_it_never_writes_into_a_file_of_somebody_else(tmp_path):
    desk = open_desk(tmp_path)
    desk.file.write_text("my diary\n")
    assert "error" in desk.answer({"ask": "say", "rank": 1, "verdict": "attack"}) and desk.file.read_text() == "my diary\n"


# ---------------------------------------------------------------- what is shown

def test_overview_holds_every_alert(tmp_path):
    told = open_desk(tmp_path).overview()
    assert len(told["state"]["signs"]) == 12 and {len(column) for column in told["alerts"].values()} == {12}
    assert [row["rank"] for row in told["incidents"]] == [1, 2, 3] and told["incidents"][0]["title"].startswith("4 records")
    json.dumps(told, allow_nan=False)


def test_ten_thousand_alerts_travel_once(tmp_path):
    desk = open_desk(tmp_path, table(10_000).assign(incident=np.arange(10_000) + 1))
    assert len(json.dumps(desk.overview())) < 3_000_000


def test_no_hidden_sign_reaches_a_window(tmp_path):
    wild = "a\x00\x1b[2J\u202e\u200b\n"
    desk = open_desk(tmp_path, table(**{"Source IP": wild, "first_reason": wild, "file": wild, wild: 1}))
    for told in (desk.overview(), desk.card({"rank": 1}), desk.answer({"ask": wild})):
        assert json.dumps(told, ensure_ascii=False).isprintable() and wild not in json.dumps(told)


@pytest.mark.parametrize("lacking", [["incident"], ["first_reason"], ["passes_fdr"], ["Source IP", "first_reason", "passes_fdr", "incident"], ["value: Flow Duration", "value: Idle Max"]])
def test_lists_with_other_columns(lacking, tmp_path):
    desk = open_desk(tmp_path, table(surprising="Idle Max +7.2", extra=pd.NaT).drop(columns=lacking))
    assert len(desk.overview()["incidents"]) == (12 if "incident" in lacking else 3)
    assert desk.card({"rank": 3})["rank"] == 3 and desk.card({"incident": 2})["of"] >= 1


def test_lists_without_scores_are_refused(tmp_path):
    with pytest.raises(KeyError, match="anomaly_score"): open_desk(tmp_path, table().drop(columns="anomaly_score"))


def test_no_alerts(tmp_path):
    desk = open_desk(tmp_path, table().head(0))
    assert desk.overview()["incidents"] == [] and desk.state()["signs"] == "" and "error" in desk.answer({"ask": "card", "rank": 1})


def test_what_rules_hide_is_counted_not_shown(tmp_path):
    desk = open_desk(tmp_path, table(suppressed_by=["r1"] * 5 + [""] * 7))
    assert desk.overview()["hidden"] == 5 and len(desk.state()["signs"]) == 7 and "error" in desk.answer({"ask": "card", "rank": 1})


def test_the_representative_is_one_that_was_explained(tmp_path):
    credits = np.full(12, np.nan)
    credits[3] = 1.5
    desk = open_desk(tmp_path, table(**{"attribution: Idle Max": credits, "typical low: Idle Max": credits, "typical high: Idle Max": credits}))
    card = desk.card({"incident": 1})
    assert card["rank"] == 4 and card["explained"] and card["features"][0]["name"] == "Idle Max" and desk.overview()["incidents"][0]["rank"] == 4


def test_missing_reasons_are_not_words(tmp_path):
    desk = open_desk(tmp_path, table(**{"first_reason": pd.Series([None] * 12, dtype="str"), "reason: 1": pd.Series([None] * 12, dtype="str"), "surprising": "Idle Max +7"}))
    assert desk.card({"rank": 1})["reasons"] == ["Idle Max +7"] and "nan" not in json.dumps(desk.overview()["words"])


def test_kinds_of_any_text():
    assert kinds_of([]) == [] and len(set(kinds_of(["", "?", "no feature", EVIL]))) == 1
    assert kinds_of(["Fwd Packet Length Max is missing; x", "SYN Flag Count is not 0"]) == ["packet sizes", "flags"]


def test_a_list_that_is_replaced_is_noticed(tmp_path):
    (tmp_path / "alerts.parquet").write_bytes(b"1")
    desk = open_desk(tmp_path)
    assert not desk.state()["replaced"]
    (tmp_path / "alerts.parquet").write_bytes(b"22")
    assert desk.state()["replaced"]


# ---------------------------------------------------------------- questions

WILD = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8)


@fuzz
@given(question=st.one_of(WILD, st.fixed_dictionaries({"ask": st.sampled_from(["overview", "card", "say", "undo", "learn", "news"]) | WILD}, optional={name: WILD for name in ("rank", "incident", "verdict", "note")})))
def test_any_question_gets_an_answer(question, tmp_path_factory):
    desk = open_desk(tmp_path_factory.getbasetemp())
    assert json.loads(json.dumps(desk.answer(question), allow_nan=False))


def test_learning(tmp_path):
    desk = open_desk(tmp_path, learn=lambda: {"text": "done\nwell", "gone": np.arange(12) < 3})
    assert desk.answer({"ask": "learn"})["gone"] == "1" * 3 + "0" * 9
    desk.learn = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError): desk.answer({"ask": "learn"})  # no error of ours is hidden


def test_whole_numbers_have_no_point(tmp_path):
    facts = dict(open_desk(tmp_path, table(Protocol=6.0, Share=0.5)).card({"rank": 1})["facts"])
    assert (facts["Protocol"], facts["Share"], facts["row"]) == ("6", "0.5", "0")
