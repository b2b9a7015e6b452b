"""SGD: from the gradient to the update ``u`` and the extrapolation direction ``z``. Twin: ``csrc/core/rules/sgd.h``."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Sgd(NamedTuple):
    """Constants of SGD; ``trust`` scales the gradients, for LARS."""

    momentum: Any
    grad_weight: Any
    nesterov: Any
    trust: Any


@triton.jit
def sgd_constants(options, count, trust, A: tl.constexpr):
    """Return the constants of the step that makes the step count ``count``."""
    # The buffer starts as zeros, so that a weight of 1 makes it g in the first step.
    grad_weight = tl.where(count == 1, 1.0, 1.0 - options.dampening)
    return Sgd(options.momentum.to(A), grad_weight.to(A), options.nesterov, trust.to(A))


@triton.jit
def sgd_direction(rule, g, l, v, MOMENTUM: tl.constexpr):
    """Return ``u``, ``z`` and the momentum buffer."""
    u = g
    if MOMENTUM:
        v = v * rule.momentum + g * rule.grad_weight
        u = tl.where(rule.nesterov, g + v * rule.momentum, v)
    return u, l, v
