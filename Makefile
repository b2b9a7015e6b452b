PYTHON ?= python3
# What everything here is tested with.
TORCH := torch==2.13.0
TRITON := triton==3.9.0

VENV := .venv
PY := $(VENV)/bin/python
DEPS := $(VENV)/.deps
# A native core to run here, and one with the CUDA kernels, wherever nvcc is.
BUILT := $(VENV)/.built
WITH_CUDA := $(VENV)/.built-with-cuda
ECOSYSTEM := $(VENV)/.ecosystem
# For development: GPUs whose machine code tests read. A wheel is built for more, see CMakeLists.txt.
export EXTRAP_CUDA_ARCHS ?= 80;90;100
export EXTRAP_WERROR ?= ON
# The CUDA kernels take most of a build. Without a GPU only tests have a use for them, which run their source on the CPU
# and read their machine code; once built, they stay part of every build.
GPU := $(wildcard /dev/nvidia[0-9]* /dev/dxg)
BUILD := $(PY) setup.py --quiet build_ext --inplace
# Tests run side by side, one process for each core.
PYTEST := $(PY) -m pytest -n auto --dist loadgroup
CPP := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: setup demo demo-ddp test test-slow test-exhaustive test-all lint format bench clean
.DELETE_ON_ERROR:
.NOTPARALLEL: # both builds write the same module

setup: $(WITH_CUDA)

# The package goes in without its native core, which the next rule builds in place: Python edits need no reinstall, and
# C++ edits only an incremental build.
$(DEPS): pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	EXTRAP_NATIVE=off $(PY) -m pip install $(TORCH) $(TRITON) -e '.[dev]'
	touch $@

# What only the integration tests need. timm asks for torchvision, which its train loop does not use.
$(ECOSYSTEM): $(DEPS)
	EXTRAP_NATIVE=off $(PY) -m pip install $(TORCH) -e '.[test-ecosystem]'
	$(PY) -m pip install --no-deps timm
	touch $@

$(BUILT): $(DEPS) setup.py CMakeLists.txt $(CPP)
	$(if $(EXTRAP_CUDA)$(GPU)$(wildcard $(WITH_CUDA)),,EXTRAP_CUDA=off) $(BUILD)
	touch $@

$(WITH_CUDA): $(DEPS) setup.py CMakeLists.txt $(CPP)
	$(BUILD)
	touch $(BUILT) $@

demo: $(BUILT)
	$(PY) examples/demo.py

demo-ddp: $(BUILT)
	OMP_NUM_THREADS=1 $(VENV)/bin/torchrun --standalone --nproc-per-node 2 examples/train_ddp.py

test: $(WITH_CUDA) $(ECOSYSTEM)
	$(PYTEST) -m 'not slow'

test-slow: $(WITH_CUDA) $(ECOSYSTEM)
	$(PYTEST) -m 'slow and not exhaustive'

test-exhaustive: $(WITH_CUDA) $(ECOSYSTEM)
	$(PYTEST) -m exhaustive

test-all: $(WITH_CUDA) $(ECOSYSTEM)
	$(PYTEST)

lint: $(DEPS)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP)

format: $(DEPS)
	$(PY) -m ruff check --fix
	$(PY) -m ruff format
	$(VENV)/bin/clang-format -i $(CPP)

bench: $(BUILT)
	$(PY) -m bench

# Leaves $(VENV), the costly part: delete it by hand to start over.
clean:
	rm -rf build dist *.egg-info .*_cache .hypothesis .benchmarks $(BUILT) $(WITH_CUDA)
	find extrap_kernels triton_kernels tests bench examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	rm -f extrap_kernels/_C.*.so
