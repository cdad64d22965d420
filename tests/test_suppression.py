"""Laws of rules that hide alerts: they end at their second, need all their columns, can be withdrawn, and are counted wherever they act."""
import random
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from nfad.answers import Listed
from nfad.journal import short, utc
from nfad.suppression import Rule, Rules, Withdrawal, append_rule, cell_text, expiry, read_rules, rule_of, suppressed
from nights import DAMAGE, EVIL, damage, fuzz

NOW = "2026-11-28T01:00:00Z"
IPS = ["10.0.0.1", "10.0.0.2", "=1+1", EVIL, None]


def table(n: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"file": "a.csv", "Source IP": rng.choice(np.array(IPS, object), n), "Port": rng.choice([53.0, 80.0, np.nan], n)})


def rule(until: str = "2026-12-04T18:00Z", minute: int = 0, **columns) -> Rule:
    return Rule({name.replace("_", " "): cell for name, cell in columns.items()}, utc(until), "anna", utc(f"2026-11-28T00:{minute:02d}Z"))


def law_rules_end(apply):
    "A rule acts until its second, and does nothing from it on; then it is told."
    rules = Rules((rule(Port=53),), (), (), 1)
    for moment, acts in {"2026-12-04T17:59:59.999999Z": True, "2026-12-04T18:00:00Z": False, "2026-12-04T19:00:01+01:00": False, "2030-01-01T00:00Z": False}.items():
        found = apply(rules, table(), moment)
        assert ((found.by != "") == ((table()["Port"] == 53) & acts)).all()
        assert ("1 rule expired" in str(found)) != acts and ("next expires 2026-12-04T18:00:00Z" in str(found)) == acts


def test_law_rules_end(): law_rules_end(suppressed)


@pytest.mark.parametrize("broken", [lambda rules, rows, now: suppressed(rules, rows, "2026-11-29T00:00Z"),
                                    lambda rules, rows, now: suppressed(rules, rows, "2026-12-04T17:59:59Z" if now[:16] == "2026-12-04T18:00" else now)])
def test_law_rules_end_catches(broken):
    with pytest.raises(AssertionError): law_rules_end(broken)


def law_all_columns_must_match(apply):
    "Beside a plain reckoning over rows: every column is there, has a value, and it is the rule's; and what is said adds up."
    rng = random.Random(0)
    for seed in range(30):
        rows = table(seed=seed)
        rules = [rule(minute=i, **{name: cell for name, cell in {"Source_IP": rng.choice(IPS[:4]), "Port": rng.choice([53, "53", 80.0]), "VLAN": 1}.items()
                                   if rng.random() < (0.2 if name == "VLAN" else 0.7)} or {"Port": 53}) for i in range(4)]
        found = apply(Rules(tuple(rules), (), (), 4), rows, NOW)
        def hit(rule, row): return all(name in rows and not pd.isna(row[name]) and cell_text(row[name]) == cell_text(cell) for name, cell in rule.columns.items())
        expected = [", ".join(rule.id for rule in {rule.id: rule for rule in rules}.values() if hit(rule, row)) for _, row in rows.iterrows()]
        assert found.by.tolist() == expected
        n = sum(map(bool, expected))
        assert str(found).startswith(f"{n} alert" if n else "No alert") and found.facts()["n"] == n
        assert sum("VLAN" in rule.columns for rule in {rule.id: rule for rule in rules}.values()) == str(found).count("the list lacks VLAN")


def test_law_all_columns_must_match(): law_all_columns_must_match(suppressed)


def without_what_lacks(rules, rows, now):
    kept = [rule._replace(columns={name: cell for name, cell in rule.columns.items() if name in rows}) for rule in rules.every]
    return suppressed(rules._replace(every=tuple(kept)), rows, now)


def test_law_all_columns_must_match_catches():
    with pytest.raises(AssertionError): law_all_columns_must_match(without_what_lacks)
    with pytest.raises(AssertionError): law_all_columns_must_match(lambda rules, rows, now: suppressed(rules, rows.fillna({"Port": 53}), now))


def law_withdrawn_in_any_order(read, folder):
    "A withdrawal ends its rule wherever it stands; files merge in any order; lines = rules + withdrawals + named."
    one, two = rule(Port=53), rule(Port=80, minute=1)
    said = [[one], [two, Withdrawal(one.id, "ben", utc(NOW))], [Withdrawal("00000000", "ben", utc(NOW))]]
    paths = [folder / f"{i}.jsonl" for i in range(3)]
    for path, lines in zip(paths, said, strict=True):
        for line in lines: append_rule(path, line)
    for order in permutations(paths):
        found = read(order)
        assert found == read(paths) and found.n_lines == 4
        assert ((suppressed(found, table(), NOW).by != "") == (table()["Port"] == 80)).all()
        assert f"1 rule withdrawn ({one.id})" in str(suppressed(found, table(), NOW))


def test_law_withdrawn_in_any_order(tmp_path): law_withdrawn_in_any_order(read_rules, tmp_path)


def test_law_withdrawn_in_any_order_catches(tmp_path):
    with pytest.raises(AssertionError): law_withdrawn_in_any_order(lambda paths: read_rules(paths)._replace(withdrawn=()), tmp_path)


@settings(fuzz, max_examples=150)
@given(DAMAGE)
def test_damaged_lines_are_named(tmp_path_factory, harm):
    path = tmp_path_factory.getbasetemp() / "rules.jsonl"
    path.unlink(missing_ok=True)
    for said in (rule(Port=53), rule(Source_IP=EVIL), Withdrawal(rule(Port=53).id, "ben", utc(NOW))): append_rule(path, said)
    path.write_bytes(content := damage(path.read_bytes(), *harm))
    found = read_rules(path)
    assert len(found.every) + len(found.withdrawn) + len(found.named) == found.n_lines == content.count(b"\n") + (content[-1:] not in (b"\n", b""))
    assert str(suppressed(found, table(), NOW)).isprintable()


def test_names_are_shown_never_obeyed():
    odd = Rule({"\x1b[2J\u202eIP": EVIL}, utc("2026-12-04T18:00Z"), "a\nb", utc(NOW), "=1+1\x07")
    for text in (str(odd), str(suppressed(Rules((odd,), (), (), 1), table(), NOW))): assert text.isprintable() and "\\x1b[2J\\u202eIP" in text


@pytest.mark.parametrize("until, ends", {"2026-11-28": "2026-11-29T00:00:00Z", "2026-W49-5": "2026-12-05T00:00:00Z", "2026-12-04T18:00": "2026-12-04T18:00:00Z",
                                         " 2026-12-04 18:00:01+01:00 ": "2026-12-04T17:00:01Z", "2026-11-28T01:00:01Z": "2026-11-28T01:00:01Z"}.items())
def test_when_a_rule_ends(until, ends): assert short(expiry(until, NOW)) == ends


@pytest.mark.parametrize("until", ["", "never", "2026-11-27", "2026-11-28T01:00:00Z", "2028-01-01", "9999-12-31", "0001-01-01T00:00+23:00"])
def test_no_rule_is_for_ever(until):
    with pytest.raises(ValueError, match="^until must"): expiry(until, NOW)


def test_a_rule_of_a_record_hides_it():
    listed = Listed(table().assign(row=range(60)).set_axis(range(1, 61)), "m1", None)
    for rank, row in listed.table.iterrows():
        names = [name for name in ("Source IP", "Port") if not pd.isna(row[name])]
        if not names: continue
        made = rule_of(listed, rank, names, "2026-12-04", "anna", now=NOW)
        assert suppressed(Rules((made,), (), (), 1), listed.table, NOW).by[rank - 1] == made.id
    for wrong in (["row"], ["Sourc IP"], [], ["anomaly_score"]):
        with pytest.raises(ValueError, match="^by must name columns"): rule_of(listed, 1, wrong, "2026-12-04", "anna", now=NOW)
