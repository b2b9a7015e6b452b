"""Interleaved timing: every contender runs once per round, so a slow moment of the machine hits all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

Name = TypeVar("Name")

# Some 10 ms, in which most steps are launched.
_CYCLES_OF_A_LAUNCH = 20_000_000


@dataclass(frozen=True)
class Timing:
    """Median and quartiles of the seconds of one contender."""

    median: float
    lower: float
    upper: float


def seconds(run: Callable[[], object], device: str = "cpu") -> float:
    """Time one call; on a GPU its kernels alone, if they are launched within 10 ms, with no buffer in the L2 cache."""
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
    _larger_than_caches(device).zero_()
    # While the GPU waits, the host launches the kernels that are timed.
    torch.cuda._sleep(_CYCLES_OF_A_LAUNCH)
    start.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1e3


def host_seconds(run: Callable[[], object], device: str) -> float:
    """Time one call until it returns, whatever it leaves to a GPU, which is idle before."""
    start = time.perf_counter()
    run()
    elapsed = time.perf_counter() - start
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return elapsed


def interleaved(
    contenders: Mapping[Name, Callable[[], object]],
    rounds: int,
    warmup: int = 2,
    clock: Callable[[Callable[[], object]], float] = seconds,
) -> dict[Name, Timing]:
    """Time each contender ``rounds`` times with ``clock``, round by round, after ``warmup`` untimed rounds."""
    samples: dict[Name, list[float]] = {name: [] for name in contenders}
    for i in range(warmup + rounds):
        for name, run in contenders.items():
            elapsed = clock(run)
            if i >= warmup:
                samples[name].append(elapsed)
    return {name: _summary(values) for name, values in samples.items()}


def _summary(values: list[float]) -> Timing:
    lower, median, upper = statistics.quantiles(values, n=4)
    return Timing(median, lower, upper)


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Return the slope in logarithmic axes: 1 if time grows in proportion to size."""
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(t) for t in times]).slope
