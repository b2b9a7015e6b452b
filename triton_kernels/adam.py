"""Adam and AdamW: from the gradient to ``u`` and ``z``. Twin: ``csrc/core/rules/adam.h``."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from extrap_kernels.triton_kernels.storage import quotient, square_root


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
def adam_constants(options, count, trust, A: tl.constexpr):
    """Return the constants of the step that makes the step count ``count``."""
    first_correction = 1.0 / (1.0 - power(options.beta1, count))
    second_correction = 1.0 / square_root(1.0 - power(options.beta2, count))
    return Adam(
        (1.0 - options.beta1).to(A),
        options.beta2.to(A),
        (1.0 - options.beta2).to(A),
        first_correction.to(A),
        second_correction.to(A),
        options.eps.to(A),
        options.weight_decay.to(A),
        trust.to(A),
    )


@triton.jit
def second_moment(rule, g, v):
    """Return the second moment once it has taken ``g`` in."""
    return v * rule.beta2 + (g * g) * rule.second_weight


@triton.jit
def preconditioner(rule, v):
    """Return ``1 / (sqrt(v_hat) + eps)``: one division serves both ``u`` and ``z``."""
    denominator = square_root(v) * rule.second_correction + rule.eps
    return quotient(tl.full(denominator.shape, 1, denominator.dtype), denominator)


@triton.jit
def adam_direction(rule, g, l, m, v):
    """Return ``u``, ``z`` and both moments."""
    m = m + (g - m) * rule.first_weight
    v = second_moment(rule, g, v)
    p = preconditioner(rule, v)
    return (m * rule.first_correction) * p, l * p, m, v


@triton.jit
def adam_extragradient_direction(rule, g, l, v):
    """Return ``z`` with the second moment as it would be after this gradient."""
    return l * preconditioner(rule, second_moment(rule, g, v))
