# `make demo` and `make test` do everything on a fresh machine: make the environment once, then run.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test slow check clean
.DELETE_ON_ERROR:

demo: $(READY)  ## see the whole cycle on two cores in a few minutes
	$(BIN)/python scripts/demo.py

test: $(READY)  ## the default test suite
	$(BIN)/python -m pytest -q

slow: $(READY)  ## the tests that take longer
	$(BIN)/python -m pytest -q -m slow

check: $(READY)  ## formatting, lint, types
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy

# torch first and alone: a CPU build where the machine has one, instead of what the other packages would pull in.
$(READY): pyproject.toml
	@echo "installing into $(VENV) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]' 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/python -c "import torch, transformers, peft, hnswlib, gymnasium, textworld, alfworld, msgpack, pytest"
	@touch $(READY)

clean:
	rm -rf $(VENV) runs
