"""Runs a step: plans, the norm of the gradients, launches. All errors come before anything is changed."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any, Optional, Union

import torch
from torch import Tensor

from extrap_kernels import backends, capture, direction_norm, options
from extrap_kernels.backends.executor import Executor
from extrap_kernels.backends.native import state_reader
from extrap_kernels.backends.reduction import PartialSums, add_partial_sums
from extrap_kernels.backends.sharded import ShardedExecutor
from extrap_kernels.launch import GradScaling, Launch, Phase, clip_coefficient
from extrap_kernels.shards import is_dtensor
from extrap_kernels.watch import Watch

if TYPE_CHECKING:
    from extrap_kernels.offload import Offload
    from extrap_kernels.optimizer import ExtrapOptimizer
    from extrap_kernels.release import GradientRelease


_Work = tuple[Executor, Launch]
_Positions = Optional[tuple[int, ...]]


class Stepper:
    """Runs the steps of an optimizer. What it keeps between steps can be derived again.

    Wrappers copy the attributes of an optimizer and call its methods on themselves, so that all that a step leaves
    behind is here, in one object that they share.

    Attributes:
        on_device: whether every parameter was stepped without a read on the host, by the plans that are there; None
            if there are none.
        grad_norm: see ``ExtrapOptimizer.grad_norm``.
        extrapolated: numbers of the param groups that are between the halves of an extragradient step.
        watch: notices changes of parameters between steps.
        in_backward: what takes gradients in backward and begins and ends a step, or None; see
            :func:`extrap_kernels.release.release_gradients` and :func:`extrap_kernels.offload.offload`.
        running: held while the tensors of a step are bound, whatever becomes of the plans meanwhile.
    """

    def __init__(self) -> None:
        self.grad_norm: Union[float, Tensor, None] = None
        self.extrapolated: set[int] = set()
        self.watch = Watch()
        self.in_backward: Union[GradientRelease, Offload, None] = None
        self.running = threading.Lock()
        self.release()

    def release(self) -> None:
        """Let go of the plans, and so of every tensor that they have bound."""
        # By number of the group, and positions in it.
        self._plans: dict[tuple[int, _Positions], backends.GroupPlan] = {}
        self._reader: Any = None
        self.on_device: Optional[bool] = None

    def reset(self) -> None:
        """Start anew: groups or state were exchanged."""
        self.release()
        self.extrapolated.clear()
        self.watch.reset()
        if self.in_backward is not None:
            self.in_backward.restart()

    def run(
        self,
        optimizer: ExtrapOptimizer,
        groups: Sequence[int],
        phase: Phase,
        grad_scale: Union[float, Tensor, None],
        found_inf: Optional[Tensor] = None,
        positions: _Positions = None,
    ) -> Union[float, Tensor, None]:
        """Step the param groups ``groups``, or a part of one.

        Args:
            optimizer: whose parameters are stepped.
            groups: numbers of param groups.
            phase: a whole step, or the first half of an extragradient step.
            grad_scale: factor that GradScaler multiplied the gradients by; None means 1.
            found_inf: see :class:`extrap_kernels.launch.GradScaling`; only read on the device.
            positions: of the parameters that are stepped, in the only group (default: None, all of all groups). Each
                part has a plan of its own.

        Returns:
            The norm of the unscaled gradients, or None if no group bounds it.
        """
        # Everything is read and checked before the first tensor is written.
        scalars = []
        for i in groups:
            scalars += [options.read(optimizer.param_groups[i], i, optimizer.defaults)]
            if optimizer.param_groups[i]["extrap_norm"] is not None:
                direction_norm.check(optimizer.rule.SPEC, optimizer.param_groups[i])
        self.watch.compare(optimizer)
        executors = self.bind(optimizer, groups, positions)
        on_device = bool(self.on_device)
        scale = 1.0 if grad_scale is None else grad_scale if on_device else float(grad_scale)
        if found_inf is not None and not on_device and float(found_inf) != 0.0:
            return math.inf  # the parameters were moved to the host after the flag was left to the device
        bounded = False
        for i in groups:
            bounded = bounded or optimizer.param_groups[i]["max_grad_norm"] is not None
        norm = self._gradient_norm(optimizer, executors, scale, on_device) if bounded else None
        work: list[_Work] = []
        shared = divided = False
        for i, values in zip(groups, scalars):
            group = optimizer.param_groups[i]
            clip = 1.0 if norm is None else clip_coefficient(norm, group["max_grad_norm"])
            scaling = GradScaling(scale, clip, found_inf if on_device else None)
            rank = 0 if group["noise"] is None else noise_rank(optimizer)
            divided = divided or (group["extrap_norm"] is not None and direction_norm.divides(group, phase))
            for executor in self._plans[i, positions].executors:
                device = executor.device if executor.on_device else None
                launch = Launch.of(group, values, phase=phase, rank=rank, scaling=scaling, device=device)
                work += [(executor, launch)]
                shared = shared or isinstance(executor, ShardedExecutor)
        if shared or divided:
            work = _measured(optimizer, work, divided, on_device)
        for executor, launch in work:
            executor.run(launch)
        if on_device and any([capture.is_capturing(executor.device) for executor in executors]):
            capture.keep(scalars, grad_scale, found_inf, [*optimizer.local_gradients.values()])
        if positions is None:  # else others are stepped before the user can change anything
            self.watch.note(optimizer)
        return norm

    def bind(self, optimizer: ExtrapOptimizer, groups: Sequence[int], positions: _Positions = None) -> list[Executor]:
        """Bind the plans of ``groups`` to the tensors of this step, making plans if needed; return their executors."""
        states = None
        if self._reader is not None:
            states = self._reader.read(optimizer.state, optimizer.param_groups)
        if states is None:
            self._plans = {}
            states = self._read_anew(optimizer)
        stale: list[int] = []
        for i in groups:
            if not self._is_bound(optimizer, i, positions, states):
                stale.append(i)
        for i in stale:
            backends.check_gradients(optimizer, i)
        for i in stale:
            self._plans[i, positions] = backends.GroupPlan(optimizer, i, states, positions)
            if not self._is_bound(optimizer, i, positions, states):
                raise RuntimeError(f"the parameters of group {i} changed while the step was being planned")
        executors: list[Executor] = []
        changed, self.on_device = False, True
        for i in groups:
            plan = self._plans[i, positions]
            executors += plan.executors
            self.on_device = self.on_device and plan.on_device
            changed, plan.state_changed = changed or plan.state_changed, False
        if changed:
            self._read_anew(optimizer)
        return executors

    def _read_anew(self, optimizer: ExtrapOptimizer) -> backends.States:
        """Return the state of all parameters; other parameters, or parameters with state, are there than before."""
        self._reader = state_reader(optimizer.state, optimizer.param_groups)
        states: backends.States = self._reader.read(optimizer.state, optimizer.param_groups)
        return states

    def _is_bound(self, optimizer: ExtrapOptimizer, i: int, positions: _Positions, states: backends.States) -> bool:
        """Bind the plan of group ``i`` to the tensors of this step; False if there is none that fits."""
        key = i, positions
        if key not in self._plans or not self._plans[key].fits(optimizer, optimizer.param_groups[i]):
            return False
        return self._plans[key].bind(states, optimizer.local_gradients)

    @staticmethod
    def _gradient_norm(
        optimizer: ExtrapOptimizer, executors: list[Executor], scale: Union[float, Tensor], on_device: bool
    ) -> Union[float, Tensor]:
        """Return the norm of the unscaled gradients."""
        total = backends.gradient_square_sum(executors, optimizer.gradient_norm_group)
        if isinstance(scale, Tensor):
            scale = scale.to(total.device, non_blocking=True)
        norm = total.sqrt() / scale
        return norm if on_device else float(norm)


def _measured(optimizer: ExtrapOptimizer, work: list[_Work], divided: bool, on_device: bool) -> list[_Work]:
    """Return ``work`` once all sums over processes and parameters that it needs are taken.

    ``divided``: whether groups divide by the norm of their direction, here or in other processes.
    """
    divides = [direction_norm.divides(launch.group, launch.phase) for _, launch in work]
    totals: list[PartialSums] = []
    if divided:
        totals = backends.direction_square_sums(compress(work, divides), optimizer.gradient_norm_group)
    partial_sums = [*totals]
    for executor, launch in work:
        if isinstance(executor, ShardedExecutor):
            partial_sums += executor.partial_sums(launch)
    if partial_sums:
        add_partial_sums(partial_sums)
    if not totals:
        return work
    norm = backends.total_of(totals).sqrt()
    factor = direction_norm.inverse_of(norm if on_device else float(norm))
    return [
        (executor, launch.with_inner_lr_times(factor, executor.device) if asks else launch)
        for (executor, launch), asks in zip(work, divides)
    ]


def noise_rank(optimizer: ExtrapOptimizer) -> int:
    """Return what is added to the seed of the noise: see ``ExtrapOptimizer.rank``."""
    if optimizer.rank is not None:
        return optimizer.rank
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0
    shares_points = any([is_dtensor(param) for group in optimizer.param_groups for param in group["params"]])
    return 0 if shares_points else distributed.get_rank()
