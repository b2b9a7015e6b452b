"""``python -m bench state_formats``: what the state formats do to moments, updates and losses, beside other formats.

Each measurement is kept in a file of its own, so that a second call goes on where the first one was stopped. Delete the
files to measure a changed format.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench import loss_curves, machine, moving_averages, plots, report, state_peers
from extrap_kernels import command_line

Row = dict[str, Any]
Results = dict[str, list[Row]]
_QUICK_STEPS, _QUICK_BETA2, _QUICK_SEEDS = 4, (0.9, 0.95), (0, 1)


def _averages(name: str, beta2: float) -> str:
    return f"moving averages, {name}, beta2 {beta2}"


def _updates(name: str, betas: tuple[float, float]) -> str:
    return f"largest updates, {name}, betas {betas}"


def _training(task: str, method: str, seed: int) -> str:
    return f"training, {task}, {method}, seed {seed}"


class Measurements:
    """All of them, by name; ``quick``: a part, in seconds, to show that they work."""

    def __init__(self, *, quick: bool) -> None:
        self.formats = state_peers.available()
        if quick:  # torchao compiles its step
            self.formats = [name for name in self.formats if name not in state_peers.PACKAGES]
        self.beta2 = _QUICK_BETA2 if quick else moving_averages.BETA2
        self.seeds = _QUICK_SEEDS if quick else loss_curves.SEEDS
        self.jobs: dict[str, Callable[[], list[Row]]] = {}
        for name in self.formats:
            for beta2 in self.beta2 if name != state_peers.REFERENCE else ():
                self.jobs[_averages(name, beta2)] = functools.partial(moving_averages.follow, name, beta2)
            for betas in moving_averages.BETAS:
                largest = functools.partial(moving_averages.largest_updates, name, betas)
                self.jobs[_updates(name, betas)] = largest if not quick else functools.partial(largest, steps=300)
        for seed in self.seeds:
            for task, method in ((t, m) for t in loss_curves.TASKS for m in loss_curves.METHODS):
                steps = _QUICK_STEPS if quick else loss_curves.TASKS[task].steps
                train = functools.partial(loss_curves.train, task, method, seed, steps)
                self.jobs[_training(task, method, seed)] = train

    def carry_out(self, folder: Path, about: dict[str, str]) -> Results:
        """Return the results; take those from ``folder`` that were measured on this machine, and write the others."""
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for name, job in command_line.progress(list(self.jobs.items()), "measurements"):
            path = folder / f"{re.sub(r'[^a-z0-9.]+', '_', name.lower())}.json"
            kept = json.loads(path.read_text()) if path.exists() else {}
            if kept.get("about") != about:
                kept = {"about": about, "rows": job()}
                path.write_text(json.dumps(kept) + "\n")
            found[name] = kept["rows"]
        return found

    def sections(self, results: Results) -> list[tuple[str, list[Row]]]:
        """Return the tables: titles and rows."""
        averages = "Root of the second moment over that with float32 state: lowest and highest median of all cases"
        found = [(averages, [self._range(results, name) for name in self.formats if name != state_peers.REFERENCE])]
        for betas in moving_averages.BETAS:
            rows = [{"format": name, **results[_updates(name, betas)][0]} for name in self.formats]
            found.append((f"Largest |u| in hostile blocks, betas {betas}", rows))
        for task in loss_curves.TASKS:
            found.append((f"Validation loss, {task}", loss_curves.comparison(self.curves(results, task))))
        return found

    def _range(self, results: Results, name: str) -> Row:
        row: Row = {"format": name}
        for beta2 in self.beta2:
            medians = [case["median"] for case in results[_averages(name, beta2)]]
            row[f"beta2 {beta2}"] = f"{min(medians):.2f} to {max(medians):.2f}"
        return row

    def curves(self, results: Results, task: str) -> loss_curves.Curves:
        """Return the losses of a task by method and seed."""
        return {m: [results[_training(task, m, seed)] for seed in self.seeds] for m in loss_curves.METHODS}

    def plot(self, results: Results, folder: Path) -> list[Path]:
        """Write the plots and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        made = []
        beta2 = 0.999 if 0.999 in self.beta2 else self.beta2[-1]
        by_format = {n: results[_averages(n, beta2)] for n in self.formats if n != state_peers.REFERENCE}
        made.append(folder / "moving_averages.svg")
        plots.medians(by_format, f"beta2 = {beta2}", made[-1])
        for task in loss_curves.TASKS:
            made.append(folder / f"{task}.svg")
            plots.losses(task, self.curves(results, task), loss_curves.compared_with, made[-1])
        return made


def run(*, quick: bool, page: Path | None) -> list[tuple[str, list[Row]]]:
    """Measure what is missing, print and return the tables, write the plots.

    Args:
        quick: as in :class:`Measurements`.
        page: a page that tables and plots are written to; None: only the plots, beside the measurements.
    """
    torch.set_num_threads(1)
    about = machine.describe(torch.device("cpu"))
    measurements = Measurements(quick=quick)
    folder = Path("results") / ("state_formats_quick" if quick else "state_formats")
    print(f"Kept in {folder}: delete it to measure anew")
    results = measurements.carry_out(folder, about)
    sections = measurements.sections(results)
    for title, rows in sections:
        report.show(title, rows)
    missing = [name for name in state_peers.FORMATS if name not in measurements.formats]
    if missing:
        print(f"Left out: {', '.join(missing)}")
    images = measurements.plot(results, folder if page is None else page.with_suffix(""))
    print(f"Written: {', '.join(map(str, images))}")
    if page is not None:
        about = {"command": "python -m bench state_formats", "date": datetime.date.today().isoformat(), **about}
        about |= state_peers.versions()
        parts = [report.described(about), *(f"### {title}\n\n{report.markdown(rows)}" for title, rows in sections)]
        parts += [f"![{image.stem}]({page.stem}/{image.name})" for image in images]
        report.write_between_marks(page, "\n\n".join(parts))
        print(f"Written: {page}")
    return sections
