"""The buffers of a rule: bit k of SIGNS says that the k-th one is signed, which decides on its format.

Not a tuple of formats, since Triton 3.3 cannot take an element of one that is constexpr. A format of uint8 are blocks.
"""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.blocks import load_blocks, store_blocks
from extrap_kernels.triton_kernels.kernels.formats import downcast_by, load, store, store_as_is


@triton.jit
def load_buffer(
    t,
    k: tl.constexpr,
    start,
    left,
    SIGN: tl.constexpr,
    FORMAT: tl.constexpr,
    A: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Return ``left`` numbers of buffer ``k`` from ``start``."""
    if FORMAT == tl.uint8:
        return load_blocks(t.buffers[k], t.exponents[k], start, left, SIGN, BLOCK, ALIGNED)
    else:
        return load(t.buffers[k], start, tl.arange(0, BLOCK) < left, FORMAT, A, BLOCK, ALIGNED)


@triton.jit
def load_buffers(
    t,
    start,
    left,
    BUFFERS: tl.constexpr,
    SIGNS: tl.constexpr,
    SIGNED: tl.constexpr,
    UNSIGNED: tl.constexpr,
    A: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Return ``left`` numbers of each buffer from ``start``."""
    values = ()
    for k in tl.static_range(BUFFERS):
        if (SIGNS >> k) & 1 != 0:
            values += (load_buffer(t, k, start, left, True, SIGNED, A, BLOCK, ALIGNED),)  # type: ignore[assignment]
        else:
            values += (load_buffer(t, k, start, left, False, UNSIGNED, A, BLOCK, ALIGNED),)  # type: ignore[assignment]
    return values


@triton.jit
def store_buffer(
    t,
    k: tl.constexpr,
    start,
    left,
    value,
    bits,
    SIGN: tl.constexpr,
    FORMAT: tl.constexpr,
    ROUNDS: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Write ``left`` numbers of buffer ``k`` from ``start`` on."""
    mask = tl.arange(0, BLOCK) < left
    if FORMAT == tl.uint8:
        store_blocks(t.buffers[k], t.exponents[k], start, left, value, bits, SIGN, BLOCK, ALIGNED)
    elif ROUNDS and not SIGN:
        store_as_is(t.buffers[k], start, mask, downcast_by(bits, value, FORMAT), FORMAT, BLOCK, ALIGNED)
    else:
        store(t.buffers[k], start, mask, value, FORMAT, BLOCK, ALIGNED)


@triton.jit
def store_buffers(
    t,
    start,
    left,
    values,
    bits,
    BUFFERS: tl.constexpr,
    SIGNS: tl.constexpr,
    SIGNED: tl.constexpr,
    UNSIGNED: tl.constexpr,
    ROUNDS: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Write ``left`` numbers of each buffer from ``start`` on; ``ROUNDS``: there are random ``bits``, for some."""
    for k in tl.static_range(BUFFERS):
        if (SIGNS >> k) & 1 != 0:
            store_buffer(t, k, start, left, values[k], bits, True, SIGNED, ROUNDS, BLOCK, ALIGNED)
        else:
            store_buffer(t, k, start, left, values[k], bits, False, UNSIGNED, ROUNDS, BLOCK, ALIGNED)
