.DEFAULT_GOAL := help
# without bytecode, each process of the server or of a test compiles the sources again
unexport PYTHONDONTWRITEBYTECODE
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
CLUSTER := $(VENV)/cluster
# the first of these that is Python 3.11 or newer
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# pip compiles files one by one, a third of its time; compileall uses every core, and leaves out what is hardly
# ever imported, a third of all
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile --constraint constraints.txt
# recordings of speech with their words (MIT, 4 MB), for the tests; without its dependencies, one of which
# needs a compiler
SPEECH := pytest-audioeval==0.1.3
# tests of one file stay in one process, so that they share its server
PARALLEL := --numprocesses 4 --dist loadfile --no-loadscope-reorder
# CPython 3.11 can hang under coverage: a traced function never ends if it runs in a pending call and another
# one is queued, and greenlet makes such calls when threads end
COVERAGE = $(shell $(BIN)/python -c 'import sys; print("-m coverage run" if sys.version_info >= (3, 12) else "")')
FAST := tests/text tests/audio tests/db tests/services/voices tests/web/requests tests/web/middleware \
	tests/test_layers.py tests/test_settings.py tests/test_serving.py tests/test_vocabulary.py
SITE := 'import site; print(site.getsitepackages()[0])'
COMPILE := $(BIN)/python -m compileall -q -j 0 -x '/tests?/|/testing/|/transformers/models/|/moto/' $(VENV)/lib

.PHONY: help
help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: run
run: $(VENV)/installed  ## Install everything and serve on http://127.0.0.1:7860
	@$(BIN)/dia-server serve

.PHONY: test
test: $(VENV)/installed-dev  ## Install everything and run every test but the long ones
	@$(BIN)/python -m pytest $(PARALLEL)

.PHONY: test-fast
test-fast: $(VENV)/installed-dev  ## Run the tests that need no server, browser or model, in less than a minute
	@$(BIN)/python -m pytest $(PARALLEL) $(FAST)

# Ray is an extra that everything else does without, so its tests have an environment of their own, which
# takes the other packages from the first one
.PHONY: test-cluster
test-cluster: $(CLUSTER)/installed  ## Run the tests of engines on a Ray cluster
	@$(CLUSTER)/bin/python -m pytest -o faulthandler_timeout=600 tests/engine/cluster/test_ray.py

.PHONY: test-full
test-full: export COVERAGE_FILE := $(CURDIR)/.coverage
test-full: $(VENV)/installed-dev $(CLUSTER)/installed  ## Run every test, long fuzzing and kill campaigns included, with coverage
	@$(BIN)/coverage erase
	@$(BIN)/python $(COVERAGE) -m pytest $(PARALLEL)
	@POSTGRES_TESTS=everywhere $(BIN)/python $(COVERAGE) -m pytest $(PARALLEL) -m 'not full and not sqlite' tests/services tests/web
	@$(BIN)/python $(COVERAGE) -m pytest -m full -o faulthandler_timeout=3600
	@$(CLUSTER)/bin/python $(COVERAGE) -m pytest -o faulthandler_timeout=3600 -m 'full or not full' tests/engine/cluster
	@$(if $(COVERAGE),$(BIN)/coverage combine --quiet && $(BIN)/python .ci/coverage_floors.py, \
		echo "Coverage was not measured: that takes Python 3.12 or newer")

.PHONY: check
check: $(VENV)/installed-dev  ## Check style and types
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

.PHONY: format
format: $(VENV)/installed-dev  ## Format the source and apply ruff's fixes
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

.PHONY: bench
bench: $(VENV)/installed-dev  ## Measure the server's overhead and its behaviour under load
	@$(BIN)/python -m benchmarks.overhead
	@$(BIN)/python -m benchmarks.load

.PHONY: gpu-check
gpu-check: $(VENV)/installed-dev  ## Run the measurements and tests that need a GPU; results in gpu-check/
	@$(BIN)/python -m benchmarks.gpu_check; measured=$$?; \
		$(BIN)/python -m pytest -m gpu tests/engine && exit $$measured

.PHONY: lock
lock: $(VENV)/installed-dev  ## Rewrite constraints.txt with the newest versions; KEEP=1 keeps the versions it has
	@$(BIN)/python .ci/lock.py $(if $(KEEP),--keep)

.PHONY: clean
clean:  ## Remove the environment and caches; voices and audio stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist tests/clients/node_modules

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --upgrade pip # that of older Pythons takes twice as long

define install
	@echo "Installing; the first time takes a few minutes, most of them for PyTorch."
	@$(PIP_INSTALL) --editable $(1)
	@$(if $(2),$(PIP_INSTALL) --no-deps $(2))
	@$(COMPILE)
	@touch $(VENV)/installed $@
endef

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,.)

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,'.[dev]',$(SPEECH))

$(CLUSTER)/installed: $(VENV)/installed-dev
	@$(BIN)/python -m venv $(CLUSTER)
	@echo "import site; site.addsitedir('$$($(BIN)/python -c $(SITE))')" > $$($(CLUSTER)/bin/python -c $(SITE))/dia.pth
	@$(subst $(BIN),$(CLUSTER)/bin,$(PIP_INSTALL)) --editable '.[cluster]'
	@$(subst $(VENV),$(CLUSTER),$(COMPILE))
	@touch $@
