"""Sums of squares over all that an optimizer steps: of gradients, and of what is extrapolated along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional

import torch
from torch import Tensor

from extrap_kernels.backends.executor import Executor
from extrap_kernels.backends.reduction import PartialSums, add_partial_sums
from extrap_kernels.backends.sharded import ShardedExecutor
from extrap_kernels.launch import Launch

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_Add = Callable[[Tensor], None]


def gradient_square_sum(executors: Iterable[Executor], group: Optional[ProcessGroup]) -> Tensor:
    """Return the sum of squares of all gradients, without unscaling, as a 0-dim float64 tensor.

    Args:
        executors: executors of all parameters on this process.
        group: process group whose members have the other parameters, or None.
    """
    totals = _totals([(executor, executor.add_gradient_square_sum) for executor in executors], group)
    add_partial_sums(totals)
    return total_of(totals)


def direction_square_sums(work: Iterable[tuple[Executor, Launch]], group: Optional[ProcessGroup]) -> list[PartialSums]:
    """Return the sums of squares of what launches extrapolate along; they are to be reduced, then added up.

    Args:
        work: launches that are asked for their directions, with their executors.
        group: process group whose members have the other parameters, or None.
    """
    return _totals([(executor, _of_launch(executor, launch)) for executor, launch in work], group)


def total_of(totals: Sequence[PartialSums]) -> Tensor:
    """Return the sum of totals that are reduced, on the device of the first one."""
    first, *others = [total.values for total in totals]
    return sum((total.to(first.device) for total in others), first)


def _of_launch(executor: Executor, launch: Launch) -> _Add:
    return lambda total: executor.add_direction_square_sum(launch, total)


def _totals(work: Iterable[tuple[Executor, _Add]], group: Optional[ProcessGroup]) -> list[PartialSums]:
    """Return a 0-dim float64 sum for each device and set of processes that have parts of the tensors."""
    totals: dict[tuple[Any, ...], PartialSums] = {}
    everywhere = () if group is None else (group,)
    for executor, add in work:
        groups = executor.groups if isinstance(executor, ShardedExecutor) else everywhere
        zero = torch.zeros((), dtype=torch.float64, device=executor.device)
        add(totals.setdefault((executor.device, groups), PartialSums(zero, groups)).values)
    if not totals:
        totals[()] = PartialSums(torch.zeros((), dtype=torch.float64), everywhere)
    return list(totals.values())
