"""One law of all ways to a score, for a model with words and gaps: any file, frames, single records, lines and Dask give the same bits."""
import json

import numpy as np
import pandas as pd
import pytest

from nfad.data import load_dataset
from nfad.detector import FlowDetector
from nfad.files import score_files, score_frame, score_partition
from nfad.serving import load_model
from nfad.streams import Scorer, score_lines


def connections(n, seed=0):
    "Connections as Zeek writes them: what was not answered has no duration."
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "ts": 1.6e9 + np.arange(n), "uid": [f"C{i}" for i in range(n)], "id.orig_h": "10.0.0.1", "id.orig_p": rng.integers(1024, 9999, n),
        "id.resp_h": "10.0.0.2", "id.resp_p": 80, "proto": rng.choice(["tcp", "udp"], n), "service": rng.choice(["dns", "http", None], n),
        "duration": rng.lognormal(0, 1, n).round(6), "orig_bytes": rng.poisson(90.0, n) * 1.0, "resp_bytes": rng.poisson(900.0, n) * 1.0,
        "conn_state": rng.choice(["SF", "S0"], n), "history": rng.choice(["ShADadFf", "S", "Dd"], n), "orig_pkts": rng.poisson(5.0, n) + 1.0})
    frame.loc[frame["conn_state"] == "S0", ["duration", "orig_bytes", "resp_bytes"]] = np.nan
    return frame


def night(n=120):
    "Connections that are odd in every way: new words, new letters, new gaps, a gap that is filled."
    frame = connections(n, 7)
    frame.loc[3, "service"], frame.loc[4, "proto"], frame.loc[5, "history"], frame.loc[6, "orig_pkts"] = "ssl", "icmp", "^hRxx", np.nan
    frame.loc[7, "duration"], frame.loc[8, "history"] = 5.0, None
    return frame


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    "A model whose recipe has every kind of feature, from its file."
    path = tmp_path_factory.mktemp("doors") / "conn.parquet"
    connections(900).to_parquet(path, index=False)
    data = load_dataset(path, label_column="none", cache=False)
    assert {feature.how for feature in data.recipe} == {"number", "missing", "gaps", "word", "other", "letter"}
    detector = FlowDetector(hidden=8, epochs=2, n_layers=1).fit(data.records[:500]).calibrate(data.records[500:])
    detector.recipe_ = data.recipe
    return load_model(FlowDetector.load(detector.save(path.with_name("model.safetensors"))))


def law_doors(model, frame, door, folder):
    "A door gives the scores of the frame, to the last bit."
    wanted = score_partition(frame, model)["anomaly_score"].to_numpy(float)
    assert np.isfinite(wanted).all() and len(np.unique(wanted)) > 0.5 * len(frame), "records have no scores of their own"
    assert np.array_equal(np.asarray(door(model, frame, folder), float), wanted), "another score"


def told(frame): return [{name: cell for name, cell in row.items() if cell == cell and cell is not None} for row in frame.to_dict("records")]


def zeek(frame):
    lines = ["#separator \\x09", "#unset_field\t-", "#path\tconn", "\t".join(["#fields", *frame])]
    return [*lines, *["\t".join("-" if cell is None or cell != cell else str(cell) for cell in row) for row in frame.itertuples(index=False)]]


WRITERS = {
    "parquet": lambda frame, path: frame.to_parquet(path, index=False), "feather": lambda frame, path: frame.to_feather(path),
    "csv": lambda frame, path: frame.to_csv(path, index=False), "txt.gz": lambda frame, path: frame.to_csv(path, index=False, sep=";", decimal=","),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t", lineterminator="\r\n", encoding="utf-16"),
    "json": lambda frame, path: path.write_text("\n".join(map(json.dumps, told(frame)))),
    "log": lambda frame, path: path.write_text("\n".join(zeek(frame)) + "\n")}


def through_file(ending):
    def door(model, frame, folder):
        WRITERS[ending](frame, folder / f"night.{ending}")
        score_files(model, folder / f"night.{ending}", folder / "scores.parquet", progress=False)
        return pd.read_parquet(folder / "scores.parquet")["anomaly_score"]
    return door


def through_records(n):
    return lambda model, frame, folder: [answer.anomaly_score for i in range(0, len(frame), n)
                                         for answer in Scorer(model).score(told(frame)[i:i + n])]


def through_lines(write): return lambda model, frame, folder: [said["nfad"]["anomaly_score"] for said in score_lines(Scorer(model), write(frame))]


def through_dask(model, frame, folder):
    import dask.dataframe as dd
    return score_frame(model, dd.from_pandas(frame, npartitions=7))["anomaly_score"].compute(scheduler="sync")


DOORS = {ending: through_file(ending) for ending in WRITERS} | {
    "records by forties": through_records(40), "lines of a table": through_lines(lambda frame: frame.to_csv(index=False).splitlines()),
    "lines of Zeek": through_lines(zeek), "lines of JSON": through_lines(lambda frame: list(map(json.dumps, told(frame)))), "dask": through_dask}


@pytest.mark.parametrize("door", DOORS)
def test_law_doors(model, tmp_path, door): law_doors(model, night(), DOORS[door], tmp_path)


def test_law_doors_one_record_at_a_time(model, tmp_path): law_doors(model, night(20), through_records(1), tmp_path)


@pytest.mark.parametrize("spoil", [
    lambda frame: frame.fillna(frame.median(numeric_only=True)), lambda frame: frame.assign(service=frame["service"].fillna("dns")),
    lambda frame: frame.assign(history=frame["history"].str.lower()), lambda frame: frame.iloc[::-1]])
def test_law_doors_catches(model, tmp_path, spoil):
    with pytest.raises(AssertionError, match="another score"):
        law_doors(model, night(), lambda model, frame, folder: through_dask(model, spoil(frame).reset_index(drop=True), folder), tmp_path)


def test_a_record_may_lack_keys_but_not_all(model):
    scorer = Scorer(model)
    whole = {name: cell for name, cell in night().iloc[0].items() if cell is not None and cell == cell}
    for name in ("service", "duration", "history"):
        without = {key: cell for key, cell in whole.items() if key != name}
        empty = whole | {name: None}
        assert scorer.score_one(without).anomaly_score == scorer.score_one(empty).anomaly_score is not None, name
