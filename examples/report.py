"""Reports the comparison: table, plot, raw numbers and a closing sentence, all computed from the results."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import recipe
from experiment import REGIMES, Result, Settings
from matplotlib.figure import Figure
from rich.table import Table
from scipy.stats import t as student_t  # type: ignore[import-untyped]

_LR = {"scaled": "lr scaled with the batch", "tuned": "lr tuned"}


@dataclass(frozen=True)
class Difference:
    """ExtrapSGD minus SGD at one batch size and regime, in points of test accuracy.

    ``low`` and ``high`` bound the 95 % t-interval of the mean of the differences seed by seed: both methods start
    from the same parameters and see the same batches.
    """

    regime: str
    batch_size: int
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Which method is ahead, if the interval excludes 0."""
        if self.low > 0:
            return "ahead"
        return "behind" if self.high < 0 else "level"


def differences(results: Sequence[Result]) -> list[Difference]:
    """Return the difference for each regime and batch size."""
    return [
        _difference(regime, batch_size, *(r.test_accuracy for r in _pair(results, regime, batch_size)))
        for regime in REGIMES
        for batch_size in sorted({r.batch_size for r in results})
    ]


def _difference(regime: str, batch_size: int, sgd: Sequence[float], extrap: Sequence[float]) -> Difference:
    by_seed = [b - a for a, b in zip(sgd, extrap)]
    mean = statistics.fmean(by_seed)
    half = student_t.ppf(0.975, len(by_seed) - 1) * statistics.stdev(by_seed) / math.sqrt(len(by_seed))
    return Difference(regime, batch_size, mean, float(mean - half), float(mean + half))


def accuracy_table(results: Sequence[Result], regime: str) -> Table:
    """Return the accuracies under one regime."""
    shown = _table(f"Test accuracy in %, {_LR[regime]}: mean ± std over seeds")
    for name in ("batch", "SGD", "at lr", "ExtrapSGD", "at lr", "difference [95 %]"):
        shown.add_column(name, justify="right", no_wrap=True)
    for d in differences(results):
        if d.regime == regime:
            row = [str(d.batch_size)]
            for r in _pair(results, regime, d.batch_size):
                row += [
                    f"{statistics.fmean(r.test_accuracy):.1f} ± {statistics.stdev(r.test_accuracy):.1f}",
                    f"{r.lr:g}",
                ]
            shown.add_row(*row, f"{d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]")
    return shown


def time_table(results: Sequence[Result]) -> Table:
    """Return the times of one worker's optimizer step and of a training step of all simulated workers."""
    shown = _table("Median time per step: one worker's optimizer, µs; training of all, ms")
    for name in ("batch", "workers", "steps", "SGD, µs", "ExtrapSGD, µs", "SGD, ms", "ExtrapSGD, ms"):
        shown.add_column(name, justify="right")
    for batch_size in sorted({r.batch_size for r in results}):
        pair = _pair(results, "scaled", batch_size)
        optimizer = [f"{1e6 * statistics.median(run.optimizer_seconds for run in r.runs):.0f}" for r in pair]
        training = [f"{1e3 * statistics.median(run.step_seconds for run in r.runs):.1f}" for r in pair]
        shown.add_row(str(batch_size), str(pair[0].workers), str(pair[0].runs[0].steps), *optimizer, *training)
    return shown


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _pair(results: Sequence[Result], regime: str, batch_size: int) -> list[Result]:
    """Return the results of the methods, in their order."""
    found = {r.method: r for r in results if (r.regime, r.batch_size) == (regime, batch_size)}
    return [found[method] for method in recipe.METHODS]


def conclusion(found: Sequence[Difference]) -> str:
    """Return in one sentence where the methods separate."""
    clauses = []
    for regime in REGIMES:
        batches: dict[str, list[str]] = {"ahead": [], "behind": [], "level": []}
        for d in found:
            if d.regime == regime:
                batches[d.verdict].append(str(d.batch_size))
        parts = [f"{verdict} at batch {', '.join(sizes)}" for verdict, sizes in batches.items() if sizes]
        clauses.append(f"with the {_LR[regime]}, {' and '.join(parts)}")
    return (
        f"ExtrapSGD against SGD in test accuracy: {'; '.join(clauses)}. (Ahead or behind: the 95 % interval of the "
        f"difference over the seeds excludes 0, not corrected for {len(found)} comparisons. Level: it does not.)"
    )


def save_json(path: Path, settings: Settings, results: Sequence[Result], wall_seconds: float) -> None:
    """Write the raw numbers."""
    found = differences(results)
    content = {
        "settings": asdict(settings),
        "results": [asdict(r) for r in results],
        "differences": [{**asdict(d), "verdict": d.verdict} for d in found],
        "conclusion": conclusion(found),
        "wall_seconds": wall_seconds,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def save_plot(path: Path, results: Sequence[Result]) -> None:
    """Write a plot of test accuracy against batch size, with the standard deviation as error bars."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, len(REGIMES), sharey=True)
    for axis, regime in zip(axes, REGIMES):
        for method, shift, marker in zip(recipe.METHODS, (0.98, 1.02), "os"):  # side by side, so that no bar hides
            line = sorted((r for r in results if (r.regime, r.method) == (regime, method)), key=lambda r: r.batch_size)
            axis.errorbar(
                [r.batch_size * shift for r in line],
                [statistics.fmean(r.test_accuracy) for r in line],
                [statistics.stdev(r.test_accuracy) for r in line],
                label=method,
                marker=marker,
                capsize=4,
            )
        axis.set_xscale("log", base=2)
        ticks = sorted({r.batch_size for r in results})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set(title=_LR[regime], xlabel="global batch size")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend()
    figure.savefig(path, dpi=150)
