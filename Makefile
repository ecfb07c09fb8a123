# GLINT-RU: `make demo` trains and recommends, `make test` runs all tests. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
# Extra arguments for pip, such as PIP_ARGS="--find-links ~/wheels".
PIP_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help install demo test attack docs lint types format house clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Make the virtual environment with the package and its tools

# torch first: where pip knows a CPU build, that one is taken before anything else asks for torch.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed: make PYTHON=python3.11" if sys.version_info < (3, 10) else 0)'
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## Train on MovieLens-100K, evaluate, recommend for three people, save
	$(BIN)/glintru train --recipe ml-100k --output_dir outputs/ml-100k --overwrite

# One thread a worker: two workers with two threads each are slower on two cores. A worker that is done takes over tests
# of the other, while tests of one file, which share what they train, stay together as long as possible.
test: $(STAMP)  ## Run all tests
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

attack: $(STAMP)  ## The attacks of tests/attack, with many more tries
	GLINTRU_ATTACK_TRIES=3000 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/attack

docs: $(STAMP)  ## Build the API reference into docs/_build, without warnings
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet docs docs/_build

lint: $(STAMP)  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## Check types
	$(BIN)/mypy

format: $(STAMP)  ## Fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

house: $(STAMP)  ## Measure how the repository is built, beside what it is to reach
	$(BIN)/python benchmarks/house.py

clean:  ## Remove caches and build leftovers (keeps the environment and outputs/)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
