# make quickstart   environment, then the whole way on handwritten digits
# make test         environment, then the whole test suite
# make test-fast    a minute of it: what neither trains, nor starts processes, nor needs data or devices
# make coverage     the whole test suite once more, slower, and which lines it runs
# make test-gpu     the tests that need a CUDA device (where there is none they are skipped, and it says so)
# make test-runtimes  exported files in the runtimes that people have (each in an environment below build/; about half an hour)
# make test-browser   the tests of the page that snugnet serve has; they need Chromium: apt-get install chromium (without it they are skipped, and it says so)
# make page         the page anew from page/, into src/snugnet/serve/page; needs node 20 and npm, which nobody else needs
# make lint         ruff and mypy
# make notebooks    the notebooks in examples/, made of the scripts and executed on runs/digits
# make release-check  wheel and sdist, built, installed in fresh environments and tried (below build/ and dist/)
# make container-check  the steps of the Containerfile where nothing is installed but Python, and a family served from there (Linux, root)
# make docs         the site, in build/site; a broken link or a docstring that cannot be read is an error
# make clean        throw the environment and caches away (runs/ stays)
#
# make VENV=/elsewhere PYTHON=python3.12 ... for another place or interpreter.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2

BIN := $(VENV)/bin
USER_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DELETE_ON_ERROR:
.PHONY: help quickstart test test-fast test-gpu test-runtimes test-browser coverage page lint docs notebooks release-check container-check clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

quickstart: $(USER_STAMP)
	$(BIN)/snugnet quickstart

# Each worker has one torch thread: two workers with two threads each get in one another's way. A file's tests stay together, so that
# what several of them share is made once.
test: $(DEV_STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-fast: $(DEV_STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m 'not slow and not shared and not gpu and not browser and not runtimes' tests

coverage: $(DEV_STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --cov=snugnet --cov-report=term

test-gpu: $(DEV_STAMP)
	$(BIN)/python -m pytest -m gpu -rs tests

test-runtimes: $(DEV_STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m runtimes -s tests/benchmarks

test-browser: $(DEV_STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser -rs tests/browser

page:
	cd page && npm install && npm run build  # not npm ci: it refuses the lock for an optional package of vite that is for Windows alone

lint: $(DEV_STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

notebooks: $(DEV_STAMP)
	$(BIN)/python -m pip install -c constraints.txt jupytext nbclient ipykernel
	$(BIN)/python tools/notebooks.py

release-check: | $(BIN)/python
	$(BIN)/python tools/release_check.py

container-check: | $(BIN)/python
	$(BIN)/python tools/container_check.py

docs: $(DEV_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest tests/test_docs.py

clean:
	rm -rf $(VENV) build dist page/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis src/snugnet.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(USER_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[all]'
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $(USER_STAMP) $@
