"""Laws of nfad.stubs: a stub has every public name of its module as Python sees it, and a type checker believes it."""
import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nfad
from nfad.stubs import stub_of, write_stubs

ROOT = Path(nfad.__file__).parent.parent
CLIENT = Path(__file__).parent / "typed_client.py"


@pytest.fixture(scope="module")
def stubs(tmp_path_factory) -> dict[str, str]:
    "Module -> text of its stub."
    folder = tmp_path_factory.mktemp("stubs")
    return {path.stem: path.read_text(encoding="utf-8") for path in write_stubs(ROOT / "nfad", folder)}


def parameters_of(node: ast.FunctionDef) -> list[str]:
    given = node.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [arg.arg for arg in every if arg is not None]


def member_faults(name: str, node: ast.AST, found) -> list[str]:
    "Where a function or method of a stub is not what Python has."
    function = getattr(found, "fget", None) or found
    if not callable(function): return [f"{name} is not callable"]
    taken = list(inspect.signature(inspect.unwrap(function)).parameters)
    stated = parameters_of(node)
    if stated[:1] == ["cls"]: stated = stated[1:]  # a bound class method
    return [] if stated == taken else [f"{name} takes {taken}, its stub {stated}"]


def stub_faults(module, stub: str) -> list[str]:
    "Public names, methods and their parameters that a stub lacks or has otherwise."
    nodes = {node.name: node for node in ast.parse(stub).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    names = {target.id for node in ast.parse(stub).body if isinstance(node, (ast.Assign, ast.AnnAssign))
             for target in ast.walk(node) if isinstance(target, ast.Name)} | nodes.keys()
    faults = [f"{name} is missing" for name in module.__all__ if name not in names]
    for name, node in nodes.items():
        thing = getattr(module, name)
        if isinstance(node, ast.FunctionDef): faults += member_faults(name, node, thing)
        if not inspect.isclass(thing) or name.startswith("_"): continue
        methods = {one.name: one for one in node.body if isinstance(one, ast.FunctionDef)}
        own = {key for key, value in vars(thing).items() if isinstance(value, (property, classmethod)) or inspect.isfunction(value)}
        public = {key for key in own if not key.startswith("_") and getattr(getattr(thing, key), "__module__", module.__name__) == module.__name__}
        faults += [f"{name}.{key} is missing" for key in sorted(public - methods.keys())]
        for key, one in methods.items(): faults += member_faults(f"{name}.{key}", one, getattr(thing, key, None))
    return faults


def test_stubs_say_what_python_sees(stubs):
    modules = {name: importlib.import_module(f"nfad.{name}") for name in stubs if name != "__init__"}
    assert len(modules) > 30
    assert [f"{name}: {fault}" for name, module in modules.items() for fault in stub_faults(module, stubs[name])] == []


@pytest.mark.parametrize("change", [("@patch", "@other"), ("y: None = None", "z: None = None"), ("def predict(", "def judge(")])
def test_stubs_catch(change):
    source = (ROOT / "nfad" / "detector.py").read_text(encoding="utf-8")
    assert change[0] in source
    assert stub_faults(importlib.import_module("nfad.detector"), stub_of(source.replace(*change)))


def test_the_package_has_all_its_names(stubs): assert set(re.findall(r" as (\w+)", stubs["__init__"])) == nfad._HOME.keys()


# ---------------------------------------------------------------- a type checker

@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    "A function from a program's text to what mypy says of it, with stubs as a wheel has them."
    folder = tmp_path_factory.mktemp("typed")
    shutil.copytree(ROOT / "nfad", folder / "nfad", ignore=shutil.ignore_patterns("*.pyi", "__pycache__"))
    write_stubs(folder / "nfad")

    def check(*programs: str) -> str:
        paths = []
        for number, text in enumerate(programs):
            paths.append(folder / f"program_{number}.py")
            paths[-1].write_text(text, encoding="utf-8")
        options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(folder / "cache")]
        run = subprocess.run([sys.executable, "-m", "mypy", *options, *map(str, paths or sorted(folder.glob("nfad/*.pyi")))],
                             cwd=folder, capture_output=True, text=True, env={"PATH": ""})
        assert run.returncode in (0, 1), run.stdout + run.stderr
        return run.stdout if run.returncode else ""

    return check


MISTAKES = [("validation=benign)", "validate=benign)"), ("epochs=3", "epochs='3'"), ("detector.predict(", "detector.predicted("),
            ('method="random"', "method=1"), ("detector.threshold_, float", "detector.threshold_, str"), ("fpr=0.01)", "rate=0.01)"),
            ("nfad.shapley_values", "nfad.shapley_value"), ("kept: Detector = detector", "kept: Detector = data")]


def test_a_program_that_uses_nfad_is_typed(mypy):
    program = CLIENT.read_text(encoding="utf-8")
    assert mypy(program) == ""
    twins = [program.replace(right, wrong, 1) for right, wrong in MISTAKES]
    lines = [next(place for place, line in enumerate(program.splitlines(), 1) if right in line) for right, wrong in MISTAKES]
    said = mypy(*twins)
    assert [f"program_{i}" for i, line in enumerate(lines) if f"program_{i}.py:{line}: error" not in said] == [], said


def test_the_stubs_themselves_are_sound(mypy): assert mypy() == ""
