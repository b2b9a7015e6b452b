"""What is compared with what: the peers of each table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench import peers, twins, workloads
from bench.peers import Peer


class Case(NamedTuple):
    """One table; the first peer is what the others are compared with."""

    title: str
    shapes: list[workloads.Shape]
    peers: Callable[[Sequence[Tensor]], dict[str, Peer]]
    rounds: int
    dtype: torch.dtype = torch.float32
    offset: int = 0
    threads: int = 0  # 0: those of the command line


def _fast_peers(rule: str) -> Callable[[Sequence[Tensor]], dict[str, Peer]]:
    def build(params: Sequence[Tensor]) -> dict[str, Peer]:
        name = peers.OURS[rule].__name__
        return {
            name: peers.ours(rule, params),
            **({f"{name}, graph replay": peers.replayed(peers.ours(rule, params))} if params[0].is_cuda else {}),
            "x.add_(g)": peers.add(params),
            "y.copy_(x)": peers.copy(params),
            "torch, fused": peers.torchs(rule, params, fused=True),
        }

    return build


def _compiled_peers(rule: str) -> Callable[[Sequence[Tensor]], dict[str, Peer]]:
    return lambda params: {
        **_fast_peers(rule)(params),
        "twin, torch.compile": peers.twin(rule, params, twins.compiled),
    }


def _main_peers(rule: str) -> Callable[[Sequence[Tensor]], dict[str, Peer]]:
    return lambda params: {
        **_compiled_peers(rule)(params),
        "twin, foreach": peers.twin(rule, params, twins.foreach),
        "torch, foreach": peers.torchs(rule, params, foreach=True),
    }


def _every_peer(rule: str) -> Callable[[Sequence[Tensor]], dict[str, Peer]]:
    return lambda params: {
        **_main_peers(rule)(params),
        "torch, for loop": peers.torchs(rule, params, foreach=False),
        "twin, for loop": peers.twin(rule, params, twins.for_loop),
        f"{peers.OURS[rule].__name__}, reference backend": peers.ours(rule, params, backend="reference"),
        **peers.others(rule, params),
    }


def _two_peers(rule: str) -> Callable[[Sequence[Tensor]], dict[str, Peer]]:
    return lambda params: {
        peers.OURS[rule].__name__: peers.ours(rule, params),
        "torch, fused": peers.torchs(rule, params, fused=True),
    }


def _variants(params: Sequence[Tensor]) -> dict[str, Peer]:
    """Rules, extrapolations and noises against plain SGD of the same package."""
    chosen: dict[str, dict[str, Any]] = {
        "ExtrapSGD": {},
        "past_update": {"extrapolation": "past_update"},
        "no extrapolation": {"extrapolation": None},
        "uniform noise": {"noise": "uniform"},
        "Gaussian noise": {"noise": "gaussian"},
        "Gaussian noise, scale of each filter": {"noise": "gaussian", "noise_scale": "filter"},
        "clipping by the norm": {"max_grad_norm": 1.0},
    }
    return {
        **{name: peers.ours("sgd", params, **options) for name, options in chosen.items()},
        "ExtrapLARS": peers.ours("lars", params),
    }


def _variants_adamw(params: Sequence[Tensor]) -> dict[str, Peer]:
    return {
        "ExtrapAdamW": peers.ours("adamw", params),
        "uniform noise": peers.ours("adamw", params, noise="uniform"),
        "Gaussian noise": peers.ours("adamw", params, noise="gaussian"),
        "clipping by the norm": peers.ours("adamw", params, max_grad_norm=1.0),
        "ExtrapLAMB": peers.ours("lamb", params),
    }


def cases(rounds: int, large: bool) -> list[Case]:
    """Return all tables.

    Args:
        rounds: timed rounds of those that take long.
        large: with a transformer of half a billion parameters, which needs 11 GB.
    """
    gpt2, bf16 = workloads.gpt2(), torch.bfloat16
    chosen = [
        Case("SGD, GPT-2 124M, fp32", gpt2, _main_peers("sgd"), rounds),
        Case("AdamW, GPT-2 124M, fp32", gpt2, _main_peers("adamw"), rounds),
        Case("SGD, GPT-2 124M, bf16", gpt2, _compiled_peers("sgd"), rounds, bf16),
        Case("AdamW, GPT-2 124M, bf16", gpt2, _compiled_peers("adamw"), rounds, bf16),
        Case("Variants of SGD, GPT-2 124M, fp32", gpt2, _variants, rounds),
        Case("Variants of AdamW, GPT-2 124M, fp32", gpt2, _variants_adamw, rounds),
        Case("SGD, ResNet-50, fp32", workloads.resnet50(), _every_peer("sgd"), 3 * rounds),
        Case("AdamW, ResNet-50, fp32", workloads.resnet50(), _every_peer("adamw"), 3 * rounds),
        Case("SGD, 1 tensor of 100M, fp32", workloads.one_large(), _fast_peers("sgd"), rounds),
        Case("SGD, 1,000 tensors of 64, fp32", workloads.many_small(), _two_peers("sgd"), 10 * rounds),
        Case("SGD, odd sizes, unaligned views, fp32", workloads.odd(), _fast_peers("sgd"), 3 * rounds, offset=1),
        Case("SGD, GPT-2 124M, fp32, 1 thread", gpt2, _fast_peers("sgd"), rounds, threads=1),
        Case("AdamW, GPT-2 124M, fp32, 1 thread", gpt2, _fast_peers("adamw"), rounds, threads=1),
    ]
    if large:
        shapes = workloads.half_billion()
        chosen += [
            Case("SGD, transformer of 0.55B, bf16", shapes, _two_peers("sgd"), rounds, bf16),
            Case("AdamW, transformer of 0.55B, bf16", shapes, _two_peers("adamw"), rounds, bf16),
        ]
    return chosen
