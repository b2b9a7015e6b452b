"""Blocks of 16 numbers in 8 bits each, with a shared exponent. Twin: ``csrc/core/formats/block8.h``.

In a tile, blocks are rows of 16 columns. A thread has four of these where accesses are wide, so four threads find the
largest number of a row, and each of them computes what all numbers of the block share. Nothing else moves between them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.state.blocks import BLOCK, LEAST_ROOT, POISONED, SMALLEST
from extrap_kernels.triton_kernels.kernels.formats import load_as_is, square_root, store_as_is
from extrap_kernels.triton_kernels.kernels.table import VECTOR

NUMBERS, LEAST, NAN = tl.constexpr(BLOCK), tl.constexpr(SMALLEST), tl.constexpr(POISONED)
ROOT = tl.constexpr(LEAST_ROOT)
# Below that of the block, that numbers may have.
EXPONENTS = tl.constexpr(6)


@triton.jit
def for_each(of_blocks, BLOCK: tl.constexpr):
    """Return for each number what its block has."""
    return tl.broadcast_to(of_blocks[:, None], (BLOCK // NUMBERS, NUMBERS)).reshape(BLOCK)


@triton.jit
def decoded(codes, exponents, SIGN: tl.constexpr, BLOCK: tl.constexpr):
    """Return float32 numbers; ``SIGN``: they take any sign, otherwise codes are those of their roots."""
    CUT: tl.constexpr = 19 if SIGN else 18
    code, exponents = codes.to(tl.uint32), exponents.to(tl.uint32)
    low = exponents - EXPONENTS
    # The codes of a block that is NaN are 0.
    origin = for_each(tl.where(exponents == NAN, 0x7FC00000, (low - 1) << 23), BLOCK)
    one = for_each((low << 23).to(tl.float32, bitcast=True), BLOCK)
    number = code & 0x7F if SIGN else code
    floating = ((number << CUT) + origin).to(tl.float32, bitcast=True)
    # Fixed-point is the smaller one below `one`, where it counts, and nowhere else.
    absolute = tl.minimum(floating, floating + floating - one)
    if SIGN:
        return (absolute.to(tl.uint32, bitcast=True) | ((code & 0x80) << 24)).to(tl.float32, bitcast=True)
    else:
        return absolute * absolute


@triton.jit
def encoded(value, bits, SIGN: tl.constexpr, BLOCK: tl.constexpr):
    """Return codes and exponents of float32 numbers, which random ``bits`` round."""
    CUT: tl.constexpr = 19 if SIGN else 18
    if SIGN:
        kept, added = value, ((bits << 3) & 0x7F800) + 0x400
    else:
        kept, added = square_root(value), ((bits >> 14) & 0x3FFFC) + 2
    pattern = kept.to(tl.uint32, bitcast=True)
    magnitude = pattern & 0x7FFFFFFF
    largest = tl.max((magnitude + added).reshape(BLOCK // NUMBERS, NUMBERS), axis=1)
    exponents = tl.minimum(tl.maximum(largest >> 23, LEAST), NAN)
    low = exponents - EXPONENTS
    one = for_each((low << 23).to(tl.float32, bitcast=True), BLOCK)
    fixed_point = (magnitude.to(tl.float32, bitcast=True) + one).to(tl.uint32, bitcast=True) - 0x800000
    # Fixed-point is the larger one below `one`, where it counts, and nowhere else.
    origin = for_each((low - 1) << 23, BLOCK)
    code = (tl.maximum(fixed_point, magnitude) + added - origin) >> CUT
    if SIGN:
        code |= (pattern >> 24) & 0x80
    else:
        code = tl.maximum(code, tl.minimum(magnitude, ROOT))
    code &= for_each(tl.where(exponents == NAN, 0, 0xFF).to(tl.uint32), BLOCK)
    return code.to(tl.uint8), exponents.to(tl.uint8)


@triton.jit
def exponents_at(address, start, BLOCK: tl.constexpr):
    """Return pointers to the exponents of a tile."""
    return address.to(tl.pointer_type(tl.uint8)) + (start >> 4) + tl.arange(0, BLOCK // NUMBERS)


@triton.jit
def begin_before(left, BLOCK: tl.constexpr):
    """Whether each block of a tile begins before its element ``left``."""
    return tl.arange(0, BLOCK // NUMBERS) * NUMBERS < left


@triton.jit
def load_blocks(codes, exponents, start, left, SIGN: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Return ``left`` numbers from ``start`` on: whole blocks."""
    e = tl.load(exponents_at(exponents, start, BLOCK), mask=begin_before(left, BLOCK))
    stored = load_as_is(codes, start, tl.arange(0, BLOCK) < left, tl.uint8, BLOCK, ALIGNED)
    return decoded(stored, e, SIGN, BLOCK)


@triton.jit
def store_blocks(
    codes, exponents, start, left, value, bits, SIGN: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr
):
    """Write ``left`` numbers from ``start`` on: whole blocks, which ``bits`` round."""
    stored, e = encoded(value, bits, SIGN, BLOCK)
    store_as_is(codes, start, tl.arange(0, BLOCK) < left, stored, tl.uint8, BLOCK, ALIGNED)
    # By a thread that has numbers of the block; stored as they are loaded, exponents would move between threads.
    OWN: tl.constexpr = VECTOR if ALIGNED else 1
    SHARING: tl.constexpr = NUMBERS // OWN
    thread = tl.arange(0, BLOCK // OWN)
    e = tl.broadcast_to(e[:, None], (BLOCK // NUMBERS, SHARING)).reshape(BLOCK // OWN)
    at = exponents.to(tl.pointer_type(tl.uint8)) + (start >> 4) + thread // SHARING
    tl.store(at, e, mask=(thread % SHARING == 0) & (thread * OWN < left))
