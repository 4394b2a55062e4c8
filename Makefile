# make setup makes .venv with the project and its test tools in it; everything else does that first if it is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(VENV)/.bootstrap
# Compiled modules are kept, whatever the environment says: tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all:

.PHONY: setup run test bench soak fuzz lint clean

setup: $(STAMP)

# uv is quicker than pip and does not stay; where it cannot be had or finds no index, pip installs the same lock.
$(STAMP): pyproject.toml requirements.lock requirements-dev.lock
	@command -v $(PYTHON) >/dev/null || \
	  { echo "make: there is no $(PYTHON): install Python 3.11 or newer, or say which with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is too old: Python 3.11 or newer is needed, say which with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make environments: install its venv package (python3-venv)" >&2; exit 1; }
	@echo "installing the project and its test tools into $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@{ $(PIP) --target $(UV) -r requirements-setup.lock && $(UV)/bin/uv pip sync --quiet --require-hashes --no-build \
	  --python $(BIN)/python requirements-dev.lock; } >$(VENV)/bootstrap.log 2>&1 || \
	  $(PIP) -r requirements-dev.lock || \
	  { echo "make: nothing could be installed: is there a network? What uv said is in $(VENV)/bootstrap.log" >&2; exit 1; }
	@rm -rf $(UV) $(VENV)/bootstrap.log $(VENV)/.lock
	@echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/rpychord.pth"
	@printf '%s\n' '#!/bin/sh' 'exec "$(CURDIR)/$(BIN)/python" -P -c "from node.cli.door import ring; ring()" "$$@"' > $(BIN)/ring
	@chmod +x $(BIN)/ring
	@touch $@

run: setup
	$(BIN)/python main.py

test: setup
	$(BIN)/python -m pytest -q -n 5 --dist worksteal

soak: AIMED = one_at_a_time_crash or batches or parts
soak: setup
	$(BIN)/python -m pytest -q -m soak --timeout 7200
	RPYCHORD_SEED=1000-3999 $(BIN)/python -m pytest -q -n 2 tests/simulation/test_rings.py -k "pointer or invariant" --timeout 7200
	RPYCHORD_SEED=1000-1199 $(BIN)/python -m pytest -q -n 2 tests/simulation/test_rings.py --timeout 7200
	RPYCHORD_SEED=1000-2999 $(BIN)/python -m pytest -q -n 2 tests/register -k "one_register or no_lease" --timeout 7200
	RPYCHORD_SEED=1000-2999 $(BIN)/python -m pytest -q -n 2 tests/eventual/test_commons.py --timeout 36000
	RPYCHORD_SEED=1000-10999 $(BIN)/python -m pytest -q -n 2 tests/chain/test_linearizable.py -k "$(AIMED)" --timeout 36000
	RPYCHORD_SEED=1000-1299 $(BIN)/python -m pytest -q -n 2 tests/chain/test_linearizable.py -k "not ($(AIMED))" --timeout 36000
	RPYCHORD_SEED=1000-3999 $(BIN)/python -m pytest -q -n 2 tests/chain/test_watching.py --timeout 36000

# MESSAGES=N: how many to each node; SEED=N: the attack of that seed again.
fuzz: setup
	$(BIN)/python -m tests.fuzz $(if $(MESSAGES),--messages $(MESSAGES)) $(if $(SEED),--seed $(SEED))

bench: setup
	$(BIN)/python -m bench transport
	$(BIN)/python -m bench ring
	$(BIN)/python -m bench files
	$(BIN)/python -m bench rivals
	$(BIN)/python -m bench tls

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
