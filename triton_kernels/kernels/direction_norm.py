"""The sum of squares of what a launch extrapolates along. Deterministic, as the sums of ``norms.py``."""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.base import adopts, load_base
from extrap_kernels.triton_kernels.kernels.buffers import load_buffer, load_buffers
from extrap_kernels.triton_kernels.kernels.direction import extrapolated_gradient, extrapolation, measured
from extrap_kernels.triton_kernels.kernels.formats import load
from extrap_kernels.triton_kernels.kernels.gradients import preparation, prepared
from extrap_kernels.triton_kernels.kernels.norms import total_of
from extrap_kernels.triton_kernels.kernels.table import VECTOR, is_last, piece_row, tensor_row


@triton.jit
def direction_of(
    t,
    start,
    left,
    adopt,
    e,
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
    EXTRAGRADIENT_DIRECTION: tl.constexpr,
    ALONG: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Return the direction, in its units, at ``left`` elements from ``start``; past them, it may be anything."""
    mask = tl.arange(0, BLOCK) < left
    x = tl.zeros((BLOCK,), A)
    if e.adaptive | (prepare.coupled & (ALONG != "momentum")):
        x = load_base(t, start, mask, adopt, PARAM, BASE, A, BLOCK, ALIGNED)
    if ALONG == "momentum":
        along = load_buffer(t, 0, start, left, True, SIGNED, A, BLOCK, ALIGNED)
    else:
        g = prepared(prepare, load(t.gradient, start, mask, GRAD, A, BLOCK, ALIGNED), x)
        l = g
        if t.local != 0:
            l = prepared(prepare, load(t.local, start, mask, GRAD, A, BLOCK, ALIGNED), x)
        buffers = load_buffers(t, start, left, BUFFERS, SIGNS, SIGNED, UNSIGNED, A, BLOCK, ALIGNED)
        if ALONG == "update":
            along, z, buffers = DIRECTION(rule, g, l, x, buffers)
        else:
            along = EXTRAGRADIENT_DIRECTION(rule, g, extrapolated_gradient(e, g, l), buffers)
    return measured(e, along, x)


@triton.jit
def direction_squares(
    scalars,
    tensors,
    pieces,
    partial,
    counters,
    sums,
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
    EXTRAGRADIENT_DIRECTION: tl.constexpr,
    ALONG: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the squares of the directions of all tensors to ``sums``.

    ``ALONG``: ``momentum``, the first buffer as it is; ``update``; or ``gradient``, the rule's direction for one.
    """
    pid = tl.program_id(0)
    piece = piece_row(pieces, pid)
    t = tensor_row(tensors, piece.tensor, BUFFERS)
    total = tl.full((), 0.0, tl.float64)
    if t.gradient != 0:
        count = tl.load(t.step.to(tl.pointer_type(tl.float32))) + 1
        e, prepare = extrapolation(scalars, A), preparation(scalars, A, OWN_DECAY)
        rule = CONSTANTS(scalars, count, tl.full((), 1.0, tl.float64), A)
        adopt = adopts(scalars) & (t.base != t.y)
        aligned = (t.aligned != 0) & (piece.end % VECTOR == 0)
        if aligned:
            squares = tl.zeros((BLOCK,), tl.float64)
            for done in range(0, piece.end - piece.begin, BLOCK):
                start = tl.multiple_of(piece.begin + done, VECTOR)
                left = tl.multiple_of(tl.minimum(piece.end - start, BLOCK).to(tl.int32), VECTOR)
                along = direction_of(
                    *(t, start, left, adopt, e, prepare, rule, A, PARAM, GRAD, BASE, SIGNED, UNSIGNED),
                    *(BUFFERS, SIGNS, DIRECTION, EXTRAGRADIENT_DIRECTION, ALONG, BLOCK, True),
                ).to(tl.float64)
                squares += tl.where(tl.arange(0, BLOCK) < left, along * along, 0.0)
            total = tl.sum(squares)
        else:
            narrow = tl.zeros((BLOCK // 8,), tl.float64)
            for done in range(0, piece.end - piece.begin, BLOCK // 8):
                start = piece.begin + done
                left = tl.minimum(piece.end - start, BLOCK // 8).to(tl.int32)
                along = direction_of(
                    *(t, start, left, adopt, e, prepare, rule, A, PARAM, GRAD, BASE, SIGNED, UNSIGNED),
                    *(BUFFERS, SIGNS, DIRECTION, EXTRAGRADIENT_DIRECTION, ALONG, BLOCK // 8, False),
                ).to(tl.float64)
                narrow += tl.where(tl.arange(0, BLOCK // 8) < left, along * along, 0.0)
            total = tl.sum(narrow)
    tl.store(partial + pid, total)
    if is_last(counters + piece.total, piece.pieces):
        tl.store(sums, tl.load(sums) + total_of(partial, piece.first, piece.pieces, BLOCK))
