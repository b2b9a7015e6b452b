"""The figures of the report as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

Row = dict[str, Any]


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def step_times(title: str, rows: Sequence[Row], path: Path) -> None:
    """Bars: the time of a step of each peer, with quartiles."""
    figure, axes = pyplot.subplots(figsize=(7, 0.45 * len(rows) + 1))
    medians = [row["ms"] for row in rows]
    errors = [[row["ms"] - row["lower"] for row in rows], [row["upper"] - row["ms"] for row in rows]]
    colors = ["tab:orange" if row["peer"].startswith("Extrap") else "tab:blue" for row in rows]
    axes.barh([row["peer"] for row in rows], medians, xerr=errors, color=colors)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="ms a step (logarithmic)", xscale="log")
    _save(figure, path)


def against(rows: Sequence[Row], x: str, ys: Sequence[str], path: Path, ylabel: str) -> None:
    """Lines in logarithmic axes: columns ``ys`` of ``rows`` against column ``x``."""
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for y in ys:
        axes.plot([row[x] for row in rows], [row[y] for row in rows], marker="o", label=y)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=ylabel)
    axes.grid(True, which="major", alpha=0.4)
    axes.legend()
    _save(figure, path)
