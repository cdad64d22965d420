"""Laws of nfad.pairs: the picture shows test records, and says why a row is empty."""
import numpy as np
import pandas as pd
from matplotlib import pyplot

from nfad import pairs
from nfad.pairs import has_pairs, plot_pairs
from nfad.prep import PAPER_PAIRS

NAMES = [name for pair in PAPER_PAIRS.values() for name in pair]


class Quick(pairs.FlowDetector):
    "Trains for two epochs."
    def __init__(self, hidden=4, epochs=2, seed=0): super().__init__(hidden=4, epochs=2, seed=seed)


def records(n, seed): return pd.DataFrame(np.random.default_rng(seed).exponential(size=(n, 4)), columns=NAMES)


def test_all_features_must_be_there():
    assert has_pairs(records(3, 0).assign(more=1)) and not any(has_pairs(records(3, 0).drop(columns=name)) for name in NAMES)


def test_picture_of_test_records_and_of_a_constant(monkeypatch):
    monkeypatch.setattr(pairs, "FlowDetector", Quick)
    axes = pyplot.subplots(2, 3)[1]
    train, test = records(120, 0).assign(**{NAMES[2]: 7.0}), records(40, 1)
    assert plot_pairs(np.arange(40) >= 30, test, train, axes) is axes
    assert axes[0, 0].get_title() == "discriminative" and axes[0, 2].get_xscale() == "log"
    points = sum(len(drawn.get_offsets()) for drawn in axes[0, 0].collections if len(drawn.get_offsets()) in (30, 10))
    assert points == 40 and NAMES[2] in axes[1, 0].get_title() and not axes[1, 2].lines
    pyplot.close("all")
