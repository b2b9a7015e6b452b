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
NONE, PAST_UPDATE = code("extrapolation", None), code("extrapolation", "past_update")
EXTRAGRADIENT, MOMENTUM = code("extrapolation", "extragradient"), code("extrapolation", "momentum")
GRADIENT_DIFFERENCE = code("extrapolation", "gradient_difference")
EXTRAP_SCALE, ADAPTIVE = slot("extrap_scale"), code("extrap_scale", "adaptive")


class Extrapolation(NamedTuple):
    """The inner learning rate in the precision of the arithmetic, and what is extrapolated along."""

    lr: Any
    moves: Any  # also a direction that is not finite moves nothing by a learning rate of 0
    moves_after_update: Any  # extragradient moves on its own
    past_update: Any
    momentum: Any
    gradient_difference: Any
    adaptive: Any


@triton.jit
def extrapolation(scalars, A: tl.constexpr):
    """Round the scalars once."""
    lr = (device_number(scalars, EXTRAP_LR, EXTRAP_LR_AT) * number(scalars, EXTRAP_RATIO)).to(A)
    moves = lr != 0
    direction = whole_number(scalars, EXTRAPOLATION)
    return Extrapolation(
        lr,
        moves,
        moves & (direction != NONE) & (direction != EXTRAGRADIENT),
        direction == PAST_UPDATE,
        direction == MOMENTUM,
        direction == GRADIENT_DIFFERENCE,
        whole_number(scalars, EXTRAP_SCALE) == ADAPTIVE,
    )


@triton.jit
def extrapolated_gradient(e, g, l):
    """Return the gradient that the rule makes its direction ``z`` of."""
    return tl.where(e.gradient_difference, l - g, l)


@triton.jit
def extrapolation_along(e, u, z, m):
    """Return what ``y`` lies along after an update."""
    return tl.where(e.past_update, u, tl.where(e.momentum, m, z))


@triton.jit
def measured(e, along, x):
    """Return what ``extrap_norm`` takes the norm of: with the adaptive scale, numbers in units of ``x``."""
    return tl.where(e.adaptive, along * x, along)


@triton.jit
def extrapolated(e, moves, x, along):
    """Return ``y`` without noise; ``moves``: whether it is not ``x``."""
    along = tl.where(e.adaptive, along * x * x, along)
    return tl.where(moves, x - along * e.lr, x)


@triton.jit
def returns_to_base(scalars):
    """Whether a skipped step leaves ``x`` in the parameter: the first half of the step has moved it."""
    return whole_number(scalars, EXTRAPOLATION) == EXTRAGRADIENT
