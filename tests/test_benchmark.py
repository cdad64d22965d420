"""Laws of nfad.benchmark: ratios, matrix products, tables and pictures. No time is a test: machines are shared."""
import json

import jax
import numpy as np
import pytest

from nfad import benchmark as b
from nfad.baseline import Arrival, heavy_tailed, make_workload
from nfad.benchmark import (SCHEDULES, TARGETS, by_dimension, matmul_actions, plot_cost, plot_sizes, score_sizes,
                            scoring_keys, target_table, train_sizes, training_ratios, weight_matrices)
from nfad.core import cache_dir
from nfad.measure import Cost


@pytest.fixture(scope="module")
def workload(): return make_workload(heavy_tailed(154, 3), n=128)


# --- ratios ----------------------------------------------------------------------------------------------------

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
    turns = {"nfad_row": Cost(1e-6, 2e-6), "matmul_row": Cost(0.5e-6, 1e-6), "pzflow_row": Cost(1e-5, 6e-5),
             "nfad_row_bytes": 8.0, "pzflow_row_bytes": 900.0}
    found = scoring_keys(6, turns, ["pzflow"])
    assert np.isclose(found["score_ratio_d6"], 30) and np.isclose(found["score_ratio_wall_d6"], 10)
    assert np.isclose(found["matmul_fraction_d6"], 0.5) and np.isclose(found["score_rows_per_second_nfad_d6"], 1e6)


# --- matrix products -------------------------------------------------------------------------------------------

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


# --- nfad, table and pictures ----------------------------------------------------------------------------------

def test_the_shortest_schedule_is_found(workload, monkeypatch):
    tried = []
    def fake(workload, epochs, seed):
        tried.append(epochs)
        return None, 10.0 - epochs
    monkeypatch.setattr(b, "train_nfad", fake)
    assert b.shortest_schedule(workload, 5.0) == (5, 5.0) and tried == [1, 2, 3, 4, 5]
    assert b.shortest_schedule(workload, -1000.0) == (0, 10.0 - SCHEDULES[-1])
    assert list(SCHEDULES) == sorted(set(SCHEDULES))


def test_trainings_in_fresh_processes_agree(workload):
    runs = b._trainings_apart(workload, epochs=1, repeats=2, seed=0, cache=cache_dir())
    assert len(runs) == 2 and runs.validation_nll.nunique() == 1 and (runs.process_wall > runs.wall).all()


def test_the_table_says_what_is_met():
    met = target_table({key: bound for key, (bound, _) in TARGETS.items()})["met"]
    assert set(met) == {"yes"} and len(met) == 17
    worse = target_table({key: bound * (0.9 if more else 1.1) for key, (bound, more) in TARGETS.items()})["met"]
    assert set(worse) == {"no"}
    assert set(target_table({"seed_setting_seconds": None})["met"]) == {"not measured"}


def test_pictures_and_details():
    result = {"d": [6, 20], "score_sizes": [1, 10], "score_sizes_seconds": [1e-3, 2e-3],
              "train_sizes": [10, 20], "train_sizes_seconds": [1, 2]}
    result |= {f"train_cold_cpu_{who}_d{d}": float(d) for who in ("nfad", "pzflow") for d in (6, 20)}
    from matplotlib import pyplot as plt
    axes = plot_cost(result, "train_cold_cpu", "s", ax=plt.figure().gca())
    assert len(axes.get_legend().get_texts()) == 2 and axes.get_yscale() == "log"
    assert plot_cost(result, "nothing", "s", ax=plt.figure().gca()).get_legend() is None
    for what in ("score", "train"):
        line, = plot_sizes(result, what, "rows", "s", plt.figure().gca()).get_lines()
        assert line.get_xdata().tolist() == result[f"{what}_sizes"]
    plt.close("all")
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
    for name in ("measure_latency", "score_sizes", "train_sizes", "measure_memory", "matmul_peak"):
        monkeypatch.setattr(b, name, lambda *a, **k: {})
    monkeypatch.setattr(b, "measure_start", lambda *a: {"warm_start_seconds": 1.0})
    def dimension(d, *rest):
        if d == 7: raise RuntimeError("cut off")
        return {f"score_ratio_d{d}": 9.0}
    monkeypatch.setattr(b, "benchmark_dimension", dimension)
    with pytest.raises(RuntimeError, match="cut off"): b.measure_all([6, 7], n=50, opponents=[], repeats=1, folder=tmp_path)
    left = json.loads((tmp_path / "benchmark.json").read_text())
    assert left["score_ratio_d6"] == 9.0 and left["warm_start_seconds"] == 1.0 and left["rows"] == "synthetic"
    with pytest.raises(ValueError, match="did you mean 'tuned'"): b.measure_all([6], opponents=["tunde"], folder=tmp_path)
