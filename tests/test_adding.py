"""What CONTRIBUTING.md promises of an addition, done on a copy of the repository: how many places it takes, and that it then works everywhere."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from nfad.vocabulary import FLOW_FEATURES
from rules import ROOT


@pytest.fixture
def copy(tmp_path) -> Path:
    "A copy of the notebooks and what they export."
    ignored = shutil.ignore_patterns("__pycache__", ".*", "_modidx.py")
    for name in ("nbs", "nfad"): shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("settings.ini", "setup.py", "pyproject.toml"): shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def add(copy: Path, notebook: str, before: str, addition: str):
    "Puts text before the one place where `before` stands in the exported code of a notebook, and exports that notebook."
    path = copy / "nbs" / f"{notebook}.ipynb"
    nb = nbformat.read(path, as_version=4)
    cells = [cell for cell in nb.cells if cell.source.startswith("#| export") and before in cell.source]
    assert len(cells) == 1 and cells[0].source.count(before) == 1, f"{before!r} does not stand once in {notebook}"
    cells[0].source = cells[0].source.replace(before, addition + before)
    nbformat.write(nb, path)
    environment = {key: value for key, value in os.environ.items() if key != "IN_TEST"}
    subprocess.run([Path(sys.executable).parent / "nbdev_export", "--path", path], cwd=copy, env=environment, check=True, capture_output=True)


def works(copy: Path, script: str) -> str:
    "What a script prints that imports the copy, or the error that ends it."
    environment = os.environ | {"PYTHONPATH": str(copy), "NFAD_DATA": str(copy / "data"), "NFAD_CACHE": str(copy / "cache")}
    run = subprocess.run([sys.executable, "-c", script], cwd=copy, env=environment, capture_output=True, text=True)
    return (run.stdout if run.returncode == 0 else run.stderr).strip().splitlines()[-1]


def test_a_name_of_a_column_takes_one_place(copy):
    script = ("from nfad.vocabulary import canonical_columns as names\n"
              "found = names(['Octets Per Second', 'Tot Fwd Pkts', 'Flow IAT Max'])\n"
              "assert 'Flow Bytes/s' in list(getattr(found, 'values', lambda: found)()), found\nprint('known')")
    assert works(copy, script).startswith("AssertionError")
    add(copy, "00a_vocabulary", "Flow Byts/s\n", "Octets Per Second, ")
    assert works(copy, script) == "known"


OFFICE = '''    DatasetSource(
        "office", "Office traffic", ("office/*.csv",), "one CSV a day", "our own network", "none: not published",
        feature_set="paper6"),
'''


def test_a_data_set_takes_its_entry_and_its_classes(copy):
    (copy / "data" / "office").mkdir(parents=True)
    labels = np.where(np.arange(60) % 3, "BENIGN", "wurm!")
    day = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 77)), columns=FLOW_FEATURES).assign(Label=labels)
    day.to_csv(copy / "data" / "office" / "day.csv", index=False)
    script = ("from nfad import load_dataset\nfrom nfad.prep import default_feature_set\n"
              "data = load_dataset('office', progress=False)\nassert data.report.rows_read == 60\n"
              "print(*sorted(set(data.attack)), default_feature_set('office'), sep=',')")
    assert "office" in works(copy, script) and "Error" in works(copy, script)
    add(copy, "01c_catalog", '    DatasetSource(\n        "tor2016", ', OFFICE)
    assert works(copy, script) == "benign,wurm!,paper6"
    add(copy, "00a_vocabulary", '    "Infiltration: ', '    "Office Worm: wurm!",\n')
    assert works(copy, script) == "Office Worm,benign,paper6"
