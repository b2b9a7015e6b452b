"""Tables for the terminal and in Markdown, and the pages of docs/generated that they are written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def text(value: Any) -> str:
    """Format a cell: three significant digits; from 1,000 on, whole numbers with separators."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table; without rows, only the title."""
    console = Console(width=160)
    if not rows:
        return console.print(title)
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(text(value) for value in row.values()))
    console.print(table)
    return None


def described(about: Mapping[str, str]) -> str:
    """Return what is said of the machine in one line."""
    return "; ".join(f"{key}: {value}" for key, value in about.items())


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
