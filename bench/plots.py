"""The plots of the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def medians(by_format: Mapping[str, Sequence[Row]], title: str, path: Path) -> None:
    """Plot the medians of :func:`bench.moving_averages.follow` against the size of gradients, a panel for each case."""
    cases = list(dict.fromkeys(row["case"] for rows in by_format.values() for row in rows))
    figure, axes = pyplot.subplots(1, len(cases), figsize=(3.2 * len(cases), 3.6), sharey=True)
    for axis, case in zip(axes, cases):
        for (name, rows), marker in zip(by_format.items(), "osv^<>D"):
            found = [row for row in rows if row["case"] == case]
            # What rounds to 0 lies on the lower edge.
            shown = [max(row["median"], 0.05) for row in found]
            axis.plot([row["gradients"] for row in found], shown, marker=marker, markersize=4, label=name)
        axis.axhline(1.0, color="black", linewidth=0.5)
        axis.set(title=case, xlabel="size of gradients", xscale="log", yscale="log", ylim=(0.05, 20))
        axis.title.set_fontsize(9)
        axis.grid(True, alpha=0.3)
    axes[0].set_ylabel(f"root of the second moment\nover that in float32, {title}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=3, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 0.86))
    figure.savefig(path)
    pyplot.close(figure)


def losses(title: str, curves: Mapping[str, Any], compared_with: Callable[[str], str], path: Path) -> None:
    """Plot losses against steps, means over seeds; and differences to the method compared with, each seed a line."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    for k, (method, runs) in enumerate(curves.items()):
        steps = [point["step"] for point in runs[0]]
        mean = [sum(run[i]["loss"] for run in runs) / len(runs) for i in range(len(steps))]
        left.plot(steps, mean, color=f"C{k}", label=method)
        for j, (run, other) in enumerate(zip(runs, curves[compared_with(method)])):
            if method != compared_with(method):
                difference = [a["loss"] - b["loss"] for a, b in zip(run, other)]
                right.plot(steps, difference, color=f"C{k}", linewidth=1, label=None if j else method)
    left.set(title=title, xlabel="step", ylabel="validation loss, mean over seeds", yscale="log")
    right.set(title="minus that with float32 state, each seed", xlabel="step")
    right.axhline(0.0, color="black", linewidth=0.5)
    for axis in (left, right):
        axis.grid(True, which="both", alpha=0.3)
        axis.legend(fontsize=8)
    for of_ticks in (left.yaxis.set_major_formatter, left.yaxis.set_minor_formatter):
        of_ticks(ticker.StrMethodFormatter("{x:g}"))
    _save(figure, path)
