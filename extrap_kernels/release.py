"""Gradient release: parameters are stepped while backward runs, and their gradients are freed at once."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from extrap_kernels.buckets import Bucket, Place, cut, places_of
from extrap_kernels.flat import is_master_of_deepspeed
from extrap_kernels.layout import is_plain, turns
from extrap_kernels.optimizer import ExtrapOptimizer
from extrap_kernels.shards import local_part
from extrap_kernels.watch import name_of


def release_gradients(model: nn.Module, optimizer: ExtrapOptimizer, bucket_mb: float = 64) -> GradientRelease:
    """Step the parameters of ``model`` while backward runs, and free their gradients as soon as they are used.

    Parameters of a param group, a device and a dtype form buckets, the last ones first, as backward reaches them. When
    all gradients of a bucket are there, one launch steps it, and they are freed. ``optimizer.step()`` steps what is
    left, such as buckets in which a parameter got no gradient, and ends the step: loops, schedulers and trainers stay
    as they are. All bits are those of a step without release. What a step reads, such as learning rates, counts as
    it is in backward.

    Args:
        model: sharded and wrapped as it is trained: under DistributedDataParallel, the wrapper.
        optimizer: steps parameters of the model. Those that it steps besides wait for ``step()``.
        bucket_mb: gradients of a bucket in MiB, at most, unless a parameter has more (default: 64). Less frees memory
            sooner and takes more launches. Sharded parameters count as whole ones, so that all ranks have the same
            buckets.

    Returns:
        A handle: ``deferred()`` is for gradient accumulation, ``remove()`` undoes it.

    Raises:
        TypeError: not an optimizer of this package.
        ValueError: ``bucket_mb`` is not positive, the model has no parameter of the optimizer, parameters share memory,
            or an option needs all parameters at once: ``max_grad_norm``, ``extrap_norm``,
            ``extrapolation="extragradient"``.
        RuntimeError: gradients are released already, or no hook sees them in time: under FSDP1 and DeepSpeed, and under
            DDP with a communication hook, ``find_unused_parameters`` or ``static_graph``. Later, ``backward()`` raises
            it for a second gradient of a parameter in one step, and ``step()`` under a GradScaler.
    """
    if not isinstance(optimizer, ExtrapOptimizer):
        raise TypeError(
            f"optimizer is a {type(optimizer).__name__}; it must be an optimizer of extrap_kernels (the one inside "
            "AcceleratedOptimizer; ZeroRedundancyOptimizer needs all gradients at the end)"
        )
    if not bucket_mb > 0:
        raise ValueError(f"Invalid bucket_mb value: {bucket_mb}; it must be positive")
    if optimizer.stepper.in_backward is not None:
        raise RuntimeError(
            "gradients of this optimizer are released already, by offload() or by an earlier release, which ends with "
            "its remove()"
        )
    _check_options(optimizer)
    _check_parameters(optimizer)
    release = GradientRelease(model, optimizer, int(bucket_mb * 2**20))
    optimizer.stepper.in_backward = release
    return release


def _check_options(optimizer: ExtrapOptimizer) -> None:
    for number, group in enumerate(optimizer.param_groups):
        if group["max_grad_norm"] is not None:
            raise ValueError(
                f"Invalid max_grad_norm value: {group['max_grad_norm']} in group {number} with release_gradients(): "
                "the norm is known when the last gradient is there, and the first are gone by then; set it to None"
            )
        if group["extrap_norm"] is not None:
            raise ValueError(
                f"Invalid extrap_norm value: {group['extrap_norm']!r} in group {number} with release_gradients(): the "
                "norm is that of all parameters, and the first are stepped before the last have gradients; set it to "
                "None"
            )
        if group["extrapolation"] == "extragradient":
            raise ValueError(
                f"Invalid extrapolation value: 'extragradient' in group {number} with release_gradients(): its first "
                "backward must not update anything; choose 'past_gradient'"
            )


def _check_parameters(optimizer: ExtrapOptimizer) -> None:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for param, turn in zip(params, turns([local_part(param) for param in params])):
        if getattr(param, "_fsdp_flattened", False) or is_master_of_deepspeed(param):
            raise RuntimeError(
                f"{name_of(optimizer, param)} is made by FSDP1 or DeepSpeed, which give it a gradient after backward, "
                "out of sight of hooks; use FSDP2 (fully_shard) or DistributedDataParallel"
            )
        if turn > 0:
            raise ValueError(
                f"{name_of(optimizer, param)} shares memory with a parameter before it, or is listed twice: one would "
                "be stepped while backward still needs the other; list it once, or do not release gradients"
            )


def _hook_ddp(model: nn.Module, release: GradientRelease) -> set[Tensor]:
    """Hook every DDP module, and return their parameters, whose own hooks would see gradients of this worker only."""
    wrappers = [module for module in model.modules() if isinstance(module, DistributedDataParallel)]
    if wrappers:
        from extrap_kernels.distributed.release import hook  # not above: it needs a torch with torch.distributed

        hook(wrappers, release)
    return {param for ddp in wrappers for param in ddp.parameters()}


class GradientRelease:
    """What :func:`release_gradients` returns."""

    def __init__(self, model: nn.Module, optimizer: ExtrapOptimizer, bucket_bytes: int) -> None:
        self._model, self._bucket_bytes = model, bucket_bytes
        self._reference = weakref.ref(optimizer)  # hooks of a model keep no optimizer alive that nobody uses any more
        self.lock = threading.Lock()  # autograd has a thread for each device
        self._deferring = False
        self._stepped: set[Tensor] = set()
        self._averaging: set[Tensor] = set()
        self._handles: list[Any] = []
        if not self._released():
            raise ValueError("the optimizer steps no parameter of the model that takes a gradient; pass its model")
        self._of_ddp = _hook_ddp(model, self)
        self.restart()

    @property
    def _optimizer(self) -> ExtrapOptimizer:
        optimizer = self._reference()
        assert optimizer is not None
        return optimizer

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Context manager: backward passes inside add gradients up, and step nothing.

        For gradient accumulation: all backward passes of a step but the last belong inside. What DDP or FSDP2 do not
        reduce, under ``no_sync()`` or ``set_requires_gradient_sync(False)``, is deferred by itself.
        """
        before, self._deferring = self._deferring, True
        try:
            yield
        finally:
            self._deferring = before

    def remove(self) -> None:
        """Undo :func:`release_gradients`: from now on ``step()`` steps everything. May be called again.

        A model under DDP keeps the communication hook, which then averages gradients as DDP does by itself.
        """
        self._unhook()
        optimizer = self._reference()
        if optimizer is not None and optimizer.stepper.in_backward is self:
            self._drop_stepped()
            optimizer.stepper.in_backward = None
            optimizer.stepper.release()

    def restart(self) -> None:
        """Begin a step, with buckets of the parameters that the optimizer has now."""
        self._unhook()
        self._forget()
        self._known = self._hookable()
        released = self._released()
        self._places = {param: (number, i) for number, i, param in released}
        buckets = cut([place for place in released if place[2] not in self._of_ddp], self._bucket_bytes)
        self._missing = {bucket: set(bucket.params) for bucket in buckets}
        this = weakref.ref(self)
        for bucket in buckets:
            for param in bucket.params:
                self._handles.append(param.register_post_accumulate_grad_hook(_Hook(this, bucket)))

    def _forget(self) -> None:
        self._stepped.clear()
        self._averaging.clear()

    def _unhook(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hookable(self) -> list[tuple[int, bool]]:
        """Return what tells whether the buckets still have all parameters that they could have."""
        return [(id(param), param.requires_grad) for group in self._optimizer.param_groups for param in group["params"]]

    def _released(self) -> list[Place]:
        """Return the places of all parameters that take part."""
        of_model = [param for param in self._model.parameters() if param.requires_grad and is_plain(param)]
        return places_of(self._optimizer.param_groups, of_model)

    # What autograd and DDP call

    def arrive(self, bucket: Bucket, param: Tensor) -> None:
        """Take note of the gradient of ``param``; step its bucket if it was the last one missing."""
        with self.lock:
            if not self.is_active or not self.takes(param):
                return
            self._missing[bucket].discard(param)
            if not self._missing[bucket]:
                self._step(bucket)

    def step_reduced(self, gradients: dict[Tensor, Tensor]) -> None:
        """Step parameters with gradients that DDP has averaged."""
        members: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
        for param, gradient in gradients.items():
            number, i = self._places[param]
            members[number].append((i, param))
            param.grad = gradient
        for number, of_group in members.items():
            self._step(Bucket.of(number, of_group))

    def expect(self, params: Iterable[Tensor]) -> None:
        """Note that DDP averages the gradients of ``params``: all workers must refuse a second one alike."""
        self._averaging.update(params)

    def takes(self, param: Tensor) -> bool:
        """Whether ``param`` is stepped here.

        Raises:
            RuntimeError: it has been stepped already.
        """
        if param in self._stepped or param in self._averaging:
            raise RuntimeError(
                f"{name_of(self._optimizer, param)} got a second gradient in one step, but release_gradients() "
                "steps it with the first. Call optimizer.step() after each backward; to accumulate gradients, put "
                "all backward passes of a step but the last inside `with release.deferred():`. Activation "
                "checkpointing of a shared parameter needs use_reentrant=False"
            )
        return param in self._places

    @property
    def is_active(self) -> bool:
        """Whether gradients that arrive now are for a step of their own."""
        optimizer = self._reference()
        if optimizer is None or optimizer.stepper.in_backward is not self:
            return False
        return not self._deferring and bool(optimizer.param_groups[0]["train_mode"])

    def _step(self, bucket: Bucket) -> None:
        if not bucket.is_current(self._optimizer.param_groups):
            return  # exchanged since: step() takes it
        _check_options(self._optimizer)
        self._optimizer.step_early(bucket.number, bucket.positions)
        for param in bucket.params:
            param.grad = None
        self._stepped.update(bucket.params)

    # What step() calls

    def begin_step(self) -> None:
        """Leave ``step()`` the gradients that are not used yet.

        Raises:
            RuntimeError: a GradScaler calls ``step()``; nothing has told of it before.
        """
        if any(getattr(self._optimizer, name, None) is not None for name in ("grad_scale", "found_inf")):
            raise RuntimeError(
                "a GradScaler unscales gradients in step(), and release_gradients() has stepped parameters before "
                "that, with scaled gradients: load the last checkpoint; then use bfloat16, which needs no GradScaler, "
                "or call remove() of what release_gradients() returned"
            )
        self._drop_stepped()

    def _drop_stepped(self) -> None:
        """Drop the gradients that DDP hands out once more, at the end of backward."""
        for param in self._stepped & self._of_ddp:
            param.grad = None

    def end_step(self) -> None:
        """Begin the next step; with other buckets if parameters were exchanged, frozen or thawed."""
        if self._known != self._hookable():
            return self.restart()
        self._forget()
        for bucket, missing in self._missing.items():
            missing.update(bucket.params)
        return None


@dataclass
class _Hook:
    """Tells a release, while there is one, of the gradient of a parameter."""

    release: weakref.ref[GradientRelease]
    bucket: Bucket

    def __call__(self, param: Tensor) -> None:
        release = self.release()
        if release is not None:
            release.arrive(self.bucket, param)
