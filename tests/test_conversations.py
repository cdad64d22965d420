"""Laws of nfad.conversations: what a split by conversation leaves of a detector, and why."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from nfad.conversations import (held_out_cases, is_known_service, plot_held_out, services_of, shuffle_records,
                                some_conversations, study_held_out)
from nfad.detector import FlowDetector
from nfad.runs import prepare
from nfad.splits import split_dataset


def quick(seed=0): return FlowDetector(hidden=8, n_layers=1, epochs=2, seed=seed)


def by_conversation(seed, folder): return prepare("demo", "paper6", "grouped", {"train": 300, "attack": 200}, seed, folder, progress=False)


def law_whole(draw):
    "Conversations stay whole, a smaller part lies inside a larger one, and 1 is everything."
    groups = np.random.default_rng(0).choice(list("abcdefgh"), 200)
    parts = [draw(groups, share, 3) for share in (0.25, 0.5, 1.0)]
    for part, n in zip(parts, (2, 4, 8), strict=True):
        assert len(set(groups[part])) == n and not set(groups[part]) & set(groups[~part])
    assert (parts[1][parts[0]]).all() and parts[2].all()


def test_law_whole(): law_whole(some_conversations)


def test_law_whole_catches_a_draw_of_records():
    def of_records(groups, share, seed): return np.random.default_rng(seed).random(len(groups)) < share
    with pytest.raises(AssertionError): law_whole(of_records)


def test_a_service_is_known_whoever_used_it():
    assert services_of(np.array(["10.0.0.1|10.0.0.2|6|443", "mail 36"])).tolist() == ["6|443", "mail"]
    assert is_known_service(np.array(["c|d|6|443", "a|b|17|443", "a|b|6|44"]), np.array(["a|b|6|443"])).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="share"): some_conversations(np.array(["a"]), 1.5)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    prepared = by_conversation(0, tmp_path_factory.mktemp("runs"))
    everything = np.ones(len(prepared.split.train), dtype=bool)
    detector = quick().fit(prepared.part("train"), validation=prepared.part("reference"))
    return prepared, detector, held_out_cases(detector, prepared, everything)


def test_the_first_case_is_the_score_itself(cases):
    prepared, detector, table = cases
    attack, scores = prepared.dataset.attack[prepared.split.test], detector.anomaly_score(prepared.part("test"))
    threshold = np.sort(scores[attack == "benign"])[-1 - int(0.05 * (attack == "benign").sum())]
    assert table.loc["as it is", "tpr_at_fpr_0.05"] == pytest.approx(np.mean(scores[attack != "benign"] > threshold))
    assert table.loc["as it is", "n_benign"] == (attack == "benign").sum()


def test_only_benign_records_leave(cases):
    "What training never saw of services leaves the test, attacks stay."
    prepared, detector, table = cases
    groups, split = prepared.dataset.groups, prepared.split
    benign = prepared.dataset.attack[split.test] == "benign"
    known = is_known_service(groups[split.test], groups[split.train])
    assert table.loc["known services", "n_benign"] == (benign & known).sum()
    one = split.train == split.train[0]  # trained on one record: few services are known
    fewer = held_out_cases(detector, prepared, one)
    assert fewer.loc["known services", "n_benign"] <= table.loc["known services", "n_benign"]
    assert fewer.loc["as it is"].to_dict() == table.loc["as it is"].to_dict()


def test_the_study_has_every_case_of_every_seed_and_share(tmp_path):
    table = study_held_out(lambda seed: by_conversation(seed, tmp_path), quick, [0, 1], (0.5, 1.0))
    assert len(table) == 2 * 2 * 4 and table.groupby(["seed", "share", "case"]).size().eq(1).all()
    for _, part in table.groupby("seed"): assert part.groupby("share")["n_conversations"].first().is_monotonic_increasing
    lines = plot_held_out(table, ax=pyplot.figure().gca()).get_legend().get_texts()
    assert [line.get_text() for line in lines] == list(pd.unique(table["case"]))
    pyplot.close("all")


def law_large_first(draw, prepared):
    "Parts share no conversation, keep the attacks, and training has the largest conversation nearly always."
    data, groups, large = prepared.dataset, prepared.dataset.groups, []
    names, sizes = np.unique(groups[~data.is_attack], return_counts=True)
    biggest = names[sizes.argmax()]
    for seed in range(60):
        split = draw(prepared, seed).split
        benign = split.test[~data.is_attack[split.test]]
        sides = [set(groups[rows]) for rows in (split.train, split.reference, split.calibration, benign)]
        assert sum(map(len, sides)) == len(set.union(*sides))
        assert set(split.test) - set(benign) == set(prepared.split.test[data.is_attack[prepared.split.test]])
        large.append(biggest in sides[0])
    assert np.mean(large) > 0.9


def one_giant(tmp_path):
    "The embedded set, where a quarter of the benign records are one conversation."
    prepared = by_conversation(0, tmp_path)
    data = prepared.dataset
    groups = data.groups.copy()
    benign = np.flatnonzero(~data.is_attack)
    groups[benign[: len(benign) // 4]] = "web 0"
    return prepared._replace(dataset=replace(data, groups=groups))


def test_law_large_first(tmp_path): law_large_first(shuffle_records, one_giant(tmp_path))


def test_law_large_first_catches_shuffled_conversations(tmp_path):
    "The split itself shuffles conversations, and gives the largest no more than its turn."
    def of_conversations(prepared, seed):
        split = split_dataset(prepared.dataset, "grouped", sizes={"train": 300, "attack": 200}, seed=seed)
        return prepared._replace(split=split)
    with pytest.raises(AssertionError): law_large_first(of_conversations, one_giant(tmp_path))
