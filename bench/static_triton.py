"""What Triton's compiler makes of the kernels, for GPUs that need not be there: registers, spills, access widths.

``python -m bench.static_triton`` prints the table of docs/triton.md; it takes about a minute.
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
from extrap_kernels.triton_kernels import variants
from extrap_kernels.triton_kernels.options import NUMBERS
from extrap_kernels.triton_kernels.rules import RULES_WITH_NORMS
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bench.static import KernelRow

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx90a": GPUTarget("hip", "gfx90a", 64),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_POINTERS = {"counters": "*i32", "rms": "*fp64", "norms": "*fp64", "partial": "*fp64", "sums": "*fp64"}


class Row(NamedTuple):
    """One kernel on one target.

    Attributes:
        variant: which kernel.
        target: key of :data:`TARGETS`.
        seconds: time of its compilation, without the cache.
        registers: 32-bit (vector) registers of a thread.
        spilled: bytes of a thread's stack or local memory on NVIDIA, spilled vector registers on AMD.
        loads: 128-bit loads from global memory in the program text.
        stores: 128-bit stores to global memory in the program text.
        assembly: PTX or amdgcn.
    """

    variant: variants.Variant
    target: str
    seconds: float
    registers: int
    spilled: int
    loads: int
    stores: int
    assembly: str


def compiled(variant: variants.Variant, target: str) -> Any:
    """Compile a variant as the dispatcher would launch it on ``target``; return Triton's compiled kernel."""
    gpu = TARGETS[target]
    tiling = variants.compiled_tiling(gpu.warp_size)
    constants = {**variant.constants(), "BLOCK": tiling.block}
    names = variant.kernel.arg_names
    numbers = {name: "i64" for name in NUMBERS}
    signature = {n: "constexpr" if n in constants else numbers.get(n) or _POINTERS.get(n, "*i64") for n in names}
    # PyTorch aligns what it allocates.
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    source = ASTSource(fn=variant.kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": tiling.num_warps, "enable_fp_fusion": tiling.enable_fp_fusion}
    return triton.compile(source, target=gpu, options=options)


def rows(which: Iterable[variants.Variant], targets: Iterable[str] = tuple(TARGETS)) -> Iterator[Row]:
    """Compile variants for targets, without Triton's cache, and read what became of them.

    Raises:
        RuntimeError: the tool that reads NVIDIA's binaries is not there.
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
                    yield _read(variant, target, time.perf_counter() - start, kernel.asm)
        finally:
            if before is None:
                del os.environ["TRITON_CACHE_DIR"]
            else:
                os.environ["TRITON_CACHE_DIR"] = before


def _read(variant: variants.Variant, target: str, seconds: float, asm: Any) -> Row:
    if "ptx" in asm:
        assembly = asm["ptx"]
        usage = cuobjdump(asm["cubin"], "--dump-resource-usage")
        registers = int(_only(r"REG:(\d+)", usage))
        spilled = max(int(_only(r"STACK:(\d+)", usage)), int(_only(r"LOCAL:(\d+)", usage)))
        wide = r"^\s*(?:@\S+ )?{}\.global\S*\.(?:v4\.[bu]32|v2\.[bu]64)"
        loads, stores = wide.format("ld"), wide.format("st")
    else:
        assembly = asm["amdgcn"]
        registers, spilled = (
            int(_only(r"\.vgpr_count:\s+(\d+)", assembly)),
            int(_only(r"\.vgpr_spill_count:\s+(\d+)", assembly)),
        )
        loads, stores = (rf"^\s*(?:global|buffer|flat)_{kind}_dwordx4" for kind in ("load", "store"))
    wide_loads, wide_stores = (len(re.findall(pattern, assembly, re.MULTILINE)) for pattern in (loads, stores))
    return Row(variant, target, seconds, registers, spilled, wide_loads, wide_stores, assembly)


def _only(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"no {pattern!r} in what the tools say of a kernel")
    return match[1]


def cuobjdump(cubin: bytes, *options: str) -> str:
    """Return what NVIDIA's cuobjdump, Triton's own or one on PATH, prints of a binary.

    Raises:
        RuntimeError: there is none.
    """
    own = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    tool = str(own) if own.exists() else shutil.which("cuobjdump")
    if tool is None:
        raise RuntimeError("cuobjdump not found: install the CUDA toolkit or a Triton that brings it")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, *options, file.name], check=True, capture_output=True, text=True).stdout


def markdown(which: Iterable[variants.Variant]) -> str:
    """Return a table with a line for each variant: registers and spills for each target, and its 128-bit accesses."""
    lines = [f"| kernel | parameter, gradient | noise | {' | '.join(TARGETS)} | 128-bit loads, stores |"]
    lines.append("|---" * (4 + len(TARGETS)) + "|")
    for variant in which:
        found = list(rows([variant]))
        name = f"{type(variant).__name__} {getattr(variant, 'rule', '')}".strip()
        dtypes = f"{variant.param}, {variant.grad}" if not isinstance(variant, variants.SquareSums) else variant.dtype
        sizes = " | ".join(f"{row.registers}" + (f" + {row.spilled}" if row.spilled else "") for row in found)
        accesses = ", ".join(sorted({f"{row.loads}, {row.stores}" for row in found}))
        lines.append(f"| {name} | {dtypes} | {getattr(variant, 'noise', None) or ''} | {sizes} | {accesses} |")
    return "\n".join(lines)


def report_rows() -> list[KernelRow]:
    """Return what :mod:`bench.static` reports: steps with and without noise, along a gradient that is not averaged."""
    steps = [
        variants.Step(rule, buffers, param, param, True, noise)
        for rule, buffers in (("sgd", 1), ("adam", 2))
        for param in ("float32", "bfloat16")
        for noise in (None, "gaussian")
    ]
    return [_kernel_row(step, row) for step in steps for row in rows([step])]


def _kernel_row(step: variants.Step, row: Row) -> KernelRow:
    size = {"float32": 4, "bfloat16": 2}[step.param]
    floor = 2 * size + 8 * (1 + step.buffers)
    # Of a thread with 8 elements, without the gradient of this worker's own, which is read only where there is one.
    by_wide_accesses = (row.loads + row.stores) * 16 / 8 - size
    name = f"{step.rule}, {step.param}" + (f", {step.noise} noise" if step.noise else "")
    # What the floor needs and wide accesses do not move, narrow ones must.
    bits = 128 if by_wide_accesses >= floor else 32
    return KernelRow(name, row.target, row.registers, row.spilled, bits, max(by_wide_accesses, floor), floor)


def launches(rule: str, numels: Sequence[int]) -> int:
    """Return the launches of a step without clipping and without noise that is scaled by an rms."""
    return (2 if rule in RULES_WITH_NORMS else 1) if numels else 0


def main() -> None:
    """Print the table."""
    steps = [
        variants.Step(rule, buffers, param, param, True, noise)
        for rule, buffers in (("sgd", 1), ("adam", 2), ("lars", 1), ("lamb", 2))
        for param in ("float32", "bfloat16")
        for noise in (None, "uniform", "gaussian")
    ]
    norms = [
        variants.TrustNorms("lars", 1, "bfloat16", "bfloat16"),
        variants.TrustNorms("lamb", 2, "bfloat16", "bfloat16"),
    ]
    sums = [variants.SquareSums("bfloat16", "gradients"), variants.SquareSums("float32", "rms")]
    print(markdown([*steps, *norms, *sums]))


if __name__ == "__main__":
    main()
