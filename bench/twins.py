"""The update of ExtrapSGD (momentum, Nesterov, past gradient) as users write it today: eager, foreach and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LR, MOMENTUM, EXTRAP_LR = 0.1, 0.9, 0.05


def _step_one(param: Tensor, base: Tensor, velocity: Tensor, grad: Tensor) -> None:
    velocity.mul_(MOMENTUM).add_(grad)
    base.add_(grad + velocity * MOMENTUM, alpha=-LR)
    param.copy_(base - grad * EXTRAP_LR)


def _state(params: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    plain = [p.detach() for p in params]
    grads = [p.grad for p in params if p.grad is not None]
    return plain, [p.clone() for p in plain], [torch.zeros_like(p) for p in plain], grads


def foreach(params: Sequence[Tensor]) -> Callable[[], None]:
    """Return a step with the ``torch._foreach`` functions."""
    plain, bases, velocities, grads = _state(params)

    def step() -> None:
        torch._foreach_mul_(velocities, MOMENTUM)
        torch._foreach_add_(velocities, grads)
        torch._foreach_add_(bases, torch._foreach_add(grads, velocities, alpha=MOMENTUM), alpha=-LR)
        torch._foreach_copy_(plain, bases)
        torch._foreach_add_(plain, grads, alpha=-EXTRAP_LR)

    return step


def for_loop(params: Sequence[Tensor]) -> Callable[[], None]:
    """Return a step with one eager loop over the parameters."""
    tensors = list(zip(*_state(params)))

    def step() -> None:
        for plain, base, velocity, grad in tensors:
            _step_one(plain, base, velocity, grad)

    return step


def compiled(params: Sequence[Tensor]) -> Callable[[], None]:
    """Return the loop under ``torch.compile``, which makes one fused kernel for each tensor."""
    plain, bases, velocities, grads = _state(params)

    @torch.compile(fullgraph=True, dynamic=False)
    def update(plain: list[Tensor], bases: list[Tensor], velocities: list[Tensor], grads: list[Tensor]) -> None:
        for tensors in zip(plain, bases, velocities, grads):
            _step_one(*tensors)

    return lambda: update(plain, bases, velocities, grads)
