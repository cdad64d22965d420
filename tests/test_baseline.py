"""Laws of nfad.baseline: rows, workloads, opponents, the clock in the loss, arrival."""
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from nfad import baseline as b
from nfad.baseline import OPPONENTS, arrival, heavy_tailed, make_workload, workload_rows
from nfad.measure import Cost


@pytest.fixture(scope="module")
def workload(): return make_workload(heavy_tailed(154, 3), n=128)


# --- rows and workloads ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("d", [2, 6, 20, 58])
def test_synthetic_rows(d):
    x = heavy_tailed(3000, d)
    assert x.shape == (3000, d) and np.isfinite(x).all() and (x >= 0).all() and (x.std(axis=0) > 0).all()
    assert np.array_equal(x, heavy_tailed(3000, d)) and not np.array_equal(x, heavy_tailed(3000, d, seed=1))
    assert all(set(np.unique(column)) == {0, 1} for column in x[:, 3::7].T)
    if d > 2: assert np.abs(np.corrcoef(np.log1p(x).T) - np.eye(d)).max() > 0.5
    continuous = np.log(np.delete(x, np.r_[0:d:5, 3:d:7], axis=1))
    assert (np.quantile(np.exp(continuous), 0.999, axis=0) > 20 * np.median(np.exp(continuous), axis=0)).all()


def test_opponents_and_nfad_are_judged_on_the_same_rows(workload):
    assert np.array_equal(workload.X, heavy_tailed(154, 3)[:128])
    blur = np.concatenate([workload.noisy - workload.Z, workload.noisy_validation - workload.Z_validation])
    assert 0.015 < blur.std() < 0.025 and workload.noisy.dtype == np.float32
    with pytest.raises(ValueError, match="d must be a whole number >= 2"): heavy_tailed(10, 1)


def test_real_rows(data_dir):
    x = workload_rows("cicids2017", "ids2017", 6, 500)
    assert x.shape == (500, 6) and np.isfinite(x).all()
    with pytest.raises(ValueError, match="at most 58"): workload_rows("cicids2017", "ids2017", 60, 500)


# --- opponents -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", OPPONENTS)
def test_opponents_have_densities_in_the_units_of_the_rows(name):
    grid = np.linspace(-3, 3, 121)
    cells = pd.DataFrame(np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2), columns=["x0", "x1"])
    rows = cells.to_numpy() * (0.8 if name == "pzflow" else 1)  # the bounded latent fills 5/4 of the range of the rows
    mass = float(np.exp(np.asarray(b.build_opponent(name, rows).log_prob(cells))).sum() * 0.05**2)
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


def test_records_are_read_back_until_something_changes(workload, tmp_path, monkeypatch):
    calls = []
    def fake(function, arguments, cache="off"):
        assert callable(getattr(b, function.removeprefix("baseline.")))
        calls.append(arguments["epochs"])
        return {"validation_nll": [1.0], "wall": [1.0], "cpu": [1.0]}, Cost(1, 1)
    monkeypatch.setattr(b, "in_fresh_process", fake)
    one = b.opponent_record("tuned", workload, 30, 10.0, tmp_path)
    assert b.opponent_record("tuned", workload, 30, 10.0, tmp_path) == one and calls == [30]
    b.opponent_record("tuned", workload, 100, 10.0, tmp_path)
    b.opponent_record("tuned", workload._replace(noisy=workload.noisy + 1), 30, 10.0, tmp_path)
    monkeypatch.setattr(b, "processor", lambda: "another machine")
    b.opponent_record("tuned", workload, 30, 10.0, tmp_path)
    assert calls == [30, 100, 30, 30] and len(list(tmp_path.glob("tuned_3_*.json"))) == 4


# --- arrival ---------------------------------------------------------------------------------------------------

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
        assert np.isclose(came.epoch.wall, np.median(steps))
        assert np.isclose(came.compile.cpu + 2 * first * np.median(steps), 2 * wall[first - 1])
        assert arrival(record, losses.min() - 1)[:2] == (20, False)


def best_epoch(record, target): return arrival(record, min(record["validation_nll"]))


def counts_from_zero(record, target): return arrival(record, target)._replace(epochs=max(arrival(record, target).epochs - 1, 1))


def test_law_arrival(): law_arrival(arrival)


@pytest.mark.parametrize("broken", [best_epoch, counts_from_zero])
def test_law_arrival_catches(broken):
    with pytest.raises(AssertionError): law_arrival(broken)
