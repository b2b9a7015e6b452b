"""From a gradient as it lies in memory to the one that the rule sees. Twin: ``csrc/core/step.h``."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.formats import quotient
from extrap_kernels.triton_kernels.kernels.scalars import address_slot, device_number, number, slot, whole_number

GRAD_SCALE, GRAD_SCALE_AT = slot("grad_scale"), address_slot("grad_scale")
CLIP, CLIP_AT = slot("clip"), address_slot("clip")
MAXIMIZE = slot("maximize")
WEIGHT_DECAY, DECOUPLED = slot("weight_decay"), slot("decoupled_weight_decay")


class Preparation(NamedTuple):
    """What is done to a gradient, in the precision of the arithmetic."""

    scale: Any
    factor: Any  # clip factor, negative to maximize
    decay: Any
    scaled: Any
    coupled: Any  # whether the decay joins the gradient


@triton.jit
def preparation(scalars, A: tl.constexpr, OWN_DECAY: tl.constexpr):
    """Round the scalars once; ``OWN_DECAY``: the rule does the weight decay itself."""
    scale = device_number(scalars, GRAD_SCALE, GRAD_SCALE_AT).to(A)
    sign = tl.where(whole_number(scalars, MAXIMIZE) != 0, -1.0, 1.0)
    decay = number(scalars, WEIGHT_DECAY)
    coupled = (decay != 0) & (whole_number(scalars, DECOUPLED) == 0) & (not OWN_DECAY)
    return Preparation(
        scale,
        (device_number(scalars, CLIP, CLIP_AT) * sign).to(A),
        decay.to(A),
        scale != 1,
        coupled,
    )


@triton.jit
def unscaled(prepare, g):
    """Return the gradient of the loss itself."""
    if prepare.scaled:
        g = quotient(g, tl.zeros_like(g) + prepare.scale)
    return g * prepare.factor


@triton.jit
def prepared(prepare, g, x):
    """Return the gradient as the rule sees it."""
    g = unscaled(prepare, g)
    return tl.where(prepare.coupled, g + x * prepare.decay, g)
