"""Laws of nfad.context: one pass equals the definitions, pieces equal the whole, the future changes nothing, memory is bounded."""
import numpy as np
import pandas as pd
import pytest

from nfad.context import HostCells, HostMemory, host_cells, host_columns

HORIZONS = (10, 60, 600)


def traffic(n, seed, hosts=30, pause=3.0):
    rng = np.random.default_rng(seed)
    some = lambda most: rng.integers(0, most, n).astype(np.uint64)
    return HostCells(1e9 + np.cumsum(rng.exponential(pause, n)), some(hosts), some(hosts + 5), some(4),
                     (rng.random(n) < 0.3).astype(np.float32), rng.random(n).astype(np.float32))


def by_definition(cells, row, h):
    "Records, share failed, peers, services of the source; records of the pair and its size; by lists of the past."
    past = np.arange(row + 1)
    age = np.exp((cells.time[past] - cells.time[row]) / h)
    mine = cells.source[past] == cells.source[row]
    pair = mine & (cells.target[past] == cells.target[row])
    def different(ids): return sum(age[mine & (ids[past] == one)].max() for one in np.unique(ids[past][mine]))
    n, n_pair = age[mine].sum(), age[pair].sum()
    return {"source: records": np.log1p(n), "source: share failed": (age * cells.failed[past])[mine].sum() / n,
            "source: peers": np.log1p(different(cells.target)), "source: services": np.log1p(different(cells.service)),
            "pair: records": np.log1p(n_pair), "pair: size": (age * cells.size[past])[pair].sum() / n_pair}


def law_definition(observe):
    cells = traffic(400, 0)
    seen = pd.DataFrame(observe(cells), columns=HostMemory(HORIZONS).names)
    for row in (0, 5, 99, 399):
        for h in HORIZONS:
            for name, value in by_definition(cells, row, h).items():
                assert seen.loc[row, f"{name}, {h} s"] == pytest.approx(value, rel=1e-4, abs=1e-5), (row, h, name)


def test_law_definition(): law_definition(lambda cells: HostMemory(HORIZONS).observe(cells))


def test_law_definition_catches_counts_that_do_not_fade():
    frozen = lambda cells: HostMemory(HORIZONS).observe(cells._replace(time=np.full(len(cells.time), 1e9)))
    with pytest.raises(AssertionError): law_definition(frozen)


def test_law_definition_catches_peers_that_are_counted_twice():
    names = HostMemory(HORIZONS).names
    def twice(cells):
        seen = HostMemory(HORIZONS).observe(cells)
        for h in HORIZONS: seen[:, names.index(f"source: peers, {h} s")] = seen[:, names.index(f"source: records, {h} s")]
        return seen
    with pytest.raises(AssertionError): law_definition(twice)


def law_pieces(make, step):
    "Pieces, and what comes later, change no bit; with as little memory as makes it forget."
    cells = traffic(2000, 1, hosts=80)
    whole, follow = HostMemory(HORIZONS, most=300), make()
    expected = whole.observe(cells)
    pieces = [follow(cells.take(slice(a, a + step))) for a in range(0, 2000, step)]
    assert whole.n_forgotten > 0 and np.array_equal(expected, np.concatenate(pieces))
    assert np.array_equal(expected[:700], HostMemory(HORIZONS, most=300).observe(cells.take(slice(0, 700))))


@pytest.mark.parametrize("step", [1, 7, 640])
def test_law_pieces(step): law_pieces(lambda: HostMemory(HORIZONS, most=300).observe, step)


def test_law_pieces_catches_a_memory_for_each_piece():
    with pytest.raises(AssertionError): law_pieces(lambda: lambda cells: HostMemory(HORIZONS, most=300).observe(cells), 640)


def test_memory_is_bounded_and_forgets_who_was_silent_longest():
    memory = HostMemory(HORIZONS, most=256)
    memory.observe(traffic(50, 2, hosts=2))
    old = set(memory.table[0][memory.table[0] != 0])
    for seed in range(3, 8):
        later = traffic(500, seed, hosts=500)
        others = {"source": later.source + np.uint64(9), "target": later.target + np.uint64(9)}  # not those of before
        memory.observe(later._replace(time=1e9 + 1e4 * seed + np.arange(500.0), **others))
        assert memory.n_keys == (memory.table[0] != 0).sum() <= 256 and len(memory.table[0]) <= 1024
    assert memory.n_forgotten > 2000 and not old & set(memory.table[0])
    last = traffic(1, 9)._replace(time=np.array([1e9 + 1e5]))
    memory.observe(last)
    assert np.expm1(memory.observe(last)[0, memory.names.index("source: records, 10 s")]) == pytest.approx(2)


def test_a_late_record_counts_as_simultaneous():
    cells = traffic(3, 0)._replace(source=np.ones(3, np.uint64), time=np.array([1e9, np.nan, 1e9 - 500]))
    seen = HostMemory(HORIZONS).observe(cells)[:, 0]
    assert np.expm1(seen) == pytest.approx([1, 2, 3], rel=1e-5)


ZEEK = ["ts", "id.orig_h", "id.resp_h", "id.resp_p", "proto", "orig_bytes", "resp_bytes", "resp_pkts"]
ARGUS = ["StartTime", "Dur", "Proto", "SrcAddr", "Sport", "Dir", "DstAddr", "Dport", "State", "TotPkts", "TotBytes", "SrcBytes", "Label"]


def test_columns_of_sensors():
    assert set(host_columns(ZEEK)) == {"Timestamp", "Source IP", "Destination IP", "Destination Port", "Protocol", "orig_bytes", "resp_bytes", "resp_pkts"}
    assert host_columns(ARGUS)["TotBytes"] == 10 and host_columns(ARGUS)["Source IP"] == 3
    assert host_columns(["Flow Duration", "Src IP", "Dst IP"]) == {}


def test_cells_do_not_depend_on_how_a_table_is_written():
    frame = pd.DataFrame({"Timestamp": [1.6e9, 1.6e9 + 1], "Source IP": ["10.0.0.1", " 10.0.0.1"], "Destination IP": "a", "Destination Port": [53, 53]})
    as_text = frame.astype({"Timestamp": str}).assign(**{"Destination Port": ["53", "53.0"]})
    cells = [host_cells(frame), host_cells(as_text)]
    for one, other in zip(*(part[:6] for part in cells), strict=True): assert np.array_equal(one, other)
    assert np.array_equal(cells[0].failed, [0, 0]) and len(set(cells[0].source)) == 1


def test_order_of_dates_is_told():
    dates = lambda *texts: host_cells(pd.DataFrame({"Timestamp": list(texts), "Source IP": "a", "Destination IP": "b"}))
    assert dates("13/01/2024 10:00", "14/01/2024 10:00").day_first is True
    assert dates("2024-01-13 10:00").day_first is None


@pytest.mark.parametrize("bad", [{"horizons": ()}, {"horizons": (60, 10)}, {"horizons": (-1,)}, {"most": 3}])
def test_memory_refuses(bad):
    with pytest.raises(ValueError, match="horizons|most"): HostMemory(**bad)
