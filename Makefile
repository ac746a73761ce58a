# The developer loop: serve, test, check, bench, lock. Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# A dot every few seconds while a command runs; the dots end with their shell, however it ends.
TICKING := shell=$$$$; (while sleep 3 && kill -0 $$shell; do printf .; done) 2>/dev/null &

.DEFAULT_GOAL := help
.PHONY: help serve test check format bench lock clean image image-test

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= (3, 13))' || \
	  { echo "Python 3.10 to 3.13 is needed, not $$($(PYTHON) -V): make serve PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.runtime: requirements.lock requirements-build.lock pyproject.toml | $(BIN)/python
	@echo "Installing the service's packages (once, a minute or two) ..."
	@$(TICKING) $(PIP) install --quiet --require-hashes -r requirements.lock -r requirements-build.lock
	@$(TICKING) $(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@echo
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "Installing the test tools ..."
	@$(TICKING) $(PIP) install --quiet --require-hashes -r requirements.lock -r requirements-dev.lock
	@echo
	@touch $@

.PHONY: model
model: $(VENV)/.runtime  ## fetch and build the model, if it is not there yet
	@$(BIN)/python -m scripts.setup_model

serve: model  ## set up everything and run the service on port 8900
	@$(BIN)/python -m scripts.serve

test: check model  ## set up everything, check the code, run every test
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## reformat and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: model $(VENV)/.dev  ## measure speed and quality (minutes)
	$(BIN)/python -m benchmarks

lock: $(VENV)/.dev  ## resolve the dependencies anew into the lock files
	$(PIP) install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.10 --upgrade \
	  --generate-hashes --no-annotate --no-header --quiet -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --upgrade \
	  --constraint requirements.lock --generate-hashes --no-annotate --no-header --quiet \
	  $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock) \
	  -o requirements-dev.lock
	echo 'setuptools>=77' | $(BIN)/uv pip compile - --universal --python-version 3.10 --upgrade \
	  --generate-hashes --no-annotate --no-header --quiet -o requirements-build.lock

image:  ## build the container image without Docker (root, buildah, debootstrap; minutes)
	deploy/image/build.sh

image-test: image $(VENV)/.dev  ## build the image, run it and see that it keeps its promises
	SERVICE_IMAGE=faiss-memory $(BIN)/python -m pytest tests/image/test_image.py tests/service/test_service_memories.py

clean:  ## remove what set-up made (never your memories in ./data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
