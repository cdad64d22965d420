"""A program that uses nfad's public names, for a type checker to read: tests/test_stubs.py. It is not run."""
from pathlib import Path
from typing import assert_type

import numpy as np
import pandas as pd

import nfad
from nfad import FlowDetector, conformal_p_values, evaluate, load_dataset, split_dataset, threshold_at_fpr
from nfad.data import Dataset
from nfad.detector import Detector
from nfad.shapley import Attributions
from nfad.splits import Split

data = load_dataset("demo")
assert_type(data, Dataset)
split = split_dataset(data, method="random", seed=3)
assert_type(split, Split)
benign = data.records.iloc[split.train]

detector = FlowDetector(epochs=3, fpr=0.02, transform="log").fit(benign, validation=benign)
assert_type(detector, FlowDetector)
assert_type(FlowDetector.preset("fast", seed=1), FlowDetector)
assert_type(detector.set_params(seed=2), FlowDetector)
assert_type(detector.anomaly_score(benign), np.ndarray)
assert_type(detector.predict(benign.to_numpy()), np.ndarray)
assert_type(detector.threshold_, float)
assert_type(detector.offset_, float)
assert_type(detector.feature_names_in_, np.ndarray)
assert_type(detector.n_features_in_, int)
assert_type(FlowDetector.load("model.safetensors"), FlowDetector)
detector.save(Path("model.safetensors"))
kept: Detector = detector

scores = detector.anomaly_score(benign)
assert_type(threshold_at_fpr(scores, fpr=0.01), float)
assert_type(conformal_p_values(scores, scores), np.ndarray)
figures: dict[str, float] = evaluate(np.array(["benign", "attack"]), scores[:2], scores, 0.01)

background = nfad.Background(detector.anomaly_score, benign)
told = nfad.shapley_values(background, benign.head(3))
assert_type(told, Attributions)
assert_type(told.table(0), pd.DataFrame)
assert_type(nfad.__version__, str)
