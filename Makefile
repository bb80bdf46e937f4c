# Everything starts here: `make help` lists the targets. Needs python3.11, git and make; installs the rest into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# MuJoCo renders without a display. Pixels are part of the shipped checkpoint, so the Mesa packages are the default.
export MUJOCO_GL ?= egl
GL_PACKAGES := libegl1 libgl1-mesa-dri libopengl0
# torch.compile on a CPU (training.compile) writes C++ against Python's headers; one test runs it.
CXX_PACKAGES := g++ python3.11-dev
HAS_CXX := command -v g++ > /dev/null && test -e "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"
# The page of `robot-data view` is tested in a real browser; without one those tests are skipped.
BROWSER_PACKAGES := chromium
RENDER_ONE := import mujoco; context = mujoco.GLContext(8, 8); context.make_current(); context.free()

# Installs Debian packages as root or with passwordless sudo; otherwise prints the one line to run.
define apt_install
line="apt-get update && apt-get install -y --no-install-recommends $(1)"; \
if ! command -v apt-get > /dev/null; then \
    echo "make: $(1): missing; expected these Debian packages or your system's own. Install them, then run make again." >&2; exit 1; \
elif [ "$$(id -u)" = 0 ]; then DEBIAN_FRONTEND=noninteractive bash -c "$$line"; \
elif sudo -n true 2> /dev/null; then sudo -n env DEBIAN_FRONTEND=noninteractive bash -c "$$line"; \
else \
    echo "make: $(1): missing, and installing needs root. Run this line, then make again:" >&2; \
    echo "    sudo bash -c '$$line'" >&2; exit 1; \
fi
endef

# Other projects' readers and writers, which tests compare ours with. Without their dependencies: theirs would replace ours.
PEERS := robomimic minari termcolor
PEERS_INSTALLED := $(VENV)/.peers_installed
SIMULATORS := robosuite mani_skill
SIMULATORS_INSTALLED := $(VENV)/.simulators_installed

.PHONY: help quickstart setup rendering compiler browser simulators test check fuzz lint format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: setup ## fine-tune the shipped policy on new demonstrations, evaluate it, write runs/quickstart/report.html
	$(BIN)/policy-ft quickstart

setup: $(INSTALLED) rendering ## make .venv with pinned dependencies and see that MuJoCo can render
	@echo "ready: $(BIN)/policy-ft --help"

# The tests' models are tiny: more threads only wait for one another.
test check fuzz: export OMP_NUM_THREADS ?= 1

test: setup compiler $(PEERS_INSTALLED) ## set up, then run every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: setup lint $(PEERS_INSTALLED) ## lint and the fast tests
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(INSTALLED) ## ruff, format, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

fuzz: setup ## read thousands of damaged data sets; takes about four minutes
	$(BIN)/python -m tests.data_tools.fuzz $(FUZZ_ARGS)

format: $(INSTALLED) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(INSTALLED) $(PEERS_INSTALLED) $(SIMULATORS_INSTALLED) ## write the versions that are in .venv to constraints.txt (from a CPU build of torch)
	@{ echo "# Every version the tests passed with, rewritten by: make lock"; \
	   $(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } > constraints.tmp
	mv constraints.tmp constraints.txt

clean: ## remove .venv, caches and build folders; runs/ and data/ stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

rendering: $(INSTALLED)
	@$(BIN)/python -c "$(RENDER_ONE)" 2> /dev/null || { $(call apt_install,$(GL_PACKAGES)); $(BIN)/python -c "$(RENDER_ONE)"; }

compiler: $(INSTALLED)
	@$(HAS_CXX) || { $(call apt_install,$(CXX_PACKAGES)); $(HAS_CXX); }

browser: ## install Debian's Chromium, which the tests of HTML pages use if it is there
	@command -v chromium > /dev/null || { $(call apt_install,$(BROWSER_PACKAGES)); }

simulators: $(SIMULATORS_INSTALLED) ## install robosuite and ManiSkill (260 MB), whose recorders tests run if they are there

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { $(call apt_install,python3.11 python3.11-venv); }
	@$(PYTHON) -c "import ensurepip" 2> /dev/null || { $(call apt_install,python3.11-venv); }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[adapters,dev,orbax,track]"
	touch $@

$(PEERS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt --no-deps $(PEERS)
	touch $@

$(SIMULATORS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt --no-deps $(SIMULATORS)
	touch $@
