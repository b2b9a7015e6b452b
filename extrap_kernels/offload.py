"""CPU offload: the state lives on the host, which steps it; gradients come there, and parameters go back."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Optional, Union

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from extrap_kernels import backends, options
from extrap_kernels.buckets import Bucket, cut, places_of
from extrap_kernels.flat import is_master_of_deepspeed
from extrap_kernels.layout import is_plain, turns
from extrap_kernels.link import Copied, CudaLink, Link
from extrap_kernels.optimizer import Closure, ExtrapOptimizer
from extrap_kernels.shards import is_dtensor
from extrap_kernels.watch import describe

HOST = torch.device("cpu")


def offload(model: nn.Module, optimizer: ExtrapOptimizer, bucket_mb: float = 64) -> ExtrapOptimizer:
    """Keep the state of ``optimizer`` on the host and step there, for models whose state does not fit the accelerator.

    Each parameter on the accelerator gets a host parameter, which takes its place in the optimizer. Backward sends each
    gradient to the host as soon as it is there, and frees it. ``step()`` steps a bucket of host parameters while the
    bucket before travels back to the model's. The accelerator waits for parameters; the host waits for gradients
    alone. All bits are those of the same optimizer over parameters on the host, with the same gradients.

    Schedulers, ``max_grad_norm``, accumulated gradients, ``state_dict()``, ``eval()`` and closures work as ever.
    Where a loop asks the optimizer for its parameters, it gets the host's; :meth:`ExtrapOptimizer.base_of` knows the
    model's as well. Gradients are neither at the parameters nor, before ``step()``, at the host's: clip them with
    ``max_grad_norm``. ``step()`` consumes them, and ``zero_grad()`` drops them whatever ``set_to_none`` is.

    Args:
        model: sharded and wrapped as it is trained. Under DistributedDataParallel, gradients cross in ``step()``.
        optimizer: changed in place. What it has for parameters on the host stays as it is.
        bucket_mb: parameters of a bucket in MiB, at most, unless one alone has more (default: 64).

    Returns:
        ``optimizer``.

    Raises:
        TypeError: not an optimizer of this package.
        ValueError: ``bucket_mb`` is not positive, the parameters are not on one CUDA device, or share memory.
        RuntimeError: offloaded or released already, the backend steps nothing on the host, or a parameter is a DTensor,
            lazy or sparse, or is made by FSDP1 or DeepSpeed. Later, ``step()`` raises it under a GradScaler and for
            local gradients.
    """
    if not isinstance(optimizer, ExtrapOptimizer):
        raise TypeError(
            f"optimizer is a {type(optimizer).__name__}; it must be an optimizer of extrap_kernels (the one inside "
            "AcceleratedOptimizer)"
        )
    _check_optimizer(optimizer)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    devices = {param.device for param in params} - {HOST}
    if {device.type for device in devices} != {"cuda"} or len(devices) != 1:
        raise ValueError(
            f"the optimizer has parameters on {sorted(map(str, devices)) or 'the host only'}; offload() is for those "
            "on one CUDA device: move the model there before you make the optimizer"
        )
    return offload_over(CudaLink(devices.pop()), model, optimizer, bucket_mb)


def offload_over(link: Link, model: nn.Module, optimizer: ExtrapOptimizer, bucket_mb: float = 64) -> ExtrapOptimizer:
    """Do what :func:`offload` does, for the parameters at the other end of ``link``."""
    if not bucket_mb > 0:
        raise ValueError(f"Invalid bucket_mb value: {bucket_mb}; it must be positive")
    _check_optimizer(optimizer)
    of_ddp = {
        param for each in model.modules() if isinstance(each, DistributedDataParallel) for param in each.parameters()
    }
    offloading = Offload(link, optimizer, int(bucket_mb * 2**20), of_ddp)
    offloading.adopt(range(len(optimizer.param_groups)))
    optimizer.stepper.in_backward = offloading
    optimizer.on_mode_change = offloading.send
    optimizer.__class__ = _offloaded(type(optimizer))  # in place: schedulers hold the optimizer already
    return optimizer


def _check_optimizer(optimizer: ExtrapOptimizer) -> None:
    if optimizer.stepper.in_backward is not None or optimizer.on_mode_change is not None:
        raise RuntimeError(
            "offload() needs an optimizer that is not offloaded yet, whose gradients are not released, and that is "
            "not connected to an engine"
        )
    if optimizer.stepper.extrapolated:
        raise RuntimeError(
            "offload() between the halves of an extragradient step: call step() or cancel_extrapolation() before"
        )
    backends.resolve(optimizer.backend, HOST)


class _Pair:
    """A parameter on the accelerator and the host parameter that the optimizer steps in its place."""

    def __init__(self, param: Tensor, link: Link) -> None:
        self.param, self._link = param, link
        self.host = nn.Parameter(link.host_memory(param).copy_(param.detach()), requires_grad=param.requires_grad)
        self._memory: dict[bool, Tensor] = {}  # of gradients: the first one of a step, and what is added to it
        self._arriving: Optional[tuple[Tensor, Copied]] = None
        self.hook: Any = None
        self.note()

    def note(self) -> None:
        """Note that both are the same."""
        self._versions = self.param._version, self.host._version

    @property
    def is_changed(self) -> bool:
        """Whether somebody wrote into the parameter since both were the same."""
        return self.param._version != self._versions[0]

    @property
    def is_stepped(self) -> bool:
        """Whether the host parameter was written since both were the same."""
        return self.host._version != self._versions[1]

    def take(self) -> None:
        """Begin to bring the gradient of the parameter, if it has one, to the host, and free it."""
        gradient = self.param.grad
        if gradient is None or not is_plain(gradient):
            return
        self.land()
        is_first = self.host.grad is None
        memory = self._memory.get(is_first)
        if memory is None or memory.dtype != gradient.dtype:
            memory = self._memory[is_first] = self._link.host_memory(gradient)
        self._arriving = memory, self._link.download(gradient, memory)
        self.param.grad = None

    def announce(self) -> None:
        """Show the optimizer the gradient before its numbers are there, so that memory can be bound."""
        if self.param.grad is not None:  # not a dense one: the optimizer says what is wrong with it
            self.host.grad = self.param.grad.to(HOST)
        elif self._arriving is not None and self.host.grad is None:
            self.host.grad = self._arriving[0]

    def land(self) -> None:
        """Wait for the gradient that is on its way, and add it to what is there."""
        if self._arriving is None:
            return
        gradient, copied = self._arriving
        copied.synchronize()
        if self.host.grad is None:
            self.host.grad = gradient
        elif self.host.grad is not gradient:
            self.host.grad.add_(gradient)
        self._arriving = None

    def drop(self) -> None:
        """Drop the gradient, wherever it is."""
        self.param.grad = self.host.grad = self._arriving = None


class Offload:
    """Brings gradients to the host and parameters back; see :func:`offload`."""

    def __init__(self, link: Link, optimizer: ExtrapOptimizer, bucket_bytes: int, of_ddp: set[nn.Parameter]) -> None:
        self._link, self._bucket_bytes, self._of_ddp = link, bucket_bytes, of_ddp
        self._reference = weakref.ref(optimizer)  # hooks of a model keep no optimizer alive that nobody uses any more
        self._pairs: dict[Tensor, _Pair] = {}  # by the host parameter
        self._of_param: dict[Tensor, _Pair] = {}
        self._sent: Optional[Copied] = None
        self._buckets: list[Bucket] = []

    @property
    def _optimizer(self) -> ExtrapOptimizer:
        optimizer = self._reference()
        assert optimizer is not None
        return optimizer

    # Which parameters

    @torch.no_grad()
    def adopt(self, numbers: Sequence[int]) -> None:
        """Put host parameters in the place of those that groups ``numbers`` have on the accelerator.

        Raises:
            ValueError: a parameter is there already, or shares memory with another one; nothing has changed then.
            RuntimeError: a parameter that cannot be offloaded; nothing has changed then.
        """
        optimizer = self._optimizer
        groups = [optimizer.param_groups[number] for number in numbers]
        for number, group in zip(numbers, groups):
            for i, param in enumerate(group["params"]):
                if not is_plain(param):
                    raise RuntimeError(
                        f"parameter {i} of group {number} is lazy, sparse or nested, so it cannot be offloaded; "
                        "initialize it, or make it dense, before offload()"
                    )
                _check(describe(group, number, i), param)
        self._check_memory(numbers)
        made = [
            {
                i: _Pair(param, self._link)
                for i, param in enumerate(group["params"])
                if param.device == self._link.device
            }
            for group in groups
        ]
        for group, pairs in zip(groups, made):
            for i, pair in pairs.items():
                self._pairs[pair.host] = self._of_param[pair.param] = pair
                group["params"][i] = pair.host
                if pair.param in optimizer.state:
                    optimizer.state[pair.host] = _on_host(optimizer.state.pop(pair.param))
        optimizer._note_owners()
        optimizer.stepper.reset()
        self._hook()

    def _check_memory(self, numbers: Sequence[int]) -> None:
        places = [
            (describe(group, number, i), param)
            for number, group in enumerate(self._optimizer.param_groups)
            for i, param in enumerate(group["params"])
            if number in numbers
        ]
        known = list(self._of_param)
        for (name, _), turn in zip(places, turns([*known, *(param for _, param in places)])[len(known) :]):
            if turn > 0:
                raise ValueError(
                    f"{name} shares memory with a parameter before it, or is listed twice: each would be offloaded "
                    "for itself; list it once"
                )

    def pair_of(self, param: Tensor) -> Optional[_Pair]:
        """Return the pair of a parameter of the model."""
        return self._of_param.get(param)

    def _hook(self) -> None:
        this = weakref.ref(self)
        for pair in self._pairs.values():
            if pair.hook is None and pair.param.requires_grad and pair.param not in self._of_ddp:
                pair.hook = pair.param.register_post_accumulate_grad_hook(_Hook(this))

    def restart(self) -> None:
        """Cut new buckets before the next step: groups or state were exchanged."""
        self._buckets = []

    # Copies

    @torch.no_grad()
    def fetch(self) -> None:
        """Wait until the host may write, and bring the numbers that parameters were changed to."""
        if self._sent is not None:
            self._sent.synchronize()
            self._sent = None
        changed = [pair for pair in self._pairs.values() if pair.is_changed]
        for copied in [self._link.download(pair.param.detach(), pair.host.detach()) for pair in changed]:
            copied.synchronize()
        for pair in changed:
            pair.note()

    @torch.no_grad()
    def gather(self) -> None:
        """Bring all gradients, too, and wait until they are there."""
        self.fetch()
        for pair in self._pairs.values():
            pair.take()
            pair.announce()
            pair.land()

    def send(self) -> None:
        """Send all host parameters that were written to the accelerator."""
        self._send(self._pairs.values())

    @torch.no_grad()
    def _send(self, pairs: Iterable[_Pair]) -> None:
        stepped = [pair for pair in pairs if pair.is_stepped]
        if stepped:
            self._sent = self._link.upload([(pair.host.detach(), pair.param.detach()) for pair in stepped])
        for pair in stepped:
            pair.note()

    def drop_gradients(self) -> None:
        """Drop all gradients, at the parameters and on their way, too."""
        for pair in self._pairs.values():
            pair.drop()

    # What step() calls

    @torch.no_grad()
    def begin_step(self) -> None:
        """Step all buckets that have a gradient, unless an option needs all gradients at once.

        Raises:
            RuntimeError: of a GradScaler or of local gradients; nothing has changed then.
        """
        optimizer = self._optimizer
        if any(getattr(optimizer, name, None) is not None for name in ("grad_scale", "found_inf")):
            _refuse_scaler()
        if optimizer.local_gradients:
            raise RuntimeError(
                "offload() brings only p.grad to the host, and optimizer.local_gradients are on the accelerator: call "
                "no register_local_gradient_hook(), so that all workers extrapolate along the averaged gradient"
            )
        if any(_needs_all(group) for group in optimizer.param_groups):
            return self.gather()
        self.fetch()
        for bucket in self._prepared():
            self._step(bucket)
        return None

    def _prepared(self) -> Iterator[Bucket]:
        """Return the buckets that have a gradient. All that a step could refuse is refused here."""
        optimizer = self._optimizer
        for pair in self._pairs.values():
            pair.take()
            pair.announce()
        groups = optimizer.param_groups
        for number, group in enumerate(groups):
            options.read(group, number, optimizer.defaults)
        if not self._buckets or not all([bucket.is_current(groups) for bucket in self._buckets]):
            self._buckets = cut(places_of(groups, self._pairs), self._bucket_bytes)
        ready = [bucket for bucket in self._buckets if any([param.grad is not None for param in bucket.params])]
        try:
            for bucket in ready:
                optimizer.stepper.bind(optimizer, [bucket.number], bucket.positions)
        except BaseException:
            optimizer.stepper.release()
            raise
        return iter(ready)

    def _step(self, bucket: Bucket) -> None:
        pairs = [self._pairs[param] for param in bucket.params]
        for pair in pairs:
            pair.land()
        self._optimizer.step_early(bucket.number, bucket.positions)
        self._send(pairs)
        for pair in pairs:
            pair.drop()

    def end_step(self) -> None:
        """Send what is stepped in the end, and see gradients of parameters that are thawed from now on."""
        self.send()
        self.drop_gradients()
        self._hook()


@dataclass
class _Hook:
    """Takes the gradient of a parameter, while there is an optimizer."""

    offload: weakref.ref[Offload]

    @torch.no_grad()
    def __call__(self, param: Tensor) -> None:
        offloading = self.offload()
        pair = None if offloading is None else offloading.pair_of(param)
        if pair is not None:
            pair.take()


def _check(name: str, param: Tensor) -> None:
    if is_dtensor(param):
        raise RuntimeError(
            f"{name} is a DTensor: FSDP2 brings it to the host by itself, where this optimizer steps it; pass "
            "offload_policy=CPUOffloadPolicy() to fully_shard() instead of calling offload()"
        )
    if getattr(param, "_fsdp_flattened", False) or is_master_of_deepspeed(param):
        raise RuntimeError(
            f"{name} is made by FSDP1 or DeepSpeed, which have an offload of their own; use that, or FSDP2 "
            "(fully_shard) with CPUOffloadPolicy()"
        )


def _needs_all(group: dict[str, Any]) -> bool:
    of_all = group["max_grad_norm"] is not None or group["extrap_norm"] is not None
    return of_all or group["extrapolation"] == "extragradient"


def _on_host(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(HOST) if isinstance(value, Tensor) else value for name, value in state.items()}


def _refuse_scaler() -> NoReturn:
    """Raise RuntimeError: a GradScaler steps an offloaded optimizer."""
    raise RuntimeError(
        "a GradScaler looks for infinite gradients before step(), when those of an offloaded optimizer are still on "
        "their way to the host; use bfloat16, which needs no GradScaler"
    )


class _Offloaded(ExtrapOptimizer):
    """What an offloaded optimizer does in another way."""

    @property
    def _offload(self) -> Offload:
        offloading = self.stepper.in_backward
        assert isinstance(offloading, Offload)
        return offloading

    @property
    def _step_supports_amp_scaling(self) -> bool:
        _refuse_scaler()  # GradScaler.step() asks this first

    def __getstate__(self) -> dict[str, Any]:
        raise RuntimeError(
            "an offloaded optimizer cannot be copied or pickled, since it steps host parameters of one model; save "
            "state_dict(), and call offload() on an optimizer over the copy of the model"
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        try:
            self._offload.adopt([len(self.param_groups) - 1])
        except BaseException:
            del self.param_groups[-1]
            self.stepper.reset()
            raise

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._offload.drop_gradients()

    def _step(self, closure: Optional[Closure]) -> Any:
        if not self.state and closure is None:
            self._offload.gather()  # gradients of zero would mean that state is to be created, and nothing else
        return super()._step(closure)

    def _gradients(self) -> list[tuple[Optional[Tensor], int]]:
        self._offload.gather()
        return super()._gradients()

    def extrapolate(self, grad_scale: Union[float, Tensor, None] = None) -> None:
        self._offload.gather()
        super().extrapolate(grad_scale)
        self._offload.send()

    def _return_to_base(self, *, only_without_gradient: bool) -> None:
        self._offload.fetch()
        super()._return_to_base(only_without_gradient=only_without_gradient)
        self._offload.send()

    def eval(self) -> None:
        self._offload.fetch()
        super().eval()

    def train(self, mode: bool = True) -> None:
        self._offload.fetch()
        super().train(mode)

    def base_of(self, param: Tensor) -> Tensor:
        pair = self._offload.pair_of(param)
        if pair is None:
            return super().base_of(param)
        self._offload.fetch()
        base = super().base_of(pair.host)
        return param if base is pair.host else base

    @torch.no_grad()
    def set_base(self, param: Tensor, value: Tensor) -> None:
        pair = self._offload.pair_of(param)
        if pair is None:
            super().set_base(param, value)
            return
        self._offload.fetch()
        super().set_base(pair.host, value)
        pair.param.copy_(pair.host)
        pair.note()


def _offloaded(plain: type[ExtrapOptimizer]) -> type[ExtrapOptimizer]:
    """Return the class of optimizers of class ``plain`` that are offloaded; messages call it by the same name."""
    return type(plain.__name__, (_Offloaded, plain), {"__module__": plain.__module__, "__doc__": plain.__doc__})
