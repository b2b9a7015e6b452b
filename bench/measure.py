"""Interleaved timing: every contender runs once in each round, so that a slow moment of the machine hits them all."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender: the median of its rounds, and their quartiles."""

    median: float
    lower: float
    upper: float


def synchronize() -> None:
    """Wait for what was launched on the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(run: Callable[[], object]) -> float:
    """Time one call, and what it launched."""
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, Timing]:
    """Time each contender ``rounds`` times, round by round, after ``warmup`` untimed rounds."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(warmup + rounds):
        for name, run in contenders.items():
            elapsed = seconds(run)
            if i >= warmup:
                samples[name].append(elapsed)
    return {name: _summary(values) for name, values in samples.items()}


def _summary(values: list[float]) -> Timing:
    lower, median, upper = statistics.quantiles(values, n=4)
    return Timing(median, lower, upper)


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Return the slope of a line through the logarithms: 1 where time grows in proportion to size."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(t) for t in times]).slope
