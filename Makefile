# The two commands of the README, and what CI adds to them. Everything is installed into .venv;
# nothing outside this folder is touched.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check format clean

demo: .venv/.demo  ## plan a bundled real trace on 8 H100s
	$(BIN)/flashcp plan code --packs 200 --cp 8 --context 128k --hardware h100-sxm

test: .venv/.dev  ## the whole test suite
	$(BIN)/python -m pytest -n 2

check: .venv/.dev  ## lint, format, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flashcp needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + " (try: make PYTHON=python3.12 ...)")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.demo: .venv/.python pyproject.toml constraints.txt
	$(PIP) --editable .
	@# Compiles the hot loops once; every later command loads them from the cache.
	$(BIN)/flashcp plan long-sft --packs 1 --processes 1 > /dev/null
	$(BIN)/flashcp plan long-sft --packs 1 --processes 1 --cp 16 > /dev/null
	@touch $@

.venv/.dev: .venv/.python pyproject.toml constraints.txt
	$(PIP) --editable '.[run,dev]'
	@touch .venv/.demo $@
