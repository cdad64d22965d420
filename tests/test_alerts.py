"""Laws of the alerts: the highest scores of all files, two rules that mark them, what it would take to pass, and a harmless page."""
import html
import json
import re
import tracemalloc
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nfad.alerts import (VERDICTS, alert_records, alerts_html, calibration_needed, explain_alerts, find_alerts, find_shown, hide,
                         needed_of_night, p_value_limit, surprising_features, write_alerts)
from nfad.answers import read_listed
from nfad.detector import FlowDetector
from nfad.files import read_scored, score_files
from nfad.promises import flag_batch
from nfad.journal import append_lines, line_of, utc
from nfad.report import as_listed, sections_html
from nfad.score import conformal_p_values, threshold_at_fpr
from nfad.serving import LoadedModel, load_model
from nfad.recipes import plain_recipe
from nfad.suppression import Rule, append_rule, read_rules, suppressed
from nights import EVIL, NAMES, small_detector, traffic, write_folder


@pytest.fixture(scope="module")
def detector() -> FlowDetector: return small_detector()


@pytest.fixture(scope="module")
def model(detector) -> LoadedModel: return load_model(detector, reference=traffic(800, 3))


def law_same_as_benjamini_hochberg(limit):
    "The rule from counts flags what the rule from all p-values flags."
    rng = np.random.default_rng(0)
    for _ in range(300):
        m, n, fdr = int(rng.integers(5, 300)), int(rng.integers(1, 200)), float(rng.uniform(0.01, 0.9))
        k = np.minimum(rng.integers(1, m + 2, n), rng.integers(1, m + 2, n) if rng.random() < 0.5 else m + 1)
        assert np.array_equal(k <= limit(np.bincount(k, minlength=m + 2), fdr), flag_batch(k / (m + 1), fdr))


def test_law_same_as_benjamini_hochberg(): law_same_as_benjamini_hochberg(p_value_limit)


def test_law_same_as_benjamini_hochberg_catches():
    with pytest.raises(AssertionError): law_same_as_benjamini_hochberg(lambda counts, fdr: int(fdr * (len(counts) - 1)))
    with pytest.raises(AssertionError): law_same_as_benjamini_hochberg(lambda counts, fdr: 0)


@pytest.fixture(scope="module")
def scored(model, tmp_path_factory) -> Path:
    "A folder with `in` and `out`."
    folder = tmp_path_factory.mktemp("scored")
    write_folder(folder / "in", 3, 400)
    score_files(model, folder / "in", folder / "out", progress=False)
    return folder


def test_alerts_are_the_top_of_all_files(model, scored):
    alerts = find_alerts(scored / "out", fdr=0.2, top=30)
    frames = [pd.read_parquet(scored / "out" / f"{i}.parquet").assign(file=f"{i}.parquet", row=range(400)) for i in range(3)]
    every = pd.concat(frames).dropna(subset="anomaly_score")
    highest = every.sort_values("anomaly_score", ascending=False, kind="stable")[:30]
    assert alerts.n_records == len(every) and alerts.n_flagged == flag_batch(every["p_value"].to_numpy(), 0.2).sum() > 30
    assert alerts.table[["file", "row", "Flow ID"]].values.tolist() == highest[["file", "row", "Flow ID"]].values.tolist()


def test_alerts_get_their_records_and_reasons(model, scored):
    alerts = find_alerts(scored / "out", fdr=0.2, top=10)
    X = alert_records(alerts, scored / "in", plain_recipe(NAMES))
    assert np.array_equal(model.detector.anomaly_score(X), alerts.table["anomaly_score"])
    told = explain_alerts(model, alerts, scored / "in", background=traffic(100))
    assert told.table["surprising"].str.contains("Total Fwd Packets|Idle Max").all()
    shares = told.table.filter(like="attribution: ").to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1) + told.explanation.attributions.base_values, told.table["anomaly_score"], atol=1e-4)
    assert np.array_equal(told.explanation.records.to_numpy(), X)  # the reports stand in the order of the alerts
    page = alerts_html(told)
    assert page.count("<style>") == 1 and page.count('<section class="incident"') == len(told.incidents.table) and f"record {told.table['file'][told.incidents.table['representative'][0]]}, row {told.table['row'][told.incidents.table['representative'][0]]:,}" in page
    with pytest.raises(KeyError, match="the background of attributions needs"):
        explain_alerts(model, alerts, scored / "in", traffic(100)[NAMES[:2]])


def test_broken_constants_are_named(tmp_path):
    still = FlowDetector(hidden=8, epochs=1, n_layers=1).fit(traffic(300).assign(still=2.0))
    kept, broken = surprising_features(still, traffic(2, 5).assign(still=[2.0, 3.0]))
    assert "still" not in kept and broken.startswith("still is not 2")


def test_alerts_notice_changed_records(model, scored, tmp_path):
    alerts = find_alerts(scored / "out", fdr=0.2, top=10)
    for i in range(3): pd.read_parquet(scored / "in" / f"{i}.parquet")[::-1].to_parquet(tmp_path / f"{i}.parquet")
    with pytest.raises(ValueError, match="score them again"): explain_alerts(model, alerts, tmp_path)


# ---------------------------------------------------------------- any night, without a model

def write_scores(folder: Path, files: dict[str, np.ndarray], calibration: np.ndarray, fpr: float = 0.01, rows: int = 97, **further) -> Path:
    "Files of scores as `score_files` leaves them, NaN for a row without one; their paths sort the other way round than their sources."
    threshold = threshold_at_fpr(calibration, fpr)
    folder.mkdir(parents=True, exist_ok=True)
    for i, (name, scores) in enumerate(files.items()):
        good = np.isfinite(scores)
        p = np.full(len(scores), np.nan)
        if good.any(): p[good] = conformal_p_values(scores[good], calibration)
        table = pa.table({
            "Flow ID": [f"{name} {j}" for j in range(len(scores))], **{key: np.full(len(scores), value) for key, value in further.items()},
            "anomaly_score": pa.array(scores, mask=~good), "p_value": pa.array(p, mask=~good),
            "is_anomaly": pa.array(scores > threshold, mask=~good),
            "reason": pa.array(np.full(len(scores), "no number in 'x'"), mask=good)})
        task = {"model": "m", "threshold": threshold, "n_calibration": len(calibration), "source": name}
        said = {"nfad": json.dumps({"task": task, "result": {}})}
        pq.write_table(table.replace_schema_metadata(said), folder / f"{999 - i}.parquet", row_group_size=rows)
    return folder


def law_ranking(find, folder):
    "The list is the head of one plain sort by score, file and row, and both rules mark it as they mark all records."
    rng = np.random.default_rng(0)
    for case in range(25):
        m, fpr, fdr = int(rng.integers(20, 400)), float(rng.choice([0.01, 0.1, 0.4])), float(rng.choice([0.001, 0.1, 0.6]))
        calibration = rng.normal(size=m).round(1)
        files = {f"{name}.csv": rng.normal(rng.choice([0, 3]), size=int(rng.integers(1, 300))).round(1) for name in "bdac"[:rng.integers(1, 5)]}
        for scores in files.values(): scores[rng.random(len(scores)) < 0.1] = np.nan
        every = pd.concat(pd.DataFrame({"file": name, "row": range(len(x)), "anomaly_score": x}) for name, x in sorted(files.items())).dropna()
        if every.empty: continue
        every["p_value"] = conformal_p_values(every["anomaly_score"].to_numpy(), calibration)
        every["is_anomaly"] = every["anomaly_score"] > threshold_at_fpr(calibration, fpr)
        every["passes_fdr"] = flag_batch(every["p_value"].to_numpy(), fdr)
        every["Flow ID"] = every["file"] + " " + every["row"].astype(str)
        top = int(rng.choice([1, 7, 5000]))
        found = find(write_scores(folder / str(case), files, calibration, fpr), fdr, top)
        expected = every.sort_values(["anomaly_score", "file", "row"], ascending=[False, True, True], ignore_index=True)[:top]
        expected.insert(0, "rank", range(1, len(expected) + 1))
        pd.testing.assert_frame_equal(found.table[expected.columns], expected, check_dtype=False)
        assert (found.n_records, found.n_anomalies, found.n_flagged) == (len(every), every["is_anomaly"].sum(), every["passes_fdr"].sum())
        assert sum(found.unscored.values()) == sum(map(len, files.values())) - len(every)


def test_law_ranking(tmp_path): law_ranking(find_alerts, tmp_path)


def with_table(change): return lambda *a: (lambda found: found._replace(table=change(found.table)))(find_alerts(*a))


@pytest.mark.parametrize("change", [
    lambda table: table[table["passes_fdr"]],                                       # lists those that pass only
    lambda table: table.sort_values(["anomaly_score", "row"], ascending=False),     # ties the other way round
    lambda table: table.assign(is_anomaly=table["passes_fdr"])])                    # one rule for both
def test_law_ranking_catches(tmp_path, change):
    with pytest.raises(AssertionError): law_ranking(with_table(change), tmp_path)


def law_flat(find, folder):
    "Six times the records do not take twice the memory."
    rng, peaks = np.random.default_rng(0), []
    for n_files in (1, 6):
        files = {f"{i}.csv": rng.normal(size=20_000) for i in range(n_files)}
        target = write_scores(folder / str(n_files), files, rng.normal(size=200), rows=5000)
        tracemalloc.start()
        find(target, 0.1, 20)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


def test_law_flat(tmp_path):
    find_alerts(write_scores(tmp_path / "first", {"a.csv": np.arange(9.0)}, np.arange(9.0)))  # imports
    law_flat(find_alerts, tmp_path)


def test_law_flat_catches(tmp_path):
    def greedy(target, *_): return pd.concat([pd.read_parquet(path) for path in target.glob("*.parquet")]).nlargest(20, "anomaly_score")
    with pytest.raises(AssertionError): law_flat(greedy, tmp_path)


# ---------------------------------------------------------------- how many calibration records it takes

def law_needed(needed):
    "With as many calibration records the rule passes the records up to a rank, with one fewer it passes none."
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 3000))
        rank, fdr = int(rng.integers(1, n + 1)), int(rng.integers(1, 100)) / 100
        m = needed(rank, n, fdr)
        assert m == max(ceil(Fraction(n) / (Fraction(round(fdr * 100), 100) * rank) - 1), 1)
        def passing(m):
            counts = np.zeros(m + 2, int)
            counts[1], counts[m + 1] = rank, n - rank
            return p_value_limit(counts, fdr)
        assert passing(m + 1) >= 1 and (m == 1 or passing(m - 1) in (0, m))  # m: all records pass, at p = 1


def test_law_needed(): law_needed(calibration_needed)


@pytest.mark.parametrize("wrong", [lambda rank, n, fdr: ceil(n / fdr) - 1, lambda rank, n, fdr: ceil(n / fdr / rank)])
def test_law_needed_catches(wrong):
    with pytest.raises(AssertionError): law_needed(wrong)


def law_needed_agrees(needed):
    "Of the present night it says what the rule says: what passes needs no more than there is, all else needs more or cannot."
    rng = np.random.default_rng(0)
    for _ in range(200):
        m, n, fdr = int(rng.integers(5, 300)), int(rng.integers(1, 300)), float(rng.uniform(0.01, 0.9))
        counts = np.bincount(np.minimum(rng.integers(1, m + 2, n), rng.integers(1, m + 2, n)), minlength=m + 2)
        above = int(rng.integers(1, n + 1))
        found, passing = needed(counts, above, fdr), counts[:p_value_limit(counts, fdr) + 1].sum()
        assert (found.first is not None and found.first <= m) == (passing > 0)
        if found.above is not None and found.above <= m: assert passing >= above
        if found.first is None: assert counts[1] == 0


def test_law_needed_agrees(): law_needed_agrees(needed_of_night)


def test_law_needed_agrees_catches_what_forgets_the_share():
    def no_share(counts, above, fdr):
        n = int(counts.sum())
        return needed_of_night(counts, above, fdr)._replace(above=calibration_needed(above, n, fdr))
    with pytest.raises(AssertionError): law_needed_agrees(no_share)


# ---------------------------------------------------------------- a night with ten attacks, and odd ones

@pytest.fixture(scope="module")
def night(tmp_path_factory) -> Path:
    "20,010 records of which ten score highest; 118 are above the threshold."
    calibration = np.arange(1191.0)
    threshold = threshold_at_fpr(calibration, 0.01)
    rng = np.random.default_rng(0)
    calm, high = rng.uniform(0, threshold, 19_892), threshold + rng.uniform(0.1, 11, 108)
    scores = rng.permutation(np.concatenate([calm, high, 2000 + np.arange(10.0)]))
    return write_scores(tmp_path_factory.mktemp("night") / "scores", {"a.csv": scores[:9000], "b.csv": scores[9000:]}, calibration)


def test_a_night_with_ten_attacks(night):
    found = find_alerts(night)
    assert (found.n_records, found.n_anomalies, found.n_flagged, len(found.table)) == (20_010, 118, 0, 100)
    assert found.table["anomaly_score"][:10].tolist() == [2009.0 - i for i in range(10)] and not found.table["passes_fdr"].any()
    said = str(found)
    assert "118 of 20,010 records are above the threshold, none passes a false discovery rate of 10%" in said
    n_first = int((find_alerts(night, top=118).table["p_value"] < 1.5 / 1192).sum())
    assert found.needed.n_first == n_first >= 10 and found.needed.first == ceil(20_010 / 0.1 / n_first) - 1
    assert found.needed.alone == 200_099 and "200,099 for a record that stands alone" in said
    assert found.needed.above is None and "No number lets all 118" in said


def test_enough_calibration_records_let_them_pass(tmp_path):
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.uniform(0, 1, 20_000), np.full(10, 2.0)])
    enough, few = (find_alerts(write_scores(tmp_path / str(m), {"a.csv": scores}, np.linspace(0, 1, m))) for m in (20_009, 20_007))
    assert enough.n_flagged == 10 and few.n_flagged == 0 and few.needed.first == 20_009
    assert "10 pass a false discovery rate" in str(enough) and "It takes at least 20,009 calibration records like the present 20,007" in str(few)


@pytest.mark.parametrize("fdr, text", [(1e-9, "of 1e-07%"), (0.999, "of 99.9%"), (0.005, "of 0.5%")])
def test_extreme_rates(night, fdr, text): assert text in str(find_alerts(night, fdr, 1))


def test_rates_outside_are_refused(night):
    for fdr in (0, 1, -1, float("nan")):
        with pytest.raises(ValueError, match="fdr"): find_alerts(night, fdr)
    with pytest.raises(ValueError, match="top"): find_alerts(night, 0.1, 0)


ODD = {  # scores of a night, against the calibration 0, 1, ... 98 -> what is said
    "nothing": (np.zeros(0), "No record has a score, so there is nothing to rank."),
    "no score": (np.full(3, np.nan), "3 rows have no scores and are not ranked: no number in 'x' (3)."),
    "one": (np.array([100.0]), "1 of 1 records is above the threshold, 1 passes"),
    "fewer": (np.array([0.0, 100.0, 1.0]), "1 of 3 records is above the threshold, 1 passes a false discovery rate of 10% (p <= 0.03); the 3 highest"),
    "all equal": (np.full(150, 50.0), "None of 150 records is above the threshold, none passes"),
    "all equal and high": (np.full(150, 500.0), "150 of 150 records are above the threshold, 150 pass"),
    "calm": (np.arange(30.0), "No number of calibration records like the present 99 lets one pass: no record scores higher than all of these."),
    "one row bad": (np.array([1.0, np.nan]), "1 row has no score and is not ranked: no number in 'x' (1).")}


@pytest.mark.parametrize("name", ODD)
def test_odd_nights(tmp_path, name):
    scores, text = ODD[name]
    found = find_alerts(write_scores(tmp_path / "scores", {"a.csv": scores}, np.arange(99.0)))
    assert text in str(found), str(found)
    assert text.split("(p <=")[0] in html.unescape(write_alerts(found, tmp_path).read_text()).replace("<p>", "")
    assert json.loads(json.dumps(found.facts()))["said"] == str(found)
    stored = pd.read_parquet(tmp_path / "alerts.parquet")
    assert len(stored) == min(np.isfinite(scores).sum(), 100) and {"rank", "file", "row", "is_anomaly", "passes_fdr"} <= {*stored}


def test_equal_scores_stand_in_the_order_of_files_and_rows(tmp_path):
    files = {"b.csv": np.ones(3), "a.csv": np.ones(3)}
    table = find_alerts(write_scores(tmp_path, files, np.arange(9.0)), top=4).table
    assert table[["file", "row"]].values.tolist() == [["a.csv", 0], ["a.csv", 1], ["a.csv", 2], ["b.csv", 0]]


def test_columns_of_the_records_keep_their_values(tmp_path):
    found = find_alerts(write_scores(tmp_path, {"a.csv": np.arange(5.0)}, np.arange(9.0), rank=7, file="x", passes_fdr="y")).table
    assert (found["record: rank"] == 7).all() and (found["record: file"] == "x").all() and (found["record: passes_fdr"] == "y").all()
    assert found["rank"].tolist() == [1, 2, 3, 4, 5] and set(found["file"]) == {"a.csv"} and not found["passes_fdr"].any()


def test_what_cannot_be_ranked_together_is_named(tmp_path):
    a, known = np.arange(9.0), np.arange(50.0)
    write_scores(tmp_path / "two" / "a", {"a.csv": a}, known, 0.1)
    write_scores(tmp_path / "two" / "b", {"b.csv": a}, known, 0.2)
    with pytest.raises(ValueError, match="2 thresholds"): find_alerts(tmp_path / "two")
    for part in "xy": write_scores(tmp_path / "same" / part, {"a.csv": a}, known)
    with pytest.raises(ValueError, match="2 files that are called 'a.csv'"): find_alerts(tmp_path / "same")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="nfad score"): find_alerts(tmp_path / "empty")


# ---------------------------------------------------------------- one page, no contradiction

def law_page_agrees(render, alerts):
    "Each card gives its record the number, the score and the verdict of the list, and tells its own threshold to no other."
    page = html.unescape(render(alerts))
    cards = re.findall(r"<div><h3>(.*?)</h3>", page)
    shown = alerts.table.iloc[alerts.incidents.table["representative"]]
    rows = shown.itertuples()
    assert len(cards) == len(shown) > 1 and "Two rules mark the list" in page and "below the threshold" not in page
    for card, row in zip(cards, rows, strict=True):
        where = f"Representative, rank {row.rank}: record {row.file}, row {row.row:,}, score {row.anomaly_score:.1f}, p = {row.p_value:.2g}, "
        assert card == where + VERDICTS[row.is_anomaly, row.passes_fdr]


@pytest.fixture(scope="module", params=[(None, 0.2), (0.002, 0.2), (0.3, 0.001)], ids=["own threshold", "high threshold", "low threshold"])
def explained(request, model, tmp_path_factory):
    "A list of records with all verdicts that the rates give, by a threshold of its own."
    fpr, fdr = request.param
    folder = tmp_path_factory.mktemp("explained")
    write_folder(folder / "in", 1, 200)
    judge = load_model(model.detector, fpr)
    score_files(judge, folder / "in", folder / "out", progress=False)
    found = find_alerts(folder / "out", fdr, 60)
    assert found.threshold == judge.threshold
    return explain_alerts(model, found, folder / "in", traffic(60))


def test_law_page_agrees(explained):
    law_page_agrees(alerts_html, explained)
    decided = explained.explanation.frame.groupby("alert")["is_anomaly"].first()
    assert decided.tolist() == (explained.table["anomaly_score"] > explained.threshold).tolist() == explained.table["is_anomaly"].tolist()


def test_the_rules_differ_where_they_are_shown(explained):
    assert (explained.table["is_anomaly"] != explained.table["passes_fdr"]).any()


def test_law_page_agrees_catches_cards_by_the_threshold_alone(explained):
    def plain(alerts): return alerts_html(alerts._replace(explained=())) + sections_html(alerts.explanation).replace("section><h2>", "div><h3>").replace("</h2>", "</h3>")
    with pytest.raises(AssertionError): law_page_agrees(plain, explained)


def law_as_listed(arrange, explained):
    "Whatever order and scores a second look gives, an explanation says of each record what the list says."
    told = explained.explanation
    table = explained.table[::-1].reset_index(drop=True).assign(
        rank=range(1, len(told.records) + 1), is_anomaly=~explained.table["is_anomaly"], p_value=0.5)
    labels = pd.Index(told.records.index[::-1])
    found = arrange(told, table, labels)
    first = found.frame[found.frame["rank"] == 1]
    assert first["record"].tolist() == labels.tolist() and first["alert"].tolist() == table["rank"].tolist()
    for name in ("anomaly_score", "p_value", "is_anomaly"): assert first[name].tolist() == table[name].tolist()
    assert np.array_equal(found.attributions.values, told.attributions.values[::-1]) and found.records.index.equals(labels)
    share = found.frame[found.frame["alert"] == 1].set_index("feature")["attribution"]
    assert share[found.attributions.names].tolist() == found.attributions.values[0].tolist()


def test_law_as_listed(explained): law_as_listed(as_listed, explained)


def test_law_as_listed_catches_what_keeps_its_own_order(explained):
    with pytest.raises(AssertionError): law_as_listed(lambda told, table, labels: told, explained)


def test_rows_without_a_score_are_told_and_do_not_shift_the_others(model, tmp_path):
    good = traffic(150, 9)
    lines = good.to_csv(index=False).splitlines()
    lines[5:5] = ["1,2,3,4,5,6", "", "x,1,1,1"]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    score_files(model, tmp_path / "a.csv", tmp_path / "out", progress=False)
    found = explain_alerts(model, find_alerts(tmp_path / "out", top=150), tmp_path / "a.csv")
    assert found.n_records == 150 and sum(found.unscored.values()) == 3 and "3 rows have no scores" in str(found)
    values = found.table.sort_values("row")[[f"value: {name}" for name in NAMES]].to_numpy()
    np.testing.assert_allclose(values, good[NAMES].to_numpy())


def test_files_without_scores_are_told(model, scored, tmp_path):
    for i in range(2): pd.read_parquet(scored / "in" / f"{i}.parquet").to_parquet(tmp_path / f"{i}.parquet")
    score_files(model, tmp_path / "0.parquet", tmp_path / "out" / "0.parquet", progress=False)
    part = explain_alerts(model, find_alerts(tmp_path / "out" / "0.parquet", top=3), tmp_path)
    assert part.missing == ("1.parquet",) and "1.parquet" in alerts_html(part) and part.facts()["missing"] == part.missing
    assert explain_alerts(model, find_alerts(scored / "out", top=3), scored / "in").missing == ()
    (scored / "in" / "notes.docx").write_text("x")
    said = explain_alerts(model, find_alerts(scored / "out", top=3), scored / "in")
    (scored / "in" / "notes.docx").unlink()
    assert said.missing == ("notes.docx (ending .docx)",) and "notes.docx" in str(said)


def test_another_model_is_refused(model, scored):
    found = find_alerts(scored / "out", top=3)
    with pytest.raises(ValueError, match="the one that scored"): explain_alerts(model._replace(identity="other"), found, scored / "in")


def test_json_says_what_the_page_says(explained):
    facts = json.loads(json.dumps(explained.facts()))
    listed = pd.DataFrame(facts["alerts"])
    assert facts["said"] == str(explained) and facts["calibration_needed"] == explained.needed._asdict()
    for name in ("file", "row", "is_anomaly", "passes_fdr", "Flow ID"): assert listed[name].tolist() == explained.table[name].tolist()
    np.testing.assert_allclose(listed["p_value"], explained.table["p_value"], rtol=1e-12)


# ---------------------------------------------------------------- untrusted input

def test_scores_cannot_point_outside(model, scored, tmp_path):
    path = tmp_path / "forged.parquet"
    with pq.ParquetWriter(path, pq.read_schema(scored / "out" / "0.parquet").remove_metadata()) as writer:
        writer.write_table(pq.read_table(scored / "out" / "0.parquet").replace_schema_metadata(None))
        said = read_scored(scored / "out" / "0.parquet")
        writer.add_key_value_metadata({"nfad": json.dumps(said | {"task": said["task"] | {"source": "../../secret.parquet"}})})
    with pytest.raises(ValueError, match="lies outside"): explain_alerts(model, find_alerts(path, 0.2, 3), scored / "in")


def law_page_is_harmless(render, alerts):
    "Nothing from the data is markup."
    evil = alerts._replace(table=alerts.table.assign(**{EVIL: EVIL, "surprising": EVIL}))
    page = render(evil, EVIL, EVIL)
    assert "<script" not in page and html.escape(EVIL) in page and not re.search("https?:", page)


def test_law_page_is_harmless(scored, tmp_path):
    alerts = find_alerts(scored / "out", fdr=0.2, top=3)
    law_page_is_harmless(alerts_html, alerts)
    assert "script" not in write_alerts(alerts, tmp_path).read_text() and len(pd.read_parquet(tmp_path / "alerts.parquet")) == 3


def test_law_page_is_harmless_catches(scored):
    plain = lambda alerts, *_: alerts.table.to_html(escape=False)
    with pytest.raises(AssertionError): law_page_is_harmless(plain, find_alerts(scored / "out", fdr=0.2, top=3))


# ---------------------------------------------------------------- rules that hide

def law_hidden_records_cost_no_place(find, folder):
    "The list is the first of all records that no rule hides, with the ranks of the night; what is hidden between is kept and counted."
    rng = np.random.default_rng(0)
    write_scores(folder, {f"{i}.csv": rng.normal(size=300) for i in range(3)}, rng.normal(size=400))
    every = find_alerts(folder, top=900).table
    for n_rules, top in ((0, 20), (1, 20), (40, 30), (850, 30), (850, 60)):
        path = folder / f"{n_rules}-{top}.jsonl"
        rules = [Rule({"Flow ID": name}, utc("2026-12-04T18:00Z"), "anna", utc("2026-11-28T01:00Z"), "known") for name in every["Flow ID"][:n_rules]]
        append_lines(path, [line_of(rule._asdict(), "rule") for rule in rules], "rule")
        found = find(folder, [path], top=top, now="2026-12-01T00:00Z")
        shown = every[n_rules:][:top]
        last = shown["rank"].max() if len(shown) == top else 900
        assert found.table["rank"].tolist() == shown["rank"].tolist() and found.hidden["rank"].tolist() == list(range(1, min(n_rules, last) + 1))
        assert f"{len(found.hidden)} alert{'s' * (n_rules != 1)} not shown by" in str(found) or n_rules == 0
        assert found.facts()["suppressed"]["n"] == len(found.hidden) and found.n_records == 900
        assert ("not shown by" in alerts_html(found)) == (n_rules > 0)
    rows = pd.read_parquet(write_alerts(found, folder / "out").parent / "alerts.parquet")
    assert rows["rank"].tolist() == list(range(1, 901)) and (rows["suppressed_by"] != "").sum() == 850


def test_law_hidden_records_cost_no_place(tmp_path): law_hidden_records_cost_no_place(find_shown, tmp_path)


def test_law_hidden_records_cost_no_place_catches(tmp_path):
    def only_the_first(folder, rules, top, now):
        found = find_alerts(folder, top=top)
        done = suppressed(read_rules(rules), found.table, now)
        return hide(found, done, top)._replace(suppressed=done)
    with pytest.raises(AssertionError): law_hidden_records_cost_no_place(only_the_first, tmp_path)


def test_hidden_records_are_explained_and_kept(model, scored, tmp_path):
    first = find_alerts(scored / "out", top=3).table
    rule = Rule({"Flow ID": first["Flow ID"][1]}, utc("2026-12-04T18:00Z"), "anna", utc("2026-11-28T01:00Z"), EVIL)
    alerts = find_shown(scored / "out", [append_rule(tmp_path / "rules.jsonl", rule)], top=3, now="2026-12-01T00:00Z")
    told = explain_alerts(model, alerts, scored / "in", background=traffic(100))
    write_alerts(told, tmp_path)
    listed = read_listed(tmp_path)
    assert listed.model == model.identity and listed.features == NAMES and listed.table["suppressed_by"].tolist() == ["", rule.id, "", ""]
    X = listed.table.filter(like="value: ").to_numpy()
    assert np.array_equal(model.detector.anomaly_score(X), listed.table["anomaly_score"])
    page = (tmp_path / "alerts.html").read_text()
    assert "1 alert not shown by 1 rule" in page and EVIL not in page and first["Flow ID"][1] not in page and page.count('<section class="incident"') == len(told.incidents.table)
