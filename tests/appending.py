"""Ways of appending to a journal, in processes of their own that start fast; used by test_journal."""
import resource
import signal
from pathlib import Path

from nfad.journal import append_lines, line_of


def numbered(number: int) -> str: return line_of({"number": number, "note": "x" * (number % 7 * 3000)}, "number")


def safely(path, lines): append_lines(path, lines, "number")


def in_a_buffer(path, lines, kept=[]):
    "A twin that says it is done when the line is in a buffer."
    if not kept: kept.append(open(path, "a", buffering=1 << 20))
    kept[0].write("".join(line + "\n" for line in lines))


def all_anew(path, lines):
    "A twin that reads the file and writes it with more."
    before = Path(path).read_bytes() if Path(path).exists() else b""
    Path(path).write_bytes(before + "".join(line + "\n" for line in lines).encode())


def plainly(path, lines):
    "A twin that closes no line and takes nothing back."
    with open(path, "a") as file: file.write("".join(line + "\n" for line in lines))


def full(path, n_bytes, append=safely):
    "Appends a line to a file that may not grow beyond some bytes, as on a full disk."
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    try: append(path, [numbered(2)])
    except OSError as error: print(type(error).__name__)
