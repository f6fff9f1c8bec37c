# OmenDB: every command of the project. `make` alone prints them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON := $(BIN)/python
STAMP  := $(VENV)/.setup-stamp

# Two workers suit a small machine, and more of them would only measure each other's load.
WORKERS ?= 2
# For one file, one test, more output: make test PYTEST_ARGS="tests/unit/engine -x"
PYTEST_ARGS ?=
# Which benchmark, and its options: make bench BENCH="compare --help"
BENCH ?= compare
# The row of the reliability table: make reliability ROW=R3
ROW ?= all

# Trust what the machine trusts: behind a company's proxy uv's own list of certificates is not enough.
export UV_SYSTEM_CERTS ?= 1
export UV_NATIVE_TLS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: help setup demo test check proto bench docs reliability chaos clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with everything that the other commands need

# uv may be missing, or a launcher that stands on the path and does not run: either way a private copy serves.
$(STAMP): pyproject.toml
	@started=$$SECONDS; \
	if uv --version >/dev/null 2>&1; then uv=uv; else \
		test -x .uv/bin/uv || { python3 -m venv .uv && .uv/bin/python -m pip install --quiet --no-input "uv>=0.5,<1"; }; \
		uv=.uv/bin/uv; \
	fi; \
	test -x $(PYTHON) || $$uv venv --quiet --python ">=3.11" $(VENV); \
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $$uv pip install --quiet --editable '.[server]' --group dev --group bench; \
	touch $@; \
	echo "ready in $$((SECONDS - started)) s: $$($(PYTHON) --version) in $(VENV)"

demo: $(STAMP) ## A fleet of 3 + 2 + 3 processes: real data in, search, kill -9 one of each kind meanwhile
	@$(BIN)/omendb demo

test: static ## Everything that must hold: the checks, then every test
	$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

check: static ## Lint, format, types, layering, house rules
	$(PYTHON) -m pytest tests/tidy

.PHONY: static
static: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

proto: $(STAMP) ## Generate the Python code of the wire contract from its .proto files
	$(PYTHON) proto/generate.py

bench: $(STAMP) ## Measure: BENCH="compare" beside the peers, ingest, search, filters or footprint
	$(PYTHON) -m benchmarks $(BENCH)

docs: $(STAMP) ## Follow every link and run every snippet of the documents
	$(PYTHON) -m pytest tests/docs

reliability: $(STAMP) ## One row of the reliability table, ROW=R1 …, or all of them
	$(PYTHON) -m omendb_chaos $(ROW)

chaos: $(STAMP) ## The faults at full length: every row of the reliability table
	$(PYTHON) -m omendb_chaos all --budget full

clean: ## Remove what the commands made (not .venv)
	rm -rf build dist data-cache demo.db .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './.uv/*' -prune -exec rm -rf {} +
