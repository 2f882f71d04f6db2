# One command each: `make probe` runs the main job, `make test` the tests, `make check` the gate.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
# four files of tests at a time on two cores, since many tests wait for something to hang, and
# the long files first; PYTEST= runs one after the other
PYTEST ?= -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: help probe test check docs format clean

help:
	@echo "make probe   install into $(VENV) and find the best configuration (about 2 minutes)"
	@echo "make test    install into $(VENV) and run the tests"
	@echo "make check   format, lint, types, import layers, tests: what CI runs"
	@echo "make docs    build the pages of docs/ into site/; a dead link is an error"
	@echo "make format  rewrite the sources in the house style"
	@echo "make clean   remove the virtual environment and the caches"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

probe: $(INSTALLED)
	$(BIN)/ctrkit probe

test: $(INSTALLED)
	$(BIN)/python -m pytest $(PYTEST)

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(PYTEST)

docs: $(INSTALLED)
	$(BIN)/python docs/make_schemas.py
	$(BIN)/python -m mkdocs build --quiet --strict

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist site
