# Every target sets up what it needs by itself: the virtual environment in .venv comes from
# pyproject.toml and constraints.txt and is renewed only when one of them changes.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test check bench families openapi constraints clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(READY) ## Create .venv with the pinned development environment

# PyTorch goes first and pinned, so that no other package chooses its version or its build.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; use make PYTHON=python3.x")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the development environment into .venv (some minutes the first time)"
	$(PIP) torch hatchling editables
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

demo: $(READY) ## Export all-MiniLM-L6-v2, serve it, embed with the openai and cohere clients
	$(BIN)/python -m embed_server.demo $(ARGS)

test: $(READY) ## Run the tests; ARGS='-k batching' passes options to pytest
	$(BIN)/python -m pytest $(ARGS)

check: $(READY) ## Check format, lint, types (mypy, pyright) and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: $(READY) ## Compare speed with other systems; stores benchmarks/results/*.json
	$(BIN)/python -m benchmarks run $(ARGS)

families: $(READY) ## Write export/FAMILIES.md from the recipes
	$(BIN)/python -m embed_export.families > export/FAMILIES.md

openapi: $(READY) ## Write server/openapi.json from the endpoints
	$(BIN)/python -m embed_server.openapi > server/openapi.json

constraints: $(READY) ## Pin what .venv holds now (run it where PyTorch is a CPU build)
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed -E 's/\+cpu$$//' > constraints.txt
	@touch $(READY)

clean: ## Remove .venv and all caches; built bundles in engines/ stay
	rm -rf .venv .cache .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache dist
