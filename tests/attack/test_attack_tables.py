"""Attacks on tables and streams: damaged and hostile bytes in every format, and what must hold all the same.

`make test` throws 500 at each, `make attack` 20,000; `attacks.py` draws them.
"""
import bz2
import gzip
import json
import lzma
import shutil

import numpy as np
import pandas as pd
import pytest

from attacks import ATTACKS, damage, run_attacks
from invariants import cheap_model, failure_is_told, no_traceback, nothing_changes, rows_are_accounted, strict_json
from nfad import files, outputs, tables
from nfad.cli import main
from nfad.files import score_files
from nfad.outputs import write_table
from nfad.streams import Scorer, json_line, score_lines
from nights import NAMES, detector, model_path, records


@pytest.fixture(scope="module")
def model(): return cheap_model()


@pytest.fixture
def quick(monkeypatch):
    "`score_files` without a look at units, which takes most of the time of a small file."
    monkeypatch.setattr(files, "doubts_about", lambda table: [])
    return lambda source, target: score_files(cheap_model(), source, target, keep="none", progress=False)


SHARE = 0.1 if ATTACKS <= 500 else 0.25  # of ATTACKS, for each of four formats
FRAME = records(60).assign(note="n", Label="BENIGN")[["Flow ID", *NAMES, "note", "Label"]].round(3)


def as_json(frame): return "".join(json.dumps({key: cell for key, cell in row.items() if cell == cell}) + "\n" for row in frame.to_dict("records"))


def as_zeek(frame):
    above = "#separator \\x09\n#unset_field\t-\n#path\tconn\n#fields\t" + "\t".join(frame) + "\n"
    return above + frame.to_csv(sep="\t", index=False, header=False, na_rep="-")


TEXTS = {"a.csv": lambda: FRAME.to_csv(index=False), "a.txt": lambda: FRAME.to_csv(index=False, sep=";"), "a.json": lambda: as_json(FRAME), "a.log": lambda: as_zeek(FRAME)}
N_ABOVE = {"a.csv": 1, "a.txt": 1, "a.json": 0, "a.log": 4}
PACKERS = {"": lambda data: data, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def hostile(line: bytes, attack) -> bytes:
    "A line that somebody made to hurt."
    rng, n = attack.rng, int(attack.rng.integers(1, 40_000))
    cut = line[:int(rng.integers(0, len(line) + 1))]
    if attack.rng.random() < 0.1:  # dear to make
        far = {f"Idle Max{' ' * (i % 90)}{i}": 1 for i in range(n // 9)} if n % 2 else {f"k{i}": i for i in range(n // 3)}
        return json.dumps(far).encode()
    return attack.one_of([
        cut, b'"' + line, line.replace(b",", b',"', 1), line + b'"', b"[" * n, b'{"a":' * n, b'"' * n, b"," * n, b"\r" + line, line.replace(b",", b"\r", 1), b"\x00" * 3, line * 3,
        b'{"Idle Max": 1e999, "a": NaN}', b'{"nfad": {}}', b'{"a": "\\ud800"}', b"9" * n, b"1e" + b"9" * 30, b"x" * n, b"\xff\xfe" * 9, b"\xef\xbb\xbf" + line, "é".encode() * 40,
        b"=1+1,@x", b"\t" * n, line.replace(b".", b","), b"Summary", b"#" + line, b" ", line.upper(), b'{"Idle Max": [[1], {"b": true}]}', b'{"Idle Max": ' + b"9" * 400 + b"}",
        b"null", b"true", rng.bytes(60).replace(b"\n", b" ")])


def attacked(attack, name: str) -> tuple[list[bytes], list[bytes], list[bytes]]:
    "Lines above, the lines below as they were, and as they are: some hostile, some damaged, some gone."
    lines = TEXTS[name]().encode().splitlines()
    above, rows = lines[:N_ABOVE[name]], lines[N_ABOVE[name]:]
    now = list(rows)
    for _ in range(int(attack.rng.integers(1, 4))):
        place = int(attack.rng.integers(len(rows)))
        now[place] = hostile(rows[place], attack) if attack.rng.random() < 0.7 else damage(rows[place], attack).replace(b"\n", b"")
    return above, rows, now


def law_lines_are_accounted(score, attack, folder, name):
    "Each line has a row, sound lines have the scores that they have without the hostile ones, and the file stays as it is."
    above, rows, now = attacked(attack, name)
    packed = attack.one_of(PACKERS) if attack.rng.random() < 0.3 else ""
    end = attack.one_of([b"\n", b"\n", b"\r\n"])
    (folder / "in" / (name + packed)).write_bytes(PACKERS[packed](end.join([*above, *now]) + end))
    with nothing_changes(folder / "in"): report = score(folder / "in", folder / "out")
    failure_is_told(report)
    if report.totals()["failed"]: return "failed"
    n_remarks = sum(row.lstrip().startswith(b"#") for row in now) if name == "a.log" else 0
    rows_are_accounted(report, folder / "out" / f"{name}{packed}.parquet", len(now) - n_remarks)
    if n_remarks: return "remarks"
    found = pd.read_parquet(folder / "out" / f"{name}{packed}.parquet")["anomaly_score"]
    wanted = [FRAME[NAMES].iloc[i].sum(skipna=False) if row == rows[i] else None for i, row in enumerate(now)]
    sound = [i for i, score in enumerate(wanted) if score is not None and np.isfinite(score)]
    assert len(sound) > 40 and np.array_equal(found.iloc[sound], [wanted[i] for i in sound]), "a neighbor is lost or changed"
    return "scored"


@pytest.mark.parametrize("name", TEXTS)
def test_attack_texts(quick, tmp_path, name):
    def case(attack):
        folder = tmp_path / str(attack.number)
        (folder / "in").mkdir(parents=True)
        outcome = law_lines_are_accounted(quick, attack, folder, name)
        shutil.rmtree(folder)
        return outcome
    outcomes = run_attacks(f"{name[2:]} tables", case, share=SHARE)
    assert outcomes["scored"] > 0.5 * outcomes.total(), outcomes


def test_law_lines_are_accounted_catches(quick, tmp_path, monkeypatch):
    whole = tables._text_table_batches
    def hiding(path, dialect, wanted):  # a reader to which an open quote hides the next lines
        for batch in whole(path, dialect, wanted):
            keep = ~np.isin(batch.faults.astype(str), ["quote that does not end"])
            columns = lambda held: {i: column.filter(keep) for i, column in held.items()}
            yield batch._replace(numbers=columns(batch.numbers), texts=columns(batch.texts), faults=batch.faults[keep], lines=np.asarray(batch.lines)[keep])
    monkeypatch.setattr(tables, "_text_table_batches", hiding)
    with pytest.raises(AssertionError, match="rows became"): test_attack_texts(quick, tmp_path, "a.csv")


# ---------------------------------------------------------------- streams

def law_streams(score, attack, name):
    "One answer a line, in strict JSON; sound lines have their scores; a hostile line takes nothing from others."
    above, rows, now = attacked(attack, name)
    first = [hostile(rows[0], attack).replace(b"#fields", b"")] if attack.rng.random() < 0.3 and name != "a.log" else []
    answers = [strict_json(json_line(said))["nfad"] for said in score([*first, *above, *now])]
    blank = sum(not row.strip() or row.lstrip().startswith(b"#") for row in [*first, *now])
    assert len(answers) <= len(first) + len(now) - blank, "lines are invented"
    scores = [answer["anomaly_score"] for answer in answers if answer["reason"] is None]
    wanted = [FRAME[NAMES].iloc[i].sum(skipna=False) for i, row in enumerate(now) if row == rows[i]]
    wanted = [score for score in wanted if np.isfinite(score)]
    rest = iter(scores)
    assert all(any(score == found for found in rest) for score in wanted), "a sound line has lost its score"
    assert len(answers) >= len(first) + len(now) - blank - 6, "lines are lost"
    return "answered"


@pytest.mark.parametrize("name", TEXTS)
def test_attack_streams(model, name):
    scorer = Scorer(model)
    run_attacks(f"{name[2:]} streams", lambda attack: law_streams(lambda lines: score_lines(scorer, lines), attack, name), share=SHARE)


def test_law_streams_catches(model):
    scorer = Scorer(model)
    def stops(lines):  # as a stream that ends with the first line of very many keys
        for said in score_lines(scorer, lines):
            if said["nfad"]["reason"]: return
            yield said
    with pytest.raises(AssertionError): run_attacks("stops", lambda attack: law_streams(stops, attack, "a.json"), share=0.1)


# ---------------------------------------------------------------- pages of Parquet

def law_same_bits_or_an_error(score, attack, folder, whole: bytes):
    "A damaged Parquet file with checksums gives the scores of the sound one, or fails."
    source, target = folder / "a.parquet", folder / "out.parquet"
    source.write_bytes(damage(whole, attack))
    target.unlink(missing_ok=True)
    with nothing_changes(folder / "held"): report = score(source, target)
    failure_is_told(report)
    if report.totals()["failed"]: return "failed"
    if source.read_bytes() == whole: return "unchanged"
    found = pd.read_parquet(target)
    assert np.array_equal(found["anomaly_score"], FRAME[NAMES].replace(np.inf, np.nan).sum(axis=1, skipna=False), equal_nan=True), "other scores, silently"
    return "same"


def _sound(folder) -> bytes:
    (folder / "held").mkdir()
    return write_table(FRAME, folder / "held" / "sound.parquet", "records").read_bytes()


def test_attack_parquet(quick, tmp_path):
    whole = _sound(tmp_path)
    run_attacks("parquet", lambda attack: law_same_bits_or_an_error(quick, attack, tmp_path, whole))


def test_law_same_bits_catches(quick, tmp_path, monkeypatch):
    whole = _sound(tmp_path)
    class Believing(tables.pq.ParquetFile):
        def __init__(self, path, page_checksum_verification, **how): super().__init__(path, **how)
    monkeypatch.setattr(tables.pq, "ParquetFile", Believing)
    with pytest.raises(AssertionError, match="silently"): run_attacks("believing", lambda attack: law_same_bits_or_an_error(quick, attack, tmp_path, whole))


# ---------------------------------------------------------------- places

def test_attack_places(model_path, tmp_path, capsys):
    "Whatever is named as source and target, in whatever spelling: no records are lost, and no traceback is shown."
    def case(attack):
        home = tmp_path / str(attack.number)
        for name in ("a", "b/c"): (home / name).mkdir(parents=True)
        for name in ("a/1.parquet", "a/2.parquet", "b/1.parquet", "b/c/3.parquet"): FRAME[:30].to_parquet(home / name)
        (home / "link").symlink_to(home / attack.one_of(["a", "b/c", "a/1.parquet", "nowhere"]))
        (home / "hard.parquet").hardlink_to(home / "a/1.parquet")
        places = ["a", "b", "b/c", "link", "a/../a", "a/1.parquet", "hard.parquet", "b/1.parquet", "new", "a/new", "new.parquet", ".", "link/x", "a/1.parquet/x", "b/c/3.parquet"]
        words = [home / attack.one_of(places) for _ in range(2)]
        model = home / attack.one_of(["a/1.parquet", "none"]) if attack.rng.random() < 0.1 else model_path
        command = ["score", model, *words, "--quiet"] if attack.rng.random() < 0.7 else ["recalibrate", model, *words]
        with nothing_changes_but_results(home): status = main([str(word) for word in command])
        no_traceback(capsys.readouterr().err)
        return status
    outcomes = run_attacks("places", case, share=0.1)
    assert outcomes[0] and outcomes[1], outcomes


class nothing_changes_but_results:
    "Files that were there stay; what is new says that nfad wrote it."
    def __init__(self, folder): self.folder = folder

    def __enter__(self): self.before = self.held()

    def __exit__(self, *error):
        after = self.held()
        assert {name: after.get(name) for name in self.before} == self.before, "a file that is read has changed"
        assert all(outputs.kind_of(self.folder / name) for name in after.keys() - self.before.keys())

    def held(self): return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
