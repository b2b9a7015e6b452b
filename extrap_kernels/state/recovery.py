"""The base iterate where it is not stored: ``x = y + m * inner_lr``, with the first moment ``m`` of the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from extrap_kernels.shards import local_part
from extrap_kernels.state.float24 import stored_base

# In the state: the inner learning rate that y was made with, 0-dim, in the precision of the arithmetic.
INNER_LR = "inner_lr"


def is_recovered(state: Mapping[str, Any]) -> bool:
    """Whether the parameter of ``state`` holds ``y``, of which ``x`` is recovered: not so in eval mode."""
    return INNER_LR in state and "base" not in state and "extrapolated" not in state


def inner_lr_as(value: Any, dtype: torch.dtype, device: torch.device | None) -> Tensor:
    """Return an inner learning rate as kernels take it, in the ``dtype`` of the arithmetic; None: on the host."""
    return torch.as_tensor(value).detach().to(device or "cpu", dtype.to_real(), copy=True).reshape(())


def is_inner_lr(value: Any, dtype: torch.dtype, device: torch.device | None) -> bool:
    """Whether ``value`` is as :func:`inner_lr_as` would make it."""
    if not isinstance(value, Tensor) or value.dtype != dtype.to_real() or value.numel() != 1:
        return False
    return value.device.type == "cpu" if device is None else value.device == device


def base_of(param: Tensor, state: Mapping[str, Any], moment: str) -> Tensor:
    """Return the base iterate of ``param``: that of ``state``, or a copy of it, or ``param`` itself.

    Args:
        param: the parameter.
        state: its state.
        moment: name of the buffer that it is recovered from.
    """
    if is_recovered(state):
        return base_from(param, state[moment], state[INNER_LR])
    return stored_base(state) if "base" in state else param


def base_from(y: Tensor, moment: Tensor, inner_lr: Tensor) -> Tensor:
    """Return ``y + moment * inner_lr``, each operation rounded once: a new tensor like ``y``."""
    return _displaced(y, moment, inner_lr, torch.add)


def point_from(x: Tensor, moment: Tensor, inner_lr: Tensor) -> Tensor:
    """Return ``x - moment * inner_lr``, each operation rounded once: a new tensor like ``x``."""
    return _displaced(x, moment, inner_lr, torch.sub)


def _displaced(from_: Tensor, moment: Tensor, inner_lr: Tensor, operation: Any) -> Tensor:
    result = from_.detach().clone(memory_format=torch.preserve_format)
    if float(inner_lr) != 0.0:  # a moment that is not finite moves nothing by 0
        point, along = (local_part(t) for t in (result, moment.detach()))
        if point.is_complex():
            point, along = torch.view_as_real(point), torch.view_as_real(along)
        point.copy_(operation(point, along * inner_lr.to(point.device)))
    return result
