"""SGD in plain PyTorch: the readable twin of ``csrc/core/rules/sgd.h``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from extrap_kernels.rules import Buffer, RuleSpec

SPEC = RuleSpec("sgd", (Buffer("momentum_buffer", signed=True, option="momentum"),), updates_by_momentum=True)


def direction(
    group: Mapping[str, Any], step: int, g: Tensor, l: Tensor, x: Tensor, buffers: Mapping[str, Tensor], trust: float
) -> tuple[Tensor, Tensor]:
    """Advance the momentum buffer in place; return the update ``u`` and the extrapolation direction ``z``.

    Args:
        group: options ``momentum``, ``dampening``, ``nesterov``.
        step: the parameter's step count after this step; 1 starts the momentum buffer.
        g: averaged gradient, in the precision of the base iterate.
        l: this worker's own gradient, likewise.
        x: base iterate before the update.
        buffers: ``momentum_buffer`` unless ``momentum`` is 0, in the precision of the base iterate.
        trust: result of the rule's ``trust_ratio``; 1 if it has none.
    """
    momentum = float(group["momentum"])
    if momentum == 0:
        return g, l
    v = buffers["momentum_buffer"]
    grad_weight = 1.0 if step == 1 else 1.0 - float(group["dampening"])
    v.mul_(momentum).add_(g * grad_weight)
    return (g + v * momentum if group["nesterov"] else v), l


def extragradient_direction(
    group: Mapping[str, Any], step: int, g: Tensor, l: Tensor, buffers: Mapping[str, Tensor], trust: float
) -> Tensor:
    """Return ``z`` for the first half of an extragradient step; ``buffers`` do not change."""
    return l
