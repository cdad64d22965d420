"""Laws of a listener: what was sent comes out in order, strangers and losses are counted, files hold every record once."""
import os
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest

from nfad import listen
from nfad.listen import Listener, collect
from nfad.netflow import export_datagram
from traffic import a_request

SENT = [[a_request(20 * k + i) for i in range(20)] for k in range(60)]


def send(address, datagrams):
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM) as exporter:
        for datagram in datagrams: exporter.sendto(datagram, address)


def heard(port, seconds=20, n=1200) -> list[dict]:
    "Records until there are n, or the time is over."
    found = []
    for burst in port.bursts(seconds):
        found += burst
        if len(found) >= n: break
    return found


def law_all_in_order(listener):
    "Every record that was sent is heard, in order, whatever else comes."
    with listener as port:
        send(port.address, [b"", b"\0\5", *(export_datagram(records, sequence=k) for k, records in enumerate(SENT))])
        found = heard(port)
    assert [record["Source Port"] for record in found] == [sent["Source Port"] for records in SENT for sent in records]
    assert port.account()["datagrams"] == 62 and port.account()["datagrams too short"] == 2


def test_law_all_in_order(): law_all_in_order(Listener("127.0.0.1:0"))


def test_law_all_in_order_catches_a_short_queue(monkeypatch):
    monkeypatch.setattr(listen, "_MOST_WAITING", 3)
    slow = Listener("127.0.0.1:0")
    inner = slow.exports.read
    def read(*datagram):
        time.sleep(0.05)
        return inner(*datagram)
    slow.exports.read = read
    slow_bursts, slow.bursts = slow.bursts, lambda seconds: slow_bursts(4)
    with pytest.raises(AssertionError): law_all_in_order(slow)
    assert slow.account()["datagrams dropped, too many waited"] > 0


def test_only_named_exporters_are_heard():
    with Listener("127.0.0.1:0", exporters=["192.0.2.1"]) as port:
        send(port.address, [export_datagram([a_request(1)])] * 3)
        assert heard(port, seconds=0.6) == [] and port.account()["datagrams of others"] == 3


@pytest.mark.parametrize("address", ["0.0.0.0:2055", "192.0.2.7:2055", "[::]:2055"])
def test_other_machines_only_if_asked(address):
    with pytest.raises(ValueError, match="--expose"): Listener(address)


@pytest.mark.parametrize("address", ["", "2055x", "127.0.0.1:", "127.0.0.1:70000", "example.com:2055"])
def test_addresses_that_are_none(address):
    with pytest.raises(ValueError, match="must be"): Listener(address)


def law_files_hold_all(folder, most):
    "The files of a collection hold every record once, in order, under one set of columns."
    with Listener("127.0.0.1:0") as port:
        send(port.address, [export_datagram(records, 10, sequence=20 * k) for k, records in enumerate(SENT)])
        files = collect(port, folder, seconds=1.5, most=most)
    tables = [pd.read_parquet(path) for path in files]
    assert sorted(folder.iterdir()) == files and len({tuple(table.columns) for table in tables}) == 1
    assert pd.concat(tables)["Source Port"].tolist() == [sent["Source Port"] for records in SENT for sent in records]
    return files


def test_law_files_hold_all(tmp_path): assert len(law_files_hold_all(tmp_path / "a", most=100_000)) == 1


def test_law_files_hold_all_catches(tmp_path, monkeypatch):
    monkeypatch.setattr(Listener, "bursts", lambda self, seconds, inner=Listener.bursts: (burst[1:] for burst in inner(self, seconds)))
    with pytest.raises(AssertionError): law_files_hold_all(tmp_path / "a", most=100_000)


def test_an_interrupt_writes_what_was_heard(tmp_path):
    class Interrupted:
        def bursts(self, seconds):
            yield [a_request(1)]
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): collect(Interrupted(), tmp_path)
    table, = map(pd.read_parquet, tmp_path.iterdir())
    assert table["Source Port"].tolist() == [40001]


def test_a_large_address_and_an_odd_record_fit_in_a_file(tmp_path):
    odd = {"Source IP": "x" * 5000, "IN_BYTES": (1 << 53) - 1}
    assert pd.read_parquet(listen._write([odd, {}], tmp_path / "odd.parquet"))["IN_BYTES"].tolist()[0] == (1 << 53) - 1


# ---------------------------------------------------------------- killed
_KILLED = """
import os, signal, sys
from nfad.listen import collect
class Killed:
    def bursts(self, seconds):
        for k in range(7): yield [{"Source IP": "10.0.0.1", "Source Port": 40000 + 3 * k + i} for i in range(3)]
        os.kill(os.getpid(), signal.SIGKILL)
collect(Killed(), sys.argv[1], most=int(sys.argv[2]))
"""


def law_a_kill_loses_nothing(folder, most):
    "After a kill, the next collection has every record that was heard, once and in order, and leaves nothing hidden."
    folder.mkdir(exist_ok=True)
    assert subprocess.run([sys.executable, "-c", _KILLED, folder, str(most)]).returncode == -signal.SIGKILL
    class Silent:
        def bursts(self, seconds): return iter([])
    collect(Silent(), folder)
    tables = [pd.read_parquet(path) for path in sorted(folder.iterdir())]
    assert pd.concat(tables)["Source Port"].tolist() == list(range(40000, 40021))
    assert collect(Silent(), folder) == []


@pytest.mark.parametrize("most", [100, 6, 5])
def test_a_kill_loses_nothing(tmp_path, most): law_a_kill_loses_nothing(tmp_path / "a", most)


def test_the_law_catches_a_collection_that_forgets(tmp_path, monkeypatch):
    monkeypatch.setattr(listen, "rescued", lambda folder: [path.unlink() for path in folder.glob(".netflow-*")] and [])
    with pytest.raises((AssertionError, ValueError)): law_a_kill_loses_nothing(tmp_path / "a", 100)


def test_what_is_damaged_ends_no_collection(tmp_path):
    "Cut, glued and foreign lines are left out; what is no file of a collection is left alone; sound lines are saved."
    class Silent:
        def bursts(self, seconds): return iter([])
    lines = [b'{"IN_BYTES": 5}', b"garbage }", b"\0" * 40, b'{"IN_BYTES": 1}{"IN_BYTES": 2}', b'{"IN_BYTES": "x"}', b'{"IN_BYTES": 1.5}',
             b'{"IN_BYTES": 18446744073709551616}', b'{"Source IP": {}}', b"[" * 100_000, b'{"IN_BYTES": 6}', b'{"IN_BYTES": 7']
    (tmp_path / ".netflow-1.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / ".netflow-2.jsonl").mkdir()
    (tmp_path / "mine.txt").write_bytes(b'{"IN_BYTES": 9}\n')
    (tmp_path / ".netflow-3.jsonl").symlink_to(tmp_path / "mine.txt")
    os.mkfifo(tmp_path / ".netflow-4.jsonl")
    table, = collect(Silent(), tmp_path)
    assert pd.read_parquet(table)["IN_BYTES"].tolist() == [5, 6] and (tmp_path / "mine.txt").is_file()


def test_what_waits_at_the_end_is_read():
    with Listener("127.0.0.1:0") as port:
        send(port.address, [export_datagram(records, 10, sequence=20 * k) for k, records in enumerate(SENT[:9])])
        time.sleep(0.5)
        assert port.account()["datagrams that still wait"] == 9
        assert sum(map(len, port.bursts(0.0))) == 180 and "datagrams that still wait" not in port.account()


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="cannot be written"): collect(None, tmp_path)
