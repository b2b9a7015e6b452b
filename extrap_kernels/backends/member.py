"""One parameter of a plan, and the sums that it needs from other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Optional

import torch
from torch import Tensor

from extrap_kernels.shards import Shard, is_dtensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class Member:
    """A parameter, its optimizer state, its position in the optimizer, and where it lies if it is part of a tensor."""

    param: Tensor
    state: dict[str, Tensor]
    index: int
    shard: Optional[Shard] = None


class PartialSums(NamedTuple):
    """Float64 sums over what is here of some tensors, and the process groups to add them up over, in place."""

    values: Tensor
    groups: tuple[ProcessGroup, ...]


def add_partial_sums(sums: Sequence[PartialSums]) -> None:
    """Add all ``sums`` up over their process groups, with one all-reduce for each group."""
    for group in dict.fromkeys(group for part in sums for group in part.groups):
        values = [part.values for part in sums if group in part.groups]
        flat = torch.cat([value.reshape(-1) for value in values])
        torch.distributed.all_reduce(flat, group=group)
        for value, total in zip(values, flat.split([value.numel() for value in values])):
            value.copy_(total.view_as(value))


def check_local_gradient(param: Tensor, local: Tensor) -> None:
    """Raise ValueError for a local gradient that does not fit its parameter."""
    if is_dtensor(param):
        raise ValueError(
            f"local gradient for a sharded parameter of shape {tuple(param.shape)}: all workers share one extrapolated "
            "point of it, since each all-gather collects it from them, so only the averaged gradient can be "
            "extrapolated; leave it out of local_gradients, or train with DistributedDataParallel"
        )
    if local.shape != param.shape or local.layout != torch.strided or local.device != param.device:
        raise ValueError(
            f"local gradient of shape {tuple(local.shape)}, layout {local.layout}, device {local.device} for a "
            f"parameter of shape {tuple(param.shape)} on {param.device}; it must be dense and match the parameter"
        )
