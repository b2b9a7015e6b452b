"""The training recipe for the digits, shared by all scripts here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from digits import Split
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from extrap_kernels import ExtrapSGD

EPOCHS = 60
# A worker's share of the batch. A larger batch means more workers, as it does on a cluster.
LOCAL_BATCH_SIZE = 32
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
WARMUP = 0.2  # share of the steps
METHODS = ("SGD", "ExtrapSGD")


def steps_for(epochs: int, images: int, batch_size: int) -> int:
    """Return the number of steps that see each image ``epochs`` times."""
    return max(1, round(epochs * images / batch_size))


def scaled_lr(batch_size: int) -> float:
    """Return the linear scaling (Goyal et al. 2017) of 0.1 for 128 images (He et al. 2016).

    Other rules scale from 0.1 for 256 images. This one was preferred on validation data, with ``EPOCHS``, because the
    methods part there: its rate for the largest batch is too high for SGD. Tuning undoes that choice.
    """
    return 0.1 * batch_size / 128


def lr_factor(step: int, steps: int) -> float:
    """Share of the peak learning rate at ``step`` (from 0): linear warm-up, then a cosine to 0."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every param group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def make_optimizer(
    method: str, params: Iterable[nn.Parameter], lr: float, backend: str = "auto"
) -> torch.optim.Optimizer:
    """Return the optimizer named by ``method``, one of ``METHODS``, with Nesterov momentum.

    ExtrapSGD keeps its defaults: it extrapolates along the worker's past gradient with the outer learning rate. SGD is
    fused, the fastest that PyTorch has.
    """
    if method == "SGD":
        return torch.optim.SGD(params, lr, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True, fused=True)
    return ExtrapSGD(params, lr, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True, backend=backend)


@torch.no_grad()
def evaluate(model: nn.Module, parameters: Mapping[str, Tensor], split: Split) -> tuple[float, float]:
    """Return the accuracy in percent and the mean cross-entropy of ``model`` with ``parameters``."""
    logits = functional_call(model, dict(parameters), (split.images,))
    accuracy = (logits.argmax(dim=1) == split.labels).double().mean()
    return 100 * accuracy.item(), F.cross_entropy(logits, split.labels).item()
