# The only needs are make and Python 3.11 or later: `make demo PYTHON=python3.12` chooses another one.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install test test-machines test-modules soak lint demo clean

help:
	@echo "make demo      install, then watch the profiles of a simulated shop form and change"
	@echo "make install   into .venv: Afterglow, what it needs, and Apache Kafka's jars"
	@echo "make test      install, then run every test"
	@echo "make soak      install, then run 100 histories full of faults (an hour on 2 cores)"
	@echo "make lint      install, then check style and types"
	@echo "make clean     remove .venv and what tools leave; .afterglow, your data, stays"

install: .venv/installed

# Everything that is ever downloaded is downloaded here. The stamp makes a second run instant.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Afterglow needs Python 3.11 or later; this is " + sys.version if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	$(BIN)/python -m deploy.kafka fetch
	@touch $@

# Two halves of about the same length: `make -j2 test` runs them side by side.
test: test-machines test-modules

test-machines: install
	$(BIN)/python -m pytest tests/end_to_end

test-modules: install
	$(BIN)/python -m pytest --ignore=tests/end_to_end

soak: install
	PYTHONPATH=tests $(BIN)/python -m faults.soak --seeds 0-99 --keep-going --results tests/faults/soak-results.md

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: install
	$(BIN)/afterglow demo

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
