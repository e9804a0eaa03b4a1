"""How metric values are stored and read back: numbers in a column of doubles, everything else as text."""

from __future__ import annotations

import json
import math
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dbnd._values import storable

if TYPE_CHECKING:
    from collections.abc import Sequence


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
        return 2, None, storable(value)
    return 3, None, json.dumps(value)


class Encoded(NamedTuple):
    """Values as they are stored, in columns of one length (see ``encode``)."""

    kinds: Sequence[int]
    numbers: Sequence[float | None]
    texts: Sequence[str | None]


def encode_all(values: Sequence[Any]) -> Encoded:
    """``values`` as they are stored; those that are all floats or all ints are not looked at one by one."""
    types = set(map(type, values))
    if types == {float} and not any(map(math.isnan, values)):
        return Encoded([Kind.FLOAT.value] * len(values), values, [None] * len(values))
    if types == {int} and min(values) >= -_EXACT and max(values) <= _EXACT:
        return Encoded([Kind.INT.value] * len(values), list(map(float, values)), [None] * len(values))
    kinds, numbers, texts = zip(*map(encode, values), strict=True)
    return Encoded(kinds, numbers, texts)


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
