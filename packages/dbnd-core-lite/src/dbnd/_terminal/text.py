"""Text for people: cleaned, measured in columns, cut to fit; numbers, durations, series and problems in few words."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic import ValidationError

_BARS: Final = "▁▂▃▄▅▆▇█"
_DURATION: Final = re.compile(r"(\d{1,9})\s*([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST_DURATION: Final = timedelta(days=36_500)
_JOINER: Final = "\u200d"
_EMOJI: Final = "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
# What is looked at by itself: an emoji that invisible characters hold together, and any character but those of ASCII.
_PARTS: Final = re.compile(rf"[0-9#*]\ufe0f\u20e3|{_EMOJI}(?:\ufe0f?{_JOINER}{_EMOJI})*[\ufe0e\ufe0f]?|[^ -~]")
# What Unicode lets nobody see (its property Default_Ignorable_Code_Point) though it is no format character.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Vowels and finals of Korean that is written in parts: they stand in the square of the consonant before them.
_WITHIN_SQUARES: Final = re.compile("[\u1160-\u11ff\ud7b0-\ud7ff]")
# Whole numbers are written out up to here; a longer one is told by its size.
_LONGEST_INT: Final = 10**12


def width(text: str) -> int:
    """Columns that ``text`` takes on a terminal: two for a wide character, none for one that combines."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"} or _WITHIN_SQUARES.match(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


class Shown(str):
    """Text that may be printed as it is; what is made of it is an ordinary string, which is cleaned once more."""

    __slots__ = ()

    def __str__(self) -> str:
        """Itself, so that an exception gives its message out as it was given."""
        return self


def plain(text: str, *, lines: bool = False) -> Shown:
    r"""``text`` with all in it that a terminal would obey, or that nobody would see, as escapes such as ``\x1b``.

    These are control and format characters, those that change the direction of text, the invisible ones, surrogates and
    what has no meaning in Unicode. Letters, accents, blanks and emoji of several characters stay; with ``lines``, also
    line breaks and tabs, as in a log or a traceback.
    """
    if isinstance(text, Shown):
        return text
    if text.isascii() and text.isprintable():
        return Shown(text)
    return Shown(_PARTS.sub(lambda found: _visible(found[0], "\n\t" if lines else ""), text))


def _visible(part: str, kept: str) -> str:
    if len(part) > 1 or part in kept:
        return part
    is_shown = (part.isprintable() or unicodedata.category(part) == "Zs") and not _INVISIBLE.match(part)
    return part if is_shown else part.encode("unicode_escape").decode()


def together(parts: Iterable[str], by: str = "") -> Shown:
    """``parts``, each of them cleaned if it is not yet, with ``by`` between them."""
    return Shown(by.join(map(plain, parts)))


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
    return "".join(kept).rstrip(_JOINER) + "…" if columns > 0 else ""


def wrap(text: str, columns: int, *, used: int = 0, indent: str = "") -> str:
    """``text`` broken at blanks into lines of at most ``columns``; a longer word stays whole, as links must.

    Before the first line there are ``used`` columns already; the others start with ``indent``.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        first, *words = line.split(" ")
        lines.append((indent if lines else "") + first)
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


def capitalised(text: str) -> str:
    """``text`` as a sentence begins."""
    return text[:1].upper() + text[1:]


def number(value: object) -> str:
    """A value of a metric: a number with four digits that count, anything else as a line of text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(str(value))
    if isinstance(value, int) and abs(value) < _LONGEST_INT:
        return str(value)
    try:
        # What is longer before its point has all digits there: 12346 is read more easily than 1.235e+04.
        return f"{value:.0f}" if 9999.5 <= abs(value) < _LONGEST_INT else f"{value:.4g}"
    except OverflowError:  # an int beyond the floats
        return "inf" if value > 0 else "-inf"


def duration(seconds: float) -> str:
    """A duration such as 250ms, 3.2s, 12s, 4m 05s or 2h 03m."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{int(seconds)}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def parse_duration(text: str) -> timedelta | None:
    """The duration that ``text`` gives, such as 30m, 12h, 7d or 2w; None when it gives none up to a hundred years."""
    found = _DURATION.fullmatch(text.strip())
    try:
        span = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
    except OverflowError:
        return None
    return span if span is not None and span <= _LONGEST_DURATION else None


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A sentence with ``prefix`` and the one of ``known`` that is most like ``name``; empty when none is like it."""
    import difflib

    near = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {prefix + near[0]!r}?" if near else ""


def first_problem(error: ValidationError) -> tuple[tuple[str | int, ...], str]:
    """Where the first thing stands that pydantic has found wrong, and what it is, as the end of a sentence."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    return first["loc"], reason[:1].lower() + reason[1:]


def sparkline(values: Sequence[float], columns: int) -> str:
    """A series, or the means of neighbours in a longer one, as a line of bars; infinities and NaN are blanks."""
    count = min(len(values), columns)
    edges = [len(values) * i // count for i in range(count + 1)] if count else []
    groups = [[value for value in values[a:b] if math.isfinite(value)] for a, b in itertools.pairwise(edges)]
    # Halves, because the difference of the largest floats is none.
    halves = [sum(value / len(group) / 2 for value in group) for group in groups]
    low, high = (
        pick((h for h, group in zip(halves, groups, strict=True) if group), default=0.0) for pick in (min, max)
    )
    span = (high - low) or 1.0
    return "".join(
        _BARS[min(int((half - low) / span * len(_BARS)), len(_BARS) - 1)] if group else " "
        for half, group in zip(halves, groups, strict=True)
    )
