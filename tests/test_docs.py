"""Laws of nfad.docs: `help` says of each argument what the comment beside it says, and the hook that does it harms nothing."""
import importlib
import pickle
import pkgutil
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from fastcore.docments import docments

import nfad
from nfad import docs
from nfad.docs import descriptions, document

MODULES = [found.name for found in pkgutil.iter_modules(nfad.__path__) if not found.name.startswith("_")]
ROOT = Path(nfad.__file__).parent.parent


def functions_of(module):
    "(name, function) of all functions and methods that stand in the module's file, patched ones too."
    classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__.startswith("nfad")]
    members = [*vars(module).items(), *((f"{kind.__name__}.{name}", member) for kind in classes for name, member in vars(kind).items())]
    for name, member in members:
        for inside in ("fget", "__func__", "__wrapped__"): member = getattr(member, inside, member)
        if isinstance(member, types.FunctionType) and member.__code__.co_filename == module.__file__: yield name, member


def law_help_says_what_comments_say(module):
    "fastcore reads the comments in a way of its own; each is found in the docstring, behind the argument's name."
    n = 0
    for name, function in functions_of(module):
        if "<" in function.__qualname__: continue  # a lambda
        for argument, comment in docments(function).items():
            if not comment or "\n" in comment or argument in ("self", "cls"): continue
            line = comment if argument == "return" else f"{argument} : {comment}"  # fastcore takes **named for the result, too
            assert any(said.endswith(line) for said in (function.__doc__ or "").splitlines()), (name, argument, comment)
            n += 1
    return n


@pytest.mark.parametrize("name", MODULES)
def test_help_says_what_comments_say(name): law_help_says_what_comments_say(importlib.import_module(f"nfad.{name}"))


def reloaded(change, monkeypatch):
    "nfad.nearest, a module with patched methods, documented by a changed `document`."
    name = "nfad.nearest"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(docs, "document", change)
    return importlib.import_module(name)


def no_methods(module, source):
    found = descriptions(source)
    for function in vars(module).values():
        if isinstance(function, types.FunctionType) and function.__code__.co_firstlineno in found:
            function.__doc__ = (function.__doc__ or "") + found[function.__code__.co_firstlineno]


def shifted_lines(module, source): document(module, "\n" + source)


@pytest.mark.parametrize("change", [no_methods, shifted_lines, lambda *_: None], ids=["no methods", "shifted lines", "nothing"])
def test_help_law_catches(change, monkeypatch):
    with pytest.raises(AssertionError): law_help_says_what_comments_say(reloaded(change, monkeypatch))


def test_the_law_sees_patched_methods():
    assert any("." in name for name, _ in functions_of(importlib.import_module("nfad.nearest")))
    assert law_help_says_what_comments_say(importlib.import_module("nfad.nearest")) > 10


def test_nothing_is_said_twice():
    for name in MODULES:
        module = importlib.import_module(f"nfad.{name}")
        before = {title: function.__doc__ for title, function in functions_of(module)}
        document(module, Path(module.__file__).read_text(encoding="utf-8"))
        assert before == {title: function.__doc__ for title, function in functions_of(module)}


# ---------------------------------------------------------------- one source
SOURCE = '''
from functools import lru_cache

class Sizes:
    "Two."
    n: int    # records
    d: int = 3  # features

    @property
    def both(self) -> int:  # n times d
        return self.n * self.d

    @classmethod
    def of(cls, n: int,  # records
           *, d=1):      # features, \u00e4 or more
        return n

@lru_cache
def half(
    x: str = "#",  # any
    y=(1, 2),      # a pair
    *rest: int,    # more
    **others,      # named
): return x
'''


def made(tmp_path):
    path = tmp_path / "made.py"
    path.write_text(SOURCE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("nfad_made", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    document(module, SOURCE)
    return module


def test_every_kind_of_function(tmp_path):
    module = made(tmp_path)
    assert module.Sizes.__doc__.splitlines()[-2:] == ["n : records", "d : features"] and module.Sizes.__doc__.startswith("Two.")
    assert module.Sizes.both.__doc__.endswith("n times d")
    assert module.Sizes.of.__doc__.splitlines()[-2:] == ["n : records", "d : features, \u00e4 or more"]
    assert module.half.__doc__.splitlines()[-4:] == ["x : any", "y : a pair", "rest : more", "others : named"]


def test_a_comment_behind_the_result_is_the_result():
    text = descriptions("def f(a: int = 1) -> int:  # twice\n    return 2\ndef g(a=1):  # a note\n    return 2\n")
    assert text == {1: "\n\nReturns\n-------\ntwice", 3: "\n\nParameters\n----------\na : a note"}


ABOVE = '''# about the function
def f(a, b, *rest,  # all others
      # a long one,
      # over two lines
      table: dict[str, int] = {},
      c=1,          # beside
                    # and further on
      d=2,
      # of named ones
      **named): pass
'''


def law_a_comment_above_is_of_the_argument_that_begins_the_line(read):
    "Not of one behind another on its line, nor of a function; and what goes on from the line before is nobody's."
    said = read(ABOVE)[2].splitlines()[4:]
    assert said == ["rest : all others", "table : a long one, over two lines", "c : beside", "named : of named ones"]


def test_law_comment_above(): law_a_comment_above_is_of_the_argument_that_begins_the_line(descriptions)


def test_law_comment_above_catches():
    def of_all(source): return {2: descriptions(source)[2].replace("rest", "a : about the function\nrest")}
    def of_none(source): return descriptions(re.sub(r"^ +#.*$", "", source, flags=re.M))
    for broken in (of_all, of_none):
        with pytest.raises(AssertionError): law_a_comment_above_is_of_the_argument_that_begins_the_line(broken)


def test_the_commands_say_what_stands_above():
    from nfad import cli
    assert "reference : table of benign records to compare with; calibration.parquet beside the model is found" in cli._score.__doc__


# ---------------------------------------------------------------- the hook
def run(*words): return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)


def test_without_docstrings_nothing_is_done():
    said = run("-OO", "-c", "from nfad.core import slug; import sys; print(slug.__doc__, 'nfad.docs' in sys.modules)")
    assert said.stdout.strip() == "None False", said.stderr


def test_a_source_that_cannot_be_read_fails_no_import(monkeypatch):
    def fails(*_): raise OSError("gone")
    monkeypatch.setattr(nfad._Documented, "get_source", fails)
    monkeypatch.delitem(sys.modules, "nfad.windows")
    assert "Parameters" not in (importlib.import_module("nfad.windows").score_window.__doc__ or "")


def test_functions_and_fields_still_travel():
    from nfad.core import slug
    from nfad.measure import Cost
    assert pickle.loads(pickle.dumps(slug)) is slug and pickle.loads(pickle.dumps(Cost(1.0, 2.0))) == Cost(1.0, 2.0)


def test_a_spawned_process_has_the_hook(tmp_path):
    script = tmp_path / "spawn.py"
    script.write_text("import multiprocessing as mp\n"
                      "def ask(_):\n    from nfad.core import slug\n    return slug.__doc__\n"
                      "if __name__ == '__main__':\n    print(mp.get_context('spawn').Pool(1).map(ask, [0])[0])\n")
    said = run("-c", f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    assert "text : a name; or the Path of a file" in run(str(script)).stdout or "text : a name; or the Path of a file" in said.stdout, said.stderr


def test_import_of_nfad_stays_light_and_says_where_to_start():
    said = run("-c", "import nfad, sys; print(nfad.__doc__); print('LOADED', *sorted(sys.modules))").stdout
    doc, loaded = said.split("LOADED")
    assert not {"numpy", "pandas", "ast", "nfad.docs"} & set(loaded.split())
    from rules import EVENING_PATH
    places = [doc.index(name) for name in EVENING_PATH]
    assert places == sorted(places)
