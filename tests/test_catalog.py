"""The catalog of data sets: what an entry says, where its files are looked for, and what is said when they are not there."""
import dataclasses

import numpy as np
import pandas as pd
import pytest

from nfad import catalog
from nfad.catalog import DATASETS, DatasetSource, list_datasets, locate
from nfad.recipes import REPAIRS, Repair
from nfad.data import load_dataset
from nfad.vocabulary import COLUMNS, FEATURES
from nfad.prep import FEATURE_SETS, default_feature_set, index_base
from samples import HEADER, ROWS, write


@pytest.mark.parametrize("name", [n for n in DATASETS if n != "demo"])
def test_missing_data_says_what_to_do(tmp_path, name):
    with pytest.raises(FileNotFoundError) as error: load_dataset(name, folder=tmp_path)
    text, source = str(error.value), DATASETS[name]
    for part in (str(tmp_path), source.patterns[0], source.layout, source.page, source.citation, "-p dataset demo", "NFAD_DATA"):
        assert part in text


def test_the_readme_of_the_data_folder_knows_all_sets():
    from nfad.core import repository_root
    text = (repository_root() / "data" / "README.md").read_text(encoding="utf-8")
    for source in DATASETS.values():
        for part in (f"`{source.name}`", source.title, source.page, source.citation, *source.patterns[:2]): assert part in text, part


def test_unknown_name():
    with pytest.raises(ValueError, match="did you mean 'cicids2017'"): load_dataset("cicids2107")
    with pytest.raises(FileNotFoundError, match="no file or folder"): load_dataset("no/such.csv")


def test_bad_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no table of records"): load_dataset(tmp_path)
    for name in ("a.xlsx", "README.md", "._a.csv"): (tmp_path / name).write_text("x")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(FileNotFoundError, match="left out: .*'README.md': 'not records'.*'a.xlsx': 'ending .xlsx'"): load_dataset(tmp_path)
    (tmp_path / "a.arff").write_text("@relation x\n@attribute a numeric\n")
    with pytest.raises(ValueError, match="no @data"): load_dataset(tmp_path / "a.arff")


# ---------------------------------------------------------------- entries

def law_entry(source):
    "An entry is complete: files (but for what is simulated), owner, paper, a feature set that exists, and one to count in."
    assert source.patterns or source.name == "demo", "no files"
    assert all(text.strip() for text in (source.title, source.layout, source.page, source.citation)), "a text is empty"
    assert source.feature_set in {"all", *FEATURE_SETS} and source.index_base in FEATURE_SETS, "no such feature set"
    assert source.vocabulary in {"tor_arff", "own", *COLUMNS.vocabulary}, "no such vocabulary"
    assert source.missing in ("drop", "indicate"), "no such way"
    own = "cicflowmeter" if source.vocabulary == "tor_arff" else source.vocabulary
    known = {*COLUMNS.name[COLUMNS.vocabulary == own], *FEATURES.name}
    assert source.feature_set == "all" or set(FEATURE_SETS[source.feature_set]) <= known, "features that its columns do not have"
    repair = REPAIRS.get(source.vocabulary)
    assert repair is None or not set(repair.needs) & set(FEATURE_SETS[source.index_base]), "misleading columns are features"


@pytest.mark.parametrize("name", DATASETS)
def test_law_entry(name):
    law_entry(DATASETS[name])
    assert DATASETS[name].name == name


@pytest.mark.parametrize("spoil, message", [
    ({"patterns": ()}, "no files"), ({"page": " "}, "empty"), ({"index_base": "all"}, "feature set"),
    ({"vocabulary": "zeke"}, "vocabulary"), ({"missing": "skip"}, "way"), ({"vocabulary": "tor_arff"}, "misleading")])
def test_law_entry_catches(spoil, message, monkeypatch):
    monkeypatch.setitem(REPAIRS, "tor_arff", Repair(("Flow Duration",), lambda frame: frame, "", ""))
    with pytest.raises(AssertionError, match=message): law_entry(dataclasses.replace(DATASETS["tor2016"], **spoil))


def test_what_is_here(tmp_path):
    assert list_datasets(tmp_path).set_index("name")["found"].to_dict() == {name: name == "demo" for name in DATASETS}
    write(tmp_path / "cicids2017" / "monday.csv")
    assert list_datasets(tmp_path).set_index("name")["found"]["cicids2017"]


def test_the_first_pattern_wins(tmp_path):
    for name in ("b.csv", "a.csv", "deep/c.csv"): write(tmp_path / "cicids2017" / name)
    assert list(locate("cicids2017", tmp_path)[1]) == ["cicids2017/a.csv", "cicids2017/b.csv"]


def test_files_that_are_no_tables_are_left_out_and_named(tmp_path):
    write(tmp_path / "days" / "deep" / "mon.csv")
    write(tmp_path / "days" / "tue.csv", [row.replace(",2,", ",7,") for row in ROWS])
    for name in ("README.txt", "._tue.csv", "notes.docx"): (tmp_path / "days" / name).write_text("x")
    (tmp_path / "days" / "empty.csv").touch()
    source, paths, left_out = locate(tmp_path / "days", tmp_path)
    assert source is None and list(paths) == ["deep/mon.csv", "tue.csv"]
    assert left_out == {"README.txt": "not records", "._tue.csv": "hidden", "notes.docx": "ending .docx", "empty.csv": "empty"}
    d = load_dataset(tmp_path / "days", cache=False)
    assert d.report.rows_read == 8 and [note for note in d.report.notes if note.startswith("file left out")] == [
        f"file left out: {name} ({why})" for name, why in left_out.items()]


# ---------------------------------------------------------------- one entry is enough

def halved(frame):
    "Rows in which bytes were counted twice, put right; those without bytes stay wrong."
    twice = frame["Bwd IAT Total"].to_numpy() == 1
    mended = frame.assign(**{"Flow Duration": np.where(twice, frame["Flow Duration"] / 2, frame["Flow Duration"])})
    return mended, twice, frame["Flow Duration"].to_numpy() < 0


@pytest.fixture
def office(tmp_path, monkeypatch):
    "A data set of a known vocabulary with a repair of its own, in the catalog of this test."
    repair = Repair(("Bwd IAT Total",), halved, "rows counted twice, put right", "no bytes")
    monkeypatch.setitem(REPAIRS, "cicflowmeter", repair)
    entry = DatasetSource("office", "Office traffic", ("office/*.csv",), "one CSV a day", "us", "none", label_columns=("kind",),
                          days=(("monday", "2026-01-05"),))
    monkeypatch.setitem(catalog.DATASETS, "office", entry)
    frame = pd.DataFrame({"Flow Duration": [10, 40, 30, -1, 50], "Flow IAT Mean": [1, 2, 3, 4, 5], "Total Fwd Packets": [3, 1, 4, 1, 5],
                          "Idle Max": [1, 2, 3, 4, 5], "Active Max": [2, 7, 1, 8, 2], "Bwd IAT Total": [0, 1, 0, 0, 0],
                          "kind": ["normal"] * 4 + ["worm"]})
    (tmp_path / "office").mkdir()
    frame.to_csv(tmp_path / "office" / "monday.csv", index=False)
    return tmp_path


def test_one_entry_is_enough(office):
    d = load_dataset("office", ["Flow Duration", "Flow IAT Mean"], folder=office, cache=False)
    assert d.records["Flow Duration"].tolist() == [10, 20, 30, 50] and d.attack.tolist() == ["benign"] * 3 + ["worm"]
    assert d.report.dropped == {"no bytes": 1} and d.report.notes[0] == "1 rows counted twice, put right" and set(d.day) == {"2026-01-05"}
    assert d.report.columns_dropped["Bwd IAT Total"] == "mislabelled"
    assert (default_feature_set("office"), index_base("office")) == ("all", "ids2017")


def test_without_its_repair_the_same_file_is_read_as_it_is(office, monkeypatch):
    monkeypatch.delitem(REPAIRS, "cicflowmeter")
    d = load_dataset(office / "office" / "monday.csv", label_column="kind", cache=False)
    assert d.records["Flow Duration"].tolist() == [10, 40, 30, -1, 50] and d.report.dropped == {}
