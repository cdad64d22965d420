"""Laws of nfad.metrics: rankings, classes, decisions, intervals, figures."""
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot
from scipy.stats import binom
from sklearn import metrics as sk

from nfad.core import write_json
from nfad.metrics import (auroc_of_ranks, bootstrap_interval, class_metrics, collect_scores, decision_metrics, explained,
                          overall_metrics, plot_classes_found, plot_precision_recall, plot_roc, plot_scores, ranking_metrics,
                          rate_interval, score_table, threshold_youden, tpr_at_fpr, youden_decisions)
from nfad.score import conformal_p_values, threshold_at_fpr

few = settings(max_examples=60, deadline=None, derandomize=True)
tied = st.integers(-3, 3).map(float)


def labelled(n=400, seed=0, ties=True):
    "Truth and scores that overlap, with many ties."
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    y[:2] = 0, 1
    scores = rng.normal(y, 1.5)
    return y, np.round(scores) if ties else scores


SIZES = (400, True), (400, False), (2, True), (5, True), (60, False), (999, True)  # records, and whether many scores tie
CASES = [labelled(n, seed, ties) for seed, (n, ties) in enumerate(SIZES)]
CASES += [(np.array([0, 1, 1]), np.array([3.4e38, 3.4e38, 1.0])), (np.array([1, 0, 0, 1]), np.zeros(4))]
CASES += [(np.array([0, 0, 1, 1]), np.array([3.0, 4, 1, 2]))]  # the wrong way round


# --- rankings and classes -------------------------------------------------------------------------------------

def law_ranking(ranking, y, scores):
    "scikit-learn's figures, signed; a rate of attacks found that a loop over thresholds confirms."
    got = ranking(y, scores)
    assert got["auroc"] == pytest.approx(sk.roc_auc_score(y, scores))
    assert got["average_precision"] == pytest.approx(sk.average_precision_score(y, scores))
    pairs = (scores[y == 1][:, None] > scores[y == 0]) + 0.5 * (scores[y == 1][:, None] == scores[y == 0])
    assert got["auroc"] == pytest.approx(pairs.mean())
    for fpr in (0.01, 0.001):
        allowed = [t for t in scores[y == 0] if np.mean(scores[y == 0] > t) <= fpr]
        assert got[f"tpr_at_fpr_{fpr}"] == pytest.approx(max(np.mean(scores[y == 1] > t) for t in allowed))


def law_height_of_the_curve(tpr, y, scores):
    "The share of attacks above the threshold that promises the rate on the benign records themselves, to the bit."
    for fpr in (0.001, 0.01, 0.05, 0.2, 1 / 3, 0.5):
        assert tpr(y, scores, fpr) == np.mean(scores[y == 1] > threshold_at_fpr(scores[y == 0], fpr)), fpr


@pytest.mark.parametrize("case", range(len(CASES)))
def test_law_height_of_the_curve(case): law_height_of_the_curve(tpr_at_fpr, *CASES[case])


@few
@given(st.lists(st.tuples(st.booleans(), tied), min_size=2, max_size=30))
def test_law_height_of_the_curve_with_ties(pairs):
    y, scores = np.array([p[0] for p in pairs], int), np.array([p[1] for p in pairs])
    y[:2] = 0, 1
    law_height_of_the_curve(tpr_at_fpr, y, scores)


def test_law_height_of_the_curve_catches_interpolation():
    def between(y, scores, fpr): return np.interp(fpr, *sk.roc_curve(y, scores)[:2])
    with pytest.raises(AssertionError): law_height_of_the_curve(between, *CASES[0])


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
    assert got["precision"] == pytest.approx(sk.precision_score(y, flagged, zero_division=0))
    assert got["recall"] == pytest.approx(sk.recall_score(y, flagged))
    assert got["f1"] == pytest.approx(sk.f1_score(y, flagged, zero_division=0)) and got["accuracy"] == pytest.approx(np.mean(flagged == y))
    counts = [got[k] for k in ("true_negatives", "false_positives", "false_negatives", "true_positives")]
    assert counts == sk.confusion_matrix(y, flagged).ravel().tolist()
    assert got["realised_fpr"] == pytest.approx(np.mean(flagged[y == 0]))
    assert got["realised_fpr_low"] <= got["realised_fpr"] <= got["realised_fpr_high"]
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
        alone = ranking_metrics((attack[chosen] == name).astype(int), scores[chosen])
        for key, value in alone.items(): assert row[key] == value, (name, key)


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


# --- thresholds and intervals ---------------------------------------------------------------------------------

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


# --- figures ------------------------------------------------------------------------------------------------

def shapes():
    "Scores that figures meet: usual, one benign record, one attack, equal, huge with ties, tiny differences."
    y, scores = labelled(300, ties=False)
    return {"usual": (y, scores), "equal": (y, np.zeros(300)), "huge": (y, np.where(scores > 1.5, 3.4e38, scores)),
            "wide": (y, scores * 1e30), "close": (y, 1 + 1e-9 * scores),
            "two records": (np.array([0, 1]), np.array([1.0, 2.0])), "one attack": (np.arange(30) == 3, np.arange(30.0))}


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
    axes = pyplot.subplots(1, 5)[1]
    for ax, threshold in zip(axes[:2], (None, float(np.median(scores))), strict=True):
        assert "score" in plot_scores(y, scores, threshold, ax).get_xlabel()
    assert plot_roc(y, scores, axes[2]).get_xscale() == "log"
    assert plot_precision_recall(y, scores, axes[3]).get_xlabel().startswith("recall")
    both = plot_roc(y, {"flow": scores, "other": -scores}, axes[4])
    assert len(both.get_legend().get_texts()) == 3 and both is plot_roc(y, scores)  # None: the current Axes, the last


@pytest.mark.parametrize("n_classes", [1, 2, 15])
def test_figure_of_classes(n_classes, strict):
    attack = np.array(["benign"] * 50 + [f"class {i}" for i in range(n_classes) for _ in range(4)])
    classes = class_metrics(attack, np.random.default_rng(0).normal(size=len(attack)) + (attack != "benign"))
    axes = plot_classes_found(classes)
    assert axes is pyplot.gca()
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{name} (4)" for name in classes.index]
    assert plot_classes_found(classes, axes) is axes


def test_figures_leave_their_input_alone(strict):
    y, scores = labelled(50)
    before = y.copy(), scores.copy()
    for plot, ax in zip((plot_scores, plot_roc, plot_precision_recall), pyplot.subplots(1, 3)[1], strict=True): plot(y, scores, ax=ax)
    assert np.array_equal(before[0], y) and np.array_equal(before[1], scores)




# --- runs side by side --------------------------------------------------------------------------------------

def test_runs_side_by_side(tmp_path):
    for name, auroc in (("b", 0.9), ("a", 0.8)): write_json(tmp_path / name / "all" / "score.json", {"auroc": auroc, "f1": 1.0})
    table = collect_scores(tmp_path, ["auroc", "absent"])
    assert list(table.index) == [("a", "all"), ("b", "all")] and table["auroc"].tolist() == [0.8, 0.9] and table["absent"].isna().all()
    assert {"auroc", "realised_fpr", "fpr_band_high", "auroc_without_constants"} <= set(collect_scores(tmp_path))
    with pytest.raises(FileNotFoundError, match="papermill nbs/04_score"): collect_scores(tmp_path / "none")


# --- the engine room ----------------------------------------------------------------------------------------

def law_auroc_of_ranks(auroc, y, scores):
    "The plain definition: pairs in the right order, ties counting half."
    assert auroc(y, np.unique(scores, return_inverse=True)[1]) == pytest.approx(sk.roc_auc_score(y, scores), abs=1e-12)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_law_auroc_of_ranks(case): law_auroc_of_ranks(auroc_of_ranks, *CASES[case])


def test_law_auroc_of_ranks_catches_ties_that_count_whole():
    with pytest.raises(AssertionError): law_auroc_of_ranks(lambda y, ranks: auroc_of_ranks(y, 2 * ranks - y), *CASES[0])


# --- what score.json says ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", range(len(CASES)))
def test_youden_decisions_are_those_at_youdens_threshold(case):
    y, scores = CASES[case]
    known, known_scores = labelled(80, seed=9)
    decided = decision_metrics(y, scores, threshold_youden(known, known_scores))
    found = youden_decisions(y, scores, known, known_scores, "youden")
    assert found["youden_recall"] == decided["recall"] and found == {f"youden_{key[7:]}": decided[key[7:]] for key in found}


def test_every_figure_is_explained_beside_its_value():
    result = overall_metrics(*many_classes(), threshold=1.0)
    table = explained(result)
    assert list(table) == ["value", "meaning"] and len(table) == 9 and table["meaning"].str.len().min() > 10
    assert all(table.loc[key, "value"] == result[key] for key in table.index)
    with pytest.raises(KeyError): explained({key: result[key] for key in result if key != "recall"})


# --- tables and records -------------------------------------------------------------------------------------

def table_at(attack, scores, rows, calibration):
    return score_table(attack, scores, rows, conformal_p_values(scores, calibration), scores > threshold_at_fpr(calibration, 0.1))


def law_table(table, attack, scores, rows, calibration):
    "One line per record, most anomalous first, that repeats what the single functions say."
    got = table(attack, scores, rows, calibration)
    assert list(got) == ["row", "attack", "anomaly_score", "p_value", "is_anomaly"] and sorted(got.row) == sorted(rows)
    assert got.anomaly_score.is_monotonic_decreasing and list(got.index) == list(range(len(rows)))
    place = pd.Series(np.arange(len(rows)), index=rows)[got.row].to_numpy()
    assert np.array_equal(got.anomaly_score, scores[place]) and np.array_equal(got.attack.astype(str), attack[place])
    assert np.array_equal(got.p_value, conformal_p_values(scores, calibration)[place])
    assert np.array_equal(got.is_anomaly, (scores > threshold_at_fpr(calibration, 0.1))[place])


def test_law_table(tmp_path):
    attack, scores = many_classes(80)
    args = attack, scores, np.random.default_rng(0).permutation(1000)[:80], np.random.default_rng(1).normal(size=30)
    law_table(table_at, *args)
    table_at(*args).to_parquet(tmp_path / "scores.parquet")
    assert pd.read_parquet(tmp_path / "scores.parquet").equals(table_at(*args))


def test_law_table_catches_columns_sorted_apart():
    attack, scores = many_classes(80)
    def apart(attack, scores, rows, *rest): return table_at(attack, scores, rows, *rest).assign(row=rows)
    with pytest.raises(AssertionError): law_table(apart, attack, scores, np.arange(80), scores[:30])


# --- bad input ----------------------------------------------------------------------------------------------

Y, S = labelled(40)
ATTACK = np.where(Y == 1, "scan", "benign")
NAN, SHORT, EMPTY = np.where(np.arange(40) == 3, np.nan, S), S[:-1], S[:0]
BAD_TRUTH = {
    "NaN": (Y, NAN, "scores"), "lengths": (Y, SHORT, "scores"), "one kind": (0 * Y, S, "y"), "nothing": (Y[:0], EMPTY, "scores"),
    "names": (ATTACK, S, "y"), "fractions": (Y + 0.4, S, "y"), "a third kind": (np.where(Y, 2, 0), S, "y"),
    "NaN truth": (np.where(Y, np.nan, 0), S, "y")}
BAD = {
    "fpr in percent": (lambda: tpr_at_fpr(Y, S, 5), "fpr"), "fpr NaN": (lambda: tpr_at_fpr(Y, S, float("nan")), "fpr"),
    "rate of no trials": (lambda: rate_interval(0, 0), "n"), "more events than trials": (lambda: rate_interval(3, 2), "k"),
    "confidence of 95": (lambda: rate_interval(1, 2, 95), "confidence"),
    "decision lengths": (lambda: decision_metrics(Y, SHORT, 0.0), "scores"),
    "decision at NaN": (lambda: decision_metrics(Y, S, float("nan")), "threshold"),
    "classes of other length": (lambda: class_metrics(ATTACK, SHORT), "attack"),
    "no attack": (lambda: class_metrics(np.full(40, "benign"), S), "attack"),
    "no benign": (lambda: class_metrics(np.full(40, "scan"), S), "benign"),
    "table lengths": (lambda: score_table(ATTACK, S, np.arange(39), S, Y == 1), "rows|length"),
    "table NaN": (lambda: score_table(ATTACK, NAN, np.arange(40), S, Y == 1), "scores"),
    "bootstrap lengths": (lambda: bootstrap_interval(sk.roc_auc_score, Y, SHORT), "scores"),
}


def refuses(call, name):
    "A ValueError that names the argument, without a warning, and no figure left open."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=rf"\b({name})\b"): call()
    assert not pyplot.get_fignums()


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_named(kind): refuses(*BAD[kind])


@pytest.mark.parametrize("kind", BAD_TRUTH)
@pytest.mark.parametrize("of", [threshold_youden, ranking_metrics, tpr_at_fpr, plot_scores, plot_roc, plot_precision_recall])
def test_bad_truth_is_named(of, kind):
    y, scores, name = BAD_TRUTH[kind]
    refuses(lambda: of(y, scores), name)
