"""Laws of nfad.pasts: benign rows in doubt, four parts that share no row, four rules with thresholds of their own."""
import numpy as np
import pandas as pd
import pytest

from nfad.pasts import doubtful_rows, judge_rules, plot_rules, read_labelled, renewed, simulated_capture, split_benign, study_pasts


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    path = tmp_path_factory.mktemp("pasts") / "day.csv"
    simulated_capture().to_csv(path, index=False)
    return read_labelled(path)


def test_a_capture_keeps_its_order(day):
    assert len(day.X) == len(day.attack) == len(day.cells.time) == 1310 and (np.diff(day.cells.time) >= 0).all()
    assert (day.take(day.attack == "scan").attack == "scan").all()


def law_doubt(doubtful, day):
    "Only rows called benign: a flood without an answer, and what goes where attacks go; never by a score."
    found = doubtful(day)
    assert found.sum() == 30 and (day.attack[found] == "benign").all() and (day.cells.failed[found] == 1).all()
    moved = day._replace(cells=day.cells._replace(target=np.where(np.arange(1310) == 5, day.cells.target[day.attack == "scan"][0], day.cells.target)))
    assert doubtful(moved)[5] and doubtful(moved).sum() == 31
    assert np.array_equal(doubtful(day._replace(X=np.zeros_like(day.X))), found)


def test_law_doubt(day): law_doubt(doubtful_rows, day)


@pytest.mark.parametrize("twin", ["answered", "attacks"])
def test_law_doubt_catches(day, twin):
    def answered(day): return doubtful_rows(day._replace(cells=day.cells._replace(failed=np.ones_like(day.cells.failed))))
    def attacks(day): return doubtful_rows(day) | (day.attack != "benign")
    with pytest.raises(AssertionError): law_doubt({"answered": answered, "attacks": attacks}[twin], day)


def law_parts(split):
    "Disjoint, complete, and by time in order."
    rows = np.arange(7, 107)
    for how in ("random", "temporal"):
        parts = split(rows, how, 3)
        assert sorted(np.concatenate(parts)) == rows.tolist() and [len(part) for part in parts] == [50, 10, 20, 20]
        assert (np.diff(np.concatenate(parts)) > 0).all() == (how == "temporal")
        later = renewed(parts)
        assert [len(part) for part in later] == [50, 10, 30, 10] and not set(later[2]) & set(later[3])


def test_law_parts(): law_parts(split_benign)


def test_law_parts_catches_a_split_that_mixes():
    with pytest.raises(AssertionError): law_parts(lambda rows, how, seed: split_benign(rows, "random", seed))


def test_rules_have_thresholds_of_their_own():
    rng = np.random.default_rng(0)
    attack = np.repeat(["benign", "loud", "busy"], [1000, 50, 50])
    scores, context = rng.normal(size=1100), rng.lognormal(size=(1100, 51))
    scores[1000:1050] += 8
    context[1050:] *= 50
    rules = judge_rules(split_benign(np.arange(1000), "random"), scores, context, attack)
    assert rules.loc["record", "tpr"] < 0.6 and rules.loc["host", "tpr"] < 0.6 and rules.loc[["sum", "smaller"], "tpr"].min() > 0.9
    assert (rules["realised"] < 0.05).all() and (rules["macro_tpr"] - rules["tpr"]).abs().max() < 1e-9


def test_a_study_of_a_simulated_day(day):
    table = study_pasts(day, hidden=4, epochs=1)
    assert len(table) == 16 and table.query("stream in ('quiet', 'renewed')")["tpr"].isna().all()
    assert plot_rules(table).get_ylabel() == "attacks found (share)"
    with pytest.raises(ValueError, match="how must be"): split_benign(np.arange(50), "grouped")
    with pytest.raises(KeyError, match="Source IP"): read_labelled_without(day)


def read_labelled_without(day):
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        simulated_capture(100, 20).drop(columns="Source IP").to_csv(f"{folder}/x.csv", index=False)
        return read_labelled(f"{folder}/x.csv")
