"""What is compared: each method at the learning rate of the usual rule, and tuned with as many trials as the others."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import torch
from rich.progress import Progress

from reproduction.methods import METHODS
from reproduction.results import Results
from reproduction.training import TUNING, Trial, train
from reproduction.workloads import WORKLOADS

# Of the scaled learning rate.
LR_FACTORS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
REGIMES = ("tuned", "scaled")


@dataclass(frozen=True)
class Settings:
    """How much is compared.

    Attributes:
        workloads: names of workloads.
        methods: names of methods.
        seeds: how many seeds; each gives all methods the same start and the same batches. Tuning has one of its own.
        lr_factors: learning rates that are tried, over the scaled one. A method's own option takes its values in turn,
            so that every method has as many trials.
        epochs: None (default): those of each workload.
    """

    workloads: Sequence[str]
    methods: Sequence[str] = tuple(METHODS)
    seeds: int = 3
    lr_factors: Sequence[float] = LR_FACTORS
    epochs: Optional[float] = None

    def scaled(self, workload: str, method: str, batch_size: int, seed: int) -> Trial:
        """Return a training at the learning rate of the usual rule, with the first value of the method's option."""
        return self._trial(workload, method, batch_size, 1.0, 0, seed)

    def trials(self, workload: str, method: str, batch_size: int) -> list[Trial]:
        """Return what the method is tuned by."""
        return [
            self._trial(workload, method, batch_size, factor, i, TUNING) for i, factor in enumerate(self.lr_factors)
        ]

    def _trial(self, workload: str, method: str, batch_size: int, factor: float, turn: int, seed: int) -> Trial:
        chosen = METHODS[method]
        lr = WORKLOADS[workload].scaled_lr(batch_size) * chosen.lr_factor * factor
        value = chosen.values[turn % len(chosen.values)] if chosen.values else None
        return Trial(workload, method, batch_size, lr, value, seed, self.epochs)


def compared_methods(settings: Settings, workload: str, batch_size: int) -> list[str]:
    """Return the methods that differ from each other at a batch size: a single worker's own gradient is the average."""
    several = batch_size >= 2 * WORKLOADS[workload].worker_batch
    return [name for name in settings.methods if several or not METHODS[name].own_gradients]


def best(trials: Sequence[Trial], results: Results) -> Optional[Trial]:
    """Return the trial of the lowest validation loss; None if one is yet to be run."""
    if not all(trial in results for trial in trials):
        return None

    def loss(trial: Trial) -> float:
        found = results[trial]["validation_loss"]
        return math.inf if found is None else float(found)

    return min(trials, key=loss)


def of_seeds(
    settings: Settings, results: Results, workload: str, method: str, batch_size: int, regime: str
) -> Optional[list[Trial]]:
    """Return the trainings that a table compares, one for each seed; None while the method is not tuned."""
    seeds = range(1, settings.seeds + 1)
    if regime == "scaled":
        return [settings.scaled(workload, method, batch_size, seed) for seed in seeds]
    chosen = best(settings.trials(workload, method, batch_size), results)
    if chosen is None:
        return None
    return [Trial(workload, method, batch_size, chosen.lr, chosen.value, seed, settings.epochs) for seed in seeds]


def run(settings: Settings, folder: Path, results: Results, cores: int, progress: Progress) -> None:
    """Train all that is not in ``results`` yet: large batches first, and tables one after the other.

    Args:
        settings: what is compared.
        folder: with the data.
        results: gets every outcome when it is known.
        cores: how many trainings to carry out at a time, each on one thread.
        progress: shows what is done.
    """
    # Spawned, since a fork would inherit the locks of PyTorch's threads.
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for workload, batch_size in _in_order(settings.workloads):
            methods = compared_methods(settings, workload, batch_size)
            cell = f"{workload}, batch {batch_size}"
            tuning = [trial for name in methods for trial in settings.trials(workload, name, batch_size)]
            _run_all(pool, tuning, folder, results, progress, f"{cell}: tuning")
            for regime in REGIMES:
                trials = [
                    trial
                    for name in methods
                    for trial in of_seeds(settings, results, workload, name, batch_size, regime) or ()
                ]
                _run_all(pool, trials, folder, results, progress, f"{cell}: {regime}")


def _in_order(workloads: Sequence[str]) -> Iterable[tuple[str, int]]:
    for turn in range(max(len(WORKLOADS[name].batch_sizes) for name in workloads)):
        for name in workloads:
            sizes = sorted(WORKLOADS[name].batch_sizes, reverse=True)
            if turn < len(sizes):
                yield name, sizes[turn]


def _run_all(
    pool: ProcessPoolExecutor, trials: Iterable[Trial], folder: Path, results: Results, progress: Progress, what: str
) -> None:
    left = [trial for trial in dict.fromkeys(trials) if trial not in results]
    futures = {pool.submit(train, trial, folder): trial for trial in left}
    try:
        for future in progress.track(as_completed(futures), total=len(futures), description=what):
            results.add(futures[future], future.result())
    except BaseException:
        pool.shutdown(cancel_futures=True)  # what is queued would hold up the error, or Ctrl-C
        raise
