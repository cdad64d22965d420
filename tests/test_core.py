"""Laws of nfad.core: the container of model files loads what was written, or says in a ValueError that names the file why not."""
import json
import pickle
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from nfad import core
from nfad.core import MAX_HEADER, read_header, read_model, write_model

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
    whole = read_header(path)
    for place in [*range(10), *rng.integers(8, start, 120), *range(start, len(content), 3), len(content) - 1]:
        for bit in (0, 2, 5):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try: arrays, header = read(path, FORMAT)
            except ValueError as error: assert str(path) in str(error)
            else: assert read_header(path) == whole and all(np.array_equal(arrays[k], v) for k, v in ARRAYS.items()), int(place)


def test_damage_is_seen(path): law_damage_is_seen(read_model, path)


def test_damage_law_catches_a_reader_without_hash(path):
    def trusting(path, format):
        with core._open_model(path) as (file, header): return {name: file.get_tensor(name) for name in file.keys()}, header
    with pytest.raises((AssertionError, KeyError)): law_damage_is_seen(trusting, path)


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
