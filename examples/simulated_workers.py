"""Data-parallel workers simulated in one process, each with its own parameters, gradients and optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from extrap_kernels import ExtrapSGD


class SimulatedWorkers:
    """K replicas of a model that step as K data-parallel workers would.

    A worker takes the gradient of its share of the batch at its own parameters, which are its own extrapolated point
    under ``ExtrapSGD``. Every worker gets the mean of those gradients, as from an all-reduce, and corrects its base
    iterate with it; then it extrapolates along its own gradient.

    The replicas are the slices of one stacked tensor per parameter, so that one batched forward and backward serves
    them all: small convolutions cost more in calls than in arithmetic.

    Args:
        model: its parameters are the start of every worker; it is not changed.
        workers: K.
        make_optimizer: builds one worker's optimizer from that worker's parameters.

    Attributes:
        optimizers: one for each worker.
        optimizer_seconds: for each step so far, the time of one worker's optimizer (mean over the workers).
    """

    def __init__(
        self, model: nn.Module, workers: int, make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    ) -> None:
        self.model = model
        self._stacked = {
            name: torch.stack([param.detach()] * workers).requires_grad_() for name, param in model.named_parameters()
        }
        # The replicas share the memory of the stacked tensors: what an optimizer writes is what the next forward reads.
        self.replicas = [
            {name: nn.Parameter(stack.detach()[k]) for name, stack in self._stacked.items()} for k in range(workers)
        ]
        self.optimizers = [make_optimizer(list(replica.values())) for replica in self.replicas]
        for rank, optimizer in enumerate(self.optimizers):
            if isinstance(optimizer, ExtrapSGD):
                optimizer.rank = rank
        self.optimizer_seconds: list[float] = []

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Train on one global batch; worker k takes the k-th of K equal shares."""
        local = self.local_gradients(images, labels)
        average = {name: stack.mean(dim=0) for name, stack in local.items()}
        for k, (replica, optimizer) in enumerate(zip(self.replicas, self.optimizers)):
            for name, param in replica.items():
                param.grad = average[name]
            if isinstance(optimizer, ExtrapSGD):
                optimizer.local_gradients = {param: local[name][k] for name, param in replica.items()}
        start = time.perf_counter()
        for optimizer in self.optimizers:
            optimizer.step()
        self.optimizer_seconds.append((time.perf_counter() - start) / len(self.optimizers))

    def local_gradients(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return each worker's gradient on its share, at its own parameters, stacked by worker."""

        def loss(parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(self.model, parameters, (images,)), labels)

        shares = [batch.unflatten(0, (len(self.replicas), -1)) for batch in (images, labels)]
        losses = vmap(loss)(self._stacked, *shares)
        # A worker's loss depends on its own slice alone, so the gradient of the sum holds all their gradients.
        gradients = torch.autograd.grad(losses.sum(), list(self._stacked.values()))
        return dict(zip(self._stacked, gradients))

    def base(self) -> dict[str, Tensor]:
        """Return the base iterate, the parameters to evaluate and keep.

        Raises:
            RuntimeError: the workers no longer hold the same one, bit for bit.
        """
        first, *others = [self._base_of(k) for k in range(len(self.replicas))]
        for rank, other in enumerate(others, 1):
            differing = [name for name, value in first.items() if not _same_bits(value, other[name])]
            if differing:
                raise RuntimeError(f"the base iterates of workers 0 and {rank} differ in {differing}")
        return first

    def _base_of(self, k: int) -> dict[str, Tensor]:
        optimizer = self.optimizers[k]
        with optimizer.base_parameters() if isinstance(optimizer, ExtrapSGD) else nullcontext():
            return {name: param.detach().clone() for name, param in self.replicas[k].items()}


def _same_bits(a: Tensor, b: Tensor) -> bool:
    # As integers: after a divergence nan must equal nan.
    return torch.equal(a.view(torch.int32), b.view(torch.int32))
