"""How much one call may hold. A call is one transaction, and nobody else writes to an SQLite file meanwhile.

What holds more is refused before any work on it, and a client of our own sends it in parts.
"""

from __future__ import annotations

import re
from typing import Final

from pydantic import BaseModel

from dbnd_tracker._errors import TooMuchError
from dbnd_tracker._ingest.points import Group

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


def check_json(raw: bytes) -> None:
    """See, before a body is parsed, that it has not too many values: the least of them takes 50 bytes then."""
    if len(raw) <= MAX_VALUES or _values(raw) <= MAX_VALUES:
        return
    # Now without what stands in texts, each of which is a value or the key of one.
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    bare, texts = _TEXT.subn(b"", unescaped, count=2 * MAX_VALUES + 2)
    _check("values", max(_values(bare), texts // 2), MAX_VALUES)


def _values(raw: bytes) -> int:
    return sum(map(raw.count, (b",", b"[", b"{")))


def check(parsed: object) -> None:
    """See that what a call says, a body or groups of points, is not too much for one transaction."""
    groups = [group for group in parsed if isinstance(group, Group)] if isinstance(parsed, list) else []
    _check("points", sum(len(group.keys) for group in groups), MAX_POINTS)
    _check("metrics, params and tags", sum(len(group.names) for group in groups), MAX_NAMES)
    _check("entries in its lists", _entries(parsed), MAX_ENTRIES)


def _entries(value: object) -> int:
    count, left = 0, [value]  # lists may be nested deeper than calls of functions
    while left:
        each = left.pop()
        if isinstance(each, list):
            count += len(each)
            left += each
        elif isinstance(each, BaseModel):
            left += [member for _, member in each if isinstance(member, (list, BaseModel))]
    return count


def _check(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise TooMuchError(f"The body has more than {limit:,} {what}; send it in parts.")
