"""What must hold whatever is thrown at nfad: rows are answered or named, what is read stays, what is written is whole.

Each function raises an AssertionError that says which invariant is broken.
"""
import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from nfad.core import read_header, read_json, read_model
from nfad.drift import make_reference
from nfad.files import read_scored
from nfad.serving import LoadedModel
from nights import NAMES


class Sum:
    "A detector that costs nothing: the score is the sum."
    feature_names_in_, calibration_scores_, fpr = np.array(NAMES), np.arange(100.0), 0.01
    threshold_ = 98.0

    def anomaly_score(self, X): return np.asarray(X, float).sum(axis=1)


def cheap_model() -> LoadedModel:
    "A model of `NAMES` for attacks on everything but the model."
    return LoadedModel(Sum(), "sum", make_reference(np.arange(100.0), 98.0, 0.01))


def contents(folder: Path) -> dict[str, str]:
    "Name and hash of every file below a folder."
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def nothing_changes(folder: Path):
    "No file below a folder changes, goes or comes."
    before = contents(folder)
    yield
    assert contents(folder) == before, "a file that is read has changed"


def rows_are_accounted(report, target: Path, n_rows: int) -> None:
    "Rows of the file = rows with a score + rows with a reason, one line each in the result."
    totals, scored = report.totals(), pd.read_parquet(target)
    answered = scored["anomaly_score"].notna()
    assert totals["rows"] == len(scored) == n_rows, f"{n_rows} rows became {len(scored)}"
    assert (answered ^ scored["reason"].notna()).all(), "a row has neither a score nor a reason, or both"
    assert totals["bad"] == (~answered).sum() == sum(report.reasons.values()), "reasons do not add up"


def failure_is_told(report) -> None:
    "A file that failed says why in one plain sentence."
    for error in report.files.loc[report.files["status"] == "failed", "error"]:
        assert error and "Traceback" not in error and len(error) <= 500, error


def no_traceback(text: str) -> None:
    assert "Traceback" not in text and "Exception ignored" not in text, text[-2000:]


def _whole(path: Path) -> None:
    "Reads a result to its end."
    if path.suffix == ".parquet": pq.read_table(path, page_checksum_verification=True)
    elif path.suffix == ".safetensors": read_model(path, read_header(path)["format"])
    elif path.suffix == ".json": read_json(path)
    elif path.suffix == ".html": assert path.read_text().rstrip().endswith("</html>"), path
    elif path.suffix == ".csv": pd.read_csv(path)


def all_is_whole(folder: Path, left: bool = False) -> None:
    "Every result below a folder can be read to its end; there are no temporary files, unless a killed process `left` them."
    for path in folder.rglob("*"):
        if not path.is_file(): continue
        if path.name.startswith("."): assert left, f"{path.name} is left over"
        else: _whole(path)


def same_scores(one: Path, other: Path) -> None:
    "Two folders of scores hold the same, wherever and however often they were begun."
    names = sorted(path.name for path in one.glob("[!.]*"))
    assert names == sorted(path.name for path in other.glob("[!.]*")), "other files"
    for name in names:
        assert pd.read_parquet(one / name).equals(pd.read_parquet(other / name)), f"{name} differs"
        assert read_scored(one / name)["result"] == read_scored(other / name)["result"], f"{name} has another account"


def strict_json(line: str) -> dict:
    "A line that any reader of JSON takes."
    def refuse(word): raise AssertionError(f"{word} is no JSON")
    return json.loads(line, parse_constant=refuse)
