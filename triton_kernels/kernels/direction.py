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
EXTRAGRADIENT, MOMENTUM = code("extrapolation", "extragradient"), code("extrapolation", "momentum")
GRADIENT_DIFFERENCE = code("extrapolation", "gradient_difference")


class Extrapolation(NamedTuple):
    """The inner learning rate in the precision of the arithmetic, and what is extrapolated along."""

    lr: Any
    moves: Any  # also a direction that is not finite moves nothing by a learning rate of 0
    past_gradient: Any
    past_update: Any
    momentum: Any
    gradient_difference: Any


@triton.jit
def extrapolation(scalars, A: tl.constexpr):
    """Round the scalars once."""
    lr = (device_number(scalars, EXTRAP_LR, EXTRAP_LR_AT) * number(scalars, EXTRAP_RATIO)).to(A)
    moves = lr != 0
    direction = whole_number(scalars, EXTRAPOLATION)
    return Extrapolation(
        lr,
        moves,
        moves & ((direction == PAST_GRADIENT) | (direction == GRADIENT_DIFFERENCE)),
        moves & (direction == PAST_UPDATE),
        moves & (direction == MOMENTUM),
        direction == GRADIENT_DIFFERENCE,
    )


@triton.jit
def extrapolated_gradient(e, g, l):
    """Return the gradient that the rule makes its direction ``z`` of."""
    return tl.where(e.gradient_difference, l - g, l)


@triton.jit
def extrapolated(e, x, u, z, m):
    """Return ``y`` after an update, without noise: ``x`` itself for ``extragradient``, which moves on its own."""
    y = tl.where(e.past_gradient, x - z * e.lr, x)
    y = tl.where(e.momentum, x - m * e.lr, y)
    return tl.where(e.past_update, x - u * e.lr, y)


@triton.jit
def returns_to_base(scalars):
    """Whether a skipped step leaves ``x`` in the parameter: the first half of the step has moved it."""
    return whole_number(scalars, EXTRAPOLATION) == EXTRAGRADIENT
