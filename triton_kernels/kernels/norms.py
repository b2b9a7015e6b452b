"""Sums of squares in float64: for noise scales, trust ratios and clipping. Deterministic: no floating-point atomics.

Each program sums a piece; the last one of a sum adds up the results of its pieces, in their order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.base import adopts, load_base
from extrap_kernels.triton_kernels.kernels.buffers import load_buffers
from extrap_kernels.triton_kernels.kernels.formats import joined, load, pointer, square_root, upcast
from extrap_kernels.triton_kernels.kernels.gradients import preparation, unscaled
from extrap_kernels.triton_kernels.kernels.table import VECTOR, is_last, piece_row, tensor_row


@triton.jit
def total_of(partial, first, count, BLOCK: tl.constexpr):
    """Return the sum of the results of ``count`` pieces."""
    o = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, count, BLOCK):
        # Past the first-level cache, which may hold what was there before.
        total += tl.load(partial + first + start + o, mask=start + o < count, other=0.0, cache_modifier=".cg")
    return tl.sum(total)


@triton.jit
def squares(
    address,
    low,
    piece,
    FORMAT: tl.constexpr,
    SPLIT: tl.constexpr,
    A: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Return the sum over a piece; ``ALIGNED``: its elements follow each other, and it starts and ends at a vector.

    ``SPLIT``: the numbers have low bytes, at ``low``.
    """
    o = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    for done in range(0, piece.end - piece.begin, BLOCK):
        start = piece.begin + done
        left = tl.minimum(piece.end - start, BLOCK).to(tl.int32)
        if ALIGNED:
            first, left = tl.multiple_of(piece.row * piece.row_stride + start, VECTOR), tl.multiple_of(left, VECTOR)
            at = o
        else:
            # The row lies in stretches of `row_stride` elements.
            i = start + o
            at = (i // piece.row_stride * piece.rows + piece.row) * piece.row_stride + i % piece.row_stride
            first = 0 * start
        # The vector comes last: accesses of AMD GPUs are wide only so.
        if SPLIT:
            high = tl.load(pointer(address, tl.uint16, ALIGNED) + first + at, mask=o < left, other=0)
            byte = tl.load(pointer(low, tl.uint8, ALIGNED) + first + at, mask=o < left, other=0)
            x = joined(high, byte).to(tl.float64)
        else:
            stored = tl.load(pointer(address, FORMAT, ALIGNED) + first + at, mask=o < left, other=0)
            x = upcast(stored, FORMAT, A).to(tl.float64)
        total += x * x
    return tl.sum(total)


@triton.jit
def square_sums(
    tensors,
    pieces,
    partial,
    counters,
    sums,
    A: tl.constexpr,
    FORMAT: tl.constexpr,
    RESULT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the squares of all gradients to ``sums``, or write a number for each row of the base iterates to it.

    ``RESULT``: ``gradients``; ``rows``, the sums of squares; or ``rms``. Base iterates in bfloat16 are split.
    """
    pid = tl.program_id(0)
    piece = piece_row(pieces, pid)
    t = tensor_row(tensors, piece.tensor, 0)
    address = t.base
    if RESULT == "gradients":
        address = t.gradient
    total = tl.full((), 0.0, tl.float64)
    if t.gradient != 0:
        SPLIT: tl.constexpr = RESULT != "gradients" and FORMAT == tl.bfloat16
        follow = piece.rows * piece.row_stride == t.numel  # the elements of a row do, and the rows
        if SPLIT:
            follow &= t.base_low % 16 == 0
        if follow & (address % 16 == 0) & ((piece.row * piece.row_stride | piece.end) % VECTOR == 0):
            total = squares(address, t.base_low, piece, FORMAT, SPLIT, A, BLOCK, True)
        else:
            total = squares(address, t.base_low, piece, FORMAT, SPLIT, A, BLOCK // 8, False)
    tl.store(partial + pid, total)
    if is_last(counters + piece.total, piece.pieces):
        total = total_of(partial, piece.first, piece.pieces, BLOCK)
        if RESULT == "gradients":
            tl.store(sums, tl.load(sums) + total)
        elif RESULT == "rows":
            tl.store(sums + piece.total, total)
        else:
            size = t.numel.to(tl.float64) / piece.rows.to(tl.float64)
            tl.store(sums + piece.total, square_root(total / size))


@triton.jit
def norm_squares(
    t,
    piece,
    adopt,
    prepare,
    rule,
    A: tl.constexpr,
    PARAM: tl.constexpr,
    GRAD: tl.constexpr,
    BASE: tl.constexpr,
    SIGNED: tl.constexpr,
    UNSIGNED: tl.constexpr,
    BUFFERS: tl.constexpr,
    SIGNS: tl.constexpr,
    DIRECTION: tl.constexpr,
    NORM: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Return the sums over a piece of the squares of ``x``, and of what ``NORM`` names: ``gradient`` or ``update``."""
    o = tl.arange(0, BLOCK)
    total_x = tl.zeros((BLOCK,), tl.float64)
    total = tl.zeros((BLOCK,), tl.float64)
    for done in range(0, piece.end - piece.begin, BLOCK):
        start = piece.begin + done
        left = tl.minimum(piece.end - start, BLOCK).to(tl.int32)
        if ALIGNED:
            start, left = tl.multiple_of(start, VECTOR), tl.multiple_of(left, VECTOR)
        mask = o < left
        x = load_base(t, start, mask, adopt, PARAM, BASE, A, BLOCK, ALIGNED)
        u = unscaled(prepare, load(t.gradient, start, mask, GRAD, A, BLOCK, ALIGNED))
        if NORM == "update":
            buffers = load_buffers(t, start, left, BUFFERS, SIGNS, SIGNED, UNSIGNED, A, BLOCK, ALIGNED)
            u, z, buffers = DIRECTION(rule, u, u, x, buffers)
        # What lies past the end may be anything.
        total_x += tl.where(mask, x.to(tl.float64) * x.to(tl.float64), 0.0)
        total += tl.where(mask, u.to(tl.float64) * u.to(tl.float64), 0.0)
    return tl.sum(total_x), tl.sum(total)


@triton.jit
def trust_norms(
    scalars,
    tensors,
    pieces,
    partial,
    counters,
    norms,
    A: tl.constexpr,
    PARAM: tl.constexpr,
    GRAD: tl.constexpr,
    BASE: tl.constexpr,
    SIGNED: tl.constexpr,
    UNSIGNED: tl.constexpr,
    BUFFERS: tl.constexpr,
    SIGNS: tl.constexpr,
    OWN_DECAY: tl.constexpr,
    CONSTANTS: tl.constexpr,
    DIRECTION: tl.constexpr,
    NORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write both sums of squares of each tensor to ``norms``."""
    pid, programs = tl.program_id(0), tl.num_programs(0)
    piece = piece_row(pieces, pid)
    t = tensor_row(tensors, piece.tensor, BUFFERS)
    if t.gradient != 0:
        count = tl.load(t.step.to(tl.pointer_type(tl.float32))) + 1
        prepare = preparation(scalars, A, OWN_DECAY)
        rule = CONSTANTS(scalars, count, tl.full((), 1.0, tl.float64), A)
        adopt = adopts(scalars) & (t.base != t.y)
        if (t.aligned != 0) & (piece.end % VECTOR == 0):
            total_x, total = norm_squares(
                *(t, piece, adopt, prepare, rule, A, PARAM, GRAD, BASE, SIGNED, UNSIGNED),
                *(BUFFERS, SIGNS, DIRECTION, NORM, BLOCK, True),
            )
        else:
            total_x, total = norm_squares(
                *(t, piece, adopt, prepare, rule, A, PARAM, GRAD, BASE, SIGNED, UNSIGNED),
                *(BUFFERS, SIGNS, DIRECTION, NORM, BLOCK // 8, False),
            )
        tl.store(partial + pid, total_x)
        tl.store(partial + programs + pid, total)
        if is_last(counters + piece.total, piece.pieces):
            tl.store(norms + 2 * piece.total, total_of(partial, piece.first, piece.pieces, BLOCK))
            tl.store(norms + 2 * piece.total + 1, total_of(partial, programs + piece.first, piece.pieces, BLOCK))
