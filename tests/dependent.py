"""Benign records of seven features that depend on each other, and a density of them: ground for explanations."""
from typing import Callable

import numpy as np
import pandas as pd
import pytest

from nfad.prep import Transform
from nfad.shapley import Background
from nfad.statistics import GaussianSurprise


def dependent_records() -> pd.DataFrame:
    "400 records: a to d are about proportional, e and f are alone, g is constant."
    rng = np.random.default_rng(0)
    base = rng.lognormal(3, 1, size=(400, 1))
    proportional = base * rng.lognormal(0, 0.1, (400, 4)) * np.array([1, 2, 5, 0.5])
    alone = rng.lognormal(0, 1, (400, 2))
    return pd.DataFrame(np.hstack([proportional, alone, np.full((400, 1), 3.0)]), columns=list("abcdefg"))


def surprises(benign: pd.DataFrame) -> Callable:
    "(n, 7) records -> (n, 7) surprises under a Gaussian on the log scale; zero for the constant."
    scale = Transform("log").fit(benign)
    surprise = GaussianSurprise(scale.transform(benign))
    return lambda X: np.hstack([surprise(scale.transform(X)), np.zeros((len(X), 1))])


@pytest.fixture(scope="module")
def benign() -> pd.DataFrame: return dependent_records()


@pytest.fixture(scope="module")
def background(benign) -> Background:
    terms = surprises(benign)
    return Background(lambda X: terms(X).sum(axis=1), benign)
