"""``python -m bench.scaling``: what local extrapolation costs a worker, from the constants of ``python -m bench.ddp``.

A model, not a measurement: time is linear in parameters, copies and steps need no other worker, and an all-reduce of a
few numbers takes the time of two workers for each doubling of their number.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.ddp import PARAMETERS

FLOAT = 4  # bytes


def rows(seconds: dict[str, dict[str, float]], parameters: float, workers: int) -> dict[str, str]:
    """Return the modelled cost of one step for each worker."""
    size = parameters / PARAMETERS
    copy, local_step, step, few = (
        seconds[name]["median"]
        for name in (
            "copy of one gradient",
            "DDP, hook, ExtrapSGD: step",
            "DDP, ExtrapSGD: step",
            "all-reduce of the norms",
        )
    )
    # Buffers of one float for each parameter: y, g, x, v; and l under DDP.
    whole, shared = 5, 4
    return {
        "copy of the local gradient": f"{1e3 * copy * size:.1f} ms",
        "step, DDP": f"{1e3 * local_step * size:.1f} ms",
        "step, FSDP2": f"{1e3 * step * size / workers:.2f} ms",
        "norms of LARS and LAMB, FSDP2": f"{1e3 * few * math.log2(workers):.1f} ms",
        "sent for the local gradient": "0 bytes",
        "memory, DDP": f"{whole * FLOAT * parameters / 1e9:.1f} GB",
        "memory, FSDP2 between passes": f"{shared * FLOAT * parameters / workers / 1e9:.3f} GB",
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__.split("\n\n")[0])
    parser.add_argument("--measured", type=Path, default=Path("results/ddp.json"), help="what bench.ddp has written")
    parser.add_argument("--parameters", type=float, default=1e9, help="(default: 1e9)")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 16, 128, 1024, 4096], help="(default: to 4096)")
    arguments = parser.parse_args()
    seconds = json.loads(arguments.measured.read_text())["seconds"]
    columns = {workers: rows(seconds, arguments.parameters, workers) for workers in arguments.workers}
    table = Table(title=f"Modelled, each worker, {arguments.parameters:.3g} float32 parameters, SGD with momentum")
    table.add_column("")
    for workers in columns:
        table.add_column(f"{workers} workers", justify="right")
    for name in next(iter(columns.values())):
        table.add_row(name, *(column[name] for column in columns.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
