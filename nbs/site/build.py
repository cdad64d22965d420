"""Builds the site: `make site`, or `python nbs/site/build.py [FOLDER]` where Sphinx is installed; runs/site without a folder.

Notebooks are shown as they are stored, none is run. FOLDER/source is what Sphinx reads: notebooks without nbdev's directives, a
page of documentation and a page of code for each module, pages of this folder, with links that fit. FOLDER/html is the site.
Everything that it loads lies in it; MathJax is fetched once, by npm, into .cache/.
"""
import ast
import hashlib
import html
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import lru_cache
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
NBS, ROOT = HERE.parent, HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE)]

from nfad.docs import _arguments, _comment, _result  # noqa: E402  what `help` says, this says

MATHJAX, SHA256 = "3.2.2", "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09"
PAGES = {  # of the repository, and where they are in the site
    "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "data/README.md": "data.md",
    "nbs/site/notebooks.md": "notebooks.md", "nbs/site/commands.md": "commands.md", "nbs/site/card.md": "card.md", "nbs/site/home.md": "index.md"}
FRONT = ("results", "story")  # notebooks that are no modules
BLOB = "https://github.com/nfad/nfad/blob/main"


# ---------------------------------------------------------------- the map

def read_map() -> dict[str, dict[str, str]]:
    "Group -> notebook -> what it tells; the evening path is read from the stars."
    groups = {}
    for line in (HERE / "notebooks.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "): group = groups.setdefault(line[3:], {})
        elif row := re.match(r"\| (★ )?\[(\w+)\]\([^)]*\) \| (.*) \|$", line): group[row[2]] = (row[1] or "") + row[3]
    return groups


def evening() -> dict[str, str]:
    "Notebooks of the evening path in their order, each with its title."
    starred = [name for group in read_map().values() for name, tells in group.items() if tells.startswith("★")]
    titles = {name: re.search(r"# (.*) \(evening path (\d) of", title_of(name)).groups() for name in starred}
    return {name: f"{place}. {title}" for name, (title, place) in sorted(titles.items(), key=lambda entry: entry[1][1])}


def title_of(name: str) -> str:
    "First line of a notebook's first prose."
    nb = nbformat.read(NBS / f"{name}.ipynb", as_version=4)
    return next(cell.source for cell in nb.cells if cell.cell_type == "markdown").partition("\n")[0]


def module_of(stem: str) -> str: return stem.partition("_")[2]


def slug(group: str) -> str: return "group-" + re.sub(r"\W+", "-", group.lower())


# ---------------------------------------------------------------- links

def place_of(target: str) -> str:
    "Where a file of the repository is in the site, from its root; a link outwards where it is not there."
    if target in PAGES: return PAGES[target]
    path = Path(target)
    if target in ("README.md", "nbs/index.ipynb"): return "index.md"
    if path.suffix == ".ipynb" and path.parent == Path("nbs"): return f"notebooks/{path.name}"
    if path.parent == Path("figures") and (ROOT / path).is_file(): return target
    return f"{BLOB}/{target}"


def with_links(text: str, origin: str, place: str) -> str:
    "Markdown of the file `origin`, with links that fit the page `place`; code is left alone."
    def change(match):
        target, anchor = match[2], match[3] or ""
        if not target or re.match(r"[a-z]+:", target): return match[0]
        found = place_of(os.path.normpath(os.path.join(os.path.dirname(origin), target)))
        return f"{match[1]}{found if '://' in found else os.path.relpath(found, os.path.dirname(place) or '.')}{anchor}{match[4]}"
    parts = re.split(r"(^```.*?^```|`[^`\n]*`)", text, flags=re.M | re.S)
    parts[::2] = [re.sub(r"(\]\()([^)\s#]*)(#[^)\s]*)?(\))", change, part) for part in parts[::2]]
    return "".join(parts)


# ---------------------------------------------------------------- notebooks

def excerpt(page: str) -> str:
    "HTML of an output without links to places that are not in it; what brings its own colors lies on white paper."
    from bs4 import BeautifulSoup
    page = str(BeautifulSoup(page, "html.parser"))  # a lesson may show the beginning of a page: every tag is closed
    page = re.sub(r' href="#([^"]+)"', lambda link: link[0] if f'id="{link[1]}"' in page else "", page)
    plain = re.match(r"<div>\s*<style scoped|<style type=\"text/css\">\s*(#T_|</style>)", page)
    return page if plain else f'<div class="paper">{page}</div>'


def staged_notebook(name: str):
    "A notebook as the site shows it."
    nb = nbformat.read(NBS / f"{name}.ipynb", as_version=4)
    nb.cells = [cell for cell in nb.cells if not re.match(r"#\|\s*(default_exp|hide\b)", cell.source)]
    nb.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = with_links(cell.source, f"nbs/{name}.ipynb", f"notebooks/{name}.ipynb")
            continue
        directives = re.findall(r"^#\|\s*(.*)$", cell.source, flags=re.M)
        cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip("\n")
        tags = ["exported"] if any(re.match(r"exporti?\b", words) for words in directives) else []
        tags += ["parameters"] if "parameters" in cell.metadata.get("tags", []) else []
        cell.metadata = {"tags": tags + (["remove-input"] if "echo: false" in directives else [])}
        for output in cell.outputs:
            data = output.get("data", {})
            if "text/markdown" in data: data["text/markdown"] = with_links(data["text/markdown"], f"nbs/{name}.ipynb", f"notebooks/{name}.ipynb")
            if "text/html" in data: data["text/html"] = excerpt(data["text/html"])
    title = next(cell for cell in nb.cells if cell.cell_type == "markdown")
    if name not in FRONT:
        head, _, rest = title.source.partition("\n")
        module = module_of(name)
        links = f'[`nfad.{module}`](../api/{module}.rst) <a href="../code/{module}.html">code</a> [all notebooks](../notebooks.md)'
        title.source = f"{head}\n\n{{.where}}\n{links}\n\n{rest.strip()}"
    return nb


# ---------------------------------------------------------------- documentation

@lru_cache(maxsize=None)
def source_of(module: str) -> str: return (ROOT / "nfad" / f"{module.removeprefix('nfad.')}.py").read_text(encoding="utf-8")


def class_of(node: ast.AST) -> str:
    "The class that a function is patched into, or an empty text."
    patched = isinstance(node, ast.FunctionDef) and any(ast.unparse(decorator).startswith("patch") for decorator in node.decorator_list)
    return ast.unparse(node.args.args[0].annotation) if patched else ""


@lru_cache(maxsize=None)
def lines_of(module: str) -> dict[str, int]:
    "Line of each function, class and method of a module."
    found = {}
    for node in ast.parse(source_of(module)).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        owner = class_of(node)
        found[f"{owner}.{node.name}" if owner else node.name] = node.lineno
        if isinstance(node, ast.ClassDef): found |= {f"{node.name}.{member.name}": member.lineno for member in node.body if isinstance(member, ast.FunctionDef)}
    return found


def public_names(tree: ast.Module) -> list[str]:
    "`__all__` of a module."
    return next((ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"), [])


def rst(text: str) -> str:
    "Text of a comment or a docstring as reStructuredText: code between backticks, all else literally."
    pieces = re.split(r"`+([^`]+)`+", text)
    pieces[::2] = [re.sub(r"([\\*|_])", r"\\\1", piece) for piece in pieces[::2]]
    pieces[1::2] = [f"\\ ``{piece.strip()}``\\ " for piece in pieces[1::2]]
    return "".join(pieces)


def table(rows: list[tuple[str, ...]], titles: tuple[str, ...], indent: str) -> list[str]:
    "A list-table; nothing without rows."
    if not rows: return []
    lines = [".. list-table::", "   :class: arguments", "   :header-rows: 1", ""]
    for row in (titles, *rows):
        lines += [f"   {'* - ' if i == 0 else '  - '}{cell}" for i, cell in enumerate(row)]
    return [indent + line for line in [*lines, ""]]


def code(text: str) -> str: return f"``{text}``" if text else ""


def documented(node: ast.FunctionDef | ast.ClassDef, lines: list[bytes], kind: str, name: str, indent: str = "") -> list[str]:
    "A directive with signature, docstring, and what the comments beside the arguments say."
    deeper = indent + "   "
    out = [""]
    if isinstance(node, ast.FunctionDef):
        arguments = _arguments(node)
        own = kind == "method" and next(iter(arguments), "") in ("self", "cls")
        names = list(arguments)[own:]
        simple = ast.parse("def f(): pass").body[0].args
        given = node.args
        for field in ("posonlyargs", "args", "vararg", "kwonlyargs", "kw_defaults", "kwarg", "defaults"): setattr(simple, field, getattr(given, field))
        bare = [ast.arg(arg.arg) for arg in given.args]
        simple.args, simple.kwonlyargs = bare[own:] if not given.posonlyargs else bare, [ast.arg(arg.arg) for arg in given.kwonlyargs]
        simple.vararg, simple.kwarg = given.vararg and ast.arg(given.vararg.arg), given.kwarg and ast.arg(given.kwarg.arg)
        valued = kind == "method" and any(re.match(r"(cached_)?property|patch\(.*as_prop=True", ast.unparse(decorator)) for decorator in node.decorator_list)
        out += [f"{indent}.. py:property:: {name}" if valued else f"{indent}.. py:{kind}:: {name}({ast.unparse(simple)})"]
        options = [option for option, decorator in ((":classmethod:", "classmethod"), (":staticmethod:", "staticmethod")) if kind == "method" and any(ast.unparse(d) == decorator for d in node.decorator_list)]
        out += [deeper + option for option in options]
        defaults = {key: ast.unparse(last) for key, (first, last) in arguments.items() if first is not last}
        rows = [(code(key), code(ast.unparse(arguments[key][0].annotation) if arguments[key][0].annotation else ""), code(defaults.get(key, "")),
                 rst(_comment(lines, *arguments[key], rb"[\s,):]*"))) for key in names]
        result = _result(lines, node)
        if node.returns is not None and ast.unparse(node.returns) != "None": rows += [("*returns*", code(ast.unparse(node.returns)), "", rst(result[0]) if result else "")]
        body = table(rows, ("argument", "type", "default", "what"), deeper)
    else:
        fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
        rows = [(code(ast.unparse(field.target)), code(ast.unparse(field.annotation)), code(ast.unparse(field.value) if field.value else ""), rst(_comment(lines, field, field, rb"\s*"))) for field in fields]
        out += [f"{indent}.. py:class:: {name}"]
        body = table(rows, ("field", "type", "default", "what"), deeper)
    text = [deeper + rst(line.strip()) if line.strip() else "" for line in (ast.get_docstring(node) or "").splitlines()]
    return [*out, "", *text, "", *body]


def api_page(notebook: str, tells: str) -> str:
    "reStructuredText of a module's public names."
    module = module_of(notebook)
    source = source_of(module)
    lines, tree = source.encode().splitlines(), ast.parse(source)
    names = public_names(tree)
    nodes = {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not class_of(node)}
    methods = {}
    for node in tree.body:
        if (owner := class_of(node)) and not node.name.startswith("_"): methods.setdefault(owner, []).append(node)
    title = f"nfad.{module}"
    out = [".. role:: raw-html(raw)", "   :format: html", "", title, "=" * len(title), "", ".. rst-class:: where", "", f':doc:`{notebook} <../notebooks/{notebook}>` :raw-html:`<a href="../code/{module}.html">code</a>` :doc:`all modules <index>`', "",
           rst(ast.get_docstring(tree) or tells), "", f".. py:module:: {title}", ""]
    values = [name for name in names if name not in nodes]
    if values: out += ["Values: " + ", ".join(code(name) for name in values) + ".", ""]
    for name in names:
        if name not in nodes: continue
        node = nodes[name]
        out += documented(node, lines, "class" if isinstance(node, ast.ClassDef) else "function", name)
        if isinstance(node, ast.ClassDef):
            own = [member for member in node.body if isinstance(member, ast.FunctionDef) and (not member.name.startswith("_") or member.name in ("__init__", "__call__"))]
            for member in [*own, *methods.pop(name, [])]: out += documented(member, lines, "method", member.name, "   ")
    for owner, members in methods.items():
        if owner.startswith("_") or owner in nodes: continue
        out += ["", f".. py:class:: {owner}", "   :no-index:", "", "   Methods that are added here.", ""]
        for member in members: out += documented(member, lines, "method", member.name, "   ")
    return "\n".join(out) + "\n"


SHORT = {"Comment": "c", "Literal.String": "s", "Keyword": "k", "Name.Class": "n", "Name.Function": "n"}  # what is colored


def colored(source: str) -> list[str]:
    "Lines of Python as HTML; names of definitions, words of the language, texts and comments are marked."
    from pygments.lexers import PythonLexer
    out = []
    for kind, text in PythonLexer(stripnl=False).get_tokens(source):
        name = str(kind).removeprefix("Token.")
        mark = next((short for start, short in SHORT.items() if name.startswith(start)), "")
        pieces = [html.escape(piece, quote=False) for piece in text.split("\n")]
        out.append("\n".join(f'<span class="{mark}">{piece}</span>' if mark and piece.strip() else piece for piece in pieces))
    return "".join(out).rstrip("\n").split("\n")


def code_page(notebook: str) -> str:
    "A module's code with numbered lines: a page beside Sphinx', light or dark as the others."
    module = module_of(notebook)
    lines = "".join(f'<span id="line-{i}">{line}</span>' for i, line in enumerate(colored(source_of(module)), 1))
    theme = "document.documentElement.dataset.theme = localStorage.getItem('theme') || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>nfad.{module}: code</title>
<link rel="icon" href="../_static/nfad.svg"><link rel="stylesheet" href="../_static/code.css"><script>{theme}</script></head>
<body><header><h1>nfad.{module}</h1><nav aria-label="about this module"><a href="../notebooks/{notebook}.html">{notebook}</a><a href="../api/{module}.html">documentation</a><a href="../index.html">nfad</a></nav></header>
<main tabindex="0" aria-label="code"><pre>{lines}</pre></main></body></html>
"""


# ---------------------------------------------------------------- all pages

def toctree(entries: list[str], caption: str = "", hidden: bool = True, depth: int = 1) -> str:
    "A table of contents in Markdown."
    options = [f":caption: {caption}"] * bool(caption) + [":hidden:"] * hidden + [f":maxdepth: {depth}"]
    return "\n".join(["```{toctree}", *options, "", *entries, "```", ""])


def write_source(folder: Path):
    "Everything that Sphinx reads."
    groups, seven = read_map(), evening()
    known = {path.stem for path in NBS.glob("*.ipynb")} - {"index"}
    listed = {name for group in groups.values() for name in group}
    if known != listed | set(FRONT): raise SystemExit(f"notebooks.md does not have exactly the notebooks of nbs/: {sorted(known ^ (listed | set(FRONT)))}")
    for sub in ("notebooks", "api", "extra/code", "figures", "_static/mathjax"): (folder / sub).mkdir(parents=True)
    def put(place, text): (folder / place).write_text(text, encoding="utf-8")
    shutil.copy(HERE / "conf.py", folder)
    for name in ("site.css", "code.css", "nfad.svg"): shutil.copy(HERE / name, folder / "_static")
    shutil.copy(mathjax(), folder / "_static" / "mathjax")
    for path in (ROOT / "figures").iterdir(): shutil.copy(path, folder / "figures")
    for name in sorted(known): nbformat.write(staged_notebook(name), folder / "notebooks" / f"{name}.ipynb")
    for names in groups.values():
        for name, tells in names.items():
            put(f"api/{module_of(name)}.rst", api_page(name, tells))
            put(f"extra/code/{module_of(name)}.html", code_page(name))
    for origin, place in PAGES.items(): put(place, with_links((ROOT / origin).read_text(encoding="utf-8"), origin, place))
    says = re.findall(r"^## (.*)\n\n(.*)$", (HERE / "notebooks.md").read_text(encoding="utf-8"), flags=re.M)
    for group, text in says:
        rows = [f"| {'★ ' if name in seven else ''}[{name}](notebooks/{name}.ipynb) | {tells.removeprefix('★ ')} |" for name, tells in groups[group].items()]
        words = "\n".join([f"# {group}", "", text, "", "| notebook | what it tells |", "| --- | --- |", *rows, ""])
        put(f"{slug(group)}.md", words + "\n" + toctree([f"notebooks/{name}" for name in groups[group] if name not in seven]))
    apis = "\n".join(["# Modules", "", "What is public, module by module. `help(nfad.FlowDetector.fit)` says the same in Python.", ""])
    for group, names in groups.items():
        apis += "\n".join([f"\n## {group}\n", "| module | what it is for |", "| --- | --- |", *(f"| [nfad.{module_of(name)}]({module_of(name)}.rst) | {tells.removeprefix('★ ')} |" for name, tells in names.items()), ""])
    put("api/index.md", apis + "\n" + toctree([module_of(name) for names in groups.values() for name in names]))
    home = [toctree([f"{title} <notebooks/{name}>" for name, title in seven.items()], "The evening path"), toctree(["notebooks/story", "notebooks/results", "card"], "The findings"),
            toctree(["notebooks", *map(slug, groups)], "The notebooks"), toctree(["commands", "api/index", "data", "security", "contributing", "changelog"], "Reference")]
    with (folder / "index.md").open("a", encoding="utf-8") as file: file.write("\n" + "\n".join(home))


def mathjax() -> Path:
    "MathJax in one file, from the cache or from npm."
    kept = ROOT / ".cache" / f"mathjax-{MATHJAX}" / "tex-svg-full.js"
    if kept.is_file(): return kept
    if shutil.which("npm") is None: raise SystemExit("make site needs npm once, to fetch MathJax for the formulas; nothing was built")
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(["npm", "pack", "--silent", f"mathjax@{MATHJAX}"], cwd=folder, capture_output=True, text=True)
        archive = Path(folder) / f"mathjax-{MATHJAX}.tgz"
        if run.returncode or not archive.is_file(): raise SystemExit(f"npm could not fetch MathJax {MATHJAX}: {run.stderr.strip()[:300]}")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != SHA256: raise SystemExit(f"MathJax {MATHJAX} has sha256 {found}, not {SHA256}; nothing was built")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar: kept.write_bytes(tar.extractfile("package/es5/tex-svg-full.js").read())
    return kept


def with_fewer_colors(picture: Path):
    "Rewrites a picture with at most 256 colors, where that makes it smaller."
    from PIL import Image
    image = Image.open(picture)
    if image.mode == "RGBA" and image.getextrema()[3] == (255, 255): image = image.convert("RGB")
    method = Image.Quantize.MAXCOVERAGE if image.mode == "RGB" else Image.Quantize.FASTOCTREE
    small = io.BytesIO()
    image.quantize(256, method=method, dither=Image.Dither.NONE).save(small, "PNG")
    if len(small.getvalue()) < picture.stat().st_size: picture.write_bytes(small.getvalue())


def build(folder: Path) -> int:
    "Exit status of Sphinx, which takes warnings for errors."
    from sphinx.cmd.build import main
    if (folder / "source").exists(): shutil.rmtree(folder / "source")
    write_source(folder / "source")
    if (folder / "html").exists(): shutil.rmtree(folder / "html")
    status = main(["-b", "html", "-W", "--keep-going", "-q", "-j", "2", "-d", str(folder / "doctrees"), str(folder / "source"), str(folder / "html")])
    for path in (folder / "html").rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        named = page.replace('<summary><span class="toctree-toggle"', '<summary aria-label="pages below"><span class="toctree-toggle"')  # a button needs a name
        named = named.replace('title="Search" aria-label="Search"', 'title="Search"')  # its words, Search Ctrl+K, are its name
        if named != page: path.write_text(named, encoding="utf-8")
    for picture in (folder / "html" / "_images").glob("*.png"): with_fewer_colors(picture)
    for path in [*(folder / "html" / "_static").rglob("*.map"), *(folder / "html" / "_static").glob("*.html")]: path.unlink()  # of the theme's makers
    shutil.rmtree(folder / "html" / "_static" / "locales", ignore_errors=True)   # its translations, used while building
    return status


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "runs" / "site").resolve()
    status = build(where)
    if not status: print(f"{where / 'html' / 'index.html'}: {len(list((where / 'html').rglob('*.html')))} pages")
    sys.exit(status)
