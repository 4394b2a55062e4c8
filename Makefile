# make setup makes .venv with the project and its test tools in it; everything else does that first if it is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup run test bench soak lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is too old: Python 3.11 or newer is needed, say which with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make environments: install its venv package (python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-dev.lock
	echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rpychord.pth"
	printf '%s\n' '#!/bin/sh' 'exec "$(CURDIR)/$(BIN)/python" -m node.cli.ring "$$@"' > $(BIN)/ring
	chmod +x $(BIN)/ring
	touch $@

run: setup
	$(BIN)/python main.py

test: setup
	$(BIN)/python -m pytest -q -n 2

soak: setup
	$(BIN)/python -m pytest -q -m soak --timeout 7200
	RPYCHORD_SEED=1000-1499 $(BIN)/python -m pytest -q -n 2 tests/simulation/test_rings.py --timeout 7200

bench: setup
	$(BIN)/python -m bench

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
