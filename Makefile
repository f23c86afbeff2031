PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= runs
STEPS ?= 20000
MODELS ?= l1
ROWS ?= MNIST/L1
ESTIMATORS ?= relax rebar loo reinforce
COMPARED = $(foreach model,$(MODELS),$(addprefix $(model)_,$(ESTIMATORS)))
PARALLEL = -n auto --maxprocesses 8
DATA_FLAG = $(if $(DATA),--data.path $(abspath $(DATA)))

.DEFAULT_GOAL := help
.PHONY: help setup train compare paper test test-slow test-wheel test-oldest lint docs certify benchmark clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed  ## make .venv and install dvae into it, once

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "dvae needs Python 3.10 or newer, got " + sys.version.split()[0] + "; name one with make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

train: setup  ## train the main model (RELAX, L1) on the bundled data, evaluate it, draw pictures
	$(BIN)/dvae fit --config configs/model/l1.yaml --config configs/estimator/relax.yaml --trainer.max_steps $(STEPS) --runs $(RUNS)
	$(BIN)/dvae evaluate $(RUNS)/l1_relax
	$(BIN)/dvae sample $(RUNS)/l1_relax --out $(RUNS)/l1_relax/pictures
	$(BIN)/dvae encode $(RUNS)/l1_relax --out $(RUNS)/l1_relax/codes.npz

compare: setup  ## train MODELS x ESTIMATORS for STEPS steps (on another binarization with DATA=file.npz, with FLAGS of dvae fit), and tabulate them
	for model in $(MODELS); do for estimator in $(ESTIMATORS); do \
	  $(BIN)/dvae fit --config configs/model/$$model.yaml --config configs/estimator/$$estimator.yaml --trainer.max_steps $(STEPS) --runs $(RUNS)/compare $(DATA_FLAG) $(FLAGS) || exit 1; \
	done; done
	$(BIN)/dvae evaluate $(addprefix $(RUNS)/compare/,$(COMPARED))

paper: setup  ## train ROWS of the RELAX paper's tables (on the field's binarization with DATA=file.npz, with FLAGS of dvae paper run), an hour each, and print them
	$(BIN)/dvae paper run --rows '[$(ROWS)]' $(if $(DATA),--mnist $(abspath $(DATA))) $(FLAGS)
	$(BIN)/dvae paper table --rows '[$(ROWS)]'

test: setup  ## run the tests
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow'

test-slow: setup  ## run the longer tests too
	$(BIN)/python -m pytest $(PARALLEL)

test-wheel: setup  ## build sdist and wheel, install the wheel alone, train and evaluate with it from an empty folder
	rm -rf build/wheel && mkdir -p build/wheel/folder
	$(BIN)/python -m build --quiet --outdir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/python -m pip install --quiet build/wheel/*.whl
	cd build/wheel/folder && set -e; PATH="$(CURDIR)/build/wheel/venv/bin:$$PATH"; \
	  dvae --help; \
	  dvae fit --trainer.max_steps 100 --name wheel; \
	  dvae evaluate runs/wheel --samples 10; \
	  dvae sample runs/wheel --out pictures; \
	  test -s pictures/samples.png

test-oldest:  ## run the tests on the oldest versions that pyproject.toml allows
	rm -rf build/oldest && $(PYTHON) -m venv build/oldest
	$(PYTHON) .ci/oldest.py > build/oldest/requirements.txt
	build/oldest/bin/python -m pip install --quiet -r build/oldest/requirements.txt
	build/oldest/bin/python -m pip install --quiet --no-deps --editable .
	build/oldest/bin/python -m pytest $(PARALLEL) -m 'not slow'

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup  ## build the API and the guide from the docstrings, in build/docs
	rm -rf build/docs
	$(BIN)/python .ci/docs.py

certify: setup  ## certify every estimator against exact enumeration
	$(BIN)/dvae certify --all --num_problems 4

benchmark: setup  ## time a step of every estimator: eager, compiled, of several models
	$(BIN)/dvae benchmark --estimators '[all]' --repetitions 3 --json $(RUNS)/benchmark.json --plot $(RUNS)/benchmark.png

clean:  ## remove runs, caches and the environment
	rm -rf $(VENV) $(RUNS) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
