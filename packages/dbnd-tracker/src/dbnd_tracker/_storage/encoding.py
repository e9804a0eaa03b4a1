"""How metric values are stored and read back: numbers in a column of doubles, everything else as text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, Final

from dbnd.tracking import storable


class Kind(IntEnum):
    """What a stored value was; the number stands in the database."""

    FLOAT = 0
    INT = 1
    STR = 2
    JSON = 3


KIND_NAMES: Final = {kind.value: kind.name.lower() for kind in Kind}

MAX_DEPTH: Final = 64
"""How deep lists and objects may be nested; what lies deeper is kept as the text of its JSON.

Those who read JSON give up somewhere between 200 and 1,000.
"""

# Python reads and writes ints of up to 4,300 digits.
_LONGEST_INT_BITS: Final = 14_000

# Integers up to here are exact as doubles; larger ones are kept as JSON text.
_EXACT: Final = 2**53


def encode(value: object) -> tuple[int, float | None, str | None]:
    """Kind, number and text under which any JSON value is stored; NaN is a float without a number."""
    if isinstance(value, float):
        return 0, (None if math.isnan(value) else value), None
    if isinstance(value, bool):
        return 3, None, json.dumps(value)
    if isinstance(value, int) and -_EXACT <= value <= _EXACT:
        return 1, float(value), None
    if isinstance(value, str):
        return 2, None, storable(value)
    return 3, None, json.dumps(readable(value))


def encode_all(
    values: Sequence[Any],
) -> tuple[Sequence[float | None], Sequence[int], Sequence[str | None]]:
    """Numbers, kinds and texts of ``values``; those that are all floats or all ints are not looked at one by one."""
    types = set(map(type, values))
    nothing = [None] * len(values)
    if types == {float} and not any(map(math.isnan, values)):
        return values, [Kind.FLOAT.value] * len(values), nothing
    if types == {int} and min(values) >= -_EXACT and max(values) <= _EXACT:
        return list(map(float, values)), [Kind.INT.value] * len(values), nothing
    kinds, numbers, texts = zip(*map(encode, values), strict=True)
    return numbers, kinds, texts


def decode(kind: int, number: float | None, text: str | None) -> Any:
    """The value that was stored, as ``readable`` makes it."""
    if kind == Kind.INT and number is not None:
        return int(number)
    if kind == Kind.FLOAT:
        return readable(math.nan if number is None else number)
    if kind == Kind.JSON:
        return from_json_text(text or "null")
    return text


def from_json_text(text: str) -> Any:
    """The value of stored JSON, as ``readable`` makes it: earlier versions stored some that cannot be shown."""
    try:
        return readable(json.loads(text))
    except (ValueError, RecursionError):  # an int of more digits than Python reads, or lists in lists in lists
        return text


def readable(value: Any, depth: int = MAX_DEPTH) -> Any:  # noqa: PLR0911  any JSON value, kind by kind
    """``value`` as JSON that everything can show and store.

    Numbers that JSON cannot carry become the strings NaN, Infinity and -Infinity; ints of thousands of digits, which
    Python does not read, are written in hex, as strings; lists and objects below ``depth`` become the text of their
    JSON; texts are made ``storable``.
    """
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT_BITS:
        return hex(value)
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == 0:
        return _json_text(value)
    if isinstance(value, dict):
        return {storable(key): readable(each, depth - 1) for key, each in value.items()}
    return [readable(each, depth - 1) for each in value]


class _Written(str):
    """Text that stands in JSON as it is."""

    __slots__ = ()


def _json_text(value: object) -> str:
    """The JSON of ``value``, however deep it is nested, where ``json`` would run out of stack."""
    pending: list[Any] = [value]  # the next last
    parts: list[str] = []
    while pending:
        each = pending.pop()
        if isinstance(each, _Written):
            parts.append(each)
        elif isinstance(each, dict):
            names = [f"{json.dumps(key)}: " for key in each]
            pending += _between("{", zip(names, each.values(), strict=True), "}")
        elif isinstance(each, (list, tuple)):
            pending += _between("[", (("", member) for member in each), "]")
        else:
            parts.append(json.dumps(readable(each)))
    return "".join(parts)


def _between(start: str, members: Iterable[tuple[str, object]], end: str) -> list[Any]:
    """What a list or an object is written as, the first last."""
    parts: list[Any] = [_Written(start)]
    for place, (name, member) in enumerate(members):
        parts += (_Written(f", {name}" if place else name), member)
    return [*parts, _Written(end)][::-1]
