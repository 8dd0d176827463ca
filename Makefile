# `make demo` and `make test` set up what they need; nothing else has to be installed than Python 3.11 to 3.13, make and git.
PYTHON ?= python3.11
# Where there is no python3.11, python3 must be one of the three. `make PYTHON=python3.12 ...` names another.
PYTHON := $(shell command -v $(PYTHON) || command -v python3)
BIN := .venv/bin
# dvc and mlflow start `python` from PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo app test lint ui lock clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready  ## make .venv from requirements.lock

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"error: cardium needs Python 3.11, 3.12 or 3.13, this is {v[0]}.{v[1]}: name one with `make PYTHON=...`")'
	$(PYTHON) -m venv .venv
	@# uv installs the lock in a third of pip's time; it comes from the lock itself, hashes and all.
	@sed -n '/^uv==/,/^[^ ]/{/^uv==/p;/^    --hash/p;}' requirements.lock > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## make the demo data, run the whole pipeline on it, show what came out
	@$(BIN)/cardium demo

app: setup  ## open a page for people: files in, the champions' answers out
	@$(BIN)/cardium app

test: setup  ## check style and types, run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@# Three at once, a file to each: the files are the fixtures' homes. One of them often waits for what it has started. Each
	@# computes in one thread: pools of threads that take each other's cores spend a tenth of the time on that.
	OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: setup  ## format, and check style and types
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy

ui: setup  ## open the MLflow UI on this project's store; prints the link to each dataset's runs by score
	$(BIN)/cardium ui

lock: setup  ## resolve requirements.lock anew, for every platform, with hashes
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra dev \
	  --no-emit-index-url --no-emit-find-links --no-header pyproject.toml -o requirements.lock
	@# An engine's own packages, in releases that fit beside the lock's; what the lock has is left to it.
	for engine in spark ray; do \
	  sed -n "s/^$$engine = \[\"\(.*\)\"\]$$/\1/p" pyproject.toml | $(BIN)/uv pip compile --quiet --universal --generate-hashes \
	    --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header -c requirements.lock - \
	    -o requirements-$$engine.lock || exit 1; done

clean:  ## remove what the pipeline made (not data/, not the MLflow store)
	rm -rf processed features models reports experiments .cardium
