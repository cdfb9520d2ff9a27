# The commands of the project. Each sets up what it needs; `make help` lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PYTHON ?= python3
FUZZ_SECONDS ?= 60
BIN := .venv/bin
READY := .venv/.ready

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv with everything in it, from pinned hashes

$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name it with make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up .venv (a minute or two the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@mkdir -p generated/synposter
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

generate: $(READY)  ## write generated/ afresh from protos/
	@rm -rf generated/synposter && mkdir -p generated
	@$(BIN)/python -m grpc_tools.protoc -I protos --python_out=generated --pyi_out=generated \
	  --grpc_python_out=generated $$(find protos -name '*.proto' | sort)

lock: $(READY)  ## resolve the dependencies anew into requirements*.txt
	@$(BIN)/pip-compile --quiet --upgrade --allow-unsafe --generate-hashes --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host -o requirements.txt pyproject.toml
	@$(BIN)/pip-compile --quiet --upgrade --allow-unsafe --generate-hashes --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host -c requirements.txt --extra dev -o requirements-dev.txt pyproject.toml
	@echo 'atheris>=3.0' | $(BIN)/pip-compile --quiet --upgrade --allow-unsafe --generate-hashes --strip-extras \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate -o requirements-fuzz.txt -

lint: $(READY)  ## ruff, mypy --strict, buf; known vulnerabilities, where the advisory service can be reached
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy server clients/python/synposter_accounts
	@cd protos && ../$(BIN)/buf lint
	@.ci/audit

sbom: $(READY)  ## the software bill of materials of the service, CycloneDX, into sbom.json
	@$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o sbom.json requirements.txt
	@echo "wrote sbom.json"

test: $(READY)  ## the whole test suite: two tests at a time, then those that measure or fill the machine, alone
	@failed=0; $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not long and not alone' || failed=1; \
	  $(BIN)/python -m pytest -m 'alone and not long' || failed=1; exit $$failed

faults: $(READY)  ## the fault suite in its long form, with a report
	@$(BIN)/python -m pytest -m long -s tests/faults tests/security

fuzz: $(READY)  ## fuzz each parser that faces the outside for FUZZ_SECONDS (60; 600 is the long form)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.txt
	@mkdir -p .fuzz; for target in callback_query token_response sealed_blob page_token; do \
	  echo "fuzzing $$target"; $(BIN)/python -m tests.fuzz $$target $(FUZZ_SECONDS) >.fuzz/$$target.log 2>&1 \
	  && grep DONE .fuzz/$$target.log || { tail -40 .fuzz/$$target.log; exit 1; }; done

run: $(READY)  ## start the service, with a sandbox platform where no real one is registered
	@$(BIN)/python -m sandbox.run

demo: $(READY)  ## play the whole story with a service and a sandbox of its own, in under a minute
	@$(BIN)/python -m sandbox.demo

bench: $(READY)  ## measure speed and size beside a bare server, as ratios in one run
	@$(BIN)/python -m bench

.PHONY: help setup generate lock lint sbom test faults fuzz run demo bench
