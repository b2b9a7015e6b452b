"""One training, of one worker or of several that are simulated one after the other."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import torch

from reproduction import splits
from reproduction.curvature import sharpness
from reproduction.methods import METHODS
from reproduction.models import Network
from reproduction.splits import Split
from reproduction.workloads import WORKLOADS, data

TUNING = 0  # the seed of tuning, which is in no comparison
_WARMUP = 0.1  # share of the steps
_POINTS = 8  # of a learning curve
_TOGETHER = 64  # examples in one forward pass: what fits the caches
_MEASURED = 256  # examples for the sharpness


@dataclass(frozen=True)
class Trial:
    """What is trained; its fields are the key of the result.

    Attributes:
        value: of the option that the method tunes; None where it has none.
        epochs: None means those of the workload.
        workers: how many have a gradient of their own; None means as many as the workload gives the batch.
        blocks: of the network; None means those that it has without being asked.
    """

    workload: str
    method: str
    batch_size: int
    lr: float
    value: Optional[float]
    seed: int
    epochs: Optional[float] = None
    workers: Optional[int] = None
    blocks: Optional[int] = None


@dataclass(frozen=True)
class Outcome:
    """What came out. Losses are None where they were not finite: the training had diverged.

    Attributes:
        validation_loss, test_loss: mean cross-entropies of ``x`` at the end.
        accuracy: of classes or words of the test split, in percent.
        curve: steps taken and validation loss of ``x``, of the first worker where each has one.
        steps_to_target: steps of the first point of the curve with the target loss; None if there is none.
        sharpness: see :func:`reproduction.curvature.sharpness`, at the final ``x``, on 256 training examples;
            None in tuning.
        distance: Euclidean distance from ``x`` to the last ``y`` of the first worker, over the norm of ``x``; the mean
            over the points of the curve but the last, where the learning rate is 0.
        seconds: of the whole training.
    """

    validation_loss: Optional[float]
    test_loss: Optional[float]
    accuracy: Optional[float]
    curve: list[tuple[int, Optional[float]]]
    steps: int
    steps_to_target: Optional[int]
    sharpness: Optional[float]
    distance: Optional[float]
    seconds: float


class Workers:
    """Models that step as data-parallel workers would: each one's gradient is taken at its own point.

    Args:
        trial: whose method and numbers are used.
        model: where all of them start.
        count: how many.

    Attributes:
        alone: whether each steps along its own gradient, and has an ``x`` of its own.
    """

    def __init__(self, trial: Trial, model: Network, count: int) -> None:
        workload = WORKLOADS[trial.workload]
        self.method, self.lr, self.alone = METHODS[trial.method], trial.lr, False
        self.models = [model, *(copy.deepcopy(model) for _ in range(count - 1))]
        self.optimizers: list[Any] = []
        for rank, each in enumerate(self.models):
            optimizer = self.method.optimizer(
                workload.rule,
                each.parameters(),
                trial.lr,
                trial.value,
                seed=trial.seed,
                max_grad_norm=workload.max_grad_norm,
            )
            optimizer.rank = rank
            self.optimizers.append(optimizer)

    def step(self, batch: Split, lr_factor: float) -> None:
        """Train on one batch, of which every worker has an equal share."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr_factor * self.lr
        shares = list(zip(*(column.chunk(len(self.models)) for column in batch)))
        if self.method.gradients == 2:
            self._take_gradients(shares)
            for optimizer in self.optimizers:
                optimizer.extrapolate()
        self._take_gradients(shares)
        for optimizer in self.optimizers:
            optimizer.step()

    def separate(self) -> None:
        """Let each worker step alone from now on, without extrapolation."""
        self.alone = True
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["extrapolation"] = None

    @torch.no_grad()
    def average(self) -> None:
        """Replace every worker's ``x`` by the mean."""
        for params in zip(*(model.parameters() for model in self.models)):
            pairs = list(zip(params, self.optimizers))
            mean = torch.stack([optimizer.base_of(param) for param, optimizer in pairs]).mean(dim=0)
            for param, optimizer in pairs:
                optimizer.set_base(param, mean)

    def _take_gradients(self, shares: list[Split]) -> None:
        """Leave the mean of all workers' gradients in each, and beside it the worker's own one; or that one alone."""
        for model, share in zip(self.models, shares):
            model.zero_grad()
            count = model.count(*share)
            for part in splits.parts(share, _TOGETHER):
                (model.loss(*part) / count).backward()
        if len(self.models) == 1 or self.alone:
            return
        for params in zip(*(model.parameters() for model in self.models)):
            mean = torch.stack([param.grad for param in params]).mean(dim=0)
            for param, optimizer in zip(params, self.optimizers):
                optimizer.local_gradients[param] = param.grad
                param.grad = mean.clone()


def lr_factor(step: int, steps: int) -> float:
    """Return the share of the peak learning rate at ``step`` (from 0): linear warm-up, then a cosine to 0."""
    warmup = max(1, round(_WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step + 1 - warmup) / max(1, steps - warmup)))


def train(trial: Trial, folder: Path) -> dict[str, Any]:
    """Train once; return the fields of the :class:`Outcome`.

    Args:
        trial: what to train.
        folder: with the data.
    """
    start = time.perf_counter()
    workload, method = WORKLOADS[trial.workload], METHODS[trial.method]
    dataset, sizes = data(trial.workload, folder)
    torch.manual_seed(trial.seed)
    count = trial.workers or max(1, trial.batch_size // workload.worker_batch)
    network = workload.network(*sizes, **({} if trial.blocks is None else {"blocks": trial.blocks}))
    workers = Workers(trial, network, count if method.own_gradients else 1)
    model, optimizer = workers.models[0], workers.optimizers[0]
    epochs = workload.epochs if trial.epochs is None else trial.epochs
    steps = max(1, round(epochs * splits.size(dataset.train) / trial.batch_size))
    ends = {round(steps * (i + 1) / _POINTS) for i in range(_POINTS)}
    curve: list[tuple[int, Optional[float]]] = []
    distances = []
    for step, batch in enumerate(splits.batches(dataset.train, trial.batch_size, steps, trial.seed), 1):
        after = step - steps // 2
        if method.period and after == 1:
            workers.separate()
        workers.step(batch, lr_factor(step - 1, steps))
        if method.period and after > 0 and (after % method.period == 0 or step == steps):
            workers.average()
        if step not in ends:
            continue
        ahead = torch.cat([param.detach().flatten() for param in model.parameters()])
        with optimizer.base_parameters():
            curve.append((step, _finite(mean_loss(model, dataset.validation))))
            base = torch.cat([param.detach().flatten() for param in model.parameters()])
        distances.append(float((ahead - base).norm() / base.norm()))
        if curve[-1][1] is None:
            break
    optimizer.eval()
    diverged = curve[-1][1] is None
    measured = splits.take(dataset.train, slice(_MEASURED))
    reached = [at for at, loss in curve if loss is not None and loss <= workload.target]
    return asdict(
        Outcome(
            validation_loss=curve[-1][1],
            test_loss=None if diverged else mean_loss(model, dataset.test),
            accuracy=None if diverged else accuracy(model, dataset.test),
            curve=curve,
            steps=steps,
            steps_to_target=min(reached, default=None),
            sharpness=None if diverged or trial.seed == TUNING else _finite(sharpness(model, measured)),
            distance=None if diverged else _finite(sum(distances[:-1]) / max(1, len(distances) - 1)),
            seconds=round(time.perf_counter() - start, 2),
        )
    )


@torch.no_grad()
def mean_loss(model: Network, split: Split) -> float:
    """Return the mean loss of all predictions."""
    loss = sum(float(model.loss(*part)) for part in splits.parts(split, _TOGETHER))
    return loss / model.count(*split)


@torch.no_grad()
def accuracy(model: Network, split: Split) -> float:
    """Return the percentage of classes, or of words, that are the likeliest ones."""
    hits = sum(model.hits(*part) for part in splits.parts(split, _TOGETHER))
    return 100 * hits / model.count(*split)


def _finite(number: float) -> Optional[float]:
    return number if math.isfinite(number) else None
