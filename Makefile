# Needs make, Python 3.11 or later and pip's package index; everything else is installed into .venv.
#
#   make run      the demo practices on http://127.0.0.1:8000   (PORT=9000, RESET=1)
#   make test     the whole test suite                          (ARGS="-k token")
#   make lint     what a commit must pass; `make fix` repairs what can be repaired
#   make bench    the server beside a bare one, into bench/RESULTS.md
#   make docs     the documentation, into build/docs; `make conformance` is its table of requirements
#   make lock     newer versions of everything, into requirements/

VENV   ?= .venv
PORT   ?= 8000
PYTHON ?=
ARGS   ?=

BIN := $(VENV)/bin

.DEFAULT_GOAL := install
.PHONY: install run test lint fix bench docs conformance lock clean
.DELETE_ON_ERROR:
# pytest keeps the test modules as it rewrote them, or it takes longer to read them than most run
unexport PYTHONDONTWRITEBYTECODE

install: $(VENV)/.run
	@sed -n 's/^#   make/make/p' Makefile

run: $(VENV)/.run
	@$(BIN)/fhir-portal demo --port $(PORT) $(if $(filter-out 0 no false,$(RESET)),--reset)

test: $(VENV)/.test
	@$(BIN)/pytest -n auto -m "not browser and not mongo" $(ARGS)

lint: $(VENV)/.lint
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/codespell

fix: $(VENV)/.lint
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/codespell --write-changes

bench: $(VENV)/.run
	@$(BIN)/python bench/run.py $(ARGS)

docs: $(VENV)/.docs conformance
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

conformance: $(VENV)/.test
	@$(BIN)/python docs/conformance.py $(ARGS)

# --- installing -------------------------------------------------------------------------------
# One stamp per locked set: what is installed already is not asked for again.

# Debian's Python comes without ensurepip unless python3-venv is there; its pip can fill an empty environment.
$(BIN)/python:
	@set -e; for python in $(or $(PYTHON),python3 python3.11 python3.12 python3.13 python3.14) none; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	done; \
	if [ "$$python" = none ]; then echo "fhir-portal needs Python 3.11 or later: make PYTHON=/path/to/python3"; exit 1; fi; \
	if "$$python" -c 'import ensurepip' 2>/dev/null; then "$$python" -m venv $(VENV); \
	else "$$python" -m venv --without-pip $(VENV); "$$python" -m pip --python $@ install --quiet pip; fi

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

$(VENV)/.run: requirements/run.txt requirements/build.txt pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@$(INSTALL) -r requirements/build.txt -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q fhir_portal
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.run
	@$(INSTALL) -r $<
	@touch $@

$(VENV)/.lint: requirements/lint.txt $(VENV)/.test
	@$(INSTALL) -r $<
	@touch $@

$(VENV)/.docs: requirements/docs.txt $(VENV)/.run
	@$(INSTALL) -r $<
	@touch $@

# Each set is compiled against the one before, so that all of them fit one environment.
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: $(VENV)/.lint
	@$(COMPILE) --group build --output-file requirements/build.txt
	@$(COMPILE) pyproject.toml --constraints requirements/build.txt --output-file requirements/run.txt
	@$(COMPILE) pyproject.toml --group test --constraints requirements/run.txt --output-file requirements/test.txt
	@$(COMPILE) pyproject.toml --group test --group lint --constraints requirements/test.txt --output-file requirements/lint.txt
	@$(COMPILE) pyproject.toml --group docs --constraints requirements/lint.txt --output-file requirements/docs.txt

clean:
	@rm -rf $(VENV) build dist
