"""The options of a launch: the same for every tensor in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from extrap_kernels.triton_kernels.storage import double, quotient, scalar

# Bits of the argument `flags`.
SCALED = tl.constexpr(1)  # divide by grad_scale
MAXIMIZE = tl.constexpr(2)
COUPLED = tl.constexpr(4)  # the decay joins the gradient
DECOUPLED = tl.constexpr(8)  # the base iterate shrinks
NESTEROV = tl.constexpr(16)
PAST_GRADIENT = tl.constexpr(32)
PAST_UPDATE = tl.constexpr(64)
EXTRAGRADIENT = tl.constexpr(128)
GRADIENT_NOISE = tl.constexpr(256)  # noise_scale="gradient"
ROW_NOISE = tl.constexpr(512)  # noise_scale="tensor" or "filter"
# The argument is the address of a number on the device, as `scalar` wants it.
# x
LR_ON_DEVICE = tl.constexpr(1024)
EXTRAP_LR_ON_DEVICE = tl.constexpr(2048)
GRAD_SCALE_ON_DEVICE = tl.constexpr(4096)
CLIP_ON_DEVICE = tl.constexpr(8192)

# Arguments of kernels whose values change nothing in the code.
NUMBERS = ["lr", "extrap_lr", "extrap_ratio", "weight_decay", "momentum", "dampening", "beta1", "beta2", "eps"]
NUMBERS += ["trust_coefficient", "noise_std", "grad_scale", "clip", "found_inf_at", "key", "flags"]


class Options(NamedTuple):
    """What rules and step ask for, in float64."""

    lr: Any
    extrap_lr: Any
    weight_decay: Any
    momentum: Any
    dampening: Any
    beta1: Any
    beta2: Any
    eps: Any
    trust_coefficient: Any
    nesterov: Any
    decoupled: Any


class Preparation(NamedTuple):
    """From a gradient as it is to the one that the rule sees."""

    scale: Any
    factor: Any  # clip factor, negative to maximize
    decay: Any
    scaled: Any
    coupled: Any


@triton.jit
def read_options(
    lr,
    extrap_lr,
    extrap_ratio,
    weight_decay,
    momentum,
    dampening,
    beta1,
    beta2,
    eps,
    trust_coefficient,
    flags,
):
    """Return the options in float64."""
    return Options(
        scalar(lr, flags & LR_ON_DEVICE != 0),
        scalar(extrap_lr, flags & EXTRAP_LR_ON_DEVICE != 0) * double(extrap_ratio),
        double(weight_decay),
        double(momentum),
        double(dampening),
        double(beta1),
        double(beta2),
        double(eps),
        double(trust_coefficient),
        flags & NESTEROV != 0,
        flags & DECOUPLED != 0,
    )


@triton.jit
def preparation(grad_scale, clip, weight_decay, flags, A: tl.constexpr):
    """Return the constants in the precision ``A``."""
    sign = tl.where(flags & MAXIMIZE != 0, -1.0, 1.0)
    return Preparation(
        scalar(grad_scale, flags & GRAD_SCALE_ON_DEVICE != 0).to(A),
        (scalar(clip, flags & CLIP_ON_DEVICE != 0) * sign).to(A),
        double(weight_decay).to(A),
        flags & SCALED != 0,
        flags & COUPLED != 0,
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
