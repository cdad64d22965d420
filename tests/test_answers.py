"""Laws of verdicts: every line is one or is named, files merge in any order, the later answer counts, no model gets another one's."""
import json
import random
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nfad import answers
from nfad.answers import ANSWERS, Verdict, answered, append_verdict, fingerprints, plain_cell, ranks_of, read_listed, read_verdicts, verdicts_on
from nfad.journal import utc
from nfad.outputs import write_table
from nights import DAMAGE, EVIL, damage, fuzz

NAMES = ["packets", "bytes", "seconds"]
ODD = ["=cmd|'/c calc'!A1", "\x1b[2J\x1b[31m", "a\nb\r\n{}", EVIL, "\u202egnp.exe", "\ud800", "$x^2$", ""]


def made(record: int, verdict: str = "attack", who: str = "anna", minute: int = 0, model: str = "m1", note: str = "", names=NAMES) -> Verdict:
    values = dict(zip(names, (record + 0.1, record * 1e9, 1 / (record + 3)), strict=True))
    name, = fingerprints(pd.DataFrame([values]))
    return Verdict(name, verdict, model, who, utc(f"2026-11-28T{minute // 60:02d}:{minute % 60:02d}Z"), note, {"file": "a.csv", "row": record}, values)


def night(n: int = 60, seed: int = 0) -> list[Verdict]:
    "Three people on eight records, each minute one answer."
    rng = random.Random(seed)
    return [made(rng.randrange(8), rng.choice(ANSWERS), rng.choice(["anna", "ben", "carla"]), minute) for minute in range(n)]


# ---------------------------------------------------------------- lines

def law_lines_are_verdicts_or_named(read, path, content: bytes, known: set):
    "Each line of a file is counted once, and a record's values are those that were written, or the line is named."
    path.write_bytes(content)
    found = read(path)
    n_lines = content.count(b"\n") + (content[-1:] not in (b"\n", b""))
    assert found.n_lines == n_lines == len(found.every) + len(found.named)
    assert {(verdict.record, tuple(verdict.values.values())) for verdict in found.every} <= known
    assert len({(bad.file, bad.line) for bad in found.named}) == len(found.named)
    assert str(found).isprintable() or all(line.isprintable() for line in str(found).split("\n"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    "A file of verdicts and what it may say."
    folder = tmp_path_factory.mktemp("written")
    said = [made(i, note=note, who=f"{note[:150]} {i}") for i, note in enumerate(ODD)]
    path = append_verdict(folder / "verdicts.jsonl", *said)
    return folder / "damaged.jsonl", path.read_bytes(), {(verdict.record, tuple(verdict.values.values())) for verdict in said}


@settings(fuzz, max_examples=300)
@given(DAMAGE, st.lists(st.binary(max_size=30), max_size=2))
@example(([], 0), [b"\n\n", b"\x85\x0b\x0c\xe2\x80\xa8"])
def test_law_lines_are_verdicts_or_named(written, harm, more):
    path, content, known = written
    law_lines_are_verdicts_or_named(read_verdicts, path, damage(content, *harm) + b"\n".join(more), known)


def blank_lines_do_not_count(path):
    whole = path.read_bytes()
    path.write_bytes(b"\n".join(line for line in whole.split(b"\n") if line.strip()))
    return read_verdicts(path)


def any_values(path, monkeypatch=None):
    found = answers._wrong_fingerprints
    answers._wrong_fingerprints = lambda said: set()
    try: return read_verdicts(path)
    finally: answers._wrong_fingerprints = found


@pytest.mark.parametrize("broken, old, new", [
    (blank_lines_do_not_count, b"\n", b"\n\n"), (any_values, b'"bytes": 1', b'"bytes": 7'),
    (lambda path: read_verdicts(path)._replace(named=()), b"version", b"virsion")])
def test_law_lines_are_verdicts_or_named_catches(written, broken, old, new):
    path, content, known = written
    law_lines_are_verdicts_or_named(read_verdicts, path, content.replace(old, new), known)
    with pytest.raises(AssertionError): law_lines_are_verdicts_or_named(broken, path, content.replace(old, new), known)


@pytest.mark.parametrize("change, why", [
    ({"verdict": "yes"}, "verdict must be one of"), ({"record": "x"}, "16 hexadecimal"), ({"values": {}}, "values must hold"), ({"who": ""}, "who must be text"),
    ({"values": {"packets": True}}, "finite numbers"), ({"values": {"packets": "1"}}, "finite numbers"), ({"when": "today"}, "ISO 8601"), ({"verdict": []}, "verdict must be"),
    ({"where": []}, "where must be an object"), ({"more": 1}, "unknown entries"), ({"note": "x" * 10_001}, "note must be text"), ({"values": made(2).values}, "fingerprint")])
def test_a_wrong_verdict_is_named_and_never_written(tmp_path, change, why):
    entries = made(1)._asdict() | change
    path = append_verdict(tmp_path / "a.jsonl", made(3))
    whole = path.read_bytes()
    if "more" not in change:
        with pytest.raises(ValueError, match=why): append_verdict(path, made(4), Verdict(**entries))
        assert path.read_bytes() == whole
    path.write_bytes(whole + json.dumps({"nfad": "verdict", "version": 1} | entries).encode())
    bad, = read_verdicts(path).named
    assert why in bad.reason and bad.line == 2


# ---------------------------------------------------------------- merging

def law_any_order_of_files(read, folder):
    "Several files, in any order, with their lines in any order, say the same."
    said = night() + [made(1, "attack", "zoe", 70), made(1, "benign", "anna", 70)]  # the same minute
    for seed in range(4):
        random.Random(seed).shuffle(said)
        paths = [folder / f"{seed}-{i}.jsonl" for i in range(3)]
        for i, path in enumerate(paths): append_verdict(path, *said[i::3])
        for order in permutations(paths):
            found = read(order)
            first = locals().get("first") or found
            assert (found.every, found.current(), found.conflicts()) == (first.every, first.current(), first.conflicts())
    assert len(found.every) == 62


def test_law_any_order_of_files(tmp_path): law_any_order_of_files(read_verdicts, tmp_path)


def test_law_any_order_of_files_catches(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "_in_order", lambda said: sorted(said, key=lambda verdict: verdict.when))
    with pytest.raises(AssertionError): law_any_order_of_files(read_verdicts, tmp_path)


def law_the_later_answer_counts(read, folder):
    "What counts, what was overridden and who contradicts whom, beside a plain reckoning."
    for seed in range(10):
        said = night(seed=seed)
        found = read(append_verdict(folder / f"{seed}.jsonl", *said))
        last, people = {}, {}
        for verdict in said:
            last[verdict.record] = verdict
            people[verdict.record, verdict.who] = verdict.verdict
        assert {verdict.record: verdict for verdict in found.current()} == last
        differ = {name for name in last if len({word for (record, _), word in people.items() if record == name}) > 1}
        assert {group[-1].record for group in found.conflicts()} == differ and all(group[-1] == last[group[-1].record] for group in found.conflicts())
        assert found.facts()["overridden"] == len(said) - len(last) and all(f"{n}" in str(found) for n in (len(last), len(differ)))


def test_law_the_later_answer_counts(tmp_path): law_the_later_answer_counts(read_verdicts, tmp_path)


def test_law_the_later_answer_counts_catches(tmp_path):
    with pytest.raises(AssertionError):
        law_the_later_answer_counts(lambda path: read_verdicts(path)._replace(every=read_verdicts(path).every[::-1]), tmp_path)


def test_copies_are_no_answers(tmp_path):
    path = append_verdict(tmp_path / "a.jsonl", made(1), made(2, "benign"))
    (tmp_path / "copy.jsonl").write_bytes(path.read_bytes())
    facts = read_verdicts([path, tmp_path / "copy.jsonl"]).facts()
    assert (facts["copies"], facts["overridden"], facts["records"], facts["by"]) == (2, 0, 2, {"anna": 2})


def test_a_file_that_is_given_twice_is_read_once(tmp_path):
    path = append_verdict(tmp_path / "a.jsonl", made(1), made(2, "benign"))
    (tmp_path / "link.jsonl").symlink_to(path)
    read = read_verdicts([path, path, tmp_path / "link.jsonl", str(path)])
    assert (read.n_lines, read.files, read.facts()["copies"]) == (2, (str(path),), 0)


# ---------------------------------------------------------------- learning

def law_no_other_models_verdicts(give):
    "A verdict about another model's list is used only when asked for, where the features are there, and counted."
    mixed = [made(1), made(2, "benign", minute=1), made(3, "unsure", minute=2), made(4, model="m2", minute=3)]
    with pytest.raises(ValueError, match=r"1 of 4 .* m2 \(1\).*other_models=True"): give(mixed, NAMES, "m1")
    with pytest.raises(ValueError, match="m1"): give(mixed, NAMES, "m2")
    own = give(mixed, NAMES, "new", ancestors=("m1", "m2"))
    assert own.attack.tolist() == [True, False, True] and (own.n_unsure, own.n_others, own.n_lacking) == (1, 0, 0)
    assert own.records.columns.tolist() == NAMES and own.records.to_dict("records") == [verdict.values for verdict in own.verdicts]
    some = give([*mixed, made(5, model="m3", names=["packets", "bytes", "ttl"])], NAMES, "m1", other_models=True)
    assert len(some.attack) == 3 and (some.n_others, some.n_lacking) == (1, 1)
    few = give([made(1, "attack"), made(1, "benign", minute=1, model="m2", names=["packets", "bytes", "ttl"])], ["bytes"], "m1", other_models=True)
    assert few.attack.tolist() == [False]  # without the further feature it is the same record, and the later verdict counts
    empty = give([], NAMES, "m1")
    assert empty.records.shape == (0, 3) and empty.attack.dtype == bool


def test_law_no_other_models_verdicts(): law_no_other_models_verdicts(answered)


@pytest.mark.parametrize("broken", [
    lambda *given, **options: answered(*given, **options | {"other_models": True}),
    lambda said, names, identity, ancestors=(), other_models=False: answered([v for v in said if v.model == identity], names, identity, ancestors)])
def test_law_no_other_models_verdicts_catches(broken):
    with pytest.raises((AssertionError, pytest.fail.Exception)): law_no_other_models_verdicts(broken)


# ---------------------------------------------------------------- lists

@pytest.fixture
def listed(tmp_path):
    "A list of five alerts with odd identifiers."
    odd = ["=1+1", EVIL, "\x1b[2J", None, "10.0.0.1"]
    table = pd.DataFrame({"rank": range(1, 6), "file": "a.csv", "row": [3, 1, 4, 1, 5], "Source IP": odd, "Port": [53, 80, np.nan, 53, 443],
                          "Time": pd.date_range("2026-11-28", periods=5), "anomaly_score": 1.0, "surprising": "x",
                          **{f"value: {name}": np.random.default_rng(0).lognormal(size=5) for name in NAMES}, "attribution: packets": 0.5})
    write_table(table, tmp_path / "alerts.parquet", "alerts", model="m1")
    return read_listed(tmp_path)


def test_a_list_makes_verdicts_that_are_read_again(listed, tmp_path):
    said = verdicts_on(listed, [1, 2, 3, 4, 5], "attack", EVIL, "\x1b[2J", "2026-11-28T00:00Z")
    found = read_verdicts(append_verdict(tmp_path / "v.jsonl", *said))
    assert sorted(found.every) == sorted(said) and (tmp_path / "v.jsonl").read_bytes().isascii()
    assert said[3].where == {"file": "a.csv", "row": 1, "Source IP": None, "Port": 53.0, "Time": "2026-12-01T00:00:00"}
    records = answered(found.every, NAMES, "m1").records
    assert sorted(records.values.tolist()) == sorted(listed.table.filter(like="value: ").values.tolist())
    assert all(line.isprintable() for line in str(found).split("\n"))


def test_ranks_are_those_of_the_list():
    assert ranks_of(" 3-4 ,1,3", range(1, 6)) == [1, 3, 4]
    for wrong in ("", "a", "4-3", "0", "6", "1-6", "-1", "1;2", "1-999999999999", "9" * 5000, "١٢"):
        with pytest.raises(ValueError, match="^ranks must be"): ranks_of(wrong, range(1, 6))


@pytest.mark.parametrize("cell", [np.float32(0.5), np.bool_(True), pd.Timestamp("2026-01-01", tz="UTC"), pd.NaT, pd.NA, float("inf"), b"\xff", np.datetime64("2026-01-01"), 2**70])
def test_cells_become_json(cell): json.dumps(plain_cell(cell), allow_nan=False)
