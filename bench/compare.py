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


def sections(a: Path, b: Path) -> list[tuple[str, list[report.Row]]]:
    """Return the table under a title, after a line, without rows, about what each file was measured on.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is none of ``--json``, or they are of different cases.
    """
    files = [_read(path) for path in (a, b)]
    compared = rows(*(_times(file["tables"]) for file in files))
    lines = [f"{name}: {path}; {report.described(file['about'])}" for name, path, file in zip("AB", (a, b), files)]
    return [*((line, []) for line in lines), ("B / A below 1: B is faster", compared)]


def _read(path: Path) -> dict[str, Any]:
    try:
        file = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(file, dict) or not {"about", "tables"} <= set(file):
        raise ValueError(f"{path} was not written by python -m bench --json: it has no 'about' and 'tables'")
    return file
