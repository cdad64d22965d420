"""Shared by all tests: where the real data is, and how a test says that it needs it."""
import os
import signal
import sys
from pathlib import Path

import pytest

from nfad.core import data_dir as find_data_dir

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background of a shell ignores it, and so would its children
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("MPLBACKEND", "Agg")
REAL_DATA = find_data_dir()
HAVE_DATA = (REAL_DATA / "cicids2017" / "cicids2017.parquet").is_file()
needs_data = pytest.mark.skipif(not HAVE_DATA, reason=f"no real data in {REAL_DATA} (set NFAD_DATA)")


# Files whose tests take long, the longest first: what begins last ends last, and two processes should end together.
LONG = ("real", "files", "commands", "detector", "training", "adding", "repository")


def pytest_collection_modifyitems(items):
    "Long files first, all others in their order."
    place = {f"test_{name}.py": i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


@pytest.fixture(autouse=True)
def no_open_figures():
    "No test draws into a picture that another has left open."
    yield
    if "matplotlib.pyplot" in sys.modules: sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def data_dir() -> Path:
    if not HAVE_DATA: pytest.skip(f"no real data in {REAL_DATA} (set NFAD_DATA)")
    return REAL_DATA


# Small flows for the tests of flows and detectors, trained on first use and once per file.

@pytest.fixture(scope="module")
def fitted():
    "One small detector per transform."
    from flows import X, quick
    made = {}

    def get(transform="log"):
        if transform not in made: made[transform] = quick(transform=transform).fit(X)
        return made[transform]
    return get


@pytest.fixture(scope="module")
def detector(fitted): return fitted()


@pytest.fixture(scope="module")
def pair():
    from flows import X, quick
    return quick().fit(X[["duration", "bytes"]])


@pytest.fixture(scope="module")
def paper():
    from flows import MILD
    from nfad.detector import FlowDetector
    return FlowDetector.preset("paper", epochs=2, batch_size=144).fit(MILD)


@pytest.fixture(scope="module")
def trio():
    from flows import X, quick
    return quick(n_members=3, epochs=3, feature_order="shuffled").fit(X)


@pytest.fixture
def saved(detector, tmp_path): return detector.save(tmp_path / "saved.safetensors")  # anew for each test: some calibrate again


@pytest.fixture
def untrained(monkeypatch):
    "Skips the training itself, for tests of what is around it."
    from nfad.training import History
    monkeypatch.setattr("nfad.detector.train_flow", lambda *args, **settings: History([1.0], [1.0], 1, 0.0))
