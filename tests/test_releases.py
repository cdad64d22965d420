"""Laws of nfad.releases: a file that differs from what is known is noticed, whichever fact differs, and nothing else is."""
import gzip
import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from nfad.catalog import DATASETS
from nfad.cli import main
from nfad.core import data_dir
from nfad.releases import KNOWN_FILES, KnownFile, check_files, differences

TEXT = b"a,b\n1,2\n3,4\n"
KNOWN = KnownFile("unswnb15", "one.csv", "official", len(TEXT), 2, f"sha256:{hashlib.sha256(TEXT).hexdigest()}")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "unswnb15" / "one.csv"
    path.parent.mkdir()
    path.write_bytes(TEXT)
    return path


def test_the_right_file_does_not_differ(file):
    assert differences(file, KNOWN) == []
    assert differences(file, KNOWN._replace(size=None, rows=None, digest="")) == []


@pytest.mark.parametrize("content, fact", [(TEXT + b"5,6\n", "bytes instead of"), (TEXT.replace(b"1", b"9"), "other bytes"), (b"a,b\n1,2,3,4\n", "rows instead of"), (TEXT[:-2], "bytes")])
def test_every_fact_is_compared(file, content, fact):
    file.write_bytes(content)
    assert any(fact in found for found in differences(file, KNOWN))


@pytest.mark.parametrize("dropped", ["size", "rows", "digest"])
def test_facts_catch_on_their_own(file, dropped):
    "A twin that knows one fact less does not notice what only that fact tells; the others still do."
    file.write_bytes(b"a,b\n1,2\n3,4\n5,6\n")
    assert differences(file, KNOWN._replace(**{dropped: "" if dropped == "digest" else None}))
    alone = KNOWN._replace(size=None, rows=None, digest="")
    assert differences(file, alone) == []


def test_rows_of_all_kinds(tmp_path):
    frame = pd.DataFrame({"a": range(5)})
    frame.to_parquet(tmp_path / "x.parquet")
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"a\n0\n1\n2\n3\n4"))
    for name in ("x.parquet", "x.csv.gz"):
        assert differences(tmp_path / name, KnownFile("demo", name, "official", None, 5)) == []
        assert differences(tmp_path / name, KnownFile("demo", name, "official", None, 6)) == ["5 rows instead of 6"]


def test_a_data_set_is_checked_file_by_file(file, tmp_path):
    (file.parent / "mine.csv").write_bytes(TEXT)
    other = KNOWN._replace(whose="figures", size=1, digest="")
    found = check_files("unswnb15", tmp_path, (other, KNOWN, KNOWN._replace(name="two.csv"))).set_index("file")
    assert found["status"].to_dict() == {"unswnb15/mine.csv": "not known", "unswnb15/one.csv": "as known", "two.csv": "not here"}
    assert found.loc["unswnb15/one.csv", "said"] == "the file of official"
    file.write_bytes(TEXT[:-4])
    found = check_files("unswnb15", tmp_path, (other, KNOWN)).set_index("file")
    assert found.loc["unswnb15/one.csv", "status"] == "differs" and "official: 8 bytes instead of 12, 1 rows instead of 2" in found.loc["unswnb15/one.csv", "said"]


def test_the_command_says_it(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NFAD_DATA", str(tmp_path))
    (file.parent / "UNSW_NB15_testing-set.csv").write_bytes(TEXT)
    assert main(["datasets", "unswnb15", "--check"]) == 3
    said = capsys.readouterr().out
    assert "differs    unswnb15/UNSW_NB15_testing-set.csv: official: 2 rows instead of 82,332" in said and "not known  unswnb15/one.csv" in said
    assert main(["datasets", "ctu13", "--check", "--json"]) == 0 and json.loads(capsys.readouterr().out)["files"] == []
    assert main(["datasets", "--check"]) == 1 and "check needs the name" in capsys.readouterr().err


# ---------------------------------------------------------------- what is known

def entry_faults(one: KnownFile) -> list[str]:
    faults = [] if one.dataset in DATASETS else [f"{one.dataset} is not registered"]
    if one.whose not in ("official", "figures"): faults.append(f"whose is {one.whose!r}")
    if one.digest and not re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", one.digest): faults.append(f"{one.digest} is no hash")
    if not (one.size or one.rows or one.digest): faults.append(f"nothing is known of {one.name}")
    return faults


def test_entries_are_complete(): assert [fault for one in KNOWN_FILES for fault in entry_faults(one)] == []


@pytest.mark.parametrize("change", [{"dataset": "x"}, {"whose": "mine"}, {"digest": "sha256:12"}, {"size": None, "rows": None, "digest": ""}])
def test_entries_catch(change): assert entry_faults(KNOWN_FILES[0]._replace(**change))


def test_the_files_here_are_those_of_the_figures():
    names = [one.dataset for one in KNOWN_FILES if one.whose == "figures"]
    checked = pd.concat([check_files(name) for name in names])
    here = checked[checked["status"] == "as known"]
    if here.empty: pytest.skip(f"none of the files of the figures is in {data_dir()}")
    assert set(here["said"]) <= {"the file of figures", "the file of official"}


def test_the_cards_name_what_is_known():
    text = (Path(__file__).parent.parent / "data" / "README.md").read_text(encoding="utf-8")
    for name in DATASETS: assert f"### `{name}`" in text, name
    lacking = [one.name for one in KNOWN_FILES if one.digest and one.digest.partition(":")[2] not in text]
    assert lacking == [], "data/README.md does not have the hash of these files"
