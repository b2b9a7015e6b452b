"""Random bits of noise and of stochastic rounding, in plain PyTorch: readable twin of ``csrc/core/random_bits.h``.

They depend on key, parameter, position and step only, so chunks, shards and backends see the same. Philox gives the
keys of a tensor in a step; a hash of the position, which is much cheaper, gives the bits.
"""

from __future__ import annotations

from torch import Tensor

from extrap_kernels.reference.philox import philox4x32

_MASK32 = 0xFFFFFFFF
_ROUNDING_STREAM = 0x80000000


def _times(word: Tensor, factor: int) -> Tensor:
    return (word * factor) & _MASK32  # int64 products wrap modulo 2**64, which leaves the lower 32 bits right


def random_words(position: Tensor, *, key: int, parameter: int, step: int) -> Tensor:
    """Return a random 32-bit word for each position.

    Args:
        position: int64 tensor, any shape.
        key: of the stream, taken modulo 2**64.
        parameter: index of the parameter in the optimizer, below 2**31 for noise.
        step: the parameter's step count after the step that uses the words, from 1.

    Returns:
        int64 tensor with values in [0, 2**32).
    """
    k0, k1, _, _ = philox4x32((0, 0, parameter, step), key % 2**64)
    high = _times((position >> 32) & _MASK32, 0x9E3779B9)
    h = ((position & _MASK32) + ((k0 + high) & _MASK32)) & _MASK32
    h = h ^ (h >> 16)
    h = _times(h, 0x7FEB352D)
    h = h ^ (h >> 15) ^ k1
    h = _times(h, 0x846CA68B)
    return h ^ (h >> 16)


def rounding_words(position: Tensor, *, seed: int, parameter: int, step: int) -> Tensor:
    """Return the words whose bits round state, of a stream that the noise does not use; see :func:`random_words`.

    Bits 0 to 7 round the base iterate, bits 8 to 15 signed buffers, bits 16 to 31 unsigned ones.

    Args:
        position: int64 tensor of positions in the whole tensor, any shape.
        seed: of the param group, without the rank.
        parameter: as in :func:`random_words`.
        step: likewise.
    """
    return random_words(position, key=seed, parameter=parameter | _ROUNDING_STREAM, step=step)
