"""What Triton compiles the kernels to, for GPUs that need not be there: widths of accesses, conversions, spills."""

import importlib.metadata
import importlib.util
import os
import re

import pytest

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton"),
    pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="nothing is compiled under the interpreter"),
]
if importlib.util.find_spec("triton") is not None and "TRITON_INTERPRET" not in os.environ:
    from bench import static_triton
    from extrap_kernels.launch import Phase
    from extrap_kernels.rules import every_rule
    from extrap_kernels.triton_kernels import variants
    from extrap_kernels.triton_kernels.variants import Formats, Rule

    # Triton 3.6 passes the codes of a block between threads once.
    VERSION = tuple(int(part) for part in importlib.metadata.version("triton").split(".")[:2])
    pytestmark.append(pytest.mark.skipif(VERSION < (3, 9), reason="holds what Triton 3.9 and newer ones compile"))

    def rule(name, buffers):
        spec = every_rule()[name]
        return Rule(spec, spec.buffers[:buffers])

    def in_blocks(param, name, buffers):
        return rule(name, buffers).with_buffers(Formats.of(param), "uint8")

    BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2, "uint8": 1}
    TARGETS = tuple(static_triton.TARGETS)
    FEW = [
        variants.Step(rule("sgd", 1), Formats.of("float32")),
        variants.Step(rule("adam", 2), Formats.of("bfloat16"), noise="gaussian"),
        variants.TrustNorms(rule("lamb", 2), Formats.of("float16", "float32")),
        variants.SquareSums("bfloat16", "gradients"),
        variants.Step(rule("sgd", 1), in_blocks("float32", "sgd", 1)),
        variants.Step(rule("adam", 2), in_blocks("bfloat16", "adam", 2)),
        variants.TrustNorms(rule("lamb", 2), in_blocks("bfloat16", "lamb", 2)),
        variants.DirectionSquares(rule("sgd", 1), in_blocks("bfloat16", "sgd", 1), "momentum"),
        variants.DirectionSquares(rule("adam", 2), Formats.of("bfloat16"), "gradient"),
    ]
else:
    TARGETS, FEW = (), []

# Multiply-adds that a noise asks for, for each word.
FUSED = {None: 0, "uniform": 2, "gaussian": 11}


def accesses(variant):
    """Loads and stores of 128 bits and of 64, of 8 elements for each thread, in the path of aligned tensors."""
    loads, stores = arrays(variant)
    # Four numbers each, but of float64 two.
    wide = [sum(8 * size // 16 for size in sizes if size > 2) for sizes in (loads, stores)]
    return (*wide, *[sum(8 * size // 8 for size in sizes if size == 2) for sizes in (loads, stores)])


def arrays(variant):
    """The bytes of an element of each array that is loaded, and of each that is stored."""
    if isinstance(variant, variants.SquareSums):
        return [BYTES[variant.format]], []
    formats = variant.formats
    base, grad, param = BYTES[formats.base], BYTES[formats.grad], BYTES[formats.param]
    moments = [BYTES[formats.signed if buffer.signed else formats.unsigned] for buffer in variant.rule.buffers]
    if isinstance(variant, variants.TrustNorms):
        return [base, param, grad] + (moments if variant.rule.spec.name == "lamb" else []), []
    if isinstance(variant, variants.DirectionSquares):
        if variant.along == "momentum":
            return [*moments[:1], base, param], []  # x, too, in units of which it may be
        # The update is that of the averaged gradient.
        return [base, param, grad] + (moments if variant.along == "update" else [grad, *moments[1:]]), []
    # Both gradients; the moments, of which the first half of an extragradient step needs Adam's second one only.
    updates = variant.phase is Phase.UPDATE
    loads = [base, grad, grad] + (moments if updates else moments[1:])
    # y where it may be x that somebody has changed.
    if not updates or (variant.noise is None and BYTES[formats.param] == 2):
        loads.append(param)
    return loads, [base, param] + (moments if updates else [])


def check(row):
    assert row.accesses == accesses(row.variant), row[:-1]
    # A thread keeps its elements from load to store, whatever the formats, so a warp's accesses leave no gaps. Shared
    # memory serves the counter, and what sums need for their reductions.
    assert row.conversions == 0 and row.shared <= (4 if isinstance(row.variant, variants.Step) else 32), row[:-1]
    # Constants that are set aside around the loop, if anything: nothing for each element.
    assert row.spilled <= 80 and row.registers <= 255, row[:-1]
    # AMD's divisions are sequences of fused operations; the sum of squares divides nothing in double precision.
    divides = not isinstance(row.variant, variants.SquareSums) or row.variant.result == "rms"
    if row.target.startswith("sm") or not divides:
        operations = re.findall(r"\bfma\.[\w.]*|v_fmac?_f64", row.assembly)
        fused = sum(2 if operation.endswith("x2") else 1 for operation in operations)
        asked = FUSED[getattr(row.variant, "noise", None)]
        assert fused % asked == 0 if asked else fused == 0, (fused, row[:-1])


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_use_wide_accesses(target):
    for row in static_triton.rows(FEW, [target]):
        check(row)


@pytest.mark.parametrize("target, conversion", [("sm_80", r"cvt\.rn\.bf16"), ("sm_90", r"cvt\.rn\.bf16x2\.f32")])
def test_bfloat16_is_rounded_by_the_hardware(target, conversion):
    """Nothing of what makes up for the interpreter's conversion is in the compiled code."""
    (row,) = static_triton.rows([variants.Step(rule("sgd", 0), Formats.of("bfloat16"))], [target])
    stores = len(re.findall(r"st\.global\S*\.b16", row.assembly))
    assert re.search(conversion, row.assembly) and stores and "32767" not in row.assembly


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_binary_has_the_accesses_of_the_assembly(dtype):
    """ptxas keeps them: LDG and STG of 128 bits, and of 64, which those of the tables have, too."""
    step = variants.Step(rule("sgd", 1), Formats.of(dtype))
    sass = static_triton.cuobjdump(static_triton.compiled(step, "sm_90").asm["cubin"], "--dump-sass")
    wide_loads, wide_stores, _, half_stores = accesses(step)
    assert len(re.findall(r"LDG\.E\.128", sass)) == wide_loads
    assert [len(re.findall(rf"STG\.E\.{bits}\b", sass)) for bits in (128, 64)] == [wide_stores, half_stores]


@pytest.mark.parametrize("name, buffers", [("sgd", 1), ("adam", 2)])
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_codes_are_accessed_by_four(target, name, buffers):
    """By bytes go exponents, one for four numbers of a thread, and both in the path of tensors that lie unaligned."""
    step = variants.Step(rule(name, buffers), in_blocks("bfloat16", name, buffers))
    sass = static_triton.cuobjdump(static_triton.compiled(step, target).asm["cubin"], "--dump-sass")
    for access in ("LDG", "STG"):
        assert len(re.findall(rf"{access}\.E\.U8\b", sass)) == buffers * (2 + 2), access


RULE = """
import triton

@triton.jit
def direction(c, g, l, x, buffers):
    return g * {}, l, buffers
"""


def test_cache_knows_a_kernel_by_the_rule_functions_that_it_is_given(tmp_path):
    """A rule that was changed is compiled anew, though its functions keep their names."""
    keys = []
    for factor in (2.0, 3.0, 2.0):
        path = tmp_path / f"rule_{len(keys)}.py"
        path.write_text(RULE.format(factor))
        spec = importlib.util.spec_from_file_location("rule_of_a_test", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        keys.append(static_triton.source(FEW[0], "sm_90", DIRECTION=module.direction).hash())
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_that_a_step_may_ask_for(target):
    """All of them compile; that these are all is test_triton_parity.py's."""
    for row in static_triton.rows(variants.every_variant(), [target]):
        check(row)
