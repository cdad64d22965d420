"""The rules of the house, each a function over notebooks or text that returns its faults; `python tests/rules.py [NAME ...]` prints them.

One notebook is one module and one idea. Letters stand within numbers, the sorted order of the file names is the rank, and a
notebook imports only what sorts before it. CONTRIBUTING.md says the rest in words; tests/test_repository.py shows each rule to
fail on a broken twin.
"""
import ast
import re
import sys
from functools import lru_cache
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
LIBRARY = sorted(NBS.glob("[0-9][0-9]*_*.ipynb"))
MAP = NBS / "site" / "notebooks.md"              # a row for each library notebook, by group
MOST_README, MOST_PROSE = 1200, 250              # words of README.md; of a prose cell
MOST_LINES, MOST_NAMES, MOST_CELL = 650, 25, 40  # of a module, of its public names, of an exported cell
WIDEST, WIDE, WIDE_SHARE = 120, 100, 0.05        # characters; share of exported lines that may be wider than `WIDE`
LESSON_WITHIN, LESSON_SHARE = 3, 0.9             # cells after a definition; share of public functions and classes with a lesson
NO_PICTURE = {"00_core", "00_extras", "00_text", "00d_kernels", "00f_outputs", "00a_vocabulary", "00c_docs", "00c_stubs", "01c_releases", "11b_grid", "00g_commands", "00h_journal", "11e_answering", "11k_live", "11l_teaching", "13_cli"}  # nothing to see but text
EVENING_PATH = {  # seven notebooks for one evening, and how many words each may take as a page: prose, code and text outputs
    "01_packets": 2000, "01d_splits": 1300, "02a_flow": 2200, "02c_statistics": 2000,
    "03_train": 1100, "04_score": 1900, "04c_reasons": 1500}


def module_of(stem: str) -> str:
    "`detector` for `02d_detector`."
    return stem.partition("_")[2]


def read(path: Path): return nbformat.read(path, as_version=4)


def plain(source: str) -> str:
    "Code without the lines that only IPython understands."
    return re.sub(r"^\s*[%!].*$", "", source, flags=re.M)


def code(nb) -> list[str]: return [plain(cell.source) for cell in nb.cells if cell.cell_type == "code"]


def is_exported(cell) -> bool: return cell.cell_type == "code" and bool(re.match(r"#\|\s*exporti?\b", cell.source))


def is_imports(cell) -> bool:
    "Whether a code cell holds nothing but imports, those of an extra in its block."
    body = ast.parse(plain(cell.source)).body
    body = [line for node in body for line in (node.body if extra_of(node) else [node])]
    return all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body)


def extra_of(node: ast.AST) -> str:
    """The name in `with extra("name"):`; "" for anything else."""
    call = node.items[0].context_expr if isinstance(node, ast.With) else None
    named = isinstance(call, ast.Call) and ast.unparse(call.func) == "extra" and len(call.args) == 1
    return call.args[0].value if named else ""


def exported_lines(nb) -> list[str]:
    "All lines that the notebook exports, without directives and blank lines."
    lines = [line for cell in nb.cells if is_exported(cell) for line in cell.source.splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#|")]


# ---------------------------------------------------------------- layers

def imported_modules(source: str, home: dict[str, str]) -> set[str]:
    "Modules of nfad that a piece of code imports anywhere, also inside functions; `home` is `nfad._HOME`."
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level: base = f"nfad.{base}".rstrip(".")
            names = [f"nfad.{home.get(alias.name, alias.name)}" for alias in node.names] if base == "nfad" else [base]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        else: continue
        found |= {name.split(".")[1] for name in names if name.startswith("nfad.") and name != "nfad.__version__"}
    return found


def layer_faults(sources: dict[str, list[str]], home: dict[str, str]) -> list[str]:
    "Imports of a module that does not sort before; `sources` maps `03_train` to its pieces of code."
    order = {module_of(name): place for place, name in enumerate(sorted(sources))}
    return [f"{name} imports nfad.{module}" for name, pieces in sources.items() for piece in pieces
            for module in sorted(imported_modules(piece, home)) if order.get(module, len(order)) >= order[module_of(name)]]


# ---------------------------------------------------------------- extras

IMPORTED_AS = {"scikit-learn": "sklearn", "charset-normalizer": "charset_normalizer"}  # where the name differs
BROUGHT = {"torch": "peers", "equinox": "peers", "paramax": "peers", "google": "onnx"}  # by what an extra names


def import_groups(settings) -> dict[str, str]:
    """Package to import -> the extra that brings it, "" without one, from the lines of settings.ini."""
    groups = {}
    for key, text in settings.items():
        name = key.removesuffix("_requirements") if key != "requirements" else ""
        if not key.endswith("requirements") or name == "dev": continue
        found = [re.match(r"[\w.-]+", word)[0].lower() for word in text.split()]
        groups |= {IMPORTED_AS.get(package, package.replace("-", "_")): name for package in found}
    return BROUGHT | groups


def extra_faults(source: str, groups: dict[str, str]) -> list[str]:
    "Imports of packages that no plain `pip install nfad` brings, outside the block that names their extra; blocks with more than imports."
    faults = []

    def visit(node, within):
        name = extra_of(node)
        if name: faults.extend(f"extra({name!r}) holds more than imports" for child in node.body
                               if not isinstance(child, (ast.Import, ast.ImportFrom)) and "import_module" not in ast.unparse(child))
        if isinstance(node, ast.Import): roots = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level: roots = [node.module.split(".")[0]]
        else: roots = []
        for root in roots:
            wanted = "" if root == "nfad" or root in sys.stdlib_module_names else groups.get(root, "?")
            if wanted == "?": faults.append(f"{root} is in no list of requirements")
            elif wanted and within != wanted: faults.append(f"{root} is not imported in `with extra({wanted!r})`")
        for child in ast.iter_child_nodes(node): visit(child, name or within)

    visit(ast.parse(source), "")
    return faults


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


def run_faults(nb) -> list[str]:
    "A notebook with a Run has its parameters, checked, directly above it; one without has none."
    tagged = [i for i, cell in enumerate(nb.cells) if "parameters" in cell.metadata.get("tags", [])]
    runs = [i for i, cell in enumerate(nb.cells) if cell.cell_type == "markdown" and re.search(r"^## Run$", cell.source, re.M)]
    if not runs: return ["parameters without a `## Run`"] * bool(tagged)
    if len(tagged) != 1: return [f"{len(tagged)} cells are tagged parameters, not 1"]
    faults = parameter_faults(nb.cells[tagged[0]].source)
    check = nb.cells[tagged[0] + 1]
    if check.cell_type != "code" or not check.source.startswith("check_parameters(globals())"):
        faults.append("check_parameters(globals()) does not follow the parameters")
    if runs[0] != tagged[0] + 2: faults.append("parameters do not stand directly above `## Run`")
    return faults


def shape_faults(nb, name: str) -> list[str]:
    "Where a library notebook departs from the common shape."
    faults, cells = [], nb.cells
    exported = [cell for cell in cells if is_exported(cell)]
    if cells[0].source.strip() != f"#| default_exp {module_of(name)}":
        faults.append(f"first cell is not `#| default_exp {module_of(name)}` alone")
    if cells[1].cell_type != "markdown" or not cells[1].source.startswith("# "): faults.append("second cell is not the title")
    if not exported or not is_imports(exported[0]): faults.append("first exported cell holds more than imports")
    for cell in exported[1:]:
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#|")]
        if len(lines) > MOST_CELL: faults.append(f"exported cell of {len(lines)} lines: {lines[0][:50]!r}")
    headings = re.findall(r"^## (.*)$", "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"), flags=re.M)
    if not headings or headings[-1] != "Limits": faults.append(f"sections end with {headings[-2:]}, not with Limits")
    return faults + run_faults(nb)


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


# ---------------------------------------------------------------- room to read

def width_faults(nb) -> list[str]:
    "Lines of code, exported or not, that are wider than a page."
    lines = [line for cell in nb.cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    return [f"{len(line)} characters: {line.strip()[:60]!r}" for line in lines if len(line) > WIDEST]


def wide_share(lines: list[str]) -> float:
    "Share of lines that are wider than comfortable."
    return sum(len(line) > WIDE for line in lines) / max(len(lines), 1)


def is_picture(output) -> bool:
    data = output.get("data", {})
    html = "".join(data.get("text/html", ""))
    return any(key.startswith("image/") for key in data) or "<svg" in html or "data:image" in html


def picture_faults(nb, name: str) -> list[str]:
    "Exported lines that a reader meets before the first picture, if they are more than one cell may hold."
    if name in NO_PICTURE: return []
    n_lines = 0
    for cell in nb.cells:
        if any(is_picture(output) for output in cell.get("outputs", [])): return []
        if is_exported(cell) and not is_imports(cell): n_lines += len(cell.source.splitlines()) - 1
        if n_lines > MOST_CELL: return [f"no picture before {n_lines} exported lines"]
    return ["no picture at all"]


# ---------------------------------------------------------------- public names

def public_names(source: str) -> list[str]:
    "`__all__` of a module's source."
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__": return ast.literal_eval(node.value)
    return []


@lru_cache(maxsize=None)  # each notebook is asked about by all others
def imported_names(source: str) -> frozenset[tuple[str, str]]:
    "(module, name) of nfad's names that a piece of code imports, or reaches through an imported module."
    tree, found, modules = ast.parse(source), set(), {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom): continue
        base = ("nfad." * bool(node.level) + (node.module or "")).rstrip(".")
        for alias in node.names:
            if alias.name.startswith("__"): continue
            if base == "nfad": modules[alias.asname or alias.name] = alias.name
            elif base.startswith("nfad."): found.add((base[5:], alias.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules and not node.attr.startswith("__"):
            found.add((modules[node.value.id], node.attr))
    return frozenset(found)


def public_faults(name: str, module: str, others: dict[str, str], words: str = "") -> list[str]:
    "Too many public names, and such that no other notebook imports and no front page names; `others` are sources of code."
    own = module_of(name)
    names = public_names(module)
    used = {wanted for source in others.values() for place, wanted in imported_names(source) if place == own}
    faults = [f"{len(names)} public names, more than {MOST_NAMES}"] * (len(names) > MOST_NAMES)
    faults += [f"{wanted} is public, and nobody imports or names it" for wanted in names
               if wanted not in used and not re.search(rf"\b{re.escape(wanted)}\b", words)]
    return faults + [f"{wanted} is imported elsewhere, and private" for wanted in sorted(used - set(names))]


def twice_public(modules: dict[str, str]) -> list[str]:
    "Public names that two modules have; `modules` maps a module to its source."
    homes = {}
    for module, source in modules.items():
        for name in public_names(source): homes.setdefault(name, []).append(module)
    return [f"{name} is public in {' and '.join(places)}" for name, places in sorted(homes.items()) if len(places) > 1]


# ---------------------------------------------------------------- lessons

def defined_in(cell) -> set[str]:
    "Functions and classes that an exported cell defines, and classes that it gives methods to."
    names = set()
    for node in ast.parse(plain(cell.source)).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        patched = any(ast.unparse(decorator).startswith("patch") for decorator in node.decorator_list)
        names.add(ast.unparse(node.args.args[0].annotation) if patched else node.name)
    return names


def without_lesson(nb, names: list[str]) -> tuple[list[str], int]:
    "Public functions and classes that no lesson names within a few cells after a definition; and how many there are."
    places = {}
    for i, cell in enumerate(nb.cells):
        if is_exported(cell):
            for name in defined_in(cell) & set(names): places.setdefault(name, []).append(i)
    def shown(name, i):
        near = nb.cells[i + 1:i + 1 + LESSON_WITHIN]
        return any(cell.cell_type == "code" and not is_exported(cell) and re.search(rf"\b{name}\b", cell.source) for cell in near)
    return [name for name, found in places.items() if not any(shown(name, i) for i in found)], len(places)


# ---------------------------------------------------------------- the evening path

def rendered_words(nb) -> int:
    "Words of a notebook as a page shows it: prose, code and text outputs."
    n_words = 0
    for cell in nb.cells:
        n_words += len(cell.source.split())
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            n_words += len("".join(text).split())
    return n_words


def prose_faults(nb) -> list[str]:
    "Prose cells that are too long to hold one idea."
    lengths = {cell.source[:50]: len(cell.source.split()) for cell in nb.cells if cell.cell_type == "markdown"}
    return [f"{n_words} words in one prose cell, more than {MOST_PROSE}: {start!r}" for start, n_words in lengths.items() if n_words > MOST_PROSE]


# ---------------------------------------------------------------- the front page and the map

def loose_figures(nb) -> list[str]:
    "Figures that stand in the prose of a front page instead of being computed from a file of figures/."
    prose = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    promised = {"1 %", "95 %"}  # a rate that is asked for, a width of intervals
    found = re.findall(r"(?<![\w.])\d*\.\d{2,}(?![\w.])|\d+(?:\.\d+)? ?%|\d+(?:\.\d+)? x\b", re.sub(r"Python 3\.\d+|\bp [<=] [\d.]+", "", prose))
    return [figure for figure in found if figure not in promised]


def mapped(text: str) -> dict[str, list[str]]:
    "Group -> notebooks, from the tables of the map; ★ marks the evening path."
    groups = {}
    for line in text.splitlines():
        if line.startswith("## "): groups[group := line[3:]] = []
        elif row := re.match(r"\| (?:★ )?\[(\w+)\]\(\.\./\1\.ipynb\) \| [^|\s]", line): groups[group].append(row[1])
    return groups


# ---------------------------------------------------------------- everything at once

def repository_words() -> str:
    "What the front page, the map, the list of commands and the lazy names of the package say: they make a name public, too."
    index = "\n".join(cell.source for cell in read(NBS / "index.ipynb").cells)
    index += "".join(path.read_text(encoding="utf-8") for path in sorted((NBS / "site").glob("*.md")))
    named = ("nfad/__init__.py", "tests/notebooks.py", "settings.ini")  # the last one names the command of the shell
    return index + "".join((ROOT / place).read_text(encoding="utf-8") for place in named)


def faults_of(path: Path, notebooks: dict[str, str], words: str) -> list[str]:
    "All faults of one notebook; `notebooks` maps names to their code."
    nb, name = read(path), path.stem
    module = (ROOT / "nfad" / f"{module_of(name)}.py").read_text(encoding="utf-8")
    others = {other: source for other, source in notebooks.items() if other != name}
    n_lines = len(module.splitlines())
    faults = shape_faults(nb, name) + common_faults(nb) + width_faults(nb) + picture_faults(nb, name) + prose_faults(nb)
    faults += [f"module of {n_lines} lines, more than {MOST_LINES}"] * (n_lines > MOST_LINES)
    faults += public_faults(name, module, others, words)
    lacking, n_names = without_lesson(nb, public_names(module))
    if len(lacking) > (1 - LESSON_SHARE) * n_names: faults.append(f"{len(lacking)} of {n_names} public names without a lesson near: {lacking}")
    n_words, most = rendered_words(nb), EVENING_PATH.get(name)
    if most and n_words > most: faults.append(f"{n_words:,} words on the evening path, more than {most:,}")
    share = wide_share(exported_lines(nb))
    if share > WIDE_SHARE: faults.append(f"{share:.1%} of the exported lines are wider than {WIDE} characters")
    return faults


def main(names: list[str]) -> int:
    "Prints the faults of the named notebooks, or of all; exit status."
    notebooks = {path.stem: "\n".join(code(read(path))) for path in sorted(NBS.glob("*.ipynb"))}
    words, n_faults = repository_words(), 0
    for path in LIBRARY:
        if names and not {path.stem, module_of(path.stem)} & set(names): continue
        faults = faults_of(path, notebooks, words)
        n_faults += len(faults)
        print(f"{path.stem}: {len(faults)} faults", *faults, sep="\n  ")
    return int(n_faults > 0)


if __name__ == "__main__": sys.exit(main([Path(name).stem for name in sys.argv[1:]]))
