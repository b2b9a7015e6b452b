"""From a random word to the noise of two elements, by ``<noise>_pair``. Twin: ``csrc/core/noise.h``."""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.formats import square_root


@triton.jit
def symmetric_interval(half):
    """Map 16 bits to (-1, 1), exactly."""
    return half.to(tl.int32).to(tl.float32) * 3.0517578125e-05 + -0.9999847412109375


@triton.jit
def radius_square(a):
    """Return ``-2 ln((a + 1/2) / 2**16)`` for 16 bits, relative error below 4e-7."""
    shifted = (a.to(tl.int32).to(tl.float32) + 0.5).to(tl.int32, bitcast=True) + (0x3F800000 - 0x3F3504F3)
    exponent = (shifted >> 23).to(tl.float32) - 143.0
    f = ((shifted & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    p = f * 0.203834694 + -0.320487734
    p = p * f + 0.342742558
    p = p * f + -0.398490058
    p = p * f + 0.499665338
    p = p * f + -0.666684914
    square = f * f
    # -2 ln 2 in two parts, of which the first times the exponent is exact.
    small = exponent * 4.24388880e-4 + (square * f) * p
    return exponent * -1.38671875 + (f * -2.0 + (square + small))


@triton.jit
def circle_point(word):
    """Return a point of the unit circle from the upper 16 bits, relative error below 3e-7."""
    angle = ((word >> 16) & 0x3FFF).to(tl.int32).to(tl.float32) * 6.103515625e-05 + -0.499969482421875
    q = angle * angle
    across = (((q * -0.004601658 + 0.07968003) * q + -0.6459635) * q + 1.5707964) * angle
    cosine = ((q * -0.020417282 + 0.25360322) * q + -1.2336977) * q + 1.0
    along = tl.where((word & 0x80000000) != 0, -cosine, cosine)
    swapped = (word & 0x40000000) != 0
    return tl.where(swapped, across, along), tl.where(swapped, along, across)


@triton.jit
def uniform_pair(word):
    """Return two independent U(-1, 1), float32."""
    return symmetric_interval(word & 0xFFFF), symmetric_interval(word >> 16)


@triton.jit
def gaussian_pair(word):
    """Return two independent N(0, 1), float32 (Box-Muller)."""
    radius = square_root(radius_square(word & 0xFFFF))
    even, odd = circle_point(word)
    return radius * even, radius * odd
