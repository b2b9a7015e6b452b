"""The tables of the benchmark: shapes, dtypes and baselines of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench import baselines, flatness, offload, twins, workloads
from bench.baselines import Baseline
from extrap_kernels import backends


class Case(NamedTuple):
    """One table; every row is compared with the first one."""

    title: str
    shapes: list[workloads.Shape]
    baselines: Callable[[Sequence[Tensor]], dict[str, Baseline]]
    rounds: int
    dtype: torch.dtype = torch.float32
    offset: int = 0
    threads: int = 0  # 0: as on the command line


def _fast_baselines(rule: str) -> Callable[[Sequence[Tensor]], dict[str, Baseline]]:
    def build(params: Sequence[Tensor]) -> dict[str, Baseline]:
        name = baselines.OURS[rule].__name__
        on_gpu = {}
        if params[0].is_cuda:
            on_gpu[f"{name}, graph replay"] = baselines.replayed(baselines.ours(rule, params))
            if backends.missing_reason("triton") is None:
                on_gpu[f"{name}, triton backend"] = baselines.ours(rule, params, backend="triton")
        return {
            name: baselines.ours(rule, params),
            **on_gpu,
            "x.add_(g)": baselines.add(params),
            "y.copy_(x)": baselines.copy(params),
            "torch, fused": baselines.torchs(rule, params, fused=True),
        }

    return build


def _compiled_baselines(rule: str) -> Callable[[Sequence[Tensor]], dict[str, Baseline]]:
    return lambda params: {
        **_fast_baselines(rule)(params),
        "twin, torch.compile": baselines.twin(rule, params, twins.compiled),
    }


def _main_baselines(rule: str) -> Callable[[Sequence[Tensor]], dict[str, Baseline]]:
    return lambda params: {
        **_compiled_baselines(rule)(params),
        "twin, foreach": baselines.twin(rule, params, twins.foreach),
        "torch, foreach": baselines.torchs(rule, params, foreach=True),
    }


def _every_baseline(rule: str) -> Callable[[Sequence[Tensor]], dict[str, Baseline]]:
    return lambda params: {
        **_main_baselines(rule)(params),
        "torch, for loop": baselines.torchs(rule, params, foreach=False),
        "twin, for loop": baselines.twin(rule, params, twins.for_loop),
        f"{baselines.OURS[rule].__name__}, reference backend": baselines.ours(rule, params, backend="reference"),
        **baselines.others(rule, params),
    }


def _two_baselines(rule: str) -> Callable[[Sequence[Tensor]], dict[str, Baseline]]:
    return lambda params: {
        baselines.OURS[rule].__name__: baselines.ours(rule, params),
        "torch, fused": baselines.torchs(rule, params, fused=True),
    }


def _variants(params: Sequence[Tensor]) -> dict[str, Baseline]:
    """Other extrapolations, noise, clipping and LARS against ExtrapSGD with the default options."""
    chosen: dict[str, dict[str, Any]] = {
        "ExtrapSGD": {},
        "past_update": {"extrapolation": "past_update"},
        "no extrapolation": {"extrapolation": None},
        "uniform noise": {"noise": "uniform"},
        "Gaussian noise": {"noise": "gaussian"},
        "Gaussian noise, scale of each filter": {"noise": "gaussian", "noise_scale": "filter"},
        "clipping by the norm": {"max_grad_norm": 1.0},
        "momentum in bfloat16": {"state_dtype": torch.bfloat16},
        "momentum in 8 bits": {"state_dtype": torch.uint8},
    }
    return {
        **{name: baselines.ours("sgd", params, **options) for name, options in chosen.items()},
        "ExtrapLARS": baselines.ours("lars", params),
    }


def _variants_adamw(params: Sequence[Tensor]) -> dict[str, Baseline]:
    return {
        "ExtrapAdamW": baselines.ours("adamw", params),
        "uniform noise": baselines.ours("adamw", params, noise="uniform"),
        "Gaussian noise": baselines.ours("adamw", params, noise="gaussian"),
        "clipping by the norm": baselines.ours("adamw", params, max_grad_norm=1.0),
        "moments in bfloat16": baselines.ours("adamw", params, state_dtype=torch.bfloat16),
        "moments in 8 bits": baselines.ours("adamw", params, state_dtype=torch.uint8),
        "ExtrapLAMB": baselines.ours("lamb", params),
    }


def cases(rounds: int, large: bool, device: torch.device) -> list[Case]:
    """Return all tables that make sense on ``device``.

    Args:
        rounds: timed rounds of the large cases; small ones get more.
        large: add a transformer of half a billion parameters, which needs 13 GB.
        device: where the tensors are.
    """
    gpt2, bf16 = workloads.gpt2(), torch.bfloat16
    chosen = [
        Case("SGD, GPT-2 124M, fp32", gpt2, _main_baselines("sgd"), rounds),
        Case("AdamW, GPT-2 124M, fp32", gpt2, _main_baselines("adamw"), rounds),
        Case("SGD, GPT-2 124M, bf16", gpt2, _compiled_baselines("sgd"), rounds, bf16),
        Case("AdamW, GPT-2 124M, bf16", gpt2, _compiled_baselines("adamw"), rounds, bf16),
        Case("Variants of SGD, GPT-2 124M, fp32", gpt2, _variants, rounds),
        Case("Variants of AdamW, GPT-2 124M, fp32", gpt2, _variants_adamw, rounds),
        Case("Variants of SGD, GPT-2 124M, bf16", gpt2, _variants, rounds, bf16),
        Case("Variants of AdamW, GPT-2 124M, bf16", gpt2, _variants_adamw, rounds, bf16),
        Case("MSAM and SAM over SGD, GPT-2 124M, fp32", gpt2, functools.partial(flatness.rows, "sgd"), rounds),
        Case("MSAM and SAM over AdamW, GPT-2 124M, fp32", gpt2, functools.partial(flatness.rows, "adamw"), rounds),
        Case("SGD, ResNet-50, fp32", workloads.resnet50(), _every_baseline("sgd"), 3 * rounds),
        Case("AdamW, ResNet-50, fp32", workloads.resnet50(), _every_baseline("adamw"), 3 * rounds),
        Case("SGD, 1 tensor of 100M, fp32", workloads.one_large(), _fast_baselines("sgd"), rounds),
        Case("SGD, 1,000 tensors of 64, fp32", workloads.many_small(), _two_baselines("sgd"), 10 * rounds),
        Case("SGD, odd sizes, unaligned views, fp32", workloads.odd(), _fast_baselines("sgd"), 3 * rounds, offset=1),
    ]
    if device.type == "cpu":
        chosen += [
            Case("SGD, GPT-2 124M, fp32, 1 thread", gpt2, _fast_baselines("sgd"), rounds, threads=1),
            Case("AdamW, GPT-2 124M, fp32, 1 thread", gpt2, _fast_baselines("adamw"), rounds, threads=1),
            Case("CPU offload, AdamW, GPT-2 124M, fp32", gpt2, offload.rows, rounds),
            Case("CPU offload, AdamW, GPT-2 124M, bf16", gpt2, offload.rows, rounds, bf16),
        ]
    if large:
        shapes = workloads.half_billion()
        chosen += [
            Case("SGD, transformer of 0.55B, bf16", shapes, _two_baselines("sgd"), rounds, bf16),
            Case("AdamW, transformer of 0.55B, bf16", shapes, _two_baselines("adamw"), rounds, bf16),
        ]
        if device.type == "cpu":
            chosen.append(Case("CPU offload, AdamW, 0.55B, bf16", shapes, offload.rows_of_large, rounds, bf16))
    return chosen
