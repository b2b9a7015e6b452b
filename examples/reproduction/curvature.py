"""The sharpness of a loss: an estimate of the largest eigenvalue of its Hessian, by power iteration."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reproduction.models import Network
from reproduction.splits import Split

_ITERATIONS = 8
# Of the parameters' norm: how far the gradients are taken from where the Hessian is. Not every layer has a second
# derivative.
_DISTANCE = 1e-3


def sharpness(model: Network, examples: Split) -> float:
    """Return the Rayleigh quotient after eight iterations; parameters do not change.

    Its absolute value is at most that of the largest eigenvalue, and less where the iteration has not converged.

    Args:
        model: where the Hessian is.
        examples: whose mean loss it is of.
    """
    params = list(model.parameters())
    start = [param.detach().clone() for param in params]
    scale = _DISTANCE * _norm(start)
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(param.shape, generator=generator) for param in params]
    eigenvalue = 0.0
    for _ in range(_ITERATIONS):
        norm = _norm(vector)
        vector = [v / norm for v in vector]
        ahead, behind = (_gradient(model, params, start, vector, sign * scale, examples) for sign in (1, -1))
        product = [(a - b) / (2 * scale) for a, b in zip(ahead, behind)]
        eigenvalue = sum(float((v * p).sum()) for v, p in zip(vector, product))
        vector = product
    with torch.no_grad():
        for param, value in zip(params, start):
            param.copy_(value)
    return eigenvalue


def _gradient(
    model: Network, params: list[nn.Parameter], start: list[Tensor], vector: list[Tensor], by: float, examples: Split
) -> list[Tensor]:
    with torch.no_grad():
        for param, value, direction in zip(params, start, vector):
            param.copy_(value + by * direction)
    return list(torch.autograd.grad(model.loss(*examples) / model.count(*examples), params))


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([t.norm() for t in tensors]).norm())
