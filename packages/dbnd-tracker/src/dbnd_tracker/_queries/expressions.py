"""Conditions on runs and on what they logged, as trees: ``metrics.loss < 0.5 and not params.optimizer = "sgd"``.

``grammar`` reads them from text; the read API's ``filter`` says the simplest of them as JSON.
"""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Literal

from dbnd.tracking import RunState
from dbnd_tracker._errors import TrackerError
from dbnd_tracker._storage.states import LOST

Kind = Literal["metrics", "params", "tags"]
KINDS: Final[tuple[Kind, ...]] = ("metrics", "params", "tags")
STATES: Final = (*(state.value for state in RunState), LOST)
"""Every state that a run can be shown in."""

ATTRIBUTES: Final = {
    "uid": "uid",
    "run_uid": "uid",
    "run_id": "uid",
    "root_run_uid": "root_run_uid",
    "job": "job",
    "job_name": "job",
    "project": "project",
    "project_name": "project",
    "state": "state",
    "status": "state",
    "user": "user",
    "user_id": "user",
    "name": "name",
    "run_name": "name",
    "start_time": "start_time",
    "end_time": "end_time",
}
"""What runs have, by all names that it goes by."""
_TIMES: Final = frozenset({"start_time", "end_time"})
_UIDS: Final = frozenset({"uid", "root_run_uid"})

ORDERINGS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NULLS: Final = ("is null", "is not null")
_EQUALS: Final = ("=", "!=", "in", "not in")
_PATTERNS: Final = ("like", "not like", "ilike", "not ilike")
STARTS_WITH: Final = "startswith"
"""Operator of the read API's ``filter`` alone."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class QueryError(TrackerError):
    """A question that cannot be answered: an unknown filter, operator or cursor."""


class ExpressionError(QueryError):
    """A condition that cannot be understood."""


@dataclass(frozen=True, slots=True)
class Field:
    """Something that runs log, by name: a metric, a param or a tag."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> Field | None:
        """The field that ``text`` names, as ``metrics.loss``, or None when it names none."""
        kind, dot, name = text.partition(".")
        return cls(kind, name) if dot and name and kind in KINDS else None


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something that runs have: one of the values of ``ATTRIBUTES``."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition.

    Args:
        operand: What is compared.
        operator: One of < <= > >= = != in, like, ilike, is null; in, like and ilike with or without not in front, and
            null with or without not; or ``STARTS_WITH``.
        values: With what, as it was written: any number for in, none for null, else one.
    """

    operand: Field | Attribute
    operator: str
    values: tuple[str, ...]

    def holds(self, found: object) -> bool:
        """Whether it holds for a value of a run; for a run that has none only ``is null`` does."""
        if self.operator in _NULLS:
            return (found is None) == (self.operator == "is null")
        if found is None:
            return False
        if self.operator in ORDERINGS:
            left, right = as_number(found), _text_as_number(self.values[0])
            return left is not None and right is not None and ORDERINGS[self.operator](left, right)
        is_wanted = not self.operator.startswith(("not", "!"))
        if self.operator in _PATTERNS:
            text, pattern = _text(found), self.values[0]
            if "ilike" in self.operator:
                text, pattern = text.lower(), pattern.lower()
            return is_like(text, pattern) == is_wanted
        return any(_equals(found, value) for value in self.values) == is_wanted


@dataclass(frozen=True, slots=True)
class Not:
    """A condition that must not hold."""

    part: Expression


@dataclass(frozen=True, slots=True)
class Both:
    """Conditions that must all hold."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Conditions of which one must hold."""

    parts: tuple[Expression, ...]


Expression = Comparison | Not | Both | Either


def comparisons(expression: Expression) -> Iterator[Comparison]:
    """All comparisons in a condition."""
    if isinstance(expression, Comparison):
        yield expression
    else:
        for part in (expression.part,) if isinstance(expression, Not) else expression.parts:
            yield from comparisons(part)


def problem(operand: Field | Attribute, sign: str, values: tuple[str, ...]) -> tuple[str, int | None] | None:
    """Why these are no comparison, or None when they are one.

    Returns:
        A sentence, and the place in ``values`` of what is wrong, or None where that is the operator.
    """
    what, known = _operators(operand)
    if sign not in known and not (sign == STARTS_WITH and "like" in known and isinstance(operand, Attribute)):
        return f"the operator {sign!r} does not exist for {what}; there are {', '.join(known)}", None
    for place, value in enumerate(values):
        if isinstance(operand, Field):
            if sign in ORDERINGS and _text_as_number(value) is None:
                return f"{sign} compares with a number, and {value[:80]!r} is none", place
        elif operand.name in _TIMES:
            try:
                as_time(value)
            except ValueError as error:
                return str(error), place
        elif operand.name == "state" and sign in _EQUALS and value.lower() not in STATES:
            return f"there is no state {value[:80]!r}; there are {', '.join(STATES)}", place
    return None


def _operators(operand: Field | Attribute) -> tuple[str, tuple[str, ...]]:
    """What ``operand`` is one of, and the operators for these."""
    if isinstance(operand, Field):
        return operand.kind, (*ORDERINGS, *_EQUALS, *_PATTERNS, *_NULLS)
    if operand.name in _TIMES:
        return "times", (*ORDERINGS, *_NULLS)
    return operand.name, (*_EQUALS, *_PATTERNS, *_NULLS)


def comparison(operand: Field | Attribute, sign: str, values: tuple[str, ...]) -> Comparison:
    """The comparison of ``operand`` with ``values``, in which there is no ``problem``."""
    if isinstance(operand, Attribute) and (operand.name in _UIDS or operand.name == "state"):
        values = tuple(value.lower() for value in values)  # as they are stored
    return Comparison(operand, sign, values)


def as_number(value: object) -> float | None:
    """``value`` as a number that has an order, or None: 0.1 is one, and so is the text "1e-3"; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


# One comparison is made with the values of all runs.
_text_as_number: Final = functools.lru_cache(maxsize=256)(as_number)


def as_time(text: str) -> datetime:
    """The time that ``text`` gives, in UTC: ISO 8601, UTC unless it says otherwise, or milliseconds since the epoch.

    Raises:
        ValueError: It gives none, or one outside the years 1 to 9999.
    """
    try:
        if text.isascii() and text.isdigit() and len(text) > len("20260304"):
            return _EPOCH + timedelta(milliseconds=int(text[:20]))
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not know the Z
        return time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        msg = f"{text[:80]!r} is no time in ISO 8601, such as 2026-03-04T05:06:07+00:00"
        raise ValueError(msg) from None


def _equals(found: object, value: str) -> bool:
    if _text(found) == value:
        return True
    left = as_number(found)
    return left is not None and left == _text_as_number(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def is_like(text: str, pattern: str) -> bool:
    """Whether ``text`` is of the form ``pattern``, in which % stands for any text and _ for any character.

    The time that it takes is that of reading ``text`` once: each part between two % is taken where it first fits.
    """
    first, *others = pattern.split("%")
    if not others:
        return len(text) == len(first) and _fits(text, 0, first)
    *inner, last = others
    end = len(text) - len(last)
    position = len(first)
    if position > end or not _fits(text, 0, first) or not _fits(text, end, last):
        return False
    for part in inner:
        found = _find(text, part, position, end)
        if found is None:
            return False
        position = found
    return True


def _fits(text: str, start: int, part: str) -> bool:
    """Whether ``part``, which is not longer than the rest, stands at ``start``."""
    there = text[start : start + len(part)]
    return there == part or ("_" in part and all(a in {b, "_"} for a, b in zip(part, there, strict=True)))


def _find(text: str, part: str, start: int, end: int) -> int | None:
    """Where ``part`` first ends between ``start`` and ``end``."""
    if "_" not in part:
        found = text.find(part, start, end)
        return None if found < 0 else found + len(part)
    # One bit for each character of the part: set where all up to it fit the characters read last (shift-and).
    anything = sum(1 << place for place, character in enumerate(part) if character == "_")
    masks: dict[str, int] = {}
    for place, character in enumerate(part):
        masks[character] = masks.get(character, anything) | 1 << place
    fitting, whole = 0, 1 << (len(part) - 1)
    for place in range(start, end):
        fitting = (fitting << 1 | 1) & masks.get(text[place], anything)
        if fitting & whole:
            return place + 1
    return None
