# Two commands do everything: `make demo` shows what nfad does, `make test` checks all of it.
# Each sets up .venv first; nothing is installed anywhere else.

PYTHON ?= python3
NB     ?=
DATA   ?=
JOBS   ?= 2
STUDY  ?= statistics
DETECTORS ?=
PLAYERS ?=
STAGES ?=
ACCEPT ?=
ATTACKS ?= 20000
ATTACK_SECONDS ?= 600

BIN  := .venv/bin
DEMO := runs/demo
SHELL := /bin/bash

# pip refuses to touch a Python that is not a virtual environment, and notebooks run on .venv's own
# kernel even where the user has registered another one under the same name.
export PIP_REQUIRE_VIRTUALENV := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export JUPYTER_PATH := $(CURDIR)/.venv/share/jupyter
export JUPYTER_PREFER_ENV_PATH := 1
unexport PYTHONPATH
unexport PYTHONHOME
unexport MPLBACKEND

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-browser attack promises check rules readme incident triage notebooks results detectors studies benchmark rivals verdicts dirt captures strangest throughput paper site export lab clean

help:  ## this list
	@echo "make <target> [PYTHON=python3.12]"
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):[^#]*## (.*)/  \1|\2/' | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

venv: .venv/installed  ## set up .venv with the tested versions (constraints.txt)

.venv/installed: settings.ini constraints.txt setup.py pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { echo "make: no '$(PYTHON)' here; name a Python 3.11 or newer: make venv PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: nfad needs Python 3.11 or newer, '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1); name another: make venv PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -c 'from nfad.stubs import write_stubs; write_stubs("nfad")'
	@touch $@

demo: venv  ## train and score on the simulated demo set, and say where the results are
	@mkdir -p $(DEMO)
	$(BIN)/papermill nbs/03_train.ipynb $(DEMO)/03_train.ipynb -p dataset demo -p epochs 10
	$(BIN)/papermill nbs/04_score.ipynb $(DEMO)/04_score.ipynb -p dataset demo -p pairs False
	@$(BIN)/jupyter nbconvert --log-level ERROR --to html $(DEMO)/03_train.ipynb $(DEMO)/04_score.ipynb
	@echo
	@echo "Reports (open in a browser):"; ls $(DEMO)/*.html | sed 's/^/  /'
	@echo "Model, scores, metrics and figures:"; ls $(DEMO)/*/* | sed 's/^/  /'

# Two processes share the cores: with one thread each, none waits for a core that the other holds.
test: export OMP_NUM_THREADS ?= 1
test: export OPENBLAS_NUM_THREADS ?= 1
test: venv  ## run every notebook, the tests and the repository checks
	$(BIN)/python tests/notebooks.py test
	MPLBACKEND=Agg $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --ignore tests/browser

test-browser: venv  ## open the desk, JupyterLab, alerts.html and the site in chromium (playwright and axe-core are installed for it); skipped without chromium
	@if command -v chromium chromium-browser google-chrome >/dev/null; then \
	  $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,site]' playwright; \
	  command -v npm >/dev/null && npm install --prefix .cache/browser --no-save --ignore-scripts --silent axe-core@4.14.1; fi; true
	MPLBACKEND=Agg $(BIN)/python -m pytest tests/browser

attack: export ATTACKS := $(ATTACKS)
attack: export ATTACK_SECONDS := $(ATTACK_SECONDS)
attack: export ATTACK_SEED ?= $(shell date +%s)
attack: venv  ## throw ATTACKS=20000 damaged and forged inputs at each reader, for ATTACK_SECONDS=600 each; prints ATTACK_SEED
	@echo "ATTACK_SEED=$$ATTACK_SEED ATTACKS=$$ATTACKS ATTACK_SECONDS=$$ATTACK_SECONDS"; \
	  MPLBACKEND=Agg $(BIN)/python -m pytest -rP tests/attack

promises: venv  ## put every promise on trial (400 runs a trial), into figures/promises.csv and figures/promises.png (minutes)
	$(BIN)/papermill nbs/04d_trials.ipynb runs/promises.ipynb -p runs 400 -p largest 20000 -p out_dir figures

check: venv  ## the repository checks alone (seconds)
	MPLBACKEND=Agg $(BIN)/python -m pytest tests/test_repository.py

rules: venv  ## what the notebooks lack by the rules of the house: all, or NB="02_prep"
	$(BIN)/python tests/rules.py $(NB)

export: venv  ## write nfad/*.py from the notebooks, and clean the notebooks
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python -c 'from nfad.stubs import write_stubs; write_stubs("nfad")'

notebooks: venv  ## run notebooks and store their outputs: all, or NB="03_train index"
	$(BIN)/python tests/notebooks.py execute $(NB)
	$(BIN)/nbdev_clean

readme: venv  ## render README.md and figures/ from nbs/index.ipynb
	$(BIN)/python tests/notebooks.py readme

incident: venv  ## draw the first incident of `nfad demo` for the README (needs chromium)
	$(BIN)/python tests/notebooks.py incident

triage: venv  ## draw the desk of a simulated night, figures/triage.png (needs chromium and playwright: make test-browser)
	$(BIN)/python tests/notebooks.py triage

results: venv  ## train and score every data set in NFAD_DATA, both protocols, into figures/results.csv (over an hour)
	$(BIN)/python tests/notebooks.py results

studies: venv  ## compare statistics (or STUDY=preparation, regularization, cost, parts) by a criterion without attacks, and by attacks, on every data set in NFAD_DATA (or on DATA="tor2016"), into figures/
	JOBS=$(JOBS) $(BIN)/python tests/notebooks.py $(STUDY) $(DATA)

detectors: venv  ## run nfad and its peers on every data set in NFAD_DATA over 5 seeds (or on DATA="tor2016", or DETECTORS="knn,lof" alone), JOBS=2 at a time, into figures/detectors.csv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,peers]'
	JOBS=$(JOBS) DETECTORS="$(DETECTORS)" $(BIN)/python tests/notebooks.py detectors $(DATA)

benchmark: venv  ## measure speed beside pzflow, on synthetic and real records, into figures/benchmark.json (over an hour)
	$(BIN)/python tests/notebooks.py benchmark

rivals: venv  ## measure FlowJAX, zuko, scikit-learn and PyOD beside nfad, into figures/rivals.json and figures/tradeoff.json (over an hour)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,peers]'
	$(BIN)/python tests/notebooks.py rivals

verdicts: venv  ## play rounds of answers on every data set in NFAD_DATA (or on DATA="tor2016", or PLAYERS="nfad,aad" alone), over 5 seeds, into figures/verdicts.csv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,peers]'
	JOBS=$(JOBS) PLAYERS="$(PLAYERS)" $(BIN)/python tests/notebooks.py verdicts $(DATA)

dirt: venv  ## play rounds of answers with 1 % attacks in training on two data sets (or on DATA="tor2016"), into figures/dirt.csv
	JOBS=$(JOBS) $(BIN)/python tests/notebooks.py dirt $(DATA)

captures: venv  ## train on captures of devices in NFAD_DATA, and say what is found in attacks and in a device never seen, into figures/captures.csv (minutes)
	$(BIN)/papermill nbs/07e_captures.ipynb runs/captures.ipynb -p dataset "$${NFAD_DATA:-data}/captures" -p n_splits 8 -p epochs 0 -p table_path figures/captures.csv -p figure_path figures/captures.png

throughput: venv  ## measure what a packet costs, beside NFStream, cicflowmeter and tshark where they are installed, into figures/throughput.csv (minutes)
	$(PYTHON) -m venv runs/throughput/venv
	runs/throughput/venv/bin/python -m pip install --quiet nfstream==6.6.0 cicflowmeter==0.2.0
	$(BIN)/python tests/notebooks.py paper throughput

strangest: venv  ## draw the strangest flow of a capture in NFAD_DATA, beside a usual one, into figures/strangest.png (a minute)
	$(BIN)/python tests/notebooks.py paper strangest

# `make paper --dry-run` runs this line too (+), with the option; make keeps its own options in MAKEFLAGS.
paper: venv  ## make every table and figure again that is stale (or STAGES="dirt captures"), then what shows it; --dry-run says which; ACCEPT="dirt": they stand
	+JOBS=$(JOBS) $(BIN)/python tests/notebooks.py paper $(if $(findstring n,$(firstword -$(MAKEFLAGS))),--dry-run) $(if $(ACCEPT),--accept $(ACCEPT)) $(STAGES)

site: venv  ## build the pages to read, into runs/site/html (needs npm once, for MathJax)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,site]'
	$(BIN)/python nbs/site/build.py

lab: venv  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs/

clean:  ## remove .venv, caches and builds; runs/ and data/ stay
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis nfad/__pycache__ nfad/*.pyi tests/__pycache__
	find nbs -name .ipynb_checkpoints -prune -exec rm -rf {} +
