"""Formats of numbers: pointers from table entries, and the way from memory to the arithmetic and back."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def square_root(v):
    """Return the square root, rounded to nearest."""
    if v.dtype == tl.float64:
        return tl.sqrt(v)
    else:
        return tl.sqrt_rn(v)


# Triton's interpreter truncates where it converts float32 to bfloat16, and computes on the raw bits of the latter.
INTERPRETED = tl.constexpr(not isinstance(square_root, triton.runtime.JITFunction))


@triton.jit
def pointer(address, FORMAT: tl.constexpr, ALIGNED: tl.constexpr):
    """Return a pointer to numbers in ``FORMAT``; ``ALIGNED``: to as many as one access of a thread takes.

    That is 16 bytes, but 8 for a 16-bit format and 4 for codes of 8 bits: 4 numbers, as for float32. With 16, Triton
    would have each thread hold 8 numbers in a row, of float32 buffers too, and a warp that reads 16 bytes for each
    thread would leave gaps.
    """
    STORED: tl.constexpr = tl.uint16 if INTERPRETED and FORMAT == tl.bfloat16 else FORMAT
    p = address.to(tl.pointer_type(STORED))
    if ALIGNED:
        HALF: tl.constexpr = FORMAT == tl.bfloat16 or FORMAT == tl.float16 or FORMAT == tl.uint16
        p = tl.multiple_of(p, 4 if FORMAT == tl.uint8 else 8 if HALF else 16)
    return p


@triton.jit
def upcast(stored, FORMAT: tl.constexpr, A: tl.constexpr):
    """Return what was loaded in ``FORMAT`` in the precision ``A`` of the arithmetic."""
    if INTERPRETED and FORMAT == tl.bfloat16:
        return (stored.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return stored.to(A)


@triton.jit
def downcast(value, FORMAT: tl.constexpr):
    """Return ``value`` as it is stored in ``FORMAT``, rounded to nearest even."""
    if INTERPRETED and FORMAT == tl.bfloat16:
        bits = value.to(tl.uint32, bitcast=True)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return tl.where(value == value, nearest, 0x7FC0).to(tl.uint16)
    else:
        return value.to(FORMAT)


@triton.jit
def downcast_by(bits, value, FORMAT: tl.constexpr):
    """Return the float32 ``value`` as it is stored in ``FORMAT``, rounded stochastically by the upper half of ``bits``.

    Away from zero with the probability of the discarded fraction.
    """
    if FORMAT == tl.bfloat16:
        # Infinity stays what it is: there is nothing below its upper half to be carried.
        rounded = (value.to(tl.uint32, bitcast=True) + (bits >> 16)) >> 16
        stored = tl.where(value == value, rounded, 0x7FC0).to(tl.uint16)
        return stored if INTERPRETED else stored.to(FORMAT, bitcast=True)
    else:
        tl.static_assert(False, "no unsigned buffers have this format")


@triton.jit
def split_rounded(value, bits):
    """Return the float32 ``value`` in 24 bits, rounded stochastically by the lowest 8 of ``bits``.

    Away from zero with the probability of the discarded fraction. Twin: ``csrc/core/formats/float24.h``.
    """
    # Infinity stays what it is: there is nothing in its last bits to be carried.
    kept = (value.to(tl.uint32, bitcast=True) + (bits & 0xFF)) & 0xFFFFFF00
    return tl.where(value == value, kept, 0x7FC00000).to(tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def high_half(value):
    """Return the upper half, rounded, of a float32 in 24 bits, as uint16."""
    return ((value.to(tl.uint32, bitcast=True) + 0x8000) >> 16).to(tl.uint16)


@triton.jit
def low_byte(value):
    """Return the byte that the upper half of a float32 in 24 bits is off by, as uint8."""
    return ((value.to(tl.uint32, bitcast=True) >> 8) & 0xFF).to(tl.uint8)


@triton.jit
def joined(high, low):
    """Return the float32 of an upper half, uint16, and the byte that this is off by, which has a sign."""
    byte = (low.to(tl.uint32) ^ 0x80) - 0x80
    return ((high.to(tl.uint32) << 16) + (byte << 8)).to(tl.float32, bitcast=True)


@triton.jit
def quotient(a, b):
    """Return ``a / b``, rounded to nearest."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def load(address, start, mask, FORMAT: tl.constexpr, A: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Return the numbers from ``start`` in the precision ``A``."""
    return upcast(load_as_is(address, start, mask, FORMAT, BLOCK, ALIGNED), FORMAT, A)


@triton.jit
def load_as_is(address, start, mask, FORMAT: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Return what is stored of the numbers in ``FORMAT`` from ``start``."""
    return tl.load(pointer(address, FORMAT, ALIGNED) + start + tl.arange(0, BLOCK), mask=mask)


@triton.jit
def store(address, start, mask, value, FORMAT: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Write numbers from ``start`` on."""
    store_as_is(address, start, mask, downcast(value, FORMAT), FORMAT, BLOCK, ALIGNED)


@triton.jit
def store_as_is(address, start, mask, stored, FORMAT: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Write what is stored of numbers in ``FORMAT``, from ``start`` on."""
    tl.store(pointer(address, FORMAT, ALIGNED) + start + tl.arange(0, BLOCK), stored, mask=mask)
