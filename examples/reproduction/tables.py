"""The page of tables and curves that is made of the results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from matplotlib.figure import Figure
from scipy.stats import t as student_t  # type: ignore[import-untyped]

from reproduction import sweeps
from reproduction.comparison import REGIMES, Settings, compared_methods, of_seeds
from reproduction.methods import METHODS
from reproduction.results import Results
from reproduction.training import Trial
from reproduction.workloads import WORKLOADS

_TITLES = {"tuned": "tuned for each method", "scaled": "scaled by the usual rule"}
_LEGEND = (
    "Means of the seeds, ± standard deviations. **less plain**: the difference to the plain optimizer seed by "
    "seed, and its 95% interval by Student's t. **steps to target**: the median, if all seeds got there. "
    "**largest stable lr**: of those tried in tuning, the largest that ended better than equal odds for all "
    "classes. **sharpness**: after eight power iterations, so the largest eigenvalue may be larger. **distance**: "
    "from `x` to `y`, over the norm of `x`. Curves of post-local steps are those of the first worker."
)
_SWEEPS = (
    "## {workload}: one number varies\n\n"
    "Test losses at the learning rate of the usual rule, with the first value of each method's option. All but what "
    "varies is as in the tables of batch {batch_size}. The number of workers is of no concern to plain SGD and to the "
    "averaged past gradient."
)
_HEADS = (
    "method",
    "lr",
    "its option",
    "test loss",
    "less plain [95%]",
    "accuracy, %",
    "steps to target",
    "largest stable lr",
    "sharpness",
    "distance",
)


class Row(NamedTuple):
    """The trainings of one method in one table, by seed."""

    method: str
    trials: list[Trial]
    outcomes: list[dict[str, Any]]

    def column(self, name: str) -> list[Any]:
        """Return one number of each outcome; None where it is missing."""
        return [outcome[name] for outcome in self.outcomes]


class Point(NamedTuple):
    """The test losses at one value of a sweep, by method and seed."""

    value: float
    losses: dict[str, list[Optional[float]]]


class Difference(NamedTuple):
    """A mean of paired differences, with the 95% interval of Student's t."""

    mean: float
    low: float
    high: float


def write(settings: Settings, results: Results, folder: Path) -> None:
    """Write ``tables.md`` and its plots, without what is yet to be run."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for workload in settings.workloads:
        for batch_size in sorted(WORKLOADS[workload].batch_sizes, reverse=True):
            found = {regime: rows_of(settings, results, workload, batch_size, regime) for regime in REGIMES}
            if not any(found.values()):
                continue
            parts += [_heading(settings, results, workload, batch_size, found)]
            parts += [_table(settings, results, regime, rows) for regime, rows in found.items() if rows]
            if found["tuned"]:
                name = f"{workload}_{batch_size}.png"
                _plot(found["tuned"], f"{workload}, batch {batch_size}, tuned", folder / name)
                parts += [f"![Validation loss of the tuned methods against steps]({name})"]
    for workload in sweeps.workloads(settings):
        points = {sweep: points_of(settings, results, workload, sweep) for sweep in settings.sweeps}
        found_points = {sweep: of_sweep for sweep, of_sweep in points.items() if len(of_sweep) > 1}
        if found_points:
            name = f"{workload}_sweeps.png"
            _plot_sweeps(found_points, folder / name)
            parts += [_SWEEPS.format(workload=workload, batch_size=max(WORKLOADS[workload].batch_sizes))]
            parts += [_sweep_table(sweep, of_sweep) for sweep, of_sweep in found_points.items()]
            parts += [f"![Test loss against what varies]({name})"]
    (folder / "tables.md").write_text("\n\n".join(["# Tables of the reproduction", _LEGEND, *parts]) + "\n", "utf-8")


def rows_of(settings: Settings, results: Results, workload: str, batch_size: int, regime: str) -> list[Row]:
    """Return the methods whose trainings are all there."""
    rows = []
    for method in compared_methods(settings, workload, batch_size):
        trials = of_seeds(settings, results, workload, method, batch_size, regime)
        if trials is not None and all(trial in results for trial in trials):
            rows.append(Row(method, trials, [results[trial] for trial in trials]))
    return rows


def points_of(settings: Settings, results: Results, workload: str, sweep: str) -> list[Point]:
    """Return the values at which all trainings of all methods are there."""
    points = []
    for value in sweeps.SWEEPS[sweep].values:
        by_method = {
            method: sweeps.of_seeds(settings, workload, sweep, value, method)
            for method in sweeps.compared(settings, sweep)
        }
        if all(trial in results for trials in by_method.values() for trial in trials):
            losses = {name: [results[trial]["test_loss"] for trial in trials] for name, trials in by_method.items()}
            points.append(Point(value, losses))
    return points


def difference(ours: Sequence[Optional[float]], plain: Sequence[Optional[float]]) -> Optional[Difference]:
    """Return the mean of ``ours - plain``, which belong together in pairs; None where one has diverged."""
    by_seed = [a - b for a, b in zip(ours, plain) if a is not None and b is not None]
    if len(by_seed) < max(2, len(ours)):
        return None
    mean = statistics.fmean(by_seed)
    half = float(student_t.ppf(0.975, len(by_seed) - 1)) * statistics.stdev(by_seed) / math.sqrt(len(by_seed))
    return Difference(mean, mean - half, mean + half)


def largest_stable_lr(settings: Settings, results: Results, row: Row) -> Optional[float]:
    """Return the largest learning rate that was tried and ended better than equal odds for all classes."""
    first = row.trials[0]
    chance = math.log(WORKLOADS[first.workload].classes)
    trials = [trial for trial in settings.trials(first.workload, row.method, first.batch_size) if trial in results]
    losses = {trial.lr: results[trial]["validation_loss"] for trial in trials}
    return max((lr for lr, loss in losses.items() if loss is not None and loss < chance), default=None)


def _heading(settings: Settings, results: Results, workload: str, batch_size: int, found: dict[str, list[Row]]) -> str:
    tuning = [trial for name in settings.methods for trial in settings.trials(workload, name, batch_size)]
    # What was tuned may be what the usual rule says.
    trials = {*tuning, *(trial for rows in found.values() for row in rows for trial in row.trials)}
    outcomes = [results[trial] for trial in trials if trial in results]
    hours = sum(outcome["seconds"] for outcome in outcomes) / 3600
    done = {row.method for row in found["tuned"]}
    missing = [name for name in compared_methods(settings, workload, batch_size) if name not in done]
    return (
        f"## {workload}, batch {batch_size}\n\n"
        f"{outcomes[0]['steps']} steps; target: validation loss {WORKLOADS[workload].target}. "
        f"{hours:.1f} hours on one thread, tuning included."
        + (f" Not tuned yet: {'; '.join(missing)}." if missing else "")
    )


def _table(settings: Settings, results: Results, regime: str, rows: Sequence[Row]) -> str:
    plain = next((row for row in rows if row.method == "plain"), None)
    lines = [f"### Learning rate {_TITLES[regime]}", "", _line(_HEADS), _line(["---", *["---:"] * (len(_HEADS) - 1)])]
    for row in rows:
        of_method = METHODS[row.method]
        value = row.trials[0].value
        compared = "" if plain is None or row is plain else _less(row.column("test_loss"), plain.column("test_loss"))
        lines += [
            _line(
                [
                    row.method + (" (2 gradients)" if of_method.gradients == 2 else ""),
                    f"{row.trials[0].lr:.3g}",
                    "" if value is None else f"{of_method.tuned} {value:g}",
                    _spread(row.column("test_loss"), "{:.3f}"),
                    compared,
                    _spread(row.column("accuracy"), "{:.1f}"),
                    _middle(row.column("steps_to_target")),
                    _number(largest_stable_lr(settings, results, row), "{:.3g}"),
                    _spread(row.column("sharpness"), "{:.2g}", spread=False),
                    # Two gradients a step: between steps, parameters hold ``x``.
                    "" if of_method.gradients == 2 else _spread(row.column("distance"), "{:.2g}", spread=False),
                ]
            )
        ]
    return "\n".join(lines)


def _sweep_table(sweep: str, points: Sequence[Point]) -> str:
    methods = list(points[0].losses)
    heads = [sweep]
    for method in methods:
        heads += [method] if method == "plain" else [method, "less plain [95%]"]
    lines = [f"### {sweep}", "", _line(heads), _line(["---:"] * len(heads))]
    for point in points:
        cells = [f"{point.value:g}"]
        for method in methods:
            cells += [_spread(point.losses[method], "{:.3f}")]
            cells += [] if method == "plain" else [_less(point.losses[method], point.losses["plain"])]
        lines += [_line(cells)]
    return "\n".join(lines)


def _less(ours: Sequence[Optional[float]], plain: Sequence[Optional[float]]) -> str:
    found = difference(ours, plain)
    return "" if found is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*found)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(numbers: Sequence[Optional[float]], form: str, spread: bool = True) -> str:
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return f"diverged ({len(numbers) - len(known)} of {len(numbers)})"
    mean = form.format(statistics.fmean(known))
    return f"{mean} ± {form.format(statistics.stdev(known))}" if spread and len(known) > 1 else mean


def _middle(numbers: Sequence[Optional[float]]) -> str:
    return "" if None in numbers else f"{statistics.median(number for number in numbers if number is not None):g}"


def _number(number: Optional[float], form: str) -> str:
    return "" if number is None else form.format(number)


def _plot(rows: Sequence[Row], title: str, path: Path) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        curves = [curve for curve in row.column("curve") if all(loss is not None for _, loss in curve)]
        if curves:
            steps = [step for step, _ in curves[0]]
            means = [statistics.fmean(losses) for losses in zip(*([loss for _, loss in curve] for curve in curves))]
            axes.plot(steps, means, marker=".", label=row.method, linewidth=2 if row.method == "plain" else 1)
    axes.set(title=title, xlabel="steps", ylabel="validation loss, mean of the seeds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _plot_sweeps(found: dict[str, list[Point]], path: Path) -> None:
    figure = Figure(figsize=(3.2 * len(found), 3.6), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for each, (sweep, points) in zip(axes, found.items()):
        for method in points[0].losses:
            known = {point.value: [x for x in point.losses[method] if x is not None] for point in points}
            means = {value: statistics.fmean(losses) for value, losses in known.items() if losses}
            (line,) = each.plot(list(means), list(means.values()), label=method)
            for value, losses in known.items():
                each.plot([value] * len(losses), losses, ".", color=line.get_color(), alpha=0.6)
        each.set_xscale("log", base=2)
        each.set(xlabel=sweep)
        each.grid(alpha=0.3)
        each.legend(fontsize="x-small")
    axes[0].set(ylabel="test loss; a dot is a seed")
    figure.savefig(path, dpi=110)
