"""Text for a terminal: its width in columns, cut to fit, and numbers, durations and series in few characters."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"
_MINUTE: Final = 60
_TENTHS_UNTIL: Final = 10
_JOINER: Final = "\u200d"
# Whole numbers are written out up to here; a longer one is told by its size.
_LONGEST_INT: Final = 10**12


def width(text: str) -> int:
    """Columns that ``text`` takes on a terminal: two for a wide character, none for one that combines."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if character == _JOINER or unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def plain(text: str) -> str:
    """``text`` on one line and without control characters, which a terminal would obey."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() or c == _JOINER else "\ufffd" for c in line)


def cut(text: str, columns: int) -> str:
    """The start of ``text``, marked with "…" where it is longer than ``columns``."""
    if width(text) <= columns:
        return text
    room, kept = columns - 1, []
    for character in text:
        room -= _columns(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…" if columns > 0 else ""


def wrap(text: str, columns: int, *, used: int = 0, indent: str = "") -> str:
    """``text`` broken at blanks into lines of at most ``columns``; a longer word stays whole, as links must.

    Args:
        text: What is to be broken; lines that it has already stay.
        columns: Widest line.
        used: Columns that stand before the first line already.
        indent: Start of all lines but the first.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        words = iter(line.split(" "))
        lines.append((indent if lines else "") + next(words))
        for word in words:
            before = used if len(lines) == 1 else 0
            if before + width(lines[-1]) + 1 + width(word) > columns:
                lines.append(indent + word)
            else:
                lines[-1] += f" {word}"
    return "\n".join(lines)


def pad(text: str, columns: int) -> str:
    """``text`` followed by blanks up to ``columns``."""
    return text + " " * (columns - width(text))


def number(value: object) -> str:
    """A value of a metric: a number with five digits that count, anything else as a line of text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(str(value))
    if isinstance(value, int) and abs(value) < _LONGEST_INT:
        return str(value)
    try:
        return f"{value:.5g}"
    except OverflowError:  # an int beyond the floats
        return "inf" if value > 0 else "-inf"


def duration(seconds: float) -> str:
    """A duration such as 0.3s, 12s, 4m 05s or 2h 03m."""
    seconds = max(seconds, 0.0)
    if seconds < _MINUTE:
        return f"{seconds:.1f}s" if seconds < _TENTHS_UNTIL else f"{int(seconds)}s"
    minutes, rest = divmod(int(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def sparkline(values: Sequence[float], columns: int) -> str:
    """A series as a line of bars, the lowest value as the lowest bar; infinities and NaN are blanks.

    Args:
        values: The series; means of neighbours are shown when it is longer than ``columns``.
        columns: Widest line.
    """
    count = min(len(values), columns)
    if count == 0:
        return ""
    edges = [len(values) * i // count for i in range(count + 1)]
    means = [_mean(values[a:b]) for a, b in itertools.pairwise(edges)]
    finite = [mean for mean in means if mean is not None]
    if not finite:
        return " " * count
    low, high = min(finite), max(finite)
    # Halves, because the difference of the largest floats is none.
    span = (high / 2 - low / 2) or 1.0
    return "".join(
        " " if mean is None else _BARS[min(int((mean / 2 - low / 2) / span * len(_BARS)), len(_BARS) - 1)]
        for mean in means
    )


def _mean(values: Iterable[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return sum(value / len(finite) for value in finite) if finite else None
