"""Laws of nfad.measure: the clock, turns, fresh processes, memory. No time is a test: machines are shared."""
import json
import math
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from nfad import measure
from nfad.measure import (Cost, clock, cost_of, in_fresh_process, interleave, n_threads, one_blas_thread, peak_memory, peak_resident_memory,
                          private_memory)


# ---------------------------------------------------------------- clock and turns

class Weather:
    "A clock that actions move on, in place of the machine's."
    def __init__(self, monkeypatch):
        self.now = Cost(0.0, 0.0)
        monkeypatch.setattr(measure, "clock", lambda: self.now)

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
        before = clock()
        action()
        return Cost(*np.subtract(clock(), before))
    with pytest.raises(AssertionError):
        for _ in range(5): law_waits(hasty)
        pytest.skip("this machine runs jax's work in the calling thread")


def test_repeats_are_checked():
    with pytest.raises(ValueError, match="repeats"): interleave({"a": int}, 0)


# ---------------------------------------------------------------- fresh processes

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


def test_a_fresh_process_returns_what_the_function_returns():
    assert in_fresh_process("core.allowed_alarms", {"m": 100, "fpr": 0.29})[0] == 29
    assert in_fresh_process("print(\"RESULT [1, 2]\")\nprint(3)\n")[0] == [1, 2] and in_fresh_process("print(3)\n")[0] is None
    with pytest.raises(RuntimeError, match="no attribute 'no_such'"): in_fresh_process("core.no_such")


def test_a_failure_in_a_fresh_process_is_told():
    with pytest.raises(RuntimeError, match=r"(?s)status 1.*KeyError: 'lost'"): in_fresh_process("d = {}\nd['lost']\n")


# ---------------------------------------------------------------- memory

def law_memory(peak_memory):
    "What an action needed in between counts, also after it is gone; what was there before does not."
    held = np.ones(10_000_000)
    def passing():
        for _ in range(3): np.ones(12_500_000)
        return None
    assert 80 < peak_memory(passing) < 160 and peak_memory(lambda: None) < 20 and held[0] == 1


def memory_left_behind(action):
    before = private_memory()
    action()
    return private_memory() - before


def memory_in_all(action):
    action()
    return private_memory()


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


def test_the_resident_peak_never_falls():
    before = peak_resident_memory()
    np.ones(25_000_000).sum()  # 200 MB, given back at once
    after = peak_resident_memory()
    assert after >= before and after > 200 and peak_resident_memory() >= after


def test_a_fresh_process_has_a_peak_of_its_own():
    np.ones(75_000_000).sum()
    assert 10 < in_fresh_process("measure.peak_resident_memory")[0] < 500 < peak_resident_memory()


def test_measuring_loads_no_jax():
    code = "import sys, nfad.measure as m; m.cost_of(int); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- threads -----------------------------------------------------------------------------------------------------

def law_one_thread_inside(guard):
    "Matrix products have one thread inside, nested or not, and then as many as before."
    def threads(): return {library["num_threads"] for library in ThreadpoolController().select(user_api="blas").info()}
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with guard():
            with guard(): assert threads() == {1}
            assert threads() == {1}
        assert threads() == before


def test_law_one_thread_inside(): law_one_thread_inside(one_blas_thread)


def test_law_one_thread_inside_catches_a_limit_that_stays():
    @contextmanager
    def stays():
        threadpool_limits(1, user_api="blas")
        yield
    with pytest.raises(AssertionError): law_one_thread_inside(stays)
    threadpool_limits(None)


MANY_AT_ONCE = """
import time
from concurrent.futures import ThreadPoolExecutor
import numpy
from threadpoolctl import ThreadpoolController
from nfad.measure import one_blas_thread
libraries = ThreadpoolController().select(user_api="blas")
def threads(): return [library["num_threads"] for library in libraries.info()]
def stay(i):
    time.sleep(0.1 * i)
    with GUARD: time.sleep(0.25)
before = threads()
with ThreadPoolExecutor(3) as pool: list(pool.map(stay, range(3)))
print("RESULT", int(threads() == before))
"""


def law_nothing_stays_after_many_at_once(guard, monkeypatch):
    "Threads that come and go at different times leave as many BLAS threads as there were."
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert in_fresh_process(MANY_AT_ONCE.replace("GUARD", guard))[0] == 1


def test_law_nothing_stays_after_many_at_once(monkeypatch): law_nothing_stays_after_many_at_once("one_blas_thread()", monkeypatch)


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count()))(0)) < 2, reason="one core has one thread anyway")
def test_law_nothing_stays_after_many_at_once_catches_limits_that_overlap(monkeypatch):
    with pytest.raises(AssertionError): law_nothing_stays_after_many_at_once("libraries.limit(limits=1)", monkeypatch)


@pytest.mark.parametrize("wanted, given", [("2", 2), ("17", 17)])
def test_threads_can_be_set(monkeypatch, wanted, given):
    monkeypatch.setenv("NFAD_THREADS", wanted)
    assert n_threads() == given


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "all"])
def test_wrong_numbers_of_threads_are_refused(monkeypatch, wrong):
    monkeypatch.setenv("NFAD_THREADS", wrong)
    with pytest.raises(ValueError, match="NFAD_THREADS must be a whole number >= 1"): n_threads()


@pytest.mark.parametrize("files, cores", [
    ({"cpu.max": "150000 100000\n"}, 1.5), ({"cpu.max": "max 100000\n"}, math.inf), ({}, math.inf), ({"cpu.max": "no quota"}, math.inf),
    ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0), ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf)])
def test_the_quota_of_a_container_is_read(tmp_path, monkeypatch, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert measure._cpu_quota(tmp_path) == cores
    monkeypatch.delenv("NFAD_THREADS", raising=False)
    monkeypatch.setattr(measure, "_cpu_quota", lambda: 0.5)
    assert n_threads() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_process_that_may_use_one_core_has_one_thread():
    code = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nfrom nfad.measure import n_threads\nprint('RESULT', n_threads())"
    assert in_fresh_process(code)[0] == 1


COLD = """import json, os
print("RESULT", json.dumps([os.environ["NFAD_COMPILATION_CACHE"] == "off", os.listdir(os.environ["NUMBA_CACHE_DIR"]) == []]))
"""


def law_cold_is_cold(run):
    "A fresh process finds nothing compiled, neither by JAX nor by numba."
    assert run(COLD)[0] == [True, True]


def test_law_cold_is_cold(): law_cold_is_cold(in_fresh_process)


def test_law_cold_is_cold_catches_a_filled_cache(tmp_path):
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "kept.nbi").write_text("")
    with pytest.raises(AssertionError): law_cold_is_cold(lambda script: in_fresh_process(script, cache=tmp_path))
