"""What is compared with what: the contenders of each table, each with the bytes that it must move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench import twins, workloads
from extrap_kernels import ExtrapAdamW, ExtrapSGD

SGD: dict[str, Any] = {"lr": twins.LR, "momentum": twins.MOMENTUM, "nesterov": True}
ADAMW: dict[str, Any] = {"lr": twins.LR, "betas": twins.BETAS, "weight_decay": twins.DECAY}


class Contender(NamedTuple):
    """A step, and the bytes for each parameter that its buffers must be read and written with."""

    run: Callable[[], object]
    bytes: int


class Case(NamedTuple):
    """One table; the first contender is what the others are compared with."""

    title: str
    shapes: list[tuple[int, ...]]
    contenders: Callable[[list[tuple[int, ...]]], dict[str, Contender]]
    rounds: int


def _add(shapes: Sequence[tuple[int, ...]]) -> Contender:
    numel = sum(torch.Size(shape).numel() for shape in shapes)
    x, g = torch.randn(numel), torch.randn(numel)
    return Contender(lambda: x.add_(g), 12)


def _extrap_sgd(params: Sequence[Tensor], **options: Any) -> Callable[[], object]:
    return ExtrapSGD(params, extrap_lr=twins.EXTRAP_LR, **SGD, **options).step


def _extrap_adamw(params: Sequence[Tensor]) -> Callable[[], object]:
    return ExtrapAdamW(params, extrap_lr=twins.EXTRAP_LR, **ADAMW).step


def _sgd(shapes: list[tuple[int, ...]]) -> dict[str, Contender]:
    params = workloads.parameters(shapes)
    return {
        "ExtrapSGD": Contender(_extrap_sgd(params), 24),
        "x.add_(g)": _add(shapes),
        "torch SGD fused": Contender(torch.optim.SGD(params, fused=True, **SGD).step, 20),
        "twin, torch.compile": Contender(twins.compiled(twins.sgd, params, 1), 24),
        "twin, foreach": Contender(twins.foreach_sgd(params), 24),
        "twin, for loop": Contender(twins.for_loop(twins.sgd, params, 1), 24),
        "ExtrapSGD, uniform noise": Contender(_extrap_sgd(params, noise="uniform"), 24),
        "ExtrapSGD, Gaussian noise": Contender(_extrap_sgd(params, noise="gaussian"), 24),
    }


def _adamw(shapes: list[tuple[int, ...]]) -> dict[str, Contender]:
    params = workloads.parameters(shapes)
    return {
        "ExtrapAdamW": Contender(_extrap_adamw(params), 32),
        "x.add_(g)": _add(shapes),
        "torch AdamW fused": Contender(torch.optim.AdamW(params, fused=True, **ADAMW).step, 28),
        "twin, torch.compile": Contender(twins.compiled(twins.adamw, params, 2), 32),
        "twin, for loop": Contender(twins.for_loop(twins.adamw, params, 2), 32),
    }


def _precision(shapes: list[tuple[int, ...]]) -> dict[str, Contender]:
    single, narrow = (workloads.parameters(shapes, dtype) for dtype in (torch.float32, torch.bfloat16))
    return {
        "ExtrapAdamW, fp32": Contender(_extrap_adamw(single), 32),
        "ExtrapAdamW, bf16": Contender(_extrap_adamw(narrow), 28),
        "ExtrapSGD, fp32": Contender(_extrap_sgd(single), 24),
        "ExtrapSGD, bf16": Contender(_extrap_sgd(narrow), 20),
    }


def _small(shapes: list[tuple[int, ...]]) -> dict[str, Contender]:
    params = workloads.parameters(shapes)
    return {
        "ExtrapSGD": Contender(_extrap_sgd(params), 24),
        "torch SGD fused": Contender(torch.optim.SGD(params, fused=True, **SGD).step, 20),
    }


def cases(rounds: int) -> list[Case]:
    """Return all tables; ``rounds`` is the number of timed rounds of the large ones."""
    gpt2 = workloads.gpt2_124m()
    return [
        Case("SGD, momentum and Nesterov, GPT-2 124M, fp32", gpt2, _sgd, rounds),
        Case("AdamW, GPT-2 124M, fp32", gpt2, _adamw, rounds),
        Case("bf16 parameters, fp32 base, GPT-2 124M", gpt2, _precision, rounds),
        Case("SGD, 1,000 tensors of 64", workloads.many_small(), _small, 10 * rounds),
    ]
