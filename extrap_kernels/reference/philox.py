"""Philox4x32-10 and the noise made from it, in plain PyTorch integer arithmetic.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Readable twin of
``csrc/core/philox.h`` and ``csrc/core/noise.h``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox4x32(counter: tuple[Tensor | int, Tensor | int, Tensor | int, Tensor | int], key: int) -> list[Tensor]:
    """Return the four 32-bit words of each counter.

    Args:
        counter: four words in [0, 2**32), each an int or an int64 tensor; they broadcast against each other.
        key: 64-bit key; the low half is the first key word.

    Returns:
        Four int64 tensors with values in [0, 2**32).
    """
    device = next((word.device for word in counter if isinstance(word, Tensor)), torch.device("cpu"))
    words = (torch.as_tensor(word, dtype=torch.int64, device=device) for word in counter)
    c = list(torch.broadcast_tensors(*words))
    k0, k1 = key & _MASK32, (key >> 32) & _MASK32
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2**64, which leaves all 64 bits right.
        p0, p1 = c[0] * _MULTIPLIERS[0], c[2] * _MULTIPLIERS[1]
        c = [
            ((p1 >> 32) & _MASK32) ^ c[1] ^ k0,
            p1 & _MASK32,
            ((p0 >> 32) & _MASK32) ^ c[3] ^ k1,
            p0 & _MASK32,
        ]
        k0, k1 = (k0 + _WEYL[0]) & _MASK32, (k1 + _WEYL[1]) & _MASK32
    return c


def _unit_interval(word: Tensor) -> Tensor:
    return ((word >> 9).double() + 0.5) * 2.0**-23


def noise(kind: str, position: Tensor, *, key: int, parameter: int, step: int) -> Tensor:
    """Return the noise ``n`` of the elements at ``position``, before any scale.

    Args:
        kind: ``"uniform"``, U(-1, 1), or ``"gaussian"``, N(0, 1) by Box-Muller.
        position: int64 tensor of element positions, any shape.
        key: seed plus rank, taken modulo 2**64.
        parameter: index of the parameter in the optimizer.
        step: the parameter's step count after the step that uses the noise, from 1.

    Returns:
        float32 tensor with the shape of ``position``. Uniform noise is exact; Gaussian noise is the float64 value
        rounded once.
    """
    block, lane = position >> 2, position & 3
    words = philox4x32((block & _MASK32, (block >> 32) & _MASK32, parameter, step), key % 2**64)
    if kind == "uniform":
        chosen = torch.stack(words).gather(0, lane.unsqueeze(0)).squeeze(0)
        return (2 * _unit_interval(chosen) - 1).float()
    pair = lane >> 1
    u_a = _unit_interval(torch.where(pair == 0, words[0], words[2]))
    u_b = _unit_interval(torch.where(pair == 0, words[1], words[3]))
    radius, angle = torch.sqrt(-2 * torch.log(u_a)), 2 * math.pi * u_b
    return (radius * torch.where((lane & 1) == 0, torch.cos(angle), torch.sin(angle))).float()
