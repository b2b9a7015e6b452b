"""Every kernel that a step may ask for, and how each of them is launched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Union

import triton.language as tl
from extrap_kernels.triton_kernels.norms import square_sums, trust_norms
from extrap_kernels.triton_kernels.rules import RULES, RULES_WITH_NORMS
from extrap_kernels.triton_kernels.step import step_kernel

DTYPES = {"float32": tl.float32, "float64": tl.float64, "bfloat16": tl.bfloat16, "float16": tl.float16}
# Of parameter and gradient: a gradient has the dtype of its parameter or of the base iterate.
DTYPE_PAIRS = (
    ("float32", "float32"),
    ("float64", "float64"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("float16", "float16"),
    ("float16", "float32"),
)
NOISES = ("uniform", "gaussian")


def arithmetic(dtype: str) -> str:
    """Return the dtype of the base iterate for a parameter's dtype."""
    return "float64" if dtype == "float64" else "float32"


@dataclass(frozen=True)
class Step:
    """A variant of :func:`step_kernel`: rule and number of its buffers, dtypes, which half, noise, of sharded tensors.

    Without noise, sharded tensors are stepped as all others are. With it they have kernels of their own: the numbers of
    the elements in the whole tensor would take registers in those of all others.
    """

    rule: str
    buffers: int
    param: str
    grad: str
    correct: bool
    noise: Optional[str]
    sharded: bool = False

    kernel = step_kernel

    def constants(self) -> dict[str, Any]:
        """Return the compile-time arguments, without the block."""
        return {
            "A": DTYPES[arithmetic(self.param)],
            "PARAM": DTYPES[self.param],
            "GRAD": DTYPES[self.grad],
            "RULE": self.rule,
            "BUFFERS": self.buffers,
            "CORRECT": self.correct,
            "NOISE": self.noise,
            "SHARDED": self.sharded,
        }


@dataclass(frozen=True)
class TrustNorms:
    """A variant of :func:`trust_norms`: rule and number of its buffers, dtypes."""

    rule: str
    buffers: int
    param: str
    grad: str

    kernel = trust_norms

    def constants(self) -> dict[str, Any]:
        """Return the compile-time arguments, without the block."""
        return {
            "A": DTYPES[arithmetic(self.param)],
            "GRAD": DTYPES[self.grad],
            "RULE": self.rule,
            "BUFFERS": self.buffers,
        }


@dataclass(frozen=True)
class SquareSums:
    """A variant of :func:`square_sums`: dtype of what is summed, ``RESULT``."""

    dtype: str
    result: str

    kernel = square_sums

    def constants(self) -> dict[str, Any]:
        """Return the compile-time arguments, without the block."""
        return {
            "A": DTYPES[arithmetic(self.dtype)],
            "DTYPE": DTYPES[self.dtype],
            "RESULT": self.result,
        }


Variant = Union[Step, TrustNorms, SquareSums]


def every_variant() -> Iterator[Variant]:
    """Yield every kernel that :mod:`extrap_kernels.backends.triton` may ask for."""
    halves: list[tuple[bool, Optional[str], bool]] = [(False, None, False), (True, None, False)]
    halves += [(True, noise, sharded) for noise in NOISES for sharded in (False, True)]
    for rule, buffers in RULES:
        for param, grad in DTYPE_PAIRS:
            for half in halves:
                yield Step(rule, buffers, param, grad, *half)
            if rule in RULES_WITH_NORMS:
                yield TrustNorms(rule, buffers, param, grad)
    for dtype in DTYPES:
        yield SquareSums(dtype, "gradients")
    for dtype in ("float32", "float64"):
        for result in ("rows", "rms"):
            yield SquareSums(dtype, result)


class Tiling(NamedTuple):
    """How the work is cut, in elements, and the options that all kernels are compiled with."""

    block: int  # of a tile
    chunk: int  # of a program that steps
    piece: int  # of a program that sums
    num_warps: int
    # Without contraction all backends give the same bits.
    enable_fp_fusion: bool = False


def compiled_tiling(warp_size: int) -> Tiling:
    """Return the tiling for GPUs.

    8 elements for each thread are one 16-byte access of a 16-bit dtype, two of float32 and four of float64. A program
    of 128 threads leaves room for many on a multiprocessor, which hide what each of them waits for. Its chunk repays
    what it costs to read the tables and to make the constants.
    """
    return Tiling(block=1024, chunk=8192, piece=32768, num_warps=128 // warp_size)


def interpreter_tiling(largest: int) -> Tiling:
    """Return the tiling for the interpreter, whose cost is that of the programs; ``largest``: numel of any tensor."""
    block = min(max(64, 1 << (largest - 1).bit_length()), 65536)
    return Tiling(block, block, block, num_warps=4)


def launch(variant: Variant, programs: int, tiling: Tiling, *arguments: Any) -> None:
    """Launch ``programs`` programs of a variant on the current stream of the current device."""
    if programs > 0:
        variant.kernel[(programs,)](
            *arguments,
            **variant.constants(),
            BLOCK=tiling.block,
            num_warps=tiling.num_warps,
            enable_fp_fusion=tiling.enable_fp_fusion,
        )
