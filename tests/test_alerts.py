"""Laws of the alerts: the rule of Benjamini and Hochberg over all files, the right records, and a harmless page."""
import html
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from nfad.alerts import (alert_records, alerts_html, explain_alerts, find_alerts, p_value_limit, surprising_features,
                         write_alerts)
from nfad.detector import FlowDetector
from nfad.files import read_scored, score_files
from nfad.promises import flag_batch
from nfad.serving import LoadedModel, load_model
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
    flagged = every[flag_batch(every["p_value"].to_numpy(), 0.2)].sort_values("anomaly_score", ascending=False, kind="stable")
    assert alerts.n_records == len(every) and alerts.n_flagged == len(flagged) > 30
    assert alerts.table[["file", "row", "Flow ID"]].values.tolist() == flagged[["file", "row", "Flow ID"]][:30].values.tolist()


def test_alerts_get_their_records_and_reasons(model, scored):
    alerts = find_alerts(scored / "out", fdr=0.2, top=10)
    X = alert_records(alerts, scored / "in", NAMES)
    assert np.array_equal(model.detector.anomaly_score(X), alerts.table["anomaly_score"])
    told = explain_alerts(model, alerts, scored / "in", background=traffic(100))
    assert told.table["surprising"].str.contains("Total Fwd Packets|Idle Max").all()
    shares = told.table.filter(like="attribution: ").to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1) + told.explanation.attributions.base_values, told.table["anomaly_score"], atol=1e-4)
    assert np.array_equal(told.explanation.records.to_numpy(), X)  # the reports stand in the order of the alerts
    page = alerts_html(told)
    assert page.count("<style>") == 1 and page.count("<section>") == 10 and f"record {told.table['file'][0]}, row {told.table['row'][0]:,}" in page
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
    assert "<script" not in page and html.escape(EVIL) in page and "http" not in page


def test_law_page_is_harmless(scored, tmp_path):
    alerts = find_alerts(scored / "out", fdr=0.2, top=3)
    law_page_is_harmless(alerts_html, alerts)
    assert "script" not in write_alerts(alerts, tmp_path).read_text() and len(pd.read_parquet(tmp_path / "alerts.parquet")) == 3


def test_law_page_is_harmless_catches(scored):
    plain = lambda alerts, *_: alerts.table.to_html(escape=False)
    with pytest.raises(AssertionError): law_page_is_harmless(plain, find_alerts(scored / "out", fdr=0.2, top=3))
