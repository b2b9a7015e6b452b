"""Steps DTensors: gives their local parts to an executor of ordinary tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

import torch
from torch import Tensor

from extrap_kernels.backends.executor import ExecutorType
from extrap_kernels.backends.param_entry import ParamEntry, check_local_gradient
from extrap_kernels.backends.reduction import PartialSums
from extrap_kernels.launch import Launch
from extrap_kernels.rules import RuleSpec
from extrap_kernels.shards import local_part
from extrap_kernels.state.layout import State, StateLayout

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class ShardedExecutor:
    """Gives the local parts of DTensors, their gradients and their state to an executor.

    Args:
        executor_type: of the executor of the parts.
        spec: the rule.
        layout: of the state of every entry.
        entries: sharded parameters, all with the same process groups.
        grad_dtype: see :class:`extrap_kernels.backends.executor.ExecutorType`.
    """

    def __init__(
        self,
        executor_type: ExecutorType,
        spec: RuleSpec,
        layout: StateLayout,
        entries: Sequence[ParamEntry],
        grad_dtype: torch.dtype,
    ) -> None:
        self._entries = entries
        self._sources = [local_part(entry.param) for entry in entries]
        self._parts = [
            ParamEntry(source.detach(), entry.index, entry.name, entry.shard)
            for entry, source in zip(entries, self._sources)
        ]
        self._executor = executor_type(spec, layout, self._parts, grad_dtype)
        self._has_norms = spec.norm is not None
        shard = entries[0].shard
        assert shard is not None
        self.groups, self._row_groups = shard.groups, shard.row_groups
        self.device, self.on_device = self._executor.device, self._executor.on_device

    def bind(self, states: list[Optional[State]], local_gradients: Mapping[Tensor, Tensor]) -> Optional[Sequence[int]]:
        """Bind the local parts of this step; return None if a parameter has another local part than before."""
        parts: list[Optional[State]] = [None] * len(states)
        for entry, source, part in zip(self._entries, self._sources, self._parts):
            param: Any = entry.param
            if local_part(param) is not source:
                return None
            if param in local_gradients:
                check_local_gradient(entry.name, param, local_gradients[param])
            part.param.grad = _local_gradient(param)
            state = states[entry.index]
            if state is not None:
                parts[entry.index] = {name: local_part(value) for name, value in state.items()}
        return self._executor.bind(parts, {})

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the local gradients, without unscaling, to a 0-dim float64 tensor."""
        self._executor.add_gradient_square_sum(total)

    def add_direction_square_sum(self, launch: Launch, total: Tensor) -> None:
        """Add the squares of the local part of what the next :meth:`run` extrapolates along."""
        self._executor.add_direction_square_sum(launch, total)

    def square_sums(self, launch: Launch) -> Tensor:
        """Return the local sums that the next :meth:`run` takes norms of."""
        return self._executor.square_sums(launch)

    def partial_sums(self, launch: Launch) -> list[PartialSums]:
        """Return the local sums that :meth:`run` takes norms of; reduce them over the processes before it."""
        sums = self.square_sums(launch)
        of_tensors = 2 * len(self._parts) if self._has_norms and launch.layer_adaptation else 0
        row_groups = self._row_groups if launch.noise_scale == "filter" else self.groups
        return [PartialSums(sums[:of_tensors], self.groups), PartialSums(sums[of_tensors:], row_groups)]

    def run(self, launch: Launch) -> None:
        """Step every parameter that has a gradient."""
        self._executor.run(launch)
        stepped = [entry.param for entry, part in zip(self._entries, self._parts) if part.param.grad is not None]
        torch.autograd.graph.increment_version(stepped)
        for part in self._parts:
            part.param.grad = None  # or zero_grad() would not free it


def _local_gradient(param: DTensor) -> Optional[Tensor]:
    gradient: Any = param.grad
    if gradient is None:
        return None
    if gradient.placements != param.placements:
        gradient = gradient.redistribute(placements=param.placements)
    return local_part(gradient)
