"""Sums over parts of tensors that several processes hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


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
