"""Laws of nfad.roles: what a column is by name and by value, which moments it names, second labels, units."""
import numpy as np
import pandas as pd
import pytest

from conftest import needs_data
from nfad import roles
from nfad.roles import Role, column_roles, telling_columns, times_of, unit_faults
from nfad.sensors import SENSOR_COLUMNS
from nfad.classes import class_name
from nfad.vocabulary import COLUMNS, FLOW_COLUMNS, canonical_columns, column_role, find_vocabulary

# ---------------------------------------------------------------- times
MOMENTS = pd.Series(np.array(["2019-04-04T16:23:00.325010", "2019-04-05T00:00:01", "2019-04-13T12:05:59.5", "2019-12-31T23:59:59.999999"], "datetime64[ns]"))
WRITTEN = {
    "s": MOMENTS.astype("int64") / 1e9, "ms": MOMENTS.astype("int64") / 1e6, "us": MOMENTS.astype("int64") // 1000, "ns": MOMENTS.astype("int64"),
    "text of s": (MOMENTS.astype("int64") / 1e9).map("{:.6f}".format), "ISO": MOMENTS.dt.strftime("%Y-%m-%dT%H:%M:%S.%f"),
    "argus": MOMENTS.dt.strftime("%Y/%m/%d %H:%M:%S.%f"), "zone": (MOMENTS + pd.Timedelta(hours=5.5)).dt.strftime("%Y-%m-%dT%H:%M:%S.%f+0530"),
    "west": (MOMENTS - pd.Timedelta(hours=3.5)).dt.strftime("%Y-%m-%d %H:%M:%S.%f-03:30"), "Z": MOMENTS.dt.strftime("%Y-%m-%d %H:%M:%S.%fZ"),
    "European": MOMENTS.dt.strftime("%d/%m/%Y %H:%M:%S.%f"), "dots": MOMENTS.dt.strftime("%d.%m.%Y %H:%M:%S.%f"),
    "US": MOMENTS.dt.strftime("%m/%d/%Y %H:%M:%S.%f"), "US, 12 hours": MOMENTS.dt.strftime("%m/%d/%Y %I:%M:%S.%f %p"),
    "CICFlowMeter": MOMENTS.dt.strftime("%d/%m/%Y %I:%M:%S.%f %p"), "short year": MOMENTS.dt.strftime("%d/%m/%y %H:%M:%S.%f"),
    "datetime": MOMENTS, "with zone": MOMENTS.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")}


def law_times(read):
    "Whatever a moment is written like, it is that moment, to the microsecond; what is none is NaT; the index stays."
    for way, cells in WRITTEN.items():
        nothing = pd.Series([None, 0, -1] if cells.dtype != object and pd.api.types.is_numeric_dtype(cells) else [None, None, None])
        if pd.api.types.is_datetime64_any_dtype(cells): nothing = nothing.astype(cells.dtype)
        cells = pd.concat([cells, nothing]).set_axis(range(10, 17))
        found = read(cells)
        assert found.dtype == "datetime64[ns]" and list(found.index) == list(range(10, 17)), way
        assert ((found[:4].to_numpy() - MOMENTS.to_numpy()).astype("timedelta64[us]").astype(int) == 0).all() and found[4:].isna().all(), way


def test_times(): law_times(times_of)


@pytest.mark.parametrize("twin", [
    lambda cells: times_of(cells, day_first=True), lambda cells: times_of(cells, day_first=False),
    lambda cells: times_of(cells.replace(" ?[AP]M", "", regex=True)), lambda cells: times_of(cells.replace(r"[+-]\d\d:?\d\d$", "", regex=True)),
    lambda cells: times_of(cells).dt.floor("s"), lambda cells: times_of(cells).reset_index(drop=True),
    lambda cells: times_of(cells).fillna(MOMENTS[0])])
def test_times_law_catches(twin):
    with pytest.raises(AssertionError): law_times(twin)


def test_the_order_of_day_and_month_is_said():
    said = lambda *texts: times_of(pd.Series(texts)).attrs["layout"]
    assert said("03/07/2017 08:55", "13/07/2017 08:55") == "day first: a first part is above 12"
    assert said("03/07/2017 08:55", "03/17/2017 08:55") == "month first: a second part is above 12"
    assert said("03/07/2017", "04/07/2017") == said("03/07/2017 1:55", "04/07/2017 9:00") == "day first: no part is above 12, so the times lie closer together"
    assert said("07/03/2017", "07/04/2017").startswith("month first") and said("05/05/2017") == "day first: no part is above 12, as flow meters write"
    assert said("nothing", "10.8.0.69", "1.2.20") == "no times" and times_of(pd.Series(["1.2.20"])).isna().all()


def test_odd_cells_are_no_times():
    cells = pd.Series(["2020-01-01", "2020-02-30", "2020-01-01 24:00:00", "2020-01-01 10:61", "99/99/2020", "", " ", "12", "x"])
    assert times_of(cells).notna().tolist() == [True] + [False] * 8
    assert times_of(pd.Series([], dtype=object)).empty and times_of(pd.Series([np.nan, np.nan])).isna().all()
    assert times_of(pd.Series([1.0, 2.0, 3.0])).isna().all()


def law_quick(read):
    "Most dates by one fixed format: the same moments as all of them by their parts, whatever stands between and first."
    rng = np.random.default_rng(0)
    ways = [f"{date}{time}{zone}" for date in ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d") for zone in ("", "Z", " +0200", "-03:30", " UTC")
            for time in ("", "T%H:%M", " %H:%M:%S", "  %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S.%f%p")]
    odd = ["", "never", "2020-13-01", "2020-01-01 25:00", "2020-1-2 3:04", "20-01-01", "2020-01/02", "2020-02-30", "2020-01-01 10:00:60", "2020-01-01 00:30 AM"]
    for way in ways:
        times = pd.to_datetime(pd.Series(rng.integers(10**9, 2 * 10**9, 40)) * 10**6 + rng.integers(0, 10**6, 40), unit="us")
        texts = times.dt.strftime(way)
        texts[::5] = [times[i].strftime(ways[rng.integers(len(ways))]) for i in range(0, 40, 5)]
        texts[3::7] = rng.choice(odd, 6)
        plain = roles._put_together(texts.str.extract(roles._YEAR_FIRST).set_axis(roles._YEAR_FIRST_NAMES, axis=1))
        pd.testing.assert_series_equal(read(texts, roles._YEAR_FIRST, roles._YEAR_FIRST_NAMES), plain, check_names=False)
        late = [*roles._YEAR_FIRST_NAMES[2:0:-1], *roles._YEAR_FIRST_NAMES[:1], *roles._TIME_PARTS]
        texts = times.dt.strftime(way.replace("%Y", "*").replace("%d", "%Y").replace("*", "%d"))
        plain = roles._put_together(texts.str.extract(roles._YEAR_LAST).set_axis(late, axis=1))
        assert plain.notna().all()
        pd.testing.assert_series_equal(read(texts, roles._YEAR_LAST, late), plain, check_names=False)


def test_quick(): law_quick(roles._read_dates)


@pytest.mark.parametrize("wrong", ["%d/%m/%Y", "%Y-%m-%d", "%Y-%d-%m %H:%M:%S"])
def test_quick_law_catches(wrong):
    loose = lambda texts, pattern, names: pd.to_datetime(texts.str.slice(0, 10), errors="coerce", format=wrong).astype("datetime64[ns]")
    with pytest.raises(AssertionError): law_quick(loose)


# ---------------------------------------------------------------- roles by value
def own_table(seed: int, n: int = 400) -> tuple[pd.DataFrame, dict[str, str]]:
    "A table of one's own under names that say little, and what its columns are."
    rng = np.random.default_rng(seed)
    t0 = rng.uniform(1.2e9, 1.9e9)
    t = t0 + np.sort(rng.exponential(3, n).cumsum())
    pick = lambda *words: rng.choice(words, n)
    hosts = [f"10.0.{a}.{b}" for a, b in rng.integers(0, 255, (n, 2))]
    few = pick("SF", "S0", "REJ")
    columns = {
        "a": ("time", t), "b": ("time", (t * 1e3).astype("int64")), "c": ("time", [f"{x:.6f}" for x in t]), "d": ("time", (t * 1e6).astype("int64")),
        "e": ("time", pd.to_datetime(t, unit="s").strftime("%d.%m.%Y %H:%M:%S")), "f": ("time", pd.to_datetime(t, unit="s").strftime("%m/%d/%Y %I:%M %p")),
        "g": ("time", np.where(rng.random(n) < 0.5, (t * 1e3).round(), 0)),
        "h": ("counter", np.arange(n) + rng.integers(1000)), "i": ("counter", rng.permutation(n)), "j": ("counter", rng.integers(0, 2**32, n)),
        "k": ("counter", t - t0), "l": ("identifier", hosts), "m": ("identifier", [f"2001:db8::{x:x}" for x in rng.integers(0, 9999, n)]),
        "n": ("identifier", [":".join(f"{x:02x}" for x in row) for row in rng.integers(0, 256, (n, 6))]),
        "o": ("identifier", [f"C{x:x}z" for x in rng.integers(2**40, 2**50, n)]), "p": ("identifier", [f"{h}-172.16.1.20-443-6" for h in hosts]),
        "q": ("word", few), "r": ("word", rng.random(n) < 0.5), "s": ("word", pick("0x0018", "0x0002")), "t": ("word", pick("T", "F")),
        "u": ("text", [f"{x:.3g} and {y}" for x, y in rng.random((n, 2))]),
        "v": ("feature", rng.lognormal(6, 2, n)), "w": ("feature", rng.poisson(9, n)), "x": ("feature", rng.lognormal(14, 4, n).round()),
        "y": ("feature", np.where(rng.random(n) < 0.01, "0x0303", rng.integers(0, 65536, n).astype(str))), "z": ("feature", rng.choice([0, 1], n)),
        "aa": ("feature", rng.integers(0, 120 * 10**6, n)), "ab": ("feature", np.where(rng.random(n) < 0.6, np.nan, rng.random(n))),
        "dst_port": ("port", rng.integers(0, 65536, n)), "ip.ttl": ("testbed", pick("64", "128")), "Time_To_Live": ("testbed", pick("64", "128")), "sttl": ("testbed", pick("31", "254")), "label_2": ("label", few), "Attack Type": ("label", few),
        "src_vlan": ("identifier", rng.integers(0, 9, n)), "transport": ("feature", rng.integers(0, 99, n)), "ip.proto": ("code", pick("6", "17", "6")),
        "proto": ("word", pick("tcp", "udp")), "session_id": ("identifier", rng.integers(0, 10**6, n)),
        "ac": ("hexadecimal", [f"0x{int(x):04x}" for x in rng.lognormal(6, 1, n)]), "ad": ("counter", [f"0x{x:x}" for x in rng.integers(0, 2**32, n)])}
    return pd.DataFrame({name: cells for name, (_, cells) in columns.items()}), {name: role for name, (role, _) in columns.items()}


def law_by_value(find):
    "Columns of one's own are what their values say, texts or numbers, a week later too; none is missed."
    for seed in range(4):
        table, meant = own_table(seed)
        for sample in (table, table.astype(object).where(table.notna()), table.iloc[:, ::-1]):
            found = find(sample)
            wrong = {name: (role, found[name]) for name, role in meant.items() if found[name].role != role}
            assert set(found) == set(table.columns) and not wrong, wrong
            assert all(role.why for role in found.values())


def test_by_value(): law_by_value(column_roles)


@pytest.mark.parametrize("broken", [
    lambda sample: {name: Role(column_role(name, "own"), "", "name") for name in sample},
    lambda sample: {name: Role("feature", "", "all") for name in sample},
    lambda sample: column_roles(sample.head(10)), lambda sample: column_roles(sample.sample(frac=1, random_state=0)),
    lambda sample: dict(zip(sample, column_roles(sample.set_axis([f"c{i}" for i in range(sample.shape[1])], axis=1)).values()))])
def test_by_value_law_catches(broken):
    with pytest.raises(AssertionError): law_by_value(broken)


@pytest.mark.parametrize("part", ["_clock_unit", "_is_running", "_is_random", "_role_of_texts"])
def test_each_rule_about_values_is_needed(monkeypatch, part):
    nothing = {"_clock_unit": "", "_is_running": False, "_is_random": False, "_role_of_texts": Role("text", "", "a text")}[part]
    monkeypatch.setattr(roles, part, lambda *cells: nothing)
    with pytest.raises(AssertionError): law_by_value(column_roles)


def test_floats_with_small_steps_and_few_rows_are_left_alone():
    few = pd.DataFrame({"a": [1, 2, 3], "b": [5e8, 6.0, 7.0], "c": ["x", "y", "z"]})
    assert [role.role for role in column_roles(few).values()] == ["feature", "feature", "text"]
    empty = column_roles(pd.DataFrame({"a": [np.nan] * 3, "Source IP": [None] * 3, "b": [np.nan] * 3}).astype(object))
    assert [role.role for role in empty.values()] == ["feature", "identifier", "feature"]


# ---------------------------------------------------------------- roles by name
def law_table_first(find):
    "What the table of a tool calls a feature stays one, though its values look like a clock, an address or a counter; so for all roles."
    n = 60
    looks = [np.arange(n), 1.7e9 + np.arange(n) * 17, np.random.default_rng(0).integers(0, 2**32, n), ["10.0.0.1"] * n, ["a", "b"] * (n // 2)]
    for tool, rows in SENSOR_COLUMNS.groupby("vocabulary"):
        rows = rows[rows.role != "code"]
        sample = pd.DataFrame({name: looks[i % len(looks)] for i, name in enumerate(rows.name)})
        found = find(sample, tool)
        assert {name: found[name].role for name in rows.name} == dict(zip(rows.name, rows.role))
        assert {name: found[name].unit for name in rows.name} == dict(zip(rows.name, rows.unit))
    flows = pd.DataFrame({name: looks[i % 4] for i, name in enumerate(FLOW_COLUMNS)})
    for tool in ("cicflowmeter", "tor_arff", "lycos", "own"): assert all(role.role == "feature" for role in find(flows, tool).values()), tool


def test_table_first(): law_table_first(column_roles)


@pytest.mark.parametrize("broken", [lambda sample, tool: column_roles(sample, "own"), lambda sample, tool: column_roles(sample, "cicflowmeter"),
                                    lambda sample, tool: {name: roles._role_by_value(name, sample[name]) for name in sample}])
def test_table_first_law_catches(broken):
    with pytest.raises(AssertionError): law_table_first(broken)


def test_a_protocol_in_letters_is_a_word():
    sample = pd.DataFrame({"Protocol": ["tcp", "udp", "17"]})
    assert column_roles(sample)["Protocol"].role == "word" and column_roles(sample.iloc[[2]])["Protocol"].role == "code"
    assert column_roles(sample, "zeek")["Protocol"].role == column_roles(sample.iloc[[2]], "netflow")["Protocol"].role == "word"


def test_bland_names_of_cic_iot_are_bland_in_a_file_of_ones_own():
    clock = pd.DataFrame({"Max": 1.7e9 + np.arange(30), "Rate": np.random.default_rng(0).lognormal(3, 1, 30), "service": ["a", "b"] * 15})
    assert [role.role for role in column_roles(clock).values()] == ["time", "feature", "word"]
    assert [role.role for role in column_roles(clock, "ciciot2023").values()][:2] == ["feature", "feature"]


def test_repeated_columns_and_samples_stay_as_they_are():
    sample = pd.DataFrame({"Source IP": ["10.0.0.1"] * 30, "Source IP.1": ["x"] * 30, "n": np.arange(30).astype(str)})
    before = sample.copy()
    assert [role.role for role in column_roles(sample).values()] == ["identifier", "identifier", "counter"]
    pd.testing.assert_frame_equal(sample, before)


def test_anything_may_stand_in_a_cell():
    rng = np.random.default_rng(0)
    odd = [None, np.nan, np.inf, -np.inf, "", " ", "-", "NaN", "0x10", "1,17", "1e400", "-1", True, 10**40, [1, 2], {"a": 1}, ("x",), b"bytes",
           "é" * 300, "::", ":::::::", "1.2.3.4.5", "2020-99-99", "9" * 400, pd.Timestamp("2020-01-01")]
    for seed in range(60):
        cells = [odd[i] for i in rng.integers(0, len(odd), 30)]
        sample = pd.DataFrame({"a": pd.Series(cells, dtype=object), "Flow Duration": pd.Series(cells[::-1], dtype=object), "Timestamp": cells})
        assert set(column_roles(sample)) == set(sample) and len(times_of(sample["a"])) == 30
        assert isinstance(unit_faults(sample, "cicflowmeter"), list)


# ---------------------------------------------------------------- second labels
def law_telling(find):
    "A column is called a label if and only if benign rows have one value in it, and attacks have none of it."
    rng = np.random.default_rng(0)
    is_attack = rng.random(300) < 0.2
    kinds = rng.choice(["DoS", "scan"], 300)
    late = is_attack & (np.arange(300) > 250)
    records = pd.DataFrame({
        "binary": is_attack.astype(int), "kind": np.where(is_attack, kinds, "Normal"), "missing": np.where(is_attack, None, "x"),
        "nothing": np.where(is_attack, kinds, None), "constant": 1, "late": late.astype(int), "noisy": np.where(is_attack, 1, rng.integers(0, 3, 300)),
        "two": np.where(is_attack, 5, np.arange(300) % 2), "Flow Bytes/s": is_attack.astype(float), "Label": np.where(is_attack, kinds, "BENIGN")})
    assert find(records, is_attack) == ["binary", "kind", "missing", "nothing", "Label"]
    assert find(records, is_attack[::-1].copy()) == [] and find(records, np.zeros(300, bool)) == [] and find(records[:5], is_attack[:5]) == []


def test_telling(): law_telling(telling_columns)


@pytest.mark.parametrize("broken", [
    lambda r, a: [n for n in telling_columns(r, a) if n != "nothing"], lambda r, a: [n for n in r if r[n][~a].nunique(dropna=False) == 1],
    lambda r, a: [n for n in r if not set(r[n][a]) & set(r[n][~a])], lambda r, a: telling_columns(r, a) or telling_columns(r, r["binary"] == 1),
    lambda r, a: telling_columns(r.rename(columns={"Flow Bytes/s": "rate"}), a)])
def test_telling_law_catches(broken):
    with pytest.raises(AssertionError): law_telling(broken)


def test_telling_leaves_out_what_a_tool_measures():
    is_attack = np.arange(60) >= 40
    records = pd.DataFrame({"resp_bytes": np.where(is_attack, 9, 0), "conn_state": np.where(is_attack, "S0", "SF")})
    assert telling_columns(records, is_attack, "zeek") == ["conn_state"] and telling_columns(records, is_attack) == ["resp_bytes", "conn_state"]
    with pytest.raises(ValueError, match="is_attack must have an entry per record, 60, got 2"): telling_columns(records, [True, False])


# ---------------------------------------------------------------- units
def tables_by_unit(per_second: float) -> list[tuple[str, str, pd.DataFrame]]:
    "Tables of several tools whose durations are written in `1 / per_second` seconds: vocabulary, column, sample."
    rng = np.random.default_rng(0)
    n = 200
    lasted, packets, size = rng.lognormal(0, 2, n), rng.integers(2, 99, n), rng.integers(40, 9999, n)
    written = lasted * per_second
    start = pd.to_datetime(1.6e9 + np.arange(n), unit="s")
    end = start + pd.to_timedelta(lasted, unit="s")
    ms = lambda times: (times.astype("datetime64[ns]").astype("int64") // 10**6)
    return [
        ("cicflowmeter", "Flow Duration", pd.DataFrame({"Flow Duration": written, "Total Fwd Packets": packets, "Total Backward Packets": packets,
                                                        "Flow Packets/s": 2 * packets / lasted})),
        ("lycos", "Flow Duration", pd.DataFrame({"Flow Duration": written, "Total Length of Fwd Packets": size, "Total Length of Bwd Packets": 0,
                                                 "Flow Bytes/s": (size / lasted).astype(str)})),
        ("tor_arff", "Flow IAT Mean", pd.DataFrame({"Flow IAT Mean": written / (packets - 1), "Flow Packets/s": packets / lasted})),
        ("ntlflowlyzer", "duration", pd.DataFrame({"duration": written, "packets_count": packets, "packets_rate": packets / lasted})),
        ("unswnb15", "dur", pd.DataFrame({"dur": written, "sbytes": size, "sload": 8 * size / lasted})),
        ("argus", "Dur", pd.DataFrame({"Dur": written, "Timestamp": start.astype("str"), "LastTime": end.astype("str")})),
        ("nfstream", "bidirectional_duration_ms", pd.DataFrame({"bidirectional_duration_ms": written, "Timestamp": ms(start), "bidirectional_last_seen_ms": ms(end)})),
        ("netflow", "FLOW_DURATION_MILLISECONDS", pd.DataFrame({"FLOW_DURATION_MILLISECONDS": written, "Timestamp": ms(start), "FLOW_END_MILLISECONDS": ms(end)}))]


def law_units(find):
    "A duration in its tool's unit is right; in any other unit the column, what was expected and what was seen are named."
    for unit, per_second in {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0, "min": 1 / 60}.items():
        for tool, name, sample in tables_by_unit(per_second):
            expected = dict(zip(zip(COLUMNS.vocabulary, COLUMNS.name), COLUMNS.unit)).get((tool, name), "us")
            faults = find(sample, tool)
            if unit == expected: assert faults == [], (tool, faults)
            else: assert len(faults) == 1 and faults[0].startswith(f"{name}: {expected} expected, {unit} seen"), (tool, unit, faults)


def test_units(): law_units(unit_faults)


@pytest.mark.parametrize("broken", [
    lambda sample, tool: [], lambda sample, tool: unit_faults(sample, "cicflowmeter"), lambda sample, tool: [fault.replace("us", "s") for fault in unit_faults(sample, tool)],
    lambda sample, tool: unit_faults(sample.iloc[:5], tool), lambda sample, tool: unit_faults(sample.sample(frac=1, axis=1, random_state=0).iloc[:, 1:], tool)])
def test_units_law_catches(broken):
    with pytest.raises(AssertionError): law_units(broken)


def test_values_that_no_instrument_can_have_measured():
    assert unit_faults(pd.DataFrame({"fin_flag_number": [0, 1, 37.0]}), "ciciot2023") == ["fin_flag_number: shares up to 1 expected, 37 seen (1 rows above 1)"]
    assert unit_faults(pd.DataFrame({"Dur": ["3", "-1.5", "x"]}), "argus") == ["Dur: durations of at least 0 expected, -1.5 seen (1 rows below 0)"]
    assert unit_faults(pd.DataFrame({"IN_PKTS": [-4]}), "netflow") == ["IN_PKTS: packets of at least 0 expected, -4 seen (1 rows below 0)"]
    days = unit_faults(pd.DataFrame({"duration": [1059503, 15627, 1713489.0]}), "zeek")
    assert days == ["duration: s expected, and then most rows last over a day (median 1,059,503)"]
    fine = pd.DataFrame({"Init_Win_bytes_forward": [-1], "fin_flag_number": [1.0], "Flow IAT Min": [-1], "duration": [3.0], "Flow Duration": [0]})
    assert unit_faults(fine, "own") == unit_faults(fine, "cicflowmeter") == []


# ---------------------------------------------------------------- real files
REAL = ["cicids2017/cicids2017", "cicids2017/cicids2017_improved", "tor2016/tor2016_10s", "tor2016/tor2016_15s", "ciciot2023/ciciot2023",
        "cicddos2019/cicddos2019", "csecicids2018/csecicids2018"]


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_features_of_the_public_sets_stay_features(data_dir, name):
    sample = pd.read_parquet(data_dir / f"{name}.parquet").iloc[::7].head(20_000)
    tool = find_vocabulary(sample.columns)
    sample.columns = canonical_columns(sample.columns)
    found = column_roles(sample, tool)
    assert {column: role.role for column, role in found.items()} == {column: column_role(column, tool) for column in sample}
    assert all("durations of at least 0" in fault for fault in unit_faults(sample, tool))
    bland = sample.set_axis([f"c{i}" for i in range(sample.shape[1])], axis=1)
    by_value = dict(zip(sample.columns, column_roles(bland).values()))
    assert all(by_value[column].role == "feature" for column in sample if found[column].role == "feature")
    label = next(column for column in ("Label", "class1", "label") if column in sample)
    telling = telling_columns(sample, sample[label].map(class_name).to_numpy() != "benign", tool)
    assert label in telling and all(found[column].role == "label" for column in telling)


# ---------------------------------------------------------------- dates and addresses written as numbers

def test_dates_written_as_digits_and_addresses_as_numbers_are_no_features():
    rng = np.random.default_rng(0)
    days = pd.date_range("2026-03-01", periods=60, freq="7h")
    shuffled = rng.permutation(60)
    frame = pd.DataFrame({"began": days.strftime("%Y%m%d").astype(int)[shuffled], "ended": days.strftime("%Y%m%d%H%M%S").astype("int64")[shuffled],
                          "src_ip_int": rng.integers(2**27, 2**31, 60) // 2**16 * 2**16, "ip_bytes": rng.integers(2**25, 2**26, 60), "size": rng.integers(19950101, 20391231, 60)})
    assert [role.role for role in column_roles(frame, "own").values()] == ["time", "time", "identifier", "feature", "feature"]
    assert column_roles(frame.assign(began=frame["began"] + 60), "own")["began"].role == "feature"  # months of 61 days and more
