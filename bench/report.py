"""Tables for the terminal and in Markdown, and the pages of docs/generated that they are written to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extrap_kernels import command_line

Row = dict[str, Any]
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def text(value: Any) -> str:
    """Format a cell: three significant digits; from 1,000 on, whole numbers with separators."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table; without rows, only the title."""
    if not rows:
        return print(title)
    numbers = [column for column, value in rows[0].items() if not isinstance(value, str)]
    cells = ([text(value) for value in row.values()] for row in rows)
    command_line.show(list(rows[0]), cells, title=title, numbers=numbers)
    return None


def described(about: Mapping[str, str]) -> str:
    """Return what is said of the machine in one line."""
    return "; ".join(f"{key}: {value}" for key, value in about.items())


def write_json(path: Path, about: Mapping[str, str], sections: Sequence[tuple[str, Sequence[Row]]]) -> None:
    """Write what was measured on what machine, and the tables by title; make the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about, "tables": dict(sections)}, indent=2) + "\n")
    print(f"Written: {path}")


def markdown(rows: Sequence[Row]) -> str:
    """Return a Markdown table."""
    heads = list(rows[0])
    marks = ["---" if isinstance(rows[0][head], str) else "---:" for head in heads]
    lines = [heads, marks, *([text(value) for value in row.values()] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_between_marks(page: Path, measured: str) -> None:
    """Replace the text between the two marks of a page.

    Raises:
        ValueError: the page lacks a mark.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the line {BEGIN!r} or {END!r}; the tables go between them")
    page.write_text(f"{before}{BEGIN}\n\n{measured.strip()}\n\n{END}{after}")
