"""Tables about one subject each: host overhead, growth with size, memory, instruction sets, the first step."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch._inductor import config as inductor
from torch.profiler import ProfilerActivity, profile

from bench import baselines, twins, workloads
from bench.measure import exponent, host_seconds, interleaved, seconds
from extrap_kernels import _C

Row = dict[str, Any]


def host_overhead(rounds: int, device: str) -> list[Row]:
    """Microseconds of a step, in all and per tensor, by the number of tensors; each tensor has 64 elements.

    On a GPU, those until ``step()`` returns.
    """
    rows = []
    for tensors in (1, 10, 100, 1000, 5000, 20000):
        params = workloads.parameters(workloads.many_small(tensors), device=device)
        contenders = {
            "ExtrapSGD": baselines.ours("sgd", params),
            "torch SGD, fused": baselines.torchs("sgd", params, fused=True),
            "ExtrapAdamW": baselines.ours("adamw", params),
            "torch AdamW, fused": baselines.torchs("adamw", params, fused=True),
        }
        timings = interleaved(
            {name: baseline.run for name, baseline in contenders.items()},
            max(3 * rounds, 20000 // tensors),
            warmup=3,
            clock=functools.partial(host_seconds, device=device),
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


def growth(rounds: int, large: bool, device: str) -> tuple[list[Row], float]:
    """Milliseconds of a step of ExtrapSGD on one bfloat16 tensor by its size, and the exponent of the growth.

    Args:
        rounds: timed rounds of each size.
        large: add a billion parameters, which needs 12 GB.
        device: where the tensor is.
    """
    sizes = [1_000_000, 4_000_000, 16_000_000, 64_000_000, 256_000_000, *([1_000_000_000] if large else [])]
    rows = []
    for numel in sizes:
        params = workloads.parameters([(numel,)], torch.bfloat16, device)
        baseline = baselines.ours("sgd", params)
        clock = functools.partial(seconds, device=device)
        median = interleaved({"ours": baseline.run}, rounds, clock=clock)["ours"].median
        rows.append({"parameters": numel, "ms": median * 1e3, "GB/s": baseline.bytes * numel / median / 1e9})
    # From where the tensors no longer fit the caches.
    beyond = [row for row in rows if row["parameters"] >= 16_000_000]
    return rows, exponent([row["parameters"] for row in beyond], [row["ms"] for row in beyond])


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = {
        id(value): value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    }
    return sum(tensor.nbytes for tensor in tensors.values())


def _peak_of(run: Callable[[], object]) -> int:
    """Return the peak of the memory that torch's CPU allocator holds during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def memory() -> list[Row]:
    """Bytes per parameter of the state, and of the temporary memory of a step."""
    shapes = workloads.resnet50()
    numel = workloads.numel_of(shapes)
    rows = []
    for rule in baselines.TORCH:
        for dtype in (torch.float32, torch.bfloat16):
            makers: list[tuple[dict[str, Any], dict[str, bool]]] = [
                (baselines.OURS, {}),
                (baselines.TORCH, {"fused": True}),
                (baselines.TORCH, {"foreach": True}),
            ]
            for maker, options in makers:
                optimizer = maker[rule](workloads.parameters(shapes, dtype), **baselines.OPTIONS[rule], **options)
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


# Dtypes of parameters and of the state.
_STORED = (
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.uint8),
)


def instruction_sets(rounds: int) -> list[Row]:
    """Milliseconds of a step on GPT-2 124M for each vector width; equal times mean that memory is the limit."""
    before, threads = _C.instruction_set(), torch.get_num_threads()
    counts = sorted({1, threads})
    rows = []
    for rule in baselines.TORCH:
        for dtype, state_dtype in _STORED:
            params = workloads.parameters(workloads.gpt2(), dtype)
            ours = baselines.ours(rule, params, state_dtype=state_dtype).run
            torchs = baselines.torchs(rule, params, fused=True).run
            steps = {("torch, fused", n): functools.partial(_step_with, torchs, before, n) for n in counts}
            for isa, n in itertools.product(_C.instruction_sets(), counts):
                steps[isa, n] = functools.partial(_step_with, ours, isa, n)
            for (code, count), timing in interleaved(steps, rounds).items():
                rows.append(
                    {
                        "rule": rule,
                        "parameters": str(dtype).removeprefix("torch."),
                        "state": str(dtype if code == "torch, fused" else state_dtype).removeprefix("torch."),
                        "instruction set": code,
                        "threads": count,
                        "ms": timing.median * 1e3,
                    }
                )
    _C.select_instruction_set(before)
    torch.set_num_threads(threads)
    return rows


def _step_with(run: Callable[[], object], instruction_set: str, threads: int) -> None:
    _C.select_instruction_set(instruction_set)
    torch.set_num_threads(threads)
    run()


def first_step() -> list[Row]:
    """Milliseconds of the first step, which creates state and plans or compiles kernels, and of the third."""
    torch.compiler.reset()
    makers: dict[str, Callable[[Any], Callable[[], object]]] = {
        "ExtrapSGD": lambda params: baselines.ours("sgd", params).run,
        "torch SGD, fused": lambda params: baselines.torchs("sgd", params, fused=True).run,
        "twin, torch.compile": lambda params: twins.compiled("sgd", params),
    }
    rows = []
    for name, make in makers.items():
        run = make(workloads.parameters(workloads.resnet50()))
        with inductor.patch(force_disable_caches=True):  # an earlier run may have compiled the same
            first, _, third = (seconds(run) for _ in range(3))
        rows.append({"ResNet-50": name, "first step, ms": first * 1e3, "third step, ms": third * 1e3})
    return rows
