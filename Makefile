PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
KEEP ?=
NEEDS ?= cuda tensorrt
# One more than there are CPUs, because many tests wait for deadlines and idle connections.
WORKERS ?= $(shell expr $$(nproc) + 1)

.PHONY: help demo test test-fast fuzz check format gpu-check container-check ray-check scale-check slurm-check lock proto bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[training,export,serving,dev]'
	@touch $@

demo: $(VENV)/installed  ## train, export, serve, predict, label, statistics; DATA=DIR uses your images, KEEP=1 keeps the server
	$(BIN)/python -m examples.demo --out demo $(if $(DATA),--data '$(DATA)') $(if $(KEEP),--keep)

test: $(VENV)/installed  ## all tests; PAWSERVE_PHOTOS=DIR adds those on real images
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/installed  ## the unit tests, which start no process, no server and no database
	$(BIN)/python -m pytest --numprocesses $(shell nproc) --dist loadfile -m "not slow" tests/unit

fuzz: $(VENV)/installed  ## fuzz the decoder for SECONDS (60); inputs that fail are kept in fuzz/
	$(BIN)/python -m tests.fuzz.decoder fuzz $(or $(SECONDS),60) $(or $(SEED),0)

check: $(VENV)/installed  ## format, lint, types, generated code, protocols
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python proto/generate.py --check
	$(BIN)/python proto/check.py

format: $(VENV)/installed  ## format, and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

gpu-check:  ## everything that needs a GPU, in .venv-gpu (docs/gpu.md); NEEDS=cuda for a host without TensorRT
	PAWSERVE_REPORT=gpu-report.json PAWSERVE_GPU_NEEDS='$(NEEDS)' $(VENV)-gpu/bin/python -m pytest tests/gpu

$(VENV)/containers: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[containers]'
	@touch $@

container-check: $(VENV)/containers  ## build, run and audit the container images; needs root and Debian's tools
	$(BIN)/hadolint Dockerfile
	PAWSERVE_CONTAINERS=1 $(BIN)/python -m pytest tests/containers

lock: $(VENV)/containers  ## lock the requirements of the container images
	$(BIN)/python -m deploy.containers.lock

$(VENV)-ray/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-ray
	$(VENV)-ray/bin/pip install --quiet --constraint constraints.txt --editable '.[ray,postgres]' \
		onnx PyYAML pytest pytest-timeout pytest-xdist
	@touch $@

ray-check: $(VENV)-ray/installed  ## replicas on a local Ray, in their own environment (650 MB)
	$(VENV)-ray/bin/python -m pytest tests/ray

scale-check: $(VENV)/installed  ## training on several processes: thirty exits, two nodes, the loss of one
	PAWSERVE_SCALE=1 $(BIN)/python -m pytest tests/scale
	$(BIN)/shellcheck deploy/torchrun/launch.sh deploy/slurm/train.sbatch

slurm-check: $(VENV)/installed  ## training on a Slurm cluster on this machine: lost nodes, requeued jobs; needs root and Debian's packages
	PAWSERVE_SLURM_CHECK=1 $(BIN)/python -m pytest tests/slurm

proto: $(VENV)/installed  ## generate serving/pb from proto/
	$(BIN)/python proto/generate.py

bench: $(VENV)/installed  ## measure; needs MODELS=DIR and PAWSERVE_PHOTOS=DIR
	$(BIN)/python -m benchmarks.serving.throughput --models '$(MODELS)' --photos '$(PAWSERVE_PHOTOS)'

clean:  ## remove the environments, the caches and the demo's output
	rm -rf $(VENV) $(VENV)-gpu $(VENV)-ray demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
