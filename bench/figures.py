"""Figures of one optimizer: host overhead, growth with parameters, memory, and the cost of the first step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch._inductor import config as inductor
from torch.profiler import ProfilerActivity, profile

from bench import peers, twins, workloads
from bench.measure import exponent, interleaved, seconds
from extrap_kernels import _C

Row = dict[str, Any]


def host_overhead(rounds: int) -> list[Row]:
    """Microseconds of a step of tensors of 64 numbers, by their number, and of each of them."""
    rows = []
    for tensors in (1, 10, 100, 1000, 5000, 20000):
        params = workloads.parameters(workloads.many_small(tensors))
        contenders = {
            "ExtrapSGD": peers.ours("sgd", params),
            "torch SGD, fused": peers.torchs("sgd", params, fused=True),
            "ExtrapAdamW": peers.ours("adamw", params),
            "torch AdamW, fused": peers.torchs("adamw", params, fused=True),
        }
        timings = interleaved(
            {name: peer.run for name, peer in contenders.items()}, max(3 * rounds, 20000 // tensors), warmup=3
        )
        us = {name: timing.median * 1e6 for name, timing in timings.items()}
        rows.append(
            {
                "tensors": tensors,
                **{f"{name}, µs": value for name, value in us.items()},
                "ExtrapSGD, µs a tensor": us["ExtrapSGD"] / tensors,
                "SGD, theirs / ours": us["torch SGD, fused"] / us["ExtrapSGD"],
                "AdamW, theirs / ours": us["torch AdamW, fused"] / us["ExtrapAdamW"],
            }
        )
    return rows


def growth(rounds: int, large: bool) -> tuple[list[Row], float]:
    """Milliseconds of a step of ExtrapSGD on one bfloat16 tensor, by its size; and the exponent of that growth.

    Args:
        rounds: timed rounds of each size.
        large: up to a billion parameters, which needs 12 GB.
    """
    sizes = [1_000_000, 4_000_000, 16_000_000, 64_000_000, 256_000_000, *([1_000_000_000] if large else [])]
    rows = []
    for numel in sizes:
        params = workloads.parameters([(numel,)], torch.bfloat16)
        peer = peers.ours("sgd", params)
        median = interleaved({"ours": peer.run}, rounds)["ours"].median
        rows.append({"parameters": numel, "ms": median * 1e3, "GB/s": peer.bytes * numel / median / 1e9})
    # From where the tensors no longer fit the caches.
    beyond = [row for row in rows if row["parameters"] >= 16_000_000]
    return rows, exponent([row["parameters"] for row in beyond], [row["ms"] for row in beyond])


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = {
        id(value): value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    }
    return sum(tensor.nbytes for tensor in tensors.values())


def _peak_of(run: Callable[[], object]) -> int:
    """Return the most that torch's CPU allocator has handed out, and not yet got back, at once during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def memory() -> list[Row]:
    """State, and what a step takes on top of it for a while, in bytes a parameter."""
    shapes = workloads.resnet50()
    numel = workloads.numel_of(shapes)
    rows = []
    for rule in peers.TORCH:
        for dtype in (torch.float32, torch.bfloat16):
            for maker, options in ((peers.OURS, {}), (peers.TORCH, {"fused": True}), (peers.TORCH, {"foreach": True})):
                optimizer = maker[rule](workloads.parameters(shapes, dtype), **peers.OPTIONS[rule], **options)
                for _ in range(2):
                    optimizer.step()
                rows.append(
                    {
                        "optimizer": " ".join([maker[rule].__name__, *options]),
                        "parameters": str(dtype).removeprefix("torch."),
                        "state": round(_state_bytes(optimizer) / numel, 3),
                        "peak of a step": round(_peak_of(optimizer.step) / numel, 3),
                    }
                )
    return rows


def instruction_sets(rounds: int) -> list[Row]:
    """Milliseconds of a step on GPT-2 124M with vectors of each width: equal where memory is what limits it."""
    shapes = workloads.gpt2()
    params = workloads.parameters(shapes)
    numel, before, threads = workloads.numel_of(shapes), _C.instruction_set(), torch.get_num_threads()
    rows = []
    for rule in peers.TORCH:
        peer = peers.ours(rule, params)
        timings = interleaved(
            {
                f"{name}, {count} threads": functools.partial(_step_with, peer.run, name, count)
                for name in _C.instruction_sets()
                for count in sorted({1, threads})
            },
            rounds,
        )
        for name, timing in timings.items():
            rate = peer.bytes * numel / timing.median / 1e9
            rows.append({"rule": rule, "instruction set": name, "ms": timing.median * 1e3, "GB/s": rate})
    _C.select_instruction_set(before)
    torch.set_num_threads(threads)
    return rows


def _step_with(run: Callable[[], object], instruction_set: str, threads: int) -> None:
    _C.select_instruction_set(instruction_set)
    torch.set_num_threads(threads)
    run()


def first_step() -> list[Row]:
    """Milliseconds of the first step, in which state is made and plans or kernels are, and of the third."""
    torch.compiler.reset()
    makers: dict[str, Callable[[Any], Callable[[], object]]] = {
        "ExtrapSGD": lambda params: peers.ours("sgd", params).run,
        "torch SGD, fused": lambda params: peers.torchs("sgd", params, fused=True).run,
        "twin, torch.compile": lambda params: twins.compiled("sgd", params),
    }
    rows = []
    for name, make in makers.items():
        run = make(workloads.parameters(workloads.resnet50()))
        with inductor.patch(force_disable_caches=True):  # else it may find what an earlier run compiled
            first, _, third = (seconds(run) for _ in range(3))
        rows.append({"ResNet-50": name, "first step, ms": first * 1e3, "third step, ms": third * 1e3})
    return rows
