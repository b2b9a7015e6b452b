"""From a random word to the noise of two elements, by ``<noise>_pair``. Twin: ``csrc/core/noise.h``."""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.formats import square_root


@triton.jit
def symmetric_interval(half):
    """Map 16 bits to (-1, 1), exactly."""
    return tl.fma(half.to(tl.int32).to(tl.float32), 3.0517578125e-05, -0.9999847412109375)


@triton.jit
def radius_square(word):
    """Return ``-2 ln((a + 1/2) / 2**16)`` for the lower half ``a`` of a word: from its bits as a float, and a rest."""
    bits = (((word & 0xFFFF) | 0x4B000000).to(tl.float32, bitcast=True) - 8388607.5).to(tl.int32, bitcast=True)
    chord = (0x47800000 - bits).to(tl.float32)
    t = 2.0 - ((bits & 0x007FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
    p = tl.fma(t, 0.053811647, -0.023477254)
    p = tl.fma(p, t, 0.11110472)
    p = tl.fma(p, t, 0.24452734)
    p = tl.fma(p, t, -0.38599914)
    return tl.fma(chord, 1.6525917e-7, t * p)


@triton.jit
def circle_point(word):
    """Return a point of the unit circle from the upper half of a word: 15 bits of angle, and one that mirrors it."""
    angle = (((word >> 8) & 0x007FFF00) | 0x3F800000).to(tl.float32, bitcast=True) - 1.4999847412109375
    q = angle * angle
    cosine = tl.fma(tl.fma(tl.fma(q, -1.2221271, 4.0412836), q, -4.933938), q, 0.9999933)
    sine = tl.fma(tl.fma(tl.fma(q, -0.5546362, 2.541899), q, -5.167143), q, 3.141582) * angle
    return (cosine.to(tl.uint32, bitcast=True) ^ (word & 0x80000000)).to(tl.float32, bitcast=True), sine


@triton.jit
def uniform_pair(word):
    """Return two independent U(-1, 1), float32."""
    return symmetric_interval(word & 0xFFFF), symmetric_interval(word >> 16)


@triton.jit
def gaussian_pair(word):
    """Return two independent N(0, 1), float32 (Box-Muller)."""
    radius = square_root(radius_square(word))
    even, odd = circle_point(word)
    return radius * even, radius * odd
