"""The updates of our optimizers as users write them in plain PyTorch: eager, foreach and compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LR, EXTRAP_LR = 0.1, 0.05
MOMENTUM = 0.9
BETAS, EPS, DECAY = (0.9, 0.999), 1e-8, 1e-2

Update = Callable[..., None]
Step = Callable[[], Any]


def sgd(param: Tensor, grad: Tensor, base: Tensor, velocity: Tensor) -> None:
    """One step of one parameter: Nesterov SGD with extrapolation along the past gradient."""
    grad = grad.to(base.dtype)
    velocity.mul_(MOMENTUM).add_(grad)
    base.add_(grad + velocity * MOMENTUM, alpha=-LR)
    param.copy_(base - grad * EXTRAP_LR)


def adamw(param: Tensor, grad: Tensor, base: Tensor, first: Tensor, second: Tensor) -> None:
    """One step of one parameter: AdamW with extrapolation; the bias corrections are those of step 1, at no cost."""
    grad = grad.to(base.dtype)
    first.lerp_(grad, 1 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
    denominator = (second / (1 - BETAS[1])).sqrt() + EPS
    base.mul_(1 - LR * DECAY).sub_(first / (1 - BETAS[0]) / denominator * LR)
    param.copy_(base - grad / denominator * EXTRAP_LR)


# The update of one parameter, and how many buffers of state it has.
UPDATES: dict[str, tuple[Update, int]] = {"sgd": (sgd, 1), "adamw": (adamw, 2)}


def _state(params: Sequence[Tensor], buffers: int) -> list[list[Tensor]]:
    """Return lists of parameters, gradients and float32 base iterates, and ``buffers`` lists of zeros."""
    plain = [p.detach() for p in params]
    grads = [p.grad for p in params if p.grad is not None]
    bases = [p.float().clone() for p in plain]
    return [plain, grads, bases, *([torch.zeros_like(base) for base in bases] for _ in range(buffers))]


def for_loop(rule: str, params: Sequence[Tensor]) -> Step:
    """Return a step with one eager loop over the parameters."""
    update, buffers = UPDATES[rule]
    tensors = list(zip(*_state(params, buffers)))

    def step() -> None:
        for each in tensors:
            update(*each)

    return step


def compiled(rule: str, params: Sequence[Tensor]) -> Step:
    """Return the loop under ``torch.compile``, which generates one fused kernel per tensor."""
    update, buffers = UPDATES[rule]
    state = _state(params, buffers)

    @torch.compile(fullgraph=True, dynamic=False)
    def update_all(state: list[list[Tensor]]) -> None:
        for each in zip(*state):
            update(*each)

    return lambda: update_all(state)


def foreach(rule: str, params: Sequence[Tensor]) -> Step:
    """Return a step of the same update with the ``torch._foreach`` functions."""
    state = _state(params, UPDATES[rule][1])
    steps: dict[str, Update] = {"sgd": _foreach_sgd, "adamw": _foreach_adamw}
    return lambda: steps[rule](*state)


def _foreach_sgd(params: list[Tensor], grads: list[Tensor], bases: list[Tensor], velocities: list[Tensor]) -> None:
    torch._foreach_mul_(velocities, MOMENTUM)
    torch._foreach_add_(velocities, grads)
    torch._foreach_add_(bases, torch._foreach_add(grads, velocities, alpha=MOMENTUM), alpha=-LR)
    torch._foreach_copy_(params, bases)
    torch._foreach_add_(params, grads, alpha=-EXTRAP_LR)


def _foreach_adamw(
    params: list[Tensor], grads: list[Tensor], bases: list[Tensor], first: list[Tensor], second: list[Tensor]
) -> None:
    torch._foreach_lerp_(first, grads, 1 - BETAS[0])
    torch._foreach_mul_(second, BETAS[1])
    torch._foreach_addcmul_(second, grads, grads, value=1 - BETAS[1])
    denominators = torch._foreach_div(second, 1 - BETAS[1])
    torch._foreach_sqrt_(denominators)
    torch._foreach_add_(denominators, EPS)
    torch._foreach_mul_(bases, 1 - LR * DECAY)
    torch._foreach_addcdiv_(bases, first, denominators, value=-LR / (1 - BETAS[0]))
    torch._foreach_copy_(params, bases)
    torch._foreach_addcdiv_(params, grads, denominators, value=-EXTRAP_LR)
