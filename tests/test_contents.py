"""Laws of what is in a file, each with a broken twin that must fail: the same bytes from any packing, whole lines for any block."""
import bz2
import gzip
import io
import json
import lzma
import zipfile

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfad.contents import archive_members, find_encoding, on_disk, open_contents, packing, plain_ending, whole_lines, whole_objects
from nfad.tables import open_table

fuzz = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
TEXT = "Flow Duration,Label\n" + "".join(f"{i},BENIGN\n" for i in range(50))


def zipped(content, *names):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names or ("a.csv",): archive.writestr(name, content)
    return held.getvalue()


def zst(content): return pa.Codec("zstd").compress(content, asbytes=True)


PACKERS = {"": lambda content: content, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zst, "zip": zipped}


# ---------------------------------------------------------------- packings

def law_unpacks(path, content, read=open_contents):
    "What is read, at once or in pieces, is what was packed; the share read rises to 1."
    with read(path) as contents: assert contents.file.read() == content, "other bytes"
    pieces, shares = [], []
    with read(path) as contents:
        while piece := contents.file.read(7): pieces.append(piece), shares.append(contents.share())
        assert b"".join(pieces) == content, "other bytes in pieces"
        assert shares == sorted(shares) and all(0 < share <= 1 for share in shares), "no share"
        if packing(path.read_bytes()) != "zip": assert contents.share() == 1, "no share"  # a zip ends in its directory


@pytest.mark.parametrize("kind", PACKERS)
@given(st.binary(min_size=1, max_size=200))
@settings(fuzz, max_examples=20)
def test_law_unpacks(tmp_path_factory, kind, content):
    if packing(content): return  # what looks packed is unpacked once more
    path = tmp_path_factory.getbasetemp() / "a.csv"  # the name says nothing
    path.write_bytes(PACKERS[kind](content))
    assert packing(path.read_bytes()) == kind
    law_unpacks(path, content)


@pytest.mark.parametrize("kind", [kind for kind in PACKERS if kind])
def test_law_unpacks_catches_the_file_as_it_lies_there(tmp_path, kind):
    (tmp_path / "a.csv").write_bytes(PACKERS[kind](TEXT.encode()))
    as_it_lies = lambda path: open_contents(path)._replace(file=open(path, "rb"))
    with pytest.raises(AssertionError, match="other bytes"): law_unpacks(tmp_path / "a.csv", TEXT.encode(), as_it_lies)


def test_files_packed_one_after_the_other_are_one(tmp_path):
    parts = TEXT[:200].encode(), TEXT[200:].encode()
    for kind in ("gz", "bz2", "xz", "zst"):
        (tmp_path / "a").write_bytes(b"".join(map(PACKERS[kind], parts)))
        with open_contents(tmp_path / "a") as contents: assert contents.file.read() == TEXT.encode(), kind


def test_endings_and_places(tmp_path):
    assert [plain_ending(name) for name in ("a.csv", "a.CSV.gz", "b.labeled", "a.tar.zst", "x")] == [".csv", ".csv", ".labeled", ".tar", ""]
    (tmp_path / "week.zip").write_bytes(zipped("a,b\n", "mon/a.csv", "tue.csv"))
    members = archive_members(tmp_path / "week.zip")
    assert [member.relative_to(tmp_path).as_posix() for member in members] == ["week.zip/mon/a.csv", "week.zip/tue.csv"]
    assert {on_disk(member) for member in members} == {tmp_path / "week.zip"} and on_disk(tmp_path / "no") == tmp_path / "no"
    for member in members:
        with open_contents(member) as contents: assert contents.file.read() == b"a,b\n"
    with pytest.raises(ValueError, match="holds 2 files; name one, such as week.zip/NAME"): open_contents(tmp_path / "week.zip")
    with pytest.raises(ValueError, match="cannot be read from its archive"): open_contents(tmp_path / "week.zip" / "wed.csv")


@pytest.mark.parametrize("kind", [kind for kind in PACKERS if kind])
@pytest.mark.parametrize("damage", [lambda b: b[:len(b) // 2], lambda b: b[:20] + bytes(60) + b[80:], lambda b: b[:12] + b"\xff" * 30])
def test_a_damaged_file_is_refused_by_name_or_read_to_its_damage(tmp_path, kind, damage):
    path = tmp_path / "a.csv"
    path.write_bytes(damage(PACKERS[kind]((TEXT * 40).encode() + bytes(range(1, 256)))))
    try: faults = [why for batch in open_table(path).batches([0]) for why in batch.faults]
    except ValueError as error: assert "a.csv" in str(error)
    else: assert len(faults) <= 2_050


# ---------------------------------------------------------------- encodings

WORDS = st.text(st.sampled_from("abc,;0123456789.-éüßЖ中\n"), min_size=1, max_size=60)


@given(WORDS, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
@settings(fuzz, max_examples=100)
def test_law_marked_texts_are_read_as_they_were_written(text, codec):
    content = ("a,b\n" + text).encode(codec)
    lines = b"".join(whole_lines(io.BytesIO(content), find_encoding(content), size=5)).decode()
    assert lines == "a,b\n" + text


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "cp1252", "utf-8"])
def test_law_unmarked_texts(codec):
    text = TEXT + "7,Web Attack – XSS\n"
    content = text.encode(codec)
    found = find_encoding(content)
    assert b"".join(whole_lines(io.BytesIO(content), found)).decode() == text
    assert b"".join(whole_lines(io.BytesIO(content), "latin-1")).decode() != text, "the law cannot fail"


def test_a_cut_character_at_the_end_of_the_head_does_not_mislead():
    head = (TEXT + "é" * 40).encode()
    assert {find_encoding(head[:-n]) for n in range(4)} == {"utf-8"}


def test_a_byte_that_is_no_character_costs_one_character():
    content = TEXT.encode() + b"8,caf\xe9\n9,x\n"
    assert b"".join(whole_lines(io.BytesIO(content), "utf-8")).decode() == TEXT + "8,caf\ufffd\n9,x\n"


# ---------------------------------------------------------------- whole lines

def plain_lines(content: bytes, ending: bytes) -> list[bytes]:
    "The lines of a text, by the simplest means."
    text = content.decode("utf-8", "replace")
    if ending == b"\r": return text.replace("\r", "\n").encode().split(b"\n")
    return [line.replace("\r", " ").encode() for line in text.replace("\r\n", "\n").split("\n")]


def law_whole_lines(content, ending, size, read=whole_lines):
    "For blocks of any size: no line is lost, joined or cut; every block but the last ends in a newline."
    blocks = list(read(io.BytesIO(content), "utf-8", ending, size))
    assert all(block.endswith(b"\n") for block in blocks[:-1]) and all(blocks), "a block that is not of whole lines"
    assert b"".join(blocks).split(b"\n") == plain_lines(content, ending), "other lines"


CONTENT = st.lists(st.sampled_from([b"1,2", b"", b"\r", b"\n", b"\r\n", b"x", b"\xc3\xa9", b"\xc3", b'"', b" ", b"\n\n", b"abcdefgh"]),
                   max_size=24).map(b"".join)


@given(CONTENT, st.sampled_from([b"\n", b"\r"]), st.integers(1, 12))
@settings(fuzz, max_examples=400)
def test_law_whole_lines(content, ending, size): law_whole_lines(content, ending, size)


def cut_blocks(file, encoding, ending, size):
    while block := file.read(size): yield block.replace(b"\r\n", b"\n")


def without_the_last(file, encoding, ending, size): return iter(list(whole_lines(file, encoding, ending, size))[:-1])


@pytest.mark.parametrize("read, message", [(cut_blocks, "not of whole lines"), (without_the_last, "other lines")])
def test_law_whole_lines_catches(read, message):
    with pytest.raises(AssertionError, match=message): law_whole_lines(b"1,2\r\n3,4\r\n5,6", b"\n", 4, read)


def test_only_one_block_is_held():
    "What is read ahead does not grow with the file."
    class Counted(io.BytesIO):
        read_so_far = 0
        def read(self, n):
            self.read_so_far += n
            return super().read(n)
    file = Counted(TEXT.encode() * 100)
    ahead, given_out = [], 0
    for block in whole_lines(file, size=1000):
        given_out += len(block)
        ahead.append(file.read_so_far - given_out)
    assert max(ahead[:-1]) <= 4000


# ---------------------------------------------------------------- one object a line

OBJECTS = [{"a": 1, "b": {"c": ["x, [y]", {"d": "}{"}]}}, {}, {"a": "\n\\ \" é"}, {"a": None, "e": [1, [2]]}]
JSONS = {
    "array": lambda told: json.dumps(told), "pretty": lambda told: json.dumps(told, indent=2, ensure_ascii=False), "tabs": lambda told: json.dumps(told, indent="\t"),
    "apart": lambda told: "\n".join(json.dumps(one, indent=1) for one in told), "joined": lambda told: "".join(map(json.dumps, told)),
    "wrapped": lambda told: json.dumps({"flows": told}), "wrapped pretty": lambda told: json.dumps({"flows": told}, indent=1)}


def law_one_object_a_line(how, read=whole_objects):
    "Each object is a line of its own, in order, wherever blocks end; what is between objects, and an object that is cut, is a line that is none."
    wrapped = how.startswith("wrapped")
    lines = lambda content, size: b"".join(read(io.BytesIO(content), "utf-8", size, wrapped)).split(b"\n")
    for told in (OBJECTS, OBJECTS[:1], [{"i": i, "text": "x" * (i % 90)} for i in range(300)]):
        content = JSONS[how](told).encode()
        for size in (3, 64, 10**6):
            found = lines(content, size)
            assert found[-1] == b"" and [json.loads(line) for line in found[:-1]] == told, "another object"
    cut = JSONS[how](OBJECTS[2:] * 3).encode()[:-9]
    found = lines(cut, 50)
    assert found[-1] != b"" and [json.loads(line) for line in found[:-1]] == (OBJECTS[2:] * 3)[:-1], "the cut end is hidden"


@pytest.mark.parametrize("how", JSONS)
def test_law_one_object_a_line(how): law_one_object_a_line(how)


def by_lines(file, encoding, size, wrapped): return [file.read()]


def without_cut(file, *how): return [block if block.endswith(b"\n") else block + b"\n" for block in whole_objects(file, *how)]


def block_by_block(file, encoding, size, wrapped):
    while block := file.read(size): yield from whole_objects(io.BytesIO(block), encoding, size, wrapped)


@pytest.mark.parametrize("broken", [by_lines, without_cut, block_by_block])
def test_law_one_object_a_line_catches(broken):
    with pytest.raises((AssertionError, ValueError)): law_one_object_a_line("pretty", broken)


def test_a_broken_object_costs_itself():
    told = [{"i": i} for i in range(50)]
    for indent, broken in ((1, '"i": 7 7'), (None, '"i": 7 7')):
        content = json.dumps(told, indent=indent).replace('"i": 7', broken, 1)
        lines = b"".join(whole_objects(io.BytesIO(content.encode()))).splitlines()
        good = [json.loads(line) for line in lines if b"7 7" not in line]
        assert good == told[:7] + told[8:] and sum(b"7 7" in line for line in lines) == 1
