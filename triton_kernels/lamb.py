"""LAMB (You et al. 2020): Adam's direction and decoupled decay, scaled to the norm of each tensor.

Twin: ``csrc/core/rules/lamb.h``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from extrap_kernels.triton_kernels.adam import adam_direction


@triton.jit
def lamb_trust_ratio(norm_x, norm_u):
    """Return the float64 trust ratio."""
    return tl.where((norm_x > 0) & (norm_u > 0), norm_x / norm_u, 1.0)


@triton.jit
def lamb_direction(rule, g, l, x, m, v):
    """Return ``u``, ``z`` and both moments. Before the trust ratio is known it is 1, and ``u`` what its norm is of."""
    u, z, m, v = adam_direction(rule, g, l, m, v)
    return (u + x * rule.decay) * rule.trust, z, m, v
