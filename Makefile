# Each target builds or reuses .venv by itself. PYTHON picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := cache extract fuse manifests pipeline
RUN := $(BIN)/mvemo
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# What to read and where to write.
MANIFEST ?=
WORK ?= work
OUT ?= out
FEATURES ?= $(WORK)/features.h5
# Empty: six when extracting, the features' own when fusing.
FOLDS ?=
# More options for the two commands: make extract ARGS='--protocol frozen'
ARGS ?=

.PHONY: extract fuse test lint types bench install wheel clean

extract: $(VENV)/.extract
	$(RUN) extract $(if $(MANIFEST),'$(MANIFEST)') --work '$(WORK)' --out '$(FEATURES)' $(if $(FOLDS),--folds $(FOLDS)) $(ARGS)

# `make extract fuse` hands ARGS to both only where both take them: give FUSE_ARGS here.
fuse: $(VENV)/.base
	$(RUN) fuse '$(FEATURES)' $(if $(FOLDS),--folds $(FOLDS)) --out '$(OUT)' $(FUSE_ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev build/types/mvemo
	$(BIN)/mypy

bench: $(VENV)/.dev
	for b in bench/bench_*.py; do $(BIN)/python $$b || exit 1; done

install: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -m venv '$(VENV)'

# A larger install serves the smaller ones: the base stamp is laid by each of them.
$(VENV)/.base: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.extract: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) -e '.[extract]'
	@touch $@ $(VENV)/.base

$(VENV)/.dev: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) -e '.[extract,dev]'
	@touch $@ $(VENV)/.extract $(VENV)/.base

# mypy and pyright do not follow setuptools' import hook; these links stand in.
build/types/mvemo:
	mkdir -p $@
	for p in $(PACKAGES); do ln -sfn ../../../$$p $@/$$p; done

wheel: $(VENV)/.dev clean
	$(BIN)/python -m build

clean:
	rm -rf build dist *.egg-info
