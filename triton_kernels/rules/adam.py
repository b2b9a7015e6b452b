"""Adam and AdamW: from the gradient to ``u`` and ``z``. Twin: ``csrc/core/rules/adam.h``."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from extrap_kernels.triton_kernels.kernels.formats import quotient, square_root
from extrap_kernels.triton_kernels.kernels.scalars import number, slot

BETA1, BETA2, EPS, WEIGHT_DECAY = slot("beta1"), slot("beta2"), slot("eps"), slot("weight_decay")


class Adam(NamedTuple):
    """Constants of Adam; ``decay`` and ``trust`` are those of LAMB."""

    first_weight: Any
    beta2: Any
    second_weight: Any
    first_correction: Any
    second_correction: Any
    eps: Any
    decay: Any
    trust: Any


@triton.jit
def power(base, exponent):
    """Return ``base ** exponent`` for a whole number, by repeated squaring in float64: the same on every device."""
    result = base * 0.0 + 1.0
    left = exponent.to(tl.int32)
    while left > 0:
        result = tl.where(left & 1 != 0, result * base, result)
        base = base * base
        left = left >> 1
    return result


@triton.jit
def constants(scalars, count, trust, A: tl.constexpr):
    """Return the constants, in the precision ``A``, of the step that makes the step count ``count``."""
    beta1, beta2 = number(scalars, BETA1), number(scalars, BETA2)
    first_correction = 1.0 / (1.0 - power(beta1, count))
    second_correction = 1.0 / square_root(1.0 - power(beta2, count))
    return Adam(
        (1.0 - beta1).to(A),
        beta2.to(A),
        (1.0 - beta2).to(A),
        first_correction.to(A),
        second_correction.to(A),
        number(scalars, EPS).to(A),
        number(scalars, WEIGHT_DECAY).to(A),
        trust.to(A),
    )


@triton.jit
def second_moment(c, g, v):
    """Return the second moment once it has taken ``g`` in."""
    return v * c.beta2 + (g * g) * c.second_weight


@triton.jit
def preconditioner(c, v):
    """Return ``1 / (sqrt(v_hat) + eps)``: one division serves both ``u`` and ``z``."""
    denominator = square_root(v) * c.second_correction + c.eps
    return quotient(tl.full(denominator.shape, 1, denominator.dtype), denominator)


@triton.jit
def adam_direction(c, g, l, x, buffers):
    """Return ``u``, ``z`` and the advanced buffers: both moments."""
    m = buffers[0] + (g - buffers[0]) * c.first_weight
    v = second_moment(c, g, buffers[1])
    p = preconditioner(c, v)
    return (m * c.first_correction) * p, l * p, (m, v)


# Triton 3.3 mistakes functions of one name for each other, and LAMB has a direction() that calls this one.
direction = adam_direction


@triton.jit
def extragradient_direction(c, g, l, buffers):
    """Return ``z`` with the second moment as it would be after this gradient."""
    return l * preconditioner(c, second_moment(c, g, buffers[1]))
