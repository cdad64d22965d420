"""One law for every sensor: a model that was trained on one week sees the next week's traffic as it saw the first, whatever the clocks and counters say."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from generated import OWN, cells
from nfad import data
from nfad.data import load_dataset
from nfad.tables import open_table
from nfad.vocabulary import COLUMNS

SENSORS = ["cicflowmeter", "zeek", "suricata", "argus", "netflow", "nfstream", "nfdump", "unswnb15", "lycos", "ntlflowlyzer", "own"]
WEEK = 7 * 24 * 3600
PER_SECOND = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}
ROWS = 120


def columns(tool):
    "Every column that a sensor writes: its name, role and unit."
    if tool == "own": return [(name, role, "ms" if role == "time" else "") for name, role in OWN]
    known = COLUMNS[(COLUMNS.vocabulary == tool) & ~COLUMNS.role.isin(["label", "mark"]) & ~COLUMNS.name.isin(["event_type", "_path"])]
    return [((*known.aliases[i].get(tool, ()), known.name[i])[0], known.role[i], known.unit[i]) for i in known.index]


def week(tool, late):
    "The records of a week that begins `late` seconds later; behaviour, addresses and ports are the same."
    rng = np.random.default_rng(len(tool))
    table = {}
    for name, role, unit in columns(tool):
        if role == "time" and unit in PER_SECOND: table[name] = [(1_600_000_000 + 37 * i + late) * PER_SECOND[unit] for i in range(ROWS)]
        elif role == "time": table[name] = list(pd.to_datetime([1_600_000_000 + 37 * i + late for i in range(ROWS)], unit="s").strftime("%Y-%m-%d %H:%M:%S.%f"))
        elif role == "counter": table[name] = [1 + i + late for i in range(ROWS)]
        else: table[name] = cells(name, role, ROWS, rng)
    return pd.DataFrame(table)


def law_next_week(folder, tool):
    "The numbers of a record do not depend on when it was seen."
    for name, late in (("first", 0), ("next", WEEK)): week(tool, late).to_csv(folder / f"{name}.csv", index=False)
    recipe = load_dataset(folder / "first.csv", label_column="none", cache=False).recipe
    assert len(recipe) >= 3, "nothing is learnt"
    first, after = (np.concatenate([batch.X for batch in open_table(folder / f"{name}.csv").records(recipe)]) for name in ("first", "next"))
    moved = [feature.name for feature, a, b in zip(recipe, first.T, after.T, strict=True) if not np.array_equal(a, b)]
    assert not moved, "a clock or a counter is a feature"
    assert np.isfinite(after).all(), "a row of the next week has no score"


@pytest.mark.parametrize("tool", SENSORS)
def test_law_next_week(tmp_path, tool): law_next_week(tmp_path, tool)


@pytest.mark.parametrize("tool, clock", [("zeek", "Timestamp"), ("nfstream", "Timestamp"), ("own", "when")])
def test_law_next_week_catches_a_clock(tmp_path, monkeypatch, tool, clock):
    usual = data.make_plan

    def with_clock(*args):
        plan = usual(*args)
        return replace(plan, features=(*plan.features, clock))

    monkeypatch.setattr(data, "make_plan", with_clock)
    with pytest.raises(AssertionError, match="clock"): law_next_week(tmp_path, tool)
