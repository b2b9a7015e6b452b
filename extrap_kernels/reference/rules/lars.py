"""LARS in plain PyTorch: the readable twin of ``csrc/core/rules/lars.h``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from extrap_kernels.reference.norms import norm
from extrap_kernels.reference.rules import sgd
from extrap_kernels.rules import RuleSpec
from extrap_kernels.shards import Shard

SPEC = RuleSpec("lars", sgd.SPEC.buffers, norm="gradient")


def direction(
    group: Mapping[str, Any], step: int, g: Tensor, l: Tensor, x: Tensor, buffers: Mapping[str, Tensor], trust: float
) -> tuple[Tensor, Tensor]:
    """Return the directions of SGD for gradients scaled by ``trust`` (You et al. 2017, algorithm 1)."""
    return sgd.direction(group, step, g * trust, l * trust, x, buffers, trust)


def extragradient_direction(
    group: Mapping[str, Any], step: int, g: Tensor, l: Tensor, buffers: Mapping[str, Tensor], trust: float
) -> Tensor:
    """Return ``z`` for the first half of an extragradient step; ``buffers`` do not change."""
    return l * trust


def trust_ratio(
    group: Mapping[str, Any],
    step: int,
    x: Tensor,
    raw: Tensor,
    g: Tensor,
    buffers: Mapping[str, Tensor],
    shard: Shard | None,
) -> float:
    """Return ``trust_coefficient * |x| / (|raw| + weight_decay * |x| + eps)``, or 1 where a norm is 0.

    ``raw`` is the gradient before decay is added; a decoupled decay does not count.
    """
    norm_x, norm_g = norm(x, shard), norm(raw, shard)
    if not (norm_x > 0 and norm_g > 0):
        return 1.0
    decay = 0.0 if group["decoupled_weight_decay"] else float(group["weight_decay"])
    return float(group["trust_coefficient"]) * norm_x / (norm_g + decay * norm_x + float(group["eps"]))
