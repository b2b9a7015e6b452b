"""Random bits for stochastic rounding, in plain PyTorch integer arithmetic: readable twin of ``csrc/core/rounding.h``.

They depend on seed, parameter, position and step only, so replicas and shards round alike. Philox gives the keys of a
tensor in a step; a hash of the position, which is much cheaper, gives the bits of a number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from extrap_kernels.reference.philox import philox4x32

_MASK32 = 0xFFFFFFFF


def _times(word: Tensor, factor: int) -> Tensor:
    return (word * factor) & _MASK32  # int64 products wrap modulo 2**64, which leaves the lower 32 bits right


def rounding_words(position: Tensor, *, seed: int, parameter: int, step: int) -> Tensor:
    """Return a random 32-bit word for each number.

    Args:
        position: int64 tensor of positions in the whole tensor, any shape.
        seed: of the param group, without the rank.
        parameter: index of the parameter in the optimizer.
        step: the parameter's step count after the step, from 1.

    Returns:
        int64 tensor with values in [0, 2**32).
    """
    k0, k1, _, _ = philox4x32((0, 0, parameter | 0x80000000, step), seed % 2**64)
    h = (position & _MASK32) ^ k0
    h = (h + _times((position >> 32) & _MASK32, 0x9E3779B9)) & _MASK32
    h = h ^ (h >> 16)
    h = _times(h, 0x7FEB352D)
    h = h ^ (h >> 15) ^ k1
    h = _times(h, 0x846CA68B)
    return h ^ (h >> 16)


def rounding_bits(position: Tensor, *, seed: int, parameter: int, step: int) -> Tensor:
    """Return the 16 bits that round an unsigned buffer: the upper half of each word, int32."""
    return (rounding_words(position, seed=seed, parameter=parameter, step=step) >> 16).to(torch.int32)
