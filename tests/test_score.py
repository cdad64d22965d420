"""Laws of nfad.score: thresholds, p-values, metrics, figures."""
import json
import re
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot
from scipy.stats import binom
from sklearn import metrics as sk

from nfad import score
from nfad.core import write_json
from nfad.score import (bootstrap_interval, class_metrics, conformal_p_values, decision_metrics, evaluate, flag_batch,
                        fpr_band, mondrian_p_values, plot_classes_found, plot_precision_recall, plot_roc, plot_scores,
                        ranking_metrics, rate_interval, read_train_record, require_same_records, score_table,
                        threshold_at_fpr, threshold_by_tail, threshold_with_confidence, threshold_youden, tpr_at_fpr)
from nfad.windows import repetition, score_window

few = settings(max_examples=60, deadline=None, derandomize=True)
numbers = st.floats(-1e38, 1e38, allow_nan=False)
tied = st.integers(-3, 3).map(float)
arrays = st.lists(st.one_of(numbers, tied), min_size=1, max_size=60).map(np.array)


def labelled(n=400, seed=0, ties=True):
    "Truth and scores that overlap, with many ties."
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    y[:2] = 0, 1
    scores = rng.normal(y, 1.5)
    return y, np.round(scores) if ties else scores


CASES = [labelled(n, seed, ties) for n, seed, ties in ((400, 0, True), (400, 1, False), (2, 2, True), (5, 3, True), (60, 4, False), (999, 5, True))]
CASES += [(np.array([0, 1, 1]), np.array([3.4e38, 3.4e38, 1.0])), (np.array([1, 0, 0, 1]), np.zeros(4)), (np.array([0, 0, 1, 1]), np.array([3.0, 4, 1, 2]))]


# --- thresholds ---------------------------------------------------------------------------------------------

def law_promise(threshold, scores, fpr):
    "An observed score, above which at most a fraction `fpr` of the scores lies; the next lower one would break that."
    t = threshold(scores, fpr)
    assert t in scores and np.mean(scores > t) <= fpr
    lower = scores[scores < t]
    assert not len(lower) or np.mean(scores > lower.max()) > fpr - 1e-9


@few
@given(arrays, st.floats(1e-6, 1 - 1e-6))
def test_law_promise(scores, fpr): law_promise(threshold_at_fpr, scores, fpr)


@pytest.mark.parametrize("m", [1, 2, 3, 7, 10, 29, 49, 100, 1000])
def test_law_promise_at_round_rates(m):
    for k in range(1, min(m, 60)):
        for fpr in (k / m, np.nextafter(k / m, 0), np.nextafter(k / m, 1)):
            if fpr < 1: law_promise(threshold_at_fpr, np.arange(m, dtype=float), float(fpr))


@pytest.mark.parametrize("broken", [lambda s, fpr: np.quantile(s, 1 - fpr), lambda s, fpr: np.sort(s)[-int(fpr * len(s)) - 2],
                                    lambda s, fpr: s.max()])
def test_law_promise_catches(broken):
    with pytest.raises(AssertionError):
        for fpr in (0.013, 0.1, 0.25): law_promise(broken, np.random.default_rng(0).normal(size=97), fpr)


def law_youden(threshold, y, scores):
    "No threshold, used with `>`, has a larger TPR - FPR."
    def gain(t): return np.mean(scores[y == 1] > t) - np.mean(scores[y == 0] > t)
    best = max(gain(t) for t in [-np.inf, *np.unique(scores)])
    assert gain(threshold(y, scores)) == pytest.approx(best, abs=1e-12) and np.isfinite(threshold(y, scores))


@pytest.mark.parametrize("case", range(len(CASES)))
def test_law_youden(case): law_youden(threshold_youden, *CASES[case])


@few
@given(st.lists(st.tuples(st.booleans(), tied), min_size=2, max_size=30))
def test_law_youden_with_ties(pairs):
    y, scores = np.array([p[0] for p in pairs], int), np.array([p[1] for p in pairs])
    y[:2] = 0, 1
    law_youden(threshold_youden, y, scores)


def test_law_youden_catches_at_least():
    def at_least(y, scores):
        fpr, tpr, thresholds = sk.roc_curve(y, scores)
        return thresholds[np.argmax(tpr - fpr)]
    with pytest.raises(AssertionError): law_youden(at_least, *CASES[0])


# --- p-values and intervals ---------------------------------------------------------------------------------

def law_p_values(p_values, scores, calibration):
    "One plus the calibration scores at least as large, over one plus all of them; never rising with the score."
    p = p_values(scores, calibration)
    assert np.allclose(p, [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores], rtol=1e-14)
    order = np.argsort(scores)
    assert (np.diff(p[order]) <= 0).all() and (p > 0).all() and (p <= 1).all()


@few
@given(arrays, arrays)
def test_law_p_values(scores, calibration): law_p_values(conformal_p_values, scores, calibration)


@pytest.mark.parametrize("broken", [lambda s, c: np.array([(1 + sum(c > x)) / (len(c) + 1) for x in s]), lambda s, c: np.array([np.mean(c >= x) for x in s])])
def test_law_p_values_catches(broken):
    with pytest.raises(AssertionError): law_p_values(broken, np.array([0.0, 1, 2, 9]), np.array([0.0, 1, 1, 2]))


def law_super_uniform(p_values):
    "For exchangeable records P(p <= a) <= a, ties included."
    rng = np.random.default_rng(0)
    for m, draw in ((1, rng.normal), (19, rng.normal), (99, rng.normal), (19, lambda size: rng.integers(0, 3, size).astype(float))):
        p = np.array([p_values(draw(size=1), draw(size=m))[0] for _ in range(1500)])
        for a in (0.01, 0.05, 0.1, 0.5, 0.9): assert np.mean(p <= a) <= a + 3.5 * np.sqrt(a * (1 - a) / 1500), (m, a)


def test_law_super_uniform(): law_super_uniform(conformal_p_values)


def test_law_super_uniform_catches_p_values_without_the_record():
    with pytest.raises(AssertionError): law_super_uniform(lambda s, c: np.array([np.mean(c >= x) for x in s]))


def test_small_p_values_and_alarms_agree():
    rng = np.random.default_rng(0)
    calibration, scores = rng.normal(size=199), rng.normal(size=500)
    alarms = conformal_p_values(scores, calibration) <= 0.05
    assert not (alarms & ~(scores > threshold_at_fpr(calibration, 0.05))).any()  # the p-value is the more careful of the two


def law_rate_interval(interval):
    "The two ends are the rates at which the observed count, or one as extreme, has probability 2.5 %."
    for n in (1, 5, 30, 1000):
        for k in {0, 1, n // 3, n - 1, n}:
            low, high = interval(k, n)
            assert 0 <= low <= k / n <= high <= 1
            assert low == 0 if k == 0 else binom.sf(k - 1, n, low) == pytest.approx(0.025, rel=1e-4)
            assert high == 1 if k == n else binom.cdf(k, n, high) == pytest.approx(0.025, rel=1e-4)


def test_law_rate_interval(): law_rate_interval(rate_interval)


def test_law_rate_interval_catches_the_normal_one():
    def normal(k, n):
        half = 1.96 * np.sqrt(k / n * (1 - k / n) / n)
        return max(k / n - half, 0), min(k / n + half, 1)
    with pytest.raises(AssertionError): law_rate_interval(normal)


def law_band_covers(band):
    "For exchangeable benign records the realised rate lies in the band about as often as promised, and the band is not idle."
    rng = np.random.default_rng(0)
    for m, n, fpr in ((200, 500, 0.05), (1000, 300, 0.01), (50, 2000, 0.1), (99, 400, 0.3)):
        low, high = band(m, n, fpr)
        realised = [np.mean(rng.random(n) > threshold_at_fpr(rng.random(m), fpr)) for _ in range(1000)]
        inside = np.mean([(low <= r <= high) for r in realised])
        assert 0.93 < inside < 0.995 and 0 <= low < high <= 1, (m, n, fpr, inside)


def test_law_band_covers(): law_band_covers(fpr_band)


def test_law_band_covers_catches_a_band_without_the_threshold_error():
    def binomial(m, n, fpr): return tuple(np.array(binom.interval(0.95, n, fpr)) / n)
    with pytest.raises(AssertionError): law_band_covers(binomial)


# --- metrics ------------------------------------------------------------------------------------------------

def law_ranking(ranking, y, scores):
    "scikit-learn's figures, signed; a rate of attacks found that a loop over thresholds confirms."
    got = ranking(y, scores)
    assert got["auroc"] == pytest.approx(sk.roc_auc_score(y, scores)) and got["average_precision"] == pytest.approx(sk.average_precision_score(y, scores))
    pairs = (scores[y == 1][:, None] > scores[y == 0]) + 0.5 * (scores[y == 1][:, None] == scores[y == 0])
    assert got["auroc"] == pytest.approx(pairs.mean())
    for fpr in (0.01, 0.001):
        allowed = [t for t in scores[y == 0] if np.mean(scores[y == 0] > t) <= fpr]
        assert got[f"tpr_at_fpr_{fpr}"] == pytest.approx(max(np.mean(scores[y == 1] > t) for t in allowed))


@pytest.mark.parametrize("case", range(len(CASES)))
def test_law_ranking(case): law_ranking(ranking_metrics, *CASES[case])


def test_law_ranking_catches_an_unsigned_auroc():
    def unsigned(y, scores):
        got = ranking_metrics(y, scores)
        return got | {"auroc": max(got["auroc"], 1 - got["auroc"])}
    with pytest.raises(AssertionError): law_ranking(unsigned, *CASES[-1])


def test_auroc_is_signed():
    y, scores = labelled(ties=False)
    assert ranking_metrics(y, -scores)["auroc"] == pytest.approx(1 - ranking_metrics(y, scores)["auroc"])


def law_decisions(decide, y, scores, threshold):
    "scikit-learn's figures of `score > threshold`."
    got, flagged = decide(y, scores, threshold), scores > threshold
    assert got["precision"] == pytest.approx(sk.precision_score(y, flagged, zero_division=0)) and got["recall"] == pytest.approx(sk.recall_score(y, flagged))
    assert got["f1"] == pytest.approx(sk.f1_score(y, flagged, zero_division=0)) and got["accuracy"] == pytest.approx(np.mean(flagged == y))
    assert [got[k] for k in ("true_negatives", "false_positives", "false_negatives", "true_positives")] == sk.confusion_matrix(y, flagged).ravel().tolist()
    assert got["realised_fpr"] == pytest.approx(np.mean(flagged[y == 0])) and got["realised_fpr_low"] <= got["realised_fpr"] <= got["realised_fpr_high"]
    assert got["accuracy_always_attack"] == pytest.approx(y.mean()) == 1 - got["accuracy_never_attack"]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_law_decisions(case):
    y, scores = CASES[case]
    for threshold in (scores.min() - 1, scores.max(), float(np.median(scores)), 0.0): law_decisions(decision_metrics, y, scores, threshold)


def test_law_decisions_catches_at_least():
    y, scores = CASES[0]
    with pytest.raises(AssertionError): law_decisions(lambda y, s, t: decision_metrics(y, s, np.nextafter(t, -np.inf)), y, scores, 0.0)


CLASSES = np.array(["benign", "DoS", "scan", "rare"])


def many_classes(n=600, seed=0):
    "Class names and scores; one class has a single record."
    rng = np.random.default_rng(seed)
    attack = CLASSES[rng.choice(3, n, p=[0.6, 0.3, 0.1])]
    attack[7] = "rare"
    return attack, np.round(rng.normal((attack == "DoS") * 2 - (attack == "scan") * 1.0, 1), 1)


def law_classes(classes, attack, scores):
    "Each row is what the class alone, against all benign records, gives; weakest first."
    table = classes(attack, scores)
    assert set(table.index) == set(attack) - {"benign"} and table["auroc"].is_monotonic_increasing
    for name, row in table.iterrows():
        chosen = np.isin(attack, ["benign", name])
        assert row["n"] == (attack == name).sum()
        for key, value in ranking_metrics((attack[chosen] == name).astype(int), scores[chosen]).items(): assert row[key] == value, (name, key)


def test_law_classes(): law_classes(class_metrics, *many_classes())


def test_law_classes_catches_other_attacks_as_benign():
    def rest(attack, scores):
        table = class_metrics(attack, scores)
        for name in table.index: table.loc[name, "auroc"] = sk.roc_auc_score(attack == name, scores)
        return table.sort_values("auroc")
    with pytest.raises(AssertionError): law_classes(rest, *many_classes())


def test_class_metrics_accepts_series_and_objects():
    attack, scores = many_classes()
    assert class_metrics(pd.Series(attack, dtype=object), pd.Series(scores)).equals(class_metrics(attack, scores))


def test_bootstrap_interval():
    y, scores = labelled(ties=False)
    low, high = bootstrap_interval(sk.roc_auc_score, y, scores, seed=3)
    assert low < sk.roc_auc_score(y, scores) < high and (low, high) == bootstrap_interval(sk.roc_auc_score, y, scores, seed=3)
    assert (low, high) != bootstrap_interval(sk.roc_auc_score, y, scores, seed=4)
    narrow = bootstrap_interval(lambda y, s: s[y == 1].mean(), *labelled(6400, ties=False))
    wide = bootstrap_interval(lambda y, s: s[y == 1].mean(), y, scores)
    assert wide[1] - wide[0] > 2.5 * (narrow[1] - narrow[0])  # 16 times the records, a quarter of the width
    assert bootstrap_interval(lambda y, s: y.mean(), y, scores) == (y.mean(),) * 2  # drawn within the two kinds


KEYS = {"auroc", "average_precision", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001", "macro_auroc", "min_auroc", "per_class", "threshold",
        "realised_fpr", "precision", "recall", "f1", "accuracy", "n_test_benign", "n_test_attack"}


def law_evaluation(evaluate, attack, scores, calibration):
    "All keys that score.json promises, finite, flat but for `per_class`, and consistent with the single functions."
    result = evaluate(attack, scores, calibration, 0.05)
    assert KEYS <= set(result) and json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(isinstance(value, (int, float)) and np.isfinite(value) for key, value in result.items() if key != "per_class")
    assert set(result["per_class"]) == set(attack) - {"benign"} and all({"auroc", "n"} <= set(row) for row in result["per_class"].values())
    aurocs = [row["auroc"] for row in result["per_class"].values()]
    assert result["macro_auroc"] == pytest.approx(np.mean(aurocs)) and result["min_auroc"] == min(aurocs)
    y = (attack != "benign").astype(int)
    assert result["threshold"] == threshold_at_fpr(calibration, 0.05) and result["auroc"] == ranking_metrics(y, scores)["auroc"]
    assert result["realised_fpr"] == np.mean(scores[y == 0] > result["threshold"]) and result["promised_fpr"] == 0.05
    assert (result["n_test_benign"], result["n_test_attack"], result["n_calibration"]) == ((y == 0).sum(), y.sum(), len(calibration))
    assert result["oracle_threshold"] == threshold_youden(y, scores) and result["auroc_low"] <= result["auroc"] <= result["auroc_high"]
    assert all(isinstance(row["n"], int) for row in result["per_class"].values())


@pytest.mark.parametrize("seed", range(3))
def test_law_evaluation(seed): law_evaluation(evaluate, *many_classes(seed=seed), np.random.default_rng(seed).normal(size=150))


def test_law_evaluation_of_huge_and_equal_scores():
    attack, scores = many_classes()
    calibration = np.random.default_rng(0).normal(size=20)
    law_evaluation(evaluate, attack, np.where(scores > 1, 3.4e38, scores), calibration)
    law_evaluation(evaluate, attack, 0 * scores, 0 * calibration)


def test_law_evaluation_catches_a_threshold_from_the_test_records():
    attack, scores = many_classes()
    with pytest.raises(AssertionError): law_evaluation(lambda a, s, c, fpr: evaluate(a, s, s[a == "benign"], fpr), attack, scores, np.random.default_rng(0).normal(size=150))


# --- bad input ----------------------------------------------------------------------------------------------

Y, S = labelled(40)
ATTACK = np.where(Y == 1, "scan", "benign")
NAN, SHORT, EMPTY = np.where(np.arange(40) == 3, np.nan, S), S[:-1], S[:0]
BAD = {
    "fpr of 0": (lambda: threshold_at_fpr(S, 0), "fpr"), "fpr of 1": (lambda: threshold_at_fpr(S, 1.0), "fpr"),
    "fpr NaN": (lambda: threshold_at_fpr(S, float("nan")), "fpr"), "fpr in percent": (lambda: tpr_at_fpr(Y, S, 5), "fpr"),
    "band at fpr 0": (lambda: fpr_band(100, 100, 0), "fpr"), "evaluate at fpr 2": (lambda: evaluate(ATTACK, S, S, 2), "fpr"),
    "table at fpr 2": (lambda: score_table(np.arange(40), ATTACK, S, S, 2), "fpr"),
    "band of no calibration records": (lambda: fpr_band(0, 10), "m"), "band of no test records": (lambda: fpr_band(10, 0), "n"),
    "rate of no trials": (lambda: rate_interval(0, 0), "n"), "more events than trials": (lambda: rate_interval(3, 2), "k"),
    "confidence of 95": (lambda: rate_interval(1, 2, 95), "confidence"), "confidence of a band": (lambda: fpr_band(10, 10, 0.1, 1.5), "confidence"),
    "threshold of NaN": (lambda: threshold_at_fpr(NAN), "scores"), "threshold of nothing": (lambda: threshold_at_fpr(EMPTY), "scores"),
    "threshold of a table": (lambda: threshold_at_fpr(S.reshape(8, 5)), "scores"), "p-values of NaN": (lambda: conformal_p_values(NAN, S), "scores"),
    "p-values from nothing": (lambda: conformal_p_values(S, EMPTY), "calibration"), "p-values from NaN": (lambda: conformal_p_values(S, NAN), "calibration"),
    **{f"{f.__name__} {what}": ((lambda f=f, y=y, s=s: f(y, s)), name) for f in (threshold_youden, ranking_metrics, tpr_at_fpr, plot_scores, plot_roc, plot_precision_recall)
       for what, y, s, name in (("NaN", Y, NAN, "scores"), ("lengths", Y, SHORT, "scores"), ("one kind", 0 * Y, S, "y"), ("nothing", Y[:0], EMPTY, "scores"),
                                ("names", ATTACK, S, "y"), ("fractions", Y + 0.4, S, "y"), ("a third kind", np.where(Y, 2, 0), S, "y"), ("NaN truth", np.where(Y, np.nan, 0), S, "y"))},
    "decision lengths": (lambda: decision_metrics(Y, SHORT, 0.0), "scores"), "decision at NaN": (lambda: decision_metrics(Y, S, float("nan")), "threshold"),
    "classes of other length": (lambda: class_metrics(ATTACK, SHORT), "attack"), "no attack": (lambda: class_metrics(np.full(40, "benign"), S), "attack"),
    "no benign": (lambda: class_metrics(np.full(40, "scan"), S), "benign"), "evaluate lengths": (lambda: evaluate(ATTACK, SHORT, S), "scores"),
    "evaluate NaN": (lambda: evaluate(ATTACK, NAN, S), "scores"), "evaluate without calibration": (lambda: evaluate(ATTACK, S, EMPTY), "calibration"),
    "evaluate calibration NaN": (lambda: evaluate(ATTACK, S, NAN), "calibration"),
    "table lengths": (lambda: score_table(np.arange(39), ATTACK, S, S), "rows|length"), "table NaN": (lambda: score_table(np.arange(40), ATTACK, NAN, S), "scores"),
    "bootstrap lengths": (lambda: bootstrap_interval(sk.roc_auc_score, Y, SHORT), "scores"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_named(kind):
    call, name = BAD[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=rf"\b({name})\b"): call()
    assert not pyplot.get_fignums()  # a refused figure is not left open


# --- tables and records -------------------------------------------------------------------------------------

def law_table(table, rows, attack, scores, calibration):
    "One line per record, most anomalous first, that repeats what the single functions say."
    got = table(rows, attack, scores, calibration, 0.1)
    assert list(got) == ["row", "attack", "anomaly_score", "p_value", "is_anomaly"] and sorted(got.row) == sorted(rows)
    assert got.anomaly_score.is_monotonic_decreasing and list(got.index) == list(range(len(rows)))
    place = pd.Series(np.arange(len(rows)), index=rows)[got.row].to_numpy()
    assert np.array_equal(got.anomaly_score, scores[place]) and np.array_equal(got.attack.astype(str), attack[place])
    assert np.array_equal(got.p_value, conformal_p_values(scores, calibration)[place])
    assert np.array_equal(got.is_anomaly, (scores > threshold_at_fpr(calibration, 0.1))[place])


def test_law_table(tmp_path):
    attack, scores = many_classes(80)
    args = np.random.default_rng(0).permutation(1000)[:80], attack, scores, np.random.default_rng(1).normal(size=30)
    law_table(score_table, *args)
    score_table(*args).to_parquet(tmp_path / "scores.parquet")
    assert pd.read_parquet(tmp_path / "scores.parquet").equals(score_table(*args))


def test_law_table_catches_columns_sorted_apart():
    attack, scores = many_classes(80)
    def apart(rows, *rest): return score_table(rows, *rest).assign(row=rows)
    with pytest.raises(AssertionError): law_table(apart, np.arange(80), attack, scores, scores[:30])


def test_train_record(tmp_path):
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=re.escape("papermill me")): read_train_record(tmp_path, "papermill me")
        write_json(tmp_path / "train.json", {"fingerprint": "x"})  # the record alone is a run that did not finish
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert read_train_record(str(tmp_path), "papermill me") == {"fingerprint": "x"}
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(ValueError, match="train.json"): read_train_record(tmp_path, "papermill me")


def test_same_records():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    record = {"fingerprint": score.fingerprint(frame)}
    require_same_records(frame.copy(), record)
    for other in (frame[::-1], frame[["b", "a"]], frame + 1e-9, frame[:1], frame.rename(columns={"a": "c"})):
        with pytest.raises(ValueError, match="fingerprint.*train again"): require_same_records(other, record)


# --- figures ------------------------------------------------------------------------------------------------

def shapes():
    "Scores that figures meet: usual, one benign record, one attack, equal, huge with ties, tiny differences."
    y, scores = labelled(300, ties=False)
    return {"usual": (y, scores), "two records": (np.array([0, 1]), np.array([1.0, 2.0])), "one attack": (np.arange(30) == 3, np.arange(30.0)),
            "equal": (y, np.zeros(300)), "huge": (y, np.where(scores > 1.5, 3.4e38, scores)), "wide": (y, scores * 1e30), "close": (y, 1 + 1e-9 * scores)}


@pytest.fixture
def strict():
    "Every warning is an error, and every figure is drawn and closed."
    pyplot.close("all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        for number in pyplot.get_fignums(): pyplot.figure(number).canvas.draw()
    pyplot.close("all")


@pytest.mark.parametrize("shape", shapes())
def test_figures_of_scores(shape, strict):
    y, scores = shapes()[shape]
    for threshold in (None, float(np.median(scores))): assert "score" in plot_scores(y, scores, threshold).get_xlabel()
    assert plot_roc(y, scores).get_xscale() == "log" and plot_precision_recall(y, scores).get_xlabel().startswith("recall")
    both = plot_roc(y, {"flow": scores, "other": -scores})
    assert len(both.get_legend().get_texts()) == 3 and both is plot_roc(y, scores, both)


@pytest.mark.parametrize("n_classes", [1, 2, 15])
def test_figure_of_classes(n_classes, strict):
    attack = np.array(["benign"] * 50 + [f"class {i}" for i in range(n_classes) for _ in range(4)])
    classes = class_metrics(attack, np.random.default_rng(0).normal(size=len(attack)) + (attack != "benign"))
    axes = plot_classes_found(classes)
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{name} (4)" for name in classes.index]
    assert plot_classes_found(classes, axes) is axes


def test_figures_leave_their_input_alone(strict):
    y, scores = labelled(50)
    before = y.copy(), scores.copy()
    plot_scores(y, scores, 0.0), plot_roc(y, scores), plot_precision_recall(y, scores)
    assert np.array_equal(before[0], y) and np.array_equal(before[1], scores)


# --- more promises ------------------------------------------------------------------------------------------

def law_confidence(threshold, m=400, fpr=0.02, confidence=0.9):
    "The true rate of the threshold is above `fpr` in at most 1 - confidence of the draws, and is not far below it."
    rng = np.random.default_rng(0)
    true = np.array([1 - threshold(rng.uniform(size=m), fpr, confidence) for _ in range(1500)])
    assert np.mean(true > fpr) <= 1 - confidence + 0.02 and true.mean() > fpr / 3


def test_law_confidence(): law_confidence(threshold_with_confidence)


@pytest.mark.parametrize("wrong", [lambda s, fpr, confidence: threshold_at_fpr(s, fpr), lambda s, fpr, confidence: s.max()])
def test_law_confidence_catches(wrong):
    with pytest.raises(AssertionError): law_confidence(wrong)


@pytest.mark.parametrize("fpr, m", [(0.01, 299), (0.05, 59), (0.001, 2995)])
def test_how_many_records_confidence_needs(fpr, m):
    assert threshold_with_confidence(np.arange(float(m)), fpr) == m - 1
    with pytest.raises(ValueError, match=f"at least {m}"): threshold_with_confidence(np.arange(m - 1.0), fpr)


def law_within_groups(p_values):
    "Within every group, large or small, benign records have p <= 0.1 in about a tenth of the draws."
    rng, small = np.random.default_rng(0), []
    for _ in range(60):
        groups, known = (rng.choice(["a", "b", "c", "d"], p=[0.5, 0.44, 0.03, 0.03], size=n) for n in (800, 800))
        spread = {"a": 1, "b": 20, "c": 5, "d": 5}
        scores, calibration = (rng.normal(size=800) * [spread[g] for g in which] for which in (groups, known))
        p = p_values(scores, groups, calibration, known)
        small.append([np.mean(p[np.isin(groups, g)] <= 0.1) for g in (["a"], ["b"], ["c", "d"])])
    assert np.allclose(np.mean(small, axis=0), 0.1, atol=0.025)


def test_law_within_groups(): law_within_groups(lambda *a: mondrian_p_values(*a, minimum=40))


def test_law_within_groups_catches_a_common_calibration():
    with pytest.raises(AssertionError): law_within_groups(lambda scores, groups, calibration, known: conformal_p_values(scores, calibration))


def test_groups_never_seen_use_all_records():
    p = mondrian_p_values(np.array([5.0]), np.array(["new"]), np.arange(100.0), np.repeat(["a", "b"], 50))
    assert p == conformal_p_values(np.array([5.0]), np.arange(100.0))


def law_false_discoveries(flag):
    "The mean share of benign records among the flagged is at most a tenth, and most attacks are flagged."
    rng, wrong, found = np.random.default_rng(0), [], []
    for _ in range(200):
        p = conformal_p_values(np.concatenate([rng.normal(size=180), rng.normal(5, 1, size=20)]), rng.normal(size=3000))
        flagged = flag(p, 0.1)
        wrong.append(flagged[:180].sum() / max(flagged.sum(), 1)), found.append(flagged[180:].mean())
    assert np.mean(wrong) <= 0.105 and np.mean(found) > 0.5


def test_law_false_discoveries(): law_false_discoveries(flag_batch)


def test_law_false_discoveries_catches_plain_p_values():
    with pytest.raises(AssertionError): law_false_discoveries(lambda p, fdr: p <= fdr)


def test_tail_threshold_joins_the_empirical_one():
    scores = np.random.default_rng(0).exponential(size=500)
    assert threshold_by_tail(scores, 0.01) == threshold_at_fpr(scores, 0.01)
    rare = [threshold_by_tail(scores, 10.0 ** -k) for k in range(2, 9)]
    assert (np.diff(rare) > 0).all() and rare[1] >= scores.max()


# --- windows ------------------------------------------------------------------------------------------------

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
