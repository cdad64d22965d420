"""Laws of 07d_rounds: what a night holds, who is judged on what, and that no player sees the judge's records."""
import numpy as np
import pandas as pd
import pytest

from nfad.verdicts import VerdictModel
from nights import detector, strange, traffic
from nfad.rounds import (PLAYERS, Night, collect_rounds, judge_round, night_rows, play, rounds_table, unanswered_change,
                         verdicts_record)


class Score:
    "A detector whose score is the first column."
    transform_ = type("T", (), {"transform": staticmethod(lambda part: part.to_numpy(np.float32))})
    def anomaly_score(self, part): return part["a"].to_numpy(float)


def made_up(seed=0):
    rng = np.random.default_rng(seed)
    def part(n, at): return pd.DataFrame(rng.standard_normal((n, 3)) + at, columns=list("abc"))
    kinds = np.repeat(["benign", "x", "y"], [200, 8, 2])
    records = pd.concat([part(200, 0), part(8, 3), part(2, [0, 6, 0])], ignore_index=True)
    others = pd.concat([part(400, 0), part(50, 3), part(20, [0, 6, 0])], ignore_index=True)
    return Night(Score(), part(300, 0), part(50, 0), part(200, 0), records, kinds != "benign", kinds, others,
                 np.repeat(["benign", "x", "y"], [400, 50, 20]), {"x": 500, "y": 20})


@pytest.mark.parametrize("seed", range(5))
def test_a_night_has_every_class_and_leaves_half_of_each(seed):
    rng = np.random.default_rng(seed)
    attack = rng.permutation(np.repeat(["benign", "big", "small", "pair"], [3000, 2000, 40, 2]))
    rows = night_rows(attack, rng)
    counts, all_counts = pd.Series(attack[rows]).value_counts(), pd.Series(attack).value_counts()
    assert len(set(rows)) == len(rows)
    assert counts["benign"] == 1500 and set(counts.index) == {"benign", "big", "small", "pair"}
    assert (counts <= all_counts[counts.index] // 2).all()
    assert 40 < counts.drop("benign").sum() < 130  # 5 % of the night, more or less
    assert night_rows(attack, rng, most_benign=100).shape[0] < 130


def test_a_class_of_one_record_is_left_to_the_judge():
    attack = np.array(["benign"] * 100 + ["once"])
    assert 100 not in night_rows(attack, np.random.default_rng(0))


def test_the_judge_weighs_classes_by_their_size_and_by_one():
    night = made_up()
    others = np.where(night.other_kinds == "x", 10.0, np.where(night.other_kinds == "y", -10.0, 0.0))
    found = judge_round(night, np.zeros(200), others)
    assert found["found"] == {"x": 1.0, "y": 0.0}
    assert found["tpr_at_fpr_0.01"] == pytest.approx(500 / 520) and found["macro_tpr"] == 0.5
    assert found["realised_fpr"] == 0 and found["macro_auroc"] == pytest.approx(0.5)


def test_a_player_is_told_of_records_of_the_night_once():
    told = []

    def player(night, rounds, seed):
        yield np.zeros(200), np.zeros(470)
        for n in rounds:
            rows = list(range(len(told), len(told) + n))
            told.extend((yield rows).tolist())
            yield np.zeros(200), np.zeros(470)

    PLAYERS["made_up"] = player, 0.0
    try: results = play(made_up(), "made_up", (100, 110))
    finally: del PLAYERS["made_up"]
    assert [result["answers"] for result in results] == [0, 100, 210]
    assert told == made_up().is_attack.tolist() and results[-1]["kinds"] == 2 and results[-1]["attacks"] == 10


def test_a_second_look_is_an_answer_like_another_and_counts():
    told = []

    def player(night, rounds, seed):
        yield np.zeros(200), np.zeros(470)
        told.append((yield [0, 200]))
        told.append((yield [200, 209]))  # row 200 again, and a new one
        yield np.zeros(200), np.zeros(470)

    before, after = play(made_up(), "made_up", players={"made_up": (player, 0.0)})
    assert [each.tolist() for each in told] == [[False, True], [True, True]]
    assert (before["answers"], after["answers"], after["attacks"], after["kinds"]) == (0, 4, 2, 2)


def test_second_looks_are_taken_once_and_what_they_say_is_learnt(detector):
    "Ten questions a round, one of them a second look at an answer of this or an earlier round."
    records = pd.concat([traffic(120, 8), strange(12, 8)], ignore_index=True)
    truth = np.arange(132) >= 120
    kinds = np.where(truth, "x", "benign")
    night = Night(detector, traffic(300), traffic(50, 3), traffic(200, 4), records, truth, kinds, records, kinds, {"x": 12})
    player, seen, said = PLAYERS["nfad_second"][0](night, (10, 10), 0), [], {}
    assert len(next(player).calibration) == 200
    for turn in range(2):
        new = next(player)
        assert len(new) == 9 and not set(new) & set(said)
        said |= dict.fromkeys(new, False)  # everything is called benign at first
        again = player.send(np.zeros(9, bool))
        assert len(again) == 1 and set(again) <= set(said) - set(seen)
        seen += again
        said |= {row: True for row in again}
        scores = player.send(np.ones(1, bool))
        expected = VerdictModel.learn(detector, records.iloc[list(said)], list(said.values()), night.calibration, seed=0)
        assert np.array_equal(scores.others, expected.anomaly_score(records))


def test_wrong_answers_are_as_many_as_they_should_be():
    told = []

    def player(night, rounds, seed):
        yield np.zeros(200), np.zeros(470)
        told.extend((yield list(range(210))).tolist())
        yield np.zeros(200), np.zeros(470)

    PLAYERS["made_up"] = player, 0.1
    try: play(made_up(), "made_up", (210,))
    finally: del PLAYERS["made_up"]
    assert 5 <= (np.array(told) != made_up().is_attack).sum() <= 40


def test_tables_and_records_are_flat_and_strict_json(tmp_path):
    import json
    rows = [{"player": name, "answers": n, "seed": seed, **dict.fromkeys(
        ("tpr_at_fpr_0.01", "macro_tpr", "macro_auroc", "realised_fpr", "in_band", "attacks", "kinds"), 0.1 * seed + n),
        "unanswered_change": np.nan} for name in ("nfad", "aad") for n in (0, 20) for seed in (1, 2, 3)]
    table = rounds_table(pd.DataFrame(rows))
    said = verdicts_record(table, {"dataset": "here"})
    json.dumps(said, allow_nan=False)
    assert said["tpr_at_fpr_0.01_after_20"] == pytest.approx(20.2) and said["aad_macro_tpr_after_0"] == pytest.approx(0.2)
    assert table.loc[0, "tpr_at_fpr_0.01_low"] < 0.2 < table.loc[0, "tpr_at_fpr_0.01_high"]
    from nfad.core import write_json
    (tmp_path / "here" / "all").mkdir(parents=True)
    write_json(tmp_path / "here" / "all" / "verdicts.json", said)
    assert len(collect_rounds(tmp_path)) == 4
    with pytest.raises(FileNotFoundError, match="07d_rounds"): collect_rounds(tmp_path / "here")


def test_classes_with_an_answer_do_not_count_as_unanswered():
    results = [{"found": {"x": 0.1, "y": 0.5}, "answered": []}, {"found": {"x": 0.9, "y": 0.4}, "answered": ["benign", "x"]},
               {"found": {"x": 0.9, "y": 0.9}, "answered": ["x", "y"]}]
    change = unanswered_change(results)
    assert change[:2] == pytest.approx([0, -0.1]) and np.isnan(change[2])
