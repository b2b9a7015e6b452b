"""Where the extrapolation goes from the base iterate. Twin: ``csrc/core/direction.h``."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.scalars import (
    address_slot,
    code,
    device_number,
    number,
    slot,
    whole_number,
)

EXTRAP_LR, EXTRAP_LR_AT, EXTRAP_RATIO = slot("extrap_lr"), address_slot("extrap_lr"), slot("extrap_ratio")
EXTRAPOLATION = slot("extrapolation")
PAST_GRADIENT, PAST_UPDATE = code("extrapolation", "past_gradient"), code("extrapolation", "past_update")
EXTRAGRADIENT = code("extrapolation", "extragradient")


class Extrapolation(NamedTuple):
    """The inner learning rate in the precision of the arithmetic, and what is extrapolated along."""

    lr: Any
    past_gradient: Any
    past_update: Any


@triton.jit
def extrapolation(scalars, A: tl.constexpr):
    """Round the scalars once."""
    lr = device_number(scalars, EXTRAP_LR, EXTRAP_LR_AT) * number(scalars, EXTRAP_RATIO)
    direction = whole_number(scalars, EXTRAPOLATION)
    return Extrapolation(lr.to(A), direction == PAST_GRADIENT, direction == PAST_UPDATE)


@triton.jit
def extrapolated(e, x, u, z):
    """Return ``y`` after an update, without noise: ``x`` itself for ``extragradient``, which moves on its own."""
    y = tl.where(e.past_gradient, x - z * e.lr, x)
    return tl.where(e.past_update, x - u * e.lr, y)


@triton.jit
def returns_to_base(scalars):
    """Whether a skipped step leaves ``x`` in the parameter: the first half of the step has moved it."""
    return whole_number(scalars, EXTRAPOLATION) == EXTRAGRADIENT
