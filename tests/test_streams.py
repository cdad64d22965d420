"""Laws of single records: the bits of a table, a reason instead of a crash, and an answer at once."""
import io
import json
import queue
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfad.statistics import ProfileStatistic
from nfad.detector import FlowDetector
from nfad.serving import LoadedModel, load_model
from nfad.streams import LineParser, Scorer, from_dicts, from_suricata, from_zeek, in_bursts, json_line, parse_object, read_lines, score_lines
from nfad.lines import read_number
from nfad.tables import open_table
from nights import DAMAGE, NAMES, damage, fuzz, records, small_detector, traffic


@pytest.fixture(scope="module")
def detector() -> FlowDetector: return small_detector()


@pytest.fixture(scope="module")
def model(detector) -> LoadedModel: return load_model(detector, reference=traffic(800, 3))


@pytest.fixture(scope="module")
def scorer(model) -> Scorer: return Scorer(model)


def law_online(score, detector):
    "One record at a time, as a dict in any order or as numbers, gets the detector's score to the last bit."
    X = records()[NAMES].replace(np.inf, np.nan).dropna()
    wanted = detector.anomaly_score(X)
    assert [score(row) for row in X.to_numpy()[:100]] == wanted[:100].tolist()
    backwards = [dict(reversed(row.items())) for row in X[:50].to_dict("records")]
    assert list(map(score, backwards)) == wanted[:50].tolist()


def test_law_online(scorer, detector):
    law_online(lambda record: scorer.score_one(record).anomaly_score, detector)


def test_law_online_catches(scorer, detector):
    by_place = lambda record: scorer.score_one(list(record.values()) if isinstance(record, dict) else record)
    with pytest.raises(AssertionError): law_online(lambda r: by_place(r).anomaly_score, detector)
    with pytest.raises(AssertionError): law_online(lambda r: float(np.float32(scorer.score_one(r).anomaly_score)), detector)


def test_online_few_many_and_from_threads(scorer, detector):
    X = traffic(500, 20)
    wanted = detector.anomaly_score(X).tolist()
    for n in (1, 2, 63, 64, 65, 500): assert [a.anomaly_score for a in scorer.score(X.to_numpy()[:n])] == wanted[:n]
    assert [a.anomaly_score for a in scorer.score(X)] == wanted
    with ThreadPoolExecutor(8) as threads: assert list(threads.map(lambda row: scorer.score_one(row).anomaly_score, X.to_numpy())) == wanted


ONES = dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("record, reason", [
    ({}, "none of the model's features"), (dict.fromkeys(NAMES), "none of the model's features"), (dict.fromkeys(NAMES, "1"), None),
    (ONES | {"Idle Max": "x"}, "no number in 'Idle Max'"), (ONES | {"Idle Max": 1e999}, "infinite in 'Idle Max'"),
    (ONES | {"Idle Max": [1]}, "no number in 'Idle Max'"), (ONES | {"Idle Max": 10**400}, "no number in 'Idle Max'")])
def test_online_reasons(scorer, record, reason):
    answer = scorer.score_one(record)
    assert answer.reason == reason and (answer.anomaly_score is None) == (answer.is_anomaly is None) == (reason is not None)


def law_same_bits_online(scorer, detector):
    "Answers have the bits of the detector's own call on all records, alone and in company."
    X = np.concatenate([traffic(70, 21).to_numpy(), 1e6 * traffic(10, 22).to_numpy(), np.full((1, 4), np.nan)])
    wanted = [*detector.anomaly_score(X[:-1]).tolist(), None]
    for n in (1, 5, 64, 65, 81): assert [answer.anomaly_score for answer in scorer.score(X[-n:])] == wanted[-n:], n


def test_law_same_bits_online(model, scorer): law_same_bits_online(scorer, model.detector)


def test_law_same_bits_online_catches_a_score_that_counts_its_company(model, monkeypatch):
    whole = ProfileStatistic.parts
    def crowded(self, Z, S): return whole(self, Z, S) + 1e-9 * len(Z)
    monkeypatch.setattr(ProfileStatistic, "parts", crowded)
    with pytest.raises(AssertionError): law_same_bits_online(Scorer(model), model.detector)


def test_constants_count_online_too():
    still = FlowDetector(hidden=8, epochs=1, n_layers=1).fit(traffic(300).assign(still=2.0)).calibrate(traffic(200, 1).assign(still=2.0))
    X = traffic(4, 5).assign(still=[2.0, 3.0, 2.0, 0.0])
    assert [a.anomaly_score for a in Scorer(still).score(X)] == still.anomaly_score(X).tolist()


def test_sensors_agree():
    zeek = {"duration": 2.0, "orig_pkts": 10, "resp_pkts": 5, "orig_bytes": 900, "resp_bytes": 3000}
    counts = {"pkts_toserver": 10, "pkts_toclient": 5, "bytes_toserver": 900, "bytes_toclient": 3000}
    eve = {"flow": counts | {"start": "2026-01-01T00:00:00+0000", "end": "2026-01-01T00:00:02+0000"}}
    assert from_suricata({"flow": counts | {"age": 2}}) == from_suricata(eve)
    features = from_zeek(zeek)
    assert features == from_suricata(eve) and features["Flow Bytes/s"] == 1950 and features["Down/Up Ratio"] == 0.5
    assert all(np.isfinite(list(from_zeek({"orig_pkts": 1}).values())))


def test_bursts_keep_order_and_errors():
    assert sum(in_bursts(range(5000), 64), []) == list(range(5000))
    def broken():
        yield 1
        raise KeyError("stream")
    with pytest.raises(KeyError, match="stream"): list(in_bursts(broken()))


def test_a_lone_line_is_answered_at_once(scorer):
    waiting = queue.Queue()
    answers = score_lines(scorer, iter(waiting.get, None))
    for _ in range(3):
        waiting.put(json.dumps(dict.fromkeys(NAMES, 3)))
        assert next(answers)["nfad"]["anomaly_score"] is not None  # would wait forever for a full burst
    waiting.put(None)


# ---------------------------------------------------------------- untrusted lines

CONNECTION = json.dumps({
    "uid": "C1", "duration": 2.5, "orig_pkts": 10, "resp_pkts": 5, "orig_bytes": 900, "resp_bytes": 3000, "Flow Duration": 1e6,
    "flow": {"pkts_toserver": 10, "pkts_toclient": 5, "bytes_toserver": 900, "bytes_toclient": 3000, "age": 2}}).encode()
LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8)
KEYS = st.sampled_from([*NAMES, "flow", "a"])
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8)
LINES = st.binary(max_size=40) | DAMAGE.map(lambda how: damage(CONNECTION, *how)) | JSON.map(lambda value: json.dumps(value).encode())


@given(LINES)
@settings(fuzz, max_examples=1000)
def test_fuzz_json_lines(line):
    for convert in (dict, from_zeek, from_suricata):
        record, features, reason = parse_object(line.decode("utf-8", "replace"), convert)
        assert (reason is None) or features == {}
        X = np.array([[read_number(features.get(name)) for name in NAMES]])
        for name, value in zip(NAMES, X[0]):
            if np.isfinite(value): assert float(features[name]) == value


def test_hostile_lines(scorer):
    lines = [b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"\xff\xfe", None, b"{}", b"NaN", b'{"Flow Duration": 1' + b"0" * 4000 + b"}"]
    answers = list(score_lines(scorer, lines))
    assert len(answers) == len(lines) and all(a["nfad"]["reason"] for a in answers)
    json.dumps(answers, allow_nan=False)


# ---------------------------------------------------------------- a bad line costs one reason

GOOD = json.dumps(ONES)
BAD_OBJECTS = {
    "10,001 keys": json.dumps({f"k{i}": i for i in range(10_001)}), "50,000 keys": json.dumps({f"k{i}": i for i in range(50_000)}), "cut": GOOD[:20], "end only": GOOD[20:],
    "list": "[1, 2]", "number": "5", "open": "[" * 200_000, "open objects": '{"a":' * 200_000, "half a character": '{"a": "\\ud800", "Idle Max": 1}',
    "large": '{"Idle Max": ' + "9" * 400 + "}", "spelled": json.dumps({f"Idle Max{' ' * i}": i for i in range(900)}), "zero": "\0", "text": "hello, world", "nfad": '{"nfad": {"nfad": 1}}',
    "long": '{"a": "' + "x" * (1 << 20) + '"}', **{f"{depth} deep": "[" * depth + "]" * depth for depth in range(970, 1000, 3)},
    **{f"{depth} objects deep": '{"a":' * depth + "1" + "}" * depth for depth in range(310, 340, 3)}, **{f"{depth} lists in": '{"a":' + "[" * depth + "]" * depth + "}" for depth in range(950, 1000, 3)}}
HEADER = ",".join(NAMES)
BAD_ROWS = {
    "quote": '1,"2,3,4', "two quotes": '"1,2","3,4', "few": "1,2", "many": "1,2,3,4,5", "long header": ",".join(f"c{i}" for i in range(30_000)), "long cell": "1,2,3," + "x" * 200_000,
    "object": GOOD[:20], "return": "1,2,3\r,4\r", "zero": "\0,\0,\0,\0", "fields": "#fields\t" + "\t".join(f"c{i}" for i in range(5000)), "remark": "#" * 100_000, "commas": "," * 500_000}


def law_one_reason(score, above, good, bad):
    "Whatever stands between two good lines, these are answered as without it, and it has at most one answer, in strict JSON."
    alone = [answer["nfad"]["anomaly_score"] for answer in score([*above, good, good])]
    began = time.monotonic()
    answers = [json.loads(json_line(answer), parse_constant=None) for answer in score([*above, good, bad, good])]
    assert time.monotonic() - began < 10, "takes long"
    said = [answer["nfad"]["anomaly_score"] for answer in answers]
    assert alone[0] is not None and [said[0], said[-1]] == alone, "a neighbor is lost"
    assert len(said) in (2, 3) and (len(said) == 3 or bad.startswith("#")), "other lines"


@pytest.mark.parametrize("above, good, bad", [([], GOOD, bad) for bad in BAD_OBJECTS.values()] + [([HEADER], "1,1,1,1", bad) for bad in BAD_ROWS.values()],
                         ids=[*BAD_OBJECTS, *[f"row {name}" for name in BAD_ROWS]])
def test_law_one_reason(scorer, above, good, bad): law_one_reason(lambda lines: score_lines(scorer, lines), above, good, bad)


@pytest.mark.parametrize("bad", BAD_OBJECTS.values(), ids=BAD_OBJECTS)
def test_a_bad_first_line_spoils_nothing(scorer, bad):
    for above, good in ([], GOOD), ([HEADER], "1,1,1,1"):
        if above and bad in ("hello, world",): continue
        answers = list(score_lines(scorer, [bad, *above, good]))
        assert answers[-1]["nfad"]["reason"] is None and len(answers) == 2 and answers[0]["nfad"]["line"] == 1


@pytest.mark.parametrize("twin", [
    lambda scorer, lines: score_lines(scorer, [line for line in lines if line.count(":") < 9000]),  # leaves lines out
    lambda scorer, lines: score_lines(scorer, lines[:1 + [line.count(":") > 9000 for line in lines].index(True)] if any(line.count(":") > 9000 for line in lines) else lines)])
def test_law_one_reason_catches(scorer, twin):
    with pytest.raises(AssertionError): law_one_reason(lambda lines: twin(scorer, lines), [], GOOD, BAD_OBJECTS["10,001 keys"])


def test_what_a_model_needs_is_found_among_very_many_keys(scorer):
    many = {f"k{i}": i for i in range(10_000)} | dict(zip(NAMES, [1, 2, 3, 4]))
    assert scorer.score([many, {"a": 1}])[0].anomaly_score == scorer.score_one([1, 2, 3, 4]).anomaly_score


def test_headers_in_the_middle_of_a_stream(scorer):
    lines = ["fe,c", HEADER, "1,2,3,4", HEADER, ",".join([*reversed(NAMES), "more"]), "4,3,2,1,x", "1,2"]
    answers = [answer["nfad"] for answer in score_lines(scorer, lines)]
    assert [answer["reason"] for answer in answers] == ["no header line before it", None, "repeated header line", None, "line with too few fields"]
    assert answers[1]["anomaly_score"] == answers[3]["anomaly_score"]


def test_the_first_of_two_columns_counts_as_in_a_file(scorer, tmp_path):
    answer, = score_lines(scorer, ["Idle Max," + HEADER, "4,1,2,3,9"])
    assert answer["nfad"]["anomaly_score"] == scorer.score_one([1, 2, 3, 4]).anomaly_score and answer["Idle Max.4"] == "9"
    (tmp_path / "a.csv").write_text(f"Idle Max,{HEADER}\n" + "4,1,2,3,9\n" * 5)
    batch, = open_table(tmp_path / "a.csv").records(scorer.recipe, "none")
    assert batch.X[0].tolist() == [1, 2, 3, 4]


def test_answers_are_strict_and_cover_nothing(scorer):
    answer, = score_lines(scorer, ['{"nfad": "mine", "record: nfad": 2, "a": 1e999, "b": NaN, "c": [Infinity, -1e999]}'])
    said = json.loads(json_line(answer), parse_constant=lambda word: pytest.fail(word))
    assert {key: said[key] for key in said if key != "nfad"} == {"record: record: nfad": "mine", "record: nfad": 2, "a": None, "b": None, "c": [None, None]}


BOOLEANS = [{"Idle Max": True}, {"Idle Max": "true"}, {"Idle Max": False}, {"Idle Max": "no"}, {"Idle Max": 1}]


def test_truth_values_do_not_depend_on_their_company(scorer, tmp_path):
    records = [ONES | some for some in BOOLEANS]
    wanted = [scorer.score_one(record).anomaly_score for record in records]
    assert [answer.anomaly_score for answer in scorer.score(records)] == wanted and wanted[0] == wanted[1] != wanted[2]
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, records)))
    batch, = open_table(tmp_path / "a.json").records(scorer.recipe, "none")
    assert batch.X[:, 3].tolist() == [1, 1, 0, 0, 1]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_lines_end_in_any_way_and_come_in_any_pieces(end, size):
    class Slow(io.BytesIO):
        def read(self, n): return super().read(min(n, size))
    lines = ["a,b", "1,2", "", "33,4" * 9, "x"]
    for last in ("", end):
        found = list(read_lines(Slow((end.join(lines) + last).encode())))
        assert [line.strip().decode() for line in found if line.strip()] == ["a,b", "1,2", "33,4" * 9, "x"]


def test_long_lines_are_skipped():
    assert list(read_lines(io.BytesIO(b"a\n" + b"x" * 5000 + b"\nb\n" + b"y" * 70), limit=64)) == [b"a\n", None, b"b\n", None]


@given(st.lists(LINES | st.sampled_from([b"a,b", b"1,2", b'"', b"#fields\ta\tb", b"#", b"1\t2", b",,,", b"\x00,\x00"]), max_size=6))
@settings(fuzz, max_examples=300)
def test_fuzz_lines_of_any_kind(lines):
    parser = LineParser()
    for line in lines:
        found = parser.parse(line)
        assert found is None or (found.reason is None) or found.features == {}


# ---------------------------------------------------------------- the same doors for a table and a stream

HEADER = ",".join(NAMES)
TABLE = ["1,2,3,4", '1,"2,3,4', "5,6,7,8.5", "x,2,3,4", ",2,3,4", "1,2,3", "1,2,3,4,5", "1,2,3,4,", '"1",2,3,4', " 1 , 2,3,4", "inf,2,3,4", "9,9,-,9", "1e3,2,.5,+4"]


def law_same_doors(scorer, folder, lines, dialect=lambda line: line, parser=LineParser):
    "A line of a stream has the numbers and the fault that it has in a file."
    path = folder / "a.csv"
    path.write_text("\n".join(map(dialect, [HEADER, *lines])) + "\n")
    batch, = open_table(path).records(scorer.recipe, "none")
    stream = parser()
    found = [parsed for line in [HEADER, *lines] if (parsed := stream.parse(dialect(line))) is not None]
    assert [parsed.reason for parsed in found] == list(batch.faults), "another fault"
    sound = np.equal(batch.faults, None).astype(bool)
    X = from_dicts([parsed.features for parsed, good in zip(found, sound) if good], scorer.recipe)
    assert np.array_equal(X, batch.X[sound], equal_nan=True), "other numbers"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_law_same_doors(scorer, tmp_path, delimiter):
    law_same_doors(scorer, tmp_path, TABLE, lambda line: line.replace(",", delimiter))


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_law_same_doors_decimal_comma(scorer, tmp_path, delimiter):
    rows = [f"{i},5.25,3,4" for i in range(1, 9)]
    law_same_doors(scorer, tmp_path, rows, lambda line: line.replace(",", delimiter).replace(".", ","))


@pytest.mark.parametrize("row", ["1,2,3,true", "1_000,2,3,4", "0x1f,2,3,4", "1,2,3,nan", "1,2,3,1e999", "١,2,3,4", "1,2,3,1.5e3"])
def test_law_same_doors_odd_cells(scorer, tmp_path, row): law_same_doors(scorer, tmp_path, [*TABLE[:2] * 3, row])


def test_law_same_doors_catches(scorer, tmp_path):
    class Generous(LineParser):
        def parse(self, line):
            found = super().parse(line)
            return found if found is None or found.reason is None else found._replace(reason=None)
    with pytest.raises(AssertionError, match="another fault"): law_same_doors(scorer, tmp_path, TABLE, parser=Generous)


ZEEK = ["#separator \\x09", "#unset_field\t-", "#path\tconn", "\t".join(["#fields", "uid", *NAMES]), "#types\tstring" + "\tdouble" * 4]


def test_a_log_of_zeek_in_a_pipe(scorer):
    lines = [*ZEEK, "C1\t1\t2\t3\t4", "C2\t1\t-\t3\t4", "C3\t1", "#close\t2020"]
    answers = list(score_lines(scorer, lines))
    assert [answer["nfad"]["reason"] for answer in answers] == [None, "no number in 'Total Fwd Packets'", "line with too few fields"]
    assert answers[0]["uid"] == "C1" and answers[0]["nfad"]["anomaly_score"] == scorer.score_one([1, 2, 3, 4]).anomaly_score


def test_lines_before_a_header_have_a_reason(scorer):
    answers = list(score_lines(scorer, ["1,2,3,4", HEADER, "1,2,3,4"]))
    assert [answer["nfad"]["reason"] for answer in answers] == ["no header line before it", None]
    answers = list(score_lines(scorer, ["1,2,3,4"], header=tuple(NAMES)))
    assert answers[0]["nfad"]["reason"] is None and answers[0]["nfad"]["line"] == 1


def test_records_of_many_layouts(scorer):
    "Each record is read by its own keys, whatever the records around it have."
    named = dict(zip(NAMES, [1, 2, 3, 4]))
    other = {name.upper().replace(" ", "_"): value for name, value in named.items()}
    both = [answer.anomaly_score for answer in scorer.score([named, other, {"a": 1}, dict(reversed(named.items()))])]
    assert both[0] == both[1] == both[3] == scorer.score_one([1, 2, 3, 4]).anomaly_score and both[2] is None


@pytest.mark.parametrize("line", ["no json", "error, retry, later", "1,2,3,4"])
def test_among_objects_no_other_line_is_taken_for_a_header(scorer, line):
    "A line that is no object, after objects, has a reason as in a file, and the objects after it are read."
    whole = json.dumps(ONES)
    answers = list(score_lines(scorer, [whole, line, whole]))
    assert [answer["nfad"]["reason"] for answer in answers] == [None, "no JSON", None]
