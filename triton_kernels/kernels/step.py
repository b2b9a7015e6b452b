"""One training step of all tensors of a bucket in one launch. Twin: ``csrc/core/step.h``.

Every operation rounds once, in the order of that file, without fused multiply-add: the same bits on every backend.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.base import (
    adopts,
    inner_lr_of,
    load_base,
    load_stored_base,
    recovered_base,
    store_base,
)
from extrap_kernels.triton_kernels.kernels.buffers import load_buffers, store_buffers
from extrap_kernels.triton_kernels.kernels.direction import (
    extrapolated,
    extrapolated_gradient,
    extrapolation,
    extrapolation_along,
    returns_to_base,
)
from extrap_kernels.triton_kernels.kernels.formats import load, split_rounded, square_root, store
from extrap_kernels.triton_kernels.kernels.gradients import preparation, prepared
from extrap_kernels.triton_kernels.kernels.noise import noise_of, rounding_bits, with_noise
from extrap_kernels.triton_kernels.kernels.scalars import (
    address_slot,
    device_number,
    is_skipped,
    number,
    slot,
    whole_number,
)
from extrap_kernels.triton_kernels.kernels.table import VECTOR, chunk_row, is_last, noise_row, span_of, tensor_row

LR, LR_AT = slot("lr"), address_slot("lr")
WEIGHT_DECAY, DECOUPLED = slot("weight_decay"), slot("decoupled_weight_decay")
LAYER_ADAPTATION = slot("layer_adaptation")


class Update(NamedTuple):
    """The outer learning rate and the decoupled decay in the precision of the arithmetic."""

    lr: Any
    shrink: Any


@triton.jit
def update_of(scalars, A: tl.constexpr, OWN_DECAY: tl.constexpr):
    """Round the scalars once; ``OWN_DECAY``: the rule does the weight decay itself."""
    lr, decay = device_number(scalars, LR, LR_AT), number(scalars, WEIGHT_DECAY)
    decoupled = (decay != 0) & (whole_number(scalars, DECOUPLED) != 0) & (not OWN_DECAY)
    return Update(lr.to(A), tl.where(decoupled, 1.0 - lr * decay, 1.0).to(A))


@triton.jit
def step_elements(
    t,
    begin,
    end,
    adopt,
    update,
    e,
    prepare,
    rule,
    noise,
    inner_lr,
    A: tl.constexpr,
    PARAM: tl.constexpr,
    GRAD: tl.constexpr,
    BASE: tl.constexpr,
    SIGNED: tl.constexpr,
    UNSIGNED: tl.constexpr,
    BUFFERS: tl.constexpr,
    SIGNS: tl.constexpr,
    ROUNDS: tl.constexpr,
    DIRECTION: tl.constexpr,
    EXTRAGRADIENT_DIRECTION: tl.constexpr,
    PHASE: tl.constexpr,
    NOISE: tl.constexpr,
    RECOVERS: tl.constexpr,
    SHARDED: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Step the elements from ``begin`` to ``end``.

    ``ALIGNED``: both are multiples of ``VECTOR``, pointers of 16 bytes; where noise falls on a shard, any ``VECTOR``
    elements from a multiple of it lie at positions from a multiple of it in the whole tensor, too.
    """
    SPLIT: tl.constexpr = BASE == tl.bfloat16
    o = tl.arange(0, BLOCK)
    for done in range(0, end - begin, BLOCK):
        start = begin + done
        left = tl.minimum(end - start, BLOCK).to(tl.int32)
        if ALIGNED:
            start, left = tl.multiple_of(start, VECTOR), tl.multiple_of(left, VECTOR)
        mask = o < left
        # Elsewhere, the parameter is x or holds another point.
        if PHASE == "extrapolate" or (NOISE is None and PARAM != A):
            x = load_base(t, start, mask, adopt, PARAM, BASE, A, BLOCK, ALIGNED)
        else:
            x = load_stored_base(t, start, mask, BASE, A, BLOCK, ALIGNED)
        buffers = load_buffers(t, start, left, BUFFERS, SIGNS, SIGNED, UNSIGNED, A, BLOCK, ALIGNED)
        if RECOVERS:
            x = recovered_base(x, buffers[0], inner_lr)
        g = prepared(prepare, load(t.gradient, start, mask, GRAD, A, BLOCK, ALIGNED), x)
        l = g
        if t.local != 0:
            l = prepared(prepare, load(t.local, start, mask, GRAD, A, BLOCK, ALIGNED), x)
        if PHASE == "extrapolate":
            y = extrapolated(e, e.moves, x, EXTRAGRADIENT_DIRECTION(rule, g, l, buffers))
            if SPLIT:
                x = split_rounded(x, 0)  # as it is, but a NaN may have other bits
        else:
            u, z, buffers = DIRECTION(rule, g, extrapolated_gradient(e, g, l), x, buffers)
            if not ROUNDS:
                store_buffers(t, start, left, buffers, None, BUFFERS, SIGNS, SIGNED, UNSIGNED, ROUNDS, BLOCK, ALIGNED)
            x = x * update.shrink - u * update.lr
            if SPLIT:
                x = split_rounded(x, rounding_bits(noise, start, SHARDED, BLOCK))
            m = u
            if BUFFERS > 0:
                m = buffers[0]
            y = extrapolated(e, e.moves_after_update, x, extrapolation_along(e, u, z, m))
            if NOISE is not None:
                if noise.place.first >= 0:
                    y = with_noise(noise, y, l, start, NOISE, SHARDED, BLOCK, ALIGNED)
        # Where no base is stored, x is y: one store does.
        kept = tl.where(t.base != t.y, left, 0)
        if ALIGNED:
            kept = tl.multiple_of(kept, VECTOR)
        store_base(t, start, o < kept, x, BASE, BLOCK, ALIGNED)
        store(t.y, start, mask, y, PARAM, BLOCK, ALIGNED)
        # Last of all: before, it would take registers besides those of x and y.
        if ROUNDS and PHASE == "update":
            bits = rounding_bits(noise, start, SHARDED, BLOCK)
            store_buffers(t, start, left, buffers, bits, BUFFERS, SIGNS, SIGNED, UNSIGNED, ROUNDS, BLOCK, ALIGNED)


@triton.jit
def return_to_base(t, begin, end, A: tl.constexpr, PARAM: tl.constexpr, BASE: tl.constexpr, BLOCK: tl.constexpr):
    """Put the rounded base iterate into the parameter."""
    for start in range(begin, end, BLOCK):
        mask = start + tl.arange(0, BLOCK) < end
        x = load_stored_base(t, start, mask, BASE, A, BLOCK, False)
        store(t.y, start, mask, x, PARAM, BLOCK, False)


@triton.jit
def trust_of(scalars, norms, tensor, TRUST_RATIO: tl.constexpr):
    """Return the float64 trust ratio of a tensor; 1 for a rule that does not scale by norms."""
    if TRUST_RATIO is None:
        return tl.full((), 1.0, tl.float64)
    else:
        trust = tl.full((), 1.0, tl.float64)
        if whole_number(scalars, LAYER_ADAPTATION) != 0:
            norm_x = square_root(tl.load(norms + 2 * tensor))
            norm = square_root(tl.load(norms + 2 * tensor + 1))
            trust = TRUST_RATIO(scalars, norm_x, norm)
        return trust


@triton.jit
def step_kernel(
    scalars,
    tensors,
    chunks,
    counters,
    noise_rows,
    rms,
    norms,
    length,
    A: tl.constexpr,
    PARAM: tl.constexpr,
    GRAD: tl.constexpr,
    BASE: tl.constexpr,
    SIGNED: tl.constexpr,
    UNSIGNED: tl.constexpr,
    BUFFERS: tl.constexpr,
    SIGNS: tl.constexpr,
    ROUNDS: tl.constexpr,
    OWN_DECAY: tl.constexpr,
    CONSTANTS: tl.constexpr,
    DIRECTION: tl.constexpr,
    EXTRAGRADIENT_DIRECTION: tl.constexpr,
    TRUST_RATIO: tl.constexpr,
    PHASE: tl.constexpr,
    NOISE: tl.constexpr,
    RECOVERS: tl.constexpr,
    SHARDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Step one chunk, of up to ``length`` elements, under the scalars of ``scalars``.

    Functions of the rule are constexpr, and so is ``NOISE``, which makes two numbers from two words; ``None``: there is
    no noise. ``RECOVERS``: ``x`` may have to be recovered from the parameter and the first buffer. ``SHARDED``: what
    noise or random bits fall on are parts of tensors.
    """
    chunk = chunk_row(chunks, tl.program_id(0))
    t = tensor_row(tensors, chunk.tensor, BUFFERS)
    begin, end = span_of(chunk.part, t.numel, length)
    if t.gradient != 0:
        if is_skipped(scalars):
            if returns_to_base(scalars):
                return_to_base(t, begin, end, A, PARAM, BASE, BLOCK // 8)
        else:
            step = t.step.to(tl.pointer_type(tl.float32))
            count = tl.load(step) + 1
            update, e = update_of(scalars, A, OWN_DECAY), extrapolation(scalars, A)
            prepare = preparation(scalars, A, OWN_DECAY)
            rule = CONSTANTS(scalars, count, trust_of(scalars, norms, chunk.tensor, TRUST_RATIO), A)
            place = noise_row(noise_rows, chunk.tensor)
            noise = noise_of(scalars, count, place, rms)
            inner_lr = inner_lr_of(t, RECOVERS, A)
            # Where no base is stored, the parameter is x.
            adopt = adopts(scalars) & (t.base != t.y)
            aligned = (t.aligned != 0) & (end % VECTOR == 0)
            if SHARDED:
                aligned &= (place.offset | place.extent | place.stride) % VECTOR == 0
            # One element for each thread where accesses cannot be wider: more would only cost registers.
            if aligned:
                step_elements(
                    *(t, begin, end, adopt, update, e, prepare, rule, noise, inner_lr),
                    *(A, PARAM, GRAD, BASE, SIGNED, UNSIGNED, BUFFERS, SIGNS, ROUNDS),
                    *(DIRECTION, EXTRAGRADIENT_DIRECTION, PHASE, NOISE, RECOVERS, SHARDED, BLOCK, True),
                )
            else:
                step_elements(
                    *(t, begin, end, adopt, update, e, prepare, rule, noise, inner_lr),
                    *(A, PARAM, GRAD, BASE, SIGNED, UNSIGNED, BUFFERS, SIGNS, ROUNDS),
                    *(DIRECTION, EXTRAGRADIENT_DIRECTION, PHASE, NOISE, RECOVERS, SHARDED, BLOCK // 8, False),
                )
            if PHASE == "update":
                if is_last(counters + chunk.tensor, t.chunks):
                    tl.store(step, count)
                    if RECOVERS:
                        if t.inner_lr != 0:
                            tl.store(t.inner_lr.to(tl.pointer_type(A)), e.lr)
