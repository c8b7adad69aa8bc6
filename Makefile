# make study   sets up a virtual environment and runs the default study
# make test    sets up and runs the tests
# make test-fast   the quick tests of every room, about a minute on two cores
# make lint    ruff, snakefmt, snakemake --lint, the layers of the package, the links of the docs
# make test-slurm  starts a Slurm on this machine (root and apt) and runs a tiny study in it
# make test-browser  opens the first page of a tiny study in Chromium (root and apt if there is none), keeps pictures
# make test-scale  runs the tutorial, and the paper's grid with stubs for its models: thousands of jobs, half an hour
# make bench   measures what the package costs on this machine, beside what it could cost at least
# make real    a real chat model of 135M parameters, before and after alignment, on the ten real sets
# make dist    builds the wheel and the source distribution in build/dist/ and checks them; publishes nothing
# make report  gathers the finished study in report.html

PYTHON ?= python3
CORES ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
# Two test files at a time, one thread each: two threads on a busy core are slower than one.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: study real test test-fast test-slurm test-browser test-scale lint report bench dist
.DELETE_ON_ERROR:

study: $(VENV)/.study
	$(BIN)/snakemake --cores $(CORES)

real: $(VENV)/.study
	$(BIN)/snakemake --cores $(CORES) --configfile config/smollm2.yaml

test: $(VENV)/.dev
	$(PYTEST)

test-fast: $(VENV)/.dev
	$(PYTEST) -m "not browser and not slow and not slurm and not scale" --hypothesis-profile=fast

test-slurm: $(VENV)/.slurm
	$(BIN)/python -m pytest tests/slurm -m slurm -v -rs

test-browser: $(VENV)/.browser
	$(BIN)/python -m pytest tests/workflow/test_browser.py -m browser -v -rs

test-scale: $(VENV)/.dev
	$(BIN)/python -m pytest tests -m scale -v -s

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

report: $(VENV)/.study
	$(BIN)/snakemake --report report.html

bench: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m bench

dist: $(VENV)/.release
	rm -rf build/dist && mkdir -p build
	$(BIN)/python -m build --no-isolation --outdir build/dist
	$(BIN)/twine check --strict build/dist/*

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than Python 3.11. Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "error: no virtual environment could be made. Try: apt install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.study: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.study

$(VENV)/.release: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[release]'
	touch $@ $(VENV)/.study

$(VENV)/.slurm: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev,slurm]'
	touch $@ $(VENV)/.dev $(VENV)/.study

$(VENV)/.browser: pyproject.toml | $(BIN)/python
	command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
		apt-get update -q && apt-get install -y --no-install-recommends chromium chromium-driver; }
	$(BIN)/pip install --quiet --editable '.[dev,browser]'
	touch $@ $(VENV)/.dev $(VENV)/.study
