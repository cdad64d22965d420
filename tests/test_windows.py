"""Laws of nfad.windows: repetition, and false alarms of windows."""
from functools import partial

import numpy as np
import pytest
from sklearn import metrics as sk

from nfad.windows import repetition, score_window


def place(n, seed): return np.random.default_rng(seed).normal(size=(n, 3))


def own(x): return np.square(x).sum(axis=1)


def law_window(score):
    "False alarms of benign windows keep their rate, and so do alarms for whole windows."
    history, rates, whole = place(500, 0), [], []
    for seed in range(40):
        x, calibration = place(150, 100 + seed), place(400, 200 + seed)
        found = score(own(x), x, history, own(calibration), calibration)
        rates.append(np.mean(found.p_values <= 0.05)), whole.append(found.window_p_value)
    assert abs(np.mean(rates) - 0.05) < 0.015 and np.mean(np.array(whole) <= 0.1) <= 0.3


def test_law_window(): law_window(partial(score_window, n_windows=10))


def test_law_window_catches_forgotten_calibration():
    with pytest.raises(AssertionError): law_window(lambda scores, *a: (r := score_window(scores, *a, n_windows=2))._replace(p_values=np.exp(-r.scores)))


def test_a_crowd_is_found_only_by_its_window():
    history, calibration = place(1500, 0), place(1200, 1)
    x = np.concatenate([place(285, 2), 0.01 * place(15, 3)])
    found, y = score_window(own(x), x, history, own(calibration), calibration), np.arange(300) >= 285
    assert sk.roc_auc_score(y, own(x)) < 0.1 and sk.roc_auc_score(y, found.scores) > 0.9 and found.window_p_value < 0.1


def test_repetition_by_hand():
    window, benign = np.array([[0.0], [0.1], [9.0]]), np.array([[1.0], [2.0], [9.0]])
    assert repetition(window, benign, k=1, resolution=0.1) == pytest.approx(np.log([1.1 / 0.2, 1.0 / 0.2, 0.1 / 9.0]))


def test_windows_refuse():
    x = place(30, 0)
    with pytest.raises(ValueError, match="at least 30"): score_window(own(x), x, x, own(x[:20]), x[:20])
    with pytest.raises(ValueError, match="k = 40"): repetition(x, x, k=40)
    with pytest.raises(ValueError, match="one length"): score_window(own(x), x[:5], x, own(x), x)
