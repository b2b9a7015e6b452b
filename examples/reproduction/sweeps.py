"""Where extrapolation begins to matter: one number of a workload varies, at the learning rate of the usual rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reproduction.methods import METHODS
from reproduction.training import Trial
from reproduction.workloads import WORKLOADS

if TYPE_CHECKING:
    from reproduction.comparison import Settings  # which has the names of sweeps

_PAST = ("plain", "past gradient, own", "past gradient")


@dataclass(frozen=True)
class Sweep:
    """What varies, while all else is as in the tables of the largest batch.

    Attributes:
        varied: the field of :class:`reproduction.training.Trial`.
        values: of the field.
        standard: the one of the tables; None where ``scaled_lr`` gives each value a learning rate of its own.
        methods: which are compared with each other.
    """

    varied: str
    values: Sequence[float]
    standard: float | None
    methods: Sequence[str] = _PAST


SWEEPS = {
    "batch size": Sweep("batch_size", (256, 512, 1024, 2048, 4096), None),
    "workers": Sweep("workers", (2, 4, 8, 16, 32), 16),
    "residual blocks": Sweep("blocks", (1, 2, 4), 2),
    "noise_std": Sweep("value", (0.0125, 0.05, 0.2, 0.8), 0.05, ("plain", "Gaussian noise")),
}


def workloads(settings: Settings) -> list[str]:
    """Return those whose numbers are varied."""
    return [name for name in settings.workloads if WORKLOADS[name].swept]


def compared(settings: Settings, sweep: str) -> list[str]:
    """Return the methods of a sweep."""
    return [name for name in SWEEPS[sweep].methods if name in settings.methods]


def of_seeds(settings: Settings, workload: str, sweep: str, value: float, method: str) -> list[Trial]:
    """Return the trainings of one method at one value, one for each seed.

    They are those of the tables where the value is, so that what is there is not trained again.
    """
    chosen = SWEEPS[sweep]
    seeds = range(1, settings.seeds + 1)
    if chosen.varied == "batch_size":
        return [settings.scaled(workload, method, int(value), seed) for seed in seeds]
    standard = [settings.scaled(workload, method, max(WORKLOADS[workload].batch_sizes), seed) for seed in seeds]
    # The plain optimizer has no noise, and an average is the same for any number of workers.
    concerned = {"workers": METHODS[method].own_gradients, "value": METHODS[method].tuned is not None, "blocks": True}
    if value == chosen.standard or not concerned[chosen.varied]:
        return standard
    changed: dict[str, Any] = {chosen.varied: value}
    return [replace(trial, **changed) for trial in standard]


def trials(settings: Settings, workload: str, sweep: str) -> list[Trial]:
    """Return all trainings of a sweep."""
    return [
        trial
        for value in SWEEPS[sweep].values
        for method in compared(settings, sweep)
        for trial in of_seeds(settings, workload, sweep, value, method)
    ]
