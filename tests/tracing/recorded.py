"""A number that records what is done to it, in place of a tensor of torch or of Triton."""

from __future__ import annotations

import math
import operator
import struct

import torch

from tracing.canonical import MASK, rounded

_FLOATS = (torch.float32, torch.float64)
_WORDS = (torch.int32, torch.uint32)
_HALVES = (torch.bfloat16, torch.float16)
_COMPARISONS = ("eq", "ne", "lt", "le")
_CONCRETE = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "rshift": operator.rshift,
    "lshift": operator.lshift,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
}


class Node:
    """An operation; it never changes."""

    __slots__ = ("op", "operands", "what")

    def __init__(self, op, operands=(), what=""):
        self.op, self.operands, self.what = op, operands, what


def _name(dtype):
    return str(dtype).split(".")[-1]


def _constant_node(value, dtype):
    if dtype in _FLOATS:
        return Node("number", what=float(value).hex())
    return Node("word" if dtype in _WORDS else _name(dtype), what=str(value))


class Recorded:
    """A value of a dtype: a constant, computed at once, or an expression.

    In-place methods give it another expression; those that were made of it before stay what they are.
    """

    def __init__(self, dtype, node, value=None):
        self.dtype, self.node, self.value = dtype, node, value

    @classmethod
    def input(cls, name, dtype):
        return cls(dtype, Node("input", what=name))

    @classmethod
    def constant(cls, value, dtype):
        if dtype in _FLOATS:
            value = rounded(float(value), _name(dtype))
        elif dtype in _WORDS:
            value = int(value) & MASK
        elif dtype != torch.bool:
            value = (int(value) + 2**63) % 2**64 - 2**63
        return cls(dtype, _constant_node(value, dtype), value)

    def _new(self, op, *operands, dtype=None):
        return Recorded(dtype or self.dtype, Node(op, tuple(operand.node for operand in operands)))

    # Operators.

    def _with(self, other):
        """Both in one dtype: a Python number has that of the tensor, and float32 is converted to float64."""
        if not isinstance(other, Recorded):
            if isinstance(other, float) and self.dtype not in _FLOATS:
                raise TypeError(f"{other} with a {self.dtype}")
            return self, self.constant(other, self.dtype)
        if self.dtype == other.dtype:
            return self, other
        if self.dtype in _FLOATS and other.dtype in _FLOATS:
            return self.to(torch.float64), other.to(torch.float64)
        if other.value is not None and other.dtype not in _FLOATS and self.dtype not in _FLOATS:
            return (self, other.to(self.dtype)) if self.value is None else (self.to(torch.int64), other.to(torch.int64))
        return (self.to(other.dtype), other) if self.value is not None else (self, other.to(self.dtype))

    def _binary(self, op, other, swapped=False):
        if not isinstance(other, (Recorded, int, float)):
            return NotImplemented
        a, b = self._with(other)
        if swapped:
            a, b = b, a
        dtype = torch.bool if op in _COMPARISONS else a.dtype
        if a.value is not None and b.value is not None and not (op == "div" and b.value == 0):
            return self.constant(_CONCRETE[op](a.value, b.value), dtype)
        if a.dtype == torch.bool:
            known, other = (a, b) if a.value is not None else (b, a)
            return other if known.value is (op == "and") else known
        if a.dtype in _WORDS:
            op = op if op in ("and", "or", "xor", "lshift", "rshift") else f"i{op}"
        elif a.dtype not in _FLOATS:
            op = f"wide_{op}"
        return self._new(op, a, b, dtype=dtype)

    def __neg__(self):
        return self._unary("neg", lambda value: -value)

    def __bool__(self):
        return bool(self._known())

    def __index__(self):
        return int(self._known())

    def __float__(self):
        return float(self._known())

    def _known(self):
        if self.value is None:
            raise TypeError("the code branches on a number, which this comparison cannot follow: select by where()")
        return self.value

    def _unary(self, op, concrete=None, dtype=None):
        if self.value is not None and concrete:
            return self.constant(concrete(self.value), dtype or self.dtype)
        return self._new(op, self, dtype=dtype)

    # Methods of both kinds of tensors.

    def to(self, dtype, bitcast=False):
        if dtype == self.dtype:
            return self
        if bitcast:
            return self.view(dtype)
        if self.value is not None and dtype not in _HALVES:
            return self.constant(self.value, dtype)
        if dtype in _FLOATS and self.dtype in _HALVES:
            return self._new(f"from_{_name(self.dtype)}", self, dtype=torch.float32).to(dtype)
        if dtype in _FLOATS or dtype in _HALVES:
            return self._new(f"to_{_name(dtype)}" if self.dtype in _FLOATS else "from_integer", self, dtype=dtype)
        if self.dtype in _FLOATS:
            return self._new("to_integer", self, dtype=dtype)
        if dtype == torch.uint32 and self.dtype not in _WORDS:
            return Recorded(dtype, (self & MASK).node)
        return Recorded(dtype, self.node)

    def view(self, dtype):
        if self.value is not None:
            code = {torch.int64: "q", torch.float64: "d", torch.float32: "f", torch.int32: "I", torch.uint32: "I"}
            return self.constant(struct.unpack(code[dtype], struct.pack(code[self.dtype], self.value))[0], dtype)
        return self._new("from_bits" if dtype in _FLOATS else "bits", self, dtype=dtype)

    def abs(self):
        return self._unary("abs", abs)

    def sign(self):
        return self._unary("sign")

    def fma(self, b, c):
        b, c = (v if isinstance(v, Recorded) else self.constant(v, self.dtype) for v in (b, c))
        return self._new("fma", self, b, c)

    def sqrt(self):
        return self._unary("sqrt", math.sqrt)

    # Methods of torch's.

    shape, device = (1, 1), torch.device("cpu")

    def numel(self):
        return 1

    def dim(self):
        return 2  # so that noise may be scaled by row

    def stride(self):
        return (1, 1)

    def is_complex(self):
        return False

    def resolve_neg(self):
        return self

    def clone(self):
        return Recorded(self.dtype, self.node, self.value)

    def double(self):
        return self.to(torch.float64)

    def float(self):
        return self.to(torch.float32)

    def square(self):
        return self * self

    def sum(self, *args, **kwargs):
        return self

    def reciprocal(self):
        return self._unary("reciprocal")

    def isnan(self):
        return self._unary("isnan", dtype=torch.bool)

    def copy_(self, other):
        other = other.to(self.dtype)
        self.node, self.value = other.node, other.value
        return self

    def add_(self, other):
        return self.copy_(self + other)

    def sub_(self, other):
        return self.copy_(self - other)

    def mul_(self, other):
        return self.copy_(self * other)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.where:
            return where(*args)
        return getattr(args[0], function.__name__)(*args[1:], **(kwargs or {}))


def _operator(op, swapped=False):
    return lambda self, other: self._binary(op, other, swapped)


for _op in _CONCRETE:
    setattr(Recorded, f"__{'truediv' if _op == 'div' else _op}__", _operator(_op))
    if _op not in _COMPARISONS:
        setattr(Recorded, f"__r{'truediv' if _op == 'div' else _op}__", _operator(_op, True))
Recorded.__gt__, Recorded.__ge__ = _operator("lt", True), _operator("le", True)
Recorded.__hash__ = None


def where(condition, a, b):
    """Return ``a`` or ``b``; both Python numbers: a float32, as in Triton."""
    if not isinstance(condition, Recorded) or condition.value is not None:
        chosen, other = (a, b) if condition else (b, a)
        if isinstance(chosen, Recorded) or not isinstance(other, Recorded):
            return chosen
        return Recorded.constant(chosen, other.dtype)
    if not isinstance(a, Recorded) and not isinstance(b, Recorded):
        a = Recorded.constant(a, torch.float32)
    if not isinstance(a, Recorded):
        a = Recorded.constant(a, b.dtype)
    a, b = a._with(b)
    return a._new("select", condition, a, b)


class WordPair:
    """An int64 of which only the halves are read: lower and upper word."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def __and__(self, mask):
        assert mask == 2**32 - 1
        return self.low

    def __rshift__(self, bits):
        assert bits == 32
        return WordPair(self.high, None)

    def to(self, dtype):
        assert dtype == torch.uint32
        return self.low
