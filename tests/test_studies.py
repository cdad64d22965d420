"""Laws of nfad.studies: statistics judged without attacks, sweeps over training records, preparations."""
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from flows import ATTACK, odd_parts, odd_records
from nfad.peers import Nearest, PEERS, fit_peer
from nfad.statistics import PARTS
from nfad.studies import (PEER_PARTS, PREPARATIONS, REGULARIZATIONS, benign_kinds, compare_candidates, contamination_sweep,
                          each_alone, fit_scores, flow_variants, kind_folds, peer_parts_fit, plot_criterion, plot_sweep, rank_classes,
                          rank_statistics, redundant_features, size_sweep, statistic_fit, statistic_scores, study_names,
                          with_copies, without_redundant)
from nfad.detector import FlowDetector


EVERY_PART = " + ".join(part.name for part in PARTS)


@pytest.fixture(scope="module")
def parts(): return odd_parts(gap=4)  # two kinds of benign records, far apart


# --- statistics ---------------------------------------------------------------------------------------------

class Spy(FlowDetector):
    "A small flow that remembers which rows it was trained on."
    seen = []
    def fit(self, X, y=None, validation=None, checkpoint=None):
        Spy.seen.append(set(X.index))
        return super().fit(X, validation=validation)


def compare(parts, attack=ATTACK):
    "The study with small flows, and the training rows of each."
    Spy.seen = []
    fit = statistic_fit(lambda seed: Spy(seed=seed, hidden=8, n_layers=1, epochs=3))
    return compare_candidates(fit, parts, attack, n_kinds=4), Spy.seen


@pytest.fixture(scope="module")
def compared(parts): return compare(parts)


def law_kinds(seen, train):
    "The first flow sees every record; each record is kept from exactly one of the others, and so is its whole kind."
    first, *folds = seen
    away = [set(train.index) - fold for fold in folds]
    assert first == set(train.index) and len(folds) > 1
    assert sum(map(len, away)) == len(train) and set.union(*away) == set(train.index)
    kinds = benign_kinds(train, 4)(train)
    for rows in away: assert not set(kinds[list(rows)]) & set(np.delete(kinds, list(rows)))


def test_law_kinds(compared, parts): law_kinds(compared[1], parts["train"])


def test_law_kinds_catches_a_kind_that_stays(parts, monkeypatch):
    monkeypatch.setattr("nfad.studies.kind_folds", lambda kinds, n_folds: [np.array([0]), np.array([1])])
    with pytest.raises(AssertionError): law_kinds(compare(parts)[1], parts["train"])


def law_blind_to_attacks(one, other):
    "Other attacks, the same criterion."
    columns = ["kinds", "pseudo", "criterion", "kinds_tpr", "pseudo_tpr", "criterion_tpr"]
    assert one[columns].equals(other.loc[one.index, columns]) and not one["macro_auroc"].equals(other.loc[one.index, "macro_auroc"])


def test_law_blind_to_attacks(compared, parts):
    one, other = compared[0], compare(parts | {"test": parts["test"][::-1]})[0]
    law_blind_to_attacks(one, other)
    one, other = (table.assign(criterion=table["macro_auroc"]) for table in (one, other))
    with pytest.raises(AssertionError): law_blind_to_attacks(one, other)


def test_the_study_of_statistics(compared):
    table = compared[0]
    assert len(table) == 15 + 6 + 2 + 2 and np.isfinite(table.to_numpy()).all() and table["criterion"].is_monotonic_decreasing
    assert np.allclose(table["criterion"], (table["kinds"] + table["pseudo"]) / 2) and ((table >= 0) & (table <= 1)).all(axis=None)
    assert table.loc[EVERY_PART, "criterion"] > table.loc["typicality", "criterion"]


def test_the_sum_of_all_parts_is_the_default(parts):
    detector = FlowDetector(hidden=8, n_layers=1, epochs=2).fit(parts["train"], validation=parts["reference"])
    broken = parts["test"].assign(still=1.0)
    scores = statistic_scores(detector, parts["reference"])
    for records in (parts["test"], broken): assert np.allclose(scores(records)[EVERY_PART], detector.anomaly_score(records))
    assert (scores(broken) > scores(parts["test"])).all(axis=None)  # a broken constant costs in each


def test_rank_statistics_by_hand():
    usual, strange = pd.DataFrame({"a": [0.0, 1], "b": [0.0, 1]}), pd.DataFrame({"a": [2.0, 2, -1], "b": [2.0, -1, -1]})
    found = rank_statistics(["x", "x", "y"], usual, strange)
    assert found["macro_auroc"].tolist() == [0.5, 0.25] and found["tpr_at_fpr_0.01"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert rank_classes(np.array(["benign", "x"]), np.array([0.0, 1.0]))["macro_auroc"] == 1


def test_folds_hold_every_kind_once():
    kinds = np.random.default_rng(0).choice(9, 500, p=[0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.02])
    folds = kind_folds(kinds, 3)
    assert sorted(np.concatenate(folds)) == list(range(9)) and max(np.isin(kinds, fold).mean() for fold in folds) < 0.5
    assert len(kind_folds(np.array([7, 7]), 4)) == 1
    with pytest.raises(ValueError, match="n_kinds"): benign_kinds(odd_records(5), 6)


def test_names():
    assert study_names("") == [] and study_names("sizes, preparation") == ["sizes", "preparation"]
    with pytest.raises(ValueError, match="studies"): study_names("size")


# --- sweeps and preparations ----------------------------------------------------------------------------------

def test_contamination_hurts(parts):
    intruders = odd_records(100, 9, attack=True)
    fit_near = lambda train: (lambda X, near=Nearest(1).fit(np.log1p(train)): -near.score_samples(np.log1p(X)))
    sweep = contamination_sweep(fit_near, parts["train"], intruders,
                                parts["test"], ATTACK, shares=(0.0, 0.1))
    assert sweep.loc[0.0, "auroc"] > sweep.loc[0.1, "auroc"]
    with pytest.raises(ValueError, match="intruders"):
        contamination_sweep(None, parts["train"], intruders, parts["test"], ATTACK, shares=(0.5,))


def knn_fit(seen=None):
    "A `fit_score` of the nearest record; `seen` collects what it was trained on."
    def fit(train):
        if seen is not None: seen.append(set(train.index))
        model = Nearest(1).fit(np.log1p(train[["size", "other"]].to_numpy()))
        return lambda X: -model.score_samples(np.log1p(np.maximum(X[["size", "other"]].to_numpy(), 0)))
    return fit


def law_nested(sweep, parts):
    "Sizes ascend to n, each part holds the smaller ones, and the test is never trained on."
    seen = []
    table = sweep(knn_fit(seen), parts["train"], parts["test"].rename(index=lambda i: i + 10_000), ATTACK, sizes=(20, 100, 9999))
    assert list(table.index) == [20, 100, 500] and [len(part) for part in seen] == [20, 100, 500]
    assert seen[0] < seen[1] < seen[2] == set(parts["train"].index)


def test_law_nested(parts): law_nested(size_sweep, parts)


def test_law_nested_catches_fresh_draws(parts):
    def fresh(fit_score, train, test, attack, sizes):
        rng = np.random.default_rng(0)
        drawn = [train.iloc[rng.permutation(len(train))[:min(n, len(train))]] for n in sizes]
        return pd.concat([size_sweep(fit_score, part, test, attack, sizes=()) for part in drawn])
    with pytest.raises(AssertionError): law_nested(fresh, parts)


def test_more_records_help(parts):
    found = size_sweep(knn_fit(), parts["train"], parts["test"], ATTACK, sizes=(5,))
    assert found.loc[500, "auroc"] > found.loc[5, "auroc"] and found.loc[500, "macro_auroc"] == pytest.approx(found.loc[500, "auroc"])


def test_a_sweep_trains_the_peers_of_the_table(parts):
    score = fit_scores(["knn", "nfad"], None, parts["reference"], seed=3)["knn"](parts["train"])
    assert np.array_equal(score(parts["test"]), fit_peer(PEERS["knn"], parts["train"], parts["reference"], 3)[0](parts["test"]))
    with pytest.raises(ValueError, match="names"): fit_scores(["pzflow"], None, parts["reference"])


def law_redundant(find):
    "What is left has full rank, and spans what all columns span; a nonlinear function stays."
    X = odd_records(300)[["size", "other"]]
    X = X.assign(copy=X["size"], scaled=3 * X["other"] - 7, sum=X["size"] + X["other"], square=X["size"] ** 2, constant=1.0)
    left = X.drop(columns=find(X))
    rank = lambda table: np.linalg.matrix_rank((table - table.mean()) / table.std().replace(0, 1))
    assert rank(left) == left.shape[1] == rank(X) == 3 and list(left.columns) == ["size", "other", "square"]


def test_law_redundant(): law_redundant(redundant_features)


def test_law_redundant_catches_a_search_by_pairs():
    def by_pairs(X):
        names = list(X.columns)
        return ["constant"] + [b for i, b in enumerate(names) if any(abs(X[a].corr(X[b])) > 1 - 1e-9 for a in names[:i])]
    with pytest.raises(AssertionError): law_redundant(by_pairs)


def knn_variant(train, reference): return knn_fit()(train)
def nothing(train, reference): return lambda X: np.zeros(len(X))


def law_picks(compare, parts):
    "Of two detectors side by side the criterion takes the one that sees something, whatever the test holds."
    fit = each_alone({"nothing": nothing, "near": knn_variant})
    one = compare(fit, parts, ATTACK, n_kinds=4)
    other = compare(fit, parts | {"test": parts["test"][::-1]}, ATTACK, n_kinds=4)
    assert one["criterion"].equals(other["criterion"]) and one.loc["near", "macro_auroc"] != other.loc["near", "macro_auroc"]
    assert one.index[0] == "near" and one.loc["nothing", "criterion"] == 0.5


def test_law_picks(parts): law_picks(compare_candidates, parts)


def test_law_picks_catches_a_choice_by_labels(parts):
    def cheat(fit, parts, attack, n_kinds):
        table = compare_candidates(fit, parts, attack, n_kinds=n_kinds)
        return table.assign(criterion=table["macro_auroc"])
    with pytest.raises(AssertionError): law_picks(cheat, parts)


class Recorder:
    "Stands for a FlowDetector: keeps its settings and the columns it was trained on."
    made = []
    def set_params(self, **options): self.options = options; self.made.append(self); return self
    def fit(self, X, validation): assert list(X.columns) == list(validation.columns); self.columns = list(X.columns); return self
    def anomaly_score(self, X): assert list(X.columns) == self.columns; return X.to_numpy().sum(axis=1)


def test_every_variant_is_a_detector():
    for name, options in (PREPARATIONS | REGULARIZATIONS).items():
        assert (options == {}) == (name == "default")
        detector = FlowDetector().set_params(**options)
        with pytest.raises(ValueError, match="X must hold at least 8"): detector.fit(odd_records(3))  # all settings were accepted


def test_variants_of_the_flow(parts):
    Recorder.made = []
    wide = {name: part.assign(twice=2 * part["size"]) for name, part in parts.items()}
    variants = flow_variants(lambda seed: Recorder(), {"default": {}, "quantile": {"transform": "quantile"}})
    variants["fewer"] = without_redundant(variants["default"])
    scores = each_alone(variants)(wide["train"], wide["reference"])(wide["test"])
    assert list(scores) == ["default", "quantile", "fewer"] and len(scores) == len(parts["test"])
    assert [made.options for made in Recorder.made] == [{}, {"transform": "quantile"}, {}]
    assert set(Recorder.made[0].columns) - set(Recorder.made[2].columns) == {"twice"}  # a constant stays: whoever breaks it is seen


def law_copies(variant, train):
    "Each record is trained on as often as it was read, its duplicates included, and held-out records are as they were."
    seen, copies = {}, pd.Series(np.arange(len(train)) % 3 + 1, index=train.index)
    def fit_one(train, reference):
        seen.update(counts=train.index.value_counts().sort_index(), reference=reference)
        return nothing(train, reference)
    variant(fit_one, copies)(part := train.iloc[::2], train)
    assert seen["counts"].to_list() == copies[part.index].to_list() and seen["reference"] is train


def test_law_copies(parts): law_copies(with_copies, parts["train"])


def test_law_copies_catches_positions_for_row_numbers(parts):
    def by_position(fit_one, copies):
        repeated = lambda train: train.loc[train.index.repeat(copies.to_numpy()[:len(train)])]
        return lambda train, reference: fit_one(repeated(train), reference)
    with pytest.raises(AssertionError): law_copies(by_position, parts["train"])


def test_an_ensemble_has_a_spread(parts):
    pair = FlowDetector(hidden=8, n_layers=1, epochs=1, n_members=2, feature_order="shuffled")
    two = pair.fit(parts["train"], validation=parts["reference"])
    each, mean = two.member_log_prob(parts["test"]), two.log_prob_terms(parts["test"]).sum(axis=1)
    assert each.shape == (500, 2) and np.allclose(each.mean(axis=1), mean, atol=1e-3) and not np.allclose(each[:, 0], each[:, 1])
    found = statistic_scores(two, parts["reference"])(parts["test"])["member_spread"]
    assert np.allclose(found, np.abs(each[:, 0] - each[:, 1]) / 2)


def test_figures():
    columns = {"criterion": [0.5, 0.7, 0.6], "criterion_tpr": [0.3, 0.2, 0.1], "macro_auroc": [0.6, 0.8, 0.7]}
    criterion = pd.DataFrame(columns, index=list("abc"))
    axes = plot_criterion(criterion, ax=pyplot.figure().gca())
    assert "1.00" in axes.get_title() and {text.get_text() for text in axes.texts} == set("abc")
    axes = plot_criterion(criterion, by="criterion_tpr", mark=["b"], ax=pyplot.figure().gca())
    assert [text.get_text() for text in axes.texts] == ["b"] and "-0.50" in axes.get_title() and "TPR" in axes.get_xlabel()
    for name, varied, scale in (("training records", [10, 100], "log"), ("contamination", [0.0, 0.1], "symlog")):
        sweep = pd.DataFrame({"macro_auroc": [0.5, 0.6]}, index=pd.Index(varied, name=name))
        axes = plot_sweep({"a": sweep}, ax=pyplot.figure().gca())
        assert axes.get_xscale() == scale and axes.get_xlabel() == name and len(axes.get_xticks()) == 2
    pyplot.close("all")


# --- peers as parts -----------------------------------------------------------------------------------------

def law_added(fit, parts):
    "The default column is nfad's score; a peer adds the same surprise, never negative, to the sum and to the sum without local."
    detector = FlowDetector(hidden=8, n_layers=1, epochs=2).fit(parts["train"], validation=parts["reference"])
    found = fit(parts["train"], parts["reference"])(parts["test"])
    assert np.allclose(found["default"], detector.anomaly_score(parts["test"]))
    for name in PEER_PARTS:
        added = found[f"+ {name}"] - found["default"]
        assert (added >= 0).all() and np.allclose(added, found[f"{name} for local"] - found["without local"])
        usual = fit(parts["train"], parts["reference"])(parts["reference"])
        assert np.mean(usual[f"+ {name}"] - usual["default"] > -np.log(0.05)) <= 0.05  # rare among held-out benign records


def small_parts_fit(): return peer_parts_fit(lambda seed: FlowDetector(hidden=8, n_layers=1, epochs=2, seed=seed))


def test_law_added(parts): law_added(small_parts_fit(), parts)


def test_law_added_catches_scores_that_are_no_surprises(parts, monkeypatch):
    class Raw:
        def __init__(self, scores): self.usual = np.sort(scores)
        def surprise(self, x): return np.abs(np.asarray(x)) * 100
    monkeypatch.setattr("nfad.studies.Tail", Raw)
    with pytest.raises(AssertionError): law_added(small_parts_fit(), parts)
