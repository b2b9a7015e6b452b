"""``extrap_norm``: the norm of what is extrapolated along, by which the inner learning rate is divided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Union

import torch
from torch import Tensor

from extrap_kernels.launch import Phase
from extrap_kernels.rules import RuleSpec

# Its inverse is finite in float32, too.
_SMALLEST = torch.finfo(torch.float32).tiny


def divides(group: Mapping[str, Any], phase: Phase) -> bool:
    """Whether a launch of ``group`` extrapolates along a direction that is divided by the norm of all."""
    if group["extrap_norm"] is None or group["extrapolation"] is None:
        return False
    return (group["extrapolation"] == "extragradient") == (phase is Phase.EXTRAPOLATE)


def check(spec: RuleSpec, group: Mapping[str, Any]) -> None:
    """Raise ValueError if ``extrap_norm`` cannot be carried out for a rule."""
    along = group["extrapolation"]
    if spec.norm is not None and group["extrap_norm"] is not None and along not in (None, "momentum"):
        raise ValueError(
            f"Invalid extrap_norm value: {group['extrap_norm']!r} with extrapolation={along!r}: {spec.name.upper()} "
            "scales each tensor by norms that must be known first; set extrap_norm=None or "
            "extrapolation='momentum'"
        )
    if spec.norm is not None and group["extrap_norm"] is not None and group["extrap_scale"] == "adaptive":
        raise ValueError(
            f"Invalid extrap_scale value: 'adaptive' with extrap_norm={group['extrap_norm']!r}: {spec.name.upper()} "
            "scales each tensor by its norm already; set extrap_norm=None or extrap_scale='absolute'"
        )


def inverse_of(norm: Union[float, Tensor]) -> Union[float, Tensor]:
    """Return ``1 / norm``, and 0 where the norm is less than 1.2e-38 or not finite, so that nothing is extrapolated.

    Args:
        norm: a number, or a 0-dim float64 tensor; then the result is one, too, and nothing is read on the host.
    """
    if isinstance(norm, Tensor):
        return torch.where((norm >= _SMALLEST) & norm.isfinite(), norm.reciprocal(), 0.0)
    return 1.0 / norm if _SMALLEST <= norm < math.inf else 0.0
