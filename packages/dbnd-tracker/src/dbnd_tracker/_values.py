"""How metric values are stored and read back: numbers in a column of doubles, everything else as text."""

from __future__ import annotations

import json
import math
from enum import IntEnum
from typing import Any, Final


class Kind(IntEnum):
    """What a stored value was; the number stands in the database."""

    FLOAT = 0
    INT = 1
    STR = 2
    JSON = 3


KIND_NAMES: Final = {kind.value: kind.name.lower() for kind in Kind}

# Integers up to here are exact as doubles; larger ones are kept as JSON text.
_EXACT: Final = 2**53


def encode(value: object) -> tuple[int, float | None, str | None]:
    """Kind, number and text under which ``value`` is stored; NaN is a float without a number.

    Args:
        value: Any JSON value, NaN and infinities included.
    """
    if isinstance(value, float):
        return 0, (None if math.isnan(value) else value), None
    if isinstance(value, bool):
        return 3, None, json.dumps(value)
    if isinstance(value, int) and -_EXACT <= value <= _EXACT:
        return 1, float(value), None
    if isinstance(value, str):
        return 2, None, clean(value)
    return 3, None, json.dumps(value)


def clean(text: str) -> str:
    """``text`` without what no database keeps: lone surrogates and NUL."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def decode(kind: int, number: float | None, text: str | None) -> Any:  # noqa: ANN401  any JSON value
    """The value that was stored, as ``readable`` makes it."""
    if kind == Kind.INT and number is not None:
        return int(number)
    if kind == Kind.FLOAT:
        return readable(math.nan if number is None else number)
    if kind == Kind.JSON:
        return readable(json.loads(text or "null"))
    return text


def readable(value: Any) -> Any:  # noqa: ANN401  any JSON value
    """``value`` with each number that JSON cannot carry as one of the strings NaN, Infinity and -Infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return "NaN"
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: readable(member) for key, member in value.items()}
    if isinstance(value, list):
        return [readable(member) for member in value]
    return value
