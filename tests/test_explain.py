"""Laws of nfad.explain: planted anomalies, metrics, rivals, curves, costs."""
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dependent import dependent_records, surprises
from nfad.explain import (METHODS, PLANTS, Setting, agreement, attribute, attribution_metrics, curve_share,
                          expected_features, explain_record, irrelevant_credit, kernelshap, mean_spearman, measure_agreement,
                          measure_methods, occlusion, plant, plot_methods, race_kernelshap, relatives, replacement_curves,
                          summarize_methods, surprises_of, time_explanations)
from nfad.prep import Transform
from nfad.shapley import Background


@pytest.fixture(scope="module")
def benign() -> pd.DataFrame: return dependent_records()


@pytest.fixture(scope="module")
def setting(benign) -> Setting:
    terms = surprises(benign)
    return Setting(Background(lambda X: terms(X).sum(axis=1), benign), 20, 60, terms)


def law_plant(planted, before, k):
    "Exactly k features differ, and the truth says which."
    changed = planted.records.to_numpy() != before.to_numpy()[:len(planted.records)]
    assert (planted.truth.sum(axis=1) == k).all() and np.array_equal(changed, planted.truth)
    assert np.isfinite(planted.records.to_numpy()).all() and not planted.truth[:, -1].any()


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("k", [1, 2])
def test_law_plant(benign, kind, k):
    few = benign[:30]
    planted = plant(few, benign, kind, k, size=0.3, seed=1)
    kept = few[[any((row == other).sum() >= 7 - k for other in planted.records.to_numpy()) for row in few.to_numpy()]]
    if len(kept) == len(planted.records): law_plant(planted, kept, k)
    assert (planted.truth.sum(axis=1) == k).all() and len(planted.records) > 5


def test_law_plant_catches_a_wrong_truth(benign):
    planted = plant(benign[:30], benign, "global", 2)
    law_plant(planted, benign[:30], 2)
    with pytest.raises(AssertionError): law_plant(planted._replace(truth=np.roll(planted.truth, 1, axis=0)), benign[:30], 2)


def test_global_values_are_beyond_benign_ones(benign):
    planted = plant(benign[:30], benign, "global", 1)
    assert ((planted.records.to_numpy() > benign.max().to_numpy()) == planted.truth).all()


@pytest.mark.parametrize("kind", ["swap", "mirror"])
def test_swapped_values_exist(benign, kind):
    planted = plant(benign[:30], benign, kind, 1)
    scale = Transform("log").fit(benign)
    Z, known = scale.transform(planted.records), scale.transform(benign)
    assert max(np.abs(known[:, j] - Z[i, j]).min() for i, j in zip(*np.nonzero(planted.truth))) < 1e-4


def law_metrics(metrics):
    "Perfect attributions are perfect, reversed ones are worst, equal ones earn nothing."
    truth = np.random.default_rng(0).random((20, 8)) < 0.3
    truth[:, 0], truth[:, 1] = True, False
    good, flat = metrics(truth * 1.0, truth).mean(), metrics(np.zeros(truth.shape), truth).mean()
    assert np.allclose(good, 1)
    reversed_ = metrics(1 - 2.0 * truth, truth)[["hit_at_1", "precision_at_k"]].to_numpy()
    assert np.allclose(reversed_[truth.sum(axis=1) < 5], 0)
    assert flat["hit_at_1"] == 0 and flat["attribution_auroc"] == pytest.approx(0.5)


def test_law_metrics(): law_metrics(attribution_metrics)


def test_law_metrics_catches_ties_in_favor():
    def lucky(values, truth): return attribution_metrics(values + 1e-9 * truth, truth)
    with pytest.raises(AssertionError): law_metrics(lucky)


def test_auroc_is_scikit_learns():
    from sklearn.metrics import roc_auc_score
    rng = np.random.default_rng(0)
    values, truth = rng.integers(-3, 4, size=(30, 9)).astype(float), rng.random((30, 9)) < 0.4
    truth[:, 0], truth[:, 1] = True, False
    theirs = [roc_auc_score(t, np.abs(v)) for t, v in zip(truth, values, strict=True)]
    assert np.allclose(attribution_metrics(values, truth)["attribution_auroc"], theirs)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("random", "diffi")])
def test_every_method_finds_a_shouting_feature(setting, benign, method):
    planted = plant(benign[:6], benign, "global", 1, size=6)
    values = attribute(method, setting, planted.records)
    assert values.shape == (len(planted.records), 7)
    if method not in ("nearest", "marginal", "minimised", "occlusion", "kernelshap", "z_score"): return
    assert attribution_metrics(values, planted.truth)["hit_at_1"].mean() > 0.8


@pytest.mark.parametrize("method", ["lime", "marginal", "nearest", "occlusion"])
def test_signs(benign, method):
    scale = Transform("log").fit(benign)
    rising = Setting(Background(lambda X: scale.transform(X).sum(axis=1), benign), 20)
    values = attribute(method, rising, plant(benign[:4], benign, "global", 1, size=4).records)
    assert (values.max(axis=1) > 2 * -values.min(axis=1)).all()


def law_occlusion(explainer, benign):
    "Under a linear score: weight times the distance from records that are near in all other features."
    w = np.array([1.0, -2, 0, 3, 0.5, 1, 1])
    b, X = Background(lambda X: X @ w, benign), benign.to_numpy()[:5] * 1.5
    for x, values in zip(X, explainer(b, X), strict=True):
        for j in range(7):
            others = np.arange(7) != j
            near = b.records[np.argsort(b.gaps(x)[:, others].sum(axis=1), kind="stable")[:4], j]
            assert np.isclose(values[j], w[j] * (x[j] - near.mean()))


def test_law_occlusion(benign): law_occlusion(occlusion, benign)


def test_law_occlusion_catches_the_marginal_mean(benign):
    def marginal(b, X):
        means = [np.where(np.arange(7) == j, b.records.mean(axis=0), X) for j in range(7)]
        return np.stack([b.score(X) - b.score(mixed) for mixed in means], axis=1)
    with pytest.raises(AssertionError): law_occlusion(marginal, benign)


def test_measured_methods_and_record(setting, benign):
    planted = [plant(benign[:8], benign, kind, 1, seed=i) for i, kind in enumerate(PLANTS)]
    measured = measure_methods(setting, planted, ["nearest", "z_score", "random"], n_slow=2)
    table = summarize_methods(measured)
    assert table.index[-1] == "random" and table["n"].nunique() == 1 and table.loc["nearest", "hit_at_1"] > 0.6
    assert table.loc["nearest", "deletion"] < table.loc["random", "deletion"]
    written = explain_record(measured, "nearest", {"x": 1})
    assert written["hit_at_1"] == written["methods"]["nearest"]["hit_at_1"] and written["x"] == 1
    assert plot_methods(measured).get_title().endswith("(precision@k)")


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_stability_and_noise(setting):
    X = setting.background.records[:3]
    assert max(irrelevant_credit(setting.background, X, game) for game in ("marginal", "nearest")) < 1e-9
    assert mean_spearman(X, X) == 1 and mean_spearman(X, -X) == -1 and mean_spearman(X, np.zeros_like(X)) == 0


def test_curves_start_and_end_where_they_should(setting, benign):
    planted = plant(benign[:5], benign, "global", 1, size=4)
    curves = replacement_curves(setting.background, planted.records, planted.truth * 1.0, 7)
    scores = setting.background.score_fn(planted.records)
    assert np.allclose(curves["deletion"][:, 0], scores) and np.allclose(curves["insertion"][:, -1], scores)
    assert curve_share(np.tile(scores[:, None], 3), scores, 0.0) == pytest.approx(1)


def test_agreement_with_expected_features(benign):
    assert relatives(benign, ["e"]).tolist() == [False] * 4 + [True, False, False]
    assert relatives(benign, ["a"], 0.9).sum() >= 4
    found, chance = agreement(np.eye(4), np.array([True, False, False, False]), 1)
    assert (found, chance) == (0.25, 0.25)


def test_sampling_is_cheap_beside_kernelshap():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(30, 60))
    score = lambda X: np.tanh(X @ W / 2).max(axis=1) + np.tanh(X @ W / 4).sum(axis=1) ** 2 / 20
    race = race_kernelshap(score, pd.DataFrame(rng.normal(size=(20, 30))), pd.DataFrame(rng.normal(size=(2, 30)) + 1))
    assert race["engine_error"] < 4 * race["kernelshap_error"] and race["cpu_ratio_vs_kernelshap"] > 2


def test_kernelshap_leaves_the_global_stream_alone():
    np.random.seed(1)
    wanted = np.random.random()
    np.random.seed(1)
    five = Background(lambda X: np.tanh(X).sum(axis=1) ** 2, np.random.default_rng(0).normal(size=(5, 5)))
    kernelshap(Setting(five, kernel_samples=50), np.ones((1, 5)))
    assert np.random.random() == wanted


def test_unknown_methods_and_missing_surprises_are_named(setting):
    with pytest.raises(ValueError, match="method must be one of"): attribute("shap", setting, setting.background.records[:1])
    bare = setting._replace(surprise_fn=None)
    with pytest.raises(ValueError, match="needs surprise_fn"): attribute("surprise", bare, setting.background.records[:1])


def test_surprises_stand_at_their_features():
    kept = np.array([False, True, True])
    flow = SimpleNamespace(architecture="autoregressive", transform_=SimpleNamespace(kept_=kept),
                           log_prob_terms=lambda X: -np.asarray(X)[:, kept])
    X = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(surprises_of(flow)(X), X * kept)
    assert surprises_of(SimpleNamespace(architecture="coupling")) is None


@pytest.mark.parametrize("attack, first", [
    ("DoS slowloris", "Flow Duration"), ("DDoS", "Bwd Packet Length Std"), ("PortScan", "Init_Win_bytes_forward"),
    ("SSH-Patator", "Init_Win_bytes_forward"), ("Web Attack - Brute Force", "Init_Win_bytes_forward"), ("Bot", "Subflow Fwd Bytes")])
def test_experts_know_the_attacks(attack, first): assert expected_features(attack)[0] == first


def test_agreement_leaves_out_small_and_unknown_classes(setting):
    X = pd.DataFrame(setting.background.records[:30], columns=["Flow Duration", *setting.background.names[1:]])
    b = Background(lambda X: X[:, 0], X)
    attack = np.array(["benign"] * 5 + ["Bot"] * 12 + ["PortScan"] * 3 + ["unheard of"] * 10)
    told = measure_agreement(Setting(b), "nearest", X, attack, X)
    assert told.index.tolist() == ["Bot"] and told.loc["Bot", "n"] == 12
    assert measure_agreement(Setting(b), "nearest", X[:5], attack[:5], X).empty


def test_clocked_explanations_add_up(setting):
    told, facts = time_explanations(setting.background, setting.background.records[:4], "nearest", seed=2)
    assert told.values.shape == (4, 7) and facts["n_timed"] == 4 and facts["max_efficiency_gap"] < 1e-9
    assert 0 < facts["cpu_seconds_1000_alerts"] and facts["evaluations_per_alert"] == told.n_evaluations.mean()
