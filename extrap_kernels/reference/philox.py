"""Philox4x32-10 in plain PyTorch integer arithmetic: readable twin of ``csrc/core/philox.h``.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

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
