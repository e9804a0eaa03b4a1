"""How much one call may hold. A call is one transaction, and nobody else writes to an SQLite file meanwhile.

What holds more is refused before any work on it, and a client of our own sends it in parts.
"""

from __future__ import annotations

import re
from typing import Final

from pydantic import BaseModel

from dbnd_tracker._errors import TooMuchError
from dbnd_tracker._ingest.points import Points

MAX_VALUES: Final = 1_000_000
"""Values in one body of JSON: some 100 MB when it is parsed, and no other thread does anything meanwhile."""
MAX_POINTS: Final = 100_000
"""Points of one call."""
MAX_NAMES: Final = 20_000
"""Metrics, params and tags that are named by one call."""
MAX_ENTRIES: Final = 50_000
"""Members of all lists of another call: task runs, their params, relations, operations on datasets, …"""

# A text without escapes; one that is not closed goes on to the end, so that no place is looked at twice.
_TEXT: Final = re.compile(rb'"[^"]*"?')
# Bytes that are counted in one go, while no other thread of Python does anything.
_PIECE: Final = 1 << 16
_BEFORE_VALUES: Final = (b",", b"[", b"{")


def check_json(raw: bytes) -> None:
    """See, before it is parsed, that a body does not consist of too many values: the least of them takes 50 bytes then.

    Raises:
        TooMuchError: It does.
    """
    if len(raw) <= MAX_VALUES or _values(raw, 0, len(raw)) <= MAX_VALUES:
        return
    count, start = 0, 0  # now without those within texts
    raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    for texts, text in enumerate(_TEXT.finditer(raw)):
        count = max(count + _values(raw, start, text.start()), texts // 2)  # each text is a value or the key of one
        start = text.end()
        if count > MAX_VALUES:
            break
    _check("values", count + _values(raw, start, len(raw)), MAX_VALUES)


def _values(raw: bytes, start: int, end: int) -> int:
    """How many values begin in a part of ``raw``, counted as far as there are too many."""
    count = 0
    for first in range(start, end, _PIECE):
        last = min(end, first + _PIECE)
        count += sum(raw.count(mark, first, last) for mark in _BEFORE_VALUES)
        if count > MAX_VALUES:
            break
    return count


def check(parsed: object) -> None:
    """See that what a call says is not too much for one transaction.

    Args:
        parsed: What the body of a call is parsed to.

    Raises:
        TooMuchError: It is.
    """
    if isinstance(parsed, Points):
        _check("points", len(parsed.times), MAX_POINTS)
        _check("metrics, params and tags", len(parsed.series) + len(parsed.texts), MAX_NAMES)
    else:
        _check("entries in its lists", _entries(parsed), MAX_ENTRIES)


def _entries(value: object) -> int:
    if isinstance(value, list):
        return len(value) + sum(map(_entries, value))
    if isinstance(value, BaseModel):
        return sum(_entries(member) for _, member in value if isinstance(member, (list, BaseModel)))
    return 0


def _check(what: str, count: int, limit: int) -> None:
    if count > limit:
        msg = f"The body has more than {limit:,} {what}; send it in parts."
        raise TooMuchError(msg)
