"""``python -m bench``: ExtrapSGD against what users would write or use otherwise, on this machine's CPU."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bench import twins, workloads
from bench.measure import Timing, interleaved
from extrap_kernels import ExtrapSGD

SGD: dict[str, Any] = {"lr": twins.LR, "momentum": twins.MOMENTUM, "nesterov": True}
# Bytes that each parameter must move: DESIGN, traffic floor. The twins do the work of ExtrapSGD.
FLOOR = {"x.add_(g)": 12, "torch SGD fused": 20}
EXTRAP_FLOOR = 24


def _extrap(params: Sequence[Tensor], **options: Any) -> Callable[[], object]:
    return ExtrapSGD(params, extrap_lr=twins.EXTRAP_LR, **SGD, **options).step


def _large(params: Sequence[Tensor]) -> dict[str, Callable[[], object]]:
    numel = sum(p.numel() for p in params)
    x, g = torch.randn(numel), torch.randn(numel)
    return {
        "ExtrapSGD": _extrap(params),
        "x.add_(g)": lambda: x.add_(g),
        "torch SGD fused": torch.optim.SGD(params, fused=True, **SGD).step,
        "twin, torch.compile": twins.compiled(params),
        "twin, foreach": twins.foreach(params),
        "twin, for loop": twins.for_loop(params),
        "ExtrapSGD, uniform noise": _extrap(params, noise="uniform"),
        "ExtrapSGD, Gaussian noise": _extrap(params, noise="gaussian"),
    }


def _small(params: Sequence[Tensor]) -> dict[str, Callable[[], object]]:
    return {
        "ExtrapSGD": _extrap(params),
        "torch SGD fused": torch.optim.SGD(params, fused=True, **SGD).step,
        "twin, foreach": twins.foreach(params),
        "twin, for loop": twins.for_loop(params),
    }


def _table(title: str, timings: Mapping[str, Timing], numel: int) -> Table:
    table = Table(title=title)
    for heading in ("", "ms", "quartiles", "GB/s at its floor", "time / ExtrapSGD", "GB/s of ExtrapSGD / its own"):
        table.add_column(heading, justify="left" if not heading else "right")
    ours = timings["ExtrapSGD"]
    for name, timing in timings.items():
        rate = FLOOR.get(name, EXTRAP_FLOOR) * numel / timing.median / 1e9
        our_rate = EXTRAP_FLOOR * numel / ours.median / 1e9
        table.add_row(
            name,
            f"{timing.median * 1e3:.3f}",
            f"{timing.lower * 1e3:.3f} to {timing.upper * 1e3:.3f}",
            f"{rate:.1f}",
            f"{timing.median / ours.median:.2f}",
            f"{our_rate / rate:.2f}",
        )
    return table


def _run(
    title: str,
    shapes: list[tuple[int, ...]],
    contenders: Callable[[Sequence[Tensor]], dict[str, Callable[[], object]]],
    rounds: int,
) -> dict[str, Any]:
    params = workloads.parameters(shapes)
    numel = sum(p.numel() for p in params)
    timings = interleaved(contenders(params), rounds)
    Console(width=140).print(_table(f"{title}: {len(params)} tensors, {numel:,} parameters", timings, numel))
    return {"tensors": len(params), "parameters": numel, "seconds": {k: asdict(t) for k, t in timings.items()}}


def _machine(threads: int) -> dict[str, Any]:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = names[0].split(":", 1)[1].strip() if names else platform.processor()
    return {"cpu": cpu, "threads": threads, "torch": torch.__version__, "python": platform.python_version()}


def main() -> None:
    """Measure, print the tables, and write them with the machine's description as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--rounds", type=int, default=21, help="timed rounds of the large case (default: 21)")
    parser.add_argument("--out", type=Path, default=Path("results/bench.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = _machine(arguments.threads)
    print(", ".join(f"{key}: {value}" for key, value in machine.items()))
    results = {
        "machine": machine,
        "GPT-2 124M, fp32": _run("GPT-2 124M, fp32", workloads.gpt2_124m(), _large, arguments.rounds),
        "1,000 x 64, fp32": _run("1,000 x 64, fp32", workloads.many_small(), _small, 10 * arguments.rounds),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
