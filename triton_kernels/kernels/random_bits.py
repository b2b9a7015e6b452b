"""Random bits: a function of key, parameter, step and position. Twin: ``csrc/core/random_bits.h``."""

from __future__ import annotations

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.philox import philox4x32

# In the index of a parameter: sets the bits that round its state apart from those of its noise.
ROUNDING_STREAM = tl.constexpr(0x80000000)


@triton.jit
def random_key(key, index, step):
    """Return the two words that key the stream of a parameter in a step; ``key`` is an int64."""
    zero = (key * 0).to(tl.uint32)
    low, high = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    first, second, _, _ = philox4x32(zero, zero, zero + index.to(tl.uint32), zero + step.to(tl.uint32), low, high)
    return first, second


@triton.jit
def random_bits(first, second, position):
    """Return a random uint32 for each int64 position; ``first`` and ``second`` are those of :func:`random_key`."""
    h = position.to(tl.uint32) + (first + (position >> 32).to(tl.uint32) * 0x9E3779B9)
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = (h ^ (h >> 15) ^ second) * 0x846CA68B
    return h ^ (h >> 16)
