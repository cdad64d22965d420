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
import rules
from notebooks import plain_outputs, render_readme, untested
from rules import LIBRARY, NBS, ROOT, code, common_faults, module_of, read, shape_faults

MODULES = [module_of(path.stem) for path in LIBRARY]
INDEX = NBS / "index.ipynb"
HEAVY = {"jax", "pzflow", "shap", "lime", "matplotlib", "seaborn", "torch"}
LIGHT = ("nfad", *(f"nfad.{module}" for module in (
    "core", "vocabulary", "measure", "packets", "demo", "tables", "data", "splits", "nearest", "prep", "statistics", "score", "windows",
    "shapley", "reasons", "report", "explain", "select", "drift", "serving", "files", "streams", "grid", "alerts", "cli")))
by_notebook = pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
SOURCES = {path.stem: "\n".join(code(read(path))) for path in sorted(NBS.glob("*.ipynb"))}


def module_source(name: str) -> str: return (ROOT / "nfad" / f"{module_of(name)}.py").read_text(encoding="utf-8")


def refuse(faults: list[str]):
    "Fails, one fault a line."
    if faults: pytest.fail("\n".join(faults), pytrace=False)


def changed(nb, **cells):
    "A copy of a notebook, with the source of some cells (`c3=...`) changed."
    twin = copy.deepcopy(nb)
    for name, source in cells.items(): twin.cells[int(name[1:])].source = source
    return twin


# ---------------------------------------------------------------- layers

def test_a_notebook_imports_only_what_sorts_before_it():
    notebooks = {path.stem: code(read(path)) for path in LIBRARY}
    modules = {path.stem: [module_source(path.stem)] for path in LIBRARY}
    refuse(rules.layer_faults(notebooks, nfad._HOME) + rules.layer_faults(modules, nfad._HOME))


@pytest.mark.parametrize("line", ["from nfad.detector import FlowDetector", "import nfad.detector", "from nfad import detector",
                                  "from nfad import FlowDetector", "from .detector import fit", "from nfad.none import x",
                                  "def f():\n    import nfad.detector as t", "import_module('nfad.detector')", "from nfad.data import x"])
def test_layers_catch_an_upward_import(line):
    house = {"00_core": [""], "01c_data": ["from nfad.core import x\n" + line], "02d_detector": ["from nfad.data import y"]}
    assert rules.layer_faults(house, nfad._HOME)
    assert not rules.layer_faults(house | {"01c_data": ["from nfad.core import x"]}, nfad._HOME)


def heavy_imports(statements: list[str]) -> list[set[str]]:
    "Heavy packages that are loaded after each of the statements, which run one after the other in a fresh Python."
    report = "\nimport sys; print(*sys.modules)\n"
    run = subprocess.run([sys.executable, "-c", report.join(statements) + report], capture_output=True, text=True, cwd=ROOT, check=True)
    return [HEAVY & set(line.split()) for line in run.stdout.splitlines()]


def test_light_modules_load_nothing_heavy():
    loaded = heavy_imports([f"import {module}" for module in LIGHT])
    assert {module: heavy for module, heavy in zip(LIGHT, loaded, strict=True) if heavy} == {}


def test_light_modules_catch_a_heavy_import():
    assert heavy_imports(["import nfad", "import nfad.core, matplotlib"]) == [set(), {"matplotlib"}]


# ---------------------------------------------------------------- the shape of a notebook

@by_notebook
def test_library_notebooks_have_the_common_shape(path): refuse(shape_faults(read(path), path.stem))


@pytest.mark.parametrize("path", sorted(NBS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_hold_nothing_forbidden(path): refuse(common_faults(read(path)))


GOOD = "dataset = 'demo'  # a\nfeature_set = 'all'  # b\nseed = 0  # c\nout_dir = 'runs'  # d"


def good_notebook():
    "The smallest notebook that keeps all rules."
    v = nbformat.v4
    parameters = v.new_code_cell(GOOD, metadata={"tags": ["parameters"]})
    picture = v.new_code_cell("plot()", outputs=[v.new_output("display_data", data={"image/png": ""})])
    body = [picture, v.new_code_cell("#| export\ndef f(): pass"), v.new_code_cell("f()")]
    run = [parameters, v.new_code_cell("check_parameters(globals());"), v.new_markdown_cell("## Run\n\n## Limits")]
    return v.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3"}}, cells=[
        v.new_code_cell("#| default_exp core"), v.new_markdown_cell("# Core"), v.new_code_cell("#| export\nimport os"), *body, *run])


def test_the_good_notebook_is_good():
    nb = good_notebook()
    assert shape_faults(nb, "00_core") == common_faults(nb) == rules.width_faults(nb) == rules.picture_faults(nb, "x") == []
    assert rules.without_lesson(nb, ["f"]) == ([], 1)


@pytest.mark.parametrize("cell, source, fault", [
    ("c0", "#| default_exp core\nimport os", "first cell"), ("c0", "#| default_exp data", "first cell"), ("c1", "Core", "title"),
    ("c2", "#| export\nimport os\nx = 1", "more than imports"), ("c6", GOOD.replace("0  #", "[0][0]  #"), "literal"),
    ("c6", GOOD + "\nn = len('a')  # e", "literal"), ("c6", GOOD + "\nn = 1", "no comment"),
    ("c6", GOOD.replace("seed", "s"), "seed is missing"), ("c7", "x", "does not follow"), ("c8", "## Limits", "without a `## Run`"),
    ("c4", "#| export\n" + "x = 1\n" * 41, "41 lines"), ("c8", "## Run\n\n## Limits\n\n## More", "not with Limits")])
def test_shape_catches(cell, source, fault):
    assert any(fault in found for found in shape_faults(changed(good_notebook(), **{cell: source}), "01_core"))


def test_shape_catches_a_missing_tag_and_parameters_elsewhere():
    twin = good_notebook()
    twin.cells[6].metadata.tags = []
    assert any("tagged" in found for found in shape_faults(twin, "00_core"))
    twin = good_notebook()
    twin.cells.insert(8, nbformat.v4.new_code_cell("f()"))
    assert any("directly above" in found for found in shape_faults(twin, "00_core"))


@pytest.mark.parametrize("source", ["from os import *", "import nbdev; nbdev." + "nbdev_" + "export()"])
def test_forbidden_catches(source): assert common_faults(changed(good_notebook(), c5=source))


def test_forbidden_catches_a_stored_warning():
    twin = good_notebook()
    twin.cells[5].outputs = [nbformat.v4.new_output("stream", name="stderr", text="RuntimeWarning")]
    assert common_faults(twin)


# ---------------------------------------------------------------- room to read

@by_notebook
def test_code_fits_on_a_page(path):
    nb, n_lines = read(path), len(module_source(path.stem).splitlines())
    refuse(rules.width_faults(nb) + [f"{n_lines} lines"] * (n_lines > rules.MOST_LINES))


def test_few_lines_are_wide():
    assert rules.wide_share([line for path in LIBRARY for line in rules.exported_lines(read(path))]) <= rules.WIDE_SHARE


def test_width_catches():
    assert rules.width_faults(changed(good_notebook(), c5="f()  # " + "x" * 120))
    assert rules.wide_share(["x" * 101, "x" * 100, "", ""]) == 0.25


@by_notebook
def test_a_picture_comes_before_the_code(path): refuse(rules.picture_faults(read(path), path.stem))


def test_pictures_are_missed():
    twin = changed(good_notebook(), c4="#| export\n" + "x = 1\n" * 41)
    twin.cells[3:5] = [twin.cells[4], twin.cells[3]]
    assert rules.picture_faults(twin, "x") == ["no picture before 41 exported lines"]
    twin.cells[4].outputs = []
    assert rules.picture_faults(changed(twin, c3="#| export\nx = 1"), "x") == ["no picture at all"]
    assert not rules.picture_faults(twin, next(iter(rules.NO_PICTURE)))


@by_notebook
def test_public_is_what_others_use(path):
    others = {name: source for name, source in SOURCES.items() if name != path.stem}
    refuse(rules.public_faults(path.stem, module_source(path.stem), others, rules.repository_words()))


def test_public_catches():
    module = "__all__ = ['f', 'g']"
    fine = {"b": "from nfad.core import f\nfrom nfad import core\ncore.g()"}
    assert rules.public_faults("00_core", module, fine) == []
    assert rules.public_faults("00_core", module, {"b": "from .core import f"}) == ["g is public, and nobody imports or names it"]
    assert rules.public_faults("00_core", module, {"b": "from .core import f"}, words="`g` is named") == []
    private = fine | {"c": "def h():\n    from nfad.core import _x"}
    assert rules.public_faults("00_core", module, private) == ["_x is imported elsewhere, and private"]
    many = f"__all__ = {[f'f{i}' for i in range(26)]}"
    assert "26 public names" in rules.public_faults("00_core", many, {}, words=many)[0]


def test_no_two_public_things_share_a_name():
    refuse(rules.twice_public({module_of(path.stem): module_source(path.stem) for path in LIBRARY}))


def test_twins_are_caught():
    modules = {"a": "__all__ = ['f', 'g']", "b": "__all__ = ['g']"}
    assert rules.twice_public(modules) == ["g is public in a and b"]


@by_notebook
def test_public_names_stand_in_a_lesson(path):
    lacking, n_names = rules.without_lesson(read(path), rules.public_names(module_source(path.stem)))
    if len(lacking) > (1 - rules.LESSON_SHARE) * n_names: refuse([f"{name}: no lesson names it" for name in lacking])


def test_lessons_catch():
    v, twin = nbformat.v4, good_notebook()
    twin.cells[5:5] = [v.new_markdown_cell("a")] * 3
    assert rules.without_lesson(twin, ["f"]) == (["f"], 1), "a lesson four cells away is none"
    assert rules.without_lesson(changed(good_notebook(), c5="g()"), ["f"]) == (["f"], 1)
    patched = changed(good_notebook(), c4="#| export\n@patch\ndef fit(self: F, X): pass", c5="F().fit(1)")
    assert rules.without_lesson(patched, ["F"]) == ([], 1), "a method that is taught shows its class"


def test_the_evening_path_fits_into_one_evening():
    words = {name: rules.rendered_words(read(NBS / f"{name}.ipynb")) for name in rules.EVENING_PATH}
    assert sum(words.values()) <= 12_000, words
    for place, name in enumerate(rules.EVENING_PATH, 1):
        assert f"evening path {place} of {len(words)}" in read(NBS / f"{name}.ipynb").cells[1].source, f"{name} does not say where it stands"
        assert f"★ [{name}]" in rules.MAP.read_text(encoding="utf-8"), f"nbs/site/notebooks.md does not mark {name}"
        assert f"[{name}]({name}.ipynb)" in read(INDEX).cells[-1].source, f"the index does not name {name}"


def test_the_map_names_every_notebook():
    named = sorted(sum(rules.mapped(rules.MAP.read_text(encoding="utf-8")).values(), []))
    assert named == [path.stem for path in LIBRARY], "nbs/site/notebooks.md needs one row for each notebook"


def test_the_map_is_read_by_group():
    text = "# Map\n\n## A\n\n| ★ [01_x](../01_x.ipynb) | what |\n| [02_y](../02_z.ipynb) | what |\n\n## B\n| [03_z](../03_z.ipynb) | |"
    assert rules.mapped(text) == {"A": ["01_x"], "B": []}, "a row links its own notebook and says what it tells"


@pytest.mark.parametrize("path", sorted(NBS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_prose_is_short(path): refuse(rules.prose_faults(read(path)))


def test_long_prose_is_caught():
    assert rules.prose_faults(changed(good_notebook(), c1="word " * rules.MOST_PROSE)) == []
    assert "251 words" in rules.prose_faults(changed(good_notebook(), c1="word " * (rules.MOST_PROSE + 1)))[0]


def test_the_readme_is_short(): assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= rules.MOST_README


@pytest.mark.parametrize("name", ["index", "results", "story"])
def test_figures_of_front_pages_are_computed(name):
    assert rules.loose_figures(read(NBS / f"{name}.ipynb")) == []


def test_loose_figures_catch():
    prose = "Python 3.11, at 1 % [95 %]: .947, 0.98, 63 %, 4.3 %, 31 x, p < 0.05, 5,000 rows, 2025, 58 features, 00a_x"
    assert rules.loose_figures(changed(good_notebook(), c1=prose)) == [".947", "0.98", "63 %", "4.3 %", "31 x"]


def test_words_are_counted_as_a_page_shows_them():
    twin = changed(good_notebook(), c5="f() # two")
    before = rules.rendered_words(twin)
    twin.cells[5].outputs = [nbformat.v4.new_output("stream", name="stdout", text="a b c")]
    assert rules.rendered_words(twin) == before + 3


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
    refuse([fault for thing in things for fault in undocumented(thing)])


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


def law_chains(chains, sources: dict[str, str]):
    "Each notebook is in one chain, in order; whatever opens a run is in the chain of 03_train."
    found = chains(sources)
    assert sorted(sum(found, [])) == sorted(sources) and all(chain == sorted(chain) for chain in found)
    of_run, = (chain for chain in found if "03_train.ipynb" in chain)
    assert [name for name, source in sources.items() if "open_run(" in source and name not in of_run] == []


WRITTEN = {path.name: path.read_text(encoding="utf-8") for path in NBS.glob("*.ipynb")}


def test_law_chains(): law_chains(notebooks.two_chains, WRITTEN)


@pytest.mark.parametrize("broken", [lambda s: [sorted(s)[::2], sorted(s)[1::2]], lambda s: [sorted(s)[1:]], lambda s: [sorted(s, reverse=True)]])
def test_law_chains_catches(broken):
    with pytest.raises(AssertionError): law_chains(broken, WRITTEN)


def test_a_chain_that_fails_or_tests_nothing_is_noticed(monkeypatch, capsys):
    def said(log): return lambda names: (log == "Success.", "".join(f"- Completed /x/{name}\n" for name in names if log != "nothing"))
    for log, status in (("Success.", 0), ("failure", 1), ("nothing", 1)):
        monkeypatch.setattr(notebooks, "run_chain", said(log))
        assert notebooks.test_notebooks() == status
    assert f"0 of {len(WRITTEN)} notebooks run, FAILED" in capsys.readouterr().out


def test_a_data_set_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    import pandas as pd
    from nfad.core import write_json
    from nfad.detectors import METRICS, summarize, with_leads
    from nfad.peers import PEERS
    every = ",".join(("nfad", *PEERS, "pzflow"))
    monkeypatch.setattr("nfad.catalog.list_datasets", lambda: pd.DataFrame({"name": ["good", "bad", "cicids2017_improved", "gone"], "found": [True, True, True, False]}))
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


def test_few_detectors_run_again_and_the_rows_of_others_stay(tmp_path, monkeypatch):
    import pandas as pd
    from nfad.core import write_json
    from nfad.detectors import CURVE, METRICS, summarize, with_leads
    monkeypatch.setattr("nfad.catalog.list_datasets", lambda: pd.DataFrame({"name": ["here", "there"], "found": [True, True]}))
    asked = []

    def run_at(level):
        def run(dataset, split, detectors):
            asked.append(detectors)
            names = ["nfad", "knn", "lof"] if "pzflow" in detectors else detectors.split(",")
            curve = {f"tpr at {fpr:g}": level for fpr in CURVE}
            judged = {name: [dict.fromkeys(METRICS, level) | curve] * notebooks.SEEDS for name in names}
            record = dict.fromkeys(("n_train", "n_calibration", "n_test_benign", "n_test_attack"), 9) | {"dataset": dataset, "feature_set": "all", "split": split}
            write_json(tmp_path / "runs" / dataset / "all" / "detect.json", record | {"n_seeds": notebooks.SEEDS, "detectors": with_leads(summarize(judged), judged)}, force=True)
            return "", 1.0
        return run

    def command(names, level): return notebooks.detectors(names, run_at(level), tmp_path / "runs", tmp_path, pool=ThreadPoolExecutor)

    assert command([], 0.5) == 0
    monkeypatch.setenv("DETECTORS", "knn")
    assert command(["here"], 0.7) == 0 and asked[-1] == "nfad,knn"
    for name in ("detectors", "curves"):
        table = pd.read_csv(tmp_path / f"{name}.csv").set_index(["dataset", "detector"])
        value = table["auroc" if name == "detectors" else "tpr"].groupby(level=[0, 1]).agg(["size", "first"])
        assert (value["size"] == (1 if name == "detectors" else len(CURVE))).all()
        assert value["first"].to_dict() == {(place, who): 0.7 if place == "here" and who != "lof" else 0.5
                                            for place in ("here", "there") for who in ("nfad", "knn", "lof")}
    monkeypatch.setenv("DETECTORS", "knnn")
    with pytest.raises(ValueError, match="did you mean"): command([], 0.5)


def test_few_players_play_again_and_the_rows_of_others_stay(tmp_path, monkeypatch):
    import pandas as pd
    from nfad.core import write_json
    monkeypatch.setattr("nfad.catalog.list_datasets", lambda: pd.DataFrame({"name": ["here", "there"], "found": [True, True]}))

    def run_at(level):
        def run(dataset, notebook):
            names = os.environ.get("PLAYERS", "nfad,nfad_second,aad").split(",")
            rounds = [{"player": name, "answers": n, "macro_tpr": level} for name in names for n in (0, 20)]
            write_json(tmp_path / "runs" / dataset / "all" / "verdicts.json", {"rounds": rounds, "dataset": dataset}, force=True)
            return ""
        return run

    def command(names, level): return notebooks.played("07d_rounds", "verdicts", ("here", "there"), names, run_at(level), tmp_path / "runs", tmp_path, ThreadPoolExecutor)

    assert command([], 0.5) == 0
    monkeypatch.setenv("PLAYERS", "nfad_second")
    assert command(["here"], 0.7) == 0
    table = pd.read_csv(tmp_path / "verdicts.csv")
    assert table[["dataset", "player", "answers"]].apply(tuple, axis=1).tolist() == [
        (place, who, n) for place in ("here", "there") for who in ("nfad", "nfad_second", "aad") for n in (0, 20)]
    assert table.groupby(["dataset", "player"])["macro_tpr"].first().to_dict() == {
        (place, who): 0.7 if (place, who) == ("here", "nfad_second") else 0.5
        for place in ("here", "there") for who in ("nfad", "nfad_second", "aad")}


def test_the_studies_of_all_data_sets_are_one_table(tmp_path, monkeypatch, capsys):
    import pandas as pd
    from nfad.core import write_json
    monkeypatch.setattr("nfad.catalog.list_datasets", lambda: pd.DataFrame({"name": ["good", "bad", "demo"], "found": [True, True, True]}))

    def run(dataset, study):
        if dataset == "bad": return "ValueError: no such column"
        write_json(tmp_path / "runs" / dataset / "all" / f"study_{study}.json", {"candidate": ["a", "b"], "criterion": [0.9, 0.8]})
        return ""

    def command(names, study="statistics"): return notebooks.studies(study, names, run, tmp_path / "runs", tmp_path, pool=ThreadPoolExecutor)

    assert command([]) == 1 and "bad: ValueError: no such column" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "statistics.csv").to_dict("list") == {"dataset": ["good"] * 2, "candidate": ["a", "b"], "criterion": [0.9, 0.8]}
    assert command(["good"], "preparation") == 0 and (tmp_path / "preparation.csv").read_text() == (tmp_path / "statistics.csv").read_text()
    with pytest.raises(ValueError, match="study must be one of"): command(["good"], "sizes")
    assert command(["good"]) == 0
    with pytest.raises(ValueError, match="data set"): command(["demo"])
    monkeypatch.setattr("nfad.catalog.list_datasets", lambda: pd.DataFrame({"name": ["demo"], "found": [True]}))
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


@pytest.mark.parametrize("module", MODULES)
def test_what_an_extra_brings_is_imported_through_it(module):
    source = (ROOT / "nfad" / f"{module}.py").read_text(encoding="utf-8")
    refuse(rules.extra_faults(source, rules.import_groups(settings())))


@pytest.mark.parametrize("source", [
    "import shap", "def f():\n    import shap.plots", "with extra('onnx'): import shap", "def f():\n    from lime.lime_tabular import L",
    "with extra('onnx'):\n    import onnx\n    onnx.run()", "import pytest", "with open('onnx'): import onnx", "from google.protobuf import x"])
def test_extras_catch(source):
    groups = rules.import_groups({"requirements": "numpy scikit-learn>=1.8", "explain_requirements": "shap lime", "onnx_requirements": "onnx>=1", "dev_requirements": "pytest"})
    assert rules.extra_faults(source, groups)
    fine = "import os\nimport numpy, sklearn.utils\nfrom .core import x\nwith extra('onnx'):\n    import onnx\ndef f():\n    with extra('explain'): import shap"
    assert not rules.extra_faults(fine, groups)


class Without:
    "A finder that knows no package of some names, wherever they are installed."
    def __init__(self, names, finder): self.names, self.finder = names, finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in self.names else self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)


def blocked_imports(names: set[str], modules: list[str]) -> dict[str, str]:
    "What importing modules says, in a Python without some packages; those that say nothing are left out."
    report = (f"import importlib, sys\n{inspect.getsource(Without)}\nsys.meta_path[:] = [Without({sorted(names)}, finder) for finder in sys.meta_path]\nfor name in {modules}:\n"
              "    try: importlib.import_module(f'nfad.{name}')\n    except ImportError as error: print(name, error)\n")
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, cwd=ROOT, check=True)
    return dict(line.split(" ", 1) for line in run.stdout.splitlines())


def test_modules_load_without_extras_or_name_theirs():
    away = {root for root, name in rules.import_groups(settings()).items() if name}
    said = blocked_imports(away - {"google"}, MODULES)  # a namespace that others share
    lacking = {extra: {name for name, text in said.items() if f'pip install "nfad[{extra}]"' in text} for extra in ("onnx", "triage")}
    assert lacking == {"onnx": {"export", "export_flow", "quantize"}, "triage": {"server"}} and said.keys() == set.union(*lacking.values())


@pytest.fixture(scope="module")
def package() -> dict:
    "What setup.py tells setuptools."
    report = ("import json, sys\nfrom unittest.mock import Mock\n"
              "tools = Mock(setup=lambda **words: print(json.dumps(words, default=str)))\ntools.build_py = object\n"
              "sys.modules |= dict.fromkeys(['setuptools', 'setuptools.command', 'setuptools.command.build_py'], tools)\n"
              "exec(open('setup.py', encoding='utf-8').read(), {'__file__': 'setup.py'})")
    return json.loads(subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, cwd=ROOT, check=True).stdout)


def test_extras_are_handed_to_pip(package):
    extras = package["extras_require"]
    named = {node for path in LIBRARY for source in code(read(path)) for node in re.findall(r'with extra\("(\w+)"\)', source)}
    assert named <= extras.keys() and {"all", "dev", "triage"} <= extras.keys()
    assert set(extras["dev"]) >= set(extras["all"]) >= {"shap", "onnx", "papermill"} and "torch" not in " ".join(extras["all"])


def not_packed(files: list[str], patterns: list[str]) -> list[str]:
    "Files of the package's folder that a wheel would not hold."
    return [name for name in files if not name.endswith(".py") and not any(Path(name).match(pattern) for pattern in patterns)]


def test_a_wheel_holds_all_of_the_package(package, tracked):
    inside = [name.removeprefix("nfad/") for name in tracked if name.startswith("nfad/")]
    patterns = package["package_data"]["nfad"]
    assert package["packages"] == ["nfad"] and "py.typed" in inside and not_packed(inside, patterns) == []
    assert not_packed(["core.py", "page.css", "model.bin", "py.typed"], patterns) == ["model.bin"]


def test_the_package_says_what_it_is(package):
    pythons = [text.rpartition(" ")[2] for text in package["classifiers"] if re.search(r":: 3\.\d+$", text)]
    top = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[0]
    assert pythons == re.findall(r"3\.\d+", top) and package["python_requires"] == f">={pythons[0]}"
    assert "](nbs/" not in package["long_description"] and "](figures/" not in package["long_description"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {nfad.__version__}\n" in citation and f"\"{package['url']}\"" in citation


def unpinned(requirements: list[str], constraints: str) -> list[str]:
    "Requirements without an exact version in the constraints, or with one that they do not allow."
    pins = dict(line.lower().split("==") for line in constraints.splitlines() if "==" in line)
    wanted = [Requirement(text) for text in requirements]
    return [str(r) for r in wanted if r.name.lower() not in pins or not r.specifier.contains(pins[r.name.lower()])]


def test_constraints_pin_every_requirement():
    wanted = [text for group, texts in settings().items() if group.endswith("requirements") for text in texts.split()]
    assert unpinned(wanted, (ROOT / "constraints.txt").read_text(encoding="utf-8")) == []


def test_constraints_catch_a_stale_pin(): assert unpinned(["numpy>=2", "jax", "fastcore<2"], "numpy==1.26\nfastcore==1.14") == ["numpy>=2", "jax"]


def test_public_names_load_on_demand():
    homes = {home for home in nfad._HOME.values() if home in MODULES}
    for name, home in nfad._HOME.items():
        if home in homes: assert getattr(nfad, name).__module__ == f"nfad.{home}"
    with pytest.raises(AttributeError, match="FlowDetector"): nfad.FlowDetectr


def test_the_check_command_is_executable():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for name in ("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "README.md", "Makefile"): assert (ROOT / name).is_file()
