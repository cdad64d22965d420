"""Laws of nfad.incidents: one cause is one incident, and benign nights call few."""
import numpy as np
import pandas as pd
import pytest

from nfad import incidents
from nfad.incidents import Incidents, apart, called, find_incidents, known_columns, one_cause, places_of, record_evidence, title_of
from nfad.score import conformal_p_values


def two_attacks(seed=0, n=60):
    "Places of alerts of two attacks, and whose each is."
    rng = np.random.default_rng(seed)
    Z = np.concatenate([rng.normal(place, 0.2, (n, 4)) for place in (6, -5)])
    return Z, np.repeat([0, 1], n), rng.normal(size=(300, 4))


def table_of(n, **columns):
    return pd.DataFrame({"anomaly_score": np.linspace(40, 20, n), "p_value": 0.001, "is_anomaly": True, **columns})


# --- one cause ----------------------------------------------------------------------------------------------------

def law_one_cause(join):
    "Each attack is one incident, however its alerts are ordered; a copy is where the original is."
    for seed in range(3):
        Z, kind, benign = two_attacks(seed)
        order = np.random.default_rng(seed).permutation(len(Z))
        label = join(places_of(np.concatenate([Z[order], Z[order[:5]]]), benign))
        assert len(set(label[:-5][kind[order] == 0])) == 1 == len(set(label[:-5][kind[order] == 1]))
        assert len(set(label)) == 2 and np.array_equal(label[-5:], label[:5])


def test_law_one_cause(): law_one_cause(one_cause)


@pytest.mark.parametrize("broken", [lambda places: np.arange(len(places)), lambda places: np.zeros(len(places), int)])
def test_law_one_cause_catches(broken):
    with pytest.raises(AssertionError): law_one_cause(broken)


def test_many_left_over_join_the_first(monkeypatch):
    monkeypatch.setattr(incidents, "_MOST", 20)
    places = np.random.default_rng(0).uniform(-30, 30, (90, 6))
    label = one_cause(places)
    assert len(label) == 90 and len(set(label)) <= 20


def test_nearest_benign_in_parts():
    rng = np.random.default_rng(0)
    Z, benign = rng.normal(size=(2500, 3)), rng.normal(size=(40, 3))
    nearest = benign[np.square(Z[:, None] - benign).sum(axis=2).argmin(axis=1)]
    assert np.allclose(places_of(Z, benign)[:, 3:], incidents.damped(Z - nearest))


# --- hosts and times ----------------------------------------------------------------------------------------------

def law_apart(part):
    "Alerts share an incident only if hosts link them and no pause of an hour lies between, either side of a link."
    rng = np.random.default_rng(0)
    for _ in range(5):
        n = 40
        table = pd.DataFrame({"Source IP": rng.integers(0, 30, n).astype(str), "dst_ip": rng.integers(0, 30, n).astype(str),
                              "ts": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 20_000, n), "s")})
        label = rng.integers(0, 2, n)
        number = part(label, table, known_columns(list(table)))
        for k in set(number):
            own = table[number == k]
            assert len(set(label[number == k])) == 1
            assert own["ts"].sort_values().diff().max() <= pd.Timedelta("1h") or len(own) == 1
        same = lambda i, j: label[i] == label[j] and {table["Source IP"][i], table["dst_ip"][i]} & {table["Source IP"][j], table["dst_ip"][j]}
        close = lambda i, j: abs(table["ts"][i] - table["ts"][j]) <= pd.Timedelta("1h")
        assert all(number[i] == number[j] for i in range(n) for j in range(n) if same(i, j) and close(i, j))


def test_law_apart(): law_apart(apart)


@pytest.mark.parametrize("broken", [lambda label, table, known: label, lambda label, table, known: np.arange(len(label)),
                                    lambda label, table, known: apart(label, table, {k: v for k, v in known.items() if k != "target"})])
def test_law_apart_catches(broken):
    with pytest.raises(AssertionError): law_apart(broken)


def test_names_of_other_tools():
    for names in (["Src IP", "Dst IP", "Dst Port", "Timestamp"], ["id.orig_h", "id.resp_h", "id.resp_p", "ts"],
                  ["src_ip", "dest_ip", "dest_port", "timestamp"], ["IPV4_SRC_ADDR", "IPV4_DST_ADDR", "L4_DST_PORT", "stime"]):
        assert known_columns(names) == dict(zip(("source", "target", "port", "time"), names, strict=True))
    assert known_columns(["rank", "anomaly_score"]) == {}


# --- evidence -----------------------------------------------------------------------------------------------------

def law_mean_of_one(worth):
    "A benign record is worth at most 1 in the mean, whatever the number of calibration records; ties make it less."
    for m in (1, 5, 98, 99, 150, 1000):
        assert worth(np.arange(1, m + 2) / (m + 1), m).mean() <= 1 + 1e-9
        assert worth(np.array([1 / (m + 1)]), m)[0] > 1


def test_law_mean_of_one(): law_mean_of_one(record_evidence)


def test_law_mean_of_one_catches_inverse_p_values():
    with pytest.raises(AssertionError): law_mean_of_one(lambda p, m: 1 / p)


def law_scans_are_called(worth):
    "Three scans of twenty records beyond all of a thousand calibration records, in a night of 3,000, are incidents."
    scans = np.array([worth(np.full(20, 1 / 1001), 1000).sum()] * 3)
    assert called(scans / 3000).all()
    floods = np.array([worth(np.full(200, 8 / 1001), 1000).sum()] * 3)  # within the highest per cent
    assert called(floods / 1200).all()


def test_law_scans_are_called(): law_scans_are_called(record_evidence)


def test_law_scans_are_called_catches_a_single_bet():
    with pytest.raises(AssertionError): law_scans_are_called(lambda p, m: np.where(p <= 0.01, (m + 1) / 10, 0.0))
    with pytest.raises(AssertionError): law_scans_are_called(lambda p, m: np.where(p <= 1.5 / m, m + 1.0, 0.0))


def law_promise(call, evidence=lambda worth: worth.sum() / 300):
    "Of nights without an attack at most a share `fdr` calls an incident, whatever is put together."
    for fdr, shape in ((0.1, 1.0), (0.3, 5.0)):
        hits = []
        for night in range(120):
            rng = np.random.default_rng(night)
            worth = record_evidence(conformal_p_values(rng.gamma(shape, size=300), rng.gamma(shape, size=200)), 200)
            few = np.sort(worth)[::-1][:60]
            parts = [few.reshape(6, 10), few[None], few[:, None]][night % 3]  # tens, all together, each alone
            hits.append(call(np.array([evidence(part) for part in parts]), fdr).any())
        assert np.mean(hits) <= fdr + 2 * np.sqrt(fdr * (1 - fdr) / 120)


def test_law_promise(): law_promise(called)


def test_law_promise_catches_means():
    "The mean of an incident forgets that its alerts were chosen."
    with pytest.raises(AssertionError): law_promise(called, lambda worth: worth.mean())


def test_false_incidents_among_those_called():
    "Three true ones are called beside benign traffic, and few others."
    shares = []
    for night in range(60):
        rng = np.random.default_rng(night)
        scores = np.append(rng.gamma(1, size=900), np.full(90, 99.0))
        worth = record_evidence(conformal_p_values(scores, rng.gamma(1, size=500)), 500)
        benign = np.sort(worth[:900])[::-1][:50].reshape(5, 10).sum(axis=1)
        found = called(np.append(benign, worth[900:].reshape(3, 30).sum(axis=1)) / len(scores), 0.2)
        shares.append(found[:5].sum() / max(found.sum(), 1))
        assert found[5:].all() or not found.any()
    assert np.mean(shares) <= 0.2


# --- the table ----------------------------------------------------------------------------------------------------

def test_table():
    Z, kind, benign = two_attacks()
    table = table_of(120, src_ip=kind.astype(str), dst_port=kind + 80, ts="2026-11-28 10:00:00")
    found = find_incidents(table, Z, benign, 1000, 2000)
    assert isinstance(found, Incidents) and found.table["n_alerts"].tolist() == [60, 60] and found.table["passes_fdr"].all()
    for row in found.table.itertuples():
        own = found.rows(row.incident)
        assert len(set(kind[own])) == 1 and row.representative in own and row.n_ports == 1
        assert row.title == f"60 records, from {kind[own[0]]}, port {80 + kind[own[0]]}, 2026-11-28 10:00:00"
    assert (np.diff(found.table["evidence"]) <= 0).all() and found.of.min() == 1


def test_nothing_and_one():
    assert find_incidents(table_of(3)[:0], np.zeros((0, 2)), np.zeros((1, 2)), 10, 999).table.empty
    one = find_incidents(table_of(1), np.ones((1, 2)), np.zeros((1, 2)), 10, 999)
    assert one.table["title"].tolist() == ["1 record"] and one.of.tolist() == [1]


def test_titles():
    row = dict(n_alerts=1200, source="a", n_sources=1, n_targets=2, n_ports=3, first=pd.Timestamp("2026-01-01"), last=pd.Timestamp("2026-01-01 00:01"))
    assert title_of(row) == "1,200 records, from a, to 2 hosts, 3 ports, 2026-01-01 00:00:00 to 00:01:00"


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="p_values must be at least 1 / 10"): record_evidence(np.array([0.01]), 9)
    with pytest.raises(ValueError, match="fdr"): called(np.ones(3), 2.0)
