"""Sums of squares in float64: for noise scales, trust ratios and clipping. Deterministic: no floating-point atomics.

Each program sums a piece; the last program of a group sums the results of its pieces, in their order.
"""

from __future__ import annotations

import triton
import triton.language as tl
from extrap_kernels.triton_kernels.options import NUMBERS, preparation, read_options, unscaled
from extrap_kernels.triton_kernels.rules import direction, rule_constants
from extrap_kernels.triton_kernels.storage import pointer, square_root, widened
from extrap_kernels.triton_kernels.table import gradient_row, is_last, piece_row, tensor_row


@triton.jit
def sum_of_group(partial, first, count, BLOCK: tl.constexpr):
    """Return the sum of the results of a group's pieces."""
    o = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, count, BLOCK):
        # Past the first-level cache, which may hold what was there before.
        total += tl.load(partial + first + start + o, mask=start + o < count, other=0.0, cache_modifier=".cg")
    return tl.sum(total)


@triton.jit
def squares(address, piece, DTYPE: tl.constexpr, A: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Return the sum over a piece; ``ALIGNED``: its elements follow each other, and it starts and ends at 16 bytes."""
    o = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    for done in range(0, piece.end - piece.begin, BLOCK):
        start = piece.begin + done
        left = tl.minimum(piece.end - start, BLOCK).to(tl.int32)
        if ALIGNED:
            start, left = tl.multiple_of(start, 8), tl.multiple_of(left, 8)
            at = pointer(address, DTYPE, True) + start + o
        else:
            # The row is cut into runs of `stride` elements.
            i = start + o
            at = pointer(address, DTYPE, False) + (i // piece.stride * piece.count + piece.row) * piece.stride
            at += i % piece.stride
        x = widened(tl.load(at, mask=o < left, other=0), DTYPE, A).to(tl.float64)
        total += x * x
    return tl.sum(total)


@triton.jit
def square_sums(
    tensors,
    gradients,
    pieces,
    partial,
    counters,
    sums,
    A: tl.constexpr,
    DTYPE: tl.constexpr,
    RESULT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the squares of all gradients to ``sums``, or write a number for each row of the base iterates to it.

    ``RESULT``: ``gradients``; ``rows``, the sums of squares; or ``rms``.
    """
    pid = tl.program_id(0)
    piece = piece_row(pieces, pid)
    t = tensor_row(tensors, piece.tensor)
    if RESULT == "gradients":
        address = gradient_row(gradients, piece.tensor).gradient
    else:
        address = t.base
    if (piece.count == 1) & (address % 16 == 0) & (piece.end % 8 == 0):
        total = squares(address, piece, DTYPE, A, BLOCK, True)
    else:
        total = squares(address, piece, DTYPE, A, BLOCK // 8, False)
    tl.store(partial + pid, total)
    if is_last(counters + piece.group, piece.pieces):
        total = sum_of_group(partial, piece.first, piece.pieces, BLOCK)
        if RESULT == "gradients":
            tl.store(sums, tl.load(sums) + total)
        elif RESULT == "rows":
            tl.store(sums + piece.group, total)
        else:
            size = t.numel.to(tl.float64) / piece.count.to(tl.float64)
            tl.store(sums + piece.group, square_root(total / size))


@triton.jit
def norm_squares(
    t,
    grads,
    piece,
    prepare,
    rule,
    A: tl.constexpr,
    GRAD: tl.constexpr,
    RULE: tl.constexpr,
    BUFFERS: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Return the sums over a piece of the squares of ``x``, and of the gradient (LARS) or the update (LAMB)."""
    o = tl.arange(0, BLOCK)
    total_x = tl.zeros((BLOCK,), tl.float64)
    total = tl.zeros((BLOCK,), tl.float64)
    for done in range(0, piece.end - piece.begin, BLOCK):
        start = piece.begin + done
        left = tl.minimum(piece.end - start, BLOCK).to(tl.int32)
        if ALIGNED:
            start, left = tl.multiple_of(start, 8), tl.multiple_of(left, 8)
        mask = o < left
        x = tl.load(pointer(t.base, A, ALIGNED) + start + o, mask=mask, other=0)
        gradient = tl.load(pointer(grads.gradient, GRAD, ALIGNED) + start + o, mask=mask, other=0)
        u = unscaled(prepare, widened(gradient, GRAD, A))
        if RULE == "lamb":
            m = tl.load(pointer(t.m, A, ALIGNED) + start + o, mask=mask, other=0)
            v = tl.load(pointer(t.v, A, ALIGNED) + start + o, mask=mask, other=0)
            u, z, m, v = direction(rule, u, u, x, m, v, RULE, BUFFERS)
        total_x += x.to(tl.float64) * x.to(tl.float64)
        # What lies past the end is 0, but 0 times an infinite factor is no number.
        total += tl.where(mask, u.to(tl.float64) * u.to(tl.float64), 0.0)
    return tl.sum(total_x), tl.sum(total)


@triton.jit(do_not_specialize=NUMBERS)
def trust_norms(
    tensors,
    gradients,
    pieces,
    partial,
    counters,
    norms,
    lr: tl.int64,
    extrap_lr: tl.int64,
    extrap_ratio: tl.int64,
    weight_decay: tl.int64,
    momentum: tl.int64,
    dampening: tl.int64,
    beta1: tl.int64,
    beta2: tl.int64,
    eps: tl.int64,
    trust_coefficient: tl.int64,
    noise_std: tl.int64,
    grad_scale: tl.int64,
    clip: tl.int64,
    found_inf_at: tl.int64,
    key: tl.int64,
    flags: tl.int64,
    A: tl.constexpr,
    GRAD: tl.constexpr,
    RULE: tl.constexpr,
    BUFFERS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write both sums of squares of each tensor to ``norms``."""
    pid, programs = tl.program_id(0), tl.num_programs(0)
    piece = piece_row(pieces, pid)
    t, grads = tensor_row(tensors, piece.tensor), gradient_row(gradients, piece.tensor)
    count = tl.load(t.step.to(tl.pointer_type(tl.float32))) + 1
    prepare = preparation(grad_scale, clip, weight_decay, flags, A)
    options = read_options(
        *(lr, extrap_lr, extrap_ratio, weight_decay, momentum, dampening, beta1, beta2, eps),
        *(trust_coefficient, flags),
    )
    rule = rule_constants(options, count, tl.full((), 1.0, tl.float64), RULE, A)
    if grads.aligned & (piece.end % 8 == 0):
        total_x, total = norm_squares(t, grads, piece, prepare, rule, A, GRAD, RULE, BUFFERS, BLOCK, True)
    else:
        total_x, total = norm_squares(t, grads, piece, prepare, rule, A, GRAD, RULE, BUFFERS, BLOCK // 8, False)
    tl.store(partial + pid, total_x)
    tl.store(partial + programs + pid, total)
    if is_last(counters + piece.group, piece.pieces):
        tl.store(norms + 2 * piece.group, sum_of_group(partial, piece.first, piece.pieces, BLOCK))
        tl.store(norms + 2 * piece.group + 1, sum_of_group(partial, programs + piece.first, piece.pieces, BLOCK))
