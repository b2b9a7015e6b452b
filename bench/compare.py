"""``python -m bench compare A B``: the times of two files of ``--json`` side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import report

# Milliseconds by case and baseline.
Times = dict[tuple[str, str], float]


def _times(tables: dict[str, list[report.Row]]) -> Times:
    return {(case, row["baseline"]): row["ms"] for case, rows in tables.items() for row in rows if "baseline" in row}


def rows(a: Times, b: Times) -> list[report.Row]:
    """Return a row for each baseline of each case, with "-" where one of the files lacks it.

    Raises:
        ValueError: the files are of different cases.
    """
    cases, others = ({case for case, _ in times} for times in (a, b))
    if cases != others:
        raise ValueError(
            f"the files are of different cases: only A has {sorted(cases - others)}, only B has "
            f"{sorted(others - cases)}; measure both with the same --only and --large"
        )
    return [
        {
            "case": key[0],
            "baseline": key[1],
            "A, ms": a.get(key, "-"),
            "B, ms": b.get(key, "-"),
            "B / A": b[key] / a[key] if key in a and key in b else "-",
        }
        for key in {**a, **b}
    ]


def show(a: Path, b: Path) -> None:
    """Print what each file was measured on, and the table.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no JSON, or they are of different cases.
    """
    files: list[dict[str, Any]] = [json.loads(path.read_text()) for path in (a, b)]
    compared = rows(*(_times(file["tables"]) for file in files))
    for name, path, file in zip("AB", (a, b), files):
        print(f"{name}: {path}; {report.described(file['about'])}")
    report.show("B / A below 1: B is faster", compared)
