# Two commands for users, `make run` and `make test`; the rest is for those who work on Penstock.
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= $(or $(PENSTOCK_PORT),4020)
CONFIG ?= $(or $(PENSTOCK_CONFIG),config/routes.yaml)
CHAOS_S ?= 60
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# S64: what is installed is what was locked, and nothing is built on the way.
LOCKED := --require-hashes --only-binary :all:

.PHONY: help install run test clients soak chaos lint bench schema lock clean
help:
	@echo 'make run [PORT=4020] [CONFIG=config/routes.yaml]   serve on http://127.0.0.1:PORT'
	@echo 'make test                                          run every test, against real parts'
	@echo 'make clients                                       run the real clients, the large ones too'
	@echo 'make soak [PENSTOCK_SOAK_S=600]                     run what takes minutes: outages, chaos, 10,000 streams, endurance'
	@echo 'make chaos [SEED=1] [CHAOS_S=60]                    run faults at random, three kinds at once'
	@echo 'make lint                                          ruff, mypy --strict, the import floors'
	@echo 'make bench                                         measure beside a bare relay, print ratios'
	@echo 'make install | schema | lock | clean'

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Penstock needs Python >= 3.11, and $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 run"; exit 1; }
	@echo "making $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created requirements/run.lock pyproject.toml
	@echo "installing the locked requirements (once)"
	@$(PIP) install $(LOCKED) -r requirements/run.lock
	@$(PIP) install --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.lock
	@echo "installing the locked development requirements (once)"
	@$(PIP) install $(LOCKED) -r requirements/dev.lock
	@touch $@

install: $(VENV)/.installed

run: install
	@exec $(BIN)/penstock serve --port $(PORT) --config $(CONFIG)

# Two at a time, side by side, because most of the time a test waits for somebody.
DECISIONS := tests/core tests/config tests/golden tests/providers
TOOLS := tests/clients tests/deploy tests/cli tests/test_docs.py
SERVED := tests/server tests/edge tests/money tests/instances tests/soak tests/telemetry tests/conformance
OTHERS := tests $(addprefix --ignore=,$(DECISIONS) $(TOOLS) $(SERVED))
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider
define side_by_side
$(PYTEST) $(1) & one=$$!; other=0; $(PYTEST) $(2) || other=$$?; wait $$one && exit $$other
endef
test: $(VENV)/.installed-dev
ifneq ($(ARGS),)
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(call side_by_side,$(DECISIONS),$(TOOLS))
	@$(call side_by_side,$(SERVED),$(OTHERS))
endif

clients: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -m '(clients or not large) and not soak' tests/clients $(ARGS)

soak: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -m soak $(ARGS)

chaos: $(VENV)/.installed-dev
	@PENSTOCK_CHAOS_SEED=$(SEED) PENSTOCK_CHAOS_SECONDS=$(CHAOS_S) $(BIN)/python -m pytest -m soak -s tests/chaos $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m tests.bench $(ARGS)

schema: install
	@$(BIN)/python -m proxy.config.schema > config/routes.schema.json

# Run it when a requirement changes.
CLIENTS := openai-1 anthropic instructor langchain llama-cpp llama-index llm mistral pydantic-ai
EXTRAS := otel sentry
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links
lock: $(VENV)/.installed-dev
	@$(LOCK) pyproject.toml requirements/build.in -o requirements/run.lock
	@$(LOCK) --extra dev pyproject.toml requirements/build.in -c requirements/run.lock -o requirements/dev.lock
	@$(LOCK) --extra postgres pyproject.toml -c requirements/run.lock -c requirements/dev.lock -o requirements/postgres.lock
	@set -e; for extra in $(EXTRAS); do $(LOCK) --extra $$extra pyproject.toml -c requirements/run.lock -o requirements/$$extra.lock; done
	@set -e; for client in $(CLIENTS) deploy; do $(LOCK) requirements/$$client.in -o requirements/$$client.lock; done

clean:
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
