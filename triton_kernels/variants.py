"""Every kernel that a step may ask for, and how each of them is launched."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, Optional, Union

import triton.language as tl

from extrap_kernels.launch import PHASES, Phase
from extrap_kernels.options import CODES
from extrap_kernels.rules import Buffer, RuleSpec, every_rule
from extrap_kernels.state.float24 import SPLIT
from extrap_kernels.state.formats import STATE_FORMATS
from extrap_kernels.triton_kernels import rules
from extrap_kernels.triton_kernels.kernels import distributions
from extrap_kernels.triton_kernels.kernels.direction_norm import direction_squares
from extrap_kernels.triton_kernels.kernels.norms import square_sums, trust_norms
from extrap_kernels.triton_kernels.kernels.step import step_kernel

# Of parameter and gradient: a gradient has the dtype of its parameter or of the arithmetic.
DTYPE_PAIRS = (
    ("float32", "float32"),
    ("float64", "float64"),
    ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
    ("float16", "float16"),
    ("float16", "float32"),
)


# Of buffers, besides that of the arithmetic, if that is float32.
_BUFFER_FORMATS = {
    str(chosen.signed.dtype).removeprefix("torch."): chosen for chosen in STATE_FORMATS.values() if chosen
}


# Of the base iterate, where it is split in two tensors: that of the upper halves.
SPLIT_BASE = str(SPLIT.dtype).removeprefix("torch.")


def arithmetic(dtype: str) -> str:
    """Return the dtype of the arithmetic for a parameter's dtype."""
    return "float64" if dtype == "float64" else "float32"


class Formats(NamedTuple):
    """What the numbers of each kind of tensor are stored in, by the names of torch and Triton."""

    param: str
    grad: str
    base: str
    signed: str  # buffers of the rule with numbers of either sign
    unsigned: str  # the others

    @classmethod
    def of(cls, param: str, grad: Optional[str] = None) -> Formats:
        """Return the formats of a state in the dtype of the arithmetic; gradients are as parameters by default."""
        a = arithmetic(param)
        return cls(param, grad or param, a, a, a)

    def constants(self) -> dict[str, Any]:
        """Return the compile-time arguments."""
        dtypes = {name.upper(): getattr(tl, dtype) for name, dtype in zip(self._fields, self)}
        return {"A": getattr(tl, arithmetic(self.param)), **dtypes}


class Rule(NamedTuple):
    """A rule with the buffers that it keeps."""

    spec: RuleSpec
    buffers: tuple[Buffer, ...]

    @classmethod
    def of(cls, spec: RuleSpec, names: Sequence[str]) -> Rule:
        """Return the rule with the buffers of these names."""
        return cls(spec, tuple(buffer for buffer in spec.buffers if buffer.name in names))

    def every_format(self) -> Iterator[Formats]:
        """Yield the formats that its tensors may have."""
        for pair in DTYPE_PAIRS:
            plain = Formats.of(*pair)
            yield plain
            base = plain.base if pair[0] == plain.base else SPLIT_BASE
            if self.buffers and plain.base == "float32":
                yield from (self.with_buffers(plain, format)._replace(base=base) for format in _BUFFER_FORMATS)
            elif base != plain.base:
                yield plain._replace(base=base)

    def with_buffers(self, formats: Formats, format: str) -> Formats:
        """Return ``formats`` with all buffers of the rule in ``format``."""
        return formats._replace(**{"signed" if buffer.signed else "unsigned": format for buffer in self.buffers})

    def rounds(self, formats: Formats) -> bool:
        """Whether a step rounds state by random bits, which depend on the position of an element."""
        if formats.base == SPLIT_BASE:
            return True
        stored = [(formats.signed if buffer.signed else formats.unsigned, buffer.signed) for buffer in self.buffers]
        return any(_BUFFER_FORMATS[name].of(signed=signed).random for name, signed in stored if name in _BUFFER_FORMATS)

    def may_recover_base(self, formats: Formats) -> bool:
        """Whether a step of some options has to recover the base iterate from the parameter and the first buffer."""
        exact = formats.param == arithmetic(formats.param) == formats.signed
        return exact and bool(self.buffers) and self.spec.norm is None

    @property
    def module(self) -> ModuleType:
        """The rule's functions."""
        return importlib.import_module(f"{rules.__name__}.{self.spec.name}")

    def constants(self) -> dict[str, Any]:
        """Return the compile-time arguments that every kernel of a rule takes; functions are among them."""
        return {
            "BUFFERS": len(self.buffers),
            "SIGNS": sum(buffer.signed << k for k, buffer in enumerate(self.buffers)),
            "OWN_DECAY": self.spec.own_decay,
            "CONSTANTS": self.module.constants,
            "DIRECTION": self.module.direction,
        }


@dataclass(frozen=True)
class Step:
    """A variant of :func:`step_kernel`: of a rule, formats, a phase, a noise, and for sharded tensors.

    Without noise or random bits, sharded tensors are stepped as all others are. With them they have kernels of their
    own: the numbers of the elements in the whole tensor would take registers in those of all others.
    """

    rule: Rule
    formats: Formats
    phase: Phase = Phase.UPDATE
    noise: Optional[str] = None
    sharded: bool = False

    kernel = step_kernel

    def constants(self) -> dict[str, Any]:
        """Return the compile-time arguments, without the block."""
        return {
            **self.formats.constants(),
            **self.rule.constants(),
            "EXTRAGRADIENT_DIRECTION": self.rule.module.extragradient_direction,
            "TRUST_RATIO": self.rule.module.trust_ratio if self.rule.spec.norm else None,
            "ROUNDS": self.rule.rounds(self.formats),
            "PHASE": self.phase.value,
            "NOISE": getattr(distributions, f"{self.noise}_pair") if self.noise else None,
            "RECOVERS": self.rule.may_recover_base(self.formats) and self.phase is Phase.UPDATE and not self.noise,
            "SHARDED": self.sharded,
        }


@dataclass(frozen=True)
class TrustNorms:
    """A variant of :func:`trust_norms`: of a rule and formats."""

    rule: Rule
    formats: Formats

    kernel = trust_norms

    def constants(self) -> dict[str, Any]:
        """Return the compile-time arguments, without the block."""
        return {**self.formats.constants(), **self.rule.constants(), "NORM": self.rule.spec.norm}


@dataclass(frozen=True)
class DirectionSquares:
    """A variant of :func:`direction_squares`: of a rule, formats, and a kind of direction, ``ALONG``."""

    rule: Rule
    formats: Formats
    along: str

    kernel = direction_squares

    @classmethod
    def of(cls, rule: Rule, formats: Formats, extrapolation: str) -> DirectionSquares:
        """Return the variant for an option of that name."""
        return cls(rule, formats, {"momentum": "momentum", "past_update": "update"}.get(extrapolation, "gradient"))

    def constants(self) -> dict[str, Any]:
        """Return the compile-time arguments, without the block."""
        return {
            **self.formats.constants(),
            **self.rule.constants(),
            "EXTRAGRADIENT_DIRECTION": self.rule.module.extragradient_direction,
            "ALONG": self.along,
        }


@dataclass(frozen=True)
class SquareSums:
    """A variant of :func:`square_sums`: the format of what is summed, ``RESULT``."""

    format: str
    result: str

    kernel = square_sums

    def constants(self) -> dict[str, Any]:
        """Return the compile-time arguments, without the block."""
        return {
            "A": getattr(tl, arithmetic(self.format)),
            "FORMAT": getattr(tl, self.format),
            "RESULT": self.result,
        }


Variant = Union[Step, TrustNorms, DirectionSquares, SquareSums]


def every_variant() -> Iterator[Variant]:
    """Yield every kernel that :class:`extrap_kernels.triton_kernels.executor.TritonExecutor` may ask for."""
    steps: list[tuple[Phase, Optional[str], bool]] = [(Phase(phase), None, False) for phase in PHASES]
    steps += [(Phase.UPDATE, noise, sharded) for noise in CODES["noise"] if noise for sharded in (False, True)]
    for rule in [Rule(spec, buffers) for spec in every_rule().values() for buffers in spec.variants()]:
        for formats in rule.every_format():
            for step in steps:
                yield Step(rule, formats, *step)
            if rule.rounds(formats):
                yield Step(rule, formats, sharded=True)
            if rule.spec.norm:
                yield TrustNorms(rule, formats)
            if rule.buffers:
                yield DirectionSquares(rule, formats, "momentum")
            if not rule.spec.norm:
                for along in ("update", "gradient"):
                    yield DirectionSquares(rule, formats, along)
    for gradient in sorted({grad for _, grad in DTYPE_PAIRS}):
        yield SquareSums(gradient, "gradients")
    for base in sorted({arithmetic(param) for param, _ in DTYPE_PAIRS} | {SPLIT_BASE}):
        for result in ("rows", "rms"):
            yield SquareSums(base, result)


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

    8 elements for each thread are two accesses in 16 or 32 bits, and four in float64. A program of 128 threads leaves
    room for many on a multiprocessor, which hide what each of them waits for. Its chunk repays what it costs to read
    the tables and to make the constants.
    """
    return Tiling(block=1024, chunk=8192, piece=32768, num_warps=128 // warp_size)


def interpreter_tiling(largest: int) -> Tiling:
    """Return the tiling for the interpreter, whose cost is that of the programs; ``largest``: numel of any tensor."""
    block = min(max(128, 1 << (largest - 1).bit_length()), 65536)
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
