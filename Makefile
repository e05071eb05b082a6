# radserve: what a machine needs is Linux x86-64, make, and Python 3.11 or 3.12 with venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
SPECS := $(sort $(wildcard export/specs/*.yaml))

# $(call install,VENV,LOCK): a virtual environment with exactly what the lock file pins.
define install
@SECONDS=0
test -n "$(PYTHON)" || { echo "radserve needs Python 3.11 or 3.12: apt-get install python3 python3-venv, or make PYTHON=/path/to/python3.11 $@" >&2; exit 1; }
echo "building $(1) from $(2) with $(PYTHON)"
$(PYTHON) -m venv $(1) || { echo "Python's venv is missing: apt-get install python3-venv" >&2; exit 1; }
$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(2)
$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
touch $@
echo "built $(1) in $$SECONDS s"
endef

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

.venv/.serve: deploy/requirements/serve.txt pyproject.toml
	$(call install,.venv,deploy/requirements/serve.txt)

.venv-dev/.dev: deploy/requirements/dev.txt pyproject.toml
	$(call install,.venv-dev,deploy/requirements/dev.txt)

.PHONY: demo
demo: .venv/.serve ## Serve the reference models and send them real files
	@deploy/requirements/libpython .venv
	.venv/bin/python client/examples/demo.py

.PHONY: setup
setup: .venv-dev/.dev ## Everything that development needs, in .venv-dev

.PHONY: system-packages
system-packages: .venv-dev/.dev # what the tests compare with and look at pages with, and what Triton's stub needs
	@deploy/requirements/libpython .venv-dev
	{ command -v dcmj2pnm && command -v dciodvfy && command -v openssl; } >/dev/null || deploy/requirements/apt dcmtk dicom3tools openssl
	command -v promtool >/dev/null || deploy/requirements/apt --no-install-recommends prometheus || echo "without Prometheus nobody checks its rules" >&2
	command -v chromium >/dev/null || deploy/requirements/apt --no-install-recommends chromium || echo "without Chromium nobody looks at the load test's page" >&2
	deploy/requirements/perf_analyzer .venv-dev || echo "without perf_analyzer nobody compares the load tester with it" >&2

.PHONY: lint
lint: .venv-dev/.dev ## Style, types, and who imports whom
	@.venv-dev/bin/ruff check . && .venv-dev/bin/ruff format --check .
	.venv-dev/bin/mypy
	.venv-dev/bin/lint-imports

.PHONY: test
test: .venv-dev/.dev system-packages lint ## Everything that must hold, against a real Triton
	@.venv-dev/bin/python -m pytest -m "not full and not chaos"

.PHONY: test-full
test-full: .venv-dev/.dev system-packages lint ## The same and what takes longer
	@.venv-dev/bin/python -m pytest -m "not chaos"

.PHONY: chaos
chaos: .venv-dev/.dev system-packages ## Provoke the faults that take minutes
	@.venv-dev/bin/python -m pytest -m chaos --timeout 1800 -rsP

.PHONY: train
train: .venv-dev/.dev ## Train the reference models from nothing
	@for spec in $(SPECS); do .venv-dev/bin/radserve train --force "$$spec"; done

.PHONY: export
export: .venv-dev/.dev ## Export export/trained/ anew into model_repository/
	@rm -rf model_repository.new model_repository.old && mkdir -p model_repository model_repository.new
	.venv-dev/bin/radserve export $(SPECS) --repository model_repository.new
	mv model_repository model_repository.old && mv model_repository.new model_repository && rm -rf model_repository.old
	.venv-dev/bin/python -m radserve_export.summary README.md model_repository

.PHONY: bench
bench: .venv-dev/.dev ## Measure, and write tests/bench/results.md
	@.venv-dev/bin/python -m pytest tests/bench --override-ini "python_files=bench_*.py" --timeout 0 -s

.PHONY: bench-peers
bench-peers: .venv-dev/.dev ## Measure beside other model servers, each in its own environment
	@PYTHONPATH=tests .venv-dev/bin/python -m bench.peers

.PHONY: lock
lock: .venv-dev/.dev ## Compile the hash-pinned lock files from pyproject.toml
	@PATH="$(CURDIR)/.venv-dev/bin:$$PATH" deploy/requirements/lock

.PHONY: sbom
sbom: .venv-dev/.dev ## Write the bill of materials of what is deployed, dist/sbom.cdx.json
	@.venv-dev/bin/python deploy/requirements/sbom.py dist/sbom.cdx.json

.PHONY: audit
audit: .venv-dev/.dev ## Look all locked packages up among the known vulnerabilities; needs the network
	@.venv-dev/bin/python deploy/requirements/audit.py

.PHONY: clean
clean: ## Remove the virtual environments and caches
	@rm -rf .venv .venv-dev build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
