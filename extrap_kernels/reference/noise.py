"""Noise from random words, in plain PyTorch: readable twin of ``csrc/core/noise.h``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from extrap_kernels.reference.random_bits import random_words


def _uniform(half: Tensor) -> Tensor:
    return half.double() * 2.0**-15 + (2.0**-16 - 1)


def _gaussian(word: Tensor, odd: Tensor) -> Tensor:
    """Return one of the two coordinates of Box-Muller."""
    radius = torch.sqrt(-2 * torch.log(((word & 0xFFFF).double() + 0.5) * 2.0**-16))
    angle = (((word >> 16) & 0x3FFF).double() * 2.0**-14 + (2.0**-15 - 0.5)) * (math.pi / 2)
    along = torch.where((word & 0x80000000) != 0, -angle.cos(), angle.cos())
    swapped = (word & 0x40000000) != 0
    return radius * torch.where(swapped != odd, angle.sin(), along)


def noise(kind: str, position: Tensor, *, key: int, parameter: int, step: int) -> Tensor:
    """Return the noise ``n`` of the elements at ``position``, before any scale.

    Args:
        kind: ``"uniform"``, U(-1, 1), or ``"gaussian"``, N(0, 1) by Box-Muller (Box and Muller 1958).
        position: int64 tensor of element positions, any shape.
        key: seed plus rank, taken modulo 2**64.
        parameter: index of the parameter in the optimizer.
        step: the parameter's step count after the step that uses the noise, from 1.

    Returns:
        float32 tensor with the shape of ``position``. Uniform noise is exact; Gaussian noise is the float64 value
        rounded once.
    """
    odd = (position & 1) != 0
    word = random_words(position >> 1, key=key, parameter=parameter, step=step)
    if kind == "uniform":
        return _uniform(torch.where(odd, word >> 16, word & 0xFFFF)).float()
    return _gaussian(word, odd).float()
