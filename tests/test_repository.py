"""The rules of the repository, each a function over text or paths, each shown to fail on a broken twin.

CONTRIBUTING.md says the same in words. The rules cover layers, the shape of notebooks, documentation, notebooks and
modules in sync, README.md in sync, and what must not be in the repository.
"""
import ast
import configparser
import copy
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from fastcore.docments import docments
from packaging.requirements import Requirement

import nfad
import notebooks
from notebooks import NBS, ROOT, plain_outputs, render_readme, untested

LIBRARY = sorted(NBS.glob("[0-9][0-9]_*.ipynb"))
MODULES = [path.stem[3:] for path in LIBRARY]
INDEX = NBS / "index.ipynb"
HEAVY = {"jax", "pzflow", "shap", "lime", "matplotlib", "seaborn", "torch"}
LIGHT = ("nfad", "nfad.core", "nfad.vocabulary", "nfad.simulate", "nfad.data", "nfad.prep", "nfad.score", "nfad.explain", "nfad.deploy", "nfad.cli")
by_notebook = pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)


def read(path): return nbformat.read(path, as_version=4)


def code(nb) -> list[str]:
    "Code cells without the lines that only IPython understands."
    return [re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.M) for cell in nb.cells if cell.cell_type == "code"]


def refuse(faults: list[str]):
    "Fails, one fault a line."
    if faults: pytest.fail("\n".join(faults), pytrace=False)


def changed(nb, **cells):
    "A copy of a notebook, with the source of some cells (`c3=...`) changed."
    twin = copy.deepcopy(nb)
    for name, source in cells.items(): twin.cells[int(name[1:])].source = source
    return twin


# ---------------------------------------------------------------- layers

def imported_modules(source: str) -> set[str]:
    "Modules of nfad that a piece of code imports anywhere, also inside functions."
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level: base = f"nfad.{base}".rstrip(".")
            names = [f"nfad.{nfad._HOME.get(alias.name, alias.name)}" for alias in node.names] if base == "nfad" else [base]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        else: continue
        found |= {name.split(".")[1] for name in names if name.startswith("nfad.") and name != "nfad.__version__"}
    return found


def layer_faults(sources: dict[str, list[str]]) -> list[str]:
    "Imports of a module whose number is not lower; `sources` maps `03_train` to its pieces of code."
    rank = {name[3:]: int(name[:2]) for name in sources}
    return [f"{name} imports nfad.{module}" for name, pieces in sources.items() for piece in pieces
            for module in sorted(imported_modules(piece)) if rank.get(module, 99) >= int(name[:2])]


def test_a_notebook_imports_only_lower_numbers():
    notebooks = {path.stem: code(read(path)) for path in LIBRARY}
    modules = {path.stem: [(ROOT / "nfad" / f"{path.stem[3:]}.py").read_text(encoding="utf-8")] for path in LIBRARY}
    assert layer_faults(notebooks) == [] and layer_faults(modules) == []


@pytest.mark.parametrize("line", ["from nfad.train import FlowDetector", "import nfad.train", "from nfad import train",
                                  "from nfad import FlowDetector", "from .train import fit", "from nfad.none import x",
                                  "def f():\n    import nfad.train as t", "import_module('nfad.train')", "from nfad.data import x"])
def test_layers_catch_an_upward_import(line):
    assert layer_faults({"00_core": [""], "01_data": ["from nfad.core import x\n" + line], "03_train": ["from nfad.data import y"]})


def heavy_imports(statement: str) -> set[str]:
    "Heavy packages that are loaded after `statement` runs in a fresh Python."
    run = subprocess.run([sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)"], capture_output=True, text=True,
                         cwd=ROOT, check=True)
    return HEAVY & set(run.stdout.split())


@pytest.mark.parametrize("module", [m for m in LIGHT if m == "nfad" or m.removeprefix("nfad.") in MODULES])
def test_light_modules_load_nothing_heavy(module): assert heavy_imports(f"import {module}") == set()


def test_light_modules_catch_a_heavy_import(): assert heavy_imports("import nfad, matplotlib") == {"matplotlib"}


# ---------------------------------------------------------------- the shape of a notebook

def parameter_faults(source: str) -> list[str]:
    "What is wrong with a parameters cell: one literal a line, each with a comment, the four common names among them."
    faults, names = [], set()
    lines = source.splitlines()
    for node in ast.parse(source).body:
        try:
            ast.literal_eval(node.value)
            names.add(node.targets[0].id)
            assert len(node.targets) == 1 and node.lineno == node.end_lineno
        except (AttributeError, ValueError, AssertionError):
            faults.append(f"parameters: {ast.unparse(node)!r} is not `name = literal` on one line")
        if "#" not in lines[node.end_lineno - 1]: faults.append(f"parameters: {ast.unparse(node)!r} has no comment")
    missing = {"dataset", "feature_set", "seed", "out_dir"} - names
    return faults + [f"parameters: {name} is missing" for name in sorted(missing)]


def shape_faults(nb, name: str) -> list[str]:
    "Where a library notebook departs from the common shape; those of rank 00 cannot import `check_parameters`."
    faults, cells, sources = [], nb.cells, code(nb)
    exported = [s for s in sources if re.match(r"#\|\s*exporti?\b", s)]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    if cells[0].source.strip() != f"#| default_exp {name[3:]}": faults.append(f"first cell is not `#| default_exp {name[3:]}` alone")
    if cells[1].cell_type != "markdown" or not cells[1].source.startswith("# "): faults.append("second cell is not the title")
    if any(not isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(exported[0]).body):
        faults.append("first exported cell holds more than imports")
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1: faults.append(f"{len(tagged)} cells are tagged parameters, not 1")
    for source in tagged: faults += parameter_faults(source)
    if name[:2] != "00" and not any("check_parameters(globals())" in s for s in sources): faults.append("check_parameters(globals()) is not called")
    for source in exported:
        n_lines = sum(bool(line.strip()) and not line.startswith("#|") for line in source.splitlines())
        if n_lines > 40: faults.append(f"exported cell of {n_lines} lines: {source.splitlines()[1][:50]!r}")
    headings = re.findall(r"^## (.*)$", text, flags=re.M)
    if "Run" not in headings or headings[-1] != "Limits": faults.append(f"sections end with {headings[-2:]}, without a Run or with something after Limits")
    return faults


def common_faults(nb) -> list[str]:
    "What no notebook may hold, library or not."
    faults = []
    for cell in nb.cells:
        if re.search(r"^\s*from .* import \*", cell.source, flags=re.M): faults.append(f"star import: {cell.source[:50]!r}")
        if cell.cell_type == "code" and "nbdev_" + "export(" in cell.source: faults.append("exports itself when run")
        for output in cell.get("outputs", []):
            if output.output_type == "error" or output.get("name") == "stderr": faults.append(f"stored error or warning below {cell.source[:50]!r}")
    if nb.metadata.get("kernelspec", {}).get("name") != "python3": faults.append("kernel is not python3")
    return faults


@by_notebook
def test_library_notebooks_have_the_common_shape(path): refuse(shape_faults(read(path), path.stem))


@pytest.mark.parametrize("path", sorted(NBS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_hold_nothing_forbidden(path): refuse(common_faults(read(path)))


GOOD = "dataset = 'demo'  # a\nfeature_set = 'all'  # b\nseed = 0  # c\nout_dir = 'runs'  # d"


def good_notebook():
    "The smallest notebook that keeps all rules."
    v = nbformat.v4
    parameters = v.new_code_cell(GOOD, metadata={"tags": ["parameters"]})
    body = [v.new_code_cell("check_parameters(globals())"), v.new_code_cell("#| export\nx = 1"), v.new_markdown_cell("## Run\n\n## Limits")]
    return v.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3"}}, cells=[
        v.new_code_cell("#| default_exp core"), v.new_markdown_cell("# Core"), v.new_code_cell("#| export\nimport os"), parameters, *body])


def test_the_good_notebook_is_good():
    assert shape_faults(good_notebook(), "00_core") == [] and common_faults(good_notebook()) == []


@pytest.mark.parametrize("cell, source, fault", [
    ("c0", "#| default_exp core\nimport os", "first cell"), ("c0", "#| default_exp data", "first cell"), ("c1", "Core", "title"),
    ("c2", "#| export\nimport os\nx = 1", "more than imports"), ("c3", GOOD.replace("0  #", "0"), "literal"), ("c3", GOOD + "\nn = len('a')  # e", "literal"),
    ("c3", GOOD + "\nn = 1", "no comment"), ("c3", GOOD.replace("seed", "s"), "seed is missing"), ("c4", "x", "check_parameters"),
    ("c5", "#| export\n" + "x = 1\n" * 41, "41 lines"), ("c6", "## Limits", "without a Run"), ("c6", "## Run\n\n## Limits\n\n## More", "after Limits")])
def test_shape_catches(cell, source, fault):
    twin = changed(good_notebook(), **{cell: source if fault != "literal" else source.replace("0 c", "[0][0]  # c")})
    assert any(fault in found for found in shape_faults(twin, "01_core")), fault


def test_shape_catches_a_missing_tag():
    twin = good_notebook()
    twin.cells[3].metadata.tags = []
    assert any("tagged" in found for found in shape_faults(twin, "00_core"))


@pytest.mark.parametrize("source", ["from os import *", "import nbdev; nbdev." + "nbdev_" + "export()"])
def test_forbidden_catches(source): assert common_faults(changed(good_notebook(), c4=source))


def test_forbidden_catches_a_stored_warning():
    twin = good_notebook()
    twin.cells[4].outputs = [nbformat.v4.new_output("stream", name="stderr", text="RuntimeWarning")]
    assert common_faults(twin)


# ---------------------------------------------------------------- documentation

def undocumented(thing, owner: type | None = None) -> list[str]:
    """What a function, or a class with its fields and public methods, lacks: a docstring with a full stop, docments.

    No comment is asked for beside a value of a class of nfad, which is documented itself, beside the records `X` and `y`
    of a method, or where a method only fills in the interface of another library.
    """
    name, faults = thing.__qualname__, []
    if not (inspect.getdoc(thing) or "").split("\n\n")[0].rstrip().endswith("."): faults.append(f"{name}: no docstring that ends in a full stop")
    if inspect.isclass(thing):
        for field in undocumented_fields(thing): faults.append(f"{name}.{field}: no comment")
        for key, member in vars(thing).items():
            member = getattr(member, "__func__", member)
            if inspect.isfunction(member) and not key.startswith("_") and member.__qualname__ == f"{name}.{key}":
                if not any(hasattr(base, key) for base in thing.__mro__[1:] if not base.__module__.startswith("nfad")): faults += undocumented(member, thing)
        return faults
    signature, notes = inspect.signature(thing), docments(thing, full=True)
    known = {key for key, value in vars(sys.modules[thing.__module__]).items() if inspect.isclass(value) and value.__module__.startswith("nfad.")}
    clear = lambda annotation: getattr(annotation, "__name__", annotation) in known | {"Self"}
    plain = {"self", "cls", "X", "y"} if owner else set()
    faults += [f"{name}({key}): no comment" for key, parameter in signature.parameters.items()
               if key not in plain and parameter.kind is not parameter.VAR_KEYWORD and not clear(parameter.annotation)
               and not notes.get(key, {}).get("docment")]  # docments do not see the comment beside **name
    returns = signature.return_annotation
    if returns is inspect.Parameter.empty: faults.append(f"{name}: no return annotation")
    elif returns is not None and not clear(returns) and not notes.get("return", {}).get("docment"): faults.append(f"{name}: no comment beside the return")
    return faults


def undocumented_fields(cls: type) -> list[str]:
    "Fields of a dataclass or NamedTuple without a comment on their line or above it."
    if not (hasattr(cls, "__dataclass_fields__") or hasattr(cls, "_fields")): return []
    source = inspect.cleandoc("\n" + inspect.getsource(cls))
    lines = source.splitlines()
    fields = [node for node in ast.parse(source).body[0].body if isinstance(node, ast.AnnAssign)]
    return [node.target.id for node in fields
            if "#" not in lines[node.end_lineno - 1] and not lines[node.lineno - 2].strip().startswith("#")]


def public(module) -> list:
    "Functions and classes that a module defines and exports."
    things = [getattr(module, name) for name in module.__all__]
    return [t for t in things if (inspect.isfunction(t) or inspect.isclass(t)) and t.__module__ == module.__name__]


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_documented(module):
    things = public(importlib.import_module(f"nfad.{module}"))
    refuse([f"nfad.{module} has no public names"] * (not things) + [fault for thing in things for fault in undocumented(thing)])


def test_documentation_catches_what_is_missing():
    from dataclasses import dataclass

    def good(
        x: int,  # a number
    ) -> int:    # the same
        "Returns x."
        return x

    def no_stop(
        x: int,  # a number
    ) -> int:    # the same
        "Returns x"
        return x

    def no_docment(x: int) -> int:
        "Returns x."
        return x

    @dataclass
    class Fields:
        "Two fields."
        a: int  # the first
        b: int

        def method(self, x: int) -> None: "No comment beside x."

        def fit(self, X: list) -> "Fields": "X needs none, Fields does: it is not nfad's."

    assert undocumented(good) == []
    assert len(undocumented(no_stop)) == 1 and len(undocumented(no_docment)) == 2
    assert len(undocumented(Fields)) == 3


# ---------------------------------------------------------------- notebooks and modules in sync

@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    "A copy of the repository after `nbdev_export` and `nbdev_clean`."
    target = tmp_path_factory.mktemp("export")
    for name in ("nbs", "nfad"): shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*", "_modidx.py"))
    for name in ("settings.ini", "setup.py", "pyproject.toml"): shutil.copy(ROOT / name, target)
    environment = {key: value for key, value in os.environ.items() if key != "IN_TEST"}
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run([Path(sys.executable).parent / command], cwd=target, env=environment, check=True, capture_output=True)
    return target


def differences(one: Path, other: Path, pattern: str) -> list[str]:
    "Names of files that differ between two folders or are in one only."
    names = {p.name for folder in (one, other) for p in folder.glob(pattern) if p.name != "_modidx.py"}
    same = lambda name: (one / name).is_file() and (other / name).is_file() and (one / name).read_bytes() == (other / name).read_bytes()
    return sorted(name for name in names if not same(name))


def test_modules_are_what_the_notebooks_export(exported): assert differences(ROOT / "nfad", exported / "nfad", "*.py") == []


def test_notebooks_are_clean(exported): assert differences(NBS, exported / "nbs", "*.ipynb") == []


def test_sync_catches_an_edited_module(exported, tmp_path):
    shutil.copytree(exported / "nfad", tmp_path / "nfad")
    with open(tmp_path / "nfad" / "core.py", "a", encoding="utf-8") as file: file.write("\nx = 1\n")
    (tmp_path / "nfad" / "orphan.py").touch()
    assert differences(tmp_path / "nfad", exported / "nfad", "*.py") == ["core.py", "orphan.py"]


def readme_faults(root: Path, notebook: Path) -> list[str]:
    "Files that differ from what the notebook renders to, and figures that it does not show."
    text, figures = render_readme(notebook)
    faults = [] if (root / "README.md").read_text(encoding="utf-8") == text else ["README.md"]
    stored = {path.name: path.read_bytes() for path in (root / "figures").glob("index_*")}
    return faults + sorted(name for name in stored.keys() | figures.keys() if stored.get(name) != figures.get(name))


@pytest.mark.skipif(not INDEX.exists(), reason="nbs/index.ipynb is not written yet")
def test_readme_is_rendered_from_the_index():
    assert readme_faults(ROOT, INDEX) == [], "run `make readme`"


def test_readme_catches_an_edit(tmp_path):
    v = nbformat.v4
    figure = v.new_output("display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"})
    cells = [v.new_markdown_cell("# nfad\n\n[core](00_core.ipynb), [changes](../CHANGELOG.md), [paper](https://x.org/a)"),
             v.new_code_cell("#| hide\nimport os"), v.new_code_cell("plot()", outputs=[figure])]
    nbformat.write(v.new_notebook(cells=cells), tmp_path / "index.ipynb")
    text, figures = render_readme(tmp_path / "index.ipynb")
    assert "[core](nbs/00_core.ipynb), [changes](CHANGELOG.md), [paper](https://x.org/a)" in text and "import os" not in text
    (tmp_path / "figures").mkdir()
    for name, data in figures.items(): (tmp_path / "figures" / name).write_bytes(data)
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert len(figures) == 1 and readme_faults(tmp_path, tmp_path / "index.ipynb") == []
    (tmp_path / "README.md").write_text(text + "edited\n", encoding="utf-8")
    (tmp_path / "figures" / "index_9_9.png").touch()
    assert readme_faults(tmp_path, tmp_path / "index.ipynb") == ["README.md", "index_9_9.png"]


def test_a_notebook_that_did_not_run_is_noticed():
    log = "Starting /x/00_core.ipynb\n- Completed /x/00_core.ipynb\nSuccess.\n"
    assert untested(log, ["00_core.ipynb"]) == [] and untested(log, ["00_core.ipynb", "01_data.ipynb"]) == ["01_data.ipynb"]
    assert untested("No files were eligible for testing\n", ["00_core.ipynb"]) == ["00_core.ipynb"]


def test_a_data_set_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    import pandas as pd
    from nfad.core import write_json
    from nfad.detectors import METRICS, PEERS, summarize, with_leads
    every = ",".join(("nfad", *PEERS, "pzflow"))
    monkeypatch.setattr("nfad.data.list_datasets", lambda: pd.DataFrame({"name": ["good", "bad", "cicids2017_improved", "gone"], "found": [True, True, True, False]}))
    asked = []

    def run(dataset, split, detectors):
        asked.append((dataset, split, detectors))
        if dataset == "bad": return "ValueError: no such column", 1.0
        judged = {name: [dict.fromkeys(METRICS, value)] * notebooks.SEEDS for name, value in (("nfad", 0.9), ("knn", 0.8))}
        record = {"dataset": dataset, "feature_set": "all", "split": split, "n_train": 9, "n_calibration": 9, "n_test_benign": 9, "n_test_attack": 9}
        write_json(tmp_path / "runs" / dataset / "all" / f"detect-{split}.json", record | {"n_seeds": notebooks.SEEDS, "detectors": with_leads(summarize(judged), judged)})
        return "", 1.0

    def command(names): return notebooks.detectors(names, run, tmp_path / "runs", tmp_path, pool=ThreadPoolExecutor)

    assert command([]) == 1
    splits = [("cicids2017_improved", split, every if split == "random" else notebooks.CHEAP) for split in ("random", "grouped", "temporal")]
    assert sorted(asked) == sorted([("good", "random", every), ("bad", "random", every), *splits])
    said = capsys.readouterr().out
    assert "bad, random: FAILED, ValueError: no such column" in said and "1 runs failed: bad, random" in said
    table = pd.read_csv(tmp_path / "detectors.csv")
    assert len(table) == 8 and {"macro_auroc_low", "tpr_at_fpr_0.01_high", "fit_cpu_seconds", "lead_auroc", "n_seeds"} < set(table.columns)
    assert {path.name for path in tmp_path.glob("*.png")} == {"detectors_ranks.png", "detectors_heatmap.png"}
    assert command(["good"]) == 0
    with pytest.raises(ValueError, match="gone"): command(["gone"])


def test_the_studies_of_all_data_sets_are_one_table(tmp_path, monkeypatch, capsys):
    import pandas as pd
    from nfad.core import write_json
    monkeypatch.setattr("nfad.data.list_datasets", lambda: pd.DataFrame({"name": ["good", "bad", "demo"], "found": [True, True, True]}))

    def run(dataset, study):
        if dataset == "bad": return "ValueError: no such column"
        write_json(tmp_path / "runs" / dataset / "all" / f"study_{study}.json", {"candidate": ["a", "b"], "criterion": [0.9, 0.8]})
        return ""

    def command(names): return notebooks.studies(names, run, tmp_path / "runs", tmp_path, pool=ThreadPoolExecutor)

    assert command([]) == 1 and "bad: ValueError: no such column" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "statistics.csv").to_dict("list") == {"dataset": ["good"] * 2, "candidate": ["a", "b"], "criterion": [0.9, 0.8]}
    monkeypatch.setenv("STUDY", "preparation")
    assert command(["good"]) == 0 and (tmp_path / "preparation.csv").read_text() == (tmp_path / "statistics.csv").read_text()
    monkeypatch.setenv("STUDY", "sizes")
    with pytest.raises(ValueError, match="STUDY must be one of"): command(["good"])
    monkeypatch.delenv("STUDY")
    assert command(["good"]) == 0
    with pytest.raises(ValueError, match="data set"): command(["demo"])
    monkeypatch.setattr("nfad.data.list_datasets", lambda: pd.DataFrame({"name": ["demo"], "found": [True]}))
    for action in (command, lambda names: notebooks.detectors(names, run, tmp_path / "runs", tmp_path, pool=ThreadPoolExecutor)):
        with pytest.raises(SystemExit, match="NFAD_DATA"): action([])


def test_stored_outputs_are_free_of_the_machine():
    v = nbformat.v4
    outputs = [v.new_output("stream", name="stderr", text="100%"), v.new_output("stream", name="stdout", text="wrote /h/me/nfad/runs/x"),
               v.new_output("execute_result", data={"text/plain": "'/h/me/.cache'"}),
               v.new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"})]
    kept = plain_outputs(outputs, home="/h/me", root="/h/me/nfad")
    assert [o.get("text") or o.data["text/plain"] for o in kept] == ["wrote runs/x", "'~/.cache'"]


# ---------------------------------------------------------------- what must not be in the repository

# In pieces, so that this file passes its own test.
HOSTS = ["pypi" + ".org", "pythonhosted" + ".org", "registry" + ".npmjs", "deb." + "debian", "conda" + ".anaconda"]
PLACES = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "file:" + "///"]
TOOLS = ["sub" + "agent", "nb" + "t.py", "CON" + "TRACT.md", "shared/de" + "sign", "shared/st" + "yle", "shared/ev" + "aluation", "issues" + " show"]


def leaks(text: str) -> list[str]:
    "Package registries, paths of one machine and words of private tools in a text."
    return [word for word in HOSTS + PLACES + TOOLS if word in text]


def text_of(path: Path) -> str:
    "Text of a file; of a notebook without its pictures."
    text = path.read_text(encoding="utf-8", errors="ignore")
    if path.suffix != ".ipynb": return text
    nb = json.loads(text)
    for cell in nb["cells"]:
        for output in cell.get("outputs", []):
            output["data"] = {key: value for key, value in output.get("data", {}).items() if not key.startswith("image/")}
    return json.dumps(nb, ensure_ascii=False)


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    "Files that git tracks."
    if not (ROOT / ".git").exists(): pytest.skip("not a git clone")
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_no_file_names_a_registry_or_a_machine(tracked):
    found = {name: leaks(text_of(ROOT / name)) for name in tracked if (ROOT / name).suffix != ".png" and (ROOT / name).is_file()}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("word", HOSTS + PLACES + TOOLS)
def test_leaks_catches(word): assert leaks(f"see {word}x")


def test_data_stays_outside(tracked): assert [name for name in tracked if name.startswith("data/")] == ["data/README.md"]


def test_results_and_builds_stay_outside(tracked):
    assert [name for name in tracked if re.match(r"runs/|\.venv/|.*\.egg-info/|.*\.(safetensors|parquet|pyc)$", name)] == []


def risky_code(source: str) -> list[str]:
    "Ways to run code that came as data; `pandas.read_pickle` is left to the reader that asks for `allow_pickle`."
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in {"eval", "exec", "compile", "__import__"} or name.endswith("read_pickle"): found.append(name)
            found += [name for word in node.keywords if word.arg == "allow_pickle" and name.endswith(("np.load", "numpy.load"))]
    return found


def guarded_pickle(source: str) -> str:
    "The source without functions that raise unless `allow_pickle` is given before they read a pickle."
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and guard_of(node))]
    return ast.unparse(tree)


def guard_of(node: ast.FunctionDef) -> bool:
    first = next((n for n in node.body if isinstance(n, ast.If)), None)
    return first is not None and ast.unparse(first.test) == "not allow_pickle" and isinstance(first.body[-1], ast.Raise)


@pytest.mark.parametrize("module", MODULES)
def test_modules_run_no_data_as_code(module):
    assert risky_code(guarded_pickle((ROOT / "nfad" / f"{module}.py").read_text(encoding="utf-8"))) == []


GUARDED = "def f(p, allow_pickle):\n    if not allow_pickle:\n        raise ValueError('no')\n    return pd.read_pickle(p)"


def test_risky_code_catches():
    assert risky_code(guarded_pickle(GUARDED)) == []
    for source in ("import pickle", "from joblib import load", "def f(x): return eval(x)", "exec('x')", "pd.read_pickle('x')",
                   "np.load('x', allow_pickle=True)", GUARDED.replace("not allow_pickle", "allow_pickle"), GUARDED.replace("raise ValueError('no')", "pass")):
        assert risky_code(guarded_pickle(source)), source


# ---------------------------------------------------------------- the package

def settings() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def test_one_version(): assert settings()["version"] == nfad.__version__


def test_the_parameters_tag_survives_cleaning(): assert "tags" in settings()["allowed_cell_metadata_keys"].split()


def unpinned(requirements: list[str], constraints: str) -> list[str]:
    "Requirements without an exact version in the constraints, or with one that they do not allow."
    pins = dict(line.lower().split("==") for line in constraints.splitlines() if "==" in line)
    wanted = [Requirement(text) for text in requirements]
    return [str(r) for r in wanted if r.name.lower() not in pins or not r.specifier.contains(pins[r.name.lower()])]


def test_constraints_pin_every_requirement():
    wanted = settings()["requirements"].split() + settings()["dev_requirements"].split()
    assert unpinned(wanted, (ROOT / "constraints.txt").read_text(encoding="utf-8")) == []


def test_constraints_catch_a_stale_pin(): assert unpinned(["numpy>=2", "jax", "fastcore<2"], "numpy==1.26\nfastcore==1.14") == ["numpy>=2", "jax"]


def test_public_names_load_on_demand():
    homes = {home for home in nfad._HOME.values() if home in MODULES}
    for name, home in nfad._HOME.items():
        if home in homes: assert getattr(nfad, name).__module__ == f"nfad.{home}"
    with pytest.raises(AttributeError, match="FlowDetector"): nfad.FlowDetectr


def test_the_check_command_is_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for name in ("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "Makefile"): assert (ROOT / name).is_file()
