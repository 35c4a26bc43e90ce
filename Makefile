# make help lists the targets.
PYTHON ?= python3
BIN := .venv/bin
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Where the CPU build of torch is found if the configured package index does not have it.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

TEST_PROCESSES ?= logical

# Where the documentation is built.
SITE ?= build/docs

.DEFAULT_GOAL := help
.PHONY: help serve demo test test-fast check check-deploy check-engines check-page check-postgres check-jobs check-schemas image fix format lint spelling types contracts check-bounds check-rules check-adapters check-docs check-links docs screenshots learn \
	bench bench-overhead bench-scheduling bench-overload bench-batches bench-cost bench-replicas bench-jobs bench-quality bench-attacks bench-critic bench-masks bench-open bench-learning bench-traces lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

serve: .venv/cpu.lock ## Set up what is missing, then serve on 127.0.0.1:8000
	@$(BIN)/python -m service serve

demo: .venv/cpu.lock ## Refine a text on the running server and show its rounds
	@$(BIN)/python -m service demo

learn: .venv/learn.lock ## Train an adapter of the embedded model and examine it
	@$(BIN)/python -m service learn run --recipe quick

test: test-fast .venv/learn.lock ## Run all tests but those of a check- target, the real engine's and the real trainer's too
	@$(BIN)/python -m pytest -m "engine and not thorough and not browser and not deploy and not postgres and not site"

test-fast: .venv/dev.lock ## Run the tests that need no real engine, one process for each core
	@$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) -m "not engine and not browser and not deploy and not postgres and not site"

check: format lint spelling types contracts test ## Format, lint, spelling, types, import contracts and all tests

fix: .venv/dev.lock ## Format the code and apply the safe fixes of the linter
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

check-deploy: .venv/deploy.lock ## Check what is deployed: image, compose, Kubernetes, monitoring; 10 minutes, as root
	@$(BIN)/python -m pytest -m deploy

docs: .venv/docs.lock ## Build the documentation as a site in build/docs/html; broken links are errors
	@$(BIN)/python -m sphinx -M html . $(SITE) -c docs/site --fail-on-warning --fresh-env --quiet
	@echo "Open $(SITE)/html/index.html"

check-docs: .venv/docs.lock ## Build the documentation and look at every page and link of the site; 1 minute
	@$(BIN)/python -m pytest -m site tests/docs

check-links: .venv/docs.lock ## Ask other hosts whether the documentation's links to them still work; needs a network
	@$(BIN)/python -m sphinx -M linkcheck . $(SITE) -c docs/site --quiet

screenshots: .venv/dev.lock ## Take the picture of the page that the documentation shows, in a real browser
	@mkdir -p build/screenshots
	@SCREENSHOTS=build/screenshots $(BIN)/python -m pytest tests/browser/test_looks.py -k "en-US and light and 1440"
	@cp build/screenshots/run-1440-light-en.png docs/guide/page.png

check-page: .venv/dev.lock ## Use the page in a real browser, which Debian's package chromium brings; 3 minutes
	@$(BIN)/python -m pytest -m browser

check-postgres: .venv/dev.lock ## Check jobs on a real Postgres, which Debian's package postgresql brings; 2 minutes
	@$(BIN)/python -m pytest -m postgres

check-engines: .venv/dev.lock ## Run the real engine with models that see and think, with speculation and tools, and kill it; 10 minutes
	@$(BIN)/python -m pytest -m thorough

check-jobs: .venv/dev.lock ## Kill the service with the real engine ten times and check its jobs; 20 minutes, resumes where it stopped
	@$(BIN)/python -m bench.scenarios.kills

check-schemas: .venv/dev.lock ## Sample under 3,000 JSON Schemas on the real engine and check what it wrote; 15 minutes, resumes where it stopped
	@$(BIN)/python -m bench.scenarios.schemas

check-bounds: .venv/dev.lock ## Hold budgets, deadlines and accounts of 1,000 refines against the real engine; 10 minutes at a time, resumes where it stopped
	@$(BIN)/python -m bench.scenarios.bounds

check-rules: .venv/dev.lock ## Sample under 2,000 sets of rules on the real engine and check what it wrote; 15 minutes, resumes where it stopped
	@$(BIN)/python -m bench.scenarios.rules

check-adapters: .venv/dev.lock .venv/learn.lock ## Train four bad adapters on the real engine and check that the gate refuses them; resumes where it stopped
	@$(BIN)/python -m bench.scenarios.adapters

image: ## Build the CPU image, redraft-cpu
	@docker build --target cpu --build-arg REVISION=$$(git rev-parse HEAD) --tag redraft-cpu:$(VERSION) .

format: .venv/dev.lock
	@$(BIN)/ruff format --check .

lint: .venv/dev.lock
	@$(BIN)/ruff check .

spelling: .venv/dev.lock
	@git ls-files -z | xargs -0 $(BIN)/codespell

types: .venv/dev.lock
	@$(BIN)/mypy

contracts: .venv/dev.lock
	@$(BIN)/lint-imports

bench: .venv/dev.lock ## Measure programs a minute against client-side loops; hours on two cores, resumes where it stopped
	@$(BIN)/python -m bench.performance --write

bench-overhead: .venv/dev.lock ## Measure what the service adds to its engine's calls; 3 minutes
	@$(BIN)/python -m bench.scenarios.overhead --write

bench-scheduling: .venv/dev.lock ## Measure which order of programs is served faster under overload; 20 minutes
	@$(BIN)/python -m bench.scenarios.scheduling --write

bench-overload: .venv/dev.lock ## Measure half to four times the load that the service can take; 20 minutes
	@$(BIN)/python -m bench.scenarios.overload --write

bench-batches: .venv/dev.lock ## Measure how much a batch slows interactive requests; 15 minutes
	@$(BIN)/python -m bench.scenarios.batches --write

bench-masks: .venv/dev.lock ## Measure what grammars cost in decode throughput; 5 minutes
	@$(BIN)/python -m bench.scenarios.masks --write

bench-cost: .venv/dev.lock ## Search for the requests that cost most without an engine; 15 minutes
	@$(BIN)/python -m bench.scenarios.cost --write

bench-replicas: .venv/dev.lock ## Measure two servers behind one service, one of which is killed; 5 minutes
	@$(BIN)/python -m bench.scenarios.replicas --write

bench-jobs: .venv/dev.lock ## Measure what it costs that refines survive their process; 3 minutes
	@$(BIN)/python -m bench.scenarios.jobs --write

bench-traces: .venv/dev.lock ## Measure lists, exports and deletions of 10,000 stored traces; 2 minutes
	@$(BIN)/python -m bench.scenarios.stored_traces

bench-quality: .venv/dev.lock ## Measure what refining is worth; hours on two cores, resumes where it stopped
	@$(BIN)/python -m bench.quality

bench-learning: .venv/learn.lock ## Measure what learning gains, with three seeds of the recipe quick; one to two hours on two cores, resumes where it stopped
	@$(BIN)/python -m bench.learning

bench-attacks: .venv/dev.lock ## Measure how far texts can sway the judge to a higher score
	@$(BIN)/python -m bench.judge

bench-open: .venv/dev.lock ## Measure what refining is worth on a running service where nothing can be verified; an hour on two cores, resumes where it stopped
	@$(BIN)/python -m bench.open

bench-critic: .venv/dev.lock ## Measure what critic and judge of a running service find; half an hour on two cores, resumes where it stopped
	@$(BIN)/python -m bench.critic

lock: .venv/dev.lock ## Resolve requirements/*.in into the lock files again
	@$(BIN)/python requirements/lock.py

clean: ## Remove the virtual environment, the built documentation and caches
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Redraft needs Python 3.11 or newer; say which: make PYTHON=python3.11 …"; exit 1; }
	@echo "Making .venv"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# A lock is installed when it differs from the copy that was installed last.
.venv/cpu.lock .venv/dev.lock .venv/learn.lock .venv/deploy.lock .venv/docs.lock: .venv/%.lock: requirements/%.lock | .venv/bin/python
	@if ! cmp --silent $< $@; then \
		echo "Installing $$(grep -c == $<) pinned packages from $<. The first time takes one to three minutes."; \
		install="$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement $<"; \
		$$install 2>.venv/pip.log || $$install --extra-index-url $(TORCH_INDEX) || { cat .venv/pip.log; exit 1; }; \
	fi
	@cp $< $@

.venv/dev.lock .venv/learn.lock: .venv/cpu.lock
.venv/deploy.lock .venv/docs.lock: .venv/dev.lock
