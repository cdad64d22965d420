"""Small files and data sets by hand, the simulated set and the real ones, for the tests of loading and splitting."""
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest

from conftest import REAL_DATA
from nfad.data import Dataset, load_dataset

HEADER = " Flow Duration, Total Fwd Packets,Flow Bytes/s, Fwd Header Length, Fwd IAT Max, Destination Port, Label"
ROWS = ["10,2,5.0,40,1,80,BENIGN", "12,3,6.0,60,2,80,BENIGN", "14,4,7.0,80,3,80,BENIGN", "99,9,1.5,40,9,22,PortScan"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NFAD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield load_dataset("demo")


def write(path, rows=ROWS, header=HEADER, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + end, encoding="utf-8")
    return path


def made(values, is_attack, groups=None, day=None):
    "A data set from plain lists, with no cleaning."
    is_attack = np.asarray(is_attack, bool)
    records = pd.DataFrame(np.asarray(values, float).reshape(len(is_attack), -1))
    as_text = lambda x: None if x is None else np.asarray(x, dtype=str)
    return Dataset("made", records, is_attack, np.where(is_attack, "scan", "benign"), as_text(groups), as_text(day), None)


@lru_cache
def real(name): return load_dataset(name, folder=REAL_DATA)


def law_min_mean_max(records):
    "Within each block of times the mean lies between the extremes."
    for block in ("Fwd IAT", "Bwd IAT", "Flow IAT", "Active", "Idle"):
        low, mean, high = (records[f"{block} {s}"] for s in ("Min", "Mean", "Max"))
        assert ((low <= mean * 1.01 + 1e-6) & (mean <= high * 1.01 + 1e-6)).mean() > 0.999, block
