# Each target builds or reuses .venv by itself. PYTHON picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PACKAGES := cache extract fuse manifests pipeline
RUN := $(BIN)/mvemo
PIP := $(BIN)/python -m pip install --disable-pip-version-check

# What to read and where to write. Names may hold blanks, quotes and anything else; a `$` as well.
MANIFEST ?=
WORK ?= work
OUT ?= out
# Empty: features.h5 in WORK.
FEATURES ?=
# paper, demo, pretrained or a TOML file. Empty: paper, or demo without MANIFEST; when fusing, the
# one that the features were made with.
PROFILE ?=
# How many, or a file of folds. Empty: six when extracting, the features' own when fusing.
FOLDS ?=
# More options for the two commands, as the shell reads them: make extract ARGS='--protocol frozen'
ARGS ?=
FUSE_ARGS ?=

# A text as one word for the shell. `value` keeps make from expanding a `$` in a name.
quoted = '$(subst ','\'',$(1))'
features := $(call quoted,$(or $(value FEATURES),$(value WORK)/features.h5))
folds := $(if $(value FOLDS),--folds $(call quoted,$(value FOLDS)))
profile := $(if $(value PROFILE),--profile $(call quoted,$(value PROFILE)))
# The demo's nets are so small that two processes of one thread are faster than one of two.
jobs := $(if $(value MANIFEST)$(value PROFILE)$(value ARGS),,--jobs 2)
manifest := $(if $(value MANIFEST),-- $(call quoted,$(value MANIFEST)))
work := $(call quoted,$(value WORK))
out := $(call quoted,$(value OUT))

unexport MANIFEST WORK OUT FEATURES FOLDS PROFILE
.PHONY: extract fuse test soak goldens mutation changes lint types settings docs bench calibration install dev wheel clean

# Clips that fail are listed and do not stop `make extract fuse`; ARGS=--strict lets them.
extract: $(VENV)/.extract
	$(RUN) extract --work $(work) --out $(features) $(folds) $(profile) $(jobs) $(ARGS) $(manifest)

# `make extract fuse` hands ARGS to extract alone: give FUSE_ARGS here.
fuse: $(VENV)/.base
	$(RUN) fuse $(folds) --out $(out) $(profile) $(FUSE_ARGS) -- $(features)

# A file's tests run in one worker, which makes its media and nets once.
# Modules are kept compiled even where the environment forbids it: a hundred processes import them.
# A worker that crashes ends the run, and its test is named: xdist 3.8 would start another and,
# with files dealt out whole, wait for ever.
test: $(VENV)/.dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile \
	  --no-loadscope-reorder --max-worker-restart 0

# An hour and a half of attacks; SOAK='--only media' for a part of them.
SOAK ?=
soak: $(VENV)/.dev
	$(BIN)/python tests/soak $(SOAK)

# What must not change, recorded again; look at the diff of tests/goldens/expected.
goldens: $(VENV)/.dev
	$(BIN)/python tests/goldens record tests/goldens/expected --portable

# Coverage and the share of 300 planted faults that the tests catch: an hour and more.
mutation: $(VENV)/.dev
	$(BIN)/python tests/mutation cover
	$(BIN)/python tests/mutation mutate

# The fragments of changes/ as a section of the changelog.
changes: $(BIN)/python
	$(BIN)/python changes/collect.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev build/types/mvemo/__init__.py
	$(BIN)/mypy

# docs/settings.md and settings-nets.md, from the declarations of the settings.
settings: $(VENV)/.dev
	$(BIN)/python docs/make_settings.py

# The site of docs/, with search and the reference of the Python API, in build/site.
docs: $(VENV)/.docs build/types/mvemo/__init__.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

# One table, at small sizes; BENCH='--full' for full ones, BENCH='cache heads' for some.
BENCH ?=
bench: $(VENV)/.dev
	$(BIN)/python bench $(BENCH)

# Simulations of every figure that mvemo states, about ten minutes: docs/calibration.md.
CALIBRATION ?=
calibration: $(VENV)/.dev
	$(BIN)/python bench/calibration $(CALIBRATION)

install: $(VENV)/.extract
	@echo
	@echo "installed in $(VENV): . $(BIN)/activate, then mvemo doctor"

# With the tools that tests need.
dev: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -m venv '$(VENV)'

# A larger install serves the smaller ones: the base stamp is laid by each of them.
$(VENV)/.base: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.extract: setup.cfg pyproject.toml | $(BIN)/python
	@echo "both stages into $(VENV): torch and its like are some 1 GB to download, once"
	$(PIP) -e '.[extract]'
	@touch $@ $(VENV)/.base

$(VENV)/.dev: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) -e '.[extract,dev]'
	@touch $@ $(VENV)/.extract $(VENV)/.base

$(VENV)/.docs: setup.cfg | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.base

# mypy and pyright do not follow setuptools' import hook; these links stand in.
build/types/mvemo/__init__.py:
	mkdir -p $(@D)
	for p in $(PACKAGES) __init__.py py.typed; do ln -sfn ../../../$$p $(@D)/$$p; done

wheel: $(VENV)/.dev clean
	$(BIN)/python -m build

clean:
	rm -rf build dist *.egg-info
