"""Noise from random words, in plain PyTorch: readable twin of ``csrc/core/noise.h``."""

from __future__ import annotations

import torch
from torch import Tensor

from extrap_kernels.float_bits import float_of
from extrap_kernels.reference.random_bits import random_words
from extrap_kernels.reference.root import square_root


def _fused(a: Tensor, b: Tensor | float, c: Tensor | float) -> Tensor:
    """Return ``a * b + c`` as processors round it that do so once: for all numbers below, double precision suffices."""
    b, c = (v if isinstance(v, Tensor) else torch.tensor(v, dtype=torch.float32, device=a.device) for v in (b, c))
    return (a.double() * b.double() + c.double()).float()


def _polynomial(x: Tensor, highest: float, second: float, *others: float) -> Tensor:
    total = _fused(x, highest, second)
    for coefficient in others:
        total = _fused(total, x, coefficient)
    return total


def _uniform(word: Tensor) -> tuple[Tensor, Tensor]:
    even, odd = (_fused(half.float(), 2.0**-15, 2.0**-16 - 1) for half in (word & 0xFFFF, word >> 16))
    return even, odd


def _radius_square(word: Tensor) -> Tensor:
    bits = (float_of((word & 0xFFFF) | 0x4B000000) - 8388607.5).view(torch.int32)
    chord = (0x47800000 - bits).float()
    t = 2.0 - float_of((bits & 0x007FFFFF) | 0x3F800000)
    bend = t * _polynomial(t, 0.053811647, -0.023477254, 0.11110472, 0.24452734, -0.38599914)
    return _fused(chord, 1.6525917e-7, bend)


def _circle_point(word: Tensor) -> tuple[Tensor, Tensor]:
    angle = float_of(((word >> 8) & 0x007FFF00) | 0x3F800000) - 1.4999847412109375
    q = angle * angle
    cosine = _polynomial(q, -1.2221271, 4.0412836, -4.933938, 0.9999933)
    sine = _polynomial(q, -0.5546362, 2.541899, -5.167143, 3.141582) * angle
    return float_of(cosine.view(torch.int32) ^ (word & 0x80000000).to(torch.int32)), sine


def _gaussian(word: Tensor) -> tuple[Tensor, Tensor]:
    """Box-Muller."""
    radius = square_root(_radius_square(word))
    even, odd = _circle_point(word)
    return radius * even, radius * odd


_PAIRS = {"uniform": _uniform, "gaussian": _gaussian}


def noise(kind: str, position: Tensor, *, key: int, parameter: int, step: int) -> Tensor:
    """Return the noise ``n`` of the elements at ``position``, before any scale.

    Args:
        kind: ``"uniform"``, U(-1, 1), or ``"gaussian"``, N(0, 1) by Box-Muller (Box and Muller 1958).
        position: int64 tensor of element positions, any shape.
        key: seed plus rank, taken modulo 2**64.
        parameter: index of the parameter in the optimizer.
        step: the parameter's step count after the step that uses the noise, from 1.

    Returns:
        float32 tensor with the shape of ``position``.
    """
    word = random_words(position >> 1, key=key, parameter=parameter, step=step)
    even, odd = _PAIRS[kind](word)
    return torch.where((position & 1) != 0, odd, even)
