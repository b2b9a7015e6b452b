"""What stands for Triton, so that the functions of its kernels run on recorded numbers: one program, of one lane."""

from __future__ import annotations

import types

import torch

from tracing.recorded import Node, Recorded, where


class Pointer:
    """A place in a list of values."""

    def __init__(self, memory, at=0):
        self.memory, self.at = memory, at

    def __add__(self, offset):
        return Pointer(self.memory, self.at + int(offset))

    def __eq__(self, other):
        return isinstance(other, Pointer) and other.memory is self.memory and other.at == self.at

    def __ne__(self, other):
        return not self == other

    __hash__ = None

    def to(self, dtype):
        return self


class Lanes(list):
    """What :func:`join` makes."""

    def reshape(self, *shape):
        """Return all lanes in order; or one where all have the same."""
        flat = [lane for part in self for lane in (part if isinstance(part, Lanes) else [part])]
        return flat[0] if all(lane is flat[0] for lane in flat) else flat


def join(a, b):
    if isinstance(a, Lanes):
        return Lanes([join(*pair) for pair in zip(a, b)])
    return Lanes([a, b])


class constexpr(int):
    """A module's constant."""

    @property
    def value(self):
        return int(self)


def load(pointer, mask=True, other=None, **_):
    assert mask, "a load of nothing"
    return pointer.memory[pointer.at]


def store(pointer, value, mask=True):
    if mask:
        pointer.memory[pointer.at] = value


def umulhi(a, b):
    a, b = a._with(b)
    if a.value is not None and b.value is not None:
        return Recorded.constant(a.value * b.value >> 32, a.dtype)
    return Recorded(a.dtype, Node("imulhi", (a.node, b.node)))


def fma(a, b, c):
    return a.fma(b, c)


def _zero(*_):
    return Recorded.constant(0, torch.int32)


language = types.ModuleType("triton.language")
language.__dict__.update(
    {str(dtype).split(".")[-1]: dtype for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)},
    int32=torch.int32,
    int64=torch.int64,
    uint8=torch.uint8,
    uint16=torch.uint16,
    uint32=torch.uint32,
    constexpr=constexpr,
    pointer_type=lambda dtype: dtype,
    arange=_zero,
    program_id=_zero,
    num_programs=lambda axis: Recorded.constant(1, torch.int32),
    static_range=range,
    multiple_of=lambda value, divisor: value,
    debug_barrier=lambda: None,
    atomic_add=lambda pointer, value: Recorded.constant(0, torch.int32),
    load=load,
    store=store,
    join=join,
    where=where,
    umulhi=umulhi,
    fma=fma,
    full=lambda shape, value, dtype: Recorded.constant(value, dtype),
    zeros=lambda shape, dtype: Recorded.constant(0, dtype),
    zeros_like=lambda like: Recorded.constant(0, like.dtype),
    minimum=lambda a, b: where(a < b, a, b),
    maximum=lambda a, b: where(a < b, b, a),
    abs=lambda value: value.abs(),
    sqrt=lambda value: value.sqrt(),
    sqrt_rn=lambda value: value.sqrt(),
    div_rn=lambda a, b: a / b,
    sum=lambda value: value,
)

triton = types.ModuleType("triton")
triton.jit = lambda function: function
triton.language = language
triton.runtime = types.SimpleNamespace(JITFunction=types.FunctionType)

MODULES = {"triton": triton, "triton.language": language}
