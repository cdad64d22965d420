"""Laws of nfad.rivals: costs and ratios, FlowJAX's own split, densities of the rivals, records and tables. No time is a test."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from nfad import rivals as r
from nfad.baseline import heavy_tailed, make_workload
from nfad.rivals import RIVALS, Course, contender_row, flow_table, one_thread, ratio_table, rival_names, shortest

INSTALLED = rival_names()[0]


@pytest.fixture(scope="module")
def workload(): return make_workload(heavy_tailed(154, 3), n=128)


# --- costs and ratios ------------------------------------------------------------------------------------------

def law_costs(course_of):
    "Compilation counts once and cold only, an epoch as often as it is trained; the best epoch is the one with the lowest loss."
    course, slow = course_of((3.0, 1.0, 2.0), 10.0, 0.5), course_of((3.0, 1.0, 2.0), 1000.0, 0.5)
    assert course.best() == (2, 1.0) and course.loop_cpu(2) == slow.loop_cpu(2) == 1.0
    assert course.cold_cpu(2) == 11.0 and slow.cold_cpu(2) == 1001.0
    assert course_of((np.nan, 2.0, np.nan), 0.0, 1.0).best() == (2, 2.0)


def test_law_costs(): law_costs(Course)


class Forgetful(Course):
    def cold_cpu(self, epochs): return self.loop_cpu(epochs)


class Last(Course):
    def best(self): return len(self.validation_nll), self.validation_nll[-1]


@pytest.mark.parametrize("broken", [Forgetful, Last])
def test_law_costs_catches(broken):
    with pytest.raises(AssertionError): law_costs(broken)


def law_ratios(contender_row):
    "Twice as fast an nfad doubles both ratios; who never comes to the target has none, and nobody's ratio is made up for him."
    rival = Course((3.0, 1.0), 20.0, 2.0)
    def against(losses, factor=1.0): return contender_row(rival, {"fast": (losses, Course((), 4.0 * factor, 1.0 * factor))})
    base, twice = against({1: 2.0, 2: 0.9}), against({1: 2.0, 2: 0.9}, 0.5)
    assert base["fast_epochs"] == 2 and base["fast_cold_ratio"] == 4.0 and base["fast_loop_ratio"] == 2.0
    for key in ("fast_cold_ratio", "fast_loop_ratio"): assert np.isclose(twice[key], 2 * base[key])
    never = against({1: 2.0, 2: 1.1})
    assert never["fast_epochs"] == 0 and not [key for key in never if key.endswith("ratio")]


def test_law_ratios(): law_ratios(contender_row)


def test_law_ratios_catches_an_inverted_ratio():
    def inverted(*arguments):
        return {key: 1 / value if "ratio" in key else value for key, value in contender_row(*arguments).items()}
    with pytest.raises(AssertionError): law_ratios(inverted)


def test_law_ratios_catches_a_filled_gap():
    def filled(*arguments): return {"fast_cold_ratio": 1.0, **contender_row(*arguments)}
    with pytest.raises(AssertionError): law_ratios(filled)


def test_the_shortest_schedule_that_is_good_enough():
    assert shortest({1: 3.0, 2: 1.0, 5: 0.5, 7: 0.9}, 1.0) == 2 and shortest({1: 3.0}, 1.0) == 0 and shortest({}, 1.0) == 0


def law_search(nfad_losses, monkeypatch):
    "Of schedules that get better with their length, the shortest one is found for each target; a hopeless one costs one training."
    tried = []
    def fit(workload, preset, epochs, *rest):
        tried.append(epochs)
        return None, 10.0 - epochs
    monkeypatch.setattr(r, "fit_nfad", fit)
    found = nfad_losses(None, "fast", [9.5, 5.5, -20.0, -1e3], 0.02)
    assert [shortest(found, target) for target in (9.5, 5.5, -20.0, -1e3)] == [1, 5, 40, 0]
    assert len(tried) == len(set(tried))
    tried.clear()
    assert list(nfad_losses(None, "fast", [-1e3], 0.02)) == tried == [r.EPOCHS[-1]]


def test_law_search(monkeypatch): law_search(r.nfad_losses, monkeypatch)


def test_law_search_catches_a_coarse_one(monkeypatch):
    def coarse(*arguments): return {epochs: 10.0 - epochs for epochs in (1, 10, 100)}
    with pytest.raises(AssertionError): law_search(coarse, monkeypatch)


# --- the rivals ------------------------------------------------------------------------------------------------

def law_split(laid_out):
    "FlowJAX's own split of the rows gives our training and validation rows back."
    flowjax, jax = pytest.importorskip("flowjax.train.train_utils"), pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    for n, m, seed in ((50, 10, 0), (128, 26, 3)):
        train, validation = (rng.normal(size=(k, 2)).astype(np.float32) for k in (n, m))
        key = jax.random.key(seed)
        rows = jax.numpy.asarray(laid_out(train, validation, key))
        (ours,), (theirs,) = flowjax.train_val_split(jax.random.split(key)[1], (rows,), val_prop=m / (n + m))
        assert np.array_equal(ours, train) and np.array_equal(theirs, validation)


def test_law_split(): law_split(r.laid_out)


def test_law_split_catches_rows_as_they_come():
    with pytest.raises(AssertionError): law_split(lambda train, validation, key: np.concatenate([train, validation]))


def law_density(scorer):
    "The density of two features integrates to one on a wide grid."
    axis = np.linspace(-40, 40, 512, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    total = np.exp(np.asarray(scorer(grid), np.float64)).sum() * (axis[1] - axis[0]) ** 2
    assert abs(total - 1) < 0.02


@pytest.mark.parametrize("name", INSTALLED)
def test_law_density(name): law_density(r.rival_scorer(name, 2))


def test_law_density_catches_half_a_nat():
    normal = lambda Z: -0.5 * np.square(Z).sum(axis=1) - np.log(2 * np.pi)
    law_density(normal)
    with pytest.raises(AssertionError): law_density(lambda Z: normal(Z) + 0.5)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_training_gets_better_and_can_be_repeated(name, workload):
    train = r.TRAINERS[RIVALS[name].library](RIVALS[name]._replace(batch_size=32), workload)
    losses = train(3)[1]
    assert len(losses) == 3 and min(losses[1:]) < losses[0] and np.allclose(train(3)[1], losses, atol=1e-4)


@pytest.mark.parametrize("library", sorted({RIVALS[name].library for name in INSTALLED}))
def test_patience_is_the_same_for_all(library, workload):
    "With a rate of zero nothing gets better: training ends one epoch later than patience allows."
    still = RIVALS[library]._replace(learning_rate=0.0, falls=False, patience=2, batch_size=32, epochs=20)
    losses = r.TRAINERS[library](still, workload)(20)[1]
    assert len(losses) == np.argmin(losses) + 1 + still.patience + 1


def test_names():
    here, absent = rival_names()
    assert sorted(here + absent) == sorted(RIVALS)
    with pytest.raises(ValueError, match="did you mean 'zuko'"): rival_names(["zucko"])


def test_no_rival_is_loaded_before_it_is_asked_for():
    code = "import nfad.rivals, sys; print(sorted({'torch', 'flowjax', 'zuko', 'equinox'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --- processes and records -------------------------------------------------------------------------------------

def test_one_thread_is_for_children_inside_only(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    with pytest.raises(KeyError):
        with one_thread():
            assert os.environ["OMP_NUM_THREADS"] == "1" and "multi_thread_eigen=false" in os.environ["XLA_FLAGS"]
            raise KeyError
    assert os.environ["OMP_NUM_THREADS"] == "7" and "XLA_FLAGS" not in os.environ


def test_a_record_is_made_once(workload, tmp_path, monkeypatch):
    calls = []
    def fake(function, arguments):
        calls.append(arguments)
        return {"validation_nll": [2.0, 1.0], "compile_cpu": 1.0, "epoch_cpu": 1.0}, None
    monkeypatch.setattr(r, "in_fresh_process", fake)
    for _ in range(2): assert r.rival_course("zuko", workload, 5.0, tmp_path) == Course((2.0, 1.0), 1.0, 1.0)
    assert len(calls) == 1
    r.rival_course("zuko", workload, 6.0, tmp_path)
    r.rival_course("zuko", workload._replace(noisy=workload.Z), 5.0, tmp_path)
    assert len(calls) == 3  # another budget, other rows


def test_all_contenders_have_a_row(workload, tmp_path, monkeypatch):
    def fake(function, arguments):
        if function == "rivals.job_score": return {name: 1e5 for name in ("nfad_default", "nfad_fast")} | {"zuko": 2e4}, None
        if function == "rivals.job_nfad": return {"compile_cpu": 2.0, "epoch_cpu": 0.5}, None
        return {"compile_cpu": 8.0, "epoch_cpu": 1.0, "validation_nll": [3.0, 2.5]}, None
    monkeypatch.setattr(r, "in_fresh_process", fake)
    monkeypatch.setattr(r, "fit_nfad", lambda workload, preset, epochs, *rest: (None, 4.0 - epochs))
    plain = workload._replace(noisy=workload.Z, noisy_validation=workload.Z_validation)
    found = r.measure_flows(3, {0.02: workload, 0.0: plain}, ["zuko"], [], r.PRESETS, 1, 5.0, tmp_path)
    zuko, default, fast = found[:3]
    assert [row["contender"] for row in found] == ["zuko"] + 2 * ["nfad_default", "nfad_fast"]  # without noise tuned rivals only
    assert zuko["cold_cpu"] == 10.0 and zuko["fast_epochs"] == 2 and np.isclose(zuko["fast_cold_ratio"], 10 / 3)
    assert zuko["fast_score_ratio"] == 5.0 and default["best_epoch"] == 60 and fast["score_rows_per_cpu_second"] == 1e5


def test_a_run_that_is_cut_off_leaves_what_it_has(tmp_path, monkeypatch):
    def fake(d, *rest):
        if d == 4: raise RuntimeError("cut off")
        return [{"d": d, "contender": "zuko"}]
    monkeypatch.setattr(r, "measure_flows", fake)
    with pytest.raises(RuntimeError, match="cut off"): r.measure_rivals(d=[3, 4], n=50, folder=tmp_path)
    left = json.loads((tmp_path / "rivals_synthetic.json").read_text())
    assert left["flows"] == [{"rows": "synthetic", "d": 3, "contender": "zuko"}]


def test_without_noise_nothing_is_blurred():
    plain, noisy = (r.flow_workload("synthetic", "ids2017", 3, 50, blurred, 0) for blurred in (False, True))
    assert np.array_equal(plain.noisy, plain.Z) and not np.array_equal(noisy.noisy, noisy.Z)
    assert np.array_equal(plain.Z, noisy.Z)


# --- tables ----------------------------------------------------------------------------------------------------

ROW = {"rows": "made up", "d": 6, "noise": 0.02, "default_score_ratio": 0.5, "best_nll": 1.0, "best_epoch": 2, "epochs": 2,
       "cold_cpu": 3.0, "loop_cpu": 2.0, "score_rows_per_cpu_second": 1e5}


def law_table(ratio_table):
    "A ratio below one is shown as it is, and a target that nfad does not reach as that."
    flows = [ROW | {"contender": "zuko", "default_cold_ratio": 0.25}, ROW | {"contender": "flowjax"},
             ROW | {"contender": "nfad_fast"}, ROW | {"contender": "zuko", "noise": 0.0, "default_cold_ratio": 9.0}]
    table = ratio_table(flows)
    assert table.loc[("made up", 6)].to_dict() == {"FlowJAX, as documented": "not reached", "zuko, as documented": "0.2 x"}
    assert set(ratio_table(flows, "score").loc[("made up", 6)]) == {"0.5 x"}


def test_law_table(): law_table(ratio_table)


def test_law_table_catches_a_dropped_defeat():
    def proud(flows, *rest): return ratio_table([row for row in flows if row.get("default_cold_ratio", 0) >= 1], *rest)
    with pytest.raises((AssertionError, KeyError)): law_table(proud)


def test_tables_of_nothing_and_of_everybody():
    assert ratio_table([]).empty
    table = flow_table([ROW | {"contender": name} for name in (*r._LABELS, "nfad_default", "nfad_fast")])
    assert len(table) == len(r._LABELS) + 2 and not table.isna().any(axis=None)
