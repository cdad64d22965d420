"""Laws of nfad.kernels: a function is compiled with a cache where there is a place for it, and without one where there is none."""
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from nfad import kernels
from nfad.kernels import kernel


def add(numbers):
    total = 0.0
    for number in numbers: total += number
    return total


def law_no_place(compiled, monkeypatch):
    "Where nothing can be written, a kernel is defined and works."
    def nowhere(function): raise RuntimeError("cannot cache function: no locator available")
    njit = lambda **options: nowhere if options.get("cache") else numba.njit(**options)
    monkeypatch.setattr(kernels, "numba", SimpleNamespace(njit=njit))
    assert compiled()(add)(np.arange(4.0)) == 6


def test_no_place(monkeypatch): law_no_place(kernel, monkeypatch)


def test_the_law_catches_a_kernel_that_needs_a_cache(monkeypatch):
    with pytest.raises(RuntimeError): law_no_place(lambda: kernels.numba.njit(cache=True), monkeypatch)


def test_no_module_caches_by_itself():
    from pathlib import Path
    import nfad
    for path in Path(nfad.__file__).parent.glob("*.py"):
        if path.name != "kernels.py": assert "numba.njit" not in path.read_text(encoding="utf-8"), path.name
