"""LARS (You et al. 2017): SGD on gradients scaled to the norm of each tensor. Twin: ``csrc/core/rules/lars.h``."""

from __future__ import annotations

import triton
import triton.language as tl
from extrap_kernels.triton_kernels.sgd import sgd_direction


@triton.jit
def lars_trust_ratio(options, norm_x, norm_g):
    """Return the float64 trust ratio; ``norm_g`` is taken before the decay joined the gradient."""
    decay = tl.where(options.decoupled, 0.0, options.weight_decay)
    ratio = options.trust_coefficient * norm_x / (norm_g + decay * norm_x + options.eps)
    return tl.where((norm_x > 0) & (norm_g > 0), ratio, 1.0)


@triton.jit
def lars_direction(rule, g, l, v, MOMENTUM: tl.constexpr):
    """Return ``u``, ``z`` and the momentum buffer."""
    return sgd_direction(rule, g * rule.trust, l * rule.trust, v, MOMENTUM)
