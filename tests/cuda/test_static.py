"""What the compiler made of the CUDA kernels in the extension as it was built: no GPU needed."""

import itertools
import re
import shutil

import helpers
import pytest
import torch

from bench import baselines, static, static_cuda
from extrap_kernels import _C

TARGETS = ("sm_80", "sm_90", "sm_100")
PAIRS = ("fp32 fp32", "fp64 fp64", "bf16 bf16", "bf16 fp32", "fp16 fp16", "fp16 fp32")
RULES = ("Sgd", "SgdMomentum", "Adam", "Lars", "LarsMomentum", "Lamb")
COMPACT, BLOCKS = " (bf16 moments)", " (8-bit moments)"

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
                assert (f"directions {rule} {pair}" in names) != rule.startswith(("Lars", "Lamb"))


def test_architectures_are_those_that_the_module_names(kernels):
    assert {kernel.target for kernel in kernels} == {f"sm_{arch}" for arch in _C.cuda_archs}


def test_nothing_spills(kernels):
    assert [k for k in kernels if k.stack or k.local_accesses] == []


def test_registers(kernels):
    """At most 64 for SGD and Adam, so that half of a multiprocessor's threads are there at a time; with noise 72.

    80 where moments are in 8 bits, or in fewer than 32 and added to noise, for rules with norms, and for the norms and
    sums themselves.
    """
    for kernel in kernels:
        noise, compact = kernel.name.endswith("noise"), "moments)" in kernel.name
        simple = re.match("step (Sgd|SgdMomentum|Adam) ", kernel.name) and not (noise and compact)
        simple = simple and BLOCKS not in kernel.name
        assert kernel.registers <= ((72 if noise else 64) if simple else 80), kernel


@pytest.mark.parametrize(
    "rule, buffers, compact",
    [
        ("Sgd", 0, ""),
        *((*rule, moments) for rule in (("SgdMomentum", 1), ("Adam", 2)) for moments in ("", COMPACT, BLOCKS)),
    ],
)
def test_a_part_is_moved_in_one_access(kernels, rule, buffers, compact):
    """128 bits, or 64 of 16-bit numbers and of the upper halves of a base in 24 bits, or 32 of codes and of low bytes.

    Loaded are x, the buffers, the gradient, the local one, and y where it counts; x, the buffers and y are stored. Of
    blocks, a chunk's parts have a path of their own, beside that of parts whose buffers are only read."""
    for pair in [pair for pair in PAIRS if not compact or pair != "fp64 fp64"]:
        half_y, half_gradient = ("16" in storage for storage in pair.split())
        half_buffers, wide_buffers = buffers * (compact == COMPACT), buffers * (compact == "")
        half_base = half_y and compact != ""
        half_loads, half_stores = half_base + half_y + 2 * half_gradient, half_base + half_y
        found = [k for k in kernels if k.name in (f"step {rule} {pair}{compact}", f"step {rule} {pair}{compact} noise")]
        assert len(found) == 2 * len(TARGETS)
        for kernel in found:
            times = 1 + static_cuda.parts_together(kernel.name) if compact == BLOCKS else 1
            assert kernel.wide_loads == times * (1 + wide_buffers + 2 + 1 - half_loads), kernel
            assert kernel.wide_stores == times * (1 + wide_buffers + 1 - half_stores), kernel
            if pair != "fp64 fp64":  # whose single numbers have 64 bits
                halves = times * (half_loads + half_buffers), times * (half_stores + half_buffers)
                assert (kernel.half_loads, kernel.half_stores) == halves, kernel


def test_instructions_of_an_element(kernels):
    """Every step has a number: Adam more than SGD, Gaussian noise more than uniform, and that more than none."""
    steps = {(k.name, k.target): k.instructions for k in kernels if k.name.startswith("step")}
    assert [k for k in kernels if k.instructions and not k.name.startswith("step")] == []
    for (name, target), found in steps.items():
        if name.endswith("noise"):
            without = steps[name.removesuffix(" noise"), target][""]
            assert without < found["uniform"] < found["gaussian"] and len(found) == 2, name
        else:
            assert list(found) == [""], name
    for target, pair, noise in itertools.product(TARGETS, PAIRS, ("", "uniform", "gaussian")):
        end = f"{pair} noise" if noise else pair
        sgd, momentum, adam = (steps[f"step {rule} {end}", target][noise] for rule in ("Sgd", "SgdMomentum", "Adam"))
        assert 4 < min(sgd, momentum) and max(sgd, momentum) < adam < 200, (target, end)
    # A division and a root in double precision, and half as many elements for what a part takes once.
    assert steps["step Adam fp64 fp64", "sm_90"][""] > 1.5 * steps["step Adam fp32 fp32", "sm_90"][""]


@helpers.needs_emulation
def test_issue_slots(kernels):
    """The share of an H100's slots, from 32 bytes of Adam and its instructions on sm_90."""
    rows = {row["kernel"]: row for row in static_cuda.slot_rows()}
    counts = {k.name: k.instructions for k in kernels if k.target == "sm_90" and k.instructions}
    titles = {f"{name}, {noise}" if noise else name for name, found in counts.items() for noise in found}
    one_dtype = {title for title in titles if len(set(title.split()[2:4])) == 1}
    assert rows.keys() == (titles if hasattr(torch.Tensor, "grad_dtype") else one_dtype)
    row, instructions = rows["step Adam fp32 fp32"], counts["step Adam fp32 fp32"][""]
    assert row["B/param, sectors"] == 32 and row["instructions, sm_90"] == instructions
    assert row["model: slots of H100, sm_90"] == f"{100 * instructions * 3350 / 32 / (4 * 32 * 132 * 1.98):.0f}%"
    assert rows["step Lamb bf16 bf16 (bf16 moments) noise, gaussian"]["B/param, sectors"] == 3 + 3 + 4 + 2 * 4
    # Of exponents, a warp asks for one sector for 128 numbers.
    assert rows["step Adam bf16 bf16 (8-bit moments)"]["B/param, sectors"] == 3 + 3 + 4 + 2 * 2 + 2 * 2 * 32 / 128


@helpers.needs_emulation
@pytest.mark.parametrize(
    "options", [{}, {"state_dtype": torch.bfloat16}, {"state_dtype": torch.uint8}], ids=["", "compact", "blocks"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_bytes_are_those_of_the_floor(rule, dtype, options):
    repeated = _repeated_exponents(baselines.BUFFERS[rule]) if options.get("state_dtype") == torch.uint8 else 0
    floor = baselines.our_bytes(rule, dtype, **options)
    assert static_cuda.bytes_moved(rule, dtype, **options) == floor + repeated


def _repeated_exponents(buffers):
    """Bytes a parameter that are asked for again: each of the four lanes of a block loads its exponent."""
    return buffers * 3 / 16


@helpers.needs_emulation
def test_report(kernels):
    rows = static_cuda.report_rows()
    assert {row.target for row in rows} >= set(TARGETS)
    for row in rows:
        # Where a base has 24 bits, nothing has 32: four numbers are 64 bits or fewer.
        is_compact = "bf16" in row.kernel.split(" (")[0] and "moments" in row.kernel
        assert (row.access_bits, row.spilled) == (64 if is_compact else 128, 0), row
    for row in rows:
        buffers = 2 if "Adam" in row.kernel else 1
        assert row.bytes == row.floor + (_repeated_exponents(buffers) if BLOCKS in row.kernel else 0), row
    assert {row.kernel.partition(COMPACT)[1] for row in rows} == {"", COMPACT}
    table, model = static_cuda.markdown().split(f"\n\n### {static.SLOTS}\n\n")
    assert len(table.splitlines()) == 2 + len({kernel.name for kernel in static_cuda.kernels()})
    assert len(model.splitlines()) == 2 + len(static_cuda.slot_rows())
