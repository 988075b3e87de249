# Set-up, demo and tests in one command each. `make` alone lists the targets.
# PYTHON=/path/to/python3.11 names the interpreter for .venv; without it one is looked for.
PYTHON ?=
RUN := .venv/bin/python
SETUP = @boot=; for p in python3 python3.11 python3.12 python3.10 python $(PYTHON); do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && { boot=$$p; break; }; done; \
	[ -n "$$boot" ] || { echo 'set-up stopped: no Python was found: install Python 3.11, or name one: make PYTHON=/path/to/python3.11' >&2; exit 1; }; \
	exec $$boot tools/set_up --python "$(PYTHON)"

# Threads that wait by spinning lose most of the time to each other where the cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help env ops demo demo-cls demo-seg demo-depth demo-all claims test test-all test-openmmlab test-newest lint docs \
	clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

env: ## make or mend .venv: the pinned packages; no compiler is needed
	$(SETUP)

ops: ## compile mmcv's operators into it, once (10 minutes on two cores; with CUDA if there is a GPU and nvcc)
	$(SETUP) --ops

demo: env ## train Mask R-CNN on an NFNet with AGC on real digits; AP, pictures and curves in work_dirs/
	@$(RUN) demo detection

demo-cls: env ## the same for image classification
	@$(RUN) demo classification

demo-seg: env ## the same for semantic segmentation
	@$(RUN) demo segmentation

demo-depth: env ## the same for monocular depth
	@$(RUN) demo depth

demo-all: env ## all four, one after another; ends with their figures
	@for task in detection classification segmentation depth; do $(RUN) demo $$task || exit; done
	@cat work_dirs/demo/result.txt work_dirs/demo_classification/result.txt work_dirs/demo_segmentation/result.txt \
		work_dirs/demo_depth/result.txt

claims: env ## rerun the papers' claims on real digits: what shows and what does not, in work_dirs/claims/index.html
	@$(RUN) -m demo.claims

# Small models gain nothing from more threads, and lose much where the cores are shared.
test test-all test-openmmlab test-newest: export OMP_NUM_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)

test: env ## the tests that a change must pass
	@$(RUN) -m pytest -q -n 2 --durations=10

test-all: ops ## all tests, the slow ones too, some of which need the compiled operators
	@$(RUN) -m pytest -q -n 2 --durations=10 -m ""

# In environments of their own, .venv-openmmlab and .venv-newest, of the versions in requirements/ and without compiled
# operators; each ends with the list of what it left out and why.
test-openmmlab: ## the tests on the original OpenMMLab packages, with torch 2.1 (6 GB more of disk)
	$(SETUP) --stack openmmlab
	@.venv-openmmlab/bin/python -m pytest -q -n 2 -rs -W ignore

test-newest: ## the tests on the newest torch that there is (7 GB more; delete .venv-newest for a newer one)
	$(SETUP) --stack newest
	@.venv-newest/bin/python -m pytest -q -n 2 -rs

lint: env ## what every change must be free of: lint, unformatted code, wrong types
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check --quiet
	@.venv/bin/mypy

docs: env ## the documentation as a site of plain files: site/index.html, to be read without a network
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --quiet && echo 'written: site/index.html'

clean: ## delete the environments (the compiled operators stay in the user's cache)
	rm -rf .venv .venv-openmmlab .venv-newest
