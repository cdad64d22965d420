"""Small nights of records, benign and strange, and damage done to files, for the tests of scoring in use."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nfad.detector import FlowDetector
from nfad.serving import LoadedModel, load_model

NAMES = ["Flow Duration", "Total Fwd Packets", "Flow IAT Mean", "Idle Max"]
EVIL = "<script>alert('x')</script>"
fuzz = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


def traffic(n: int, seed: int = 0) -> pd.DataFrame:
    "Simulated benign records with heavy tails."
    rng = np.random.default_rng(seed)
    base = rng.lognormal(3, 1, n)
    return pd.DataFrame({"Flow Duration": base * 1e3, "Total Fwd Packets": rng.poisson(base) + 1.0,
                         "Flow IAT Mean": base * rng.lognormal(0, 0.3, n), "Idle Max": rng.exponential(5, n)})


def strange(n: int, seed: int = 1) -> pd.DataFrame: return traffic(n, seed) * [1, 300, 1, 40]


def records(n: int = 300, seed: int = 5) -> pd.DataFrame:
    "Benign and strange records with identifiers, some of which cannot be scored."
    frame = pd.concat([traffic(n - n // 10, seed), strange(n // 10, seed + 1)])
    frame = frame.sample(frac=1, random_state=seed).reset_index(drop=True)
    frame.loc[[3, 40], "Idle Max"], frame.loc[7, "Flow Duration"] = np.nan, np.inf
    return frame.assign(**{"Flow ID": [f"id-{i:04d}" for i in range(n)], "Destination Port": np.arange(n) % 1000})


def write_folder(folder: Path, n_files: int, size: int = 300) -> Path:
    "A folder of files of `records`."
    folder.mkdir()
    for i in range(n_files): records(size, i).to_parquet(folder / f"{i}.parquet")
    return folder


def small_detector() -> FlowDetector:
    "A detector of benign `traffic`, made in seconds."
    return FlowDetector(hidden=8, epochs=3, n_layers=1).fit(traffic(1000)).calibrate(traffic(800, 2))


def damage(content: bytes, edits: list[tuple[int, int]], cut: int) -> bytes:
    "Bytes with some changed, and the end cut off."
    damaged = bytearray(content)
    for place, value in edits: damaged[place % len(damaged)] = value
    return bytes(damaged[:len(damaged) - cut % len(damaged)])


EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
DAMAGE = st.tuples(EDITS, st.sampled_from([0, 0, 0, 1, 7, 100, 5000]))


@pytest.fixture(scope="module")
def detector() -> FlowDetector: return small_detector()


@pytest.fixture(scope="module")
def model(detector) -> LoadedModel: return load_model(detector, reference=traffic(800, 3))


@pytest.fixture(scope="module")
def model_path(detector, tmp_path_factory) -> Path: return detector.save(tmp_path_factory.mktemp("model") / "model.safetensors")
