"""The native kernels on tensors of one device and dtype combination; backend ``cpu``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor

from extrap_kernels.backends.member import Member
from extrap_kernels.backends.scaling import Scaling
from extrap_kernels.backends.snapshot import StateSnapshot
from extrap_kernels.backends.staging import Staging
from extrap_kernels.shards import Shard

try:
    from extrap_kernels import _C
except ImportError as error:
    _import_error: Optional[ImportError] = error
else:
    _import_error = None


def missing_cpu_reason() -> Optional[str]:
    """Return why the native kernels cannot be used and what to do about it, or None if they can."""
    if _import_error is None:
        return None
    return (
        f"the native module extrap_kernels._C cannot be imported ({_import_error}); reinstall extrap_kernels with a "
        "C++ compiler and without EXTRAP_NATIVE=off, or use backend='reference'"
    )


def state_snapshot(
    state: dict[Tensor, Any], param_groups: list[dict[str, Any]]
) -> Union[_C.StateSnapshot, StateSnapshot]:
    """Return what tells whether an object in an optimizer's state, or a parameter of its groups, was exchanged."""
    snapshot = _C.StateSnapshot if _import_error is None else StateSnapshot
    return snapshot(state, param_groups)


def native_shard(shard: Shard) -> _C.Shard:
    """Return what the native module takes for a shard."""
    return _C.Shard(offset=shard.offset, run=shard.run, pitch=shard.pitch, numel=shard.numel, rows=shard.rows)


class NativeExecutor:
    """What the executors of native kernels share: members of one device, dtype and gradient dtype, and their plan.

    Args:
        rule_name: name of the rule in ``csrc/core/rules.h``.
        state_names: buffers of the rule, in its order.
        members: parameters with a gradient.
        like_param: whether the gradients have the dtype of the parameters; else they are read in that of the base.
    """

    _plan: Union[_C.Plan, _C.DevicePlan]

    def __init__(
        self,
        rule_name: str,
        state_names: tuple[str, ...],
        members: Sequence[Member],
        like_param: bool,
    ) -> None:
        self._staging = Staging(members, like_param)
        self._members = members
        self._params = [m.param for m in members]
        self.device = members[0].param.device
        self._make_plan(
            rule=rule_name,
            params=self._params,
            targets=self._staging.targets,
            states=[m.state for m in members],
            state_names=state_names,
            indices=[m.index for m in members],
            gradient_like_param=like_param,
        )

    def _make_plan(self, **arguments: Any) -> None:
        raise NotImplementedError

    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> bool:
        """Take in the gradients of this step; False if the plan no longer fits the parameters."""
        unfit = self._plan.refresh(local_gradients)
        if unfit is None:
            return False
        for i, is_local in unfit:
            param = self._params[i]
            source = local_gradients[param] if is_local else param.grad
            assert source is not None
            relaid = self._staging.relaid(i, param, source, is_local=is_local)
            if relaid is None:
                return False
            self._plan.set_gradient(i, is_local, relaid)
        return True


class CpuExecutor(NativeExecutor):
    """Steps its members, which are on the CPU, in one pass over their buffers."""

    on_device = False
    _plan: _C.Plan

    def _make_plan(self, **arguments: Any) -> None:
        shards = [native_shard(member.shard) for member in self._members if member.shard is not None]
        self._plan = _C.Plan(**arguments, shards=shards)
        self._measured = False

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the gradients, as they are, to a 0-dim float64 tensor."""
        total += self._plan.gradient_square_sum(torch.get_num_threads())

    def square_sums(self, group: Mapping[str, Any], *, correct: bool, scaling: Scaling) -> Tensor:
        """Return what the next :meth:`run` makes norms of; what other processes have is to be added to it in place."""
        scale, clip = float(scaling.grad_scale), float(scaling.clip)
        sums = self._plan.square_sums(group, correct, scale, clip, torch.get_num_threads())
        self._measured = True
        return torch.frombuffer(sums, dtype=torch.float64) if sums.nbytes else torch.empty(0, dtype=torch.float64)

    def run(self, group: Mapping[str, Any], *, key: int, correct: bool, scaling: Scaling) -> None:
        """Step every member under the options of ``group``."""
        if not correct:
            self._staging.fetch()
        scale, clip = float(scaling.grad_scale), float(scaling.clip)
        self._plan.run(group, key, correct, scale, clip, self._measured, torch.get_num_threads())
        self._measured = False
        self._staging.put_back()
