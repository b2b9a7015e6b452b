"""Large-batch training on real digits: Nesterov SGD against ExtrapSGD at growing batch sizes and a fixed epoch budget.

Data-parallel workers are simulated in one process. Run it with ``make demo``, or ``python examples/demo.py --help``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import digits
import recipe
import report
import torch
from experiment import REGIMES, Settings, compare
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from extrap_kernels import backends

FULL = Settings(
    batch_sizes=(128, 256, 512, 1024), workers=None, epochs=recipe.EPOCHS, seeds=4, lr_grid=(0.05, 0.1, 0.2, 0.4)
)
# For tests: everything runs, too briefly to learn anything.
QUICK = Settings(batch_sizes=(256, 1024), workers=None, epochs=2, seeds=2, lr_grid=(0.1,))


def positive_int(text: str) -> int:
    """Convert an argument that must be a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def parse(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    """Return the options; ``settings`` among them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="run for seconds, only to show that it works")
    parser.add_argument("--seeds", type=positive_int, metavar="N", help=f"number of seeds (default: {FULL.seeds})")
    sizes = " ".join(map(str, FULL.batch_sizes))
    parser.add_argument("--batch-sizes", type=positive_int, nargs="+", metavar="B", help=f"(default: {sizes})")
    each = f"one for every {recipe.LOCAL_BATCH_SIZE} images of the batch"
    parser.add_argument("--workers", type=positive_int, metavar="K", help=f"(default: {each})")
    parser.add_argument("--epochs", type=positive_int, metavar="E", help=f"(default: {FULL.epochs})")
    parser.add_argument("--backend", default="auto", choices=("auto", *backends.BACKENDS), help="of ExtrapSGD")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="(default: results)")
    threads = torch.get_num_threads()
    runs = f"trainings at a time, each on one thread (default: {threads}, what PyTorch would use here)"
    parser.add_argument("--threads", type=positive_int, default=threads, metavar="T", help=runs)
    options = parser.parse_args(arguments)
    try:
        options.settings = settings_from(options)
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    return options


def settings_from(options: argparse.Namespace) -> Settings:
    """Return the settings that the options ask for.

    Raises:
        ValueError: they cannot be carried out.
        RuntimeError: the backend is not there.
    """
    preset = QUICK if options.quick else FULL
    settings = Settings(
        batch_sizes=sorted(set(options.batch_sizes or preset.batch_sizes)),
        workers=options.workers,
        epochs=options.epochs or preset.epochs,
        seeds=options.seeds or preset.seeds,
        lr_grid=preset.lr_grid,
        backend=options.backend,
    )
    backends.check_name(settings.backend)
    if settings.seeds < 2:
        raise ValueError("--seeds 1 gives no spread; ask for at least 2")
    images = len(digits.load().train.labels)
    for batch_size in settings.batch_sizes:
        if batch_size > images:
            raise ValueError(f"--batch-sizes {batch_size} is more than the {images} training images")
        divisor = settings.workers or recipe.LOCAL_BATCH_SIZE
        if batch_size % divisor:
            what = "workers" if settings.workers else "images for each worker (choose --workers otherwise)"
            raise ValueError(f"--batch-sizes {batch_size} is not a multiple of {divisor} {what}")
    return settings


def introduction(settings: Settings) -> str:
    """Return a description of the comparison."""
    share = recipe.LOCAL_BATCH_SIZE
    workers = str(settings.workers) if settings.workers else f"one for every {share} images of the batch"
    images = len(digits.load().train.labels)
    return (
        f"Nesterov SGD against ExtrapSGD on {images} images of digits: {settings.epochs} epochs at every batch size, "
        f"{settings.seeds} seeds. Simulated workers: {workers}. The scaled lr grows from 0.1 for 128 images, a rule "
        "chosen on validation data to show where the methods part; the tuned lr is the best on validation for each."
    )


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run the demo."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    console.print(introduction(options.settings))
    start = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        results = compare(options.settings, options.threads, progress)
    seconds = time.perf_counter() - start
    report.save_json(options.out / "demo.json", options.settings, results, seconds)
    report.save_plot(options.out / "demo.png", results)
    for table in (*(report.accuracy_table(results, regime) for regime in REGIMES), report.time_table(results)):
        console.print(table)
    console.print(report.conclusion(report.differences(results)))
    console.print(f"{seconds:.0f} s on {options.threads} threads; plot and numbers: {options.out}/demo.png, demo.json")


if __name__ == "__main__":
    main()
