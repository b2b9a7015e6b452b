"""LAMB in plain PyTorch: the readable twin of ``csrc/core/rules/lamb.h``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from extrap_kernels.reference.norms import norm
from extrap_kernels.reference.rules import adam
from extrap_kernels.reference.rules.adam import extragradient_direction
from extrap_kernels.rules import RuleSpec
from extrap_kernels.shards import Shard

__all__ = ["SPEC", "direction", "extragradient_direction", "trust_ratio"]

SPEC = RuleSpec("lamb", adam.SPEC.buffers, norm="update", own_decay=True)


def direction(
    group: Mapping[str, Any], step: int, g: Tensor, l: Tensor, x: Tensor, buffers: Mapping[str, Tensor], trust: float
) -> tuple[Tensor, Tensor]:
    """Return ``u = trust * (adam + weight_decay * x)`` and Adam's ``z`` (You et al. 2020, algorithm 2)."""
    u, z = adam.direction(group, step, g, l, x, buffers, trust)
    return (u + x * float(group["weight_decay"])) * trust, z


def trust_ratio(
    group: Mapping[str, Any],
    step: int,
    x: Tensor,
    raw: Tensor,
    g: Tensor,
    buffers: Mapping[str, Tensor],
    shard: Shard | None,
) -> float:
    """Return ``|x| / |u|``, or 1 if a norm is 0; ``buffers`` do not change."""
    u, _ = direction(group, step, g, g, x, {name: buffer.clone() for name, buffer in buffers.items()}, 1.0)
    norm_x, norm_u = norm(x, shard), norm(u, shard)
    return norm_x / norm_u if norm_x > 0 and norm_u > 0 else 1.0
