"""Laws of a grid: each cell once, unknown names refused, a failure alone; and notebooks run without their lessons."""
import nbformat
import pytest

from nfad import grid
from nfad.core import write_json
from nfad.grid import Cell, STEPS, plan_grid, run_grid, without_lessons


@pytest.fixture
def fake(monkeypatch):
    "Notebooks that only leave a score.json, and a list of those that ran."
    ran = []
    def papermill(notebook, out, parameters):
        ran.append((notebook.stem, parameters))
        if parameters.get("seed") == 13: raise RuntimeError("ValueError: no luck")
        if notebook.stem == "04_score": write_json(out.parent / "score.json", {"auroc": 0.5 + parameters["seed"] / 10})
    monkeypatch.setattr(grid, "papermill", papermill)
    return ran


def test_grid_runs_each_cell_once(fake, tmp_path):
    cells = plan_grid(["demo"], ["timing", "sizes"], [0, 1, 13], str(tmp_path), epochs=2)
    table = run_grid(cells, n_jobs=2, progress=False)
    assert len(fake) == 2 * (2 * 2 + 1) and all(given["epochs"] == 2 for step, given in fake if step == "03_train")
    assert all("epochs" not in given and given["pairs"] is False for step, given in fake if step == "04_score")
    assert table["status"].tolist() == ["run", "run", "failed"] * 2
    assert table["auroc"].tolist()[:2] == [0.5, 0.6] and "no luck" in table["error"][2]
    fake.clear()
    assert run_grid(cells, progress=False)["status"].tolist() == ["was done", "was done", "failed"] * 2 and len(fake) == 2
    fake.clear()
    other = plan_grid(["demo"], ["timing"], [0], str(tmp_path), epochs=3)
    assert run_grid(other, progress=False)["status"].tolist() == ["run"] and len(fake) == 2


def test_grid_refuses_unknown_names_and_traversal(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'epochs'"): plan_grid(["demo"], epoch=3)
    with pytest.raises(ValueError, match="seed"): plan_grid(["demo"], seeds=[-1])
    with pytest.raises(ValueError, match="one folder"): plan_grid(["demo", "demo"], ["timing"])
    folder = Cell("../../etc/demo", "timing", 0, str(tmp_path), {}).folder
    assert folder.parents[1] == tmp_path and folder.parent.name.startswith("etc-demo-") and folder.name == "timing"


# ---------------------------------------------------------------- notebooks without their lessons

def law_a_run_stands_alone(nb):
    "All that a run needs is there: imports, its module, one parameters cell with its check, and the run; no lesson is."
    sources = [cell.source for cell in nb.cells]
    run = next(i for i, source in enumerate(sources) if source.startswith("## Run"))
    assert sources[run - 1].startswith("check_parameters(globals())") and "parameters" in nb.cells[run - 2].metadata["tags"]
    assert any(source.startswith("import nfad.") for source in sources[:run]) and not any("test_" in s for s in sources[4:run])


@pytest.mark.parametrize("step", STEPS)
def test_law_a_run_stands_alone(step, tmp_path):
    law_a_run_stands_alone(nbformat.read(without_lessons(step, tmp_path / "short.ipynb"), as_version=4))


@pytest.mark.parametrize("step", STEPS)
def test_law_a_run_stands_alone_catches_the_whole(step):
    with pytest.raises(AssertionError): law_a_run_stands_alone(nbformat.read(grid.notebook_path(step), as_version=4))
