"""Laws of nfad.windows: repetition, and false alarms of windows."""
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from scipy.stats import binom
from sklearn import metrics as sk

from nfad.windows import WindowScores, draw_window, plot_windows, repetition, score_window, window_findings, window_promise


def place(n, seed): return np.random.default_rng(seed).normal(size=(n, 3))


def own(x): return np.square(x).sum(axis=1)


def law_window(score):
    "False alarms of benign windows keep their rate, and so do alarms for whole windows; at the least calibration that is allowed, and with much."
    for n, c in ((20, 40), (20, 85), (40, 330)):
        draw = lambda number, rng: rng.standard_t(3, size=(number, 2))
        records, windows = window_promise(score, n, c, draw, runs=80, alpha=0.25)
        assert abs(records - 0.25) < 0.06 and windows <= binom.ppf(0.999, 80, 0.25) / 80, (n, c, records, windows)


def test_law_window(): law_window(score_window)


def test_law_window_catches_forgotten_calibration():
    def by_surprise(*args, seed):
        found = score_window(*args, seed=seed)
        return found._replace(p_values=np.exp(-found.scores))
    with pytest.raises(AssertionError): law_window(by_surprise)


def test_law_window_catches_windows_that_overlap():
    "As they were drawn once: at n = 300 and c = 400 a benign window had p <= 0.05 in 45 % of the cases."
    def overlapping(scores, window, benign, known, calibration, seed):
        rows = np.concatenate([np.random.default_rng([seed, i]).permutation(len(known))[:len(window)] for i in range(20)])
        rows = np.concatenate([rows, np.arange(len(known)), np.arange(len(window))])
        return score_window(scores, window, benign, known[rows], calibration[rows], n_windows=20, seed=seed)
    with pytest.raises(AssertionError): law_window(overlapping)


def test_a_crowd_is_found_only_by_its_window():
    history, calibration = place(1500, 0), place(4500, 1)
    x = np.concatenate([place(285, 2), 0.01 * place(15, 3)])
    found, y = score_window(own(x), x, history, own(calibration), calibration), np.arange(300) >= 285
    assert sk.roc_auc_score(y, own(x)) < 0.1 and sk.roc_auc_score(y, found.scores) > 0.9 and found.window_p_value < 0.1


def test_repetition_by_hand():
    window, benign = np.array([[0.0], [0.1], [9.0]]), np.array([[1.0], [2.0], [9.0]])
    assert repetition(window, benign, k=1, resolution=0.1) == pytest.approx(np.log([1.1 / 0.2, 1.0 / 0.2, 0.1 / 9.0]))


def test_windows_refuse():
    x = place(30, 0)
    with pytest.raises(ValueError, match="at least 60"): score_window(own(x), x, x, own(x), x)
    with pytest.raises(ValueError, match="at least 120"): score_window(own(x), x, x, np.tile(own(x), 3), np.tile(x, (3, 1)), n_windows=3)
    with pytest.raises(ValueError, match="k = 40"): repetition(x, x, k=40)
    with pytest.raises(ValueError, match="must have one length"): score_window(own(x), x[:5], x, own(x), x)


def test_a_drawn_window_holds_what_was_asked():
    attack = np.repeat(["benign", "a", "b"], [100, 20, 20])
    for k in (0, 5):
        rows = draw_window(attack, "a", 50, k, [3, k])
        assert len(set(rows)) == 50 and (attack[rows] == "a").sum() == k and (attack[rows] == "b").sum() == 0
        assert np.array_equal(rows, draw_window(attack, "a", 50, k, [3, k]))


def law_findings(findings):
    "Shares of the attacks found alone and in the window, and of benign records flagged."
    y, p = np.array([0, 0, 0, 0, 1, 1]), np.array([0.5, 0.01, 0.3, 0.9, 0.005, 0.01])
    seen = WindowScores(np.zeros(6), p, np.zeros(6), 0.05)
    found = findings(y, np.array([0, 1, 2, 3, 2, 4.0]), seen, 2, 0.01)
    assert found == {"found alone": 0.5, "found in its window": 1.0, "benign flagged": 0.25, "window suspected": 1.0}
    assert findings(0 * y, np.zeros(6), seen, 2, 0.01) == {"benign flagged": 0.5, "window suspected": 1.0}


def test_law_findings(): law_findings(window_findings)


def test_law_findings_catches_strict_p_values():
    def strict(y, scores, seen, threshold, fpr): return window_findings(y, scores, seen, threshold, fpr - 1e-9)
    with pytest.raises(AssertionError): law_findings(strict)


def test_figure_of_windows():
    found = pd.DataFrame({"found alone": [np.nan, 0.2], "found in its window": [np.nan, 0.9]}, index=["benign", "scan"])
    ax = pyplot.subplots()[1]
    assert plot_windows(found) is ax and [text.get_text() for text in ax.get_yticklabels()] == ["scan"]
    pyplot.close("all")
