"""Ratios to baselines of the same run, for pytest-benchmark: ``python -m pytest bench --benchmark-autosave``.

A later run adds ``--benchmark-compare`` and, to fail if a ratio grew, ``--benchmark-compare-fail=median:10%``. The
"seconds" of the tables are our time divided by the baseline's in the same round. Unlike times, these ratios can be
compared across commits and, with care, across machines.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import baselines, twins, workloads
from bench.measure import seconds

Maker = Callable[[Sequence[Tensor]], baselines.Baseline]


class RatioClock:
    """A clock that counts ratios instead of time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = RatioClock()
GPT2, RESNET, SMALL = workloads.gpt2(), workloads.resnet50(), workloads.many_small()
ours_sgd, ours_adamw = (functools.partial(baselines.ours, rule) for rule in ("sgd", "adamw"))


def of_torch(rule: str, **options: Any) -> Maker:
    return functools.partial(baselines.torchs, rule, **options)


def of_twin(rule: str, build: Callable[[str, Sequence[Tensor]], twins.Step]) -> Maker:
    return lambda params: baselines.twin(rule, params, build)


# Ours, the baseline, shapes, dtype.
RATIOS: dict[str, tuple[Maker, Maker, list[workloads.Shape], torch.dtype]] = {
    "sgd to add, gpt2": (ours_sgd, baselines.add, GPT2, torch.float32),
    "sgd to add, gpt2, bf16": (ours_sgd, baselines.add, GPT2, torch.bfloat16),
    "sgd to fused, gpt2": (ours_sgd, of_torch("sgd", fused=True), GPT2, torch.float32),
    "sgd to fused, resnet50": (ours_sgd, of_torch("sgd", fused=True), RESNET, torch.float32),
    "sgd to fused, 1000 x 64": (ours_sgd, of_torch("sgd", fused=True), SMALL, torch.float32),
    "sgd to compiled twin, resnet50": (ours_sgd, of_twin("sgd", twins.compiled), RESNET, torch.float32),
    "sgd to foreach twin, resnet50": (ours_sgd, of_twin("sgd", twins.foreach), RESNET, torch.float32),
    "adamw to add, gpt2": (ours_adamw, baselines.add, GPT2, torch.float32),
    "adamw to fused, gpt2": (ours_adamw, of_torch("adamw", fused=True), GPT2, torch.float32),
    "adamw to fused, 1000 x 64": (ours_adamw, of_torch("adamw", fused=True), SMALL, torch.float32),
    "adamw to compiled twin, resnet50": (ours_adamw, of_twin("adamw", twins.compiled), RESNET, torch.float32),
    "uniform to no noise, gpt2": (functools.partial(ours_sgd, noise="uniform"), ours_sgd, GPT2, torch.float32),
    "Gaussian to no noise, gpt2": (functools.partial(ours_sgd, noise="gaussian"), ours_sgd, GPT2, torch.float32),
}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("case", RATIOS)
def test_ratio(benchmark: Any, case: str) -> None:
    make_ours, make_baseline, shapes, dtype = RATIOS[case]
    params = workloads.parameters(shapes, dtype)
    ours, baseline = make_ours(params), make_baseline(params)

    def one_round() -> None:
        CLOCK.now += seconds(ours.run) / seconds(baseline.run)

    benchmark.pedantic(one_round, rounds=150 if shapes is SMALL else 15, warmup_rounds=3)
