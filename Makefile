# Every target makes what it needs in $(VENV); stamp files keep later runs fast.
VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
JOBS ?= 2
LONG ?=
BENCH ?= $(filter-out $(addprefix benchmarks/,check.py ledger.py tables.py), \
	$(sort $(wildcard benchmarks/[a-z]*.py)))

BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS)

.PHONY: help quickstart test test-slow test-min lint docs linkcheck bench ledger check

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

quickstart: $(VENV)/.stamp-examples  ## learn from some digits, adapt to unseen ones
	$(BIN)/python examples/quickstart.py

test: $(VENV)/.stamp-test  ## tests and doctests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-slow: $(VENV)/.stamp-test  ## the tests marked slow
	$(BIN)/python -m pytest -m slow

test-min:  ## tests at the oldest versions that pyproject.toml allows
	$(MAKE) test VENV=.venv-min PYTHON=python3.11 CONSTRAINTS=constraints-min.txt

lint: $(VENV)/.stamp-dev  ## ruff, codespell, mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/mypy

docs: $(VENV)/.stamp-docs  ## the site, in docs/_build/html
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

linkcheck: $(VENV)/.stamp-docs  ## links to other sites; needs the network
	$(BIN)/sphinx-build --quiet -b linkcheck -D plot_gallery=0 docs docs/_build/linkcheck

bench: $(VENV)/.stamp-bench  ## benchmarks; one of them: make bench BENCH=path
	set -e; for script in $(BENCH); do $(BIN)/python $$script; done

ledger: $(VENV)/.stamp-bench  ## all measurements and their tables; LONG=1 for those of hours
	$(BIN)/python benchmarks/ledger.py $(if $(LONG),--long)

check: $(VENV)/.stamp-test  ## a minute's worth of the ledger against stored intervals
	$(BIN)/python benchmarks/check.py

# Torch goes first and alone, so that pip takes exactly the pinned build.
$(VENV)/.stamp-torch: $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	touch $@

$(VENV)/.stamp-%: $(VENV)/.stamp-torch pyproject.toml
	$(INSTALL) --editable ".[$*]"
	touch $@
