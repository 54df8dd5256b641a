# The two commands of the README: `make book` and `make test`. `make help` lists the rest.
# The loops, from short to long: `make check`, `make test`, `make test-all`.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SITE := _build/html

# The models are small: more threads cost more in waiting than they win, and two
# notebooks run side by side.
export OMP_NUM_THREADS ?= 1

# Which draw of another processor `make perturbed` plays, and which sample of faults
# `make mutants` takes, of how many; with KEPT=FOLDER a run that was stopped goes on.
DRAW ?= 1
SAMPLE ?= 150

# What the hand-outs on the site are made from.
HANDOUTS := book/assignments/handouts
CLASS_FILES := $(shell find assignments metarec -type f -not -path '*/__pycache__/*' \
  -not -path 'assignments/*/*/metarec/*' -not -path 'assignments/*/*/classroom/*' \
  \( -path 'metarec/*.py' -o -path 'assignments/*.py' -o -path 'assignments/source/*' \))

.PHONY: help env data handouts book book-sphinx check test test-all perturbed mutants lint \
  format clean clean-all

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

env: $(STAMP) ## set up .venv with the pinned requirements and the package

$(STAMP): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "No '$(PYTHON)' found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3 book"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "'$(PYTHON)' does not run, or is older than Python 3.11, which metarec needs."; \
	  echo "Install one and name it, for example: make PYTHON=python3.12 book"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make a virtual environment: its venv module is missing."; \
	  echo "On Debian or Ubuntu: sudo apt-get install python3-venv. Then run this again."; exit 1; }
	@test -x $(BIN)/pip || { echo "== Making the environment $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "== Installing requirements.txt into $(VENV) (the first time this takes some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

data: $(STAMP) ## fetch MovieLens-100K into the user's cache, unless it is there
	@echo "== Looking for MovieLens-100K"
	@$(BIN)/python -m metarec.data ml-100k --quiet

handouts: $(HANDOUTS)/.made ## make what the class gets, as zip files

$(HANDOUTS)/.made: $(STAMP) pyproject.toml $(CLASS_FILES)
	@echo "== Making the hand-outs for the class"
	@mkdir -p $(HANDOUTS) && rm -rf $(HANDOUTS)/*.zip _build/class
	@$(BIN)/python -m assignments --course _build/class handout
	@cp _build/class/release/*.zip $(HANDOUTS)
	@touch $@

book: data handouts ## run the chapters and build the site in _build/html
	@echo "== Building the book (chapters that have not changed come from the cache)"
	@rm -rf $(SITE)
	@$(BIN)/jupyter-book build . --all -W --keep-going -n
	@echo "== The book is ready: open $(SITE)/index.html"

# The way out of jupyter-book 1, which holds Sphinx back: the same sources, built by the
# newest Sphinx from the configuration that jupyter-book writes. The newer tools lie in a
# folder of their own and go before the environment's. Nothing is run: the committed
# outputs are shown.
SPHINX := .venv-sphinx
# What belongs to jupyter-book alone.
ITS_OWN := jupyter_book sphinx_thebe sphinx_comments sphinx_jupyterbook_latex \
  sphinx_multitoc_numbering

$(SPHINX)/.installed: book/_tools/requirements-sphinx.txt $(STAMP)
	@echo "== Installing $< into $(SPHINX) (pip notes that jupyter-book wants older ones)"
	@rm -rf $(SPHINX)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(SPHINX) -r $<
	@touch $@

book-sphinx: data handouts $(SPHINX)/.installed ## build the site with the newest Sphinx, without running the chapters
	@$(BIN)/jupyter-book config sphinx . >/dev/null
	@echo 'extensions = [name for name in extensions if name not in "$(ITS_OWN)".split()]' >> conf.py
	@PYTHONPATH=$(SPHINX):book/_ext $(BIN)/python -m sphinx --version
	@PYTHONPATH=$(SPHINX):book/_ext $(BIN)/python -m sphinx -b html -aEnW --keep-going -D nb_execution_mode=off -d _build/sphinx/doctrees . _build/sphinx/html
	@rm conf.py

# Two processes, each with whole files: the cells of a chapter stay together.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

check: lint ## style, types and the fast tests: before every commit
	@echo "== Running the fast tests"
	@$(PYTEST) -q tests -m "not (slow or site or classroom or benchmark)"

test: data ## every test of the package and every chapter cell by cell, without a book
	@echo "== Running the tests and the chapters"
	@$(PYTEST) tests book --nbval -m "not (site or classroom or benchmark)"

test-all: lint book ## style, types, the book, then all tests: site, class and benchmarks as well
	@$(MAKE) --no-print-directory perturbed || failed=1; \
	  echo "== Running all tests and the chapters"; \
	  $(PYTEST) tests book --nbval && test -z "$$failed"

perturbed: data ## run the chapters as on a processor that rounds otherwise (DRAW=1)
	@echo "== Running the chapters with disturbed products of matrices, draw $(DRAW)"
	@METAREC_DISTURB=$(DRAW) $(PYTEST) -q book --nbval

mutants: $(STAMP) ## put SAMPLE faults into the package, one at a time: do the tests see them?
	@$(BIN)/python tests/mutants.py --sample $(SAMPLE) --seed $(DRAW) \
	  $(if $(KEPT),--folder $(KEPT))

lint: $(STAMP) ## check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(STAMP) ## put the code into the house style
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean: ## remove the site and every cache of the build
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache

clean-all: clean ## remove the environment as well
	rm -rf $(VENV) $(SPHINX) *.egg-info
