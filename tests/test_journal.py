"""Laws of journals: what was said stays said through kills, rivals and full disks; every line is an entry or is named."""
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nfad import journal
from nfad.journal import entries_of, numbered_lines, utc
from appending import numbered, plainly, safely
from nights import DAMAGE, damage, fuzz
from notebooks import ROOT

START = "import sys; sys.path.insert(0, 'tests'); from appending import *; "


def process(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", START + code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def numbers_in(path: Path) -> tuple[list[int], int]:
    "Numbers of the entries that can be read, and how many lines are named."
    found, n_named = [], 0
    for _, line in numbered_lines(path):
        try: found.append(entries_of(line, "number")["number"])
        except (ValueError, KeyError): n_named += 1
    return found, n_named


# ---------------------------------------------------------------- kills

def law_no_finished_line_is_lost(append: str, path: Path, kills: int = 20):
    "A process that appends and says so is killed, over and over; all that it said it had appended is there, once."
    rng, said = random.Random(0), []
    for kill in range(kills):
        code = f"[({append}({str(path)!r}, [numbered(i)]), print(i, flush=True)) for i in range({1000 * kill}, {1000 * kill + 999})]"
        with process(code) as run:
            for _ in range(rng.randint(1, 6)): said.append(int(run.stdout.readline()))
            time.sleep(rng.uniform(0, 0.004))
            run.send_signal(signal.SIGKILL)
            said += [int(text) for text in run.stdout.read().split("\n")[:-1]]
    found, n_named = numbers_in(path)
    assert set(said) <= set(found) and len(set(found)) == len(found)
    assert len(found) + n_named == path.read_bytes().count(b"\n") + (path.read_bytes()[-1:] != b"\n") and n_named <= kills


def test_law_no_finished_line_is_lost(tmp_path): law_no_finished_line_is_lost("safely", tmp_path / "a.jsonl")


def test_law_no_finished_line_is_lost_catches(tmp_path):
    (tmp_path / "b.jsonl").touch()
    with pytest.raises(AssertionError): law_no_finished_line_is_lost("in_a_buffer", tmp_path / "b.jsonl", 2)


def law_a_cut_line_costs_itself_only(append, folder: Path):
    "Wherever the last line was cut, the lines before and after it are whole, and it is named."
    first, last = numbered(0) + "\n", numbered(7)
    for cut in range(len(last) + 1):
        path = folder / f"{cut}.jsonl"
        path.write_text(first * (cut % 2) + last[:cut])
        append(path, [numbered(2), numbered(3)])
        expected = [0] * (cut % 2) + [7] * (cut == len(last)) + [2, 3]
        assert numbers_in(path) == (expected, int(0 < cut < len(last))), cut


def test_law_a_cut_line_costs_itself_only(tmp_path): law_a_cut_line_costs_itself_only(safely, tmp_path)


def test_law_a_cut_line_costs_itself_only_catches(tmp_path):
    with pytest.raises(AssertionError): law_a_cut_line_costs_itself_only(plainly, tmp_path)


def test_the_disk_has_it_before_the_call_returns(tmp_path, monkeypatch):
    seen, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (seen.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    safely(tmp_path / "a.jsonl", [numbered(1)])
    assert seen == [str(tmp_path / "a.jsonl"), str(tmp_path)]  # the lines, and the new name in its folder


# ---------------------------------------------------------------- rivals

def law_two_at_once_lose_nothing(append: str, path: Path, n: int = 150):
    "Two processes append to one file, whose last line was cut; all lines of both are whole."
    path.write_text(numbered(0) + "\n" + numbered(1)[:20])
    code = "[{append}({path!r}, [numbered(i)]) for i in range({first}, {first} + {n})]"
    runs = [process(code.format(append=append, path=str(path), first=first, n=n)) for first in (1000, 2000)]
    for run in runs: assert run.wait() == 0, run.stderr.read()
    for run in runs: run.communicate()
    found, n_named = numbers_in(path)
    assert sorted(found) == [0, *range(1000, 1000 + n), *range(2000, 2000 + n)] and n_named == 1


def test_law_two_at_once_lose_nothing(tmp_path): law_two_at_once_lose_nothing("safely", tmp_path / "a.jsonl")


def test_law_two_at_once_lose_nothing_catches(tmp_path):
    with pytest.raises(AssertionError): law_two_at_once_lose_nothing("all_anew", tmp_path / "a.jsonl", 100)


# ---------------------------------------------------------------- no room, no journal

def law_a_full_disk_leaves_the_file_as_it_was(append, path):
    "A line for which there is no room, or not enough, is an error, and the file is what it was."
    for room in (0, 1, 50, 5999):
        path.unlink(missing_ok=True)
        safely(path, [numbered(1)])
        before = path.read_bytes()
        with process(f"full({str(path)!r}, {len(before) + room}, {append})") as run: said, errors = run.communicate()
        assert said == "OSError\n" and path.read_bytes() == before, errors


def test_law_a_full_disk_leaves_the_file_as_it_was(tmp_path): law_a_full_disk_leaves_the_file_as_it_was("safely", tmp_path / "a.jsonl")


def test_law_a_full_disk_leaves_the_file_as_it_was_catches(tmp_path):
    with pytest.raises(AssertionError): law_a_full_disk_leaves_the_file_as_it_was("plainly", tmp_path / "a.jsonl")


@pytest.mark.parametrize("content", ["a,b\n1,2\n", '{"nfad": "verdict", "version": 1}\n', "\n", "{}", '{"nfad": "numb"'])
def test_other_files_are_not_touched(tmp_path, content):
    path = tmp_path / "mine"
    path.write_text(content)
    with pytest.raises(ValueError, match="nothing was added"): safely(path, [numbered(1)])
    assert path.read_text() == content


# ---------------------------------------------------------------- damage

@fuzz
@given(DAMAGE, st.lists(st.binary(max_size=40), max_size=3))
@example(([], 0), [b"\r\n", b"\x85\xe2\x80\xa8", b"\n\n", b"\xef\xbb\xbf" + numbered(1).encode()])
def test_any_line_is_an_entry_or_an_error(tmp_path_factory, harm, lines):
    whole = "\n".join(numbered(i) for i in (0, 7, 14)).encode() + b"\n" + b"\n".join(lines)
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    path.write_bytes(content := damage(whole, *harm))
    found, n_named = numbers_in(path)
    assert len(found) + n_named == content.count(b"\n") + (content[-1:] not in (b"\n", b""))
    for number in found: assert len(str(number)) < 30


@pytest.mark.parametrize("line, why", {
    '{"nfad": "number", "version": 2}': "version must be 1", '{"nfad": "number", "version": true}': "version must be 1",
    '{"nfad": "number", "version": 1, "a": NaN}': "NaN is no number", '{"nfad": "number", "version": 1, "a": 1, "a": 2}': "'a' stands twice",
    "[1]": "no JSON object", '{"nfad": "rule", "version": 1}': "no number", "  ": "an empty line", "[" * 100_000: "no JSON",
    '{"a": ' * 100_000: "no JSON", "9" * 10_000: "no JSON", "x" * (1 << 21): "longer than"}.items(), ids=lambda text: text[:30])
def test_bad_lines_say_why(line, why):
    with pytest.raises(ValueError, match=why): entries_of(line.encode(), "number")


def test_long_lines_cost_their_limit_only(tmp_path):
    path = tmp_path / "long.jsonl"
    with open(path, "wb") as file:
        for size in (journal._MOST - 1, journal._MOST, journal._MOST + 1, 5 * journal._MOST + 3): file.write(b"x" * size + b"\n")
        file.write(numbered(1).encode())
    lines = list(numbered_lines(path))
    assert [number for number, _ in lines] == [1, 2, 3, 4, 5] and max(len(line) for _, line in lines) == journal._MOST + 1
    assert numbers_in(path) == ([1], 4)


# ---------------------------------------------------------------- times

def law_times_sort_as_texts(spell):
    "Texts sort as the moments do, whatever zone and precision they were given in."
    given_times = ["2026-11-28T00:00:00Z", "2026-11-28T00:30:00+01:00", "2026-11-28T00:00:00.000001Z", "2026-11-27T18:59:59.5-05:00",
                   "2026-11-28 01:00+00:00", "20261128T020000Z"]
    order = [1, 3, 0, 2, 4, 5]  # from the earliest to the latest
    assert sorted(range(6), key=lambda i: spell(given_times[i])) == order


def test_law_times_sort_as_texts(): law_times_sort_as_texts(utc)


@pytest.mark.parametrize("broken", [lambda text: text, lambda text: utc(text).replace(".000000", ""), lambda text: utc(text)[11:]])
def test_law_times_sort_as_texts_catches(broken):
    with pytest.raises(AssertionError): law_times_sort_as_texts(broken)


@pytest.mark.parametrize("text", ["", "now", "2026-13-01T00:00Z", "2026-11-28", "2026-11-28T00:00", "0001-01-01T00:00+23:00", "9999-12-31T23:59-23:00"])
def test_other_times_are_refused(text):
    with pytest.raises(ValueError, match="ISO 8601 with a zone"): utc(text)
