"""One parameter of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from extrap_kernels.shards import Shard, is_dtensor


@dataclass(frozen=True)
class ParamEntry:
    """A parameter as an executor sees it.

    Attributes:
        param: the parameter, or the local part of a sharded one.
        index: its position in the optimizer.
        name: its name in error messages.
        shard: the place of ``param`` in the whole tensor, if it is a local part.
    """

    param: Tensor
    index: int
    name: str
    shard: Optional[Shard] = None


def check_gradient(name: str, gradient: Optional[Tensor]) -> None:
    """Raise RuntimeError for a sparse gradient."""
    if gradient is not None and gradient.layout != torch.strided:
        raise RuntimeError(
            f"the gradient of {name} has layout {gradient.layout}: sparse gradients are not supported; use "
            "sparse=False in the embedding, or grad.to_dense()"
        )


def check_local_gradient(name: str, param: Tensor, local: Tensor) -> None:
    """Raise ValueError for a local gradient that does not fit its parameter."""
    if is_dtensor(param):
        raise ValueError(
            f"local gradient for {name}, a sharded parameter: all workers share one extrapolated point of it, because "
            "each all-gather collects it from all of them. Only the averaged gradient can be extrapolated: remove it "
            "from local_gradients, or train with DistributedDataParallel"
        )
    if local.shape != param.shape or local.layout != torch.strided or local.device != param.device:
        raise ValueError(
            f"local gradient of shape {tuple(local.shape)}, layout {local.layout}, device {local.device} for {name} "
            f"on {param.device}; it must be dense and match the parameter"
        )
