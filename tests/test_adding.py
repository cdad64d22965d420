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
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(copy), str(ROOT / "tests")]), "NFAD_DATA": str(copy / "data")}
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
              "data = load_dataset('office', progress=False, cache=False)\nassert data.report.rows_read == 60\n"
              "print(*sorted(set(data.attack)), default_feature_set('office'), sep=',')")
    assert "office" in works(copy, script) and "Error" in works(copy, script)
    add(copy, "01c_catalog", '    DatasetSource(\n        "tor2016", ', OFFICE)
    assert works(copy, script) == "benign,wurm!,paper6"
    add(copy, "00b_classes", '"Heartbleed:"', '"Office Worm: wurm!", ')
    assert works(copy, script) == "Office Worm,benign,paper6"


CENTER = '''    Part("center", "records",
         fit=lambda Z, held_out, n_points: (m := NearestPoints(Z[:1]), m.distance(held_out)),
         distance=lambda near, Z: near.distance(Z),
         state=lambda near: {"center_point": near.points}, restore=lambda a: NearestPoints(a["center_point"])),
'''


def test_a_part_of_the_score_takes_its_entry_and_onnx_refuses_it(copy):
    script = """
from nfad.statistics import PARTS
assert "center" in [part.name for part in PARTS], PARTS
import numpy as np
from nfad import FlowDetector
from nights import small_detector, traffic
benign, detector = traffic(300), small_detector()
parts = detector.score_parts(benign)
assert "center" in parts.columns, list(parts.columns)
again = FlowDetector.load(detector.save("model.safetensors"))
assert np.array_equal(again.anomaly_score(benign), detector.anomaly_score(benign))
from nfad import Scorer
from nfad.serving import load_model
alone = Scorer(load_model("model.safetensors")).score_one(benign.iloc[0].to_dict())
assert abs(alone.anomaly_score - parts.iloc[0].sum()) < 1e-6
from nfad import flow_to_onnx
try: flow_to_onnx(detector)
except ValueError as error: print(error)
"""
    assert works(copy, script).startswith("AssertionError")
    add(copy, "02c_statistics", '    Part("local", "records"', CENTER)
    assert "center" in works(copy, script)


def test_a_detector_takes_its_class_and_its_entry(copy):
    script = """
import numpy as np, pandas as pd
from nfad.peers import PEERS, detector_names, fit_peer
benign = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=list("ab"))
assert "origin" in detector_names("all")[0], detector_names("all")
score, facts = fit_peer(PEERS["origin"], benign[:200], benign[200:])
print(score(benign[:1] + 9)[0] > score(benign).max())
"""
    assert works(copy, script).startswith("AssertionError")
    add(copy, "06d_peers", "PEERS: dict[", """class Origin:
    "Distance from the origin."
    def fit(self, Z): return self
    def score_samples(self, Z): return -np.linalg.norm(Z, axis=1)


""")
    add(copy, "06d_peers", '    "pca": Peer(', '    "origin": Peer(lambda seed, d: Origin(), ({},), ("standard",)),\n')
    assert works(copy, script) == "True"
