"""Laws of nfad.recordings and nfad.metering: a capture is a table in the dialect of the model, and a file of flows says whose it is."""
import gzip
import json
import zipfile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from traffic import ip_frame, write_pcap

from nfad.cli import main
from nfad.data import load_dataset
from nfad.flowmeter import ACK, FIN, SYN, TCP
from nfad.metering import find_captures, write_flows
from nfad.outputs import kind_of
from nfad.recordings import exporter_for, is_capture
from nfad.recipes import plain_recipe, recipe_from_plain, recipe_to_plain
from nfad.serving import load_model
from nfad.sources import find_tables
from nfad.tables import open_table
from nfad.wire import IDENTITY, flow_records


def capture(path, n=80, seed=0, start=1e9):
    "A capture of n short TCP connections of random sizes."
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n):
        when = start + 3 * k
        for number, (up, flags) in enumerate([(1, SYN), (0, SYN | ACK), (1, ACK), (0, ACK), (1, ACK | FIN), (0, ACK | FIN), (1, ACK)]):
            when += rng.exponential(0.05)
            ends, ports = ((1, 2), (4000 + k, 80)) if up else ((2, 1), (80, 4000 + k))
            size = int(rng.integers(1, 900)) if 1 < number < 5 else 0
            frames.append((when, ip_frame(4, TCP, *ends, *ports, size, flags, 500)))
    write_pcap(path, sorted(frames, key=lambda item: item[0]))
    return path


def test_content_decides_not_the_name(tmp_path):
    data = capture(tmp_path / "one.dat").read_bytes()
    (tmp_path / "two.gz").write_bytes(gzip.compress(data))
    (tmp_path / "no.pcap").write_text("a,b\n1,2\n")
    with zipfile.ZipFile(tmp_path / "three.zip", "w") as archive: archive.writestr("x.cap0", data)
    found, left_out = find_tables(tmp_path)
    assert sorted(found) == ["one.dat", "three.zip/x.cap0", "two.gz"] and list(left_out) == ["no.pcap"]
    assert is_capture(tmp_path / "two.gz") and not is_capture(tmp_path / "no.pcap") and not is_capture(tmp_path / "absent")
    frames = [pd.concat([batch.frame(dict(enumerate(table.names))) for batch in table.batches(range(8, 85), range(8))])
              for table in map(open_table, found.values())]
    for frame in frames: pd.testing.assert_frame_equal(frame, frames[0])
    assert len(frames[0]) == 80 and list(frames[0])[:8] == list(IDENTITY)


def test_what_is_left_out_is_noted_once(tmp_path):
    write_pcap(tmp_path / "x", [(k, bytes(12) + b"\x08\x06" + bytes(28)) for k in range(5)] + [(9, ip_frame(4, TCP, 1, 2, 3, 4, 5, SYN, 6))])
    table = open_table(tmp_path / "x")
    assert len(table.sample()) == 1
    for _ in range(2): assert sum(len(batch.faults) for batch in table.batches([8])) == 1
    assert table.report.notes == {"frames of captures left out: ARP": 5}


def law_dialects(choose):
    ours = [f._replace(exporter="nfad") for f in plain_recipe(["a"])]
    theirs = [f._replace(exporter="cicflowmeter") for f in ours]
    assert [choose(recipe, "capture") for recipe in (ours, theirs, ["a"])] == ["nfad", "cicflowmeter", "nfad"]
    assert [choose(recipe, made) for recipe in (ours, theirs, plain_recipe(["a"])) for made in ("",)] == [""] * 3
    assert choose(ours, "nfad") == choose(theirs, "cicflowmeter") == choose(plain_recipe(["a"]), "nfad") == ""
    for recipe, made in ((ours, "cicflowmeter"), (theirs, "nfad"), (plain_recipe(["a"]), "capture")):
        with pytest.raises(ValueError, match="nfad flows"): choose(recipe, made)
    assert recipe_from_plain(json.loads(json.dumps(recipe_to_plain(theirs))), ["a"])[0].exporter == "cicflowmeter"


def test_dialects(tmp_path): law_dialects(lambda recipe, made: exporter_for(recipe, made, tmp_path))


def test_the_law_catches_a_reader_with_one_dialect():
    with pytest.raises(pytest.fail.Exception): law_dialects(lambda recipe, made: {"cicflowmeter": "cicflowmeter"}.get(
        getattr(recipe[0], "exporter", "nfad"), "nfad") if made == "capture" else "")


def test_captures_in_models_and_out(tmp_path, capsys):
    "Train on captures, score one, and refuse records of the other dialect."
    folder = tmp_path / "captures"
    folder.mkdir()
    for k in range(3): capture(folder / f"{k}.pcap", seed=k, start=1e9 + 1e5 * k)
    run = ["train", str(folder), "--preset", "fast", "--epochs", "1", "--quiet", "--out-dir", str(tmp_path / "runs")]
    assert main([*run, "--dialect", "cicflowmeter"]) == 0
    model, = (tmp_path / "runs").rglob("model.safetensors")
    loaded = load_model(model)
    assert {feature.exporter for feature in loaded.recipe} == {"cicflowmeter"}
    assert main(["score", str(model), str(folder / "0.pcap"), str(tmp_path / "scores.parquet"), "--quiet"]) == 0
    scored = pd.read_parquet(tmp_path / "scores.parquet")
    expected = flow_records(folder / "0.pcap", "cicflowmeter")
    assert len(scored) == len(expected) and scored["anomaly_score"].notna().all() and list(scored)[:8] == list(IDENTITY)
    for dialect, status in (("nfad", 3), ("cicflowmeter", 0)):
        assert main(["flows", str(folder / "0.pcap"), str(tmp_path / "f.parquet"), "--dialect", dialect, "--quiet"]) == 0
        assert main(["score", str(model), str(tmp_path / "f.parquet"), str(tmp_path / f"{dialect}.parquet"), "--quiet"]) == status
    again = pd.read_parquet(tmp_path / "cicflowmeter.parquet")
    assert np.array_equal(again["anomaly_score"].sort_values(), scored["anomaly_score"].sort_values())
    assert main(["inspect", str(folder / "0.pcap")]) == 0
    capsys.readouterr()


def test_a_data_set_of_captures_says_who_made_it(tmp_path):
    capture(tmp_path / "a.pcap")
    assert {f.exporter for f in load_dataset(tmp_path / "a.pcap", cache=False).recipe} == {"nfad"}
    write_flows([tmp_path / "a.pcap"], tmp_path / "a.parquet", "cicflowmeter")
    assert {f.exporter for f in load_dataset(tmp_path / "a.parquet", cache=False).recipe} == {"cicflowmeter"}
    with pytest.raises(ValueError, match="dialect"): load_dataset(tmp_path / "a.pcap", dialect="zeek", cache=False)
    with pytest.raises(ValueError, match="train on those of one exporter"): load_dataset(tmp_path, cache=False)


# ---------------------------------------------------------------- nfad flows
def test_rotated_captures_are_one_stream(tmp_path):
    rows = [(k / 3, ip_frame(4, TCP, *((1, 2) if k % 2 else (2, 1)), *((7, 8) if k % 2 else (8, 7)), 10, ACK, 5)) for k in range(30)]
    write_pcap(tmp_path / "b.pcap", rows[:13])
    write_pcap(tmp_path / "a.pcap", rows[13:])
    assert [path.name for path in find_captures([tmp_path])] == ["b.pcap", "a.pcap"]
    assert main(["flows", str(tmp_path), str(tmp_path / "out.parquet"), "--quiet"]) == 0
    records = pd.read_parquet(tmp_path / "out.parquet")
    assert len(records) == 1 and records["Total Fwd Packets"][0] == 15
    assert kind_of(tmp_path / "out.parquet") == "records" and json.loads(pq.read_metadata(tmp_path / "out.parquet").metadata[b"nfad"])["exporter"] == "nfad"


def test_flows_names_every_other_file(tmp_path, capsys):
    for place in ("c1", "c2", "far"):
        (tmp_path / place).mkdir()
        capture(tmp_path / place / "a.pcap")
        (tmp_path / place / "README").write_text("x")
    (tmp_path / "c2" / "link").symlink_to(tmp_path / "far")
    places = [str(tmp_path / "c1"), str(tmp_path / "c2")]
    assert len(find_captures(places)) == 3
    assert main(["flows", *places, str(tmp_path / "out.parquet"), "--quiet", "--json"]) == 0
    others = [str(tmp_path / name) for name in ("c1/README", "c2/README", "c2/link/README")]
    assert json.loads(capsys.readouterr().out)["files_left_out"] == dict.fromkeys(others, "no capture")


def test_nothing_is_written_over(tmp_path, capsys):
    one = capture(tmp_path / "one.parquet", 3)  # a capture under a wrong name
    assert main(["flows", str(one), str(one), "--quiet"]) != 0 and is_capture(one)
    (tmp_path / "mine.parquet").write_text("mine")
    assert main(["flows", str(one), str(tmp_path / "mine.parquet"), "--quiet"]) != 0 and (tmp_path / "mine.parquet").read_text() == "mine"
    assert main(["flows", str(one), str(tmp_path / "x.csv"), "--quiet"]) != 0 and main(["flows", str(tmp_path / "no"), str(tmp_path / "y.parquet")]) != 0
    capsys.readouterr()


def test_damage_is_told(tmp_path, capsys):
    data = bytearray(capture(tmp_path / "x.pcap", 5).read_bytes())
    data[24 + 8:24 + 12] = b"\xff\xff\xff\x7f"
    (tmp_path / "x.pcap").write_bytes(data)
    assert main(["flows", str(tmp_path / "x.pcap"), str(tmp_path / "y.parquet")]) == 3
    assert "damaged" in capsys.readouterr().out and len(pd.read_parquet(tmp_path / "y.parquet")) == 0
