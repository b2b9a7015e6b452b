"""LARS (You et al. 2017): SGD on gradients scaled to the norm of each tensor. Twin: ``csrc/core/rules/lars.h``."""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.scalars import number, slot, whole_number
from extrap_kernels.triton_kernels.rules.sgd import constants, sgd_direction

__all__ = ["constants", "direction", "extragradient_direction", "trust_ratio"]

WEIGHT_DECAY, DECOUPLED = slot("weight_decay"), slot("decoupled_weight_decay")
TRUST_COEFFICIENT, EPS = slot("trust_coefficient"), slot("eps")


@triton.jit
def trust_ratio(scalars, norm_x, norm_g):
    """Return the float64 trust ratio; ``norm_g`` is taken before the decay joined the gradient."""
    decay = tl.where(whole_number(scalars, DECOUPLED) != 0, 0.0, number(scalars, WEIGHT_DECAY))
    ratio = number(scalars, TRUST_COEFFICIENT) * norm_x / (norm_g + decay * norm_x + number(scalars, EPS))
    return tl.where((norm_x > 0) & (norm_g > 0), ratio, 1.0)


@triton.jit
def direction(c, g, l, x, buffers):
    """Return ``u``, ``z`` and the advanced buffers: the momentum, or none."""
    return sgd_direction(c, g * c.trust, l * c.trust, x, buffers)


@triton.jit
def extragradient_direction(c, g, l, buffers):
    """Return ``z`` for the first half of an extragradient step; nothing of it is kept."""
    return l * c.trust
