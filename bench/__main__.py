"""``python -m bench``: our optimizers against what users would otherwise use or write.

``python -m bench static`` reports on the GPU kernels and needs no GPU; ``python -m bench profile`` counts what they do
on one. ``python -m bench compare A B`` sets two files of ``--json`` side by side. ``python -m bench state_formats``
measures what compact state does to training.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from bench import compare, figures, machine, plots, profile, release, report, static, workloads
from bench.cases import Case, cases
from bench.measure import host_seconds, interleaved, seconds

GENERATED = Path(__file__).parents[1] / "docs" / "generated"
COPY = "y.copy_(x)"
# Tables that compare no steps; the last three are for the CPU.
OTHERS = ("Host overhead", "Growth", "Release", "Instruction sets", "Memory", "First step")
Row = dict[str, Any]


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


def _sections(arguments: argparse.Namespace) -> list[tuple[str, list[Row]]]:
    """Measure every table that ``--only`` selects, and print each when it is done."""
    sections = []

    def add(title: str, rows: list[Row]) -> None:
        sections.append((title, rows))
        report.show(title, rows)

    def wanted(title: str) -> bool:
        return re.search(arguments.only, title) is not None

    device = torch.device(arguments.device)
    chosen = cases(arguments.rounds, arguments.large, device)
    titles = [*(case.title for case in chosen), *OTHERS[: None if device.type == "cpu" else 3]]
    if not any(wanted(title) for title in titles):
        sys.exit(f"Invalid --only value: {arguments.only!r} is in no title; the tables are:\n  " + "\n  ".join(titles))
    for case in track([case for case in chosen if wanted(case.title)], "Cases"):
        numel = workloads.numel_of(case.shapes)
        add(f"{case.title}: {len(case.shapes):,} tensors, {numel:,} parameters", _table(case, arguments))
    if wanted("Host overhead"):
        add("Host overhead: tensors of 64 numbers", figures.host_overhead(arguments.rounds, arguments.device))
    if wanted("Growth"):
        rows, exponent = figures.growth(arguments.rounds, arguments.large, arguments.device)
        add(f"Growth: ExtrapSGD, bf16, one tensor; from 16M on, time grows with the power {exponent:.2f} of size", rows)
    if wanted("Release"):
        rows, numel = release.peaks(arguments.device)
        of = f"{numel:,} parameters, {release.TOKENS} tokens, next to parameters and state"
        add(f"Release of gradients: peak memory of a training step with AdamW, {of}", rows)
    if device.type != "cpu":
        return sections
    if wanted("Instruction sets"):
        add("Instruction sets: GPT-2 124M, fp32", figures.instruction_sets(arguments.rounds))
    if wanted("Memory"):
        add("Memory on ResNet-50, bytes a parameter, next to parameters and gradients", figures.memory())
    if wanted("First step"):
        add("First step, with what is made in it", figures.first_step())
    return sections


def _plot(sections: list[tuple[str, list[Row]]], folder: Path) -> list[Path]:
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


def _write_docs(page: Path, about: dict[str, str], sections: list[tuple[str, list[Row]]]) -> None:
    images = _plot(sections, page.with_suffix(""))
    parts = [report.described(about), *(f"### {title}\n\n{report.markdown(rows)}" for title, rows in sections)]
    parts += [f"![{image.stem}]({page.stem}/{image.name})" for image in images]
    report.write_between_marks(page, "\n\n".join(parts))


def _measure(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    about = {
        "command": arguments.command_line,
        "date": datetime.date.today().isoformat(),
        **machine.describe(torch.device(arguments.device)),
    }
    print(report.described(about))
    sections = _sections(arguments)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"about": about, "tables": dict(sections)}, indent=2) + "\n")
    images = _plot(sections, arguments.json.parent / "bench")
    print(f"Written: {arguments.json}, {', '.join(str(image) for image in images)}")
    if arguments.write_docs:
        page = GENERATED / ("performance.md" if arguments.device == "cpu" else "performance_gpu.md")
        _write_docs(page, about, sections)
        print(f"Written: {page}")


def _profile(arguments: argparse.Namespace) -> None:
    try:
        rows = profile.rows()
    except RuntimeError as error:
        sys.exit(f"profile: {error}")
    title = f"Kernels on {profile.NUMEL:,} parameters, as ncu counts them"
    report.show(title, rows)
    if arguments.write_docs:
        about = machine.describe(torch.device("cuda"))
        page = GENERATED / "gpu_kernels.md"
        report.write_between_marks(page, f"{report.described(about)}\n\n### {title}\n\n{report.markdown(rows)}")
        print(f"Written: {page}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=["measure", "static", "profile", "compare", "state_formats"], default="measure"
    )
    parser.add_argument("files", nargs="*", type=Path, help="the two files that are compared")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--rounds", type=int, default=11, help="timed rounds of a case that takes long (default: 11)")
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="only tables whose title has it; a wrong one lists all"
    )
    parser.add_argument("--without", metavar="REGEX", help="leave out rows whose name has this regular expression")
    parser.add_argument("--large", action="store_true", help="add cases of 0.5 and 1 billion parameters; needs 13 GB")
    parser.add_argument("--device", default="cpu", help="device of the tensors (default: cpu)")
    default = Path("results/bench.json")
    parser.add_argument("--json", type=Path, default=default, metavar="FILE", help=f"the output (default: {default})")
    parser.add_argument("--write-docs", action="store_true", help="also write the tables and plots to docs/generated")
    parser.add_argument("--quick", action="store_true", help="a part of state_formats in seconds, to see that it works")
    parser.add_argument("--bandwidth", type=float, default=3350.0, help="GB/s of the projection (default: 3350, H100)")
    return parser


def main() -> None:
    """Measure, print and write the tables together with a description of the machine; or print the static report."""
    parser = _parser()
    arguments = parser.parse_args()
    chosen = [
        f"--{key.replace('_', '-')}" + ("" if value is True else f" {value}")
        for key, value in vars(arguments).items()
        if value != parser.get_default(key) and key not in ("what", "files", "json")
    ]
    arguments.command_line = " ".join(["python -m bench", *chosen])
    # The rows of a table step the same parameters on purpose.
    warnings.filterwarnings("ignore", message=".* was changed between steps of ")
    if len(arguments.files) != (2 if arguments.what == "compare" else 0):
        parser.error("compare takes two files, and nothing else takes any: python -m bench compare A.json B.json")
    if arguments.what == "compare":
        try:
            compare.show(*arguments.files)
        except (OSError, ValueError) as error:
            sys.exit(f"compare: {error}")
    elif arguments.what == "profile":
        _profile(arguments)
    elif arguments.what == "state_formats":
        from bench import state_formats  # not above: it imports scikit-learn, which takes a second

        state_formats.run(quick=arguments.quick, page=GENERATED / "state_formats.md" if arguments.write_docs else None)
    elif arguments.what == "static":
        for title, rows in static.sections(arguments.bandwidth):
            report.show(title, rows)
        if arguments.write_docs:
            print("\n".join(static.write_docs(GENERATED)))
    else:
        _measure(arguments)


if __name__ == "__main__":
    main()
