PYTHON ?= python3
# What everything here is tested with.
TORCH := torch==2.13.0
TRITON := triton==3.9.0

VENV := .venv
PY := $(VENV)/bin/python
DEMO_DEPS := $(VENV)/.demo-deps
DEPS := $(VENV)/.deps
# A native core to run here, and one to test, with the CUDA kernels.
BUILT := $(VENV)/.built
FOR_TESTS := $(VENV)/.built-for-tests
ECOSYSTEM := $(VENV)/.ecosystem
REPRODUCTION := $(VENV)/.reproduction
RELEASE := $(VENV)/.release
DOCS := $(VENV)/.docs
# For development: GPUs whose machine code tests read. A wheel is built for more, see CMakeLists.txt.
export EXTRAP_CUDA_ARCHS ?= 80;90;100
export EXTRAP_WERROR ?= ON
export EXTRAP_TESTING ?= ON
BUILD := $(PY) setup.py --quiet build_ext --inplace
# The CUDA kernels take most of a build. Tests read their machine code and run their source on the CPU; the demo has no use
# for them without a GPU. What tests had built remains: to leave it out would delete it.
GPU := $(wildcard /dev/nvidia[0-9]* /dev/dxg)
LEAVE_OUT = EXTRAP_TESTING=OFF EXTRAP_ISAS=native $(if $(EXTRAP_CUDA)$(GPU),,EXTRAP_CUDA=off)
# Tests run side by side, one process for each core.
PYTEST := $(PY) -m pytest -n auto --dist loadgroup
CPP := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

# Tests start many processes, each of which imports torch: without its bytecode, that takes three seconds more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo demo-ddp reproduce reproduce-quick test test-slow test-exhaustive test-all fuzz sanitize lint format bench docs wheel clean
.DELETE_ON_ERROR:
.NOTPARALLEL: # both builds write the same module

setup: $(FOR_TESTS)

# The package goes in without its native core, which the next rule builds in place: Python edits need no reinstall, and
# C++ edits only an incremental build.
$(DEMO_DEPS): pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	EXTRAP_NATIVE=off $(PY) -m pip install --no-compile $(TORCH) -e '.[build,demo]'
	touch $@

# Triton alone takes more than all that the demo needs.
$(DEPS): $(DEMO_DEPS)
	EXTRAP_NATIVE=off $(PY) -m pip install $(TORCH) $(TRITON) -e '.[dev]'
	touch $@

# What only the integration tests need. timm asks for torchvision, which its train loop does not use.
$(ECOSYSTEM): $(DEPS)
	EXTRAP_NATIVE=off $(PY) -m pip install $(TORCH) -e '.[test-ecosystem,release,docs]'
	$(PY) -m pip install --no-deps timm
	touch $@

$(DOCS): $(DEMO_DEPS)
	EXTRAP_NATIVE=off $(PY) -m pip install $(TORCH) -e '.[docs]'
	touch $@

$(RELEASE): $(DEMO_DEPS)
	EXTRAP_NATIVE=off $(PY) -m pip install $(TORCH) -e '.[release]'
	touch $@

$(REPRODUCTION): $(DEMO_DEPS)
	EXTRAP_NATIVE=off $(PY) -m pip install $(TORCH) -e '.[reproduction]'
	cd examples && ../$(PY) -m reproduction fetch
	touch $@

$(BUILT): $(DEMO_DEPS) setup.py CMakeLists.txt $(CPP)
	$(if $(shell test -e $(FOR_TESTS) && echo yes),,$(LEAVE_OUT)) $(BUILD)
	touch $@

$(FOR_TESTS): $(DEPS) setup.py CMakeLists.txt $(CPP)
	$(BUILD)
	touch $(BUILT) $@

demo: $(BUILT)
	$(PY) examples/demo.py

# Hours; what is done is kept and not done again.
reproduce: $(BUILT) $(REPRODUCTION)
	cd examples && OMP_NUM_THREADS=1 ../$(PY) -m reproduction run --threads $(shell nproc)

reproduce-quick: $(BUILT) $(REPRODUCTION)
	cd examples && OMP_NUM_THREADS=1 ../$(PY) -m reproduction run --threads $(shell nproc) --quick --out ../results

demo-ddp: $(BUILT)
	OMP_NUM_THREADS=1 $(VENV)/bin/torchrun --standalone --nproc-per-node 2 examples/train_ddp.py

test: $(FOR_TESTS) $(ECOSYSTEM)
	$(PYTEST) -m 'not slow'

test-slow: $(FOR_TESTS) $(ECOSYSTEM)
	$(PYTEST) -m 'slow and not exhaustive'

test-exhaustive: $(FOR_TESTS) $(ECOSYSTEM)
	$(PYTEST) -m exhaustive

test-all: $(FOR_TESTS) $(ECOSYSTEM)
	$(PYTEST)

# Each round has a new seed; `--hypothesis-seed` repeats one that has failed.
MINUTES ?= 10
fuzz: $(FOR_TESTS)
	end=$$(($$(date +%s) + 60 * $(MINUTES))); while [ $$(date +%s) -lt $$end ]; do \
	  $(PY) -m pytest -q tests/test_backend_parity.py -k anything --hypothesis-profile fuzz \
	    --hypothesis-seed $$(od -An -N4 -tu4 /dev/urandom) || exit 1; done

# Memory, then threads, which takes another build. The emulated CUDA kernels have one thread.
MEMORY_TESTS := test_binding test_tensor_reading test_state_reader test_edge_cases test_memory_guards test_oracle_parity \
  test_clipping test_trace_equality test_changes_between_steps test_shared_memory test_recovered_base
THREAD_TESTS := test_binding test_backend_parity
SANITIZE := tests/sanitizers/run.sh $(PY)
sanitize: $(DEPS)
	$(SANITIZE) address,undefined asan -m 'not slow' -k 'not reference-' $(MEMORY_TESTS:%=tests/%.py)
	EXTRAP_TESTING=OFF $(SANITIZE) thread tsan -m 'not slow' -k '(thread or same_time) and not emulated' \
	  $(THREAD_TESTS:%=tests/%.py)

# The site, in results/site; warnings are errors.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

# What the package index takes, in dist/: an sdist and a wheel for this Python. EXTRAP_CUDA=on: with kernels for all GPUs.
# torch brings the OpenMP runtime.
wheel: $(RELEASE)
	rm -rf dist
	env -u EXTRAP_CUDA_ARCHS EXTRAP_CUDA=$(or $(EXTRAP_CUDA),off) EXTRAP_TESTING=OFF EXTRAP_WERROR=OFF \
	  $(PY) -m build --outdir dist
	PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) -m auditwheel repair --exclude libgomp.so.1 --wheel-dir dist dist/*.whl
	rm dist/*-linux_*.whl
	$(PY) -m twine check --strict dist/*

lint: $(DEPS)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP)

format: $(DEPS)
	$(PY) -m ruff check --fix
	$(PY) -m ruff format
	$(VENV)/bin/clang-format -i $(CPP)

bench: $(FOR_TESTS)
	$(PY) -m bench

# Leaves $(VENV), the costly part: delete it by hand to start over.
clean:
	rm -rf build dist *.egg-info .*_cache .hypothesis .benchmarks $(BUILT) $(FOR_TESTS)
	find extrap_kernels triton_kernels tests bench examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	rm -f extrap_kernels/_C.*.so
