"""Numbers in memory: pointers from table entries, loads and stores of every dtype, options passed as bits."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def double(bits):
    """Return the float64 whose bits an int64 argument holds: Triton passes Python floats as float32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


# Triton's interpreter truncates where it converts float32 to bfloat16, and computes on the raw bits of the latter.
INTERPRETED = tl.constexpr(not isinstance(double, triton.runtime.JITFunction))


@triton.jit
def scalar(bits, on_device):
    """Return an option as float64: the value of ``bits``, or with ``on_device`` what lies at that address.

    The lowest bit of an address says that the number there is a float64, not a float32.
    """
    bits = bits.to(tl.int64)
    value = double(bits)
    if on_device:
        if bits & 1 != 0:
            value = tl.load((bits - 1).to(tl.pointer_type(tl.float64)))
        else:
            value = tl.load(bits.to(tl.pointer_type(tl.float32))).to(tl.float64)
    return value


@triton.jit
def pointer(address, DTYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Return a pointer to elements of ``DTYPE``; ``ALIGNED``: to 16 bytes, as vector accesses need it."""
    STORED: tl.constexpr = tl.uint16 if INTERPRETED and DTYPE == tl.bfloat16 else DTYPE
    p = address.to(tl.pointer_type(STORED))
    if ALIGNED:
        p = tl.multiple_of(p, 16)
    return p


@triton.jit
def widened(stored, DTYPE: tl.constexpr, A: tl.constexpr):
    """Return what was loaded of ``DTYPE`` in the precision ``A`` of the arithmetic."""
    if INTERPRETED and DTYPE == tl.bfloat16:
        return (stored.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return stored.to(A)


@triton.jit
def rounded(value, DTYPE: tl.constexpr):
    """Return ``value`` as it is stored in ``DTYPE``, rounded to nearest even."""
    if INTERPRETED and DTYPE == tl.bfloat16:
        bits = value.to(tl.uint32, bitcast=True)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return tl.where(value == value, nearest, 0x7FC0).to(tl.uint16)
    else:
        return value.to(DTYPE)


@triton.jit
def square_root(v):
    """Return the square root, rounded to nearest."""
    if v.dtype == tl.float64:
        return tl.sqrt(v)
    else:
        return tl.sqrt_rn(v)


@triton.jit
def quotient(a, b):
    """Return ``a / b``, rounded to nearest."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)
