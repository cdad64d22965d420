"""Tables of every sensor, dialect and damage: nothing crashes or hangs, and rows used + rows named = rows of the file."""
import pytest

from attacks import run_attacks
from generated import case
from nfad.data import load_dataset
from test_generated import law_nothing_lost, without_faults


def table_of(folder, **how):
    "One table, of a number that the attack draws; every second one goes through a data set, too."
    def one(attack):
        number = int(attack.rng.integers(1, 1 << 40))
        law_nothing_lost(folder, number, **{"loaded": load_dataset if attack.number % 2 else None} | how)
        return case(number).ending.split(".")[1]
    return one


def test_generated_tables(tmp_path): run_attacks("tables", table_of(tmp_path), share=0.5)


def test_a_reader_that_loses_rows_is_caught(tmp_path):
    with pytest.raises(AssertionError, match="lost or invented"): run_attacks("lossy", table_of(tmp_path, opened=without_faults), share=0.1)
