"""Shared by all tests: where the real data is, and how a test says that it needs it."""
import os
from pathlib import Path

import pytest

from nfad.core import data_dir as find_data_dir

os.environ.setdefault("MPLBACKEND", "Agg")
REAL_DATA = find_data_dir()
HAVE_DATA = (REAL_DATA / "cicids2017" / "cicids2017.parquet").is_file()
needs_data = pytest.mark.skipif(not HAVE_DATA, reason=f"no real data in {REAL_DATA} (set NFAD_DATA)")


@pytest.fixture
def data_dir() -> Path:
    if not HAVE_DATA: pytest.skip(f"no real data in {REAL_DATA} (set NFAD_DATA)")
    return REAL_DATA
