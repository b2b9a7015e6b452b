"""The plan of a param group: which executor steps which of its parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Optional, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from extrap_kernels import flat, options
from extrap_kernels.backends.executor import Executor
from extrap_kernels.backends.param_entry import ParamEntry, check_gradient, check_local_gradient
from extrap_kernels.backends.registry import Backend, resolve
from extrap_kernels.backends.sharded import ShardedExecutor
from extrap_kernels.layout import is_plain, turns
from extrap_kernels.shards import Shard, is_dtensor, local_part
from extrap_kernels.state.blocks import check_shard, takes_blocks
from extrap_kernels.state.layout import State, StateLayout
from extrap_kernels.state.owners import BaseOwners
from extrap_kernels.watch import describe

States = list[Optional[State]]


class Owner(Protocol):
    """What a plan needs from an optimizer."""

    backend: str
    rule: ModuleType
    state: Any
    local_gradients: dict[Tensor, Tensor]
    base_owners: BaseOwners
    param_groups: list[dict[str, Any]]


def _grad_dtype(param: Tensor, local: Optional[Tensor], layout: StateLayout) -> torch.dtype:
    """Return the dtype that gradients are read in: the parameter's if they have it, else that of the base iterate."""
    given = [g.dtype for g in (param.grad, local) if g is not None]
    return param.dtype if all([dtype == param.dtype for dtype in given]) else layout.base_dtype


def check_gradients(owner: Owner, number: int) -> None:
    """Raise for gradients of group ``number`` that no backend can take, before any state is created.

    Raises:
        RuntimeError: a gradient that is not a dense strided tensor.
        ValueError: a local gradient that does not fit its parameter.
    """
    group = owner.param_groups[number]
    for i, param in enumerate(group["params"]):
        if param.grad is not None:
            check_gradient(describe(group, number, i), param.grad)
            _check_param(describe(group, number, i), param)
            flat.check_param(owner, group, describe(group, number, i), param)
        if param in owner.local_gradients:
            check_local_gradient(describe(group, number, i), param, owner.local_gradients[param])


def _check_param(name: str, param: Tensor) -> None:
    if not is_plain(param):
        raise RuntimeError(f"{name} is not a dense tensor: it has layout {param.layout}; freeze it or make it dense")
    if isinstance(param, FakeTensor) or torch._C._functorch.is_functorch_wrapped_tensor(param):
        raise RuntimeError(
            f"{name} is a {type(param).__name__}, which has no values to step: optimizers of extrap_kernels step real "
            "tensors only. To estimate memory, count StateLayout's tensors, or use a torch.optim optimizer"
        )


class GroupPlan:
    """The executors of one param group.

    Args:
        owner: the optimizer.
        number: index of the group in the optimizer.
        states: the state of every parameter of the optimizer; what is created is put into it.
        positions: of the parameters in the group that the plan is for (default: None, all of them).

    Attributes:
        executors: the executors of the buckets.
        on_device: whether all of them step without reading anything on the host.
        state_changed: whether state was created or converted since the flag was reset.

    Raises:
        ValueError: an option is not possible for a parameter of the group.
        RuntimeError: the chosen backend does not support a parameter of the group.
    """

    def __init__(self, owner: Owner, number: int, states: States, positions: Optional[tuple[int, ...]] = None) -> None:
        group = owner.param_groups[number]
        params = group["params"]
        self._key = self._key_of(owner, group)
        self._state, self._owners = owner.state, owner.base_owners
        self._holds_base = options.holds_base(group)
        self._layouts: dict[tuple[torch.dtype, bool], StateLayout] = {}
        self._backends: dict[torch.device, Backend] = {}
        self._buckets: list[tuple[Executor, Backend, StateLayout, list[ParamEntry]]] = []
        self.state_changed = True
        self.executors: list[Executor] = []
        self.on_device = True
        self._unplain: list[Tensor] = []  # lazy, sparse or nested: nothing to step as long as they have no gradient
        entries: dict[tuple[Any, ...], list[ParamEntry]] = defaultdict(list)
        turn = turns([local_part(param) for param in params])
        first = sum(len(before["params"]) for before in owner.param_groups[:number])
        for i in range(len(params)) if positions is None else positions:
            param, name = params[i], describe(group, number, i)
            if not is_plain(param):
                self._unplain.append(param)
                continue
            if turn[i] > 0 and group["extrapolation"] == "extragradient":
                raise ValueError(
                    f"{name} shares memory with a parameter before it, or is listed twice: "
                    "extrapolation='extragradient' would take the point that one has moved to for the base iterate; "
                    "list it once, or choose extrapolation='past_gradient'"
                )
            layout, backend = self._layout_of(owner, group, param), self._backend_of(owner, param)
            shard = Shard.of(param) if is_dtensor(param) else None
            if shard is not None and layout.has_blocks:
                check_shard(name, param, shard)
            self._owners.drop_foreign(param, states[first + i] or {})
            entry = ParamEntry(param, first + i, name, shard)
            grad_dtype = _grad_dtype(local_part(param), owner.local_gradients.get(param), layout)
            groups = shard and (shard.groups, shard.row_groups)
            entries[turn[i], backend.name, param.device, param.dtype, grad_dtype, groups, layout].append(entry)
        for (_, _, device, _, grad_dtype, _, layout), members in sorted(entries.items(), key=lambda item: item[0][0]):
            self._add_bucket(owner, self._backends[device], layout, members, grad_dtype, states)

    @staticmethod
    def _key_of(owner: Owner, group: Mapping[str, Any]) -> tuple[Any, ...]:
        return (
            owner.backend,
            options.point_between_steps(group),
            group["noise"] is None and owner.rule.SPEC.recovers_base(group),  # noise takes calls of its own
            group["state_dtype"],
            owner.rule.SPEC.buffers_of(group),
        )

    def _layout_of(self, owner: Owner, group: Mapping[str, Any], param: Tensor) -> StateLayout:
        key = param.dtype, takes_blocks(param)
        if key not in self._layouts:
            self._layouts[key] = StateLayout.of_param(owner.rule.SPEC, group, param)
        return self._layouts[key]

    def _backend_of(self, owner: Owner, param: Tensor) -> Backend:
        if param.device not in self._backends:
            self._backends[param.device] = resolve(owner.backend, param.device)
        return self._backends[param.device]

    def _add_bucket(
        self,
        owner: Owner,
        backend: Backend,
        layout: StateLayout,
        entries: list[ParamEntry],
        grad_dtype: torch.dtype,
        states: States,
    ) -> None:
        for entry in entries:
            if entry.param.grad is not None or "step" in (states[entry.index] or {}):
                self._prepare(backend, layout, entry, states)
        spec, executor_type = owner.rule.SPEC, backend.executor()
        executor: Executor
        if entries[0].shard is not None:
            executor = ShardedExecutor(executor_type, spec, layout, entries, grad_dtype)
        else:
            executor = executor_type(spec, layout, entries, grad_dtype)
        self._buckets.append((executor, backend, layout, entries))
        self.executors.append(executor)
        self.on_device = self.on_device and executor.on_device

    def _prepare(self, backend: Backend, layout: StateLayout, entry: ParamEntry, states: States) -> None:
        param, state = entry.param, self._state.setdefault(entry.param, {})
        layout.prepare(state, param, param.device if backend.on_device else None)
        states[entry.index] = state
        self._owners.note(param, state, holds_base=self._holds_base)
        self.state_changed = True

    def fits(self, owner: Owner, group: Mapping[str, Any]) -> bool:
        """Whether the state, and the options that decide on it and on the backend, are those of the plan."""
        return self._state is owner.state and self._key == self._key_of(owner, group)

    def bind(self, states: States, local_gradients: Mapping[Tensor, Tensor]) -> bool:
        """Bind all executors; False if the plan no longer fits the parameters.

        Args:
            states: the state of every parameter of the optimizer; what is created is put into it.
            local_gradients: see ``ExtrapOptimizer.local_gradients``.
        """
        if self._unplain and any([is_plain(param) or param.grad is not None for param in self._unplain]):
            return False
        for executor, backend, layout, entries in self._buckets:
            incomplete = executor.bind(states, local_gradients)
            if not incomplete:
                if incomplete is None:
                    return False
                continue
            for i in incomplete:
                check_gradient(entries[i].name, entries[i].param.grad)
                self._prepare(backend, layout, entries[i], states)
            if executor.bind(states, local_gradients) != []:
                raise RuntimeError(f"the state of {entries[incomplete[0]].name} changed while it was being prepared")
        return True
