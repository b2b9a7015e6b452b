"""The plots of the report, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot, ticker

Row = dict[str, Any]


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def step_times(title: str, rows: Sequence[Row], path: Path) -> None:
    """Plot the median time of a step with its quartiles, one row each; our optimizers in another color."""
    figure, axes = pyplot.subplots(figsize=(8, 0.35 * len(rows) + 1.2))
    for row in rows:
        error = [[row["ms"] - row["lower"]], [row["upper"] - row["ms"]]]
        color = "tab:orange" if row["baseline"].startswith("Extrap") else "tab:blue"
        axes.errorbar(row["ms"], row["baseline"], xerr=error, fmt="o", color=color, capsize=3)
    axes.invert_yaxis()
    axes.set(title=title.partition(":")[0], xlabel="ms a step", xscale="log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(True, axis="x", alpha=0.4)
    _save(figure, path)


def against(rows: Sequence[Row], x: str, ys: Sequence[str], path: Path, ylabel: str) -> None:
    """Plot columns ``ys`` of ``rows`` against column ``x``, in logarithmic axes."""
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for y in ys:
        axes.plot([row[x] for row in rows], [row[y] for row in rows], marker="o", label=y)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=ylabel)
    axes.grid(True, which="major", alpha=0.4)
    axes.legend()
    _save(figure, path)
