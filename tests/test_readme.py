"""README.md and the pages of nbs/site: each command is one that exists, each link leads somewhere, and the first ten minutes are run."""
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from nfad.cli import build_parser
from nights import strange, traffic
from notebooks import NBS, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((NBS / "site").glob("*.md"))]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def shell_lines(text: str) -> list[str]:
    "Lines of the shell in a page, without comments; a pipe or a semicolon makes two of one."
    lines = [line for block in re.findall(r"^```bash\n(.*?)^```", text, flags=re.M | re.S) for line in block.splitlines()]
    return [part.strip() for line in lines for part in re.split(r" \| |; ", re.sub(r"\s+#.*", "", line)) if part.strip()]


def command_faults(text: str) -> list[str]:
    "Commands of a page that nfad, the Makefile or a notebook does not know."
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    faults = [f"make {target}" for target in re.findall(r"`make ([a-z]+)|^make ([a-z]+)", text, flags=re.M) for target in target if target and target not in targets]
    for line in shell_lines(text):
        program, *words = shlex.split(line)
        if program == "nfad":
            try: build_parser(words).parse_args(words)
            except SystemExit: faults.append(line)
        if program == "papermill": faults += [f"{line}: {name}" for name in words[3::3] if name not in parameters(ROOT / words[0])]
    return faults


def parameters(notebook: Path) -> set[str]:
    "Names of the parameters of a notebook; none where there is no such notebook."
    if not notebook.is_file(): return set()
    cells = nbformat.read(notebook, as_version=4).cells
    source = "".join(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    return set(re.findall(r"^(\w+) =", source, flags=re.M))


def lost_links(page: Path, text: str) -> list[str]:
    "Links of a page to files that are not there."
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    return [target for target in targets if "://" not in target and not (page.parent / target).exists()]


@by_page
def test_every_command_exists(page): assert command_faults(page.read_text(encoding="utf-8")) == []


@by_page
def test_every_link_leads_somewhere(page): assert lost_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("line", ["nfad scores MODEL x", "nfad score MODEL - --alerting", "tail -f x | nfad score", "make nothing", "papermill nbs/03_train.ipynb out.ipynb -p date demo",
                                  "papermill nbs/03_trains.ipynb out.ipynb -p dataset demo"])
def test_a_wrong_command_is_caught(line, capsys):
    assert command_faults(f"```bash\n{line}  # why\n```")
    assert command_faults("```bash\nnfad train x.csv; nfad score MODEL - --alerts-only  # why\nmake demo\npapermill nbs/03_train.ipynb out.ipynb -p dataset demo\n```") == []


def test_a_lost_link_is_caught():
    assert lost_links(ROOT / "README.md", "[a](nbs/none.ipynb), [b](README.md#x), [c](https://x.org)") == ["nbs/none.ipynb"]


def test_the_first_ten_minutes(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = shell_lines(text[text.index("## Ten minutes"):text.index("`alerts/alerts.html`")])
    assert [shlex.split(line)[1] for line in lines] == ["inspect", "train", "score", "explain"]
    traffic(1200).to_csv(tmp_path / "benign.csv", index=False)
    pd.concat([traffic(150, 1), strange(30, 2)]).to_csv(tmp_path / "today.csv", index=False)
    (tmp_path / "nfad").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; from nfad.cli import main; sys.exit(main())" "$@"\n')
    (tmp_path / "nfad").chmod(0o755)
    paths = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    said = {line.split()[1]: subprocess.run(["bash", "-ec", line], cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True, check=True).stdout for line in lines}
    assert "1,200 rows" in said["inspect"] and "model.safetensors" in said["train"] and "180 records" in said["score"]
    page = (tmp_path / "alerts" / "alerts.html").read_text(encoding="utf-8")
    assert str(Path("alerts", "alerts.html")) in said["explain"] and page.count('class="incident"') > 0
