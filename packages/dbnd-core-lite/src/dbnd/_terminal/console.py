"""The one place through which dbnd speaks to a terminal.

Results go to standard output, everything else to standard error. Colour is off for a pipe, with ``NO_COLOR`` and on
a dumb terminal; ``FORCE_COLOR`` turns it on. ``-v`` and ``-q`` add up to one number, the verbosity.

Everything that is printed is cleaned here (``plain``): names, errors and what a tracker answers are written by others,
and a terminal would obey what stands in them. Only what is ``Shown`` has line breaks and colours of its own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TextIO

import click

from dbnd._base.clock import monotonic
from dbnd._base.errors import UsageError
from dbnd._terminal.text import Shown, cut, pad, plain, together, width, wrap

# What is said by its kind: in which colour, and from which verbosity on. Errors are said always.
_KINDS: Final = {"info": (None, 0), "success": ("green", 0), "warning": ("yellow", -1), "error": ("red", -99)}
_NARROWEST: Final = 8
_verbosity = 0
_warned: Final[set[str]] = set()


def verbosity() -> int:
    """Number of ``-v`` given, less the number of ``-q``."""
    return _verbosity


def add_verbosity(number: int) -> None:
    """Say more (positive) or less (negative) from now on."""
    global _verbosity  # noqa: PLW0603  one terminal, one verbosity
    _verbosity += number


def has_colour(stream: TextIO | None) -> bool:
    """Whether text for ``stream`` is coloured; it is None where the process was started without one."""
    if stream is None or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in {"", "0"}:
        return True
    return _is_terminal(stream) and os.environ.get("TERM") != "dumb"


def _is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads it; what a program has put in the place of a stream need not be able to tell."""
    try:
        return stream is not None and not stream.closed and stream.isatty()
    except Exception:  # noqa: BLE001  it may raise anything
        return False


def columns(stream: TextIO | None) -> int | None:
    """Columns of the terminal that ``stream`` is, or None when it is none."""
    try:
        return None if stream is None else os.get_terminal_size(stream.fileno()).columns or None
    except Exception:  # noqa: BLE001  a file, or something else than a stream of the system's, which may raise anything
        return None


def is_live() -> bool:
    """Whether lines may change in place: both streams are a terminal that can do that, no machine's, and not ``-q``."""
    from dbnd._terminal.region import is_usable

    try:
        return _for_a_person() and all(is_usable(stream.fileno()) for stream in (sys.stdout, sys.stderr))
    except Exception:  # noqa: BLE001  no stream, or something else than one of the system's
        return False


def _for_a_person() -> bool:
    """Whether somebody may be looking on at a terminal that can do more than print lines."""
    is_ci = os.environ.get("CI", "").lower() not in {"", "0", "false"}
    return verbosity() >= 0 and not is_ci and os.environ.get("TERM", "dumb") != "dumb"


def _say(kind: str, text: str) -> None:
    colour, least = _KINDS[kind]
    if verbosity() < least or sys.stderr is None:
        return
    label = "dbnd: " if kind in {"info", "success"} else f"dbnd: {kind}: "
    text = plain(text)
    room = columns(sys.stderr)
    if room is not None and width(label) + width(text) > room:
        text = wrap(text, room - 1, used=width(label), indent="  ")
    _tell(click.style(label, fg=colour) + text)


def _tell(text: str) -> None:
    # Nobody reads it any more, or it is an object of the program's that is only half a stream, or closed already while
    # the interpreter is going down: that must not end what is going on.
    with suppress(Exception):
        click.echo(text, file=sys.stderr, color=has_colour(sys.stderr))


info: Final = partial(_say, "info")
"""Say something that helps, on standard error."""
success: Final = partial(_say, "success")
"""Say that something ended well, on standard error."""
warning: Final = partial(_say, "warning")
"""Say what is wrong but does not stop anything, on standard error."""
error: Final = partial(_say, "error")
"""Say what stopped the command, on standard error."""


def warn_once(text: str) -> None:
    """Warn of ``text``, once in a process."""
    if text not in _warned:
        _warned.add(text)
        warning(text)


def once_a_minute() -> Callable[[str], None]:
    """A ``warning`` that leaves out what comes within a minute of the last one."""
    last = float("-inf")

    def warn(text: str) -> None:
        nonlocal last
        if monotonic() - last >= 60:
            last = monotonic()
            warning(text)

    return warn


def details(text: str) -> None:
    """Add lines to what was said last, on standard error."""
    if verbosity() >= 0 and sys.stderr is not None:
        _tell(plain(text))


def excerpt(text: str) -> None:
    """Show lines that others wrote, such as a traceback, on standard error, whatever the verbosity."""
    click.echo(plain(text, lines=True), err=True, nl=False)


def is_confirmed(question: str) -> bool:
    """Ask on standard error for yes or no.

    Raises:
        UsageError: Nobody answers.
        Abort: Ctrl-C.
    """
    try:
        return click.confirm(plain(question), err=True)
    except click.Abort as error:
        _tell("")
        if isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise UsageError(
            "Nobody has answered, and nothing was removed: add --yes to do it without a question."
        ) from None


def result(text: str) -> None:
    """Print a command's result on standard output; what its encoding does not have becomes a question mark."""
    if sys.stdout is None:
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(plain(text).encode(encoding, "replace").decode(encoding), color=has_colour(sys.stdout))


def json_result(value: Any) -> None:
    """Print a command's result as JSON, whose own escapes keep it from the terminal."""
    result(plain(json.dumps(value, indent=2), lines=True))


class _TerminalFile:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(plain(text, lines=True))


def output() -> Any:
    """Standard output for a file of text: byte for byte, but for a terminal, which is not to obey what stands in it."""
    return _TerminalFile(sys.stdout) if _is_terminal(sys.stdout) else sys.stdout


@contextmanager
def progress(label: str, total: int, *, patience: float = 1.0) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far something is, once it takes longer than ``patience`` seconds.

    Yields:
        What is to be called with how much is left of ``total``.
    """
    started = monotonic()
    shown: list[Any] = []

    def show(left: int) -> None:
        if not shown and _is_terminal(sys.stderr) and _for_a_person() and monotonic() - started >= patience:
            shown.append(click.progressbar(length=max(1, total), label=plain(label), file=sys.stderr))
        for bar in shown:
            bar.update(max(0, total - left - bar.pos))

    try:
        yield show
    finally:
        for bar in shown:
            bar.render_finish()


def heading(text: str) -> Shown:
    """``text`` as a heading of a result."""
    return Shown(click.style(plain(text), bold=True))


def dimmed(text: str) -> Shown:
    """``text`` as something that matters less."""
    return Shown(click.style(plain(text), dim=True))


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    colours: Mapping[str, str] | None = None,
    whole_last: bool = False,
    uncut: Collection[str] = (),
) -> Shown:
    """``rows`` as aligned columns under ``headers``, as wide as standard output is.

    Args:
        headers: One title for each column.
        rows: Cells as text.
        colours: Colours of cells by their text.
        whole_last: Cut nothing: what is in the last column goes on in the next line of a narrow terminal.
        uncut: Titles of columns that say nothing once they are cut, such as times.
    """
    room = None if whole_last else columns(sys.stdout)
    kept = {place for place, title in enumerate(headers) if title in uncut}
    head, *lines = aligned([headers, *rows], room, colours or {}, kept)
    return together([heading(click.unstyle(head)), *lines], "\n")


def aligned(
    rows: Sequence[Sequence[str]],
    room: int | None,
    colours: Mapping[str, str] | None = None,
    uncut: Collection[int] = (),
) -> list[Shown]:
    """Lines in which the cells of ``rows`` stand under each other.

    Where they do not fit into ``room``, the widest columns are cut, but for the ``uncut``; if that is not enough, the
    last ones are left out, those first that are not to be cut.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    whole = {place: max(map(width, column)) for place, column in enumerate(zip(*cells, strict=True))}
    widths = dict(whole)
    while room is not None and sum(widths.values()) + 2 * (len(widths) - 1) > room:
        widest = max((place for place in widths if place not in uncut), key=widths.__getitem__, default=None)
        if widest is not None and widths[widest] > _NARROWEST:
            widths[widest] -= 1
        elif len(widths) > 1:
            del whole[max(whole, key=lambda place: (place in uncut, place))]
            widths = dict(whole)  # there may be more room for the others now
        else:
            break

    def line(row: Sequence[str]) -> Shown:
        texts = [pad(cut(row[place], size), size) for place, size in widths.items()]
        texts[-1] = texts[-1].rstrip()
        colour = [None if colours is None else colours.get(row[place]) for place in widths]
        styled = [click.style(text, fg=fg) if fg else text for text, fg in zip(texts, colour, strict=True)]
        return Shown("  ".join(styled).rstrip())

    return [line(row) for row in cells]
