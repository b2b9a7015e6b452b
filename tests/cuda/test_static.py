"""What the compiler made of the CUDA kernels in the extension as it was built: no GPU needed."""

import re
import shutil

import helpers
import pytest
import torch

from bench import baselines, static_cuda
from extrap_kernels import _C

TARGETS = ("sm_80", "sm_90", "sm_100")
PAIRS = ("fp32 fp32", "fp64 fp64", "bf16 bf16", "bf16 fp32", "fp16 fp16", "fp16 fp32")
RULES = ("Sgd", "SgdMomentum", "Adam", "Lars", "LarsMomentum", "Lamb")
COMPACT = " (bf16 moments)"

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
    """At most 64 for SGD and Adam, so that half of a multiprocessor's threads are there at a time; with noise 72.

    80 where 16-bit moments are added to noise, for rules with norms, and for the norms and sums themselves.
    """
    for kernel in kernels:
        noise, compact = kernel.name.endswith("noise"), COMPACT in kernel.name
        simple = re.match("step (Sgd|SgdMomentum|Adam) ", kernel.name) and not (noise and compact)
        assert kernel.registers <= ((72 if noise else 64) if simple else 80), kernel


@pytest.mark.parametrize(
    "rule, buffers, compact",
    [("Sgd", 0, ""), *((*rule, moments) for rule in (("SgdMomentum", 1), ("Adam", 2)) for moments in ("", COMPACT))],
)
def test_a_part_is_moved_in_one_access(kernels, rule, buffers, compact):
    """128 bits, or 64 of 16-bit numbers. Loaded are x, the buffers, the gradient, the local one, and y where it counts;
    x, the buffers and y are stored."""
    for pair in [pair for pair in PAIRS if not compact or pair != "fp64 fp64"]:
        half_y, half_gradient = ("16" in storage for storage in pair.split())
        half_buffers = buffers if compact else 0
        half_loads, half_stores = half_y + 2 * half_gradient + half_buffers, half_y + half_buffers
        found = [k for k in kernels if k.name in (f"step {rule} {pair}{compact}", f"step {rule} {pair}{compact} noise")]
        assert len(found) == 2 * len(TARGETS)
        for kernel in found:
            assert kernel.wide_loads == 1 + buffers + 2 + 1 - half_loads, kernel
            assert kernel.wide_stores == 1 + buffers + 1 - half_stores, kernel
            if pair != "fp64 fp64":  # whose single numbers have 64 bits
                assert (kernel.half_loads, kernel.half_stores) == (half_loads, half_stores), kernel


@helpers.needs_emulation
@pytest.mark.parametrize("options", [{}, {"state_dtype": torch.bfloat16}], ids=["", "compact"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_bytes_are_those_of_the_floor(rule, dtype, options):
    assert static_cuda.bytes_moved(rule, dtype, **options) == baselines.our_bytes(rule, dtype, **options)


@helpers.needs_emulation
def test_report(kernels):
    rows = static_cuda.report_rows()
    assert {row.target for row in rows} >= set(TARGETS)
    assert all(row.access_bits == 128 and row.spilled == 0 and row.bytes == row.floor for row in rows)
    assert len(static_cuda.markdown().splitlines()) == 2 + len({kernel.name for kernel in static_cuda.kernels()})
