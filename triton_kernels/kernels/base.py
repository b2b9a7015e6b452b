"""The base iterate ``x`` as a step finds it. Twins: ``csrc/core/config.h`` and ``csrc/core/step.h``."""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.launch import PHASES, Phase
from extrap_kernels.triton_kernels.kernels.formats import (
    downcast,
    high_half,
    joined,
    load,
    load_as_is,
    low_byte,
    store,
    store_as_is,
    upcast,
)
from extrap_kernels.triton_kernels.kernels.scalars import code, slot, whole_number

PHASE, EXTRAPOLATE = slot("phase"), tl.constexpr(PHASES.index(Phase.EXTRAPOLATE.value))
EXTRAPOLATION, NO_EXTRAPOLATION = slot("extrapolation"), code("extrapolation", None)
NOISE, NO_NOISE = slot("noise"), code("noise", None)


@triton.jit
def adopts(scalars):
    """Whether a parameter that does not hold the rounded ``x`` has been changed and is the new ``x``."""
    plain = (whole_number(scalars, EXTRAPOLATION) == NO_EXTRAPOLATION) & (whole_number(scalars, NOISE) == NO_NOISE)
    return plain | (whole_number(scalars, PHASE) == EXTRAPOLATE)


@triton.jit
def inner_lr_of(t, RECOVERS: tl.constexpr, A: tl.constexpr):
    """Return the inner learning rate that ``x`` is recovered by; 0: it need not be."""
    value = tl.full((), 0.0, A)
    if RECOVERS:
        if t.inner_lr != 0:
            value = tl.load(t.inner_lr.to(tl.pointer_type(A)))
    return value


@triton.jit
def recovered_base(y, m, inner_lr):
    """Return ``x`` where it is not stored: ``y = x - m * inner_lr``, with the first moment as it is stored."""
    return tl.where(inner_lr != 0, y + m * inner_lr, y)


@triton.jit
def load_stored_base(t, start, mask, BASE: tl.constexpr, A: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Return ``x`` from ``start`` as it is stored; in bfloat16, it is split."""
    if BASE == tl.bfloat16:
        high = load_as_is(t.base, start, mask, tl.uint16, BLOCK, ALIGNED)
        return joined(high, load_as_is(t.base_low, start, mask, tl.uint8, BLOCK, ALIGNED))
    else:
        return load(t.base, start, mask, BASE, A, BLOCK, ALIGNED)


@triton.jit
def store_base(t, start, mask, x, BASE: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Write ``x`` from ``start`` on; where it is split, it is rounded already."""
    if BASE == tl.bfloat16:
        store_as_is(t.base, start, mask, high_half(x), tl.uint16, BLOCK, ALIGNED)
        store_as_is(t.base_low, start, mask, low_byte(x), tl.uint8, BLOCK, ALIGNED)
    else:
        store(t.base, start, mask, x, BASE, BLOCK, ALIGNED)


@triton.jit
def load_base(
    t,
    start,
    mask,
    adopt,
    PARAM: tl.constexpr,
    BASE: tl.constexpr,
    A: tl.constexpr,
    BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Return ``x`` from ``start``; ``adopt``: what the parameter holds counts, see :func:`adopts`."""
    x = load_stored_base(t, start, mask, BASE, A, BLOCK, ALIGNED)
    if adopt:
        held = load(t.y, start, mask, PARAM, A, BLOCK, ALIGNED)
        x = tl.where(held == upcast(downcast(x, PARAM), PARAM, A), x, held)
    return x
