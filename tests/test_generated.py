"""One law over generated tables of every sensor, dialect and damage: nothing crashes, and every row of a file is used or named."""
import dataclasses

import numpy as np
import pytest

from generated import TOOLS, case
from nfad.data import load_dataset
from nfad.tables import open_table

PER_TOOL = 20


def law_nothing_lost(folder, number, opened=open_table, loaded=load_dataset):
    "Rows read and rows named are the rows of the file; no undamaged row is named; the same through a data set's report, if `loaded`."
    made = case(number)
    path = folder / f"table{made.ending}"
    path.write_bytes(made.content)
    table = opened(path, header=made.header)
    faults = np.concatenate([batch.faults for batch in table.batches(range(len(table.names)), rows=7)])
    assert len(faults) == table.report.rows_read == made.n_rows, "rows are lost or invented"
    named = np.flatnonzero(np.not_equal(faults, None).astype(bool))
    assert set(named) <= made.damaged, "a sound row is named"
    assert table.report.rows_used == made.n_rows - len(named) and table.report.dropped.total() == len(named), "the account is wrong"
    if loaded is None: return
    report = loaded(path, label_column=made.label, header=made.header, cache=False).report
    assert report.rows_read == made.n_rows, "a data set has other rows"
    assert report.rows_kept + sum(report.dropped.values()) == made.n_rows, "rows of a data set are lost"
    of_the_end = {"truncated last line", "last line without its end"}  # named only if the column that may go on is wanted
    for why in set(faults) - {None, *of_the_end}: assert report.dropped[why] == (faults == why).sum(), "other rows are named"


@pytest.mark.parametrize("tool", TOOLS)
def test_law_nothing_lost(tmp_path, tool):
    for number in range(TOOLS.index(tool), PER_TOOL * len(TOOLS), len(TOOLS)):
        try: law_nothing_lost(tmp_path, number, loaded=load_dataset if number % 2 else None)
        except Exception as error: raise AssertionError(f"case {number}: {type(error).__name__}: {error}") from error


def without_faults(path, **how):
    "A table whose reader leaves damaged rows out without a word."
    table = open_table(path, **how)
    sound = lambda batch: np.equal(batch.faults, None).astype(bool)
    return dataclasses.replace(table, read=lambda wanted: (b._replace(faults=b.faults[sound(b)]) for b in table.read(wanted)))


def of_doubtful(path, **how):
    "A table in which each first row of a batch is named."
    table = open_table(path, **how)
    def read(wanted):
        for batch in table.read(wanted):
            faults = batch.faults.copy()
            faults[:1] = "doubtful"
            yield batch._replace(faults=faults)
    return dataclasses.replace(table, read=read)


def forgetful(*args, **how):
    "A data set that does not say what was left out."
    dataset = load_dataset(*args, **how)
    return dataclasses.replace(dataset, report=dataclasses.replace(dataset.report, dropped={}))


@pytest.mark.parametrize("spoil, message", [
    ({"opened": without_faults}, "lost or invented"), ({"opened": of_doubtful}, "sound row"), ({"loaded": forgetful}, "of a data set are lost")])
def test_law_nothing_lost_catches(tmp_path, spoil, message):
    number = next(number for number in range(50) if len(case(number).damaged) > 4)
    law_nothing_lost(tmp_path, number)
    with pytest.raises(AssertionError, match=message): law_nothing_lost(tmp_path, number, **spoil)


def test_the_cases_are_of_all_kinds():
    cases = [case(number) for number in range(PER_TOOL * len(TOOLS))]
    endings = {made.ending.split(".")[1] for made in cases}
    assert endings == {"csv", "log", "json", "arff", "txt"} and any(made.header for made in cases)
    assert sum(len(made.damaged) for made in cases) > 300 and cases[3] == case(3)
