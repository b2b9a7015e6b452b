"""``python -m bench``: our optimizers against what users would otherwise use or write.

Without a command it measures. ``static`` reports on the GPU kernels and needs no GPU; ``profile`` counts what they do
on one. ``compare A B`` sets two files of ``--json`` side by side. ``state_formats`` measures what compact state does to
training.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from bench import compare, figures, imports, machine, plots, profile, release, report, static, workloads
from bench.cases import Case, cases
from bench.measure import host_seconds, interleaved, seconds
from extrap_kernels import command_line

PROG = "python -m bench"
GENERATED = Path(__file__).parents[1] / "docs" / "generated"
COPY = "y.copy_(x)"
# Tables that compare no steps; the last four are for the CPU.
OTHERS = ("Host overhead", "Growth", "Release", "Instruction sets", "Memory", "First step", "Import")
Row = dict[str, Any]
Sections = list[tuple[str, list[Row]]]


def _table(case: Case, arguments: argparse.Namespace) -> list[Row]:
    torch.set_num_threads(case.threads or arguments.threads)
    torch.compiler.reset()
    numel = workloads.numel_of(case.shapes)
    params = workloads.parameters(case.shapes, case.dtype, arguments.device, case.offset)
    without = arguments.without
    baselines = {n: b for n, b in case.baselines(params).items() if without is None or not re.search(without, n)}
    runs = {name: baseline.run for name, baseline in baselines.items()}
    timings = interleaved(runs, case.rounds, clock=functools.partial(seconds, device=arguments.device))
    on_host = {}
    if params[0].is_cuda:
        on_host = interleaved(runs, case.rounds, clock=functools.partial(host_seconds, device=arguments.device))
    torch.set_num_threads(arguments.threads)
    rates = {name: baseline.bytes * numel / timings[name].median / 1e9 for name, baseline in baselines.items()}
    first = next(iter(baselines))
    rows = []
    for name, baseline in baselines.items():
        timing = timings[name]
        row: Row = {
            "baseline": name,
            "ms": timing.median * 1e3,
            "lower": timing.lower * 1e3,
            "upper": timing.upper * 1e3,
            "B/param": baseline.bytes,
            "GB/s": rates[name],
        }
        if on_host:
            row["host ms"] = on_host[name].median * 1e3
        if COPY in rates:
            row["of copy"] = rates[name] / rates[COPY]
        row[f"time / {first}"] = timing.median / timings[first].median
        row[f"GB/s of {first} / its"] = rates[first] / rates[name]
        row["does less"] = baseline.does_less
        rows.append(row)
    return rows


def _pattern(option: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"Invalid {option} value: {text!r} is no regular expression: {error}") from error


def _check_without(arguments: argparse.Namespace, chosen: list[Case]) -> None:
    """Raise ValueError if no row would be left out; the rows of a case are known once it has parameters."""
    if arguments.without is None:
        return
    pattern, names = _pattern("--without", arguments.without), {}
    for case in chosen:
        names.update(dict.fromkeys(case.baselines(workloads.parameters([(8, 8)], case.dtype, arguments.device))))
    if not any(pattern.search(name) for name in names):
        rows = "\n  ".join(names)
        raise ValueError(f"Invalid --without value: {arguments.without!r} is in no row; the rows are:\n  {rows}")


def _chosen(arguments: argparse.Namespace) -> tuple[list[Case], list[str]]:
    """Return the cases and the titles of other tables that ``--only`` selects.

    Raises:
        RuntimeError: there is no such device.
        ValueError: ``--only`` or ``--without`` is no regular expression, or in no title or row.
    """
    device = command_line.device(arguments.device)
    every = cases(arguments.rounds, arguments.large, device)
    others = OTHERS[: None if device.type == "cpu" else 3]
    only = _pattern("--only", arguments.only)
    chosen, wanted = [c for c in every if only.search(c.title)], [title for title in others if only.search(title)]
    if not chosen and not wanted:
        titles = "\n  ".join([*(case.title for case in every), *others])
        raise ValueError(f"Invalid --only value: {arguments.only!r} is in no title; the tables are:\n  {titles}")
    _check_without(arguments, chosen)
    return chosen, wanted


def _sections(arguments: argparse.Namespace, chosen: list[Case], wanted: list[str]) -> Sections:
    """Measure the tables of :func:`_chosen`, and print each when it is done."""
    sections = []

    def add(title: str, rows: list[Row]) -> None:
        sections.append((title, rows))
        report.show(title, rows)

    for case in command_line.progress(chosen, "Cases"):
        numel = workloads.numel_of(case.shapes)
        add(f"{case.title}: {len(case.shapes):,} tensors, {numel:,} parameters", _table(case, arguments))
    if "Host overhead" in wanted:
        add("Host overhead: tensors of 64 numbers", figures.host_overhead(arguments.rounds, arguments.device))
    if "Growth" in wanted:
        rows, exponent = figures.growth(arguments.rounds, arguments.large, arguments.device)
        add(f"Growth: ExtrapSGD, bf16, one tensor; from 16M on, time grows with the power {exponent:.2f} of size", rows)
    if "Release" in wanted:
        rows, numel = release.peaks(arguments.device)
        of = f"{numel:,} parameters, {release.TOKENS} tokens, next to parameters and state"
        add(f"Release of gradients: peak memory of a training step with AdamW, {of}", rows)
    if "Instruction sets" in wanted:
        add("Instruction sets: GPT-2 124M", figures.instruction_sets(arguments.rounds))
    if "Memory" in wanted:
        add("Memory on ResNet-50, bytes a parameter, next to parameters and gradients", figures.memory())
    if "First step" in wanted:
        add("First step, with what is made in it", figures.first_step())
    if "Import" in wanted:
        add("Import, beyond that of torch", imports.rows(arguments.rounds))
    return sections


def _plot(sections: Sections, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for title, rows in sections:
        if rows and "baseline" in rows[0] and len(rows) > 4:
            name = "_".join(re.findall(r"\w+", title.partition(":")[0])).lower()
            made.append(folder / f"{name}.png")
            plots.step_times(title, rows, made[-1])
        elif title.startswith("Host overhead"):
            made.append(folder / "host_overhead.png")
            plots.against(rows, "tensors", [key for key in rows[0] if key.endswith(", µs")], made[-1], "µs a step")
        elif title.startswith("Growth"):
            made.append(folder / "growth.png")
            plots.against(rows, "parameters", ["ms"], made[-1], "ms a step")
    return made


def _write_docs(page: Path, about: dict[str, str], sections: Sections) -> None:
    images = _plot(sections, page.with_suffix(""))
    parts = [report.described(about), *(f"### {title}\n\n{report.markdown(rows)}" for title, rows in sections)]
    parts += [f"![{image.stem}]({page.stem}/{image.name})" for image in images]
    report.write_between_marks(page, "\n\n".join(parts))


def _about(arguments: argparse.Namespace, device: str) -> dict[str, str]:
    return {
        "command": arguments.command_line,
        "date": datetime.date.today().isoformat(),
        **machine.describe(torch.device(device)),
    }


def _measure(arguments: argparse.Namespace) -> None:
    with command_line.wrong_use(PROG):
        chosen, wanted = _chosen(arguments)
        about = _about(arguments, arguments.device)
    torch.set_num_threads(arguments.threads)
    # The rows of a table step the same parameters on purpose.
    warnings.filterwarnings("ignore", message=".* was changed between steps of ")
    print(report.described(about))
    sections = _sections(arguments, chosen, wanted)
    report.write_json(arguments.json, about, sections)
    images = _plot(sections, arguments.json.parent / "bench")
    if images:
        print(f"Written: {', '.join(str(image) for image in images)}")
    if arguments.write_docs:
        page = GENERATED / ("performance.md" if arguments.device == "cpu" else "performance_gpu.md")
        _write_docs(page, about, sections)
        print(f"Written: {page}")


def _show(arguments: argparse.Namespace, device: str, sections: Sections) -> None:
    for title, rows in sections:
        report.show(title, rows)
    if arguments.json is not None:
        report.write_json(arguments.json, _about(arguments, device), sections)


def _static(arguments: argparse.Namespace) -> None:
    _show(arguments, "cpu", static.sections(arguments.bandwidth))
    if arguments.write_docs:
        print("\n".join(static.write_docs(GENERATED)))


def _profile(arguments: argparse.Namespace) -> None:
    with command_line.wrong_use(f"{PROG} profile"):
        rows = profile.rows()
    title = f"Kernels on {profile.NUMEL:,} parameters, as ncu counts them"
    _show(arguments, "cuda", [(title, rows)])
    if arguments.write_docs:
        about = machine.describe(torch.device("cuda"))
        page = GENERATED / "gpu_kernels.md"
        report.write_between_marks(page, f"{report.described(about)}\n\n### {title}\n\n{report.markdown(rows)}")
        print(f"Written: {page}")


def _compare(arguments: argparse.Namespace) -> None:
    with command_line.wrong_use(f"{PROG} compare"):
        sections = compare.sections(arguments.a, arguments.b)
    _show(arguments, "cpu", sections)


def _state_formats(arguments: argparse.Namespace) -> None:
    from bench import state_formats  # not above: it imports scikit-learn, which takes a second

    page = GENERATED / "state_formats.md" if arguments.write_docs else None
    sections = state_formats.run(quick=arguments.quick, page=page)
    if arguments.json is not None:
        report.write_json(arguments.json, _about(arguments, "cpu"), sections)


def _add_measure(commands: Any) -> None:
    does = "measure the optimizers beside others: what is done without a command"
    measure = command_line.command(commands, "measure", does, f"{PROG} --only Variants --rounds 5")
    count = command_line.positive
    measure.add_argument("--threads", type=count, default=2, metavar="N", help="torch threads (default: 2)")
    measure.add_argument(
        "--rounds", type=count, default=11, metavar="N", help="timed rounds of a case that takes long (default: 11)"
    )
    measure.add_argument(
        "--only", default="", metavar="REGEX", help="only tables whose title has it; a wrong one lists all"
    )
    measure.add_argument("--without", metavar="REGEX", help="leave out rows whose name has it; a wrong one lists all")
    measure.add_argument("--large", action="store_true", help="add cases of 0.5 and 1 billion parameters; needs 13 GB")
    measure.add_argument("--device", default="cpu", help="device of the tensors (default: cpu)")
    default = Path("results/bench.json")
    measure.add_argument("--json", type=Path, default=default, metavar="FILE", help=f"the output (default: {default})")
    _add_write_docs(measure)


def _add_others(commands: Any) -> None:
    does = "report on the GPU kernels as they are compiled; needs no GPU"
    static_parser = command_line.command(commands, "static", does, f"{PROG} static --bandwidth 4800")
    static_parser.add_argument(
        "--bandwidth", type=float, default=3350.0, metavar="GB/S", help="of the projection (default: 3350, H100)"
    )
    does = "count what the kernels do on the GPU of this machine, by Nsight Compute"
    profile_parser = command_line.command(commands, "profile", does, f"{PROG} profile")
    does = "set two files of --json side by side"
    compare_parser = command_line.command(commands, "compare", does, f"{PROG} compare before.json after.json")
    for name in ("a", "b"):
        compare_parser.add_argument(name, type=Path, metavar=name.upper(), help="a file that was written by --json")
    does = "measure what compact state does to moments, updates and losses, in a quarter of an hour"
    formats_parser = command_line.command(commands, "state_formats", does, f"{PROG} state_formats --quick")
    formats_parser.add_argument("--quick", action="store_true", help="a part in seconds, to see that it works")
    for parser in (static_parser, profile_parser, compare_parser, formats_parser):
        parser.add_argument("--json", type=Path, metavar="FILE", help="also write the tables there (default: nowhere)")
    for parser in (static_parser, profile_parser, formats_parser):
        _add_write_docs(parser)


def _add_write_docs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write-docs", action="store_true", help="also write tables and plots to docs/generated")


_RUN = {
    "measure": _measure,
    "static": _static,
    "profile": _profile,
    "compare": _compare,
    "state_formats": _state_formats,
}


def main() -> None:
    """Carry out the command; the exit codes are those of :mod:`extrap_kernels.command_line`."""
    does = "Our optimizers against what users would otherwise use or write."
    parser = command_line.parser(PROG, does, f"{PROG} --only Variants --rounds 5")
    commands = parser.add_subparsers(dest="command", metavar="command")
    _add_measure(commands)
    _add_others(commands)
    given = sys.argv[1:]
    # Without a command, options are those of "measure".
    measures = not given or (given[0].startswith("-") and given[0] not in ("-h", "--help"))
    arguments = parser.parse_args(["measure", *given] if measures else given)
    default = commands.choices[arguments.command].get_default
    chosen = [
        f"--{key.replace('_', '-')}" + ("" if value is True else f" {value}")
        for key, value in vars(arguments).items()
        if key not in ("command", "json", "a", "b") and value != default(key)
    ]
    name = [] if arguments.command == "measure" else [arguments.command]
    arguments.command_line = " ".join([PROG, *name, *chosen])
    _RUN[arguments.command](arguments)


if __name__ == "__main__":
    main()
