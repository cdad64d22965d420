"""Laws of nfad.kernels: what is compiled is kept where there is a place for it, and never used when it could be wrong."""
import shutil
from pathlib import Path

import numba
import numpy as np
import pytest

import nfad
from flows import run_child
from nfad import kernels
from nfad.kernels import kernel


def add(numbers):
    total = 0.0
    for number in numbers: total += number
    return total


def law_no_place(compiled, monkeypatch):
    "Where nothing can be written, a kernel is defined and works."
    def nowhere(function): raise RuntimeError("cannot cache function: no locator available")
    monkeypatch.setattr(kernels, "KeptCode", nowhere)
    assert compiled()(add)(np.arange(4.0)) == 6


def test_no_place(monkeypatch): law_no_place(kernel, monkeypatch)


def test_the_law_catches_a_kernel_that_needs_a_cache(monkeypatch):
    def needy():
        def compiled(function):
            dispatcher = numba.njit(function)
            dispatcher._cache = kernels.KeptCode(function)
            return dispatcher
        return compiled
    with pytest.raises(RuntimeError): law_no_place(needy, monkeypatch)


SCRIPT = """
import numpy as np
from nfad.nearest import NearestPoints
from nfad.boxes import search
points = np.random.default_rng(0).normal(size=(100, 7))
assert np.isclose(NearestPoints(points).distance(points[:3] + 1e-3), 1e-3 * 7**0.5).all()
print("RESULT", sum(search.stats.cache_hits.values()))
"""


def hits(folder, **more): return int(run_child(SCRIPT, NUMBA_CACHE_DIR=str(folder), **more).split()[-1])


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numba")
    assert hits(folder) == 0
    return folder


def test_what_was_compiled_is_kept(filled): assert hits(filled) == 1


def test_a_damaged_cache_is_no_cache(filled, tmp_path):
    for damage in (b"", b"\x80\x04"):
        folder = tmp_path / f"damaged{len(damage)}"
        shutil.copytree(filled, folder)
        for path in folder.rglob("*.nb[ic]"): path.write_bytes(path.read_bytes()[:40] if damage else damage)
        assert hits(folder) == 0


def test_a_cache_without_room_is_no_cache(monkeypatch):
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr(kernels.FunctionCache, "save_overload", full)
    assert kernel()(lambda numbers: numbers.sum())(np.arange(4.0)) == 6


def law_code_follows_its_sources(change, folder):
    "Code that was built from other files is not used after one of them has changed."
    (folder / "lanes.py").write_text("ROWS = 6")
    before = kernels.state_of(folder)
    change(folder / "lanes.py")
    kernels.state_of.cache_clear()
    assert kernels.state_of(folder) != before


def test_law_code_follows_its_sources(tmp_path):
    law_code_follows_its_sources(lambda path: path.write_text("ROWS = 4"), tmp_path)
    law_code_follows_its_sources(lambda path: path.with_name("engine.py").write_text("FLOOR = 1"), tmp_path)


def test_law_code_follows_its_sources_catches_what_stays_as_it_is(tmp_path):
    with pytest.raises(AssertionError): law_code_follows_its_sources(lambda path: path.touch is None, tmp_path)


def test_kept_code_has_the_state_in_its_name():
    kept, codegen = kernels.KeptCode(add), numba.core.registry.cpu_target.target_context.codegen()
    assert kept._index_key((), codegen)[-1] == kernels.state_of(Path(nfad.__file__).parent)


def test_no_module_caches_by_itself():
    for path in Path(nfad.__file__).parent.glob("*.py"):
        if path.name != "kernels.py": assert "numba.njit" not in path.read_text(encoding="utf-8"), path.name
