"""Laws of nfad.tradeoff: signs and constants, who is beaten by nobody, medians over turns. No time is a test."""
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from nfad import tradeoff as t
from nfad.tradeoff import DETECTORS, Library, detector_table, installed, judge, make_detector, plot_tradeoff, undominated

CHEAP = [name for name in installed()[0] if name not in ("nfad", "pyod_autoencoder")]


@pytest.fixture(scope="module")
def benign():
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(300, 3)), columns=["a", "b", "c"]).assign(still=1.0)


def law_sign(score, benign):
    "A planted record is stranger than nearly all others."
    odd = pd.DataFrame([[6.0, -6, 6, 1]], columns=benign.columns)
    assert np.mean(score(benign) < score(odd)) > 0.99


@pytest.mark.parametrize("name", CHEAP)
def test_law_sign(name, benign): law_sign(make_detector(name).fit(benign).anomaly_score, benign)


def test_law_sign_catches_a_score_of_normality(benign):
    model = make_detector("sklearn_lof").fit(benign)
    with pytest.raises(AssertionError): law_sign(lambda X: -model.anomaly_score(X), benign)


def test_a_broken_constant_is_strangest(benign):
    model = make_detector("sklearn_knn").fit(benign)
    records = benign[:20].assign(still=[2.0] + [1.0] * 19)
    assert judge(model, records, np.array(["odd"] + ["benign"] * 19))["auroc"] == 1.0


def row(name, cost, quality): return {"detector": name, "score_rows_per_cpu_second": 1 / cost, "fit_cpu": 10 - cost, "macro_auroc": quality,
                                      "auroc": quality, "tpr_at_fpr_0.01": 0.1}


def law_undominated(undominated):
    "Whoever is left is beaten by nobody in both, and whoever is not, by somebody."
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = [row(str(i), *rng.uniform(0.1, 1, 2).round(1)) for i in range(8)]
        left = undominated(rows)
        beats = lambda a, b: (a["score_rows_per_cpu_second"] >= b["score_rows_per_cpu_second"] and a["macro_auroc"] >= b["macro_auroc"]
                              and (a["score_rows_per_cpu_second"], a["macro_auroc"]) != (b["score_rows_per_cpu_second"], b["macro_auroc"]))
        for each in rows:
            beaten = any(beats(other, each) for other in rows)
            twin = any(other["detector"] in left and not beats(other, each) and not beats(each, other) and other is not each
                       and other["macro_auroc"] == each["macro_auroc"] for other in rows)
            assert (each["detector"] in left) == (not beaten) or twin


def test_law_undominated(): law_undominated(undominated)


def test_law_undominated_catches_the_best_alone():
    with pytest.raises(AssertionError): law_undominated(lambda rows: [max(rows, key=lambda each: each["macro_auroc"])["detector"]])


def test_the_other_cost_counts_too():
    rows = [row("A", 1.0, 0.9), row("B", 2.0, 0.8)]
    assert undominated(rows) == ["A"] and undominated(rows, "fit") == ["B", "A"]


def test_table_and_picture():
    rows = [row("nfad", 1.0, 0.8), row("other", 2.0, 0.9)]
    assert detector_table(rows).index.tolist() == ["other", "nfad"]
    for cost in ("score", "fit"): assert len(plot_tradeoff(rows, cost, plt.figure().gca()).texts) == 2
    with pytest.raises(ValueError, match="cost"): plot_tradeoff(rows, "price")
    plt.close("all")


def test_names(monkeypatch):
    assert sorted(sum(installed(), [])) == sorted(DETECTORS)
    monkeypatch.setattr(t, "find_spec", lambda name: None)
    assert installed()[0] == [name for name in DETECTORS if not name.startswith("pyod")]
    with pytest.raises(ValueError, match="did you mean 'pyod_lof'"): installed(["pyod_lofs"])


def test_medians_over_turns(tmp_path, monkeypatch):
    costs = iter([1.0, 9.0, 2.0])
    def fake(function, arguments): return {"fit_cpu": next(costs), "score_rows_per_cpu_second": 5.0, "macro_auroc": 0.9}, None
    monkeypatch.setattr(t, "in_fresh_process", fake)
    found = t.measure_detectors("demo", names=["sklearn_lof"], repeats=3, folder=tmp_path)
    assert found["detectors"] == [{"detector": "sklearn_lof", "fit_cpu": 2.0, "score_rows_per_cpu_second": 5.0, "macro_auroc": 0.9}]
    assert found["n_train"] > 100 and (tmp_path / "tradeoff_demo.json").is_file()


@pytest.mark.parametrize("name", ["sklearn_iforest"])
def test_a_job_measures_cost_and_quality(name, benign, tmp_path):
    for part in t.PARTS: benign.to_parquet(tmp_path / f"{part}.parquet")
    attack = np.array(["benign"] * 200 + ["odd"] * 50 + ["even"] * 50)
    np.save(tmp_path / "attack.npy", attack)
    found = t.job_detector(str(tmp_path), name, n_rows=50, repeats=1)
    assert found["fit_cpu"] > 0 and found["score_rows_per_cpu_second"] > 0 and 0 <= found["min_auroc"] <= found["macro_auroc"] <= 1


def test_a_library_has_no_use_for_validation_records(benign):
    one, other = (Library("sklearn.ensemble", "IsolationForest", random_state=0).fit(benign, validation=rows) for rows in (None, benign))
    assert np.array_equal(one.anomaly_score(benign), other.anomaly_score(benign))
