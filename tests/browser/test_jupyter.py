"""`nfad.triage` in JupyterLab: run, click, read, answer by keys, restart the kernel; the answers are still there."""
import json
import os
import subprocess
import sys
import time
from urllib.request import Request, urlopen

import nbformat
import pytest

from conftest import ROOT
from nfad.answers import read_verdicts


@pytest.fixture
def lab(tmp_path, alerts):
    "JupyterLab with one notebook; gives its address."
    alerts()
    cell = nbformat.v4.new_code_cell("import nfad\nnfad.triage('alerts', who='anna')")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell("1 + 1")], metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}), tmp_path / "n.ipynb")
    quiet = tmp_path / "s" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    own = {"PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "JUPYTER_DATA_DIR": str(tmp_path / "data")}
    words = ["lab", "--no-browser", "--port=0", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=abc", f"--ServerApp.root_dir={tmp_path}", "--allow-root",
             "--LabApp.extension_manager=readonly", f"--LabApp.workspaces_dir={tmp_path / 'w'}", f"--LabApp.user_settings_dir={tmp_path / 's'}"]
    with open(tmp_path / "log", "w") as log: process = subprocess.Popen([sys.executable, "-m", "jupyter", *words], cwd=tmp_path, env=os.environ | own, stdout=log, stderr=log)
    url = ""
    try:
        url = wait_for(tmp_path / "runtime", process)
        yield f"{url}lab/tree/n.ipynb?token=abc&reset"
    finally:
        try:
            if url: end_kernels(url)
        finally:
            process.kill()
            process.wait(20)


def end_kernels(url: str):
    "A server that is killed leaves its kernels."
    asked = {"Authorization": "token abc"}
    for kernel in json.load(urlopen(Request(f"{url}api/kernels", headers=asked), timeout=10)):
        urlopen(Request(f"{url}api/kernels/{kernel['id']}", headers=asked, method="DELETE"), timeout=20)


def wait_for(runtime, process) -> str:
    "The address of the server, once it answers."
    for _ in range(200):
        assert process.poll() is None, "JupyterLab ended"
        for path in runtime.glob("jpserver-*.json"):
            try: url = json.loads(path.read_text())["url"]
            except ValueError: continue
            try: return url if urlopen(f"{url}api?token=abc", timeout=5) else ""
            except OSError: pass
        time.sleep(0.1)
    raise AssertionError("JupyterLab did not start")


def test_answers_survive_the_kernel(lab, visit, tmp_path, axe):
    pytest.importorskip("anywidget", reason="anywidget is not installed (nfad[triage])")
    page = visit(lab, ".jp-Notebook .jp-Cell")
    page.set_default_timeout(30_000)
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    page.locator(".jp-Cell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".nfad-triage .card .first")
    page.locator(".nfad-triage .row").nth(2).click()
    page.wait_for_selector("text=Incident 3: 5 records")
    assert "Flow IAT Max = 3 s" in page.locator(".nfad-triage .card .first").inner_text()
    page.locator(".nfad-triage .list").focus()
    n_cells = page.locator(".jp-Notebook .jp-Cell").count()
    for key in "ajbjku": page.keyboard.press(key)  # in JupyterLab a and b insert cells: not from here
    page.wait_for_function("() => document.querySelector('.nfad-triage .counts').textContent === '15 of 60 answered'")
    assert page.locator(".jp-Notebook .jp-Cell").count() == n_cells
    assert len(read_verdicts(tmp_path / "alerts" / "verdicts.jsonl").current()) == 15
    page.screenshot(path=str(tmp_path / "lab.png"))
    page.evaluate("window.first = document.querySelector('.nfad-triage')")
    page.get_by_role("menuitem", name="Kernel").click()
    page.get_by_role("menuitem", name="Restart Kernel and Run All Cells").click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.wait_for_function("() => !window.first.isConnected && document.querySelectorAll('.nfad-triage .chip').length === 3")
    assert page.locator(".nfad-triage .counts").inner_text() == "15 of 60 answered"
