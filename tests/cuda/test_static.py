"""What the compiler made of the CUDA kernels in the extension as it was built: no GPU needed."""

import shutil

import helpers
import pytest
import torch

from bench import baselines, static_cuda
from extrap_kernels import _C

TARGETS = ("sm_80", "sm_90", "sm_100")
PAIRS = ("fp32 fp32", "fp64 fp64", "bf16 bf16", "bf16 fp32", "fp16 fp16", "fp16 fp32")
RULES = ("Sgd", "SgdMomentum", "Adam", "Lars", "LarsMomentum", "Lamb")

pytestmark = [
    pytest.mark.skipif(not _C.cuda_built, reason="the extension was built without CUDA (nvcc was not found)"),
    pytest.mark.skipif(not shutil.which("c++filt"), reason="needs c++filt (binutils)"),
    pytest.mark.xdist_group("static"),  # the binary is read once
]


@pytest.fixture(scope="module")
def kernels():
    try:
        found = static_cuda.kernels()
    except RuntimeError as error:
        pytest.skip(str(error))
    targets = {kernel.target for kernel in found}
    if not set(TARGETS) <= targets:
        pytest.skip(f"the extension was built for {sorted(targets)}; EXTRAP_CUDA_ARCHS must have 80, 90 and 100")
    return [kernel for kernel in found if kernel.target in TARGETS]


def test_every_rule_and_dtype_is_there(kernels):
    for target in TARGETS:
        names = {kernel.name for kernel in kernels if kernel.target == target}
        for rule in RULES:
            for pair in PAIRS:
                assert {f"step {rule} {pair}", f"step {rule} {pair} noise"} <= names
                assert (f"norms {rule} {pair}" in names) == rule.startswith(("Lars", "Lamb"))


def test_architectures_are_those_that_the_module_names(kernels):
    assert {kernel.target for kernel in kernels} == {f"sm_{arch}" for arch in _C.cuda_archs}


def test_nothing_spills(kernels):
    assert [k for k in kernels if k.stack or k.local_accesses] == []


def test_registers(kernels):
    """At most 64 for SGD and Adam, so that half of a multiprocessor's threads are there at a time; 80 with noise."""
    for kernel in kernels:
        _, rule, *storages = (kernel.name + " - -").split(" ")
        if kernel.name.startswith("step") and rule in ("Sgd", "SgdMomentum", "Adam") and "fp64" not in storages:
            assert kernel.registers <= (80 if kernel.name.endswith("noise") else 64), kernel
        assert kernel.registers <= (128 if "fp64" in storages else 85), kernel


@pytest.mark.parametrize("rule, buffers", [("Sgd", 0), ("SgdMomentum", 1), ("Adam", 2)])
def test_a_part_is_moved_in_one_access(kernels, rule, buffers):
    """128 bits, or 64 of 16-bit numbers. Loaded are x, the buffers, the gradient, the local one, and y where it counts;
    x, the buffers and y are stored."""
    for pair in PAIRS:
        half_y, half_gradient = ("16" in storage for storage in pair.split())
        half_loads, half_stores = half_y + 2 * half_gradient, int(half_y)
        for kernel in kernels:
            if kernel.name in (f"step {rule} {pair}", f"step {rule} {pair} noise"):
                assert kernel.wide_loads == 1 + buffers + 2 + 1 - half_loads, kernel
                assert kernel.wide_stores == 1 + buffers + 1 - half_stores, kernel
                if pair != "fp64 fp64":  # whose single numbers have 64 bits
                    assert (kernel.half_loads, kernel.half_stores) == (half_loads, half_stores), kernel


@helpers.needs_emulation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_bytes_are_those_of_the_floor(rule, dtype):
    assert static_cuda.bytes_moved(rule, dtype) == baselines.our_bytes(rule, dtype)


@helpers.needs_emulation
def test_report(kernels):
    rows = static_cuda.report_rows()
    assert {row.target for row in rows} >= set(TARGETS)
    assert all(row.access_bits == 128 and row.spilled == 0 and row.bytes == row.floor for row in rows)
    assert len(static_cuda.markdown().splitlines()) == 2 + len({kernel.name for kernel in static_cuda.kernels()})
