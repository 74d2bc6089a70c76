# make demo   the pretrained models beside JPEG and WebP, then two short trainings; under 5 minutes
# make check  ruff, mypy and the tests that are not slow
# make test   all tests
# make test-stack   the tests of what differs between stacks
# make lint   ruff, and mypy on the default stack
# make docs   the documentation, build/docs/index.html; a warning is an error
# make venv   only the environment, .venv; PYTHON=/path/to/python chooses the interpreter
# make clean  remove the environments, the demo's run and all caches; other runs are yours to remove
#
# STACK chooses the versions that are installed; VENV names the environment's folder.
#   tf217  the default: TensorFlow 2.17, Python 3.9 to 3.12, Linux on x86-64
#   tf214  classic: TensorFlow 2.14 and tensorflow-compression, Python 3.9 to 3.11, x86-64
#   tf221  portable: TensorFlow 2.21 without the coder's operations, Python 3.13
#
# Needs git, make and one of these Pythons.

SHELL := /bin/sh
STACK ?= tf217
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := runs/demo
# Hides the messages about CUDA that TensorFlow prints on machines without a GPU.
export TF_CPP_MIN_LOG_LEVEL ?= 3
# setup.py asks for this stack's packages.
export TFQUANT_STACK := $(STACK)

PYTHONS_tf217 := 3.12 3.11 3.10 3.9
PYTHONS_tf214 := 3.11 3.10 3.9
PYTHONS_tf221 := 3.13
PYTHONS := $(PYTHONS_$(STACK))
ifeq ($(PYTHONS),)
  $(error STACK=$(STACK) is unknown; known: tf217, tf214, tf221)
endif
CONSTRAINTS := $(if $(filter tf217,$(STACK)),constraints.txt,constraints-$(STACK).txt)
STAMP := $(VENV)/installed-$(STACK)

# The first of these that runs, is one of the stack's Pythons, and can make environments.
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",$(PYTHONS:%=python%) python3 python)
SUITABLE := import sys, venv, ensurepip; \
  sys.exit("%d.%d" % sys.version_info[:2] not in "$(PYTHONS)".split())

.PHONY: demo check test test-stack lint docs venv clean
.DEFAULT_GOAL := demo

demo: venv
	rm -rf $(DEMO)
	$(BIN)/tfquant demo --out=$(DEMO)
	$(BIN)/tfquant view sample --out=$(DEMO)/view.html

check: lint
	$(BIN)/python -m pytest -n 2 --dist=worksteal -m "not slow"

# In two parts, because TensorFlow keeps the graphs of all tests: each worker takes 6 GB or less.
BIG_TESTS := tests/compatibility tests/conformance tests/export tests/training

test: venv
	$(BIN)/python -m pytest -n 2 --dist=worksteal --durations=10 $(BIG_TESTS)
	$(BIN)/python -m pytest -n 2 --dist=worksteal --durations=10 $(BIG_TESTS:%=--ignore=%)

# What a stack can change: the coder, bits of kernels, Keras, exported models, a run's way through.
STACK_TESTS := tests/coding tests/compatibility tests/contexts tests/entropy tests/ops tests/quantization \
  tests/test_against_tfc.py tests/test_stack.py tests/export/test_export.py tests/training/test_adam.py \
  tests/training/test_checkpoint.py tests/training/test_trainer.py

test-stack: venv
	$(BIN)/python -m pytest -n 2 --dist=worksteal --durations=5 $(STACK_TESTS)

lint: venv
	$(BIN)/ruff check .
	$(if $(filter tf217,$(STACK)),$(BIN)/mypy)

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -E -b html -W --keep-going -q docs build/docs
	@echo "documentation: build/docs/index.html"

$(VENV)/installed-docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[docs]'
	@touch $@

venv: $(STAMP)

# The stamp is written last: an installation that was interrupted starts over.
$(STAMP): setup.py $(CONSTRAINTS)
	@found=; for python in $(CANDIDATES); do \
	  "$$python" -c '$(SUITABLE)' >/dev/null 2>&1 && found="$$python" && break; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "STACK=$(STACK) needs Python $(PYTHONS) with its venv module; found none as:" \
	    $(CANDIDATES)"; name one with make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$found" -V); the packages take about 2 GB and a few minutes"; \
	"$$found" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test]'
	@touch $@

clean:
	rm -rf .venv .venv-tf214 .venv-tf221 $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
