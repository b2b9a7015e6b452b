"""Interleaved timing: every contender runs once in each round, so that a slow moment of the machine hits them all."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender: the median of its rounds, and their quartiles."""

    median: float
    lower: float
    upper: float


def seconds(run: Callable[[], object], device: str = "cpu") -> float:
    """Time one call, and what it launched; on a GPU by events, with caches that hold nothing of its buffers."""
    if torch.device(device).type == "cuda":
        return _seconds_on_gpu(run, device)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@lru_cache
def _larger_than_caches(device: str) -> Tensor:
    return torch.empty(1 << 28, dtype=torch.uint8, device=device)


def _seconds_on_gpu(run: Callable[[], object], device: str) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # While it is written, the host launches what is timed.
    _larger_than_caches(device).zero_()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1e3


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2, device: str = "cpu"
) -> dict[str, Timing]:
    """Time each contender ``rounds`` times, round by round, after ``warmup`` untimed rounds."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(warmup + rounds):
        for name, run in contenders.items():
            elapsed = seconds(run, device)
            if i >= warmup:
                samples[name].append(elapsed)
    return {name: _summary(values) for name, values in samples.items()}


def _summary(values: list[float]) -> Timing:
    lower, median, upper = statistics.quantiles(values, n=4)
    return Timing(median, lower, upper)


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Return the slope of a line through the logarithms: 1 where time grows in proportion to size."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(t) for t in times]).slope
