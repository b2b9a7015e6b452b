"""One training step of all tensors of a bucket in one launch. Twin: ``csrc/core/step.h``.

Every operation rounds once, in the order of that file, without fused multiply-add: the same bits on every backend.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from extrap_kernels.triton_kernels.options import (
    DECOUPLED,
    EXTRAGRADIENT,
    GRADIENT_NOISE,
    NUMBERS,
    PAST_GRADIENT,
    PAST_UPDATE,
    ROW_NOISE,
    preparation,
    prepared,
    read_options,
)
from extrap_kernels.triton_kernels.perturbation import Perturbation, perturbed
from extrap_kernels.triton_kernels.rules import direction, extragradient_direction, rule_constants, trust_ratio
from extrap_kernels.triton_kernels.storage import double, pointer, rounded, scalar, square_root, widened
from extrap_kernels.triton_kernels.table import chunk_row, gradient_row, is_last, noise_row, tensor_row


class Constants(NamedTuple):
    """Learning rates in the precision of the arithmetic, and where the extrapolation goes."""

    lr: Any
    extrap_lr: Any
    shrink: Any
    past_gradient: Any
    past_update: Any


@triton.jit
def step_constants(options, flags, A: tl.constexpr):
    """Round the options once."""
    shrink = 1.0 - options.lr * options.weight_decay
    return Constants(
        options.lr.to(A),
        options.extrap_lr.to(A),
        tl.where(flags & DECOUPLED != 0, shrink, 1.0).to(A),
        flags & PAST_GRADIENT != 0,
        flags & PAST_UPDATE != 0,
    )


@triton.jit
def step_elements(
    t,
    grads,
    begin,
    end,
    c,
    prepare,
    rule,
    noisy,
    A: tl.constexpr,
    PARAM: tl.constexpr,
    GRAD: tl.constexpr,
    RULE: tl.constexpr,
    BUFFERS: tl.constexpr,
    CORRECT: tl.constexpr,
    NOISE: tl.constexpr,
    SHARDED: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Step the elements from ``begin`` to ``end``.

    ``ALIGNED``: both are multiples of 8, and pointers of 16 bytes; where noise falls on a shard, any 4 elements from
    a multiple of 4 lie at 4 positions from a multiple of 4 in the whole tensor, too.
    """
    o = tl.arange(0, BLOCK)
    for done in range(0, end - begin, BLOCK):
        start = begin + done
        left = tl.minimum(end - start, BLOCK).to(tl.int32)
        if ALIGNED:
            start, left = tl.multiple_of(start, 8), tl.multiple_of(left, 8)
        mask = o < left
        base = pointer(t.base, A, ALIGNED) + start + o
        param = pointer(t.y, PARAM, ALIGNED) + start + o
        x = tl.load(base, mask=mask)
        if not CORRECT:
            # x = p where somebody changed the parameter; elsewhere a narrow one holds only the rounded base iterate.
            held = widened(tl.load(param, mask=mask), PARAM, A)
            x = tl.where(held == widened(rounded(x, PARAM), PARAM, A), x, held)
        gradient = tl.load(pointer(grads.gradient, GRAD, ALIGNED) + start + o, mask=mask)
        g = prepared(prepare, widened(gradient, GRAD, A), x)
        l = g
        if grads.local != 0:
            own = tl.load(pointer(grads.local, GRAD, ALIGNED) + start + o, mask=mask)
            l = prepared(prepare, widened(own, GRAD, A), x)
        m, v = x, x
        if BUFFERS >= 1:
            m = tl.load(pointer(t.m, A, ALIGNED) + start + o, mask=mask)
        if BUFFERS == 2:
            v = tl.load(pointer(t.v, A, ALIGNED) + start + o, mask=mask)
        if CORRECT:
            u, z, m, v = direction(rule, g, l, x, m, v, RULE, BUFFERS)
            if BUFFERS >= 1:
                tl.store(pointer(t.m, A, ALIGNED) + start + o, m, mask=mask)
            if BUFFERS == 2:
                tl.store(pointer(t.v, A, ALIGNED) + start + o, v, mask=mask)
            x = x * c.shrink - u * c.lr
            y = tl.where(c.past_gradient, x - z * c.extrap_lr, x)
            y = tl.where(c.past_update, x - u * c.extrap_lr, y)
            if NOISE is not None:
                if noisy.present:
                    y = perturbed(noisy, y, l, start, BLOCK, NOISE == "gaussian", SHARDED, ALIGNED)
        else:
            y = x - extragradient_direction(rule, g, l, v, RULE) * c.extrap_lr
        tl.store(base, x, mask=mask)
        tl.store(param, rounded(y, PARAM), mask=mask)


@triton.jit
def return_to_base(t, begin, end, A: tl.constexpr, PARAM: tl.constexpr, BLOCK: tl.constexpr):
    """Put the rounded base iterate into the parameter."""
    o = tl.arange(0, BLOCK)
    for start in range(begin, end, BLOCK):
        mask = start + o < end
        x = tl.load(pointer(t.base, A, False) + start + o, mask=mask)
        tl.store(pointer(t.y, PARAM, False) + start + o, rounded(x, PARAM), mask=mask)


@triton.jit
def trust_of(options, norms, tensor, RULE: tl.constexpr):
    """Return the float64 trust ratio of a tensor; 1 for a rule that does not scale by norms."""
    if RULE == "lars" or RULE == "lamb":
        norm_x = square_root(tl.load(norms + 2 * tensor))
        norm = square_root(tl.load(norms + 2 * tensor + 1))
        return trust_ratio(options, norm_x, norm, RULE)
    else:
        return tl.full((), 1.0, tl.float64)


@triton.jit(do_not_specialize=NUMBERS)
def step_kernel(
    tensors,
    gradients,
    chunks,
    counters,
    noise_rows,
    rms,
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
    PARAM: tl.constexpr,
    GRAD: tl.constexpr,
    RULE: tl.constexpr,
    BUFFERS: tl.constexpr,
    CORRECT: tl.constexpr,
    NOISE: tl.constexpr,
    SHARDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Step one chunk.

    ``CORRECT`` is False in the first half of an extragradient step, which moves ``y`` alone. ``SHARDED``: what
    noise falls on are parts of tensors.
    """
    chunk = chunk_row(chunks, tl.program_id(0))
    t = tensor_row(tensors, chunk.tensor)
    if scalar(found_inf_at, found_inf_at != 0) != 0:
        if flags & EXTRAGRADIENT != 0:
            return_to_base(t, chunk.begin, chunk.end, A, PARAM, BLOCK // 8)
    else:
        grads = gradient_row(gradients, chunk.tensor)
        step = t.step.to(tl.pointer_type(tl.float32))
        count = tl.load(step) + 1
        options = read_options(
            *(lr, extrap_lr, extrap_ratio, weight_decay, momentum, dampening, beta1, beta2, eps),
            *(trust_coefficient, flags),
        )
        c = step_constants(options, flags, A)
        prepare = preparation(grad_scale, clip, weight_decay, flags, A)
        rule = rule_constants(options, count, trust_of(options, norms, chunk.tensor, RULE), RULE, A)
        row = noise_row(noise_rows, chunk.tensor)
        noisy = Perturbation(
            row.first >= 0,
            key.to(tl.int64),
            t.index,
            count,
            double(noise_std).to(A),
            flags & GRADIENT_NOISE != 0,
            flags & ROW_NOISE != 0,
            row,
            rms,
        )
        aligned = grads.aligned & (chunk.end % 8 == 0)
        if SHARDED:
            aligned &= (row.offset | row.run | row.pitch) % 4 == 0
        # One element for each thread where accesses cannot be wider: more would only cost registers.
        if aligned:
            step_elements(
                *(t, grads, chunk.begin, chunk.end, c, prepare, rule, noisy),
                *(A, PARAM, GRAD, RULE, BUFFERS, CORRECT, NOISE, SHARDED, BLOCK, True),
            )
        else:
            step_elements(
                *(t, grads, chunk.begin, chunk.end, c, prepare, rule, noisy),
                *(A, PARAM, GRAD, RULE, BUFFERS, CORRECT, NOISE, SHARDED, BLOCK // 8, False),
            )
        if CORRECT:
            if is_last(counters + chunk.tensor, t.chunks):
                tl.store(step, count)
