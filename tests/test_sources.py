"""What a folder holds: every file of it is a table, or is named with a reason."""
import gzip
import os
import struct
import zipfile

import numpy as np
import pandas as pd
import pytest

from nfad import sources
from nfad.data import load_dataset
from nfad.overview import look_at
from nfad.metering import find_captures, no_captures
from nfad.sources import files_at, find_tables, tables_below
from samples import HEADER, ROWS, write


def a_folder(root):
    "Tables in several forms, and what lies beside them; returns the names of all files, members for archives."
    (root / "more" / "deep").mkdir(parents=True)
    text = "a,b\n1,2\n"
    for name in ("mon.csv", "TUE.CSV", "more/deep/wed.txt"): (root / name).write_text(text)
    (root / "thu.csv.gz").write_bytes(gzip.compress(text.encode()))
    pd.DataFrame({"a": [1]}).to_parquet(root / "fri.parquet")
    with zipfile.ZipFile(root / "week.zip", "w") as archive:
        for name in ("in/sat.csv", "in/notes.docx"): archive.writestr(name, text)
    for name, content in (("README", "x"), (".hidden.csv", text), ("more/empty.csv", ""), ("bad.zip", "x"), ("figure.png", "x")):
        (root / name).write_text(content)
    zipfile.ZipFile(root / "none.zip", "w").close()
    (root / "gone.csv").symlink_to(root / "nowhere.csv")
    plain = [os.path.relpath(os.path.join(place, name), root) for place, _, names in os.walk(root) for name in names]
    return {*plain, "week.zip/in/sat.csv", "week.zip/in/notes.docx"} - {"week.zip"}


def law_nothing_vanishes(look, root, names):
    "Each file is found, or left out with a reason; never both."
    found, left_out = look(root)
    assert {*found} | {*left_out} == names and not {*found} & {*left_out} and all(left_out.values())


def test_law_nothing_vanishes(tmp_path):
    names = a_folder(tmp_path)
    law_nothing_vanishes(tables_below, tmp_path, names)
    assert set(find_tables(tmp_path)[0]) == {"mon.csv", "TUE.CSV", "more/deep/wed.txt", "thu.csv.gz", "fri.parquet", "week.zip/in/sat.csv"}


@pytest.mark.parametrize("gone", ["mon.csv", "none.zip", "week.zip/in/notes.docx"])
def test_law_nothing_vanishes_catches(tmp_path, gone):
    names = a_folder(tmp_path)
    def careless(root): return tuple({name: to for name, to in part.items() if name != gone} for part in tables_below(root))
    with pytest.raises(AssertionError): law_nothing_vanishes(careless, tmp_path, names)


def test_links_are_followed_once(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.csv").write_text("a\n1\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    assert list(find_tables(tmp_path / "data")[0]) == ["far/a.csv"]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.csv").write_text("a\n1\n")
    scandir = os.scandir
    def locked(path):
        if str(path).endswith("locked"): raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)
    monkeypatch.setattr(os, "scandir", locked)
    assert find_tables(tmp_path)[1] == {"locked": "a folder that cannot be opened: Permission denied"}


# ---------------------------------------------------------------- the folder of a known data set

def other_day(day): return [row.replace(",2,", f",{day},") for row in ROWS]


@pytest.fixture
def week(tmp_path):
    "CIC-IDS2017 as people keep it: days plain, in capitals, packed, as Parquet, in an archive; a copy, and other things."
    home = tmp_path / "cicids2017"
    write(home / "monday.csv")
    write(home / "Tuesday.CSV", other_day(7))
    write(home / "x.csv", other_day(8))
    (home / "wednesday.csv.gz").write_bytes(gzip.compress((home / "x.csv").read_bytes()))
    write(home / "x.csv", other_day(9))
    with zipfile.ZipFile(home / "rest.zip", "w") as archive: archive.write(home / "x.csv", "days/thursday.csv")
    (home / "x.csv").unlink()
    (home / "monday.csv.gz").write_bytes(gzip.compress((home / "monday.csv").read_bytes()))
    (home / "features.csv").write_text("no,name\n1,Flow Duration\n")
    write(home / "old" / "monday.csv", other_day(6))
    (home / "Monday.pcap").write_bytes(bytes.fromhex("d4c3b2a1") + bytes(20))
    (home / "cicids2017_improved.parquet").write_bytes(b"PAR1")
    (home / "paper.pdf").write_text("x")
    return tmp_path


READ = {f"cicids2017/{name}" for name in ("monday.csv", "Tuesday.CSV", "wednesday.csv.gz", "rest.zip/days/thursday.csv")}


def test_a_known_set_reads_what_it_can_and_names_the_rest(week):
    report = load_dataset("cicids2017", folder=week, cache=False).report
    assert set(report.files) == READ and report.rows_read == 4 * len(ROWS)
    assert report.files_left_out == {
        "cicids2017/monday.csv.gz": "holds the rows of cicids2017/monday.csv", "cicids2017/features.csv": "its columns are not those of cicids2017",
        "cicids2017/old/monday.csv": "cicids2017/*.csv is read instead", "cicids2017/Monday.pcap": "cicids2017/*.csv is read instead",
        "cicids2017/cicids2017_improved.parquet": "of data set cicids2017_improved", "cicids2017/paper.pdf": "ending .pdf"}
    said = {note for note in report.notes if note.startswith("file left out: ")}
    assert said == {f"file left out: {name} ({why})" for name, why in report.files_left_out.items()}


def test_a_prepared_file_is_read_alone_and_says_so(week):
    pd.read_csv(week / "cicids2017" / "monday.csv").to_parquet(week / "cicids2017" / "cicids2017.parquet")
    report = load_dataset("cicids2017", folder=week, cache=False).report
    assert report.files == ("cicids2017/cicids2017.parquet",) and report.rows_read == len(ROWS)
    assert report.files_left_out["cicids2017/Tuesday.CSV"] == "cicids2017/cicids2017.parquet is read instead"
    assert "8 files left out" in "\n".join(report.lines())


def test_only_packed_files_are_a_data_set(tmp_path):
    write(tmp_path / "x.csv")
    (tmp_path / "cicids2017").mkdir()
    (tmp_path / "cicids2017" / "monday.csv.gz").write_bytes(gzip.compress((tmp_path / "x.csv").read_bytes()))
    assert load_dataset("cicids2017", folder=tmp_path, cache=False).report.rows_read == len(ROWS)


# ---------------------------------------------------------------- files of one name, files with half the columns

def test_two_files_of_one_name_are_both_named(tmp_path):
    for day, place in enumerate(("a", "b", "c")): write(tmp_path / place / "day.csv", other_day(day + 6))
    (tmp_path / "a" / "torn.csv").write_text("\n")
    (tmp_path / "b" / "torn.csv").write_text("\n")
    report = load_dataset(tmp_path, cache=False).report
    assert report.files == ("a/day.csv", "b/day.csv", "c/day.csv") and set(report.files_left_out) == {"a/torn.csv", "b/torn.csv"}
    assert set(look_at(tmp_path).files) == {"a/day.csv", "b/day.csv", "c/day.csv"}


def test_files_are_named_below_the_folder_that_was_asked_for(tmp_path):
    for day, name in enumerate(("tue.csv", "wed.csv")): write(tmp_path / "days" / name, other_day(day + 6))
    (tmp_path / "mon.csv").touch()
    (tmp_path / "days" / "mon.csv").write_text("\n")
    for report in (load_dataset(tmp_path, cache=False).report, look_at(tmp_path)):
        assert set(report.files) == {"days/tue.csv", "days/wed.csv"}
    left_out = load_dataset(tmp_path, cache=False).report.files_left_out
    assert left_out["mon.csv"] == "empty" and set(left_out) == {*look_at(tmp_path).left_out} == {"mon.csv", "days/mon.csv"}


def test_each_file_that_lacks_columns_is_named(tmp_path):
    for lacks in range(6):
        rows = np.random.default_rng(lacks).normal(size=(40, 9))
        table = pd.DataFrame({f"c{column}": rows[:, column] for column in range(9) if column != lacks})
        table.to_csv(tmp_path / f"f{lacks}.csv", index=False)
    lost = [note for note in load_dataset(tmp_path, label_column="none", cache=False).report.notes if "without" in note]
    assert len(lost) == 4 and all(any(f"f{lacks}.csv" in note for note in lost) for lacks in range(6))


def test_a_file_with_half_the_columns_is_named(tmp_path):
    write(tmp_path / "full.csv")
    write(tmp_path / "full2.csv", other_day(7))
    half = pd.read_csv(tmp_path / "full.csv").iloc[:, [0, 1, 2, -1]] * 1
    half.assign(**{half.columns[1]: range(30, 30 + len(half))}).to_csv(tmp_path / "half.csv", index=False)
    notes = load_dataset(tmp_path, cache=False).report.notes
    lost = [note for note in notes if "without" in note]
    assert len(lost) == 1 and lost[0].startswith("half.csv without ") and "used of none" in lost[0]
    (tmp_path / "half.csv").unlink()
    assert not any("without" in note for note in load_dataset(tmp_path, cache=False).report.notes)


def test_inspect_names_every_file(tmp_path):
    write(tmp_path / "day.csv")
    for number in range(9): (tmp_path / f"notes{number}.docx").write_text("x")
    assert "9 files left out" in str(look_at(tmp_path)) and len(look_at(tmp_path).left_out) == 9


# ---------------------------------------------------------------- links, and members of archives

@pytest.fixture(params=[1, -1], ids=["first", "last"])
def disk(monkeypatch, request):
    "A disk that lists its entries in one order, or in the other."
    scandir = os.scandir
    def ordered(path):
        with scandir(path) as entries: return iter(sorted(entries, key=lambda entry: entry.name)[::request.param])
    monkeypatch.setattr(os, "scandir", ordered)


@pytest.mark.parametrize("latest", ["_latest", "0-latest", "latest"])
def test_a_link_to_a_folder_of_the_root_hides_nothing(tmp_path, disk, latest):
    write(tmp_path / "2026-01-01" / "x.csv")
    (tmp_path / latest).symlink_to("2026-01-01")
    (tmp_path / "x.csv").symlink_to("2026-01-01/x.csv")
    assert list(find_tables(tmp_path)[0]) == ["2026-01-01/x.csv"]
    assert load_dataset(tmp_path, cache=False).report.rows_read == len(ROWS)


def test_a_visible_link_into_a_hidden_folder_is_followed(tmp_path, disk):
    write(tmp_path / ".store" / "x" / "a.csv")
    (tmp_path / "data").symlink_to(".store/x")
    (tmp_path / "z").symlink_to("data")
    assert find_tables(tmp_path) == ({"data/a.csv": tmp_path / "data" / "a.csv"}, {})


def test_broken_links_are_named_one_by_one(tmp_path):
    write(tmp_path / "a.csv")
    for name in ("b.csv", "c.csv"): (tmp_path / name).symlink_to("nowhere.csv")
    (tmp_path / "d.csv").symlink_to("d.csv")
    assert find_tables(tmp_path)[1] == dict.fromkeys(["b.csv", "c.csv", "d.csv"], "no plain file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["in.csv", "./in.csv"])
def test_two_members_of_one_name_are_refused(tmp_path, second):
    write(tmp_path / "a.csv")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for name in ("in.csv", second): archive.writestr(name, "a\n1\n")
    found, left_out = find_tables(tmp_path)
    assert list(found) == ["a.csv"] and "two files of one name, in.csv" in left_out["w.zip"]


def test_a_member_with_an_odd_name_is_read(tmp_path):
    write(tmp_path / "a.csv")
    write(tmp_path / "b" / "b.csv", other_day(7))
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for day, name in enumerate(("/etc/a.csv", "./b.csv", "../c.csv", "d//e.csv")):
            archive.writestr(name, "\n".join([HEADER, *other_day(day + 8)]))
    report = load_dataset(tmp_path, cache=False).report
    assert len(report.files) == 5 and report.files_left_out == {"w.zip/../c.csv": "hidden"}
    assert report.rows_read == 5 * len(ROWS)


def test_a_second_name_of_a_file_is_named_and_not_read_again(tmp_path):
    "Neither as a table, nor as a capture, nor as a file of Parquet records."
    import pandas as pd
    from nfad.training import ParquetRecords
    folder, other = tmp_path / "in", tmp_path / "elsewhere"
    for place in (folder, other): place.mkdir()
    (other / "x.pcap").write_bytes(bytes.fromhex("d4c3b2a1") + bytes(20))
    pd.DataFrame({"a": [1.0, 2.0]}).to_parquet(other / "x.parquet")
    for ending in ("pcap", "parquet"):
        for name in ("a", "b"): (folder / f"{name}.{ending}").symlink_to(other / f"x.{ending}")
    found, left_out = find_tables(folder)
    assert list(found) == ["a.parquet", "a.pcap"]
    assert left_out == {"b.parquet": "the same file as a.parquet", "b.pcap": "the same file as a.pcap"}
    captures = find_captures([folder])
    assert captures == [folder / "a.pcap"] and no_captures([folder], captures)["b.pcap"] == "the same file as a.pcap"
    assert ParquetRecords(folder).files == [folder / "a.parquet"]


# ---------------------------------------------------------------- several places

def capture(path, at=0):
    "An empty capture, whose name alone matters, or one of a packet at a second."
    frame = bytes(60)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes.fromhex("d4c3b2a1") + struct.pack("<HHiIII", 2, 4, 0, 0, 65535, 1)
    path.write_bytes(head + struct.pack("<IIII", at, 0, len(frame), len(frame)) + frame)
    return path


def law_each_file_is_read_once(find, root):
    "Whatever places lead to a file, and in whatever order, it is read once."
    a, b = capture(root / "D" / "a.pcap", 2), capture(root / "D" / "sub" / "b.pcap", 1)
    (root / "link").symlink_to(root / "D" / "sub")
    D, sub, link = root / "D", root / "D" / "sub", root / "link"
    for places in ([D, sub], [sub, D], [D, D], [D, b], [b, D, sub, b], [D, link], [link, D], [sub, link, a]):
        assert [os.path.realpath(path) for path in find(places)] == [str(b), str(a)], places


def test_law_each_file_is_read_once(tmp_path): law_each_file_is_read_once(find_captures, tmp_path)


def test_law_each_file_is_read_once_catches(tmp_path):
    "One place after the other, as it was."
    with pytest.raises(AssertionError):
        law_each_file_is_read_once(lambda places: sum((find_captures([place]) for place in places), []), tmp_path)


def test_a_second_name_at_another_place_is_named(tmp_path):
    path = capture(tmp_path / "D" / "sub" / "b.pcap")
    (tmp_path / "link").symlink_to(tmp_path / "D" / "sub")
    places = [tmp_path / "D", tmp_path / "link"]
    again = {(tmp_path / "link" / "b.pcap").as_posix(): f"the same file as {path.as_posix()}"}
    assert no_captures(places, find_captures(places)) == again
    places = [tmp_path / "D", tmp_path / "D" / "sub"]  # one name: nothing is left out
    assert no_captures(places, find_captures(places)) == {} and files_at(places) == {path: ""}


def test_a_folder_without_captures_is_refused_and_a_file_is_taken_at_its_word(tmp_path):
    path = capture(tmp_path / "D" / "b.pcap")
    (tmp_path / "D" / "notes.txt").write_text("a")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="none holds no capture"): find_captures([tmp_path / "D", tmp_path / "none"])
    assert find_captures([path.parent]) == [path]
    with pytest.raises(ValueError, match="notes.txt is no capture"): find_captures([path.parent, path.with_name("notes.txt")])
    with pytest.raises(FileNotFoundError, match="no file or folder"): files_at([path, tmp_path / "nowhere"])
