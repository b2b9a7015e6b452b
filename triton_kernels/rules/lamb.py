"""LAMB (You et al. 2020): Adam's direction and decoupled decay, scaled to the norm of each tensor.

Twin: ``csrc/core/rules/lamb.h``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.rules.adam import adam_direction, constants, extragradient_direction

__all__ = ["constants", "direction", "extragradient_direction", "trust_ratio"]


@triton.jit
def trust_ratio(scalars, norm_x, norm_u):
    """Return the float64 trust ratio."""
    return tl.where((norm_x > 0) & (norm_u > 0), norm_x / norm_u, 1.0)


@triton.jit
def direction(c, g, l, x, buffers):
    """Return ``u``, ``z`` and both moments. Before the trust ratio is known it is 1, and ``u`` what its norm is of."""
    u, z, buffers = adam_direction(c, g, l, x, buffers)
    return (u + x * c.decay) * c.trust, z, buffers
