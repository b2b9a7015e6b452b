"""A toy: sign-SGD in Triton."""

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.scalars import number, slot

GAIN = slot("gain")


@triton.jit
def constants(scalars, count, trust, A: tl.constexpr):
    """Return the gain."""
    return number(scalars, GAIN).to(A)


@triton.jit
def direction(c, g, l, x, buffers):
    """Return ``u``, ``z`` and no buffers."""
    one = tl.full(g.shape, 1, g.dtype)
    return tl.where(g > 0, one, tl.where(g < 0, -one, one - one)) * c, l, buffers


@triton.jit
def extragradient_direction(c, g, l, buffers):
    """Return ``z``."""
    return l
