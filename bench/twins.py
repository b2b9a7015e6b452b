"""The updates of our optimizers as users write them today: eager, foreach and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LR, EXTRAP_LR = 0.1, 0.05
MOMENTUM = 0.9
BETAS, EPS, DECAY = (0.9, 0.999), 1e-8, 1e-2

Update = Callable[..., None]


def sgd(param: Tensor, grad: Tensor, base: Tensor, velocity: Tensor) -> None:
    """One step of one parameter: Nesterov SGD with extrapolation along the past gradient."""
    velocity.mul_(MOMENTUM).add_(grad)
    base.add_(grad + velocity * MOMENTUM, alpha=-LR)
    param.copy_(base - grad * EXTRAP_LR)


def adamw(param: Tensor, grad: Tensor, base: Tensor, first: Tensor, second: Tensor) -> None:
    """One step of one parameter: AdamW with extrapolation; the bias corrections are those of step 1, at no cost."""
    first.lerp_(grad, 1 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
    denominator = (second / (1 - BETAS[1])).sqrt() + EPS
    base.mul_(1 - LR * DECAY).sub_(first / (1 - BETAS[0]) / denominator * LR)
    param.copy_(base - grad / denominator * EXTRAP_LR)


def _state(params: Sequence[Tensor], buffers: int) -> list[list[Tensor]]:
    """Return lists of parameters, gradients, base iterates, and ``buffers`` lists of zeros."""
    plain = [p.detach() for p in params]
    grads = [p.grad for p in params if p.grad is not None]
    return [plain, grads, [p.clone() for p in plain], *([torch.zeros_like(p) for p in plain] for _ in range(buffers))]


def for_loop(update: Update, params: Sequence[Tensor], buffers: int) -> Callable[[], None]:
    """Return a step with one eager loop over the parameters."""
    tensors = list(zip(*_state(params, buffers)))

    def step() -> None:
        for each in tensors:
            update(*each)

    return step


def compiled(update: Update, params: Sequence[Tensor], buffers: int) -> Callable[[], None]:
    """Return the loop under ``torch.compile``, which makes one fused kernel for each tensor."""
    state = _state(params, buffers)

    @torch.compile(fullgraph=True, dynamic=False)
    def update_all(state: list[list[Tensor]]) -> None:
        for each in zip(*state):
            update(*each)

    return lambda: update_all(state)


def foreach_sgd(params: Sequence[Tensor]) -> Callable[[], Any]:
    """Return a step of :func:`sgd` with the ``torch._foreach`` functions."""
    plain, grads, bases, velocities = _state(params, 1)

    def step() -> None:
        torch._foreach_mul_(velocities, MOMENTUM)
        torch._foreach_add_(velocities, grads)
        torch._foreach_add_(bases, torch._foreach_add(grads, velocities, alpha=MOMENTUM), alpha=-LR)
        torch._foreach_copy_(plain, bases)
        torch._foreach_add_(plain, grads, alpha=-EXTRAP_LR)

    return step
