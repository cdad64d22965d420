"""Laws of a watched folder: nothing twice, nothing lost, whatever kills it; flows joined over captures; files taken only when complete."""
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nfad import watch
from nfad.cli import main
from nfad.detector import FlowDetector
from nfad.recipes import Feature
from nfad.serving import load_model
from nfad.watch import Folder, Watch, read_state
from nfad.wire import flow_records
from notebooks import ROOT
from test_pipe import write_talks

NAMES = ["Flow Duration", "Total Fwd Packets", "Total Length of Fwd Packets", "Total Length of Bwd Packets"]
START = "import sys; from nfad.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    calm = pd.DataFrame(np.exp(np.random.default_rng(0).normal([10, 1, 5, 5], 0.5, (400, 4))), columns=NAMES)
    small = FlowDetector(hidden=8, epochs=1, n_layers=1, progress=False).fit(calm[:250]).calibrate(calm[250:])
    small.recipe_ = [Feature(name, name, exporter="nfad") for name in NAMES]
    return small.save(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def model(model_path): return load_model(model_path)


def cut(whole: Path, folder: Path, n: int) -> Path:
    "A capture in n files, at any packets."
    folder.mkdir(parents=True)
    content = whole.read_bytes()
    starts, at = [], 24
    while at < len(content):
        starts.append(at)
        at += 16 + int.from_bytes(content[at + 8:at + 12], "little")
    edges = [starts[i] for i in np.linspace(0, len(starts), n + 1).astype(int)[:-1]] + [len(content)]
    for i in range(n): (folder / f"part-{i:03d}.pcap").write_bytes(content[:24] + content[edges[i]:edges[i + 1]])
    return folder


def law_joined(make, folder, out, whole):
    "What a watch writes of pieces, started anew before each, is what the whole capture holds, once."
    pieces = sorted(folder.iterdir())
    aside = [path.rename(folder.parent / path.name) for path in pieces]
    for path in aside:
        path.rename(folder / path.name)
        list(make(folder, out).run(once=True))
    list(make(folder, out).run(once=True, finish=True))
    order = ["Timestamp", "Source Port", "Destination Port"]
    found = pd.concat(map(pd.read_parquet, (out / "flows").iterdir())).sort_values(order, ignore_index=True)
    wanted = flow_records(whole).sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False, check_exact=True)
    scores = pd.concat(map(pd.read_parquet, (out / "scores").iterdir()))
    assert len(scores) == len(wanted) and scores["anomaly_score"].notna().all()


def test_law_joined(model, tmp_path):
    whole = write_talks(tmp_path / "whole.pcap")
    law_joined(lambda folder, out: Watch(model, folder, out, settle=0), cut(whole, tmp_path / "in", 5), tmp_path / "out", whole)


def test_law_joined_catches_a_state_without_flows(model, tmp_path, monkeypatch):
    whole = write_talks(tmp_path / "whole.pcap")
    monkeypatch.setattr(watch, "read_state", lambda path, identity: read_state(path, identity)._replace(meter=None))
    with pytest.raises(AssertionError):
        law_joined(lambda folder, out: Watch(model, folder, out, settle=0), cut(whole, tmp_path / "in", 5), tmp_path / "out", whole)


def law_killed(model, folder, out, monkeypatch, step):
    "Killed anywhere in a file, it goes on to the bits of a run that was not."
    class Killed(BaseException): pass
    list(Watch(model, folder, out / "calm", settle=0).run(once=True, finish=True))
    inner, left = watch.write_table, [step]
    def dies(*args, **more):
        left[0] -= 1
        if left[0] == 0: raise Killed
        found = inner(*args, **more)
        left[0] -= 1
        if left[0] == 0: raise Killed
        return found
    monkeypatch.setattr(watch, "write_table", dies)
    with pytest.raises(Killed): list(Watch(model, folder, out / "rough", settle=0).run(once=True, finish=True))
    list(Watch(model, folder, out / "rough", settle=0).run(once=True, finish=True))
    told = lambda place: {path.name: pd.read_parquet(path) for path in sorted((out / place / "scores").iterdir())}
    calm, rough = told("calm"), told("rough")
    assert calm.keys() == rough.keys() and all(calm[name].equals(rough[name]) for name in calm)


@pytest.mark.parametrize("step", [1, 2, 5, 8])
def test_law_killed(model, tmp_path, monkeypatch, step):
    law_killed(model, cut(write_talks(tmp_path / "whole.pcap", 30), tmp_path / "in", 4), tmp_path, monkeypatch, step)


def test_law_killed_catches_a_state_that_comes_too_early(model, tmp_path, monkeypatch):
    def early(self, name, path):
        self._keep(watch.State(self.state.done | {name: watch.Taken(path.stat().st_size, path.stat().st_mtime_ns)}, self.state.meter))
        return inner(self, name, path)
    inner = Watch._take
    monkeypatch.setattr(Watch, "_take", early)
    with pytest.raises(AssertionError): law_killed(model, cut(write_talks(tmp_path / "whole.pcap", 30), tmp_path / "in", 4), tmp_path, monkeypatch, 5)


def law_grown(make, whole, folder, out):
    "A capture that is taken as it grows, in the middle of a packet, too, gives the flows of the whole, once."
    content = whole.read_bytes()
    folder.mkdir()
    for size in (len(content) // 3, len(content) // 2 + 7, len(content)):
        (folder / "x.pcap").write_bytes(content[:size])
        list(make(folder, out).run(once=True))
    list(make(folder, out).run(once=True, finish=True))
    order = ["Timestamp", "Source Port", "Destination Port"]
    found = pd.concat(map(pd.read_parquet, (out / "flows").iterdir())).sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(found, flow_records(whole).sort_values(order, ignore_index=True), check_dtype=False, check_exact=True)


def test_law_grown(model, tmp_path):
    law_grown(lambda folder, out: Watch(model, folder, out, settle=0), write_talks(tmp_path / "whole.pcap"), tmp_path / "in", tmp_path / "out")


def test_law_grown_catches_packets_that_count_twice(model, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_after", lambda batches, n: batches)
    with pytest.raises(AssertionError):
        law_grown(lambda folder, out: Watch(model, folder, out, settle=0), write_talks(tmp_path / "whole.pcap"), tmp_path / "in", tmp_path / "out")


def test_flows_that_were_ended_twice_are_all_kept(model, tmp_path):
    "A watch that finishes, and finishes again when its capture has grown, replaces no flows of the first time."
    content, folder, out = write_talks(tmp_path / "whole.pcap").read_bytes(), tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    said = []
    for size in (len(content) // 2, len(content)):
        (folder / "x.pcap").write_bytes(content[:size])
        said += list(Watch(model, folder, out, settle=0).run(once=True, finish=True))
    kept = sum(len(pd.read_parquet(path)) for path in (out / "scores").iterdir())
    assert kept == sum(found["rows"] for found in said) and [found["file"] for found in said][1::2] == ["x.pcap.open", "x.pcap.open.2"]


def test_another_file_under_an_old_name_replaces_no_result(model, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    table = lambda seed, n: pd.DataFrame(np.exp(np.random.default_rng(seed).normal(5, 1, (n, 4))), columns=NAMES)
    def watched(frame):
        frame.to_csv(folder / "conn.csv", index=False)
        said, = Watch(model, folder, out, settle=0).run(once=True)
        return said["rows"], {path.name: len(pd.read_parquet(path)) for path in (out / "scores").iterdir()}
    assert watched(table(0, 50)) == (50, {"conn.csv.parquet": 50})
    assert watched(pd.concat([table(0, 50), table(1, 30)])) == (80, {"conn.csv.parquet": 80})  # grown
    assert watched(table(2, 200)) == (200, {"conn.csv.parquet": 80, "conn.csv.2.parquet": 200})  # rotated in place
    assert watched(table(2, 210)[:200].iloc[:10]) == (10, {"conn.csv.parquet": 80, "conn.csv.2.parquet": 200, "conn.csv.3.parquet": 10})  # cut


def test_a_file_that_fails_leaves_nothing_behind(model, tmp_path, monkeypatch):
    whole = write_talks(tmp_path / "whole.pcap")
    folder, out = cut(whole, tmp_path / "in", 2), tmp_path / "out"
    first, second = sorted(folder.iterdir())
    second.rename(tmp_path / second.name)
    list(Watch(model, folder, out, settle=0).run(once=True))
    (tmp_path / second.name).rename(second)
    inner = Watch._score_flows
    def full(self, *args): raise OSError(28, "No space left on device")
    monkeypatch.setattr(Watch, "_score_flows", full)
    said, = Watch(model, folder, out, settle=0).run(once=True)
    assert said["status"] == "failed" and "No space" in said["error"]
    monkeypatch.setattr(Watch, "_score_flows", inner)
    second.touch()
    list(Watch(model, folder, out, settle=0).run(once=True, finish=True))
    assert sum(len(pd.read_parquet(path)) for path in (out / "scores").iterdir()) == len(flow_records(whole))


def test_files_are_taken_when_they_have_settled(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n")
    looks = Folder(tmp_path, settle=0.4)
    assert looks.look({}) == ([], 1)
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    assert looks.look({}) == ([], 1)
    time.sleep(0.6)
    (name, path), = looks.look({})[0]
    done = {name: watch.Taken(path.stat().st_size, path.stat().st_mtime_ns)}
    assert name == "a.csv" and looks.look(done) == ([], 0)
    for odd in (".hidden.csv", "empty.csv"): (tmp_path / odd).touch()
    assert looks.look(done) == ([], 0)


def test_a_file_that_cannot_be_scored_is_named_once(model, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("milk\neggs\n")
    pd.DataFrame(np.ones((3, 4)), columns=NAMES).to_csv(tmp_path / "in" / "a.csv", index=False)
    said = {found["file"]: found["status"] for found in Watch(model, tmp_path / "in", tmp_path / "out", settle=0).run(once=True)}
    assert said == {"notes.txt": "failed", "a.csv": "scored"}
    assert list(Watch(model, tmp_path / "in", tmp_path / "out", settle=0).run(once=True)) == []


def test_nothing_of_others_is_written_over(model, tmp_path):
    (tmp_path / "in").mkdir()
    pd.DataFrame(np.ones((3, 4)), columns=NAMES).to_csv(tmp_path / "in" / "a.csv", index=False)
    (tmp_path / "out" / "scores").mkdir(parents=True)
    (tmp_path / "out" / "scores" / "a.csv.parquet").write_text("mine")
    said, = Watch(model, tmp_path / "in", tmp_path / "out", settle=0).run(once=True)
    assert said["status"] == "failed" and (tmp_path / "out" / "scores" / "a.csv.parquet").read_text() == "mine"
    with pytest.raises(ValueError, match="must not lie in the folder"): Watch(model, tmp_path / "in", tmp_path / "in" / "out")


def test_a_broken_state_is_an_error(model, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".nfad-watch.safetensors").write_bytes(b"PK broken")
    with pytest.raises(ValueError, match="nfad-watch"): Watch(model, tmp_path / "in", tmp_path / "out")


def test_the_command_ends_by_a_signal_and_goes_on(model_path, tmp_path, capsys):
    folder = cut(write_talks(tmp_path / "whole.pcap"), tmp_path / "in", 3)
    run = subprocess.Popen([sys.executable, "-c", START, "watch", folder, model_path, tmp_path / "out", "--settle", "0"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = [run.stderr.readline() for _ in range(3)]
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and "interrupted" in said and all("records" in line for line in lines), lines
    assert main(["watch", str(folder), str(model_path), str(tmp_path / "out"), "--once", "--finish", "--settle", "0", "--quiet"]) == 0
    assert sum(len(pd.read_parquet(path)) for path in (tmp_path / "out" / "scores").iterdir()) == 120
