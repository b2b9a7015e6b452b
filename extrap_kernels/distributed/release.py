"""Gradient release under DDP: its communication hook tells when the gradients of a bucket are averaged."""

# DDP compares the annotations of a hook with types, so they must not become strings here.

import weakref
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from extrap_kernels.release import GradientRelease


def hook(wrappers: Sequence[DistributedDataParallel], release: GradientRelease) -> None:
    """Let ``release`` step the buckets of DDP modules.

    Raises:
        RuntimeError: a module has a communication hook already, or looks for unused parameters.
    """
    for ddp in wrappers:
        if ddp.find_unused_parameters or ddp.static_graph:
            raise RuntimeError(
                "DDP with find_unused_parameters or static_graph tells after backward which parameters were unused, "
                "and release_gradients() steps before that; switch them off, or do not release gradients"
            )
    for ddp in wrappers:
        try:
            ddp.register_comm_hook(_Buckets(ddp.process_group, weakref.ref(release)), _reduce_and_step)
        except RuntimeError as error:
            raise RuntimeError(
                "release_gradients() needs the communication hook of DDP, which is taken for as long as DDP lives: by "
                "register_local_gradient_hook(), by a compression of gradients, or by an earlier release"
            ) from error


class _Averaged(NamedTuple):
    gradients: dict[Tensor, Tensor]
    done: torch.futures.Future[Tensor]


class _Buckets:
    """Buckets of one DDP module that are being averaged in this backward."""

    def __init__(self, process_group: dist.ProcessGroup, release: "weakref.ref[GradientRelease]") -> None:
        self.process_group, self.release = process_group, release
        self._waiting: list[_Averaged] = []

    def take(self, release: GradientRelease, bucket: GradBucket, done: torch.futures.Future[Tensor]) -> None:
        """Free the gradients that DDP has copied into ``bucket``, and step the buckets that are averaged by now.

        Those that never are before backward ends are left to ``step()``.
        """
        if bucket.index() == 0:
            self._waiting.clear()
        gradients = {p: g for p, g in zip(bucket.parameters(), bucket.gradients()) if release.takes(p)}
        for param in gradients:
            param.grad = None
        release.expect(gradients)
        waiting, self._waiting = self._waiting, [_Averaged(gradients, done)]
        for averaged in waiting:
            if averaged.done.done():
                averaged.done.wait()  # a stream of a GPU has to wait, still
                release.step_reduced(averaged.gradients)
            else:
                self._waiting.append(averaged)


def _reduce_and_step(buckets: _Buckets, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    done = allreduce_hook(buckets.process_group, bucket)
    release = buckets.release()
    if release is not None:
        with release.lock:
            if release.is_active:
                buckets.take(release, bucket, done)
    return done
