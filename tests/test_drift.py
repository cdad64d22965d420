"""Laws of the comparison with the calibration: the same kind of records is no drift, another kind is, attacks are not."""
import numpy as np
import pandas as pd
import pytest

from nfad.drift import _among_many, compare_batch, compare_window, drift_note, drift_warning, judge_windows, ks_test, make_reference
from nfad.seen import remember
from nfad.serving import LoadedModel, load_model
from nights import small_detector, strange, traffic


@pytest.fixture(scope="module")
def model() -> LoadedModel: return load_model(small_detector(), reference=traffic(800, 3))


def law_drift(judge, model):
    "New benign records of the same kind raise no warning; a changed kind does, in the score or in a feature."
    for seed in range(6):
        same = traffic(4000, 100 + seed).to_numpy()
        assert not judge(same).any(), seed
    for change in ([5, 1, 1, 1], [1, 1, 1, 4]): assert judge(traffic(4000, 7).to_numpy() * change).all(), change


def judged(model, X, **options):
    "Windows of 1,000 records, compared and judged."
    found = compare_batch(model.reference, model.detector.anomaly_score(X), X, window=1000)
    return judge_windows(found, model.reference, **options)


def judge_with(model, **options): return lambda X: judged(model, X, **options)["drifted"]


def test_law_drift(model): law_drift(judge_with(model), model)


def test_law_drift_catches_a_careless_and_a_blind_judge(model):
    with pytest.raises(AssertionError): law_drift(judge_with(model, alpha=0.999, least=1e-6), model)
    with pytest.raises(AssertionError): law_drift(judge_with(model, least=0.99), model)


def test_attacks_are_not_drift(model):
    mixed = np.concatenate([traffic(3600, 8).to_numpy(), strange(400, 9).to_numpy()])
    windows = judged(model, mixed[np.random.default_rng(0).permutation(4000)])
    assert not windows["drifted"].any() and (windows["alarm_rate"] > windows["alarm_limit"]).all()


# ---------------------------------------------------------------- edges

def gaussian_reference(**options):
    "A reference of scores 0 to 999, of which those above 989 are alarms."
    return make_reference(np.arange(1000.0), 989.0, 0.01, **options)


def law_distance(distance):
    "The distance is the largest gap between two distribution functions."
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.normal(size=rng.integers(5, 60)), rng.normal(rng.uniform(-2, 2), size=rng.integers(5, 60))
        at = np.concatenate([a, b])
        gap = np.abs((a[:, None] <= at).mean(axis=0) - (b[:, None] <= at).mean(axis=0)).max()
        assert distance(a, b) == pytest.approx(gap)


def test_law_distance(): law_distance(lambda a, b: ks_test(a, b)[0])


def law_chance_of_a_distance(test):
    "The p-value is scipy's, within three hundredths; that of samples of one distribution is rarely small."
    from scipy.stats import ks_2samp
    rng = np.random.default_rng(0)
    for n, m in ((20, 300), (200, 1000), (900, 4000)):
        for shift in (0, 0.05, 0.1, 0.3):
            a, b = rng.normal(size=n).round(1), rng.normal(shift, size=m).round(1)
            assert test(a, b)[1] == pytest.approx(ks_2samp(a, b, method="asymp").pvalue, abs=0.03)
    assert 0.02 < np.mean([test(rng.random(100), rng.random(500))[1] <= 0.05 for _ in range(2000)]) < 0.06


def test_law_chance_of_a_distance(): law_chance_of_a_distance(ks_test)


def test_law_chance_of_a_distance_catches_the_size_of_one_sample():
    def one(a, b):
        distance = ks_test(a, b)[0]
        return distance, float(np.clip(2 * np.exp(-2 * len(b) * distance ** 2), 0, 1))
    with pytest.raises(AssertionError): law_chance_of_a_distance(one)


def law_discoveries(shares):
    "The shares are those of Benjamini and Hochberg."
    from scipy.stats import false_discovery_control
    rng = np.random.default_rng(1)
    for n in (1, 2, 50):
        p = rng.choice(rng.random(n) ** 4, n)
        np.testing.assert_allclose(np.minimum(shares(p), 1), false_discovery_control(p), rtol=1e-12)


def test_law_discoveries(): law_discoveries(_among_many)


def test_law_discoveries_catches_bonferroni():
    with pytest.raises(AssertionError): law_discoveries(lambda p: p * len(p))


def test_law_distance_catches_means():
    with pytest.raises(AssertionError): law_distance(lambda a, b: abs(a.mean() - b.mean()))


def test_a_window_without_calm_records_has_changed():
    window = compare_window(gaussian_reference(), np.full(500, 2000.0), np.zeros((500, 1)))
    assert (window["score_distance"], window["score_p"], window["alarm_rate"]) == (1.0, 0.0, 1.0)


def test_rows_are_numbered_and_bad_ones_left_out():
    scores, X = np.tile(np.arange(1000.0), 3), np.zeros((3000, 1))
    scores[1000:1900] = np.nan  # 100 rows are left in the second window: too few
    windows = compare_batch(gaussian_reference(), scores, X, first_row=70_000, window=1000)
    assert [(w["first_row"], w["n"]) for w in windows] == [(70_000, 1000), (72_000, 1000)]


def test_no_windows_are_no_drift():
    table = judge_windows([], gaussian_reference())
    assert table.empty and table["drifted"].sum() == 0 and drift_warning(table, 0.01) == ""
    assert drift_note(table, gaussian_reference()) == "drift cannot be judged: no stretch of 200 records with a score"


def test_the_reference_is_calm():
    records = np.arange(100.0)[:, None]
    reference = gaussian_reference(names=["x"], records=records, scores=np.arange(930.0, 1030.0))
    assert len(reference.scores) == 990 and reference.n_calibration == 1000 and len(reference.records) == 60
    few = gaussian_reference(names=["x"], records=records, scores=np.arange(981.0, 1081.0))
    assert few.records is None and len(few.scores) == 990 and few.lacking.startswith("drift is judged by the score alone: 9 calm records")


@pytest.mark.parametrize("m", [1, 9, 49])
def test_few_calibration_records_cannot_tell(m):
    reference = make_reference(np.arange(float(m)), m - 1.0, 0.01)
    for scores in (np.arange(1000.0), np.full(1000, 1e6)):
        judged = judge_windows(compare_batch(reference, scores, np.zeros((1000, 1))), reference)
        assert drift_warning(judged, 0.01) == "" and drift_note(judged, reference).startswith(f"drift cannot be judged: {m} calm")


# ---------------------------------------------------------------- records that the model was made from

def nearest(X: np.ndarray, training: np.ndarray) -> np.ndarray: return np.linalg.norm(X[:, None] - training, axis=2).min(axis=1)


def law_in_sample(seen_by):
    "Training records raise no warning and are named; other records beside them, of the same kind or another, are judged as ever."
    rng = np.random.default_rng(0)
    training, calibration, fresh = rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2))
    scores = nearest(calibration, training)
    threshold = float(np.quantile(scores, 0.99))
    reference = make_reference(scores, threshold, 0.01, "ab", calibration, scores, seen_by(training))
    def judge(*parts):
        X = rng.permutation(np.concatenate(parts))
        found = judge_windows(compare_batch(reference, nearest(X, training), X), reference)
        assert len(found) == 1
        return drift_warning(found, 0.01), drift_note(found, reference)
    assert judge(training) == ("", "1,000 of 1,000 records are ones that the model was made from: they are scored as always, and say nothing about drift")
    assert judge(fresh) == ("", "")
    warning, note = judge(training, fresh[:500])
    assert warning == "" and note.startswith("1,000 of 1,500")
    assert "recalibrate" in judge(training[:600], fresh + [0.7, 0])[0] and "recalibrate" in judge(np.repeat(training[:1], 3000, axis=0))[0]


def test_law_in_sample(): law_in_sample(lambda training: remember(pd.DataFrame(training)))


class Blind:
    "Leaves out all that was seen, however often it comes."
    def __init__(self, seen): self.seen = seen
    def places(self, X): return self.seen.places(X)
    def expected(self, X): return self.seen.places(X) >= 0


@pytest.mark.parametrize("broken", [lambda training: None, lambda training: remember(pd.DataFrame(training[:500])), lambda training: Blind(remember(pd.DataFrame(training)))])
def test_law_in_sample_catches(broken):
    with pytest.raises(AssertionError): law_in_sample(broken)


def test_a_reference_of_training_records_is_none():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    reference = make_reference(np.arange(300.0), 290.0, 0.01, "ab", X, np.arange(300.0), remember(pd.DataFrame(X[:200])))
    assert len(reference.records) == 91
    assert make_reference(np.arange(300.0), 290.0, 0.01, "ab", X, np.arange(300.0), remember(pd.DataFrame(X))).records is None
