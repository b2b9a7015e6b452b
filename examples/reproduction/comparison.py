"""What is compared: each method at the learning rate of the usual rule, and tuned with as many trials as the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from reproduction.methods import METHODS
from reproduction.results import Results
from reproduction.sweeps import SWEEPS
from reproduction.training import TUNING, Trial
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
        small_batch_methods: those of them that are compared at all batches of a workload but the largest.
        seeds: how many seeds; each gives all methods the same start and the same batches. Tuning has one of its own.
        lr_factors: learning rates that are tried, over the scaled one. A method's own option takes its values in turn,
            so that every method has as many trials.
        epochs: None (default): those of each workload.
        sweeps: names of :data:`reproduction.sweeps.SWEEPS`.
    """

    workloads: Sequence[str]
    methods: Sequence[str] = tuple(METHODS)
    small_batch_methods: Sequence[str] = (
        "plain",
        "past gradient, own",
        "past gradient",
        "MSAM",
        "Gaussian noise",
        "layer-wise rates",
    )
    seeds: int = 3
    lr_factors: Sequence[float] = LR_FACTORS
    epochs: Optional[float] = None
    sweeps: Sequence[str] = tuple(SWEEPS)

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
    """Return the methods at a batch size that differ from each other: a single worker's own gradient is the average."""
    several = batch_size >= 2 * WORKLOADS[workload].worker_batch
    small = batch_size < max(WORKLOADS[workload].batch_sizes)
    names = [name for name in settings.methods if not small or name in settings.small_batch_methods]
    return [name for name in names if several or not METHODS[name].own_gradients]


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
