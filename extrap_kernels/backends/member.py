"""One parameter of a plan."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Member:
    """A parameter, its optimizer state, and its position in the optimizer."""

    param: Tensor
    state: dict[str, Tensor]
    index: int


def check_local_gradient(param: Tensor, local: Tensor) -> None:
    """Raise ValueError for a local gradient that does not fit its parameter."""
    if local.shape != param.shape or local.layout != torch.strided or local.device != param.device:
        raise ValueError(
            f"local gradient of shape {tuple(local.shape)}, layout {local.layout}, device {local.device} for a "
            f"parameter of shape {tuple(param.shape)} on {param.device}; it must be dense and match the parameter"
        )
