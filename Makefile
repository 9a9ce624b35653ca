# What the recipes below take from the command line or the environment:
#   PYTHON  makes the virtual environment; 3.10 or newer
#   TORCH   the torch that is installed, before anything that could ask for another
#   ARGS    further arguments for the demo, pytest or the bench
# SNN_KERNELS_CUDA and SNN_KERNELS_CUDA_ARCHS reach the build: see README.md.
PYTHON ?= python3
TORCH ?= torch==2.13.0
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALLED := $(VENV)/installed
CHOICES := $(VENV)/choices
LINTERS := $(VENV)/linters
SOURCES := pyproject.toml setup.py CMakeLists.txt $(shell find csrc -type f)
CXX_FILES = $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: help setup demo test bench lint format clean FORCE
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED)  ## make .venv and install the package into it, built from this checkout

demo: $(INSTALLED)  ## train small networks, turn them into spiking ones, write demo-report/
	$(BIN)/snn-convert demo $(ARGS)

test: $(INSTALLED)  ## the whole test suite, a process for each processor
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(INSTALLED)  ## the quick measurements, minutes; ARGS=--full for all; into bench/results/
	$(BIN)/python -m bench $(ARGS)

lint: $(LINTERS)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: $(LINTERS)  ## put formatting right
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

clean:  ## remove .venv, builds and caches; demo-report/ stays
	rm -rf $(VENV) build dist *.egg-info python/*.egg-info snn_kernels/_C.*.so .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "snn-kernels needs Python 3.10 or newer; $(PYTHON) is not: name one, as in make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install "pip>=25.1"

# Rewritten only when a choice changes, which installs again.
$(CHOICES): FORCE | $(BIN)/pip
	@echo '$(TORCH) cuda=$(SNN_KERNELS_CUDA) archs=$(SNN_KERNELS_CUDA_ARCHS)' > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

# Without build isolation the tools keep their paths, so that a change recompiles only what it touches.
$(INSTALLED): $(SOURCES) $(CHOICES) | $(BIN)/pip
	$(PIP) install "$(TORCH)"
	$(PIP) install --group build
	PYTHONWARNINGS="ignore:Editable installation" \
		PATH="$(CURDIR)/$(BIN):$$PATH" SNN_KERNELS_BUILD_DIR="$(CURDIR)/$(VENV)/build" SNN_KERNELS_STRICT=1 \
		$(PIP) install --no-build-isolation -e ".[test]"
	$(PIP) install --no-deps --group spikingjelly
	@touch $@

$(LINTERS): pyproject.toml | $(BIN)/pip
	$(PIP) install --group lint
	@touch $@

FORCE:
