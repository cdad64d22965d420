"""Laws of nfad.views: the promise of two verdicts, hours apart, one file."""
import numpy as np
import pytest

from nfad.core import read_model, write_model
from nfad.views import HostView, read_view, stretches, write_view

WIDTH = len(HostView().names)


def benign(n, seed):
    rng = np.random.default_rng(seed)
    C = rng.normal(size=(n, WIDTH)) * np.linspace(0.5, 2, WIDTH)
    return rng.exponential(1, n) + np.abs(C[:, 0]), C  # record and host are not independent


def fitted(seed=0, n=400):
    (s, C), (s2, C2) = benign(2 * n, seed), benign(n, seed + 1000)
    return HostView().fit(C[:n], C[n:], s[n:]).calibrate(s2, C2)


def law_promise(judge):
    "Of benign records the promised share is flagged, record and host tied or not; whatever is strange in one is found."
    rates = [judge(fitted(seed), *benign(2000, 5000 + seed)).mean() for seed in range(12)]
    assert abs(np.mean(rates) - 0.01) < 0.004, rates
    s, C = benign(200, 7)
    assert judge(fitted(), s + 60, C).mean() > 0.9 and judge(fitted(), s, C + 25).mean() > 0.9


def test_law_promise(): law_promise(lambda view, s, C: view.judge(s, C).is_anomaly)


def test_law_promise_catches_p_values_multiplied_as_if_independent():
    from scipy.stats import chi2
    def fisher(view, s, C):
        said = view.judge(s, C)
        return chi2.sf(-2 * np.log(said.record_p_value * said.host_p_value), 4) < 0.01
    with pytest.raises(AssertionError): law_promise(fisher)


def test_law_promise_catches_either_of_both():
    def either(view, s, C):
        said = view.judge(s, C)
        return np.minimum(said.record_p_value, said.host_p_value) <= 0.01
    with pytest.raises(AssertionError): law_promise(either)


def law_stretches(deal):
    "Every row once, shares kept, and neighbors nearly always together."
    parts = deal(1003, (0.5, 0.2, 0.3), 3)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1003))
    assert np.allclose([len(part) / 1003 for part in parts], (0.5, 0.2, 0.3), atol=0.02)
    assert all((np.diff(part) == 1).mean() > 0.9 for part in parts)


def test_law_stretches(): law_stretches(lambda n, shares, seed: stretches(n, shares, seed))


def test_law_stretches_catches_rows_one_by_one():
    one_by_one = lambda n, shares, seed: [np.sort(part) for part in np.split(np.random.default_rng(seed).permutation(n), [501, 702])]
    with pytest.raises(AssertionError): law_stretches(one_by_one)


def same(view, again):
    s, C = benign(300, 3)
    for one, other in zip(view.judge(s, C), again.judge(s, C), strict=True): assert np.array_equal(one, other)


def test_a_view_travels_in_the_file_of_its_model(tmp_path):
    path = write_model(tmp_path / "m.safetensors", {"flow.0": np.arange(3.0)}, {"kind": 1}, "nfad-flow-3")
    assert read_view(path) is None and write_view(path, None) == path
    view = fitted()
    for _ in range(2): write_view(path, view)  # in place of the one before
    same(view, read_view(path))
    arrays, header = read_model(path, "nfad-flow-3")
    assert np.array_equal(arrays["flow.0"], np.arange(3.0)) and header["kind"] == 1


@pytest.mark.parametrize("name", ["calibration", "local.neighbors", "tail.of host", "transform.kept"])
def test_a_damaged_view_is_refused(tmp_path, name):
    path = write_view(write_model(tmp_path / "m.safetensors", {}, {}, "nfad-flow-3"), fitted())
    arrays, header = read_model(path, "nfad-flow-3")
    own = arrays[f"view.{name}"]
    arrays[f"view.{name}"] = ~own[:5] if own.dtype == bool else np.full_like(own, np.nan)
    write_model(path, arrays, {key: value for key, value in header.items() if key != "sha256"}, "nfad-flow-3")
    with pytest.raises(ValueError, match="m.safetensors"): read_view(path)
    del arrays[f"view.{name}"]
    write_model(path, arrays, {key: value for key, value in header.items() if key != "sha256"}, "nfad-flow-3")
    with pytest.raises(ValueError, match="m.safetensors"): read_view(path)


def test_views_refuse():
    s, C = benign(50, 0)
    with pytest.raises(ValueError, match="one for each score"): HostView().fit(C, C, s[:-1])
    with pytest.raises(ValueError, match="fpr"): HostView(fpr=2)
    with pytest.raises(ValueError, match="n must be at least 40"): stretches(10, (0.5, 0.5))
