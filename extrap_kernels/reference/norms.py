"""Norms in double precision, also of sharded tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from extrap_kernels.shards import Shard

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def square_sum(tensor: Tensor) -> float:
    """Return the sum of squares of the local elements."""
    return float(tensor.double().square().sum())


def norm(tensor: Tensor, shard: Shard | None = None) -> float:
    """Return the Euclidean norm of a real tensor; with ``shard``, of the whole tensor."""
    total = tensor.double().square().sum()
    return math.sqrt(_over(shard.groups if shard else (), total))


def rms(tensor: Tensor, *, by_row: bool, shard: Shard | None) -> Tensor:
    """Return the root mean square of a real tensor, or of each slice of dim 0; every dimension but that has size 1.

    Args:
        tensor: its local part. A complex tensor has one more dimension, of size 2.
        by_row: for each slice along dim 0.
        shard: place of the local part; None if it is the whole tensor.
    """
    total = tensor.double().square().sum(dim=tuple(range(1 if by_row else 0, tensor.dim())), keepdim=True)
    if shard is None:
        return (total / (tensor.numel() / max(1, total.numel()))).sqrt()
    total = _over(shard.row_groups if by_row else shard.groups, total)
    return (total / (shard.numel / (shard.rows if by_row else 1))).sqrt()


def _over(groups: Sequence[ProcessGroup], total: Tensor) -> Tensor:
    for group in groups:
        torch.distributed.all_reduce(total, group=group)
    return total
