"""The one place through which dbnd speaks to a terminal.

Results go to standard output, everything else to standard error. Colour is click's: off for a pipe, and off
with ``NO_COLOR`` or without a terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click

_COLOURS = {"info": None, "success": "green", "warning": "yellow", "error": "red"}


def _colour(stream: TextIO) -> bool | None:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty()


def _say(kind: str, text: str) -> None:
    label = "dbnd: " if kind in {"info", "success"} else f"dbnd: {kind}: "
    # A daemon thread may speak while the interpreter is going down, when the stream is already closed.
    if sys.stderr is None or sys.stderr.closed:
        return
    click.echo(click.style(label, fg=_COLOURS[kind]) + text, file=sys.stderr, color=_colour(sys.stderr))


def info(text: str) -> None:
    """Say something that helps, on standard error."""
    _say("info", text)


def success(text: str) -> None:
    """Say that something ended well, on standard error."""
    _say("success", text)


def warning(text: str) -> None:
    """Say what is wrong but does not stop anything, on standard error."""
    _say("warning", text)


def error(text: str) -> None:
    """Say what stopped the command, on standard error."""
    _say("error", text)


def result(text: str) -> None:
    """Print a command's result on standard output."""
    click.echo(text, color=_colour(sys.stdout))


def heading(text: str) -> str:
    """``text`` as a heading of a result."""
    return click.style(text, bold=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """``rows`` as aligned columns under ``headers``; the last column is not padded.

    Args:
        headers: One title for each column.
        rows: Cells as text; line breaks in a cell are shown as spaces.
    """
    cells = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [headers, *cells]) for column in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return "\n".join([heading(line(headers)), *(line(row) for row in cells)])
