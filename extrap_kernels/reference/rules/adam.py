"""Adam and AdamW in plain PyTorch: the readable twin of ``csrc/core/rules/adam.h``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from extrap_kernels.reference import root
from extrap_kernels.rules import Buffer, RuleSpec

SPEC = RuleSpec("adam", (Buffer("exp_avg", signed=True), Buffer("exp_avg_sq", signed=False)))


def _power(base: float, exponent: int) -> float:
    """Return ``base**exponent`` by squaring, as the kernels do: pow() rounds differently."""
    result = 1.0
    while exponent:
        result, base, exponent = result * base if exponent & 1 else result, base * base, exponent >> 1
    return result


def _preconditioner(group: Mapping[str, Any], step: int, second_moment: Tensor) -> Tensor:
    """Return ``1 / (sqrt(v_hat) + eps)``."""
    correction = 1.0 / math.sqrt(1.0 - _power(float(group["betas"][1]), step))
    return (root.square_root(second_moment) * correction + float(group["eps"])).reciprocal()


def _second_moment(group: Mapping[str, Any], g: Tensor, previous: Tensor) -> Tensor:
    beta2 = float(group["betas"][1])
    return previous * beta2 + (g * g) * (1.0 - beta2)


def direction(
    group: Mapping[str, Any], step: int, g: Tensor, l: Tensor, x: Tensor, buffers: Mapping[str, Tensor], trust: float
) -> tuple[Tensor, Tensor]:
    """Advance the moments in place; return the update ``u`` and the extrapolation direction ``z``.

    Kingma & Ba 2015, algorithm 1, with ``u = m_hat / (sqrt(v_hat) + eps)`` and ``z`` the same with ``l`` for ``m_hat``.
    The arguments are those of :func:`extrap_kernels.reference.rules.sgd.direction`.
    """
    beta1 = float(group["betas"][0])
    m, v = buffers["exp_avg"], buffers["exp_avg_sq"]
    m.add_((g - m) * (1.0 - beta1))
    v.copy_(_second_moment(group, g, v))
    p = _preconditioner(group, step, v)
    return (m * (1.0 / (1.0 - _power(beta1, step)))) * p, l * p


def extragradient_direction(
    group: Mapping[str, Any], step: int, g: Tensor, l: Tensor, buffers: Mapping[str, Tensor], trust: float
) -> Tensor:
    """Return ``z`` with the second moment as it would be after this gradient; ``buffers`` are only read."""
    return l * _preconditioner(group, step, _second_moment(group, g, buffers["exp_avg_sq"]))
