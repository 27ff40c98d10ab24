# meshlib: a fresh clone needs only Python (3.11 or newer) and make.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# Most tests wait for servers more than they compute; more workers than this would make each other's clocks run late.
TEST_WORKERS ?= $(shell n=$$(( $$(getconf _NPROCESSORS_ONLN) / 2 )); echo $$(( n > 2 ? n : 2 )))
BENCH_ARGS ?=

# The newest Python the project is tested on; PYTHON=... chooses another.
SUPPORTED := python3.13 python3.12 python3.11 python3 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(SUPPORTED); do if $$p -c '$(NEW_ENOUGH)' 2>/dev/null; then echo $$p; break; fi; done)

# Each stamp is one set of installed requirements; it is renewed only when pyproject.toml changes, so that a second run
# needs no network.
DEMO_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev
BENCH_STAMP := $(VENV)/.installed-bench
DOCS_STAMP := $(VENV)/.installed-docs
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# xds-protos brings old copies of opentelemetry-proto's files; whichever pip installs last wins (docs/telemetry.md).
RESTORE_OTLP = $(INSTALL) --force-reinstall --no-deps "$$($(BIN)/python -m pip freeze | grep '^opentelemetry-proto==')"

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(DEV_STAMP) ## the environment for development, in .venv

.PHONY: demo
demo: $(DEMO_STAMP) ## a control plane, four services on mTLS, a client under load: the canary story, live
	@$(BIN)/python -m examples.demo

.PHONY: demo-consul
demo-consul: $(DEMO_STAMP) ## the canary story on a real Consul (make servers builds one)
	@$(BIN)/python -m examples.demo_consul

.PHONY: test
test: $(DEV_STAMP) ## tests whose parts are on this machine; ends with what was not tested
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

.PHONY: soak
soak: $(DEV_STAMP) ## the tests that are long by nature, which make test leaves out
	@$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

.PHONY: bench
bench: $(BENCH_STAMP) ## ratios against bare clients and sidecars, a table and plots
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

.PHONY: lint
lint: $(DEV_STAMP) ## ruff and mypy --strict
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

.PHONY: fmt
fmt: $(DEV_STAMP) ## format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: check
check: lint test ## lint, then test

.PHONY: docs
docs: $(DOCS_STAMP) ## the documentation site, in site/
	@$(BIN)/mkdocs build --strict

.PHONY: servers
servers: ## build the Go servers some tests use, into a cache outside the tree (needs go)
	@tests/servers/build

.PHONY: clean
clean: ## remove the environment, caches and what builds made
	@rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
	  echo "meshlib needs Python 3.11 or newer; none of: $(SUPPORTED) is one." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; fi
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --upgrade 'pip>=25.1'  # 25.1 is the first that installs dependency groups

# The tests' environment holds all of the demo's: where it is up to date there is nothing to fetch.
$(DEMO_STAMP): pyproject.toml | $(BIN)/python
	@if ! [ $(DEV_STAMP) -nt pyproject.toml ]; then \
	  echo "Installing what the demo needs"; \
	  $(INSTALL) --editable '.[xds,file,httpx,grpc,consul,tls,limits,fastapi,cli]' --group demo; fi
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing what the tests need"
	@$(INSTALL) --editable '.[all]' --group dev
	@$(RESTORE_OTLP)
	@touch $@

$(BENCH_STAMP): pyproject.toml $(DEV_STAMP) | $(BIN)/python
	@echo "Installing what the benchmarks compare with"
	@$(INSTALL) --group bench
	@touch $@

$(DOCS_STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing what the documentation is built with"
	@$(INSTALL) --group docs
	@touch $@
