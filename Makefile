# `make figure1` and `make test` set everything up by themselves; all else is plain Python.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

figure1: $(VENV)/.ok  ## train Figure 1's four nets on generated images and draw it (one minute on two cores, besides setting up)
	$(RUN) -m alexnet_pl.train sweep=figure1
	$(RUN) -m alexnet_pl.report runs/figure1

# One worker per core, the longest files first.
PYTEST := $(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.ok
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

test: lint  ## what a contributor runs: lint, and the tests that take minutes; no GPU, no network
	$(PYTEST) -m "not slow and not gpu and not slurm and not browser"

test-all: lint  ## everything but what needs a GPU or Slurm: types, the slow tests, and the pages in Chromium if it is installed
	$(PYTEST) -m "not gpu and not slurm"

# uv installs the whole stack in seconds; without compiled bytecode every process would start slowly.
$(VENV)/.ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -c constraints.txt uv
	$(VENV)/bin/uv pip install -q --compile-bytecode --python $(RUN) -c constraints.txt -e '.[dev]'
	touch $@

gpu: ## on a machine with a GPU: tests, speeds and equal bits, as one table in gpu_day/table.md, in ten minutes
	PYTHON=$(RUN) bash bench/gpu_day.sh

pins: ## move every pin to the newest release that fits
	$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
		--all-extras --output-file constraints.txt pyproject.toml

clean:
	rm -rf $(VENV)

.PHONY: figure1 lint test test-all gpu pins clean
