"""SGD: from the gradient to the update ``u`` and the extrapolation direction ``z``. Twin: ``csrc/core/rules/sgd.h``."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.scalars import number, slot, whole_number

MOMENTUM, DAMPENING, NESTEROV = slot("momentum"), slot("dampening"), slot("nesterov")


class Sgd(NamedTuple):
    """Constants of SGD; ``trust`` scales the gradients, for LARS."""

    momentum: Any
    grad_weight: Any
    nesterov: Any
    trust: Any


@triton.jit
def constants(scalars, count, trust, A: tl.constexpr):
    """Return the constants, in the precision ``A``, of the step that makes the step count ``count``."""
    # The buffer starts as zeros, so that a weight of 1 makes it g in the first step.
    grad_weight = tl.where(count == 1, 1.0, 1.0 - number(scalars, DAMPENING))
    nesterov = whole_number(scalars, NESTEROV) != 0
    return Sgd(number(scalars, MOMENTUM).to(A), grad_weight.to(A), nesterov, trust.to(A))


@triton.jit
def sgd_direction(c, g, l, x, buffers):
    """Return ``u``, ``z`` and the advanced buffers: the momentum, or none."""
    if len(buffers) == 1:
        v = buffers[0] * c.momentum + g * c.grad_weight
        return tl.where(c.nesterov, g + v * c.momentum, v), l, (v,)
    else:
        return g, l, buffers


# Triton 3.3 mistakes functions of one name for each other, and LARS has a direction() that calls this one.
direction = sgd_direction


@triton.jit
def extragradient_direction(c, g, l, buffers):
    """Return ``z`` for the first half of an extragradient step; nothing of it is kept."""
    return l
