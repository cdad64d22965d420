"""Laws of transfer: shared columns only, disjoint parts, remedies that do what they promise and never see target attacks."""
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from sklearn.metrics import roc_auc_score

from conftest import needs_data
from nfad.network import NeuralClassifier
from nfad.data import load_dataset
from nfad.transfer import (Domain, attack_score, common_columns, domain_gap, feature_shift, fit_models, make_domain,
                           plot_grid, plot_shift, quantile_matcher, refit_transform, require_target_columns, transfer,
                           transfer_metrics)
from nfad.classes import families


def frame(n=300, shift=0.0, seed=0, columns="abc"):
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n, len(columns))) + shift, columns=list(columns))


def domain(name="here", shift=0.0, seed=0, n=600):
    "Benign records around `shift`, attacks far from them in feature a."
    rng = np.random.default_rng(seed)
    attack = np.where(np.arange(n) % 4 == 0, "SYN Flood", "benign")
    X = frame(n, shift, seed)
    X.loc[attack != "benign", "a"] += 8
    rows = rng.permutation(n)
    benign = rows[300:][attack[rows[300:]] == "benign"]
    return Domain(name, X, attack, rows[:300], benign[:80], np.setdiff1d(rows[300:], benign[:130]), benign[80:130])


# ---------------------------------------------------------------- columns and families

def test_common_columns():
    columns, report = common_columns(frame(columns="abcd").assign(a=1.0), frame(columns="cbae"))
    assert columns == ["b", "c"]
    status = {"a": "constant in source", "b": "used", "c": "used", "d": "only in source", "e": "only in target"}
    assert dict(zip(report["column"], report["status"], strict=True)) == status
    with pytest.raises(KeyError, match="share no column"): common_columns(frame(columns="ab"), frame(columns="cd"))
    with pytest.raises(KeyError, match="lacks 1 of 2"): require_target_columns(frame(columns="ab"), ["a", "z"])


# ---------------------------------------------------------------- the gap and the remedies

def test_domain_gap_orders_gaps():
    far, near, none = (domain_gap(frame(), frame(shift=s, seed=1))[0] for s in (3.0, 0.7, 0.0))
    assert far > near > none and abs(none - 0.5) < 0.1 and far > 0.95
    assert feature_shift(frame(), frame(seed=1).assign(b=9.0)).index[0] == "b"


def law_matching_restores_the_source(match):
    for seed in range(3):
        source, target = frame(500, seed=seed), np.exp(frame(500, shift=1.0, seed=seed + 10))
        assert feature_shift(source, match(target, source)(target)).max() < 0.1
        unseen = np.exp(frame(500, shift=1.0, seed=99))
        assert feature_shift(source, match(target, source)(unseen)).max() < 0.15


def test_matching(): law_matching_restores_the_source(quantile_matcher)


def test_matching_catches_scaling_only():
    scaled = lambda target, source: lambda X: (X - target.mean()) / target.std() * source.std() + source.mean()
    with pytest.raises(AssertionError): law_matching_restores_the_source(scaled)


def test_matching_keeps_the_order_of_each_feature():
    target, source = frame(shift=2.0), frame(seed=1)
    x = pd.DataFrame({c: np.linspace(-50, 50, 999) for c in "abc"})
    assert (np.diff(quantile_matcher(target, source)(x), axis=0) >= 0).all()


@pytest.fixture(scope="module")
def models(): return fit_models(domain(), list("abc"), epochs=5)


def test_models_have_one_waist(models):
    d = domain(seed=5)
    for name, model in models.items():
        scores = attack_score(model)(d.X)
        assert scores.shape == (600,) and roc_auc_score(d.attack != "benign", scores) > 0.9, name


def law_refitting_undoes_an_affine_shift(refit):
    d = domain()
    benign, moved = d.attack == "benign", d.X * 5 + 100
    model = NeuralClassifier(transform="robust", hidden=(8,), epochs=2, batch_size=64).fit(d.X.iloc[d.train], d.attack[d.train])
    before = attack_score(model)(d.X)
    assert np.allclose(attack_score(refit(model, moved[benign]))(moved), attack_score(refit(model, d.X[benign]))(d.X), atol=1e-3)
    assert (attack_score(model)(d.X) == before).all()  # the original stays as it was


def test_refit(): law_refitting_undoes_an_affine_shift(refit_transform)


def test_refit_catches_no_refit():
    with pytest.raises(AssertionError): law_refitting_undoes_an_affine_shift(lambda model, target: model)


def test_refit_refuses_ranks():
    d = domain()
    model = NeuralClassifier(hidden=(8,), epochs=1, batch_size=64).fit(d.X, d.attack)
    with pytest.raises(ValueError, match="transform to refit"): refit_transform(model, d.X)


def law_metrics(metrics):
    attack, scores = np.array(["benign"] * 4 + ["x"] * 4), np.array([0, 1, 2, 9, 3, 5, 6, 7.0])
    found = metrics(attack, scores, 4)
    assert found["fpr"] == 0.25 and found["tpr"] == 0.75 and found["accuracy"] == 0.75
    assert np.isclose(found["auroc"], roc_auc_score(attack != "benign", scores))


def test_metrics(): law_metrics(transfer_metrics)


def test_metrics_catch_a_flipped_score():
    with pytest.raises(AssertionError): law_metrics(lambda a, s, t: transfer_metrics(a, -s, t))


def test_figures():
    axes = pyplot.subplots(1, 2)[1]
    assert plot_shift(frame(), frame(shift=2.0), "b", ax=axes[0]) is axes[0] and "shift 0." in axes[0].get_title()
    rows = pd.DataFrame({"source": ["a", "a"], "target": ["a", "b"], "model": "flow", "remedy": "none", "auroc": [0.9, 0.4]})
    assert plot_grid(rows, "flow") is axes[1] and [t.get_text() for t in axes[1].texts] == ["0.90", "0.40"]
    pyplot.close("all")


# ---------------------------------------------------------------- the whole

def test_parts_are_disjoint():
    d = make_domain(load_dataset("demo"), max_rows=800)
    parts = [d.train, d.calibration, d.test]
    assert sum(map(len, parts)) == len(set(np.concatenate(parts)))
    assert (d.attack[d.pool] == "benign").all() and (d.attack[d.calibration] == "benign").all()
    assert len(d.pool) and set(d.pool) <= set(d.train)  # a target's training rows are not trained on
    with pytest.raises(ValueError, match="too few"): make_domain(load_dataset("demo"), max_rows=50)


def law_recalibration_keeps_the_promise(run):
    table = run(domain(), domain("there", shift=2.0, seed=3))
    chosen = table[(table["target"] == "there") & (table["remedy"] == "recalibrate")]
    assert len(chosen) and (chosen["fpr"] <= 0.12).all()


def flow_with(remedy, fpr):
    "Rows of a transfer of the flow with one remedy."
    return lambda s, t: transfer(s, t, epochs=4, fpr=fpr, models=["flow"], remedies=[remedy])[0]


def test_recalibration(): law_recalibration_keeps_the_promise(flow_with("recalibrate", 0.03))


def test_recalibration_catches_the_source_threshold():
    def broken(s, t): return flow_with("none", 0.03)(s, t).assign(remedy="recalibrate")
    with pytest.raises(AssertionError): law_recalibration_keeps_the_promise(broken)


def law_retraining_finds_attacks_where_benign_traffic_moved(run):
    table = run(domain(), domain("there", shift=30.0, seed=3)).query("target == 'there' and model == 'flow' and remedy == 'retrain'")
    assert table["auroc"].item() > 0.9 and table["fpr"].item() < 0.2


def test_retraining():
    def run(s, t): return flow_with("retrain", 0.05)(s, t._replace(pool=t.calibration))
    law_retraining_finds_attacks_where_benign_traffic_moved(run)


def test_retraining_catches_a_flow_that_stays():
    def broken(s, t): return flow_with("none", 0.05)(s, t).assign(remedy="retrain")
    with pytest.raises(AssertionError): law_retraining_finds_attacks_where_benign_traffic_moved(broken)


def test_retraining_adds_benign_records_to_boosting():
    def run(target): return transfer(domain(), target, epochs=2, models=["boosting"], remedies=["retrain"])[0]
    table = run(domain("there", shift=3.0, seed=3)._replace(pool=domain(seed=3).calibration))
    assert set(table["remedy"]) == {"none", "retrain"} and not table.isna().any(axis=None)
    few = domain("there", seed=3)
    assert set(run(few._replace(pool=few.pool[:40]))["remedy"]) == {"none"}


def test_remedies_never_see_target_attacks():
    source, target = domain(), domain("there", shift=1.0, seed=4)
    other = target._replace(attack=np.where(target.attack == "benign", "benign", "Martian"))  # other names, same records
    a, b = (transfer(source, t, epochs=3, models=["boosting", "flow"])[0] for t in (target, other))
    assert np.allclose(a.select_dtypes("number"), b.select_dtypes("number"))
    told = transfer(source, other, epochs=3, models=["boosting"], remedies=["none"])[1]
    assert told["unknown_families"] == {"other": int((other.attack[other.test] == "Martian").sum())}


def test_official_layout_of_tiissrc23(tmp_path):
    "CICFlowMeter's columns, `Label` (Benign or Malicious), and the attack in `Traffic Subtype`."
    layout = pd.DataFrame({
        "Flow ID": "x", "Src IP": "10.0.0.1", "Flow Duration": np.arange(1.0, 61), "Tot Fwd Pkts": np.tile([1.0, 2.0, 3.0], 20),
        "Tot Bwd Pkts": 1.0, "TotLen Fwd Pkts": np.arange(60.0), "TotLen Bwd Pkts": 5.0, "Pkt Len Mean": np.arange(60.0) ** 2,
        "Label": np.repeat(["Benign", "Malicious"], 30), "Traffic Type": np.repeat(["Audio", "DoS"], 30),
        "Traffic Subtype": np.repeat(["Audio", "DoS UDP"], 30)})
    (tmp_path / "tiissrc23").mkdir()
    layout.to_csv(tmp_path / "tiissrc23" / "data.csv", index=False)
    official = load_dataset("tiissrc23", folder=tmp_path, cache=False)
    assert official.report.classes == {"benign": 30, "DoS UDP": 30} and official.records.shape == (60, 4)


@needs_data
def test_tii_features_from_packets():
    data = load_dataset("tiissrc23")
    d = make_domain(data, n_pool=40)
    columns, _ = common_columns(make_domain(load_dataset("demo"), max_rows=800).X, d.X)
    assert len(columns) >= 30 and set(families(d.attack)) == {"benign", "brute force", "bot"}
