# Everything a person or a CI machine does here. `make` alone lists the targets.
#
# Needed: Python 3.11 to 3.13 with venv, make, bash, a package index that pip can reach. Nothing else: no container
# engine, no PostgreSQL, no uv. Another interpreter: make setup PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python

CREATED := $(VENV)/.created
RUNTIME := $(VENV)/.runtime
READY := $(VENV)/.ready

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
UV_COMPILE := $(BIN)/uv pip compile --quiet pyproject.toml --extra plane --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header

# --no-deps: the lock is complete, and pip's resolver refuses extras in hash mode. --no-compile: compileall does it on all cores.
PIP_INSTALL := $(PY) -m pip --disable-pip-version-check install --no-input --no-deps --no-compile --progress-bar off

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# ---------------------------------------------------------------------------------------------- the environment

.PHONY: setup
setup: $(READY) ## Make the virtual environment with all hash-locked dependencies, for use and for development
	@echo "Ready: $(BIN)/ofp, $(BIN)/dagster, $(BIN)/pytest."

$(CREATED):
	@command -v "$(PYTHON)" >/dev/null || { echo "make: no '$(PYTHON)' on the path. Install Python 3.11 to 3.13, or name one: make setup PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	  echo "make: '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1 || true); Python 3.11 to 3.13 is needed. Name another: make setup PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' comes without venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

# $(call install,lock file,pip options): a counter on a terminal, one line elsewhere; what goes wrong is shown in either case.
define install
	@set -o pipefail; count=$$(grep -c '^[A-Za-z0-9].*==' $(1)); \
	echo "Installing the $$count packages of $(1) (once; about a minute)"; \
	if [ -t 1 ]; then \
	  $(PIP_INSTALL) $(2) --require-hashes -r $(1) | awk -v count=$$count ' \
	    /^(Collecting|Requirement already)/ { n++; name = ($$1 == "Collecting") ? $$2 : $$4; sub(/[=;].*/, "", name); printf "\r\033[K  [%3d/%d] %s", n, count, name; fflush() } \
	    /^Installing collected/ { printf "\r\033[K  unpacking"; fflush() } \
	    END { printf "\r\033[K" }'; \
	else \
	  $(PIP_INSTALL) --quiet $(2) --require-hashes -r $(1); \
	fi
endef

$(RUNTIME): $(CREATED) requirements.lock pyproject.toml
	$(call install,requirements.lock)
	@$(PIP_INSTALL) --quiet --no-build-isolation --editable .
	@$(PY) -m pip --disable-pip-version-check --quiet check
	@$(PY) -m compileall -q -j 0 $(VENV)/lib >/dev/null
	@touch $@

$(READY): $(RUNTIME) requirements-dev.lock
	$(call install,requirements-dev.lock,--no-build-isolation)
	@$(PY) -m pip --disable-pip-version-check --quiet check
	@$(PY) -m compileall -q -j 0 $(VENV)/lib >/dev/null
	@touch $@

# ---------------------------------------------------------------------------------------------- to use

.PHONY: demo
demo: $(RUNTIME) ## Go from simulated card payments to served features, proven by their hash, a training set and models
	@$(BIN)/ofp demo $(ARGS)

.PHONY: up
up: $(RUNTIME) ## Run PostgreSQL, the HTTP service, the continuous projector and Dagster's UI, until Ctrl-C
	@$(BIN)/ofp up $(ARGS)

.PHONY: parity-up
parity-up: $(READY) ## Run PostgreSQL over TLS, an S3 server, Kinesis and Kafka for the tier local_parity, until Ctrl-C
	@$(BIN)/ofp services up $(ARGS)

.PHONY: parity-down
parity-down: $(READY) ## Stop what parity-up started
	@$(BIN)/ofp services down $(ARGS)

# ---------------------------------------------------------------------------------------------- to develop

.PHONY: test
test: $(READY) ## Run the whole test suite (one part: make test ARGS=ofp_platform_tests/kernel)
	@$(PY) -m pytest -n 3 --dist worksteal $(ARGS)

.PHONY: lint
lint: $(READY) ## Check style, formatting and plain words
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(PY) .ci/words_check.py

.PHONY: format
format: $(READY) ## Repair style and formatting where that is possible
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: $(READY) ## Check static types, strictly
	@$(BIN)/mypy

.PHONY: imports
imports: $(READY) ## Check which package imports which
	@$(BIN)/lint-imports --no-logo

.PHONY: dead-code
dead-code: $(READY) ## Check that nothing is reached by tests alone
	@$(PY) .ci/dead_code.py

.PHONY: contracts
contracts: $(READY) ## Write contracts/ again from the models
	@$(PY) -m ofp_platform.api.contract_files

.PHONY: cli-reference
cli-reference: $(READY) ## Write docs/cli.md and docs/profile.md again (a test compares)
	@$(PY) -m ofp_platform.cli.reference

.PHONY: contracts-check
contracts-check: $(READY) ## Check that contracts/ is what the models say
	@$(PY) -m ofp_platform.api.contract_files --check

.PHONY: screenshots
screenshots: $(READY) ## Write pictures of the console and of Dagster's pages, in both themes, with the demo's data, into dist/screenshots
	@$(PY) -m ofp_platform_tests.api.screenshots dist/screenshots $(ARGS)

.PHONY: locks
locks: ## Resolve the lock files again from pyproject.toml (newer versions: make locks ARGS=--upgrade)
	@# not after $(READY): the environment cannot be what pyproject.toml asks for before the locks are
	@test -x $(BIN)/uv || { echo "make: no uv in $(VENV) yet: make setup, with the lock files as they were" >&2; exit 1; }
	@$(UV_COMPILE) $(ARGS) -o requirements.lock
	@$(UV_COMPILE) $(ARGS) --extra dev -c requirements.lock -o requirements-dev.lock

.PHONY: locks-check
locks-check: $(READY) ## Check that the lock files are what pyproject.toml asks for
	@$(PY) .ci/locks_check.py

.PHONY: sbom
sbom: $(READY) ## Write dist/sbom.cdx.json: all that a deployment installs, with versions and hashes (CycloneDX)
	@mkdir -p dist
	@$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --of JSON --output-reproducible -o dist/sbom.cdx.json
	@echo "dist/sbom.cdx.json"

.PHONY: audit
audit: $(READY) ## Look every pin up among the known advisories (no network: make audit ARGS="--advisories all.zip", OSV's export of PyPI)
	@$(PY) .ci/audit.py $(ARGS)

.PHONY: notice
notice: $(READY) ## Write NOTICE again: the packages that a deployment installs, with their licences
	@$(PY) .ci/notice.py

.PHONY: docs
docs: $(READY) ## Write site/, the documents as pages; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

.PHONY: defs
defs: $(READY) ## Check that Dagster loads every definition
	@home=$$(mktemp -d); trap 'rm -rf "$$home"' EXIT; printf 'telemetry: {enabled: false}\nnux: {enabled: false}\n' >"$$home/dagster.yaml"; \
	  DAGSTER_HOME=$$home VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/dg check defs

BENCHES := serving projection decisions loop amendments entities appends ingress identities freshness apply columns build parity growth hot_windows mature

.PHONY: bench
bench: $(READY) ## Run the benchmarks beside floors and peers of the same run (some: make bench BENCHES="serving parity")
	@failed=""; for name in $(BENCHES); do $(PY) -m benchmarks.bench_$$name $(ARGS) || failed="$$failed $$name"; done; \
	  if [ -n "$$failed" ]; then echo "make: could not be measured:$$failed" >&2; exit 1; fi

.PHONY: torture
torture: $(READY) ## Kill, race, fuzz, corrupt, and compare (some, shorter: make torture ARGS="kill_loop faults --size 0.1")
	@$(PY) -m ofp_platform_tests.torture $(ARGS)

.PHONY: figures
figures: $(READY) ## Publish the last runs of bench and torture in docs/
	@$(PY) -m benchmarks.page

.PHONY: ci
ci: ## Run what CI runs: the tests, then every check
	@.ci/run

.PHONY: clean
clean: ## Remove the environment and all caches (local data in .ofp/ stays)
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist ./*.egg-info .tmp_dagster_home_*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
