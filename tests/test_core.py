"""Laws of nfad.core: the container of model files loads what was written, or says in a ValueError that names the file why not."""
import json
import os
import pickle
import struct
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from nfad import core
from nfad.core import MAX_HEADER, read_header, read_json, read_model, write_json, write_model

ARRAYS = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "offset": np.array(0.5), "names": np.array([1, 2], np.int64),
          "turned": np.arange(6.0).reshape(2, 3).T, "nothing": np.zeros((0, 4))}
HEADER = {"unit": "nats", "fpr": np.float64(0.01), "sizes": (2, 3), "n": np.int64(7), "nested": {"seen": True, "none": None}}
FORMAT = "test-1"


@pytest.fixture
def path(tmp_path): return write_model(tmp_path / "a.safetensors", ARRAYS, HEADER, FORMAT)


# ---------------------------------------------------------------- what goes in comes out
def law_round_trip(write, path):
    write(path, ARRAYS, HEADER, FORMAT)
    arrays, header = read_model(path, FORMAT)
    assert arrays.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        assert arrays[name].dtype == values.dtype and arrays[name].shape == values.shape and np.array_equal(arrays[name], values), name
    assert {k: v for k, v in header.items() if k not in ("format", "sha256")} == json.loads(json.dumps(HEADER, default=lambda v: v.item()))
    assert header["format"] == FORMAT
    seen = read_header(path)
    assert seen.pop("shapes") == {name: values.shape for name, values in ARRAYS.items()} and seen == header


def test_round_trip(tmp_path): law_round_trip(write_model, tmp_path / "a.safetensors")


def test_round_trip_law_catches_a_lost_axis(tmp_path):
    def flat(path, arrays, header, format): return write_model(path, {k: np.ravel(v) for k, v in arrays.items()}, header, format)
    with pytest.raises(AssertionError): law_round_trip(flat, tmp_path / "a.safetensors")


def test_the_same_content_is_the_same_file(tmp_path, path):
    again = write_model(tmp_path / "b.safetensors", dict(reversed(ARRAYS.items())), HEADER, FORMAT)
    assert again.read_bytes() == path.read_bytes()


def test_nan_in_a_header_is_refused_and_the_old_file_stays(path):
    before = path.read_bytes()
    with pytest.raises(ValueError): write_model(path, ARRAYS, {"offset": float("nan")}, FORMAT)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


# ---------------------------------------------------------------- damage
def law_damage_is_seen(read, path):
    "After any bit is flipped a file is refused, or it still means exactly the same."
    content = path.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    rng = np.random.default_rng(0)
    whole = read(path, FORMAT)[1]
    for place in [*range(10), *rng.integers(8, start, 120), *range(start, len(content), 3), len(content) - 1]:
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try: arrays, header = read(path, FORMAT)
            except ValueError as error: assert str(path) in str(error)
            else: assert header == whole and all(np.array_equal(arrays[k], v) for k, v in ARRAYS.items()), int(place)


def test_damage_is_seen(path): law_damage_is_seen(read_model, path)


def test_damage_law_catches_a_reader_without_hash(path):
    def trusting(path, format):
        with core._open_model(path) as (stored, header): return dict(stored), header
    with pytest.raises((AssertionError, KeyError)): law_damage_is_seen(trusting, path)


def test_a_header_is_checked_too(path):
    "What a file says of itself is not believed unchecked; no array is kept for it."
    law_damage_is_seen(lambda path, format: (ARRAYS, {k: v for k, v in read_header(path).items() if k != "shapes"}), path)


def test_what_is_written_can_be_read(tmp_path, monkeypatch):
    "A model over the limits is refused when it is written, and the old file stays."
    path = write_model(tmp_path / "m.safetensors", ARRAYS, HEADER, FORMAT)
    old = path.read_bytes()
    for name, limit, arrays, header in (("MAX_MODEL", core.MAX_HEADER + 10, {"a": np.zeros(100)}, {}), ("MAX_HEADER", 200, {}, {"text": "x" * 300})):
        with monkeypatch.context() as patch:
            patch.setattr(core, name, limit)
            with pytest.raises(ValueError, match="m.safetensors would be too large"): write_model(path, arrays, header, FORMAT)
    assert path.read_bytes() == old


@pytest.mark.parametrize("share", [0, 0.02, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("read", [read_header, lambda path: read_model(path, FORMAT)], ids=["header", "model"])
def test_a_truncated_file_is_refused(path, share, read):
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    with pytest.raises(ValueError, match=path.name): read(path)
    path.write_bytes(content + b"more")
    with pytest.raises(ValueError, match=path.name): read(path)


def bfloat16_file(path):
    "What other programs write: a tensor type that numpy does not have."
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x00\x3f\x80\x3f")


def with_metadata(text): return lambda p: save_file({"w": np.zeros(3)}, p, metadata={"nfad": text})


FOREIGN = {
    "text": lambda p: p.write_text("duration,bytes\n1,2\n" * 50),
    "zeros": lambda p: p.write_bytes(bytes(4096)),
    "pickle": lambda p: p.write_bytes(pickle.dumps({"weights": np.zeros(3)})),
    "weights of another program": lambda p: save_file({"w": np.zeros((3, 3))}, p),
    "no JSON": with_metadata("{"),
    "a list": with_metadata("[1]"),
    "no format": with_metadata('{"form": 1}'),
    "a format that is a number": with_metadata('{"format": 3}'),
    "a later format": with_metadata('{"format": "test-99"}'),
    "a number beyond all": with_metadata('{"format": "test-1", "x": 1e999}'),
    "no number": with_metadata('{"format": "test-1", "x": NaN}'),
    "no hash": with_metadata('{"format": "test-1"}'),
    "endless brackets": with_metadata("[" * 200_000),
    "endless digits": with_metadata('{"format": ' + "9" * 9000 + "}"),
    "a header longer than the file": lambda p: p.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    "a header of 200 MB": lambda p: p.write_bytes(struct.pack("<Q", 2 * 10**8) + b"{" * 64),
    "bfloat16": bfloat16_file,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_other_programs_are_refused(kind, tmp_path):
    path = tmp_path / "m.safetensors"
    FOREIGN[kind](path)
    with pytest.raises(ValueError, match=path.name): read_model(path, FORMAT)


@pytest.mark.parametrize("read", [read_header, lambda path: read_model(path, FORMAT)], ids=["header", "model"])
def test_a_missing_file_is_missing(tmp_path, read):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=path.name): read(path)


def test_a_file_over_the_limit_is_not_opened(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER))
        file.truncate(core.MAX_MODEL + 1)  # sparse
    monkeypatch.setattr(core, "safe_open", lambda *_, **__: pytest.fail("was opened"))
    with pytest.raises(ValueError, match="cannot be a model"): read_model(path, FORMAT)


# ---------------------------------------------------------------- counts and checks
def law_allowed_alarms(allowed):
    "The largest whole number of alarms whose share does not pass the rate."
    for m in (1, 7, 99, 100, 1000, 1009):
        for fpr in (0.001, 0.01, 0.05, 0.29, 0.295, 1 / 3, 0.5, 0.999):
            k = allowed(m, fpr)
            assert 0 <= k <= m and k / m <= fpr < (k + 1) / m, (m, fpr, k)


def test_allowed_alarms(): law_allowed_alarms(core.allowed_alarms)


@pytest.mark.parametrize("broken", [lambda m, fpr: int(m * fpr), lambda m, fpr: round(m * fpr)])
def test_allowed_alarms_law_catches(broken):
    with pytest.raises(AssertionError): law_allowed_alarms(broken)


@pytest.mark.parametrize("name", ["../..", "/", "...", "-", ""])
def test_a_name_without_letters_names_no_folder(name):
    with pytest.raises(ValueError, match="must hold a letter or digit"): core.slug(name)


def law_no_two_files_share_a_name(slug, folder):
    "Different files have different slugs, a file has one from wherever it is named, and its own name is in it."
    names = ["mon/flows.csv", "tue/flows.csv", "a/mon/flows.csv", "mon/flows-csv", "mon/flows csv", "mon.flows/csv", "demo", "x" * 90 + "/" + "y" * 200]
    names += ["x" * 90 + "/" + "y" * 199, "\u00e4", "\u00f6", "mon"]
    slugs = [slug(folder / name) for name in names]
    assert len(set(slugs)) == len(names) and all(len(name) <= 80 and name.replace("-", "").replace("_", "").isalnum() for name in slugs), slugs
    assert slugs[0].startswith("mon-flows-csv-") and slug(folder / "tue" / ".." / "mon" / "flows.csv") == slugs[0]


def test_law_no_two_files_share_a_name(tmp_path): law_no_two_files_share_a_name(core.slug, tmp_path)


@pytest.mark.parametrize("broken", [lambda path: core.slug(str(path)), lambda path: core.slug(f"{path.parent.name}-{path.name}"), lambda path: f"mon-flows-csv-{abs(hash(str(path)))}"])
def test_law_no_two_files_share_a_name_catches(broken, tmp_path):
    with pytest.raises((AssertionError, ValueError)): law_no_two_files_share_a_name(broken, tmp_path)


def test_relative_paths_are_named_as_absolute_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert core.slug(Path("mon/flows.csv")) == core.slug(tmp_path / "mon" / "flows.csv") and core.slug(Path(".")) == core.slug(tmp_path)
    assert len({core.slug("x" * 100 + ending) for ending in "ab"}) == 2


@pytest.mark.parametrize("name", ["demo", "../../etc/passwd.csv", "a b\\c", "x" * 300, "C:\\data\\night.csv", "\u00e4pfel.csv"])
def test_a_run_stays_below_its_parent(name, tmp_path):
    folder = core.run_dir(name, name, str(tmp_path))
    assert folder.resolve().parent.parent == tmp_path.resolve() and len(folder.name) <= 80


# ---------------------------------------------------------------- where a path leads
def clone(folder: Path) -> Path:
    "What makes a folder a clone."
    (folder / "nbs").mkdir(parents=True)
    (folder / "settings.ini").write_text("lib_name = nfad\n")
    return folder


def law_a_path_counts_from_here(from_here, tmp_path, monkeypatch):
    "What is relative counts from the current folder; `runs` and `figures` in nbs/ of a clone alone are the clone's."
    root = clone(tmp_path / "clone")
    for here in (tmp_path, root, root / "nbs"):
        monkeypatch.chdir(here)
        for path in ("out", "../out", "a/runs", "runs.old"): assert from_here(path) == here / path, (here, path)
        for path in ("runs", "runs/grid", "figures"): assert from_here(path) == (root if here.name == "nbs" else here) / path, (here, path)
        assert from_here(tmp_path / "runs") == tmp_path / "runs"


def test_law_a_path_counts_from_here(tmp_path, monkeypatch): law_a_path_counts_from_here(core.from_here, tmp_path, monkeypatch)


@pytest.mark.parametrize("broken", [lambda path: core.repository_root() / path, lambda path: Path.cwd() / path])
def test_law_a_path_counts_from_here_catches_another_folder(broken, tmp_path, monkeypatch):
    with pytest.raises(AssertionError): law_a_path_counts_from_here(broken, tmp_path, monkeypatch)


def test_folders_of_the_environment(tmp_path, monkeypatch):
    root = clone(tmp_path / "clone")
    monkeypatch.setenv("NFAD_DATA", "own")
    monkeypatch.setenv("NFAD_CACHE", "copies")
    for here, at in ((tmp_path, tmp_path), (root, root), (root / "nbs", root)):
        monkeypatch.chdir(here)
        assert core.data_dir() == (at / "own").resolve() and core.cache_dir() == at / "copies" and core.cache_dir().is_dir()
    monkeypatch.delenv("NFAD_DATA")
    assert core.data_dir() == (root / "data").resolve()


def law_a_cache_is_a_convenience(cache_dir, tmp_path, monkeypatch):
    "Where the cache cannot be written, one warning names NFAD_CACHE, and copies have a folder all the same."
    (tmp_path / "file").touch()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in {"NFAD_CACHE": tmp_path / "file", "HOME": tmp_path / "file"}.items():
        monkeypatch.delenv("NFAD_CACHE", raising=False)
        monkeypatch.setenv(name, str(value))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            folders = [cache_dir() for _ in range(3)]
        assert len(said) == 1 and "NFAD_CACHE" in str(said[0].message) and str(value) in str(said[0].message)
        assert len(set(folders)) == 1
        with core.atomic_path(folders[0] / "data" / "copy") as temporary: temporary.touch()


def test_law_a_cache_is_a_convenience(tmp_path, monkeypatch): law_a_cache_is_a_convenience(core.cache_dir, tmp_path, monkeypatch)


def test_law_a_cache_is_a_convenience_catches(tmp_path, monkeypatch):
    def as_before(): return Path(os.environ.get("NFAD_CACHE") or Path(os.environ["HOME"]) / ".cache").absolute()
    def nagging():
        warnings.warn(f"NFAD_CACHE {as_before()} cannot be written")
        return tmp_path
    for broken in (as_before, nagging):
        with pytest.raises((AssertionError, OSError)): law_a_cache_is_a_convenience(broken, tmp_path, monkeypatch)


def test_a_user_without_a_home(monkeypatch):
    monkeypatch.delenv("NFAD_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory.")))
    with pytest.warns(UserWarning, match="NFAD_CACHE"): assert core.cache_dir().is_dir()


CALLS = [
    (lambda: core.require_choice("Adma", ["adam", "sgd"], "optimizer"), ValueError,
     "optimizer must be one of ['adam', 'sgd'], got 'Adma'; did you mean 'adam'?"),
    (lambda: core.require_between(1, 0, 1, "fpr"), ValueError, "fpr must be a number in (0, 1), got 1"),
    (lambda: core.require_between(True, 0, 2, "fpr"), ValueError, "got True"),
    (lambda: core.require_between("0.5", 0, 1, "fpr"), ValueError, "got '0.5'"),
    (lambda: core.require_between(float("nan"), 0, 1, "fpr"), ValueError, "got nan"),
    (lambda: core.require_positive_int(0, "n"), ValueError, "n must be a whole number >= 1, got 0"),
    (lambda: core.require_positive_int(2.0, "n"), ValueError, "got 2.0"),
    (lambda: core.require_finite([[1, 2], [np.inf, np.nan]], "X"), ValueError,
     "X must be finite, got inf at (1, 0) and 2 bad values in all"),
    (lambda: core.require_columns(pd.DataFrame({"a": [1]}), ["A"], "it"), KeyError,
     "records lack 1 columns ['A']; it needs 1; did you mean 'a'?"),
    (lambda: core.require_file("no/such", "make it"), FileNotFoundError, "no/such does not exist; make it with: make it")]


@pytest.mark.parametrize("call, error, text", CALLS)
def test_an_error_names_argument_rule_and_value(call, error, text):
    with pytest.raises(error) as caught: call()
    assert text in str(caught.value).replace('"', "")


# ---------------------------------------------------------------- parameters of a notebook
OWN = "dataset = 'demo'  # which\nepochs = 100\nrate = 0.5\nprofile = False\nnames = None\nsizes = [1, 2]"
KEPT = {"epochs": (5, 5.0), "rate": (1, 0.25), "profile": (True,), "dataset": ("tor2016", 31, [31, 13]),
        "names": (3, "x", True), "sizes": ("all", True, 2)}
REFUSED = {"epochs": (0.5, "many", True), "rate": ("fast", False), "profile": (1, "yes"), "dataste": ("demo",)}


def ran(name, value): return {"In": ["", OWN, f"# Parameters\n{name} = {value!r}"]}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in KEPT.items() for value in values])
def test_parameters_of_a_fitting_kind_are_kept(name, value): assert core.check_parameters(ran(name, value)) == {name: value}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in REFUSED.items() for value in values])
def test_other_parameters_are_refused(name, value):
    with pytest.raises(ValueError, match=f"parameter '{name}'"): core.check_parameters(ran(name, value))


def test_a_notebook_that_was_not_given_parameters_has_none():
    assert core.check_parameters({}) == {} == core.check_parameters({"In": ["", OWN]})


# ---------------------------------------------------------------- files
def law_atomic(atomic, path):
    "A failed write leaves the old file and nothing else; a whole one has the user's permissions."
    path.write_text("old")
    with pytest.raises(OSError):
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]
    with atomic(path) as temporary:
        temporary.write_text("new")
        temporary.chmod(0o600)
    plain = path.with_name("plain")
    plain.write_text("")
    assert path.read_text() == "new" and path.stat().st_mode == plain.stat().st_mode


def test_atomic(tmp_path): law_atomic(core.atomic_path, tmp_path / "a.txt")


def test_atomic_law_catches_a_plain_write(tmp_path):
    from contextlib import nullcontext
    with pytest.raises(AssertionError): law_atomic(nullcontext, tmp_path / "a.txt")


def test_a_record_has_no_nan_and_no_list(tmp_path):
    path = core.write_json(tmp_path / "a.json", {"b": np.float32(0.5), "a": np.arange(2), "p": tmp_path})
    assert core.read_json(path) == {"a": [0, 1], "b": 0.5, "p": str(tmp_path)}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    with pytest.raises(ValueError): core.write_json(path, {"a": float("nan")})
    for text in ("[1]", "{"):
        path.write_text(text)
        with pytest.raises(ValueError, match="a.json is not a JSON record"): core.read_json(path)


def test_a_fingerprint_sees_values_order_and_names():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    others = [frame[::-1], frame[["b", "a"]], frame.rename(columns={"a": "c"}), frame + 1e-12,
              frame.to_numpy(), frame.to_numpy().reshape(1, 4)]
    assert len({core.fingerprint(frame), *map(core.fingerprint, others)}) == 7
    assert core.fingerprint(frame) == core.fingerprint(frame.astype("float32"))


def test_figures_of_axes_and_of_figures_are_saved(tmp_path):
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(2, 1))
    for what in (figure, axes, axes[0]): assert core.save_figure(what, tmp_path / "a.png").stat().st_size > 100
    plt.close(figure)


def test_models_are_written_under_a_name_that_leftovers_are_known_by(tmp_path, monkeypatch):
    "safetensors' own writer makes a temporary file of another name, which nobody would clear after a kill."
    import safetensors.numpy
    def own_writer(*how): raise AssertionError("writes under a name of its own")
    monkeypatch.setattr(safetensors.numpy, "serialize_file", own_writer)
    write_model(tmp_path / "m.safetensors", {"x": np.arange(3.0)}, {}, "here-1")
    assert read_model(tmp_path / "m.safetensors", "here-1")[0]["x"].tolist() == [0, 1, 2]


def test_a_file_name_that_is_no_unicode_is_written_and_read_back(tmp_path):
    name = b"caf\xe9.docx".decode("utf-8", "surrogateescape")
    assert read_json(write_json(tmp_path / "a.json", {"left": name}))["left"] == name
