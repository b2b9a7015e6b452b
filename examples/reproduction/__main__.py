"""``python -m reproduction``: fetch the data, train, write the tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reproduction import debian, schedule, tables
from reproduction.comparison import Settings
from reproduction.methods import METHODS
from reproduction.results import Results
from reproduction.workloads import DEFAULT, WORKLOADS

_ROOT = Path(__file__).parents[2]
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "extrap-kernels"
# Everything runs, too briefly to learn anything.
_QUICK: dict[str, Any] = {
    "methods": ("plain", "past gradient, own", "SAM"),
    "small_batch_methods": ("plain", "past gradient, own"),
    "sweeps": ("workers",),
    "seeds": 2,
    "lr_factors": (0.25,),
    "epochs": 0.25,
}


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m reproduction",
        description="Compare methods of extrapolation on real data, with a budget of epochs that is fixed.",
        epilog="example: python -m reproduction run --workloads resnet-fashion",
    )
    parser.add_argument("what", choices=("fetch", "run", "tables"), help="get the data; train; write docs/generated")
    parser.add_argument("--data", type=Path, default=_CACHE, metavar="DIR", help=f"(default: {_CACHE})")
    parser.add_argument(
        "--out",
        type=Path,
        default=_ROOT / "docs/generated/reproduction",
        metavar="DIR",
        help="where results are kept (default: docs/generated/reproduction)",
    )
    parser.add_argument(
        "--workloads", nargs="+", choices=WORKLOADS, default=DEFAULT, help=f"(default: {' '.join(DEFAULT)})"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="(default: all)")
    parser.add_argument("--quick", action="store_true", help="run for a minute, only to show that it works")
    cores = torch.get_num_threads()
    parser.add_argument(
        "--threads", type=int, default=cores, metavar="T", help=f"trainings at a time (default: {cores})"
    )
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads {options.threads} is less than 1")
    chosen = dict(_QUICK) if options.quick else {}
    if options.methods:
        chosen["methods"] = tuple(options.methods)
    settings = Settings(tuple(options.workloads), **chosen)
    try:
        _run(options, settings)
    except (FileNotFoundError, ImportError, RuntimeError, ValueError) as error:
        parser.exit(1, f"{error}\n")


def _run(options: argparse.Namespace, settings: Settings) -> None:
    if options.what == "fetch":
        debian.fetch(options.data)
        return
    results = Results(options.out)
    if options.what == "run":
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            schedule.run(settings, options.data, results, options.threads, progress)
    tables.write(settings, results, options.out)


if __name__ == "__main__":
    main()
