# The one task runner: people and CI call the same targets. `make` alone lists them.

# cpu or cuda. Not given: what .venv is already, else cuda where an NVIDIA driver answers, else cpu.
FLAVOUR ?=
# What `make serve` serves.
CONFIG ?= configs/recipes/demo.yaml
# More arguments, for `make serve`, `make playground`, `make soak` and `make chaos` (litport), `make gpu-check`, `make
# pytest`, `make test-long` and `make test-containers` (pytest), and `make image` (docker build).
ARGS ?=
# For `make image`: models to put into it, by name, another name for it, and the program that builds it.
MODELS ?=
TAG ?=
DOCKER ?= docker
# How long `make soak` and `make chaos` take.
SOAK_S ?= 1800
CHAOS_S ?= 300

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
# Each of the many processes would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup dev-setup runtimes ray redis serve playground test test-long lint types pytest soak chaos gpu-check gpu-pack format docs lock lock-check \
	image test-containers clean

# The Python that runs the set-up: any Python 3 will do, as the set-up looks for the newest of 3.11 to 3.13 itself.
PYTHON = $(or $(shell for python in .venv/bin/python python3 'uv run --no-project --python 3.13 python'; do \
	$$python -c '' 2>/dev/null && echo "$$python" && break; done),\
	$(error Python 3.11 to 3.13 was not found: install python3 and python3-venv (or uv), and try again))
SETUP = @$(PYTHON) requirements/install.py $(addprefix --flavour=,$(FLAVOUR))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Variables: FLAVOUR=cpu|cuda (default: automatic), CONFIG=file.yaml, SOAK_S, CHAOS_S (seconds), MODELS="names", ARGS="more arguments"'

setup: ## create .venv from the lock; nothing to do when it is there already
	$(SETUP)

dev-setup:
	$(SETUP) --dev

serve: setup ## serve CONFIG (the demo) on http://127.0.0.1:8000
	@exec .venv/bin/litport serve $(CONFIG) $(ARGS)

runtimes: ## add ONNX Runtime and OpenVINO to .venv, for the setting `runtime` of a LitServe model
	$(SETUP) --runtimes

ray: ## add Ray Serve to .venv, for models on a cluster of machines
	$(SETUP) --ray

redis: ## add redis-py to .venv, for limits of keys that several gateways count together
	$(SETUP) --redis

playground: ## a page to try the models of a running platform on
	$(SETUP) --playground
	@exec .venv/bin/litport playground $(ARGS)

# Tests whose figures another load would spoil come first and alone; the others run in two halves, one for each core. All of
# them run, whatever fails.
test: lint ## lint, types and tests, in about eleven minutes on two cores
	@logs=$$(mktemp -d) && trap 'rm -rf $$logs' EXIT; status=0; \
	.venv/bin/pytest -m "alone and not long" tests/benchmarks $(ARGS) || status=$$?; \
	.venv/bin/mypy >$$logs/1-types 2>&1 & types=$$!; \
	.venv/bin/pytest -m "not long" $(SERVERS) $(ARGS) >$$logs/2-servers 2>&1 & half=$$!; \
	.venv/bin/pytest -m "not alone and not long" --ignore=tests/servers $(ARGS) || status=$$?; \
	wait $$types || status=$$?; wait $$half || status=$$?; cat $$logs/*; exit $$status

# The APIs come last: by then the other half has pulled their models into a new clone's cache.
SERVERS = $(filter-out tests/servers/apis/ %__pycache__/,$(wildcard tests/servers/*/)) tests/servers/apis

# One half of the long tests; the images are in the other. Those on Ray come last, when the other half has ended.
LONG = tests/benchmarks/report tests/clients tests/docker tests/end_to_end tests/cluster

test-long: dev-setup runtimes ray redis ## the tests that are long by nature: kills, overload, soaks, images; half an hour and more
	@log=$$(mktemp) && trap 'rm -f $$log' EXIT; status=0; \
	.venv/bin/pytest -m "alone and long" tests/benchmarks tests/withstand $(ARGS) || status=$$?; \
	.venv/bin/pytest -m "not alone and long" $(LONG:%=--ignore=%) $(ARGS) >$$log 2>&1 & half=$$!; \
	.venv/bin/pytest -m "not alone and long" $(LONG) $(ARGS) || status=$$?; \
	wait $$half || status=$$?; cat $$log; exit $$status

lint: dev-setup ## ruff: the rules and the format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: dev-setup ## mypy --strict
	.venv/bin/mypy

pytest: dev-setup ## the tests but for the long ones; some of them: ARGS="-k store"
	.venv/bin/pytest -m "not long" $(ARGS)

soak: dev-setup ## mixed traffic on CONFIG for SOAK_S seconds: does anything grow?
	.venv/bin/python -m tests.withstand.soak $(CONFIG) --duration-s $(SOAK_S) --out results/soak.json $(ARGS)

chaos: dev-setup ## kill processes of CONFIG for CHAOS_S seconds: do clients notice?
	.venv/bin/python -m tests.withstand.chaos $(CONFIG) --duration-s $(CHAOS_S) --out results/chaos.json $(ARGS)

gpu-check: setup ## check Litport on this machine's GPU, in 8 minutes, and at most 10 more for vLLM; the report goes into results/gpu-check
	@exec .venv/bin/python -P -m benchmarks.gpu_check $(ARGS)

gpu-pack: dev-setup ## make results/gpu-pack, which carries gpu-check to a machine without a network
	@exec .venv/bin/python -m benchmarks.gpu_check.pack $(ARGS)

format: dev-setup ## let ruff put the files in form
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: dev-setup ## write docs/configuration.md from the settings, the dashboards and the RayCluster from their descriptions
	.venv/bin/python -m configs.reference
	.venv/bin/python docker/grafana/dashboards.py
	.venv/bin/litport deploy docker/kubernetes/ray/recipe.yaml --print kuberay > docker/kubernetes/ray/raycluster.yaml

lock: ## write the locks anew from pyproject.toml; newer versions: ARGS=--upgrade
	@$(PYTHON) -m requirements.lock $(ARGS)

lock-check: ## fail where a lock is not what pyproject.toml resolves to
	@$(PYTHON) -m requirements.lock --check

image: IMAGE = $(or $(FLAVOUR),cpu)
image: ## build the container image litport:cpu, or with FLAVOUR=cuda (or cpu-ray, cuda-ray) another
	DOCKER_BUILDKIT=1 $(DOCKER) build --file docker/Dockerfile --target $(IMAGE) --tag $(or $(TAG),litport:$(IMAGE)) \
		--build-arg "VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
		--build-arg "REVISION=$$(git rev-parse HEAD 2>/dev/null)" --build-arg "CREATED=$$(git log -1 --format=%cI 2>/dev/null)" \
		--build-arg "MODELS=$(MODELS)" $(ARGS) .

test-containers: dev-setup ## the part of test-long that builds the CPU image and runs it; about ten minutes
	.venv/bin/pytest tests/containers $(ARGS)

clean: ## remove .venv and what the tools cached; models stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build litport.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
