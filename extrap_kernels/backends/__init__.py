"""Backends: which there are, which one a device gets, and the plan that carries out the steps of a param group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Optional, Protocol

import torch
from torch import Tensor

from extrap_kernels import triton_kernels
from extrap_kernels.backends.cuda import CudaExecutor, EmulatedCudaExecutor, missing_cuda_reason
from extrap_kernels.backends.member import Member, PartialSums, add_partial_sums, check_local_gradient
from extrap_kernels.backends.native import CpuExecutor, missing_cpu_reason, state_snapshot
from extrap_kernels.backends.reference import ReferenceExecutor
from extrap_kernels.backends.scaling import Scaling
from extrap_kernels.backends.sharded import ShardedExecutor, local_state
from extrap_kernels.backends.staging import like_param
from extrap_kernels.shards import Shard, is_dtensor, local_part

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.tensor import DTensor

__all__ = [
    "Executor",
    "GroupPlan",
    "PartialSums",
    "ShardedExecutor",
    "add_partial_sums",
    "check_gradients",
    "check_name",
    "gradient_square_sum",
    "missing_reason",
    "resolve",
    "state_snapshot",
    "works_on_device",
]

NAMES = ("auto", "cpu", "reference", "cuda", "triton", "cuda-emulated")
_ON_DEVICE = ("cuda", "triton", "cuda-emulated")


class Executor(Protocol):
    """Steps some parameters of one param group."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""

    @property
    def on_device(self) -> bool:
        """Whether a step reads nothing on the host: neither the step count nor the scaling nor tensor options."""

    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> bool:
        """Take in the gradients of this step; False if the executor no longer fits the parameters."""

    def add_gradient_square_sum(self, total: Tensor) -> None:
        """Add the squares of the gradients, neither unscaled nor clipped, to a 0-dim float64 tensor on the device."""

    def run(self, group: Mapping[str, Any], *, key: int, correct: bool, scaling: Scaling) -> None:
        """Step the parameters under the options of ``group``; ``correct=False`` only extrapolates."""


def gradient_square_sum(executors: Iterable[Executor], group: Optional[ProcessGroup]) -> Tensor:
    """Return the sum of squares of all gradients, as they are, as a 0-dim float64 tensor.

    Args:
        executors: of all parameters here.
        group: process group whose members hold the other parameters, or None.
    """
    totals: dict[tuple[Any, ...], PartialSums] = {}
    everywhere = () if group is None else (group,)
    for executor in executors:
        groups = executor.groups if isinstance(executor, ShardedExecutor) else everywhere
        zero = torch.zeros((), dtype=torch.float64, device=executor.device)
        total = totals.setdefault((executor.device, groups), PartialSums(zero, groups))
        executor.add_gradient_square_sum(total.values)
    if not totals:
        totals[()] = PartialSums(torch.zeros((), dtype=torch.float64), everywhere)
    add_partial_sums(list(totals.values()))
    first, *others = [total.values for total in totals.values()]
    return sum((total.to(first.device) for total in others), first)


class _Optimizer(Protocol):
    backend: str
    rule: ModuleType
    rule_name: str
    local_gradients: dict[Tensor, Tensor]

    def state_of(self, param: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]: ...


def missing_reason(backend: str) -> Optional[str]:
    """Return why ``backend`` cannot be used here and what to do about it, or None if it can."""
    if backend in ("cpu", "cuda-emulated"):
        return missing_cpu_reason()
    if backend == "triton":
        return triton_kernels.missing_reason()
    if backend == "cuda":
        return missing_cuda_reason()
    return None


def check_name(backend: str) -> None:
    """Raise ValueError for an unknown backend and RuntimeError for one that is not there."""
    if backend not in NAMES:
        raise ValueError(f"Invalid backend value: {backend!r}; choose one of {NAMES}")
    reason = missing_reason(backend)
    if reason is not None:
        raise RuntimeError(f"backend {backend!r} is not available: {reason}")


def resolve(backend: str, device: torch.device) -> str:
    """Return the backend that steps parameters on ``device``.

    ``"auto"``: ``cpu`` for CPU tensors if it was built; for those of a GPU ``cuda`` if it was built, else ``triton`` if
    it is installed; ``reference`` otherwise. Any other value: that backend. ``cuda-emulated`` runs the code of the CUDA
    kernels on the CPU, slowly, for tests.

    Raises:
        RuntimeError: ``backend`` is not there, or cannot take tensors of this device.
    """
    check_name(backend)
    if backend == "auto":
        for wanted in ("cpu", "cuda", "triton"):
            if _takes_device(wanted, device) and missing_reason(wanted) is None:
                return wanted
        return "reference"
    if not _takes_device(backend, device):
        raise RuntimeError(f"backend {backend!r} cannot step a parameter on device {device}; use backend='auto'")
    return backend


def _takes_device(backend: str, device: torch.device) -> bool:
    if backend == "triton":
        return triton_kernels.takes_device(device)
    return backend == "reference" or device.type == ("cpu" if backend == "cuda-emulated" else backend)


def works_on_device(backend: str, device: torch.device) -> bool:
    """Whether parameters on ``device`` are stepped without a read on the host; their step count lives there, too."""
    return resolve(backend, device) in _ON_DEVICE


def check_gradients(params: Iterable[Tensor], local_gradients: Mapping[Tensor, Tensor]) -> None:
    """Raise for gradients that no backend can take.

    Raises:
        RuntimeError: a gradient that is not a dense strided tensor.
        ValueError: a local gradient that does not fit its parameter.
    """
    for param in params:
        if param.grad is not None and param.grad.layout != torch.strided:
            raise RuntimeError(
                f"a gradient of layout {param.grad.layout} for a parameter of shape {tuple(param.shape)}: sparse "
                "gradients are not supported; use sparse=False in the embedding, or grad.to_dense()"
            )
        if param in local_gradients:
            check_local_gradient(param, local_gradients[param])


def _executor_type(backend: str) -> Any:
    if backend == "triton":
        # Here, since it needs Triton.
        from extrap_kernels.backends.triton import TritonExecutor

        return TritonExecutor
    return {"cpu": CpuExecutor, "cuda": CudaExecutor, "cuda-emulated": EmulatedCudaExecutor}[backend]


class GroupPlan:
    """The executors of one param group, for the parameters that have gradients now.

    Args:
        optimizer: owner of the state.
        group: the param group, whose gradients have passed :func:`check_gradients`.
        first_index: position in the optimizer of the group's first parameter.

    Raises:
        RuntimeError: the backend asked for cannot take a parameter of the group.
    """

    def __init__(self, optimizer: _Optimizer, group: Mapping[str, Any], first_index: int) -> None:
        self.state_names: tuple[str, ...] = optimizer.rule.state_names(group)
        local_gradients = optimizer.local_gradients
        self._absent = [param for param in group["params"] if param.grad is None]
        chosen = {device: resolve(optimizer.backend, device) for device in {p.device for p in group["params"]}}
        buckets: dict[tuple[Any, ...], list[Member]] = defaultdict(list)
        self._wholes: dict[Tensor, DTensor] = {}
        for index, param in enumerate(group["params"], first_index):
            if param.grad is None:
                continue
            name, like = chosen[param.device], like_param(param, local_gradients.get(param))
            member = self._member(optimizer, param, index)
            groups = member.shard and (member.shard.groups, member.shard.row_groups)
            buckets[name, like, param.device, param.dtype, groups].append(member)
        self.executors: list[Executor] = []
        for (name, like, *_), members in buckets.items():
            executor: Executor
            if name == "reference":
                executor = ReferenceExecutor(optimizer.rule, members, local_gradients)
            else:
                executor = _executor_type(name)(optimizer.rule_name, self.state_names, members, like)
            if members[0].shard is not None:
                params = [self._wholes[member.param] for member in members]
                executor = ShardedExecutor(executor, params, members, hasattr(optimizer.rule, "trust_ratio"))
            # The reference never fits: it serves one step. But what is sharded takes its gradients in here.
            if not executor.refresh(local_gradients) and name != "reference":
                raise RuntimeError("the gradients changed while the step was being planned")
            self.executors.append(executor)

    def _member(self, optimizer: _Optimizer, param: Tensor, index: int) -> Member:
        if not is_dtensor(param):
            return Member(param, optimizer.state_of(param, self.state_names), index)
        shard = Shard.of(param)
        state = local_state(optimizer.state_of(param, self.state_names))
        member = Member(local_part(param).detach(), state, index, shard)
        self._wholes[member.param] = param
        return member

    def refresh(self, local_gradients: Mapping[Tensor, Tensor]) -> bool:
        """Take in the gradients of this step; False if the plan no longer fits the parameters."""
        # Not a generator: its frames would cost more than the attributes that are read.
        if self._absent and any([param.grad is not None for param in self._absent]):
            return False
        return all([executor.refresh(local_gradients) for executor in self.executors])
