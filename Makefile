# Everything starts from here; CI runs the same targets. Needs Python 3.11+ and make, nothing else.
#
#   make demo    set up .venv and explain the shipped clip
#   make test    set up .venv and run every test          make test-fast   only the quick ones
#   make check   format, lint, types                      make format      mend format and lint
#   make files   write the generated files in configs/    make image       build the container image

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The first interpreter that is new enough; `make PYTHON=/path/to/python3.12 ...` overrides the choice.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
OUT    ?= runs/demo
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-ray check format files image clean

help:
	@sed -n '3,6s/^#//p' Makefile

setup: $(STAMP)

# Reinstalled when the dependencies change; otherwise a second call costs nothing.
$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "heatreel needs Python 3.11 or newer, and none was found (python3 is: $$(python3 --version 2>&1));" >&2; \
		echo "install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"heatreel needs Python 3.11 or newer, but $(PYTHON) is {v[0]}.{v[1]}; name another: make PYTHON=/path/to/python3.12")'
	@echo "Setting up $(VENV) with $(PYTHON): a few minutes, once (PyTorch is large)"
	@rm -f $(STAMP)
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 10 --timeout 60 -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/heatreel demo --out $(OUT) --overwrite $(ARGS)

test: setup
	$(BIN)/python -X faulthandler -m pytest $(ARGS)

test-fast: setup
	$(BIN)/python -X faulthandler -m pytest -m "not ray and not slow" $(ARGS)

test-ray: setup
	$(BIN)/python -X faulthandler -m pytest -m ray $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

files: setup
	$(BIN)/python -m pipeline.config_files configs

image:
	docker build --target cpu --tag heatreel:cpu --file docker/Dockerfile .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
