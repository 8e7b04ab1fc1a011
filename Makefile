# SPDX-License-Identifier: Apache-2.0
# Every target does its own set-up. On a fresh machine: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-stack test quick fuzz check format generate benchmark stack stack-down clean

$(STAMP): pyproject.toml hatch_build.py $(wildcard exporters/native/*) instrumentation/auditspan-selfcheck.pth
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## run a real automation under audit, verify it, tamper with it
	$(BIN)/auditspan demo

generate: $(STAMP)  ## write everything that is derived from the registry
	$(BIN)/python -m auditspan.registry
	$(BIN)/python -m auditspan.kibana

benchmark: $(STAMP)  ## measure side by side, and write docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks

demo-stack: $(STAMP)  ## the same through a real Collector and a real Elasticsearch
	$(BIN)/auditspan demo --stack

test: $(STAMP) check  ## everything: format, lint, types, all tests with the real backend, several parts at once
	$(BIN)/python -m tests.parts

quick: $(STAMP) check  ## the loop while working: no processes, no backend
	$(BIN)/python -m pytest -m "not slow and not backend"

fuzz: $(STAMP)  ## hostile input through every parser for longer than the tests do: make fuzz INPUTS=20000000 SEED=7
	AUDITSPAN_FUZZ_INPUTS=$(or $(INPUTS),1000000) AUDITSPAN_FUZZ_SEED=$(or $(SEED),1) \
	$(BIN)/python -m pytest tests/seal/test_fuzz.py --timeout 0 -q -s

check: $(STAMP)  ## format, lint and strict types in one command
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

stack: $(STAMP)  ## start a Collector and an Elasticsearch for development
	$(BIN)/python -m auditspan.devstack up

stack-down: $(STAMP)
	$(BIN)/python -m auditspan.devstack down

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache
