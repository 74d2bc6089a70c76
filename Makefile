# make demo   train a small codec, measure it, compress a picture to a file and back
# make test   the tests
# make lint   ruff
# make venv   only the environment, .venv; PYTHON=/path/to/python chooses the interpreter
# make clean  remove .venv, the demo's run and all caches; other runs are yours to remove
#
# Needs git, make and a Python 3.9, 3.10 or 3.11.

SHELL := /bin/sh
BIN := .venv/bin
DEMO := runs/quickstart
# Level 3 hides the errors about CUDA plugins that TensorFlow 2.14 prints on every machine.
export TF_CPP_MIN_LOG_LEVEL ?= 3

# The first of these that runs, is a 3.9 to 3.11, and can make environments.
CANDIDATES := $(if $(PYTHON),"$(PYTHON)",python3.11 python3.10 python3.9 python3 python)
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))

.PHONY: demo test lint venv clean
.DEFAULT_GOAL := demo

demo: venv
	$(BIN)/python train.py --flagfile=configs/quickstart.flags
	$(BIN)/python eval.py --model_dir=$(DEMO) --images=sample --report_dir=$(DEMO)/report
	$(BIN)/tfquant compress --overwrite $(DEMO)/export $(DEMO)/report/sample/hopper.png $(DEMO)/hopper.tfq
	$(BIN)/tfquant info $(DEMO)/hopper.tfq
	$(BIN)/tfquant decompress --overwrite $(DEMO)/export $(DEMO)/hopper.tfq $(DEMO)/hopper.png
	@echo
	@echo "TensorBoard logs  $(DEMO)        see them: $(BIN)/tensorboard --logdir $(DEMO)"
	@echo "plots and tables  $(DEMO)/report"
	@echo "exported model    $(DEMO)/export"
	@echo "compressed file   $(DEMO)/hopper.tfq, and back: $(DEMO)/hopper.png"

test: venv
	$(BIN)/python -m pytest -n 2 --dist=worksteal --durations=10

lint: venv
	$(BIN)/ruff check .

venv: .venv/installed

# The stamp is written last: an installation that was interrupted starts over.
.venv/installed: setup.py constraints.txt
	@found=; for python in $(CANDIDATES); do \
	  "$$python" -c '$(SUITABLE)' >/dev/null 2>&1 && found="$$python" && break; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "tfquant needs Python 3.9, 3.10 or 3.11 with its venv module; found none as:" \
	    $(CANDIDATES)"; name one with make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	echo "making .venv with $$("$$found" -V); the packages take about 2 GB and a few minutes"; \
	"$$found" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

clean:
	rm -rf .venv $(DEMO) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
