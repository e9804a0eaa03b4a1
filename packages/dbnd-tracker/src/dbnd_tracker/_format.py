"""Values as people read them, on the page and in the terminal."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Final

from dbnd.plugins import duration, number

_UNITS: Final = "KMGTPE"
_CLASS: Final = re.compile(r"<class '([^']+)'>")


def local_time(time: datetime | None) -> str:
    """``time`` in local time, to the second."""
    if time is None:
        return ""
    try:
        return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):  # the first and last hours of the calendar exist in UTC alone
        return time.strftime("%Y-%m-%d %H:%M:%S UTC")


def duration_text(took: timedelta | None) -> str:
    """A duration such as 250ms, 3.2s, 4m 05s or 2h 03m; empty for None."""
    return "" if took is None else duration(took.total_seconds())


def counted(number: int, noun: str) -> str:
    """A number of things, such as 1 run or 2 runs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def bytes_text(size: int) -> str:
    """A number of bytes such as 512 B, 3.2 KiB or 1.5 GiB."""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, len(_UNITS))
    return f"{size / 1024**power:.1f} {_UNITS[power - 1]}iB"


def value_text(value: object, longest: int = 200) -> str:
    """A value on one line, cut to ``longest`` characters."""
    return _cut(" ".join(_text(value).split()), longest)


def cell_text(value: object, longest: int = 200) -> str:
    """A value for a table in the terminal, which shows line breaks as such, cut to ``longest`` characters.

    Numbers have four digits that count.
    """
    return _cut(number(value) if isinstance(value, float) else _text(value), longest)


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def type_name(text: object) -> str:
    """The name of an exception's type, of which clients send ``<class 'ValueError'>``."""
    match = _CLASS.fullmatch(str(text))
    return match[1] if match else str(text)
