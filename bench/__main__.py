"""``python -m bench``: our optimizers against what users would write or use otherwise, on this machine's CPU."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.cases import Case, cases
from bench.measure import interleaved


def _run(case: Case) -> dict[str, Any]:
    numel = sum(torch.Size(shape).numel() for shape in case.shapes)
    contenders = case.contenders(case.shapes)
    timings = interleaved({name: contender.run for name, contender in contenders.items()}, case.rounds)
    first = next(iter(contenders))
    rates = {name: contender.bytes * numel / timings[name].median / 1e9 for name, contender in contenders.items()}
    table = Table(title=f"{case.title}: {len(case.shapes)} tensors, {numel:,} parameters")
    for heading in ("", "ms", "quartiles", "GB/s", f"time / {first}", f"GB/s of {first} / its own"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, timing in timings.items():
        table.add_row(
            name,
            f"{timing.median * 1e3:.3f}",
            f"{timing.lower * 1e3:.3f} to {timing.upper * 1e3:.3f}",
            f"{rates[name]:.1f}",
            f"{timing.median / timings[first].median:.2f}",
            f"{rates[first] / rates[name]:.2f}",
        )
    Console(width=140).print(table)
    return {"tensors": len(case.shapes), "parameters": numel, "seconds": {k: asdict(t) for k, t in timings.items()}}


def _machine(threads: int) -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure, print the tables, and write them with the machine's description as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--rounds", type=int, default=21, help="timed rounds of a large case (default: 21)")
    parser.add_argument("--only", default="", help="only cases with this in their title")
    parser.add_argument("--out", type=Path, default=Path("results/bench.json"), help="where the JSON goes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {"machine": _machine(arguments.threads)}
    print(", ".join(f"{key}: {value}" for key, value in results["machine"].items()))
    for case in cases(arguments.rounds):
        if arguments.only in case.title:
            results[case.title] = _run(case)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"GB/s: bytes that the buffers must be read and written with, by time. Written to {arguments.out}")


if __name__ == "__main__":
    main()
