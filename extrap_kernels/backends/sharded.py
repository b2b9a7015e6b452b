"""Steps the local parts of DTensors by an executor of ordinary tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from extrap_kernels.backends.member import Member, PartialSums
from extrap_kernels.backends.scaling import Scaling
from extrap_kernels.shards import local_part

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class LocalExecutor(Protocol):
    """Steps parameters of which other processes may hold the rest."""

    def square_sums(self, group: Mapping[str, Any], *, correct: bool, scaling: Scaling) -> Tensor:
        """Return what the next run() makes norms of, float64; what other processes have is added in place.

        Two numbers for each member if the rule needs norms, in the backend's order: the sums of squares of the base
        iterate and of what is scaled. Then, if the noise scale needs them, the sums of squares of the rows of every
        base iterate. An executor that adds up over the processes by itself returns an empty tensor.
        """


class ShardedExecutor:
    """Gives the local parts of DTensors and of their gradients to an executor.

    Args:
        executor: a :class:`LocalExecutor` of the members.
        params: sharded parameters.
        members: their local parts, in the same order, all with the same process groups.
        has_norms: whether the rule scales by norms.
    """

    def __init__(self, executor: Any, params: Sequence[DTensor], members: Sequence[Member], has_norms: bool) -> None:
        self._executor, self._params = executor, params
        self._parts = [local_part(param) for param in params]
        self._members = [member.param for member in members]
        self._has_norms = has_norms
        assert members[0].shard is not None
        self.groups = members[0].shard.groups
        self._row_groups = members[0].shard.row_groups
        self.device, self.on_device = executor.device, executor.on_device

    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> bool:
        """Take in the gradients of this step; False if the executor no longer fits the parameters."""
        if any([p.grad is None or local_part(p) is not part for p, part in zip(self._params, self._parts)]):
            return False
        for param, member in zip(self._params, self._members):
            grad: DTensor = param.grad  # type: ignore[assignment]
            if grad.placements != param.placements:
                grad = grad.redistribute(placements=param.placements)
            member.grad = local_part(grad)
        return self._executor.refresh({})

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of what is here of the gradients, as they are, to a 0-dim float64 tensor."""
        self._executor.add_gradient_square_sum(total)

    def partial_sums(self, group: Mapping[str, Any], *, correct: bool, scaling: Scaling) -> list[PartialSums]:
        """Return the sums that :meth:`run` makes norms of, to be added up before it."""
        sums = self._executor.square_sums(group, correct=correct, scaling=scaling)
        of_tensors = 2 * len(self._members) if self._has_norms else 0
        row_groups = self._row_groups if group["noise_scale"] == "filter" else self.groups
        return [PartialSums(sums[:of_tensors], self.groups), PartialSums(sums[of_tensors:], row_groups)]

    def run(self, group: Mapping[str, Any], *, key: int, correct: bool, scaling: Scaling) -> None:
        """Step every parameter under the options of ``group``."""
        self._executor.run(group, key=key, correct=correct, scaling=scaling)
        torch.autograd.graph.increment_version(self._params)
        for member in self._members:
            member.grad = None  # or zero_grad() would not free it


def local_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what this process holds of the state of a parameter."""
    return {name: local_part(value) for name, value in state.items()}
