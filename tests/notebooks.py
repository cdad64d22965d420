"""What the Makefile does with notebooks: `python tests/notebooks.py test | execute [name ...] | readme | results | detectors [name ...] | studies [name ...] | benchmark | rivals [name ...]`.

test     runs `nbdev_test` and makes sure that it ran every notebook: on a mistyped path it tests nothing and succeeds
execute  runs notebooks in place, in order, and keeps their outputs, without progress bars and warnings
readme   renders nbs/index.ipynb to README.md, its figures to figures/
incident draws the first incident of `nfad demo` by chromium, figures/incident.png
triage   draws the desk of a simulated night by chromium and playwright, figures/triage.png
results  trains and scores every data set that is there, by nfad's default and by the paper's protocol, into figures/results.csv
detectors runs every detector on every data set over five seeds, into figures/detectors.csv, curves.csv and figures; what is cached is not computed again
statistics, preparation, regularization, cost, parts   judges candidates by the benign-only criterion and by attacks on every data set, into figures/
paper    runs the stages of figures/paper.toml that are stale, then the notebooks that show them; --dry-run only says which, --accept takes files as they stand
benchmark measures speed on synthetic and on real records, into figures/benchmark.json
rivals   measures the flows and whole detectors that a user would take instead, into figures/rivals.json and figures/tradeoff.json
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"


def untested(log: str, names: list[str]) -> list[str]:
    "Those of `names` that a log of `nbdev_test --do_print` does not report as completed."
    done = {Path(line.split("Completed", 1)[1].strip()).name for line in log.splitlines() if line.startswith("- Completed")}
    return [name for name in names if name not in done]


def two_chains(sources: dict[str, str]) -> list[list[str]]:
    """Names of notebooks in order: 03_train with those that open its run of the demo set, and all others.

    Those numbered 07, which open none, are with the first, so that both chains take about as long.
    """
    first = {name for name, source in sources.items() if name.startswith(("03_train", "07")) or "from nfad.train import" in source}
    return [sorted(first), sorted(sources.keys() - first)]


def run_chain(names: list[str]) -> tuple[bool, str]:
    "Whether `nbdev_test` succeeds with some notebooks, one after the other, and its log."
    command = [str(Path(sys.executable).parent / "nbdev_test"), "--file_re", f"^({'|'.join(map(re.escape, names))})$"]
    options = ["--n_workers", "1", "--do_print", "--timing"]
    lines = []
    with subprocess.Popen(command + options, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as run:
        for line in run.stdout:
            lines.append(line)
            if not line.startswith("Starting"): print(line, end="", flush=True)
    return run.returncode == 0 and "Success.\n" in lines, "".join(lines)


def test_notebooks() -> int:
    "Exit status of `nbdev_test` over all notebooks, in two chains side by side: in a chain a later one reads what an earlier one wrote."
    chains = two_chains({path.name: path.read_text(encoding="utf-8") for path in NBS.glob("*.ipynb")})
    names = sorted(sum(chains, []))
    with ThreadPoolExecutor(2) as pool: passed, logs = zip(*pool.map(run_chain, chains))
    missing = untested("".join(logs), names)
    if missing: print(f"nbdev_test did not run {', '.join(missing)}", file=sys.stderr)
    failed = bool(missing or not names or not all(passed))
    print(f"nbdev_test: {len(names) - len(missing)} of {len(names)} notebooks run, {'FAILED' if failed else 'all passed'}", flush=True)
    return int(failed)


def plain_outputs(outputs: list, home: str, root: str) -> list:
    "Outputs that another machine would store too: no warnings, no progress bars, no absolute paths."
    kept = []
    for output in outputs:
        if output.get("name") == "stderr": continue
        text = output if output.output_type == "stream" else output.get("data", {})
        for key, value in list(text.items()):
            if key == "text" or key.startswith("text/"): text[key] = value.replace(root + os.sep, "").replace(root, ".").replace(home, "~")
        if "application/vnd.jupyter.widget-view+json" not in text: kept.append(output)
    return kept


def execute(names: list[str]) -> int:
    "Runs notebooks in place; one that fails is left as it was."
    from nbclient import NotebookClient
    os.environ.pop("MPLBACKEND", None)  # figures are kept by the inline backend only
    known = sorted(path.stem for path in NBS.glob("*.ipynb"))
    names = [Path(name).stem for name in names] or known
    wrong = [name for name in names if name not in known]
    if wrong: sys.exit(f"NB must name notebooks of nbs/, got {wrong}; they are {known}")
    for name in names:
        print(name, flush=True)
        nb = nbformat.read(NBS / f"{name}.ipynb", as_version=4)
        NotebookClient(nb, kernel_name="python3", timeout=None, resources={"metadata": {"path": str(NBS)}}).execute()
        for cell in nb.cells:
            if cell.cell_type == "code": cell.outputs = plain_outputs(cell.outputs, str(Path.home()), str(ROOT))
        nb.metadata.pop("widgets", None)
        nbformat.write(nb, NBS / f"{name}.ipynb")
    return 0


def render_readme(notebook: Path) -> tuple[str, dict[str, bytes]]:
    "Text of README.md and its figures (name -> PNG), from the outputs stored in `notebook`: the same each time."
    from nbconvert import MarkdownExporter
    from traitlets.config import Config
    config = Config()
    config.ExtractOutputPreprocessor.output_filename_template = "{unique_key}_{cell_index}_{index}{extension}"
    config.RegexRemovePreprocessor.patterns = [r"\s*\Z", r"#\|\s*hide"]
    nb = nbformat.read(notebook, as_version=4)
    nb.metadata.language_info = {"name": "python"}
    for cell in nb.cells:
        if cell.source.startswith("#| echo: false"): cell.metadata["transient"] = {"remove_source": True}
    text, resources = MarkdownExporter(config=config).from_notebook_node(
        nb, resources={"unique_key": notebook.stem, "output_files_dir": "figures"})
    text = re.sub(r"^#\|.*\n", "", text, flags=re.M)                            # nbdev's directives
    text = re.sub(r"\]\((?![a-z]+:|#|/|figures/|\.\./)", "](nbs/", text)        # links beside the notebook
    text = text.replace("](../", "](").replace('src="../', 'src="')             # links from the root
    text = re.sub(r"[ \t]+$", "", text, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", {Path(name).name: data for name, data in resources["outputs"].items()}


def readme() -> int:
    "Writes README.md and its figures, and removes figures that it no longer shows."
    text, figures = render_readme(NBS / "index.ipynb")
    for old in (ROOT / "figures").glob("index_*"):
        if old.name not in figures: old.unlink()
    for name, data in figures.items():
        (ROOT / "figures" / name).parent.mkdir(exist_ok=True)
        (ROOT / "figures" / name).write_bytes(data)
    (ROOT / "README.md").write_text(text, encoding="utf-8")
    print(f"README.md ({len(text.splitlines())} lines, {len(figures)} figures)")
    return 0


def incident() -> int:
    "Draws the first incident of `nfad demo` as figures/incident.png, by a browser (chromium)."
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser: sys.exit("incident needs chromium; nothing was written")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", "from nfad.cli import main; raise SystemExit(main())", "demo", "--out-dir", folder, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        page = next(Path(folder).rglob("alerts.html")).read_text(encoding="utf-8")
        head = page[:page.index("<body>")]
        card = re.search(r'<section class="incident" id="incident-1">.*?</section>', page, flags=re.S)[0]
        alone = Path(folder) / "card.html"
        alone.write_text(f'{head}<body><div class="nfad">{card}</div></body></html>', encoding="utf-8")
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1040,820",
                 f"--user-data-dir={folder}/profile", f"--screenshot={ROOT / 'figures' / 'incident.png'}", alone.as_uri()]
        subprocess.run(words, check=True, capture_output=True, timeout=120)
    print("figures/incident.png")
    return 0


def triage() -> int:
    "Draws the desk of a simulated night as figures/triage.png, after a few answers."
    sys.path.insert(0, str(ROOT / "tests" / "browser"))
    from night import draw_desk
    draw_desk(ROOT / "figures" / "triage.png")
    print("figures/triage.png")
    return 0


PROTOCOLS = {  # out_dir and parameters of 03_train; the paper's flow on the splits of the default, with its released six features where they exist
    "default": ("runs", {}),
    "paper": ("runs/paper", {"preset": "paper", "sizes": "default"}),
}
NO_PAPER6 = ("tor2016", "tor2016_15s", "ciciot2023")  # the paper's six are not all there; the data set's own features then


def is_current(folder: Path) -> bool:
    "Whether a run was scored by a model that was trained and judged as today's are."
    from nfad.core import read_header
    from nfad.detector import SCORE_VERSION
    model = folder / "model.safetensors"
    return (folder / "score.json").is_file() and model.is_file() and read_header(model).get("score") == SCORE_VERSION


def run_protocol(dataset: str, protocol: str) -> str:
    "Trains and scores one data set by one protocol, unless that was done or had failed; returns '' or the error that ended it."
    from papermill import PapermillExecutionError, execute_notebook
    out_dir, parameters = PROTOCOLS[protocol]
    failed = ROOT / out_dir / dataset / "error.txt"
    done = [path.parent for path in failed.parent.glob("*/score.json")]
    if done and (protocol == "paper" or any(map(is_current, done))): return ""  # the score of the paper's protocol never changes
    if failed.is_file(): return failed.read_text()
    shared = {"dataset": dataset, "out_dir": out_dir}
    if protocol == "paper" and dataset not in NO_PAPER6: shared["feature_set"] = "paper6"
    failed.parent.mkdir(parents=True, exist_ok=True)
    for name, extra in (("03_train", parameters), ("04_score", {"pairs": False})):
        try: execute_notebook(NBS / f"{name}.ipynb", failed.parent / f"{name}.ipynb", shared | extra, cwd=ROOT, progress_bar=False)
        except PapermillExecutionError as error:
            failed.write_text(f"{error.ename}: {error.evalue}")
            return failed.read_text()
    return ""


def results(names: list[str]) -> int:
    "Runs both protocols on the named data sets (all that are there), then writes the figures of all runs to figures/results.csv."
    import pandas as pd
    from nfad.catalog import list_datasets
    from nfad.metrics import collect_scores
    there = list_datasets()
    names = names or [name for name in there.loc[there["found"], "name"] if name != "demo"]
    failed = []
    for dataset in names:
        for protocol in PROTOCOLS:
            error = run_protocol(dataset, protocol)
            print(f"{dataset}, {protocol}: {error or 'done'}", flush=True)
            if error: failed.append({"protocol": protocol, "dataset": dataset, "error": error.split(";")[0]})
    tables = [collect_scores(out_dir).reset_index().assign(protocol=protocol) for protocol, (out_dir, _) in PROTOCOLS.items()]
    table = pd.concat([*tables, pd.DataFrame(failed)], ignore_index=True).round(5)
    table = table.astype({name: "Int64" for name in ("n_train", "n_test_benign", "n_test_attack")})
    table.query("dataset != 'demo'").sort_values(["protocol", "dataset"]).to_csv(ROOT / "figures" / "results.csv", index=False)
    return 0


SEEDS = 5
STUDY_SEED = 100  # a split that no published table uses
CHEAP = "nfad,pca,ecod,knn,lof,gmm,iforest"  # for the splits that only some data sets allow
MORE_SPLITS = {"cicids2017_improved": ("grouped", "temporal"), "cicids2017": ("random without Web Attack",)}


def run_detectors(dataset: str, split: str, detectors: str) -> tuple[str, float]:
    "Runs 07_detectors on one data set and split; returns '' or the error that ended it, and seconds."
    import time
    from papermill import PapermillExecutionError, execute_notebook
    start, report = time.monotonic(), ROOT / "runs" / dataset / f"07_detectors_{split.replace(' ', '-')}.ipynb"
    report.parent.mkdir(parents=True, exist_ok=True)
    method, _, without = split.partition(" without ")
    parameters = {"dataset": dataset, "split": method, "without": without, "detectors": detectors, "n_seeds": SEEDS}
    try: execute_notebook(NBS / "07_detectors.ipynb", report, parameters, cwd=ROOT, progress_bar=False)
    except PapermillExecutionError as error: return f"{error.ename}: {error.evalue}", time.monotonic() - start
    return "", time.monotonic() - start


def detector_figures(collected, folder: Path) -> None:
    "Mean ranks over data sets, and data sets x detectors as colors, from the figures of all runs."
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from nfad.core import save_figure
    from nfad.detectors import metric_table, plot_heatmap, plot_ranks
    tables = {label: metric_table(collected, metric) for metric, label in (("macro_auroc", "macro AUROC"), ("tpr_at_fpr_0.01", "TPR at 1 % FPR"))}
    order = list(tables["macro AUROC"].columns)
    k, n = len(order), len(tables["macro AUROC"])
    if k > 1 and n > 1:
        figure, axes = pyplot.subplots(1, 2, figsize=(11, 1.2 + 0.3 * k), layout="constrained")
        for ax, (label, table) in zip(axes, tables.items()): plot_ranks(table, ax).set_title(label)
        save_figure(figure, folder / "detectors_ranks.png", force=True)
    figure, axes = pyplot.subplots(1, 2, figsize=(4 + 0.95 * k, 1.8 + 0.36 * n), layout="constrained", sharey=True)
    for ax, (label, table) in zip(axes, tables.items()): plot_heatmap(table[order], label, 0.3 if "AUROC" in label else 0, ax)
    save_figure(figure, folder / "detectors_heatmap.png", force=True)
    pyplot.close("all")


def detectors(names: list[str], run=run_detectors, out_dir: str | Path = "runs", folder: Path = ROOT / "figures", pool=ProcessPoolExecutor) -> int:
    """Runs the named data sets (all that are there), goes on if one fails, then writes figures/detectors.csv and figures; exit status.

    Two run at a time, on one thread each, so that the CPU seconds of detectors mean something; the environment variable JOBS says another number.
    DETECTORS names a few (with commas): only they and nfad, which they are compared with, run again, and the rows of all others stay.
    """
    import pandas as pd
    from nfad.core import require_choice
    from nfad.catalog import list_datasets
    from nfad.detectors import collect_curves, collect_detectors
    from nfad.peers import PEERS, detector_names
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    there = list_datasets()
    there = [name for name in there.loc[there["found"], "name"] if name != "demo"] + ["demo"] * ("demo" in names)
    if not there: sys.exit("detectors needs data: NFAD_DATA must name a folder with data sets, see the README; nothing was run or written")
    wanted = [(require_choice(name, there, "a data set"), "random") for name in names or there]
    wanted += [(name, split) for name, _ in wanted for split in MORE_SPLITS.get(name, ())]  # last: what leaves out classes finds the scores of "random"
    few = [name for name in os.environ.get("DETECTORS", "").split(",") if name]
    failed, every, cheap = [], ",".join(("nfad", *PEERS, "pzflow")), CHEAP
    if few: every = cheap = ",".join(dict.fromkeys(("nfad", *detector_names(few)[0])))
    with pool(int(os.environ.get("JOBS", "2"))) as workers:
        tasks = {workers.submit(run, dataset, split, every if split.startswith("random") else cheap): f"{dataset}, {split}" for dataset, split in wanted}
        for task in as_completed(tasks):
            error, seconds = task.result()
            print(f"{tasks[task]}: {f'FAILED, {error}' if error else 'done'} ({seconds:.0f} s)", flush=True)
            if error: failed.append(tasks[task])
    made = {"detectors": collect_detectors(out_dir, SEEDS), "curves": collect_curves(out_dir, SEEDS)}
    for name, table in made.items():
        if "demo" not in names: table = table[table["dataset"] != "demo"]
        path, keys = folder / f"{name}.csv", ["dataset", "split", "detector"] if few else ["dataset"]
        if (names or few) and path.is_file():  # rows of others stay
            known = pd.read_csv(path)
            again = known[keys].apply(tuple, axis=1).isin(table[keys].apply(tuple, axis=1))
            table = pd.concat([known[~again], table], ignore_index=True)
        made[name] = table.sort_values(["split", "dataset", "detector"], kind="stable").round(5)
        made[name].to_csv(path, index=False)
    collected = made["detectors"]
    detector_figures(collected, folder)
    print(f"{folder / 'detectors.csv'}: {len(collected)} rows; {len(failed)} runs failed{': ' + '; '.join(sorted(failed)) if failed else ''}", flush=True)
    return int(bool(failed))


def run_study(dataset: str, study: str) -> str:
    "Runs one study of 07a_studies on one data set; '' or the error that ended it."
    from papermill import PapermillExecutionError, execute_notebook
    report = ROOT / "runs" / dataset / f"07a_studies_{study}.ipynb"
    report.parent.mkdir(parents=True, exist_ok=True)
    try: execute_notebook(NBS / "07a_studies.ipynb", report, {"dataset": dataset, "studies": study, "seed": STUDY_SEED}, cwd=ROOT, progress_bar=False)
    except PapermillExecutionError as error: return f"{error.ename}: {error.evalue}"
    return ""


STUDIES = ("statistics", "preparation", "regularization", "cost", "parts")


def studies(study: str, names: list[str], run=run_study, out_dir: str | Path = "runs", folder: Path = ROOT / "figures", pool=ProcessPoolExecutor) -> int:
    "Runs one of `STUDIES` on the named data sets (all that are there), then writes its table in figures/ from all that were run; exit status."
    import pandas as pd
    from nfad.core import read_json, require_choice
    from nfad.catalog import list_datasets
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    there = list_datasets()
    there = [name for name in there.loc[there["found"], "name"] if name != "demo"]
    require_choice(study, list(STUDIES), "study")
    if not there: sys.exit("studies needs data: NFAD_DATA must name a folder with data sets, see the README; nothing was run or written")
    wanted, failed = [require_choice(name, there, "a data set") for name in names or there], []
    with pool(int(os.environ.get("JOBS", "2"))) as workers:
        for dataset, error in zip(wanted, workers.map(run, wanted, [study] * len(wanted))):
            print(f"{dataset}: {error or 'done'}", flush=True)
            if error: failed.append(dataset)
    tables = [pd.DataFrame(read_json(path)).assign(dataset=path.parts[-3]) for path in sorted((ROOT / out_dir).glob(f"*/*/study_{study}.json")) if path.parts[-3] in there]
    if tables: pd.concat(tables).set_index(["dataset", "candidate"]).round(5).reset_index().to_csv(folder / f"{study}.csv", index=False)
    return int(bool(failed))


def benchmark(names: list[str]) -> int:
    "Runs 12_benchmark on the named rows (synthetic and cicids2017), and keeps its ratios in figures/benchmark.json."
    from papermill import execute_notebook
    from nfad.core import read_json, write_json
    folder, kept = ROOT / "runs" / "benchmark", ROOT / "figures" / "benchmark.json"
    folder.mkdir(parents=True, exist_ok=True)
    table = read_json(kept) if kept.is_file() else {}
    for rows in names or ["synthetic", "cicids2017"]:
        parameters = {"dataset": rows} | ({} if rows == "synthetic" else {"n_memory": 0, "budget": 300})
        execute_notebook(NBS / "12_benchmark.ipynb", folder / f"{rows}.ipynb", parameters, cwd=NBS, progress_bar=False)
        table[rows] = read_json(folder / ("benchmark.json" if rows == "synthetic" else f"benchmark_{rows}.json"))
    write_json(kept, table, force=True)
    return 0


RIVALS = {"d": [6, 20, 58], "n": 5000, "repeats": 3, "budget": 100.0}
RIVALS_ON = {  # parameters of 12a_rivals, by rows
    "cicids2017": {"noises": [0.02, 0.0], "rivals": "flowjax,flowjax_tuned,zuko,zuko_tuned", "peers": "tuned,pzflow"},
    "synthetic": {"noises": [0.02], "rivals": "flowjax_tuned,zuko_tuned", "peers": "tuned"}}


def rivals(names: list[str]) -> int:
    "Runs 12b_tradeoff on cicids2017, and 12a_rivals on the named rows (synthetic and cicids2017), and keeps what they measured in figures/."
    from papermill import execute_notebook
    from nfad.core import read_json, require_choice, write_json
    from nfad.catalog import list_datasets
    there = list_datasets()
    there = ["synthetic", *there.loc[there["found"], "name"]]
    folder, figures = ROOT / "runs" / "benchmark", ROOT / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    names = [require_choice(name, list(RIVALS_ON), "rows") for name in names] or [name for name in RIVALS_ON if name in there]
    if "cicids2017" in names:
        settings = {"dataset": "cicids2017", "detectors": "all", "repeats": 3}
        execute_notebook(NBS / "12b_tradeoff.ipynb", folder / "tradeoff.ipynb", settings, cwd=NBS, progress_bar=False)
        write_json(figures / "tradeoff.json", read_json(folder / "tradeoff_cicids2017.json"), force=True)
    kept = figures / "rivals.json"
    for rows in names:
        settings = RIVALS | RIVALS_ON[rows] | {"dataset": rows}
        execute_notebook(NBS / "12a_rivals.ipynb", folder / f"rivals_{rows}.ipynb", settings, cwd=NBS, progress_bar=False)
        write_json(kept, (read_json(kept) if kept.is_file() else {}) | {rows: read_json(folder / f"rivals_{rows}.json")}, force=True)
    return 0


ROUNDS_SEED = 10  # splits that nothing was chosen on
ROUNDS_ON = ("cicids2017", "csecicids2018", "cicddos2019", "cicids2017_improved", "ciciot2023", "tor2016_15s", "iot23", "unswnb15")


DIRT_ON = ("cicids2017_improved", "csecicids2018")


def run_rounds(dataset: str, notebook: str) -> str:
    "Runs 07d_rounds or 07e_dirt on one data set; '' or the error that ended it."
    from papermill import PapermillExecutionError, execute_notebook
    report = ROOT / "runs" / dataset / f"{notebook}.ipynb"
    report.parent.mkdir(parents=True, exist_ok=True)
    parameters = {"dataset": dataset, "seed": ROUNDS_SEED, "n_seeds": SEEDS}
    if notebook == "07d_rounds": parameters["players"] = os.environ.get("PLAYERS") or "all"
    try: execute_notebook(NBS / f"{notebook}.ipynb", report, parameters, cwd=ROOT, progress_bar=False)
    except PapermillExecutionError as error: return f"{error.ename}: {error.evalue}"
    return ""


def played(notebook: str, record: str, usual: tuple[str, ...], names: list[str], run=run_rounds, out_dir: str | Path = "runs",
           folder: Path = ROOT / "figures", pool=ProcessPoolExecutor) -> int:
    """Plays rounds of answers on the named data sets, JOBS=2 at a time, and writes a table of figures/ from all that were played; exit status.

    PLAYERS names a few (with commas): only they play again, and the rows of all others stay.
    """
    import numpy as np
    import pandas as pd
    from nfad.catalog import list_datasets
    from nfad.core import require_choice
    from nfad.rounds import PLAYERS, collect_rounds
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    there = list_datasets()
    there = there.loc[there["found"], "name"].tolist()
    wanted = [require_choice(name, there, "a data set") for name in names] or [name for name in usual if name in there]
    if not wanted: sys.exit(f"{record} needs data: NFAD_DATA must name a folder with data sets, see the README; nothing was run or written")
    failed = []
    with pool(int(os.environ.get("JOBS", "2"))) as workers:
        for dataset, error in zip(wanted, workers.map(run, wanted, [notebook] * len(wanted))):
            print(f"{dataset}: {error or 'done'}", flush=True)
            if error: failed.append(dataset)
    collected = collect_rounds(out_dir, f"{record}.json").query("dataset != 'demo'")
    if os.environ.get("PLAYERS"):
        known, keys = pd.read_csv(folder / f"{record}.csv"), ["dataset", "player"]
        again = known[keys].apply(tuple, axis=1).isin(collected[keys].apply(tuple, axis=1))
        collected = pd.concat([known[~again], collected], ignore_index=True)
        turn = collected["player"].map({player: i for i, player in enumerate(PLAYERS)})
        collected = collected.iloc[np.lexsort((collected["answers"], turn, collected["dataset"]))]
    collected.round(4).to_csv(folder / f"{record}.csv", index=False)
    return int(bool(failed))


def verdicts(names: list[str]) -> int: return played("07d_rounds", "verdicts", ROUNDS_ON, names)
def dirt(names: list[str]) -> int: return played("07e_dirt", "dirt", DIRT_ON, names)


def paper(words: list[str]) -> int:
    "Runs what is stale of figures/paper.toml, or of the stages named, and then the notebooks that show it; exit status."
    from nfad.claims import check_claims, read_claims
    from nfad.core import read_json
    from nfad.paper import accept_stages, find_stale, make_stages, read_stages
    stages, account = read_stages(ROOT / "figures" / "paper.toml"), ROOT / "figures" / "paper.json"
    names = [word for word in words if not word.startswith("--")]
    if "--accept" in words: accept_stages(stages, account, ROOT, names)
    table = find_stale(stages, read_json(account) if account.is_file() else {}, ROOT)
    stale = table[table["stale"]]
    print(stale[["minutes", "why"]].to_string() if len(stale) else f"nothing is stale, {len(table)} stages")
    if "--dry-run" in words or "--accept" in words: return 0
    said = make_stages(stages, account, ROOT, names, int(os.environ.get("JOBS", "2")))
    made = [name for name, became in said.items() if became == "run"]
    shown = {notebook for name in made for notebook in stages[name].shown_in}
    if shown: execute(sorted(shown))
    if "index" in shown: readme()
    claims = check_claims(read_claims(ROOT / "figures" / "claims.toml"), ROOT)
    wrong = claims[~(claims["found"] & claims["holds"])]
    if len(wrong): print(f"sentences that their tables do not bear out:\n{wrong.to_string()}")
    return int(len(made) < len(said) or len(wrong) > 0)


if __name__ == "__main__":
    actions = {name: partial(studies, name) for name in STUDIES} | {"paper": paper, "test": lambda names: test_notebooks(), "execute": execute, "readme": lambda names: readme(), "incident": lambda names: incident(), "triage": lambda names: triage(), "results": results, "detectors": detectors, "benchmark": benchmark, "rivals": rivals, "verdicts": verdicts, "dirt": dirt}
    if len(sys.argv) < 2 or sys.argv[1] not in actions: sys.exit(f"usage: notebooks.py {' | '.join(actions)}")
    sys.exit(actions[sys.argv[1]](sys.argv[2:]))
