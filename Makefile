# Two commands a new user needs: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help setup check demo test test-slow test-slurm lint bench clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: .venv/.complete  ## create .venv with the pinned dependencies

.venv/.complete: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@echo "setting up .venv: a few minutes and about 6 GB once, most of it torch"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

check: lint test test-slow demo  ## all that must hold for a change: what CI runs

demo: setup  ## run the study `demo` and render its report into out/demo
	$(BIN)/python -m ablations run demo --jobs $(JOBS)
	$(BIN)/python -m analysis table demo
	$(BIN)/python -m analysis report demo

test: setup  ## the whole fast suite
	$(BIN)/python -m pytest -n $(JOBS) -m 'not slow and not slurm'

test-slow: setup  ## parity with the published releases at 256x256
	$(BIN)/python -m pytest -n $(JOBS) -m 'slow and not slurm'

test-slurm: setup  ## studies on a real one-node Slurm (Debian packages, started and stopped by the script)
	bash scripts/test_slurm.sh

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## measure this machine; writes docs/performance/tables.md
	$(BIN)/python -m pipeline bench all

clean:  ## remove the caches of tools (runs and reports in out/ stay)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
