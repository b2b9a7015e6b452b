"""The comparison: each batch size and method, at the scaled learning rate and at a tuned one, over several seeds."""

from __future__ import annotations

import functools
import math
import multiprocessing
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Optional

import digits
import recipe
import torch
from resnet import ResNet
from rich.progress import Progress
from simulated_workers import SimulatedWorkers

REGIMES = ("scaled", "tuned")


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        batch_sizes: global batch sizes.
        workers: K; None means one for every ``recipe.LOCAL_BATCH_SIZE`` images of the batch.
        epochs: how often each image is seen, at every batch size.
        seeds: how many seeds (0, 1, ...); a seed gives both methods the same start and the same batches.
        lr_grid: learning rates that tuning tries for each batch size and method, besides the scaled one.
        backend: backend of ExtrapSGD.
    """

    batch_sizes: Sequence[int]
    workers: Optional[int]
    epochs: int
    seeds: int
    lr_grid: Sequence[float]
    backend: str = "auto"

    def workers_for(self, batch_size: int) -> int:
        """Return K for a global batch size."""
        return self.workers or batch_size // recipe.LOCAL_BATCH_SIZE

    def lrs_for(self, batch_size: int) -> list[float]:
        """Return the learning rates that tuning tries for a global batch size."""
        return sorted({recipe.scaled_lr(batch_size), *self.lr_grid})


class Job(NamedTuple):
    """One training."""

    method: str
    batch_size: int
    lr: float
    seed: int


@dataclass(frozen=True)
class Run:
    """The result of one training; accuracies in percent, times in seconds."""

    test_accuracy: float
    validation_accuracy: float
    validation_loss: float
    steps: int
    step_seconds: float
    optimizer_seconds: float

    @property
    def ranking_loss(self) -> float:
        """Validation loss, infinite after a divergence."""
        return math.inf if math.isnan(self.validation_loss) else self.validation_loss


@dataclass(frozen=True)
class Result:
    """The runs of one batch size, method and regime, by seed."""

    batch_size: int
    workers: int
    method: str
    regime: str
    lr: float
    runs: Sequence[Run]

    @property
    def test_accuracy(self) -> list[float]:
        """Test accuracy by seed."""
        return [run.test_accuracy for run in self.runs]


def train(job: Job, workers: int, epochs: int, backend: str) -> Run:
    """Train once and evaluate the base iterate."""
    data = digits.load()
    torch.manual_seed(job.seed)
    model = ResNet()
    simulated = SimulatedWorkers(
        model, workers, lambda params: recipe.make_optimizer(job.method, params, job.lr, backend)
    )
    steps = recipe.steps_for(epochs, len(data.train.labels), job.batch_size)
    step_seconds = []
    for step, batch in enumerate(digits.batches(data.train, job.batch_size, steps, job.seed)):
        start = time.perf_counter()
        for optimizer in simulated.optimizers:
            recipe.set_lr(optimizer, job.lr * recipe.lr_factor(step, steps))
        simulated.step(batch.images, batch.labels)
        step_seconds.append(time.perf_counter() - start)
    base = simulated.base()
    return Run(
        recipe.evaluate(model, base, data.test)[0],
        *recipe.evaluate(model, base, data.validation),
        steps=steps,
        # Medians: the first step of a run allocates, and other programs may use the machine.
        step_seconds=statistics.median(step_seconds),
        optimizer_seconds=statistics.median(simulated.optimizer_seconds),
    )


def compare(settings: Settings, cores: int, progress: Progress) -> list[Result]:
    """Return a result for each regime, batch size and method.

    The tuned learning rate is the one with the lowest validation loss for the first seed: the loss, since accuracy
    on 270 images is too coarse to rank learning rates by.

    Args:
        settings: what to compare.
        cores: how many trainings to carry out at a time, each on one thread: the tensors are too small for more.
        progress: shows what is done.
    """
    cells = [(method, batch_size) for batch_size in settings.batch_sizes for method in recipe.METHODS]

    def over_seeds(method: str, batch_size: int, lr: float) -> list[Job]:
        return [Job(method, batch_size, lr, seed) for seed in range(settings.seeds)]

    scaled = [over_seeds(*cell, recipe.scaled_lr(cell[1])) for cell in cells]
    trials = [[Job(*cell, lr, seed=0) for lr in settings.lrs_for(cell[1])] for cell in cells]
    # Spawned, since a fork would inherit the locks of PyTorch's threads.
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        run_all = functools.partial(_run_all, pool, settings, progress)
        runs = run_all("scaled lr, and tuning", chain(*scaled, *trials))
        tuned = [over_seeds(*min(jobs, key=lambda job: runs[job].ranking_loss)[:3]) for jobs in trials]
        runs.update(run_all("tuned lr", (job for job in chain(*tuned) if job not in runs)))
    return [
        Result(
            jobs[0].batch_size,
            settings.workers_for(jobs[0].batch_size),
            jobs[0].method,
            regime,
            jobs[0].lr,
            [runs[job] for job in jobs],
        )
        for regime, of_cells in zip(REGIMES, (scaled, tuned))
        for jobs in of_cells
    ]


def _run_all(
    pool: ProcessPoolExecutor, settings: Settings, progress: Progress, what: str, jobs: Iterable[Job]
) -> dict[Job, Run]:
    futures = {
        pool.submit(train, job, settings.workers_for(job.batch_size), settings.epochs, settings.backend): job
        for job in dict.fromkeys(jobs)
    }
    try:
        done = progress.track(as_completed(futures), total=len(futures), description=what)
        return {futures[future]: future.result() for future in done}
    except BaseException:
        pool.shutdown(cancel_futures=True)  # what is queued would hold up the error, or Ctrl-C
        raise
