"""Data-parallel training: every worker extrapolates along its own gradient."""

# DDP compares the annotations of a hook with types, so they must not become strings here.

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Callable, Optional

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.algorithms.join import Joinable, JoinHook
from torch.nn.parallel import DistributedDataParallel

from extrap_kernels.layout import is_dense
from extrap_kernels.optimizer import ExtrapOptimizer

CommunicationHook = Callable[[Any, GradBucket], torch.futures.Future[Tensor]]


def register_local_gradient_hook(
    ddp_model: DistributedDataParallel,
    optimizer: ExtrapOptimizer,
    base_hook: Optional[CommunicationHook] = None,
    base_state: Any = None,
) -> "LocalGradients":
    """Let ``optimizer`` extrapolate along this worker's own gradient, which costs no communication.

    Registers a communication hook with DDP that copies each bucket of gradients before ``base_hook`` reduces it. After
    a backward pass, ``optimizer.local_gradients`` holds the copies. They take the memory of the gradients once more,
    allocated once.

    Args:
        ddp_model: the wrapped model, with no communication hook yet.
        optimizer: steps parameters of the model, on every worker with the same options.
        base_hook: DDP communication hook that averages the gradients: ``fp16_compress_hook``, ``powerSGD_hook``...
            (default: None, the all-reduce that DDP does by itself).
        base_state: first argument of ``base_hook`` (default: None, the process group of the model).

    Returns:
        The copies; keep it to call :meth:`LocalGradients.unscale_` or to train on uneven inputs.

    Raises:
        TypeError: the model is not wrapped in DDP, or the optimizer does not extrapolate or shards its parameters.
        RuntimeError: the model already has a communication hook (raised by DDP).
    """
    if not isinstance(ddp_model, DistributedDataParallel):
        raise TypeError(
            f"ddp_model is a {type(ddp_model).__name__}; it must be a DistributedDataParallel: under FSDP and tensor "
            "parallelism all workers share one extrapolated point, so there is no local gradient to extrapolate along"
        )
    if not isinstance(optimizer, ExtrapOptimizer):
        raise TypeError(
            f"optimizer is a {type(optimizer).__name__}; it must be an optimizer of extrap_kernels (the one inside "
            "PostLocalSGDOptimizer or AcceleratedOptimizer). Under ZeroRedundancyOptimizer all workers share one "
            "extrapolated point, so there is no local gradient to extrapolate along"
        )
    captured = LocalGradients(ddp_model, optimizer, base_hook or allreduce_hook, base_state)
    ddp_model.register_comm_hook(captured, _capture_and_reduce)
    return captured


def _capture_and_reduce(captured: "LocalGradients", bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    captured.capture(bucket)
    return captured.base_hook(captured.base_state, bucket)


class LocalGradients(Joinable):
    """This worker's own gradients, as copied from DDP's buckets; see :func:`register_local_gradient_hook`.

    On uneven inputs, ``with Join([ddp_model, local_gradients]):`` ends with the same optimizer state on all workers:
    that of the worker with the most batches, as is the case for the model. ``ddp_model.join()`` alone would leave the
    workers that ran out of data with an older base iterate.

    Attributes:
        base_hook, base_state: what reduces the buckets.
    """

    def __init__(
        self, ddp_model: DistributedDataParallel, optimizer: ExtrapOptimizer, base_hook: CommunicationHook, state: Any
    ) -> None:
        super().__init__()
        self.base_hook = base_hook
        self.base_state = ddp_model.process_group if state is None else state
        self._group: dist.ProcessGroup = ddp_model.process_group
        self._device = next(ddp_model.parameters()).device
        self._optimizer = optimizer
        self._copies: dict[int, _BucketCopy] = {}
        self._unscaled = False
        optimizer.register_step_pre_hook(self._check_scale)

    @property
    def nbytes(self) -> int:
        """Memory of the copies in bytes."""
        return sum(copy.buffer.nbytes for copy in self._copies.values())

    def capture(self, bucket: GradBucket) -> None:
        """Copy a bucket that is not reduced yet, and hand the copies to the optimizer."""
        buffer = bucket.buffer()
        if buffer.layout != torch.strided:
            return  # a sparse gradient, which step() refuses with its reason
        params, index = bucket.parameters(), bucket.index()
        copy = self._copies.get(index)
        if copy is None or not copy.fits(buffer, params):
            if index == 0:
                self._copies.clear()  # DDP has rebuilt its buckets; there may be fewer now
            copy = self._copies[index] = _BucketCopy(buffer, params)
        copy.copy(bucket)
        self._unscaled = False
        self._optimizer.local_gradients.update(copy.gradients)

    def unscale_(self, scaler: torch.amp.GradScaler) -> None:
        """Divide the local gradients by the scale; call it after each ``scaler.unscale_(optimizer)``.

        Not needed if ``scaler.step(optimizer)`` unscales; then clip with ``max_grad_norm``.
        """
        torch._foreach_div_([copy.buffer for copy in self._copies.values()], scaler.get_scale())
        self._unscaled = True

    def _check_scale(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        # GradScaler sets the flag in every step, but the scale only where unscale_() was not called before.
        by_hand = getattr(optimizer, "found_inf", None) is not None and getattr(optimizer, "grad_scale", None) is None
        if by_hand and self._optimizer.local_gradients and not self._unscaled:
            raise RuntimeError(
                "scaler.unscale_(optimizer) has unscaled the averaged gradients but not this worker's own; call "
                "unscale_(scaler) of what register_local_gradient_hook() returned after it, or drop it and clip with "
                "the option max_grad_norm of the optimizer"
            )

    # Uneven inputs

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """Return the hook for ``torch.distributed.algorithms.Join``."""
        return _StateFromLastJoiner(self._optimizer, self._group, self._device)

    @property
    def join_device(self) -> torch.device:
        """Device of the collectives."""
        return self._device

    @property
    def join_process_group(self) -> dist.ProcessGroup:
        """Process group of the model."""
        return self._group


class _BucketCopy:
    """Memory for the copy of a bucket, and the gradient of each of its parameters as a view of that memory.

    Each begins at a multiple of 16 bytes, as kernels for GPUs like it best. In the bucket it need not.
    """

    def __init__(self, buffer: Tensor, params: Sequence[Tensor]) -> None:
        aligned = 16 // buffer.element_size()
        starts = [0, *accumulate(-(-param.numel() // aligned) * aligned for param in params)]
        self.buffer = buffer.new_zeros(starts[-1])
        self._flat = [self.buffer[start : start + param.numel()] for param, start in zip(params, starts)]
        self.gradients = {param: _view_like(param, flat) for param, flat in zip(params, self._flat)}

    def fits(self, buffer: Tensor, params: Sequence[Tensor]) -> bool:
        same_params = len(params) == len(self.gradients) and all(a is b for a, b in zip(params, self.gradients))
        return same_params and buffer.dtype == self.buffer.dtype

    def copy(self, bucket: GradBucket) -> None:
        buffer = bucket.buffer()
        if buffer.shape == self.buffer.shape:  # nothing is padded here, and DDP leaves no gaps
            self.buffer.copy_(buffer)
            return
        torch._foreach_copy_(self._flat, [gradient.view(-1) for gradient in bucket.gradients()])


def _view_like(param: Tensor, flat: Tensor) -> Tensor:
    """View a part of a bucket as DDP fills it: in the memory order of a dense parameter, else row-major."""
    if not is_dense(param):
        return flat.view(param.shape)
    return flat.as_strided(param.shape, param.stride(), flat.storage_offset())


class _StateFromLastJoiner(JoinHook):
    """Gives every worker the optimizer state of the one from which DDP takes the model: the last to run out of data."""

    def __init__(self, optimizer: ExtrapOptimizer, group: dist.ProcessGroup, device: torch.device) -> None:
        self._optimizer, self._group, self._device = optimizer, group, device

    def post_hook(self, is_last_joiner: bool) -> None:
        candidate = torch.tensor(dist.get_rank(self._group) if is_last_joiner else -1, device=self._device)
        dist.all_reduce(candidate, dist.ReduceOp.MAX, self._group)
        broadcast_state(self._optimizer, dist.get_global_rank(self._group, int(candidate)), self._group)
        self._optimizer.local_gradients.clear()  # those of the workers that only took part in the communication


@torch.no_grad()
def broadcast_state(optimizer: ExtrapOptimizer, source: int, group: Optional[dist.ProcessGroup] = None) -> None:
    """Give every worker the optimizer state, in train mode, of the worker ``source``; the parameters stay.

    Args:
        optimizer: on every worker for the same parameters.
        source: global rank of the worker whose state counts.
        group: process group of the workers (default: None, all of them).
    """
    params = [param for param_group in optimizer.param_groups for param in param_group["params"]]
    kept = [[[name for name in optimizer.state.get(param, {}) if name != "extrapolated"] for param in params]]
    dist.broadcast_object_list(kept, source, group)
    for param, names in zip(params, kept[0]):
        if not names:
            optimizer.state.pop(param, None)
            continue
        state = optimizer.prepare_state(param)
        for name in names:
            dist.broadcast(state[name], source, group)
