"""Generated tables: a sensor's columns, written in any dialect, with damaged lines; what must come out is known."""
import bz2
import gzip
import json
import lzma
from typing import NamedTuple

import numpy as np

from nfad.vocabulary import COLUMNS

TOOLS = ["cicflowmeter", "zeek", "suricata", "argus", "netflow", "nfstream", "nfdump", "unswnb15", "ntlflowlyzer", "ciciot2023", "own"]
WORDS = {"proto": ["tcp", "udp", "icmp"], "history": ["ShADadFf", "S", "Dd", "^d"], "": ["CON", "INT", "REQ", "SF"]}
OWN = [("size", "feature"), ("pause", "feature"), ("service", "word"), ("host", "identifier"), ("port", "port"), ("when", "time"), ("hops", "testbed")]


class Case(NamedTuple):
    "One generated file."
    content: bytes
    ending: str         # of its name
    header: tuple       # names to pass, for a text without a header
    label: str          # name of the label column
    n_rows: int         # lines that are no header, preamble or remark
    damaged: frozenset  # of the rows, from 0; the last one, too, if it lacks its end


def columns(tool, rng):
    "Names as the tool writes them, and their roles: a dozen, features first."
    if tool == "own": return [*OWN, ("Label", "label")]
    known = COLUMNS[(COLUMNS.vocabulary == tool) & ~COLUMNS.role.isin(["label", "mark"]) & ~COLUMNS.name.isin(["event_type", "_path"])]
    features = known[known.role == "feature"]
    rest = known[known.role != "feature"]
    chosen = [*features.index[:3], *rng.permutation(features.index[3:])[:6], *rng.permutation(rest.index)[:4]]
    named = [((*known.aliases[i].get(tool, ()), known.name[i])[0], known.role[i]) for i in chosen]
    return [*named, ("Label", "label")]


def cells(name, role, n, rng):
    "What stands in a column: None, numbers and texts."
    if role == "label": return list(rng.choice(["BENIGN", "BENIGN", "BENIGN", "PortScan"], n))
    if role in ("word", "letters"):
        choice = next((words for part, words in WORDS.items() if part and part in name.lower()), WORDS[""])
        return list(rng.choice([*choice, None], n))
    if role == "time": return [round(1.6e9 + 3.7 * i, 3) for i in range(n)]
    if role == "identifier": return [f"10.0.{rng.integers(0, 9)}.{rng.integers(1, 250)}" for _ in range(n)]
    if role == "port": return [int(port) for port in rng.integers(0, 65536, n)]
    if role in ("code", "testbed"): return [int(code) for code in rng.choice([6, 17, 64], n)]
    if role == "counter": return list(range(1, n + 1))
    if role == "text": return [f"note {i} of {rng.integers(1, 10**6)}" for i in range(n)]
    told = [round(float(x), 4) for x in rng.lognormal(3, 2, n)]
    return [None if rng.random() < 0.05 else x for x in told]


def spelled(cell, decimal):
    "A cell as text."
    if cell is None: return ""
    return str(cell).replace(".", decimal) if isinstance(cell, float) else str(cell)


def damage(line, delimiter, rng):
    "A line that something happened to."
    fields = line.split(delimiter)
    return [
        "", delimiter * (len(fields) - 1), line[:len(line) // 2], line + delimiter + "1", line + delimiter, '"' + line, line.replace(delimiter, delimiter + '"', 1),
        line + '"', delimiter.join(["x"] * len(fields)), delimiter.join(fields[:-1]), line[::-1], line + line, delimiter.join(["#DIV/0!", *fields[1:]]),
        delimiter.join(["1,17", *fields[1:]]), delimiter.join(["0x0303", *fields[1:]]), "Summary", "end of file", line.replace(delimiter, " "),
        "".join(map(chr, rng.integers(32, 0x2fff, 30))), delimiter.join(["é" * 5, *fields[1:]]), " " + line + " ", line + "\t", "(none)", "{", "[1, 2]", "%", "//"
    ][int(rng.integers(0, 27))]


def as_text(rows, names, rng):
    "Lines under a header in some dialect: lines above, lines, delimiter, names to pass, end of a line."
    delimiter = str(rng.choice([",", ";", "\t", "|"]))
    decimal = "," if delimiter != "," and rng.random() < 0.3 else "."
    quote = str(rng.choice(["", '"'])) if rng.random() < 0.4 else ""
    quoted = lambda cell: f"{quote}{cell}{quote}" if cell and not cell[0].isdigit() else cell
    write = lambda cells: delimiter.join(quoted(spelled(cell, decimal)) for cell in cells)
    headerless = rng.random() < 0.15
    above = [[], [], ["# made by x"], [""], ["sep=" + delimiter]][int(rng.integers(0, 5)) * (not headerless)]
    header = [] if headerless else [write(names)]
    trailing = delimiter if rng.random() < 0.15 else ""
    if header and rng.random() < 0.5: header = [header[0] + trailing]
    return [*above, *header], [write(row) + trailing for row in rows], delimiter, tuple(names) * headerless, str(rng.choice(["\n", "\n", "\r\n"]))


def as_zeek(rows, names, rng):
    "A log of Zeek."
    names = [name.replace(" ", "_") for name in names]
    above = ["#separator \\x09", "#unset_field\t-", "#empty_field\t(empty)", "#path\tconn", "\t".join(["#fields", *names])]
    return above, ["\t".join(spelled(cell, ".") or "-" for cell in row) for row in rows], "\t", (), "\n"


def as_json(rows, names, rng):
    "Objects, one a line; what is missing is left out."
    lines = [json.dumps({name: cell for name, cell in zip(names, row) if cell is not None}) for row in rows]
    return [], lines, ",", (), "\n"


def as_arff(rows, names, rng):
    "An ARFF file."
    above = ["@relation x", *[f"@attribute '{name}' numeric" for name in names], "@data"]
    return above, [",".join(spelled(cell, ".") or "?" for cell in row) for row in rows], ",", (), "\n"


def as_blanks(rows, names, rng):
    "Columns under each other, with any number of blanks between them."
    words = lambda cells: [spelled(cell, ".").replace(" ", "_") or "-" for cell in cells]
    told = [words(row) for row in [names, *rows]]
    widths = [max(map(len, column)) for column in zip(*told)]
    lines = [" ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in told]
    return lines[:1], lines[1:], " ", (), "\n"


FORMATS = {"text": (as_text, ".csv"), "zeek": (as_zeek, ".log"), "json": (as_json, ".json"), "arff": (as_arff, ".arff"), "blanks": (as_blanks, ".txt")}
PACKERS = {"": lambda content: content, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def case(number, most_damage=6):
    "Case `number` of all that there are, always the same."
    rng = np.random.default_rng(number)
    tool = TOOLS[number % len(TOOLS)]
    kind = str(rng.choice(["text", "text", "text", "zeek", "json", "arff", "blanks"]))
    n = int(rng.integers(25, 60))
    told = columns(tool, rng)
    if rng.random() < 0.3: told = [told[i] for i in rng.permutation(len(told))]
    rows = list(zip(*[cells(name, role, n, rng) for name, role in told], strict=True))
    writer, ending = FORMATS[kind]
    above, lines, delimiter, header, end = writer(rows, [name for name, _ in told], rng)
    damaged = set()
    first = int(bool(header))  # without a header the first line says how all are written
    for _ in range(int(rng.integers(0, most_damage + 1))):
        place = int(rng.integers(first, len(lines)))
        broken = damage(lines[place], delimiter, rng)
        mark = {"arff": "%", "zeek": "#"}.get(kind, "#" if "# made by x" in above else "\0")
        if broken.lstrip().startswith(mark): continue  # a remark, and no row
        lines[place] = broken
        damaged.add(place)
    tail = "" if rng.random() < 0.3 and lines[-1].strip() else end
    if not tail: damaged.add(len(lines) - 1)  # nobody can tell whether its last number goes on
    content = end.join([*above, *lines]) + tail
    codec = str(rng.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"]))
    packed = str(rng.choice(["", "", "", ".gz", ".bz2", ".xz"]))
    written = PACKERS[packed](content.encode(codec, "replace"))
    return Case(written, ending + packed, header, "Label", len(lines), frozenset(damaged))
