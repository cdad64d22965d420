"""Laws of nfad.ecs: lines that other tools read, with fields that they know."""
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nfad.ecs import FORMATS, alert_lines, end_of, transport_of, write_lines
from nfad.outputs import kind_of

ECS = {  # published fields that are in use -> type
    "@timestamp": str, "message": str, "ecs.version": str, "event.kind": str, "event.category": list, "event.type": list,
    "event.module": str, "event.dataset": str, "event.created": str, "event.risk_score": float, "event.reason": str,
    "source.address": str, "source.ip": str, "source.port": int, "destination.address": str, "destination.ip": str,
    "destination.port": int, "network.iana_number": str, "network.transport": str, "observer.vendor": str,
    "observer.product": str, "observer.version": str, "observer.type": str, "rule.id": str, "rule.name": str,
    "rule.ruleset": str, "related.ip": list}


def night(n=4, **changed):
    return pd.DataFrame({"rank": np.arange(1, n + 1), "file": "a.csv", "row": range(n), "id.orig_h": "10.0.0.1", "id.orig_p": 4000.0,
                         "id.resp_h": "fe80::1", "id.resp_p": 53, "proto": "udp", "ts": 1.7e9, "anomaly_score": 30.0, "p_value": 0.01,
                         "is_anomaly": True, "passes_fdr": False, "first_reason": "bytes = 84 kB", "incident": 1} | changed)


def flat(entry, prefix=""):
    for name, value in entry.items():
        if isinstance(value, dict): yield from flat(value, f"{prefix}{name}.")
        else: yield prefix + name, value


def law_known_fields(lines):
    "Every field but those under nfad is published, and has its type; category and type are of the published lists."
    for table in (night(), night(**{"id.orig_h": "a host", "proto": 6}), night()[["rank", "anomaly_score", "p_value"]]):
        found = [json.loads(line) for line in lines(table, {1: "a scan"}, "abc", "ecs")]
        assert len(found) == len(table)
        for entry in found:
            for name, value in flat(entry):
                if not name.startswith("nfad."): assert isinstance(value, ECS[name]), name
            assert entry["event"]["kind"] == "alert" and entry["event"]["category"] == ["network"] and entry["nfad"]["p_value"] == 0.01
            assert entry["@timestamp"].endswith("Z") and entry["rule"]["id"] == "abc"


def test_law_known_fields(): law_known_fields(alert_lines)


def test_law_known_fields_catches_own_names(monkeypatch):
    monkeypatch.setitem(FORMATS, "ecs", lambda row, known, *words: {"src": row.get("id.orig_h"), "event": {}})
    with pytest.raises((AssertionError, KeyError)): law_known_fields(alert_lines)


def law_whole_lines(lines):
    "One line each, whatever cells hold: nothing missing is written, no NaN, no line end."
    odd = night(5).astype(object)
    odd.loc[0, ["id.orig_h", "id.orig_p", "ts"]] = np.nan
    odd.loc[1, ["id.resp_h", "first_reason"]] = "a\n\"b\u2028<script>"
    odd.loc[2, ["id.resp_p", "proto"]] = ["http", None]
    odd.loc[3, "id.orig_p"] = 1e9
    for kind in FORMATS:
        found = list(lines(odd, {}, "abc", kind))
        assert len(found) == 5 and not any("\n" in line or "NaN" in line or "null" in line for line in found)
        assert all(json.loads(line) for line in found)


def test_law_whole_lines(): law_whole_lines(alert_lines)


def test_law_whole_lines_catches_a_missing_port(monkeypatch):
    monkeypatch.setattr("nfad.ecs.end_of", lambda address, port: {"address": address, "port": port})
    with pytest.raises((AssertionError, ValueError)): law_whole_lines(alert_lines)


def test_a_name_is_no_address():
    assert "ip" not in end_of("printer", 80) and end_of("10.0.0.1", "80")["ip"] == "10.0.0.1" and end_of(None, np.nan) == {}
    assert transport_of(17.0) == {"iana_number": "17", "transport": "udp"} and transport_of(np.nan) == {} and transport_of("TCP") == {"transport": "tcp"}


def test_files(tmp_path):
    alerts = SimpleNamespace(table=night(), incidents=None, model="abc")
    for kind in FORMATS:
        path = write_lines(alerts, tmp_path, kind)
        assert kind_of(path) == kind and len(path.read_text().splitlines()) == 4
        write_lines(alerts, tmp_path, kind)
    (tmp_path / "alerts.ecs.jsonl").write_text("mine\n")
    with pytest.raises(ValueError, match="was not written by nfad"): write_lines(alerts, tmp_path)
    with pytest.raises(ValueError, match="format"): write_lines(alerts, tmp_path, "leef")
