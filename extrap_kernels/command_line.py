"""What ``python -m extrap_kernels`` and ``python -m bench`` share: their help, exit codes, tables and progress bars."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

CHECK_FAILED = 1
WRONG_USE = 2
EXIT_CODES = "exit codes: 0, done and all checks passed; 1, a check failed; 2, wrong use, such as an unknown name"
_PIPE_WIDTH = 160  # characters

T = TypeVar("T")


def parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser whose help ends with an example, a whole command line, and the exit codes."""
    return argparse.ArgumentParser(prog=prog, description=description, **_ending(example))


def command(commands: Any, name: str, does: str, example: str) -> argparse.ArgumentParser:
    """Add a command to the result of ``add_subparsers()`` and return its parser, which has the same ending."""
    added: argparse.ArgumentParser = commands.add_parser(name, help=does, description=f"{does}.", **_ending(example))
    return added


def _ending(example: str) -> dict[str, Any]:
    return {
        "epilog": f"example: {example}\n\n{EXIT_CODES}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


@contextmanager
def wrong_use(prog: str) -> Iterator[None]:
    """Turn an error about what the user named into a line on stderr and the exit code 2, as argparse does it."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        sys.exit(WRONG_USE)


def positive(text: str) -> int:
    """Return a whole number above 0, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number.is_integer() or number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0, such as 12 or 7e9")
    return int(number)


def device(name: str) -> torch.device:
    """Return a device of this machine.

    Raises:
        RuntimeError: torch knows no such device, or finds no such GPU.
    """
    found = torch.device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= count:
        raise RuntimeError(f"device {name!r} is not there: torch finds {count} CUDA devices; use --device cpu")
    return found


@functools.cache
def console() -> Console:
    """Return the console of tables and bars: text as it is, and in a pipe wide enough for the widest table."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False, emoji=False, highlight=False)


def show(heads: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", numbers: Sequence[str] = ()) -> None:
    """Print a table.

    Args:
        heads: of the columns.
        rows: their cells.
        title: stands above it.
        numbers: heads of the columns that are aligned to the right.
    """
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def progress(items: Sequence[T], what: str) -> Iterable[T]:
    """Yield ``items`` under a bar that is gone at the end; a pipe gets none."""
    return track(items, what, console=console(), transient=True) if console().is_terminal else items
