"""Model files that are damaged or forged: the same bits or an error, in little time and memory, and no traceback on a terminal."""
import json
import struct
import warnings
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
from safetensors.numpy import save_file

from nfad import architectures, core, export, lines, listen, nearest, netflow, prep, tables
from nfad.cli import main
from nfad.core import read_header, read_model
from nfad.detector import FILE_FORMAT, FlowDetector
from nfad.export import network_to_onnx, open_session, run_session
from nfad.network import NETWORK_FORMAT, NeuralClassifier
from nfad.seen import read_seen, remember, write_seen
from nfad.training import CHECKPOINT_FORMAT, Progress, read_checkpoint, start_training, write_checkpoint

from attacks import damage, run_attacks
from flows import MILD, X, quick

PROBE = X[:7]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    "One small file of each kind: its bytes, its format, what opens it, and what the opened one answers."
    folder = tmp_path_factory.mktemp("models")
    save = {"profile": lambda p: write_seen(quick(statistic="profile", epochs=2).fit(X).save(p), remember(X)),
            "quantile": lambda p: quick(transform="quantile", n_members=2, feature_order="shuffled", epochs=1).fit(X).save(p),
            "pzflow": lambda p: FlowDetector.preset("paper", epochs=1, batch_size=144).fit(MILD).save(p),
            "network": lambda p: NeuralClassifier(hidden=(8, 8), epochs=1).fit(X, np.repeat(["a", "b"], 160)).save(p)}
    flow = quick(epochs=1).fit(X).flow_
    start = Progress(start_training(flow._params[1], "adam"), flow._params[1], [(1.0, 2.0)])
    made = {}
    for name, write in save.items():
        network = name == "network"
        opened = NeuralClassifier.load if network else FlowDetector.load
        records = MILD[:7] if name == "pzflow" else PROBE
        answer = (lambda m, r=records: m.predict_proba(r)) if network else (lambda m, r=records: m.anomaly_score(r))
        made[name] = SimpleNamespace(data=write(folder / name).read_bytes(), format=NETWORK_FORMAT if network else FILE_FORMAT, open=opened, answer=answer)
    write_checkpoint(folder / "checkpoint", start, "mine")
    made["checkpoint"] = SimpleNamespace(data=(folder / "checkpoint").read_bytes(), format=CHECKPOINT_FORMAT,
                                         open=lambda path: read_checkpoint(path, start, "mine"), answer=lambda progress: progress.losses)
    for name, model in made.items():
        model.arrays, model.header = read_model(folder / name, model.format)
    return made


def is_same(path, model):
    "Whether a file holds the bits that were written."
    arrays, header = read_model(path, model.format)
    return header == model.header and set(arrays) == set(model.arrays) and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()) for a, b in ((arrays[name], model.arrays[name]) for name in arrays))


def law_damage(open_file, models, attack, folder):
    "A damaged file is refused with its name, or still holds the same bits; so says its header."
    model = models[attack.one_of(models)]
    path = folder / "damaged.safetensors"
    path.write_bytes(damage(model.data, attack))
    try: open_file(model, path)
    except ValueError as error:
        assert path.name in str(error)
        return "refused"
    assert is_same(path, model)
    assert {name: value for name, value in read_header(path).items() if name != "shapes"} == model.header
    return "the same"


def test_damaged_files(models, tmp_path):
    run_attacks("damage", lambda attack: law_damage(lambda model, path: model.open(path), models, attack, tmp_path))


def test_damaged_files_catches_a_reader_without_hash(models, tmp_path, monkeypatch):
    monkeypatch.setattr(core, "_require_hash", lambda arrays, header: None)
    with pytest.raises(AssertionError): run_attacks("damage", lambda attack: law_damage(lambda model, path: model.open(path), models, attack, tmp_path))


# ---------------------------------------------------------------- forged: the hash is right, what it vouches for is not

WORDS = [None, True, False, -1, 0, 1, 2, 3, 7, 300, 10**6, 10**18, 2**70, 0.5, -1e308, 1e308, 1e-320, "", "x", "pzflow", "coupling", "autoregressive", "profile", "log_prob",
         "quantile", "none", "shuffled", "x" * 10**5, [], {}, [[]], [1, [2]], {"a": {}}, [0] * 10**5, ["a"] * 10**5, list(range(300)), {str(i): i for i in range(10**4)}]


def places(value, path=()):
    "All places within plain values."
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner: yield from places(below, (*path, key))


def forge_header(header, attack):
    "One entry of the header, at any depth, is another value, is gone, or stands twice."
    header = json.loads(json.dumps(header))
    spots = [path for path in places(header) if path]
    shallow = [path for path in spots if len(path) <= 2]
    *above, last = attack.one_of(shallow if attack.rng.random() < 0.7 else spots)
    inside = header
    for key in above: inside = inside[key]
    kind = attack.one_of(["other", "other", "gone", "wrap", "scale"])
    old = inside[last]
    if kind == "gone": del inside[last]
    elif kind == "wrap": inside[last] = [old]
    elif kind == "scale" and isinstance(old, (int, float)) and not isinstance(old, bool): inside[last] = old * attack.one_of([-1, 2, 1000, 1e30])
    else: inside[last] = attack.one_of(WORDS)
    return header


def forge_arrays(arrays, attack):
    "One array is gone, of another shape, type or content, or changes places with another."
    arrays = dict(arrays)
    name = attack.one_of(sorted(arrays))
    a = arrays[name]
    kind = attack.one_of(["gone", "rename", "swap", "type", "shape", "grow", "cut", "value", "scale", "empty", "more"])
    if kind == "gone": del arrays[name]
    elif kind == "rename": arrays[attack.one_of(["x", name + "0", "", "statistic.x", "flow.99", "transform.x"])] = arrays.pop(name)
    elif kind == "swap":
        other = attack.one_of(sorted(arrays))
        arrays[name], arrays[other] = arrays[other], a
    elif kind == "type": arrays[name] = a.astype(attack.one_of(["f2", "f4", "f8", "i1", "i4", "i8", "u8", "?"]))
    elif kind == "shape": arrays[name] = attack.one_of([a.reshape(-1), a[None], a[..., None], a.T])
    elif kind == "grow": arrays[name] = np.repeat(a, attack.one_of([2, 3, 100]), axis=0) if a.ndim and a.nbytes < 10**6 else np.full(1000, a.flat[0] if a.size else 0)
    elif kind == "cut": arrays[name] = a[:len(a) // 2] if a.ndim else a
    elif kind == "value" and a.size:
        a = a.copy()
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            a.flat[int(attack.rng.integers(a.size))] = np.float64(attack.one_of([np.nan, np.inf, -np.inf, 1e38, -1e38, 0, -1, 1e-300])).astype(a.dtype)
        arrays[name] = a
    elif kind == "scale": arrays[name] = a - a if a.dtype != bool else ~a
    elif kind == "empty": arrays[name] = a[:0] if a.ndim else np.zeros((0, 3), a.dtype)
    else: arrays["more"] = np.zeros(3)
    return arrays


def write_forged(path, arrays, header):
    "A file whose hash fits, whatever it holds."
    header = {name: value for name, value in header.items() if name != "sha256"}
    try: header["sha256"] = core._hash_model(arrays, header)
    except ValueError: header["sha256"] = "0" * 64  # what JSON has no number for
    save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path, metadata={"nfad": json.dumps(header)})
    return path


def forged_case(models, attack, folder, capsys):
    "A forged file is refused with its name, or it opens, and then it answers, or says why not; `nfad info` never ends in a traceback."
    model = models[attack.one_of(models)]
    arrays, header = model.arrays, model.header
    for _ in range(int(attack.rng.integers(1, 4))):
        if attack.rng.random() < 0.5: header = forge_header(header, attack)
        else: arrays = forge_arrays(arrays, attack)
    path = write_forged(folder / "forged.safetensors", arrays, header)
    status = main(["info", str(path)])
    said = capsys.readouterr()
    assert status in (0, 1) and "Traceback" not in said.err and (status == 0 or path.name in said.err)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try: opened = model.open(path)
        except ValueError as error:
            assert path.name in str(error)
            return "refused"
        with np.errstate(all="ignore"):
            try: model.answer(opened)
            except (ValueError, KeyError) as error: return f"opens; {type(error).__name__}"
    if model.format != CHECKPOINT_FORMAT: read_seen_or_error(path)
    return "opens"


def read_seen_or_error(path):
    try: read_seen(path)
    except ValueError as error: assert path.name in str(error)


def test_forged_files(models, tmp_path, capsys):
    told = run_attacks("forged", lambda attack: forged_case(models, attack, tmp_path, capsys))
    assert told["refused"] > told["opens"]


def test_forged_files_catches_a_loader_that_lets_errors_through(models, tmp_path, capsys, monkeypatch):
    def careless(arrays, header): return NeuralClassifier(**header["parameters"]), header["classes"][0], arrays["w.0"]
    careless_models = {"network": SimpleNamespace(**vars(models["network"]) | {"open": lambda path: careless(*read_model(path, NETWORK_FORMAT))})}
    with pytest.raises((KeyError, TypeError, AssertionError, AttributeError)): run_attacks("forged", lambda attack: forged_case(careless_models, attack, tmp_path, capsys))


# ---------------------------------------------------------------- headers of safetensors itself

def raw_file(attack):
    "A file whose lengths, types, shapes and places are invented."
    one = lambda *choices: attack.one_of(choices)
    big = lambda: one(0, 1, 2, 8, 100, 10**6, 2**31, 2**40, 2**63 - 1, 2**64 - 1, 2**64, -1, 1.5, "1")
    tensor = lambda: {"dtype": one("F32", "F64", "I64", "BOOL", "BF16", "F8_E4M3", "X", 3), "shape": one([], [2], [big()], [big(), big()], [0], "2", [[2]]),
                      "data_offsets": one([0, 8], [0, big()], [big(), big()], [8, 0], [0], "0")}
    names = [one("a", "b", "", "flow.0", "__metadata__", "x" * 1000, "bounds") for _ in range(int(attack.rng.integers(0, 4)))]
    header = {name: tensor() for name in names} | {"__metadata__": one({}, {"nfad": one("", "{", "[]", '{"format": "nfad-flow-3"}', '{"format": 1}', "[" * 10**5)}, {"nfad": 3}, 3, None)}
    text = json.dumps(header).encode() + b" " * int(attack.rng.integers(0, 9))
    length = one(len(text), len(text), len(text), big())
    prefix = struct.pack("<Q", int(length) % 2**64) if isinstance(length, int) else b"12345678"
    return prefix + text + attack.rng.bytes(int(one(0, 8, 16, 100)))


def test_invented_files(models, tmp_path):
    def case(attack):
        path = tmp_path / "raw.safetensors"
        path.write_bytes(raw_file(attack))
        for read in (read_header, FlowDetector.load, NeuralClassifier.load):
            with pytest.raises(ValueError, match="raw.safetensors"): read(path)
        return "refused"
    run_attacks("raw", case)


# ---------------------------------------------------------------- graphs, and records of runs

@pytest.fixture(scope="module")
def graph():
    "Bytes of a network's graph, and what it answers."
    made = network_to_onnx(NeuralClassifier(hidden=(8,), epochs=1).fit(X, np.repeat(["a", "b"], 160)))
    return SimpleNamespace(data=made.SerializeToString(), answer=run_session(open_session(made), PROBE))


def law_graph(open_file, graph, attack, folder):
    "A damaged graph is refused with its name, or answers the same bits."
    path = folder / "damaged.onnx"
    path.write_bytes(damage(graph.data, attack))
    try: session = open_file(path)
    except ValueError as error:
        assert path.name in str(error)
        return "refused"
    assert np.array_equal(run_session(session, PROBE), graph.answer)
    return "the same"


def test_damaged_graphs(graph, tmp_path): run_attacks("graphs", lambda attack: law_graph(open_session, graph, attack, tmp_path))


def test_damaged_graphs_catches_a_reader_without_seal(graph, tmp_path):
    def trusting(path):
        try: return open_session(onnx.load_from_string(path.read_bytes()))
        except Exception as error: raise ValueError(f"{path}: {error}") from error
    with pytest.raises((AssertionError, ValueError)): run_attacks("graphs", lambda attack: law_graph(trusting, graph, attack, tmp_path))


def test_a_graph_from_elsewhere_is_refused(tmp_path):
    inside = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [onnx.helper.make_tensor_value_info("x", 1, ["n", 2])],
                                    [onnx.helper.make_tensor_value_info("y", 1, ["n", 2])])
    onnx.save(onnx.helper.make_model(inside), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="other.onnx.*seal"): open_session(tmp_path / "other.onnx")


@pytest.fixture(scope="module")
def run_of_a_file(tmp_path_factory):
    "A small run of a user's own file."
    folder = tmp_path_factory.mktemp("run")
    X.assign(Label=np.where(np.arange(len(X)) % 10 == 0, "odd", "benign")).to_csv(folder / "own.csv", index=False)
    assert main(["train", str(folder / "own.csv"), "--preset", "fast", "--epochs", "1", "--out-dir", str(folder / "runs"), "--quiet"]) == 0
    return next(folder.glob("runs/*/*/train.json")).parent


def test_damaged_records_of_runs(run_of_a_file, capsys):
    "train.json is a person's to read and to change: damaged or forged, the command says one line and ends, or goes on."
    path = run_of_a_file / "train.json"
    content = path.read_bytes()
    plain = json.loads(content)
    def case(attack):
        if attack.rng.random() < 0.5: path.write_bytes(damage(content, attack))
        else: path.write_text(json.dumps(forge_header(plain, attack)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = main(["evaluate", str(run_of_a_file)])
        said = capsys.readouterr()
        assert status in (0, 1) and "Traceback" not in said.err, said.err
        assert status == 0 or said.err.splitlines()[-1].startswith("nfad evaluate: "), said.err
        return "goes on" if status == 0 else "refused"
    try: run_attacks("records", case, share=0.06)
    finally: path.write_bytes(content)


def test_no_traceback_when_a_bad_model_scores(models, tmp_path, capsys):
    "Commands that open models: one line, exit 1 (or 3 for a folder), and nothing written under the target's name."
    (tmp_path / "in").mkdir()
    X[:20].to_csv(tmp_path / "in" / "a.csv", index=False)
    def case(attack):
        model, path, out = models["profile"], tmp_path / "m.safetensors", tmp_path / "out"
        if attack.rng.random() < 0.3: path.write_bytes(damage(model.data, attack))
        else: write_forged(path, forge_arrays(model.arrays, attack), model.header)
        status = main(["score", str(path), str(tmp_path / "in"), str(out), "--quiet", "--force"])
        said = capsys.readouterr()
        assert status in (0, 1, 3) and "Traceback" not in said.err
        if status == 1: assert not out.exists()
        for file in out.glob("**/*"): file.unlink()
        if out.exists(): out.rmdir()
        return f"exit {status}"
    run_attacks("scoring", case, share=0.1)


def test_the_limits_that_security_md_states():
    "What the page says is what the code does."
    from pathlib import Path
    page = (Path(__file__).parent.parent.parent / "SECURITY.md").read_text(encoding="utf-8")
    said = dict(row.strip("| ").split(" | ") for row in page.splitlines() if row.startswith("| ") and "at most" not in row)
    assert said == {"model file, ONNX graph": f"{core.MAX_MODEL >> 20} MB", "header of a model file": f"{core.MAX_HEADER >> 20} MB",
                    "features of a model; of architecture `pzflow`": f"{prep._MAX_FEATURES:,}; {architectures._MOST_COUPLED}",
                    "points that records are compared with; flows of an ensemble": f"{nearest.MAX_POINTS:,}; 100", "classes of a network; letters of a name": "10,000; 200",
                    "line of a stream": f"{lines._LONGEST >> 20} MB", "columns of a table": f"{tables._MAX_COLUMNS:,}",
                    "NetFlow: templates; fields of one; datagrams that wait for a template, for the scorer":
                        f"{netflow._MOST_TEMPLATES:,}; {netflow._MOST_FIELDS}; {netflow._MOST_HELD}, {listen._MOST_WAITING:,}"}
    assert export._LARGEST == core.MAX_MODEL
    for name in (FILE_FORMAT, NETWORK_FORMAT, CHECKPOINT_FORMAT): assert f"`{name}`" in page
