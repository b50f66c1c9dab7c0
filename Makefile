# Paths stay relative, so that a checkout path may hold spaces.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check clean

run: $(VENV)/.installed  ## Evaluate the shipped policy on 10 held-out episodes
	$(BIN)/python -m training.evaluate episodes=10 batch_size=1 output_dir=outputs/run

test: $(VENV)/.installed-test  ## The whole test suite
	$(BIN)/python -m pytest

check: $(VENV)/.installed-test  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.installed: setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]' --constraint constraints.txt
	touch $@

clean:  ## Remove the environment and what it built; outputs/ stays
	rm -rf $(VENV) build *.egg-info
