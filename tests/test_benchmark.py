"""Laws of nfad.benchmark: the clock, turns, fresh processes, memory, targets and ratios. No time is a test: machines are shared."""
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from nfad import benchmark as b
from nfad.measure import Cost, cost_of, in_fresh_process, interleave, peak_memory
from nfad.baseline import Arrival, PEERS, arrival, heavy_tailed, make_task, task_rows
from nfad.benchmark import (SCHEDULES, TARGETS, by_dimension, matmul_actions, plot_cost, plot_sizes, score_sizes,
                            scoring_keys, target_table, train_sizes, training_ratios, weight_matrices)


@pytest.fixture(scope="module")
def task(): return make_task(heavy_tailed(154, 3), n=128)


# --- clock and turns ----------------------------------------------------------------------------------------

class Weather:
    "A clock that actions move on, in place of the machine's."
    def __init__(self, monkeypatch):
        self.now = Cost(0.0, 0.0)
        monkeypatch.setattr(b, "clock", lambda: self.now)

    def spend(self, wall, cpu): self.now = Cost(self.now.wall + wall, self.now.cpu + cpu)


def law_turns(interleave, weather):
    "One unmeasured run each, then strict turns; the median of the turns is given back, storms and all."
    order, storms = [], iter([1000.0, 1.0, 900.0, 2.0, 3.0, 1.0])
    def a():
        order.append("a")
        weather.spend(next(storms), 0.5)
    def c():
        order.append("c")
        weather.spend(0.25, 0.125)
    cost = interleave({"a": a, "c": c}, 5)
    assert "".join(order) == "ac" * 6
    assert cost == {"a": Cost(2.0, 0.5), "c": Cost(0.25, 0.125)}


def blocks_of_runs(actions, repeats):
    return {name: Cost(*np.median([cost_of(action) for _ in range(repeats + 1)][1:], axis=0).tolist()) for name, action in actions.items()}


def worst_of_turns(actions, repeats):
    for action in actions.values(): action()
    turns = [{name: cost_of(action) for name, action in actions.items()} for _ in range(repeats)]
    return {name: Cost(*np.max([turn[name] for turn in turns], axis=0).tolist()) for name in actions}


def test_law_turns(monkeypatch): law_turns(interleave, Weather(monkeypatch))


@pytest.mark.parametrize("broken", [blocks_of_runs, worst_of_turns])
def test_law_turns_catches(broken, monkeypatch):
    with pytest.raises(AssertionError): law_turns(broken, Weather(monkeypatch))


def law_waits(cost_of):
    "Work that is still going on in the background belongs to the action that started it."
    a = jnp.ones((1200, 1200))
    work = jax.jit(lambda a: jax.lax.fori_loop(0, 8, lambda i, x: x @ a / 1200, a))
    work(a).block_until_ready()
    start = time.process_time()
    measured = cost_of(lambda: work(a)).cpu
    work(a).block_until_ready()
    both = time.process_time() - start
    assert measured > 0.25 * both


def test_law_waits(): law_waits(cost_of)


def test_law_waits_catches_a_clock_that_does_not_wait():
    def hasty(action):
        before = b.clock()
        action()
        return Cost(*np.subtract(b.clock(), before))
    with pytest.raises(AssertionError):
        for _ in range(5): law_waits(hasty)
        pytest.skip("this machine runs jax's work in the calling thread")


def test_repeats_are_checked():
    with pytest.raises(ValueError, match="repeats"): interleave({"a": int}, 0)


# --- fresh processes ----------------------------------------------------------------------------------------

def test_a_fresh_process_sees_the_cache_it_is_given(tmp_path):
    code = f"import os, json, pathlib\npathlib.Path({str(tmp_path / 'env.json')!r}).write_text(json.dumps(dict(os.environ)))\n"
    for cache, wanted in (("off", ("off", None)), (tmp_path, ("on", str(tmp_path)))):
        result, cost = in_fresh_process(code, cache=cache)
        found = json.loads((tmp_path / "env.json").read_text())
        assert found["NFAD_COMPILATION_CACHE"] == wanted[0] and result is None and cost.wall > 0
        if wanted[1]: assert found["NFAD_CACHE"] == wanted[1]


def test_a_fresh_process_counts_its_own_work():
    _, idle = in_fresh_process("pass\n")
    _, busy = in_fresh_process("import time\nwhile time.process_time() < 0.6: pass\n")
    assert busy.cpu > idle.cpu + 0.3


def test_a_failure_in_a_fresh_process_is_told():
    with pytest.raises(RuntimeError, match=r"(?s)status 1.*KeyError: 'lost'"): in_fresh_process("d = {}\nd['lost']\n")


# --- memory -------------------------------------------------------------------------------------------------

def law_memory(peak_memory):
    "What an action needed in between counts, also after it is gone; what was there before does not."
    held = np.ones(10_000_000)
    def passing():
        for _ in range(3): np.ones(12_500_000)
        return None
    assert 80 < peak_memory(passing) < 160 and peak_memory(lambda: None) < 20 and held[0] == 1


def memory_left_behind(action):
    before = b.private_memory()
    action()
    return b.private_memory() - before


def memory_in_all(action):
    action()
    return b.private_memory()


def test_law_memory(): law_memory(peak_memory)


@pytest.mark.parametrize("broken", [memory_left_behind, memory_in_all])
def test_law_memory_catches(broken):
    with pytest.raises(AssertionError): law_memory(broken)


def test_freed_memory_counts_again():
    def pieces(): return len([np.ones(2000) for _ in range(6000)])  # 96 MB in pieces too small to be mapped
    first, second = peak_memory(pieces), peak_memory(pieces)
    assert 60 < second < 200 and abs(first - second) < 60


def test_mapped_rows_are_not_counted(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(25_000_000))  # 200 MB
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert peak_memory(lambda: float(mapped.sum())) < 50
    assert peak_memory(lambda: np.array(mapped)) > 150


# --- rows and tasks -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("d", [2, 6, 20, 58])
def test_synthetic_rows(d):
    x = heavy_tailed(3000, d)
    assert x.shape == (3000, d) and np.isfinite(x).all() and (x >= 0).all() and (x.std(axis=0) > 0).all()
    assert np.array_equal(x, heavy_tailed(3000, d)) and not np.array_equal(x, heavy_tailed(3000, d, seed=1))
    assert all(set(np.unique(column)) == {0, 1} for column in x[:, 3::7].T)
    if d > 2: assert np.abs(np.corrcoef(np.log1p(x).T) - np.eye(d)).max() > 0.5
    continuous = np.log(np.delete(x, np.r_[0:d:5, 3:d:7], axis=1))
    assert (np.quantile(np.exp(continuous), 0.999, axis=0) > 20 * np.median(np.exp(continuous), axis=0)).all()


def test_peers_and_nfad_are_judged_on_the_same_rows(task):
    assert np.array_equal(task.X, heavy_tailed(154, 3)[:128])
    blur = np.concatenate([task.noisy - task.Z, task.noisy_validation - task.Z_validation])
    assert 0.015 < blur.std() < 0.025 and task.noisy.dtype == np.float32
    with pytest.raises(ValueError, match="d must be a whole number >= 2"): heavy_tailed(10, 1)


def test_real_rows(data_dir):
    x = task_rows("cicids2017", "ids2017", 6, 500)
    assert x.shape == (500, 6) and np.isfinite(x).all()
    with pytest.raises(ValueError, match="at most 58"): task_rows("cicids2017", "ids2017", 60, 500)


# --- peers --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("peer", PEERS)
def test_peers_have_densities_in_the_units_of_the_rows(peer):
    grid = np.linspace(-3, 3, 121)
    cells = pd.DataFrame(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2), columns=["x0", "x1"])
    rows = cells.to_numpy() * (0.8 if peer == "pzflow" else 1)  # the bounded latent fills 5/4 of the range of the rows
    mass = float(np.exp(np.asarray(b.build_peer(peer, rows).log_prob(cells))).sum() * 0.05**2)
    assert abs(mass - 1) < 0.03


class Slow:
    "A flow whose log density takes no compilation to speak of."
    def _log_prob(self, params, x, c): return x.sum(axis=1) * params


def test_the_clock_in_the_loss_notes_epochs_only():
    watch = b.EpochClock(Slow())
    x, w = jnp.ones((4, 2)), jnp.ones(4)
    for params in (1.0, 2.0, 3.0):  # before training, after two epochs
        jax.grad(lambda p: watch(p, x, None, w))(params)  # a step: compiled, not noted
        watch(params, x, None, w)
        watch(params, 2 * x, None, w)
    record = watch.record()
    assert record["validation_nll"] == [-8.0, -12.0]
    assert sorted(record["wall"]) == record["wall"] and len(record["cpu"]) == 2


def test_a_budget_ends_a_training():
    watch = b.EpochClock(Slow(), budget=0.0)
    x, w = jnp.ones((4, 2)), jnp.ones(4)
    for _ in range(9): watch(1.0, x, None, w)
    with pytest.raises(b.BudgetSpent): watch(1.0, x, None, w)
    assert len(watch.record()["cpu"]) == 4


def test_records_are_read_back_until_something_changes(task, tmp_path, monkeypatch):
    calls = []
    def fake(function, arguments, cache="off"):
        calls.append(arguments["epochs"])
        return {"validation_nll": [1.0], "wall": [1.0], "cpu": [1.0]}, Cost(1, 1)
    monkeypatch.setattr(b, "in_fresh_process", fake)
    one = b.peer_record("tuned", task, 30, 10.0, tmp_path)
    assert b.peer_record("tuned", task, 30, 10.0, tmp_path) == one and calls == [30]
    b.peer_record("tuned", task, 100, 10.0, tmp_path)
    b.peer_record("tuned", task._replace(noisy=task.noisy + 1), 30, 10.0, tmp_path)
    monkeypatch.setattr(b, "processor", lambda: "another machine")
    b.peer_record("tuned", task, 30, 10.0, tmp_path)
    assert calls == [30, 100, 30, 30] and len(list(tmp_path.glob("tuned_3_*.json"))) == 4


# --- arrival and ratios -------------------------------------------------------------------------------------

def law_arrival(arrival):
    "The first epoch at or below the target; an ordinary epoch by the median; compilation is what the first three took beyond it."
    rng = np.random.default_rng(0)
    for _ in range(50):
        losses, steps = rng.normal(size=20), rng.uniform(1, 2, 19)
        wall = np.cumsum(np.r_[30 + steps[0], steps[0] + 10, steps[1:]])
        steps = np.diff(wall)
        record = {"validation_nll": losses.tolist(), "wall": wall.tolist(), "cpu": (2 * wall).tolist()}
        target = float(np.sort(losses)[3])
        came = arrival(record, target)
        first = min(came.epochs, 3)
        assert losses[came.epochs - 1] <= target and (losses[:came.epochs - 1] > target).all() and came.reached
        assert np.isclose(came.epoch.wall, np.median(steps)) and np.isclose(came.compile.cpu + 2 * first * np.median(steps), 2 * wall[first - 1])
        assert arrival(record, losses.min() - 1)[:2] == (20, False)


def best_epoch(record, target): return arrival(record, min(record["validation_nll"]))


def counts_from_zero(record, target): return arrival(record, target)._replace(epochs=max(arrival(record, target).epochs - 1, 1))


def test_law_arrival(): law_arrival(arrival)


@pytest.mark.parametrize("broken", [best_epoch, counts_from_zero])
def test_law_arrival_catches(broken):
    with pytest.raises(AssertionError): law_arrival(broken)


def law_ratios(training_ratios):
    "Twice as fast an nfad doubles all ratios; more compilation of the peer moves the cold ratio only."
    came = Arrival(10, True, Cost(50, 100), Cost(1, 2))
    base = training_ratios("pzflow", came, Cost(1, 2), Cost(2, 4), Cost(6, 8), 6)
    fast = training_ratios("pzflow", came, Cost(1, 2), Cost(1, 2), Cost(3, 4), 6)
    slow = training_ratios("pzflow", came._replace(compile=Cost(500, 1000)), Cost(1, 2), Cost(2, 4), Cost(6, 8), 6)
    for key in ("train_loop_ratio_d6", "train_loop_ratio_wall_d6", "train_cold_ratio_d6", "train_cold_ratio_wall_d6"):
        assert np.isclose(fast[key], 2 * base[key])
        assert (slow[key] > base[key]) == ("cold" in key)
    assert base["train_loop_ratio_d6"] == 5 and base["train_cold_ratio_d6"] == 15 and base["train_loop_ratio_wall_d6"] == 5
    assert "train_cold_ratio_tuned_d20" in training_ratios("tuned", came, Cost(1, 2), Cost(2, 4), Cost(6, 8), 20)


def test_law_ratios(): law_ratios(training_ratios)


def test_law_ratios_catches_an_inverted_ratio():
    def inverted(*arguments):
        return {key: 1 / value if "ratio" in key else value for key, value in training_ratios(*arguments).items()}
    with pytest.raises(AssertionError): law_ratios(inverted)


def test_scoring_keys():
    turns = {"nfad_row": Cost(1e-6, 2e-6), "matmul_row": Cost(0.5e-6, 1e-6), "pzflow_row": Cost(1e-5, 6e-5), "nfad_row_bytes": 8.0, "pzflow_row_bytes": 900.0}
    found = scoring_keys(6, turns, ["pzflow"])
    assert np.isclose(found["score_ratio_d6"], 30) and np.isclose(found["score_ratio_wall_d6"], 10)
    assert np.isclose(found["matmul_fraction_d6"], 0.5) and np.isclose(found["score_rows_per_second_nfad_d6"], 1e6)


# --- matrix products ----------------------------------------------------------------------------------------

def law_products(weight_matrices):
    "Every weight of a matrix once, no bias, in stacked and in separate layers."
    for n_layers, a, c in ((1, 4, 3), (2, 5, 5), (3, 2, 7)):
        stacked = {"w": np.ones((n_layers, a, c)), "b": np.ones((n_layers, a)), "scale": 1.0}
        separate = [(np.ones((a, c)), np.ones(a)) for _ in range(n_layers)]
        for params in (stacked, separate): assert [m.shape for m in weight_matrices(params)] == [(a, c)] * n_layers


def test_law_products(): law_products(weight_matrices)


@pytest.mark.parametrize("broken", [lambda p: [np.asarray(x) for x in jax.tree.leaves(p) if np.ndim(x) >= 2],
                                    lambda p: [m for x in jax.tree.leaves(p) if np.ndim(x) == 3 for m in x]])
def test_law_products_catches(broken):
    with pytest.raises(AssertionError): law_products(broken)


def test_both_ways_of_the_products_run():
    for action in matmul_actions({"w": np.ones((2, 5, 3)), "b": np.ones((2, 5))}, block=8, calls=1).values(): action()


# --- nfad, table and pictures -------------------------------------------------------------------------------

def test_the_shortest_schedule_is_found(task, monkeypatch):
    tried = []
    def fake(task, epochs, seed):
        tried.append(epochs)
        return None, 10.0 - epochs
    monkeypatch.setattr(b, "train_nfad", fake)
    assert b.shortest_schedule(task, 5.0) == (5, 5.0) and tried == [1, 2, 3, 4, 5]
    assert b.shortest_schedule(task, -1000.0) == (0, 10.0 - SCHEDULES[-1])
    assert list(SCHEDULES) == sorted(set(SCHEDULES))


def test_the_table_says_what_is_met():
    met = target_table({key: bound for key, (bound, _) in TARGETS.items()})["met"]
    assert set(met) == {"yes"} and len(met) == 17
    worse = target_table({key: bound * (0.9 if more else 1.1) for key, (bound, more) in TARGETS.items()})["met"]
    assert set(worse) == {"no"}
    assert set(target_table({"seed_setting_seconds": None})["met"]) == {"not measured"}


def test_pictures_and_details():
    result = {"d": [6, 20], "score_sizes": [1, 10], "score_sizes_seconds": [1e-3, 2e-3], "train_sizes": [10, 20], "train_sizes_seconds": [1, 2]}
    result |= {f"train_cold_cpu_{who}_d{d}": float(d) for who in ("nfad", "pzflow") for d in (6, 20)}
    axes = plot_cost(result, "train_cold_cpu", "s")
    assert len(axes.get_legend().get_texts()) == 2 and axes.get_yscale() == "log"
    assert plot_cost(result, "nothing", "s").get_legend() is None
    for what in ("score", "train"): assert plot_sizes(result, what, "rows", "s").get_lines()[0].get_xdata().tolist() == result[f"{what}_sizes"]
    assert by_dimension(result).index.tolist() == ["train_cold_cpu_nfad", "train_cold_cpu_pzflow"]


class Counter:
    "A detector that scores at once."
    def log_prob(self, X): return np.zeros(len(X))


def test_sizes_of_calls():
    found = score_sizes(Counter(), np.ones((3, 2)), sizes=(1, 5), repeats=1)
    assert found["score_sizes"] == [1, 5] and len(found["score_sizes_seconds"]) == 2


def test_sizes_of_a_training():
    found = train_sizes(lambda n: heavy_tailed(n, 3), sizes=(200, 800), repeats=1, epochs=3)
    assert found["train_sizes"] == [200, 800] and found["train_sizes_seconds"][1] > 0


def test_a_benchmark_leaves_a_record_after_each_step(tmp_path, monkeypatch):
    class Fast:
        @classmethod
        def preset(cls, name, **settings): return cls()
        def fit(self, X): return self
    monkeypatch.setattr(b, "FlowDetector", Fast)
    for name, value in (("measure_start", {"warm_start_seconds": 1.0}), ("measure_latency", {}), ("score_sizes", {}), ("train_sizes", {}), ("measure_memory", {}), ("matmul_peak", {})):
        monkeypatch.setattr(b, name, lambda *a, value=value, **k: value)
    def dimension(d, *rest):
        if d == 7: raise RuntimeError("cut off")
        return {f"score_ratio_d{d}": 9.0}
    monkeypatch.setattr(b, "benchmark_dimension", dimension)
    with pytest.raises(RuntimeError, match="cut off"): b.benchmark([6, 7], n=50, peers=[], repeats=1, folder=tmp_path)
    left = json.loads((tmp_path / "benchmark.json").read_text())
    assert left["score_ratio_d6"] == 9.0 and left["warm_start_seconds"] == 1.0 and left["rows"] == "synthetic"
    with pytest.raises(ValueError, match="did you mean 'tuned'"): b.benchmark([6], peers=["tunde"], folder=tmp_path)
