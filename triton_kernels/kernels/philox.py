"""Philox4x32-10 (Salmon et al., SC 2011) and the noise made from it, a function ``<noise>_pair`` for each kind.

Twins: ``csrc/core/philox.h`` and ``csrc/core/noise.h``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.formats import square_root


@triton.jit
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Return the four words of each counter; all arguments and results are uint32."""
    M0: tl.constexpr = 0xD2511F53
    M1: tl.constexpr = 0xCD9E8D57
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, c0 * 0 + M0), c0 * M0
        high1, low1 = tl.umulhi(c2, c2 * 0 + M1), c2 * M1
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def unit_interval(word):
    """Map words to (0, 1), exactly: 23 bits and a half."""
    return ((word >> 9).to(tl.int32).to(tl.float32) + 0.5) * 1.1920928955078125e-07


@triton.jit
def log_unit(u):
    """Natural logarithm on (0, 1), relative error below 1.5e-7."""
    shifted = u.to(tl.int32, bitcast=True) + (0x3F800000 - 0x3F3504F3)
    exponent = (shifted >> 23).to(tl.float32) - 127.0
    f = ((shifted & 0x007FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True) - 1.0
    p = f * 0.08700435 + -0.14267486
    p = p * f + 0.14914769
    p = p * f + -0.16577585
    p = p * f + 0.19963063
    p = p * f + -0.25001338
    p = p * f + 0.3333391
    square = f * f
    # ln 2 in two parts, of which the first times the exponent is exact.
    small = exponent * -2.12194440e-4 + (square * f) * p
    return exponent * 0.693359375 + ((square * -0.5 + small) + f)


@triton.jit
def sine_cosine_turns(u):
    """Sine and cosine of ``2 * pi * u`` for ``u`` in (0, 1), relative error below 3e-7."""
    quarters = u * 4.0
    quadrant = (quarters + 0.5).to(tl.int32)
    f = quarters - quadrant.to(tl.float32)
    q = f * f
    s = (((q * -0.004601658 + 0.07968003) * q + -0.6459635) * q + 1.5707964) * f
    c = ((q * -0.020417282 + 0.25360322) * q + -1.2336977) * q + 1.0
    # Quadrants 0 to 3 have (sin, cos) = (s, c), (c, -s), (-s, -c), (-c, s).
    odd = (quadrant & 1) != 0
    sine, cosine = tl.where(odd, c, s), tl.where(odd, s, c)
    sine = tl.where((quadrant & 2) != 0, -sine, sine)
    cosine = tl.where(((quadrant + 1) & 2) != 0, -cosine, cosine)
    return sine, cosine


@triton.jit
def uniform_pair(word_a, word_b):
    """Return two independent U(-1, 1) from two words, in float32."""
    return unit_interval(word_a) * 2.0 - 1.0, unit_interval(word_b) * 2.0 - 1.0


@triton.jit
def gaussian_pair(word_a, word_b):
    """Return two independent N(0, 1) from two words, in float32 (Box-Muller)."""
    radius = square_root(log_unit(unit_interval(word_a)) * -2.0)
    sine, cosine = sine_cosine_turns(unit_interval(word_b))
    return radius * cosine, radius * sine


@triton.jit
def words(key, index, step, counter):
    """Return the four random words of each int64 ``counter``, which serves the positions from ``4 * counter``."""
    zero = counter.to(tl.uint32) * 0
    return philox4x32(
        counter.to(tl.uint32),
        (counter >> 32).to(tl.uint32),
        zero + index.to(tl.uint32),
        zero + step.to(tl.uint32),
        key.to(tl.uint32),
        (key >> 32).to(tl.uint32),
    )


@triton.jit
def noise_of_counters(key, index, step, counter, PAIR: tl.constexpr, BLOCK: tl.constexpr):
    """Return the noise of ``BLOCK`` elements, of which each four share one of the ``BLOCK // 4`` counters.

    ``PAIR`` makes the noise of two positions that follow each other from two words.
    """
    w0, w1, w2, w3 = words(key, index, step, counter)
    n0, n1 = PAIR(w0, w1)
    n2, n3 = PAIR(w2, w3)
    return tl.join(tl.join(n0, n2), tl.join(n1, n3)).reshape(BLOCK)


@triton.jit
def noise_at(key, index, step, position, PAIR: tl.constexpr):
    """Return the noise at any positions, each of which costs a counter."""
    w0, w1, w2, w3 = words(key, index, step, position >> 2)
    second = position & 2 != 0
    even, odd = PAIR(tl.where(second, w2, w0), tl.where(second, w3, w1))
    return tl.where(position & 1 != 0, odd, even)
