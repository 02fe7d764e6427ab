# Everything a user or a developer does, one target each.  `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
export PICKAXE_DEMO_OUTPUT ?= demo-output

.DEFAULT_GOAL := help
.PHONY: help env models demo test clients browser lint types proto proto-check bench docs clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

env: .venv/.installed ## The virtual environment in .venv: every extra but gpu, and the development tools

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[all]" --group dev
	@touch $@

models: env ## Pull the default models (once; checked by sha256)
	@$(BIN)/pickaxe models pull lm encoder

demo: models ## The main job on real input, through a server on loopback; writes demo-output/report.html
	$(BIN)/python -m demo --output $(PICKAXE_DEMO_OUTPUT)

test: models ## All tests, parallel over the cores
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --quiet

clients: models ## The Node client against a real server
	tests/clients/node/run $(BIN)

browser: env ## Reports in headless Chromium: errors, requests, content, accessibility
	tests/browser/run $(BIN)

lint: env ## ruff and buf lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/buf lint

types: env ## mypy
	$(BIN)/mypy

proto: env ## Regenerate the stubs from protos/
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=core --pyi_out=core --grpc_python_out=core protos/pickaxe/v1/*.proto

proto-check: env ## The committed stubs equal freshly generated ones; the API breaks no older client
	@.ci/proto-check $(BIN)

bench: models ## Benchmarks against peers: JSON lines and a table in bench-output/
	$(BIN)/python -m benchmarks --output bench-output

docs: env ## Write the reference part of docs/ (hooks, methods, flags) from the code and check the links
	$(BIN)/python -m pytest --quiet tests/test_docs.py

clean: ## Remove what the targets made
	rm -rf .venv demo-output bench-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
