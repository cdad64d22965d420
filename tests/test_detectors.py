"""Laws of nfad.detectors: one harness for every detector, promises, and who is ahead."""
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from flows import ATTACK, odd_parts
from nfad.core import write_json
from nfad.detector import FlowDetector
from nfad.detectors import (COMPARED, CURVE, METRICS, Scored, _FACTS, _critical_difference, best_peers, broken_promises, cached,
                            collect_curves, collect_detectors, compare_detectors, found_by_class, judge, leads, mean_interval, metric_table,
                            paired_difference, plot_curves, plot_heatmap, plot_promises, plot_ranks, promise, run_flow, run_paper,
                            run_peer, summarize, verdict, with_leads)
from nfad.metrics import decision_metrics, ranking_metrics, tpr_at_fpr
from nfad.peers import PEERS
from nfad.prep import FEATURE_SETS
from nfad.score import threshold_at_fpr
from nfad.runs import prepare
from nfad.training import TrainingDiverged


@pytest.fixture(scope="module")
def parts(): return odd_parts()


def test_flow_and_its_statistics(parts):
    runs = run_flow(lambda seed: FlowDetector(hidden=16, epochs=3, seed=seed), parts, statistics=("log_prob", "typicality"))
    assert list(runs) == ["nfad", "nfad_log_prob", "nfad_typicality"]
    for run in runs.values(): assert run.test.shape == (500,) and np.isfinite(run.test).all()
    assert roc_auc_score(ATTACK != "benign", runs["nfad"].test) > 0.7


def test_the_paper_is_a_peer(parts):
    run = run_paper(parts, epochs=1)["pzflow"]
    assert run.test.shape == (500,) and np.isfinite(run.test).all()


def test_a_peer_that_diverges_has_no_scores(parts, monkeypatch, tmp_path):
    class Diverging:
        def fit(self, X, validation): raise TrainingDiverged("the loss became inf")
    monkeypatch.setattr(FlowDetector, "preset", lambda *args, **options: Diverging())
    calls = []
    def compute(): calls.append(1); return run_paper(parts)
    for _ in range(2): assert cached(tmp_path, {"detector": "pzflow"}, compute) == {}
    assert calls == [1]  # remembered, so that a rerun does not train again


@pytest.mark.parametrize("there", [6, 5, 3, 2, 0])
def test_the_features_of_the_paper(monkeypatch, there):
    "Those of its six features that are there, if it is half of them; else all."
    seen, columns = [], [*FEATURE_SETS["paper6"][:there], "x", "y"]
    class Watched:
        def fit(self, X, validation): seen.append(list(X.columns)); raise TrainingDiverged("seen enough")
    monkeypatch.setattr(FlowDetector, "preset", lambda *args, **options: Watched())
    run_paper({name: pd.DataFrame(np.ones((4, there + 2)), columns=columns) for name in ("train", "reference", "calibration", "test")})
    assert seen == [columns[:there] if there >= 3 else columns]


def test_scores_of_one_split_never_stand_for_another(monkeypatch, tmp_path):
    "A detector that fails on the second split has one result, and no run left over from the first; classes left out are nowhere."
    def paper(parts, seed):
        rows = np.arange(len(parts["test"]), dtype=float)
        facts = {"fit_cpu_seconds": 0.0, "score_rows_per_s": 1.0}
        return {} if seed else {"pzflow": Scored(np.zeros(len(parts["calibration"])), rows, facts)}
    monkeypatch.setattr("nfad.detectors.run_paper", paper)
    splits = lambda seed: prepare("demo", "paper6", sizes={"train": 300, "attack": 200}, seed=seed, out_dir=tmp_path, progress=False)
    judged, runs, prepared = compare_detectors(splits, None, ["pca", "pzflow"], range(2), tmp_path / "cache", without=["SYN", "Slow"])
    assert [len(judged[name]) for name in ("pca", "pzflow")] == [2, 1] and list(runs) == ["pca"]
    left = set(prepared.dataset.attack[prepared.split.test])
    assert len(runs["pca"].test) == len(prepared.split.test) and "PortScan" in left and not left & {"SYN Flood", "Slow HTTP"}


def test_a_lead_needs_the_same_splits():
    rows = {name: [dict.fromkeys(METRICS, value)] * n for name, value, n in (("nfad", 0.9, 3), ("knn", 0.8, 3), ("pzflow", 0.7, 2))}
    table = with_leads(summarize(rows), rows)
    assert table["knn"]["lead_auroc"] == pytest.approx(0.1) and "lead_auroc" not in table["pzflow"] and table["pzflow"]["n_seeds"] == 2
    assert best_peers(table).loc["auroc", "best_peer"] == "knn"


def test_a_row_of_fewer_splits_says_so_and_is_not_the_best_peer(tmp_path):
    judged = {name: [dict.fromkeys(METRICS, value)] * n for name, value, n in (("nfad", 0.9, 5), ("knn", 0.8, 5), ("pzflow", 0.95, 2))}
    record = dict.fromkeys(_FACTS, 9) | {"dataset": "here", "feature_set": "all", "split": "random", "n_seeds": 5}
    write_json(tmp_path / "here" / "all" / "detect.json", record | {"detectors": with_leads(summarize(judged), judged)})
    found = collect_detectors(tmp_path, 5)
    assert found.set_index("detector")["n_seeds"].to_dict() == {"nfad": 5, "knn": 5, "pzflow": 2}
    assert leads(found).loc["here", "best_peer"] == "knn"
    assert best_peers(with_leads(summarize(judged), judged)).loc["auroc", "best_peer"] == "knn"


# --- the harness --------------------------------------------------------------------------------------------

def law_cache(store, tmp_path):
    "The same key computes once; another key computes again; arrays come back exactly."
    calls = []
    def compute():
        calls.append(1)
        return {"a": Scored(np.arange(3.0), np.arange(4) / 3, {"fit_cpu_seconds": 0.5, "score_rows_per_s": 1.0})}
    first, second, third = (store(tmp_path, {"seed": seed}, compute) for seed in (0, 0, 1))
    assert len(calls) == 2
    for run in (second["a"], third["a"]): assert np.array_equal(run.test, first["a"].test) and run.facts == first["a"].facts


def test_law_cache(tmp_path): law_cache(cached, tmp_path)


def test_law_cache_catches_a_forgotten_key(tmp_path):
    with pytest.raises(AssertionError): law_cache(lambda folder, key, compute: cached(folder, {}, compute), tmp_path)


def test_judge_agrees_with_score(parts):
    run = run_peer("knn", parts)["knn"]
    found, expected = judge(ATTACK, run), ranking_metrics(ATTACK != "benign", run.test)
    assert all(found[key] == expected[key] for key in expected) and found["auroc of odd"] == found["min_auroc"] == found["macro_auroc"]


def law_found(found):
    "Of each class what `tpr_at_fpr` says of it alone, also where scores are tied."
    rng = np.random.default_rng(0)
    attack = rng.choice(["benign", "a", "b"], 600, p=[0.6, 0.3, 0.1])
    scores = np.round(rng.normal(size=600) + (attack == "a"), 1)
    for fpr in (0.001, 0.01, 0.05, 0.3):
        alone = {name: tpr_at_fpr(attack[keep] == name, scores[keep], fpr) for name in "ab" for keep in [np.isin(attack, ["benign", name])]}
        assert found(attack, scores, fpr).to_dict() == pytest.approx(alone)


def test_law_found(): law_found(found_by_class)


def test_law_found_catches_a_threshold_of_all_records():
    def mixed(attack, scores, fpr): return pd.Series(scores > np.quantile(scores, 1 - fpr)).groupby(attack).mean().drop("benign")
    with pytest.raises(AssertionError): law_found(mixed)


def test_what_is_found_rises_along_the_curve(parts):
    found = judge(ATTACK, run_peer("knn", parts)["knn"])
    along = [found[f"tpr at {fpr:g}"] for fpr in CURVE]
    assert along == sorted(along) and found["tpr at 0.01"] == found["tpr_at_fpr_0.01"] == found["macro_tpr_at_fpr_0.01"] <= found["macro_tpr_at_fpr_0.05"]


def test_curves_are_collected_and_drawn_as_far_as_benign_records_reach(parts, tmp_path):
    judged = {name: [judge(ATTACK, run_peer(name, parts)[name])] * 2 for name in ("knn", "pca")}
    record = dict.fromkeys(_FACTS, 9) | {"dataset": "here", "feature_set": "all", "split": "random", "n_seeds": 2, "n_test_benign": 300}
    write_json(tmp_path / "here" / "all" / "detect.json", record | {"detectors": summarize(judged)})
    curves = collect_curves(tmp_path, 2)
    assert len(curves) == 2 * len(CURVE) and (curves["tpr_low"] <= curves["tpr"]).all()
    drawn = plot_curves(curves, ["knn", "pca"]).axes[0].lines[0].get_xdata()
    assert drawn[0] > 1 / 300 and drawn[-1] == 0.1 and len(collect_curves(tmp_path, 3)) == 0
    pyplot.close("all")


def law_interval(interval):
    "Covers the true mean in 95 % of draws."
    rng = np.random.default_rng(0)
    inside = [low <= 0 <= high for _, low, high in (interval(rng.normal(size=5)) for _ in range(2000))]
    assert 0.93 < np.mean(inside) < 0.97


def test_law_interval(): law_interval(mean_interval)


def test_law_interval_catches_a_normal_quantile():
    def normal(v): return v.mean(), *(v.mean() + np.array([-1.96, 1.96]) * v.std(ddof=1) / np.sqrt(len(v)))
    with pytest.raises(AssertionError): law_interval(normal)


def test_summary_has_an_interval_for_every_metric():
    row = summarize({"a": [{"auroc": 0.8, "x": 1.0}, {"auroc": 0.9}]})["a"]
    assert row["auroc"] == pytest.approx(0.85) and row["auroc_ci95"][0] < 0.85 < row["auroc_ci95"][1] and row["x_ci95"] == [1.0, 1.0]


# --- promises -----------------------------------------------------------------------------------------------

def law_band(judge_promise):
    "For exchangeable benign records, 95 % of the realised rates are inside their band, and it is no wider than that needs."
    rng, truth = np.random.default_rng(0), np.repeat([0, 1], [400, 10])
    found = [judge_promise(truth, Scored(rng.normal(size=200), rng.normal(size=410), {}), 0.05) for _ in range(600)]
    assert 0.93 < np.mean([f["in_band_at_0.05"] for f in found]) < 0.985


def test_law_band(): law_band(promise)


def test_law_band_catches_a_band_that_forgets_the_calibration_draw():
    def narrow(y, run, fpr):
        realised = np.mean(run.test[y == 0] > threshold_at_fpr(run.calibration, fpr))
        low, high = binom.interval(0.95, (y == 0).sum(), fpr)
        return {f"in_band_at_{fpr:g}": float(low <= realised * (y == 0).sum() <= high)}
    with pytest.raises(AssertionError): law_band(narrow)


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.2])
def test_promise_agrees_with_score(fpr, parts):
    run, y = run_peer("pca", parts)["pca"], (ATTACK != "benign").astype(int)
    found, expected = promise(y, run, fpr), decision_metrics(y, run.test, threshold_at_fpr(run.calibration, fpr))
    for key in ("accuracy", "realised_fpr"): assert found[f"{key}_at_{fpr:g}"] == pytest.approx(expected[key])
    assert judge(ATTACK, run)["attack_share"] == expected["accuracy_always_attack"] == 0.4


def test_a_broken_promise_is_named():
    rng = np.random.default_rng(0)
    loud, calm = Scored(rng.normal(size=500), rng.normal(1, 1, 500), {}), Scored(np.arange(500.0), np.arange(500.0), {})
    facts = {"fit_cpu_seconds": 0.0, "score_rows_per_s": 1.0}
    table = summarize({"loud": [judge(ATTACK, loud._replace(facts=facts))] * 2, "calm": [judge(ATTACK, calm._replace(facts=facts))] * 2})
    found = broken_promises(table)
    assert list(found.index) == ["loud"] and found.loc["loud", "seeds_outside"] == 2
    assert found.loc["loud", "realised"] > found.loc["loud", "band_high"]
    with pytest.raises(ValueError, match="fpr"): broken_promises(table, 0.02)


# --- who is ahead -------------------------------------------------------------------------------------------

def law_paired(difference):
    "Covers the true difference in 95 % of draws although splits differ far more than detectors, and has the right sign."
    rng, covered = np.random.default_rng(0), []
    for _ in range(2000):
        split = rng.normal(0, 1, 5)  # as hard for both
        mean, low, high = difference(split + 0.3 + 0.05 * rng.normal(size=5), split + 0.05 * rng.normal(size=5))
        covered.append(low <= 0.3 <= high)
    assert 0.93 < np.mean(covered) < 0.97 and verdict(low, high) == "ahead"


def test_law_paired(): law_paired(paired_difference)


def test_law_paired_catches_an_unpaired_interval():
    def unpaired(a, b): return (m := a.mean() - b.mean(), *(m + np.array([-2.306, 2.306]) * np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 5)))
    with pytest.raises(AssertionError): law_paired(unpaired)


def test_law_paired_catches_the_wrong_sign():
    with pytest.raises(AssertionError): law_paired(lambda a, b: paired_difference(b, a))


def test_paired_difference_refuses_what_is_not_paired():
    with pytest.raises(ValueError, match="one value per seed"): paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="at least 2 seeds"): paired_difference([1.0], [1.0])
    assert [verdict(*ends) for ends in ((0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1), (0.0, 0.0))] == ["ahead", "open", "behind", "open"]


def contest(seed):
    "Results of nfad, another statistic of its flow, and three peers on five splits; the statistic is best of all."
    rng = np.random.default_rng(seed)
    split, order = rng.normal(0, 0.1, 5), rng.permutation([0.3, 0.5, 0.7])
    level = {"nfad": 0.5, "nfad_fisher": 0.9, **dict(zip(("knn", "lof", "pca"), order, strict=True))}
    return {name: [dict.fromkeys(COMPARED, v) for v in split + mean + 0.01 * rng.normal(size=5)] for name, mean in level.items()}


def law_best(best):
    "The peer of a metric is the strongest one, no statistic of nfad's own flow; one that wins is shown winning."
    for seed in range(5):
        judged = contest(seed)
        table = with_leads(summarize(judged), judged)
        for metric, row in best(table).iterrows():
            assert row["best_peer"] in PEERS and all(row["its value"] >= table[name][metric] for name in ("knn", "lof", "pca"))
            assert row["verdict"] == "behind" and row["lead"] == pytest.approx(table["nfad"][metric] - row["its value"])


def test_law_best(): law_best(best_peers)


def test_law_best_catches_a_weak_peer():
    def weakest(table):
        peer = min(("knn", "lof", "pca"), key=lambda name: table[name]["auroc"])
        return best_peers({name: table[name] for name in ("nfad", "nfad_fisher", peer)})
    with pytest.raises(AssertionError): law_best(weakest)


def test_leads_need_seeds_and_a_peer():
    once = {"nfad": [dict.fromkeys(COMPARED, 0.5)], "knn": [dict.fromkeys(COMPARED, 0.4)]}
    assert "lead_auroc" not in with_leads(summarize(once), once)["knn"]
    assert "lead_auroc" not in with_leads(summarize(contest(0)), contest(0))["nfad"]
    with pytest.raises(ValueError, match="and a peer"): best_peers({"nfad": {}, "nfad_fisher": {}})


# --- all data sets ------------------------------------------------------------------------------------------

def write_runs(folder):
    "Records of two data sets over five seeds, one over one seed, and a study."
    rng = np.random.default_rng(0)
    runs = {"here": (5, ("nfad", "nfad_fisher", "knn", "lof")), "there": (5, ("nfad", "knn")), "young": (1, ("nfad", "knn"))}
    for place, (n_seeds, names) in runs.items():
        judged = {name: [dict(zip(METRICS, rng.random(len(METRICS)))) for _ in range(n_seeds)] for name in names}
        record = dict.fromkeys(_FACTS, 9) | {"dataset": place, "feature_set": "all", "split": "random", "n_seeds": n_seeds,
                                             "detectors": with_leads(summarize(judged), judged)}
        write_json(folder / place / "all" / "detect.json", record)
    write_json(folder / "here" / "all" / "detect_sizes.json", {"knn": {"training records": [1], "auroc": [0.5]}})


def test_all_records_become_one_table(tmp_path):
    write_runs(tmp_path)
    found = collect_detectors(tmp_path, 5)
    assert len(found) == 6 and set(found["dataset"]) == {"here", "there"} and len(collect_detectors(tmp_path)) == 8
    for metric in METRICS: assert (found[f"{metric}_low"] <= found[metric]).all() and (found[metric] <= found[f"{metric}_high"]).all()
    here = found.set_index(["dataset", "detector"])["macro_auroc"]["here"]
    assert found.set_index(["dataset", "detector"])["lead_macro_auroc"]["here"]["knn"] == pytest.approx(here["nfad"] - here["knn"])
    won = leads(found)
    assert won.loc["there", "best_peer"] == "knn" and won.loc["here", "its value"] == max(here["knn"], here["lof"])
    assert set(won["verdict"]) <= {"ahead", "behind", "open"}
    with pytest.raises(ValueError, match="metric"): leads(found, "min_auroc")
    table = metric_table(found, "auroc")
    assert set(table.columns) == {"nfad", "knn"} and list(table.index) == ["here", "there"]  # lof is not everywhere, nfad_fisher no peer
    some = found.assign(n_seeds=found["n_seeds"].where((found["detector"] != "knn") | (found["dataset"] != "there"), 4))
    assert list(metric_table(some, "auroc")) == ["nfad"]  # k-NN failed on a split
    with pytest.raises(FileNotFoundError, match="9 seeds"): collect_detectors(tmp_path, 9)


def test_critical_difference_of_demsar():
    for k, q in ((2, 1.960), (5, 2.728), (10, 3.164)):
        assert _critical_difference(k, 12) == pytest.approx(q * np.sqrt(k * (k + 1) / 72), abs=2e-3)


def test_figures(parts):
    table = pd.DataFrame(np.random.default_rng(0).random((3, 4)), columns=list("abcd"))
    run = run_peer("pca", parts)["pca"]
    for draw in (lambda: plot_ranks(table), lambda: plot_heatmap(table), lambda: plot_promises(ATTACK != "benign", {"pca": run})):
        pyplot.figure()
        assert draw().has_data()
    pyplot.close("all")
