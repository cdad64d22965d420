"""The commands that stay: records of routers from a real process, ended by signals, with an account; a real exporter where one is installed."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from nfad.cli import main
from nfad.detector import FlowDetector
from nfad.netflow import export_datagram
from nfad.serving import load_model
from notebooks import ROOT
from traffic import a_request

START = "import sys; from nfad.cli import main; sys.exit(main())"
NAMES = ["IN_BYTES", "IN_PKTS", "FLOW_DURATION_MILLISECONDS"]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    frame = pd.DataFrame([a_request(i) for i in range(600)]).eval("FLOW_DURATION_MILLISECONDS = FLOW_END_MILLISECONDS - Timestamp")[NAMES].astype(float)
    small = FlowDetector(hidden=8, n_layers=1, epochs=1, progress=False).fit(frame[:400]).calibrate(frame[400:])
    return small.save(tmp_path_factory.mktemp("model") / "model.safetensors")


def started(*words) -> tuple[subprocess.Popen, tuple[str, int]]:
    "A command in a process of its own, and where it listens."
    run = subprocess.Popen([sys.executable, "-c", START, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = run.stderr.readline()
    assert line.startswith("listening on"), line + run.stderr.read()
    host, _, port = line.split()[-1].rpartition(":")
    return run, (host, int(port))


def send(address, datagrams):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exporter:
        for datagram in datagrams: exporter.sendto(datagram, address)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_routers_are_scored_until_a_signal(model_path, kind):
    run, address = started("score", model_path, "-", "--netflow", "127.0.0.1:0")
    send(address, [b"no datagram", export_datagram([a_request(i) for i in range(4)])])
    answers = [json.loads(run.stdout.readline()) for _ in range(4)]
    run.send_signal(kind)
    out, said = run.communicate(timeout=60)
    assert run.returncode == 130 and out == "" and "4 records" in said and "interrupted" in said and "received: 2 datagrams" in said
    frame = pd.DataFrame(answers)[NAMES].astype(float)
    assert [answer["nfad"]["anomaly_score"] for answer in answers] == load_model(model_path).detector.anomaly_score(frame).tolist()


def test_collected_records_are_scored_like_those_that_came(model_path, tmp_path):
    run, address = started("collect", "127.0.0.1:0", tmp_path / "records")
    send(address, [export_datagram([a_request(i) for i in range(20)], 5)])
    time.sleep(1)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and "received: 20 records" in said
    assert main(["score", str(model_path), str(tmp_path / "records"), str(tmp_path / "scores"), "--quiet"]) == 0
    scored = pd.read_parquet(next((tmp_path / "scores").iterdir()))
    assert scored["anomaly_score"].notna().all() and scored["Source Port"].tolist() == list(range(40000, 40020))


def test_what_does_not_fit_together_is_said(model_path, capsys):
    assert main(["score", str(model_path), "-", "--expose"]) == 1 and "need netflow" in capsys.readouterr().err
    assert main(["score", str(model_path), "flows", "out", "--netflow", "2055"]) == 1 and "give - as source" in capsys.readouterr().err
    assert main(["score", str(model_path), "-", "--netflow", "0.0.0.0:2055"]) == 1 and "--expose" in capsys.readouterr().err


CAPTURE = Path(os.environ.get("NFAD_DATA", ROOT / "data")) / "captures" / "attacks" / "ssh-bruteforce.pcap"
TOOLS = [shutil.which(tool) or shutil.which(tool, path="/usr/sbin") for tool in ("softflowd", "nfcapd", "nfdump")]


@pytest.mark.skipif(not all(TOOLS) or not CAPTURE.is_file(), reason="no softflowd, no nfdump, or no captures here")
@pytest.mark.parametrize("version", [5, 9, 10])
def test_a_real_exporter_is_read_as_nfdump_reads_it(version, tmp_path):
    "One stream of datagrams, through nfcapd, which passes them on: both write the same."
    softflowd, nfcapd, nfdump = TOOLS
    run, (host, port) = started("collect", "127.0.0.1:0", tmp_path / "records", "--seconds", 60)
    (tmp_path / "theirs").mkdir()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        between = free.getsockname()[1]
    theirs = subprocess.Popen([nfcapd, "-l", tmp_path / "theirs", "-p", str(between), "-b", "127.0.0.1", "-R", f"{host}/{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    subprocess.run([softflowd, "-r", CAPTURE, "-n", f"127.0.0.1:{between}", "-v", str(version), "-A", "milli"], check=True, capture_output=True, timeout=60)
    time.sleep(1)
    theirs.terminate()
    theirs.wait(timeout=30)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    ours = pd.concat(map(pd.read_parquet, (tmp_path / "records").iterdir()))
    told = subprocess.run([nfdump, "-N", "-R", tmp_path / "theirs", "-q", "-o", "csv"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(",") for line in told.splitlines()]
    wanted = sorted((row[3], row[4], int(row[5]), int(row[11]), int(row[12]), round(1000 * float(row[2]))) for row in rows)
    names = ["Source IP", "Destination IP", "Source Port", "IN_PKTS", "IN_BYTES", "FLOW_DURATION_MILLISECONDS"]
    assert sorted(map(tuple, ours[names].to_numpy().tolist())) == wanted and len(wanted) > 50
