"""Sums over tensors that are sharded over several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class PartialSums(NamedTuple):
    """Float64 sums over local parts, and the process groups to reduce them over in place."""

    values: Tensor
    groups: tuple[ProcessGroup, ...]


def add_partial_sums(sums: Sequence[PartialSums]) -> None:
    """Reduce all ``sums`` over their process groups, with one all-reduce per group that has any."""
    sums = [part for part in sums if part.values.numel() > 0]
    for group in dict.fromkeys(group for part in sums for group in part.groups):
        values = [part.values for part in sums if group in part.groups]
        flat = torch.cat([value.reshape(-1) for value in values])
        torch.distributed.all_reduce(flat, group=group)
        for value, total in zip(values, flat.split([value.numel() for value in values])):
            value.copy_(total.view_as(value))
