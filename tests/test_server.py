"""Who may ask the server of the desk, and who not; what a page may load; and that it ends."""
import json
import signal
import subprocess
import sys
import threading
from http.client import HTTPConnection

import pandas as pd
import pytest

from nfad.answers import Listed, read_verdicts
from nfad.desk import Desk
from nfad.outputs import write_table
from nfad.server import _Ask, _Door, served
from notebooks import ROOT

SAY = json.dumps({"ask": "say", "rank": 1, "verdict": "benign"})
JSON = {"Content-Type": "application/json"}
FEW = pd.DataFrame({"rank": [1, 2], "file": "a", "row": [0, 1], "anomaly_score": [2.0, 1], "p_value": 0.01, "is_anomaly": True, "value: x": [1.0, 2]})


@pytest.fixture
def desk(tmp_path) -> Desk: return Desk(Listed(FEW.set_index("rank"), "m", tmp_path / "alerts.parquet"), tmp_path / "verdicts.jsonl", "anna")


def visit(address, method="GET", path="", body=None, **headers):
    "Status, headers and body of one request; `token` in the path is the true one."
    _, _, host, token, _ = address.split("/")
    line = HTTPConnection(host, timeout=10)
    line.request(method, f"/{token}/{path}" if not path.startswith("/") else path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    reply = line.getresponse()
    return reply.status, reply.headers, reply.read()


def test_the_page_loads_its_own_files_only(desk):
    with served(desk) as address:
        for name in ("", "widget.js", "widget.css", "widget_page.js"):
            status, headers, body = visit(address, path=name)
            assert status == 200 and body and "default-src 'none'" in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
        for name in ("desk.py", "../nfad/desk.py", "..%2fdesk.py", "%2e%2e/desk.py", "widget.js/", "ask", ".", "..", "x" * 300): assert visit(address, path=name)[0] in (403, 404, 405)
    assert address.startswith("http://127.0.0.1:") and len(address.split("/")[3]) >= 32


def law_doors(desk):
    "Only the page itself may ask; nothing that another sends is written."
    with served(desk) as address:
        port = int(address.split("/")[2].split(":")[1])
        own = f"http://127.0.0.1:{port}"
        refused = [
            dict(JSON, Origin="http://evil.example"), dict(JSON, Origin="null"), dict(JSON, Origin=f"http://127.0.0.1:{port + 1}"), dict(JSON, Origin=own.replace("http:", "https:")),
            dict(JSON, Sec_Fetch_Site="cross-site"), dict(JSON, Sec_Fetch_Site="same-site"), dict(JSON, Sec_Fetch_Site="none"), dict(JSON, Host=f"evil.example:{port}"), dict(JSON, Host="127.0.0.1"),
            dict(JSON, Host=f"127.0.0.1.evil.example:{port}"), {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {}]
        for headers in refused: assert visit(address, "POST", "ask", SAY, **headers)[0] in (403, 415), headers
        for token in ("x", address.split("/")[3][:-1], address.split("/")[3] + "x", "%00", "é".encode().hex()): assert visit(address, "POST", f"/{token}/ask", SAY, **JSON)[0] == 403, token
        assert not desk.file.exists()
        for headers in (dict(JSON, Origin=own, Sec_Fetch_Site="same-origin"), JSON): assert visit(address, "POST", "ask", SAY, **headers)[0] == 200
    assert len(read_verdicts(desk.file).every) == 2


def test_law_doors(desk): law_doors(desk)


@pytest.mark.parametrize("door", [(_Door, "prepare"), (_Ask, "post")])
def test_law_doors_catches_an_open_one(desk, door, monkeypatch):
    async def open_post(self, token): self.finish(json.dumps(self.desk.answer(json.loads(self.request.body))))
    monkeypatch.setattr(*door, open_post if door[1] == "post" else lambda self: None)
    with pytest.raises(AssertionError): law_doors(desk)


@pytest.mark.parametrize("body, status", [(b"", 400), (b"{", 400), (b"[" * 50_000, 400), (b"\xff", 400), (b"x" * 70_000, None), (b'{"ask": "card"}', 200), (b"[]", 200), (b'{"ask": NaN}', 200)])
def test_wild_bodies(desk, body, status):
    with served(desk) as address:
        try: found = visit(address, "POST", "ask", body, **JSON)[0]
        except OSError: found = None  # the line is cut
        assert found == status or status is None and found in (400, 413)
        assert visit(address, "POST", "ask", '{"ask": "news"}', **JSON)[0] == 200


def test_other_methods_are_refused(desk):
    with served(desk) as address:
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"): assert visit(address, method, "ask", **JSON)[0] == 405


def test_nothing_is_left_when_it_ends(desk):
    n = threading.active_count()
    with served(desk) as address: visit(address)
    assert threading.active_count() <= n
    with pytest.raises(OSError): visit(address)


def test_the_command_says_where_and_ends(tmp_path):
    write_table(FEW, tmp_path / "alerts.parquet", "alerts", model="m")
    start = "import sys; from nfad.cli import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", start, "triage", str(tmp_path), "--who", "anna", "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = process.stderr.readline().strip()
    assert visit(address, "POST", "ask", SAY, **JSON)[0] == 200
    process.send_signal(signal.SIGINT)
    said = json.loads(process.communicate(timeout=30)[0])
    assert process.returncode == 0 and (said["benign"], said["open"]) == (1, 1)
