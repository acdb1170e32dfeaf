# make run     start the server (Ctrl-C ends it)
# make test    everything that must hold: style, types, import contracts, and the whole suite with real clients
# make lint    the first part of it
# make clients the client tests with every version of every client, and what they fetch from public registries
# make bench   measure against other registries       make torture   kill -9 under load, the long form
# make clean   remove what these made (never the data folder)

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Three for two cores: tests wait a good part of their time for servers and disks. A file stays with one process, or what
# its tests share would be made once for each; tests/conftest.py puts the long files first.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=15
# `make test TESTS=tests/unit` runs a part.
TESTS ?= tests
# Tests start hundreds of processes: each would compile all modules anew where the environment forbids to keep the result.
test clients bench torture: export PYTHONDONTWRITEBYTECODE =

.DEFAULT_GOAL := run
.PHONY: run test lint clients bench torture clean environment environment-dev tools tools-bench

run: environment
	@exec $(BIN)/python -m repoman.server

test: lint tools
	@$(PYTEST) $(TESTS)

lint: environment-dev
	@echo "lint: ruff, mypy, import contracts"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

clients: environment-dev tools
	@REPOMAN_EVERY_CLIENT=1 $(PYTEST) tests/client

bench: environment-dev tools-bench
	@exec $(BIN)/python -m tests.bench

torture: environment-dev tools
	@exec $(BIN)/python -m tests.torture

tools: environment-dev
	@$(BIN)/python tests/tools/provision.py

tools-bench: environment-dev
	@$(BIN)/python tests/tools/provision.py --bench

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is up to date when it holds a copy of the lock file that it was made from: time stamps of a fresh clone
# say nothing. The development lock contains the other one.

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	  { echo "error: $(PYTHON) is not installed (Debian: apt install python3.11), or name another: make PYTHON=…"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: Python's venv module is missing (Debian: apt install python3-venv)"; exit 1; }
	@echo "environment: making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

environment: | $(BIN)/python
	@cmp -s requirements.lock $(VENV)/requirements.lock || $(MAKE) --no-print-directory install LOCK=requirements.lock

environment-dev: | $(BIN)/python
	@cmp -s requirements-dev.lock $(VENV)/requirements-dev.lock || \
	  $(MAKE) --no-print-directory install LOCK=requirements-dev.lock
	@cp requirements.lock $(VENV)/requirements.lock

.PHONY: install
install:
	@echo "environment: installing $(LOCK)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r $(LOCK) || \
	  { echo "error: the packages of $(LOCK) could not be installed; the lines above say why"; exit 1; }
	@cp $(LOCK) $(VENV)/$(LOCK)
