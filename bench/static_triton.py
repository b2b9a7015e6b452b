"""The Triton kernels compiled for GPUs that need not be present: registers, spills, access widths.

``python -m bench static --write-docs`` writes :func:`markdown` to docs/generated/triton_kernels.md, and
``python -m bench.static_triton`` prints it; that takes about a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bench import baselines
from bench.static import KernelRow
from extrap_kernels.options import CODES
from extrap_kernels.rules import every_rule
from extrap_kernels.triton_kernels import variants
from extrap_kernels.triton_kernels.variants import Formats, Rule

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx90a": GPUTarget("hip", "gfx90a", 64),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Of a number; in blocks, with its part of an exponent.
_BYTES = {"float32": 4, "bfloat16": 2, "uint8": 1 + 1 / 16}
_ARGUMENTS = {
    "chunks": "*i32",
    "counters": "*i32",
    "length": "i32",
    "rms": "*fp64",
    "norms": "*fp64",
    "partial": "*fp64",
    "sums": "*fp64",
}


class Accesses(NamedTuple):
    """Of global memory in the program text: of 128 bits, and of 64, which are four numbers in a 16-bit format."""

    wide_loads: int
    wide_stores: int
    half_loads: int
    half_stores: int


class Row(NamedTuple):
    """One kernel on one target.

    Attributes:
        variant: which kernel.
        target: key of :data:`TARGETS`.
        seconds: compile time, without the cache.
        registers: 32-bit (vector) registers of a thread.
        spilled: bytes of a thread's stack or local memory on NVIDIA, spilled vector registers on AMD.
        accesses: how many, by width.
        shared: bytes of shared memory.
        conversions: how often numbers move between threads, so that these hold others.
        assembly: PTX or amdgcn.
    """

    variant: variants.Variant
    target: str
    seconds: float
    registers: int
    spilled: int
    accesses: Accesses
    shared: int
    conversions: int
    assembly: str


def source(variant: variants.Variant, target: str, **changed: Any) -> ASTSource:
    """Return what Triton compiles a variant from, with some of its constants ``changed``."""
    constants = {**variant.constants(), "BLOCK": variants.compiled_tiling(TARGETS[target].warp_size).block, **changed}
    names = variant.kernel.arg_names
    signature = {n: "constexpr" if n in constants else _ARGUMENTS.get(n, "*i64") for n in names}
    # PyTorch aligns what it allocates, and a chunk is many vectors.
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name] != "constexpr"}
    return ASTSource(fn=variant.kernel, signature=signature, constexprs=constants, attrs=aligned)


def compiled(variant: variants.Variant, target: str) -> Any:
    """Compile a variant as the dispatcher would launch it on ``target``; return Triton's compiled kernel."""
    tiling = variants.compiled_tiling(TARGETS[target].warp_size)
    options = {"num_warps": tiling.num_warps, "enable_fp_fusion": tiling.enable_fp_fusion}
    return triton.compile(source(variant, target), target=TARGETS[target], options=options)


def rows(which: Iterable[variants.Variant], targets: Iterable[str] = tuple(TARGETS)) -> Iterator[Row]:
    """Compile variants for targets, without Triton's cache, and read the results.

    Raises:
        RuntimeError: cuobjdump, which reads NVIDIA's binaries, was not found.
    """
    which = list(which)
    before = os.environ.get("TRITON_CACHE_DIR")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        try:
            for target in targets:
                for variant in which:
                    start = time.perf_counter()
                    kernel = compiled(variant, target)
                    yield _read(variant, target, time.perf_counter() - start, kernel)
        finally:
            if before is None:
                del os.environ["TRITON_CACHE_DIR"]
            else:
                os.environ["TRITON_CACHE_DIR"] = before


def _read(variant: variants.Variant, target: str, seconds: float, kernel: Any) -> Row:
    asm = kernel.asm
    if "ptx" in asm:
        assembly = asm["ptx"]
        usage = cuobjdump(asm["cubin"], "--dump-resource-usage")
        registers = int(_only(r"REG:(\d+)", usage))
        spilled = max(int(_only(r"STACK:(\d+)", usage)), int(_only(r"LOCAL:(\d+)", usage)))
        accesses = [
            _count(rf"^\s*(?:@\S+ )?{op}\.global\S*\.(?:{widths})", assembly)
            for widths in (r"v4\.[bu]32|v2\.[bu]64", r"v2\.[bu]32")
            for op in ("ld", "st")
        ]
    else:
        assembly = asm["amdgcn"]
        registers, spilled = (
            int(_only(r"\.vgpr_count:\s+(\d+)", assembly)),
            int(_only(r"\.vgpr_spill_count:\s+(\d+)", assembly)),
        )
        accesses = [_count(rf"^\s*(?:global|buffer|flat)_{op}_dwordx4", assembly) for op in ("load", "store")]
        # A number of float64 has the instruction of four numbers of 16 bits: the IR tells them apart.
        accesses += [_count(rf"call .*buffer\.{op}\.v2i32\(", asm["llir"]) for op in ("load", "store")]
    conversions = _count("ttg.convert_layout", asm["ttgir"])
    shared = kernel.metadata.shared
    return Row(variant, target, seconds, registers, spilled, Accesses(*accesses), shared, conversions, assembly)


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.MULTILINE))


def _only(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"the tools' output about a kernel lacks {pattern!r}")
    return match[1]


def cuobjdump(cubin: bytes, *options: str) -> str:
    """Run NVIDIA's cuobjdump, Triton's own or one from PATH, on a binary and return what it prints.

    Raises:
        RuntimeError: cuobjdump was not found.
    """
    own = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    tool = str(own) if own.exists() else shutil.which("cuobjdump")
    if tool is None:
        raise RuntimeError("cuobjdump not found: install the CUDA toolkit or a Triton that brings it")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, *options, file.name], check=True, capture_output=True, text=True).stdout


def _rule(name: str) -> Rule:
    """Return a rule with all of its buffers."""
    spec = every_rule()[name]
    return Rule(spec, spec.buffers)


def _in_blocks(name: str, param: str) -> Formats:
    return _rule(name).with_buffers(Formats.of(param), "uint8")


def _documented() -> list[variants.Variant]:
    """Return the kernels of the table: every rule with and without noise, and the sums."""
    steps = [
        variants.Step(_rule(name), Formats.of(param), noise=noise)
        for name in ("sgd", "adam", "lars", "lamb")
        for param in ("float32", "bfloat16")
        for noise in CODES["noise"]
    ]
    steps += [variants.Step(_rule(name), _in_blocks(name, "bfloat16")) for name in ("sgd", "adam", "lars", "lamb")]
    norms = [variants.TrustNorms(_rule(name), Formats.of("bfloat16")) for name in ("lars", "lamb")]
    sums = [variants.SquareSums("bfloat16", "gradients"), variants.SquareSums("float32", "rms")]
    return [*steps, *norms, *sums]


def _title(variant: variants.Variant) -> tuple[str, str]:
    """Return what a table calls a kernel, and the dtypes of parameter and gradient, or of what it sums."""
    kind = type(variant).__name__
    if isinstance(variant, variants.SquareSums):
        return kind, variant.format
    state = ", 8-bit state" if variant.formats.signed == "uint8" else ""
    return f"{kind} {variant.rule.spec.name}{state}", f"{variant.formats.param}, {variant.formats.grad}"


def markdown() -> str:
    """Return a table with a line per kernel: registers and spills on each target, and its wide accesses."""
    widths = "128-bit loads, stores | 64-bit loads, stores"
    lines = [f"| kernel | parameter, gradient | noise | {' | '.join(TARGETS)} | {widths} |"]
    lines.append("|---" * (5 + len(TARGETS)) + "|")
    for variant in _documented():
        found = list(rows([variant]))
        name, dtypes = _title(variant)
        sizes = " | ".join(f"{row.registers}" + (f" + {row.spilled}" if row.spilled else "") for row in found)
        accesses = {row.accesses for row in found}
        wide = "; ".join(sorted({f"{each.wide_loads}, {each.wide_stores}" for each in accesses}))
        half = "; ".join(sorted({f"{each.half_loads}, {each.half_stores}" for each in accesses}))
        lines.append(f"| {name} | {dtypes} | {getattr(variant, 'noise', None) or ''} | {sizes} | {wide} | {half} |")
    return "\n".join(lines)


def report_rows() -> list[KernelRow]:
    """Return the rows for :mod:`bench.static`: steps with and without noise that may read a local gradient."""
    steps = [
        variants.Step(_rule(name), Formats.of(param), noise=noise)
        for name in ("sgd", "adam")
        for param in ("float32", "bfloat16")
        for noise in (None, "gaussian")
    ]
    steps += [variants.Step(_rule(name), _in_blocks(name, "bfloat16")) for name in ("sgd", "adam")]
    return [_kernel_row(step, row) for step in steps for row in rows([step])]


def _kernel_row(step: variants.Step, row: Row) -> KernelRow:
    formats = step.formats
    size = _BYTES[formats.param]
    buffers = [formats.signed if buffer.signed else formats.unsigned for buffer in step.rule.buffers]
    floor = 2 * size + 2 * _BYTES[formats.base] + sum(2 * _BYTES[each] for each in buffers)
    # A thread takes 8 elements. The local gradient does not count: it is read only if there is one.
    wide, half = sum(row.accesses[:2]), sum(row.accesses[2:])
    by_wide_accesses = (wide * 16 + half * 8) / 8 - size
    name = f"{step.rule.spec.name}, {formats.param}" + (f", {step.noise} noise" if step.noise else "")
    name += ", 8-bit state" if "uint8" in buffers else ""
    # If the wide accesses move less than the floor, narrow ones must move the rest: four codes at a time, for example.
    bits = (64 if half else 128) if by_wide_accesses >= floor else 32
    return KernelRow(name, row.target, row.registers, row.spilled, bits, max(by_wide_accesses, floor), floor)


def launches(rule: str, numels: Sequence[int]) -> int:
    """Return the launches of a step that neither clips nor scales noise by an rms."""
    return (2 if baselines.OURS[rule].rule.SPEC.norm else 1) if numels else 0


if __name__ == "__main__":
    print(markdown())
