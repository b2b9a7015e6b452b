"""Trainings with each state format on two small tasks, from the same start and on the same batches for each seed.

Parameters are bfloat16, and the validation loss is that of the base iterate, rounded to bfloat16, in float32.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from bench import characters
from extrap_kernels import ExtrapAdamW
from extrap_kernels.optimizer import ExtrapOptimizer

# The demo's network, data and schedule.
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import digits
import recipe
from resnet import ResNet

Row = dict[str, Any]
Batch = tuple[Tensor, Tensor]  # inputs, and the classes that are to be predicted
SEEDS = (0, 1, 2)
_MEASUREMENTS = 8


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
        model: builds the network in float32.
        batches: from a number of steps and a seed to the batches.
        validation: one large batch.
        lr: learning rate at its peak.
        steps: of a full training.
    """

    model: Callable[[], nn.Module]
    batches: Callable[[int, int], Iterator[Batch]]
    validation: Callable[[], Batch]
    lr: float
    steps: int


def _next_characters(excerpts: Tensor) -> Batch:
    return excerpts[:, :-1], excerpts[:, 1:]


def _character_batches(steps: int, seed: int) -> Iterator[Batch]:
    return map(_next_characters, characters.batches(characters.load().train, 16, steps, seed))


def _character_validation() -> Batch:
    (excerpts,) = characters.batches(characters.load().validation, 256, 1, seed=0)
    return _next_characters(excerpts)


TASKS = {
    "digits": Task(ResNet, lambda s, seed: digits.batches(digits.load().train, 128, s, seed),
                   lambda: digits.load().validation, 3e-3, recipe.steps_for(recipe.EPOCHS, 1077, 128)),
    "characters": Task(characters.Transformer, _character_batches, _character_validation, 3e-3, 600),
}  # fmt: skip

_PERTURBATIONS: dict[str, dict[str, Any]] = {
    "past_gradient": {},
    "noise": {"extrapolation": None, "noise": "gaussian", "noise_scale": "filter", "noise_std": 0.01},
}
PLAIN, TORCH = "no extrapolation, float32", "torch AdamW, all in bfloat16"
METHODS: dict[str, dict[str, Any]] = {
    f"{name}, {str(dtype).removeprefix('torch.')}": {**options, "state_dtype": dtype}
    for name, options in _PERTURBATIONS.items()
    for dtype in (torch.float32, torch.bfloat16, torch.uint8)
}
METHODS |= {PLAIN: {"extrapolation": None}, TORCH: {}}


def compared_with(method: str) -> str:
    """Return the method with float32 state that does the same otherwise; for those with float32 state, that itself."""
    return PLAIN if method == TORCH else f"{method.rpartition(', ')[0]}, float32"


def train(task_name: str, method: str, seed: int, steps: int) -> list[Row]:
    """Train and return the validation loss after each eighth of the steps."""
    task = TASKS[task_name]
    torch.manual_seed(seed)
    model = task.model().bfloat16()
    kind: Any = torch.optim.AdamW if method == TORCH else ExtrapAdamW
    optimizer = kind(model.parameters(), lr=task.lr, weight_decay=0.01, **METHODS[method])
    measured_at = {round(steps * (k + 1) / _MEASUREMENTS) for k in range(_MEASUREMENTS)}
    curve = []
    for step, (inputs, labels) in enumerate(task.batches(steps, seed)):
        recipe.set_lr(optimizer, task.lr * recipe.lr_factor(step, steps))
        optimizer.zero_grad()
        _loss(model(inputs.bfloat16() if inputs.is_floating_point() else inputs), labels).backward()
        optimizer.step()
        if step + 1 in measured_at:
            curve.append({"step": step + 1, "loss": _validate(model, optimizer, task.validation())})
    return curve


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, -2), labels.flatten())


@torch.no_grad()
def _validate(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    at_base = optimizer.base_parameters() if isinstance(optimizer, ExtrapOptimizer) else nullcontext()
    with at_base:
        weights = {name: p.detach().float() for name, p in model.named_parameters()}
    return _loss(functional_call(model, weights, (batch[0],)), batch[1]).item()


Curves = Mapping[str, Sequence[Sequence[Row]]]  # by method, then by seed


def comparison(curves: Curves) -> list[Row]:
    """Return the loss at the end for each method, and its difference to float32 state, seed by seed: mean and spread.

    The last column is the largest mean difference in the course of the training, with its sign.
    """
    return [_compared(method, curves[method], curves[compared_with(method)]) for method in curves]


def _compared(method: str, runs: Sequence[Sequence[Row]], others: Sequence[Sequence[Row]]) -> Row:
    last = [run[-1]["loss"] for run in runs]
    row: Row = {"method": method, "loss": statistics.fmean(last), "std": statistics.stdev(last)}
    if method == compared_with(method):
        return {**row, "minus that of": "", "difference": "", "std of it": "", "largest on the way": ""}
    on_the_way = differences(runs, others)
    at_end = [a - b[-1]["loss"] for a, b in zip(last, others)]
    return {
        **row,
        "minus that of": compared_with(method),
        "difference": f"{on_the_way[-1]:+.4f}",
        "std of it": f"{statistics.stdev(at_end):.4f}",
        "largest on the way": f"{max(on_the_way, key=abs):+.4f}",
    }


def differences(runs: Sequence[Sequence[Row]], others: Sequence[Sequence[Row]]) -> list[float]:
    """Return the mean over the seeds of the difference of two methods, at each measurement."""
    if any(not math.isfinite(point["loss"]) for run in (*runs, *others) for point in run):
        raise ValueError("a training diverged: its loss is not finite")
    of_seeds = [[a["loss"] - b["loss"] for a, b in zip(run, other)] for run, other in zip(runs, others)]
    return [statistics.fmean(at_step) for at_step in zip(*of_seeds)]
