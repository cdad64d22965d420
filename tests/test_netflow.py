"""Laws of NetFlow datagrams: what an exporter says comes out again, in any format, order and company; forged ones end in a count."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfad import netflow
from nfad.netflow import Exports, export_datagram
from traffic import a_request

BOOT = 1_700_000_000_000
numbers = lambda top: st.integers(0, top - 1)
flows = st.lists(st.fixed_dictionaries({
    "Source IP": st.ip_addresses(v=4).map(str).filter(lambda text: text != "0.0.0.0"), "Destination IP": st.ip_addresses(v=4).map(str).filter(lambda text: text != "0.0.0.0"),
    "Source Port": numbers(1 << 16), "Destination Port": numbers(1 << 16), "Protocol": numbers(256), "TCP_FLAGS": numbers(256),
    "IN_BYTES": numbers(1 << 32), "IN_PKTS": numbers(1 << 32), "Timestamp": st.integers(BOOT, BOOT + 10**6), "FLOW_END_MILLISECONDS": st.integers(BOOT + 10**6, BOOT + 10**8)}), max_size=20)


def law_round_trip(read, records, version):
    "What was exported is read, value for value, and the duration with it."
    found = read(export_datagram(records, version), "192.0.2.1")
    assert [{name: record[name] for name in sent} for record, sent in zip(found, records, strict=True)] == records
    assert all(record["FLOW_DURATION_MILLISECONDS"] == record["FLOW_END_MILLISECONDS"] - record["Timestamp"] for record in found)


@pytest.mark.parametrize("version", [5, 9, 10])
@settings(max_examples=25, deadline=None)
@given(records=flows)
def test_law_round_trip(version, records): law_round_trip(Exports().read, records, version)


@pytest.mark.parametrize("version", [5, 9])
def test_law_round_trip_catches_a_clock_that_wraps(version, monkeypatch):
    monkeypatch.setattr(netflow, "_since", lambda later, earlier: (later - earlier) % (1 << 20))
    with pytest.raises(AssertionError): law_round_trip(Exports().read, [a_request(0) | {"Timestamp": BOOT, "FLOW_END_MILLISECONDS": BOOT + (1 << 21)}], version)


def law_templates_of_their_own(read):
    "Each exporter and each of its domains has templates of its own: another's are not used."
    assert read(export_datagram([a_request(1)]), "192.0.2.1") and not read(export_datagram([a_request(2)], template=False), "192.0.2.2")


def test_law_templates_of_their_own(): law_templates_of_their_own(Exports().read)


def test_law_templates_of_their_own_catches():
    exports = Exports()
    with pytest.raises(AssertionError): law_templates_of_their_own(lambda data, exporter: exports.read(data, "192.0.2.1"))


def law_accounted(exports, n_datagrams, n_records):
    "Every datagram is read, waits, or is named; what waited is read when its template comes, and once."
    early = [export_datagram([a_request(i)], template=False, sequence=i) for i in range(n_datagrams)]
    assert sum((exports.read(data, "192.0.2.1") for data in early), []) == []
    held = exports.account().get("datagrams that wait for a template", 0)
    late = exports.read(export_datagram([], sequence=n_datagrams), "192.0.2.1")
    account = exports.account()
    assert account["datagrams"] == n_datagrams + 1 and account["records"] == len(late) == held == n_records
    assert account.get("datagrams whose template never came", 0) == n_datagrams - held
    assert exports.read(export_datagram([], sequence=n_datagrams + 1), "192.0.2.1") == []


def test_law_accounted():
    law_accounted(Exports(), 3, 3)
    law_accounted(Exports(), 300, netflow._MOST_HELD)


def test_law_accounted_catches_an_unbounded_wait(monkeypatch):
    most = netflow._MOST_HELD
    monkeypatch.setattr(netflow, "_MOST_HELD", 10**9)
    with pytest.raises(AssertionError): law_accounted(Exports(), 300, most)


@pytest.mark.parametrize("version", [5, 9, 10])
def test_losses_are_counted(version):
    exports, step = Exports(), 1 if version == 9 else 4
    for number in (0, 1, 2, 3, 4, 7, 8): exports.read(export_datagram([a_request(i) for i in range(4)], version, sequence=step * number), "192.0.2.1")
    assert exports.account()["lost on the way"] == 2 * step and exports.account()["records"] == 28


def test_a_bomb_of_empty_fields_is_refused():
    import struct
    fields = struct.pack("!HH", 256, 5000) + struct.pack("!HH", 1, 1) + struct.pack("!HH", 2, 0) * 4999
    bomb = struct.pack("!HHIII", 10, 0, 1, 0, 1) + struct.pack("!HH", 2, 4 + len(fields)) + fields
    exports = Exports()
    assert exports.read(bomb, "203.0.113.1") == [] and exports.account()["templates refused"] == 1
    assert exports.read(struct.pack("!HHIII", 10, 0, 1, 0, 1) + struct.pack("!HH", 256, 60004) + bytes(60000), "203.0.113.1") == []


def test_nfdump_gets_its_words():
    record, = Exports(nfdump=True).read(export_datagram([a_request(3)]), "192.0.2.1")
    assert record["pr"] == "UDP" and record["flg"] == "........" and record["ibyt"] == a_request(3)["IN_BYTES"] and record["td"] == 0.003 and record["fwd"] == 0


def test_numbers_beyond_all_counts_are_absent():
    header = {"sys_uptime": None, "unix_secs": 1, "exporter": "192.0.2.1"}
    said = netflow.to_netflow({"octets": 1 << 60, "packets": "abc", "src_addr": 7, "flow_start_ms": 1 << 62, "flow_end_ms": 1}, header)
    assert not said.keys() & {"IN_BYTES", "IN_PKTS", "Source IP", "Timestamp"}
    assert all(isinstance(value, (int, str)) for value in said.values()) and not np.isnan(said["FLOW_END_MILLISECONDS"])
