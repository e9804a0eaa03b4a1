"""Conditions on runs and on what they logged, as trees: ``metrics.loss < 0.5 and not params.optimizer = "sgd"``.

``grammar`` reads them from text.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final, Literal, NamedTuple

from dbnd.tracking import RunState
from dbnd_tracker._errors import TrackerError
from dbnd_tracker._storage.states import LOST

LoggedKind = Literal["metrics", "params", "tags"]
KINDS: Final[tuple[LoggedKind, ...]] = ("metrics", "params", "tags")
STATES: Final = (*(state.value for state in RunState), LOST)
"""Every state that a run can be shown in."""

ATTRIBUTES: Final = {
    **dict.fromkeys(("uid", "run_uid", "run_id"), "uid"),
    "root_run_uid": "root_run_uid",
    **dict.fromkeys(("job", "job_name"), "job"),
    **dict.fromkeys(("project", "project_name"), "project"),
    **dict.fromkeys(("state", "status"), "state"),
    **dict.fromkeys(("user", "user_id"), "user"),
    **dict.fromkeys(("name", "run_name"), "name"),
    "start_time": "start_time",
    "end_time": "end_time",
    "task_run_uid": "task_run_uid",
    "mlflow_run_id": "mlflow_run_id",
    **dict.fromkeys(("experiment", "experiment_name"), "experiment"),
}
"""What runs have, by all names that it goes by."""
_TIMES: Final = frozenset({"start_time", "end_time"})
_STORED_LOWER: Final = frozenset({"uid", "root_run_uid", "task_run_uid", "state"})

ORDERINGS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NULLS: Final = ("is null", "is not null")
_EQUALS: Final = ("=", "!=", "in", "not in")
_PATTERNS: Final = ("like", "not like", "ilike", "not ilike")


Shown = Literal["last", "min", "max", "best"]
"""Which value of a metric is meant; the best one is the smallest of what is a loss, and else the largest."""
SHOWN: Final[tuple[Shown, ...]] = ("last", "best", "min", "max")
_LOSS: Final = re.compile(
    r"loss|err(or)?([^a-z]|$)|(^|[^a-z])(r?mse|mae|mape|smape|perplexity|wer|cer|fid)([^a-z]|$)", re.IGNORECASE
)


class QueryError(TrackerError):
    """A question that cannot be answered: a condition, order or cursor that cannot be understood."""


class Field(NamedTuple):
    """Something that runs log, by name: a metric, a param or a tag.

    Of a metric, ``shown`` says which of its values is meant; conditions test the last one.
    """

    kind: LoggedKind
    name: str
    shown: Shown = "last"

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}" if self.shown == "last" else f"{self.shown}:{self.kind}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> Field | None:
        """The field that ``text`` names, as ``metrics.loss`` or ``min:metrics.loss``, or None when it names none."""
        shown = next((shown for shown in SHOWN if text.startswith(f"{shown}:metrics.")), None)
        kind, dot, name = text.removeprefix(f"{shown}:").partition(".")
        return cls(kind, name, shown or "last") if dot and name and kind in KINDS else None

    @property
    def logged(self) -> Field:
        """What was logged, without the choice of its value."""
        return self._replace(shown="last")

    @property
    def is_loss(self) -> bool:
        """Whether it is a metric of which less is better, by its name."""
        return self.kind == "metrics" and _is_loss(self.name)

    @property
    def is_system(self) -> bool:
        """Whether it is a metric of the machine, of which none is better, by its name."""
        return self.kind == "metrics" and self.name.startswith("system/")


@functools.lru_cache(maxsize=1_000)
def _is_loss(name: str) -> bool:
    return _LOSS.search(name) is not None


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something that runs have: one of the values of ``ATTRIBUTES``."""

    name: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One condition.

    Args:
        operand: What is compared.
        operator: One of those in ``ORDERINGS``, ``_EQUALS``, ``_PATTERNS`` and ``_NULLS``.
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
    part: Expression


@dataclass(frozen=True, slots=True)
class Both:
    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Either:
    parts: tuple[Expression, ...]


Expression = Comparison | Not | Both | Either


def operands(expression: Expression | None) -> Iterator[Field | Attribute]:
    """What a condition compares, from left to right."""
    if isinstance(expression, Comparison):
        yield expression.operand
    elif isinstance(expression, Not):
        yield from operands(expression.part)
    elif expression is not None:
        for part in expression.parts:
            yield from operands(part)


class NoComparisonError(ValueError):
    """Something is no comparison, because of the value at ``place``, or of the operator where that is None."""

    def __init__(self, reason: str, place: int | None = None) -> None:
        super().__init__(reason)
        self.place = place


def comparison(operand: Field | Attribute, sign: str, values: tuple[str, ...]) -> Comparison:
    """The comparison of ``operand`` with ``values``.

    Raises:
        NoComparisonError: The operator is none for this operand, or a value cannot be compared.
    """
    what, known = _operators(operand)
    if sign not in known:
        raise NoComparisonError(f"the operator {sign!r} does not exist for {what}; there are {', '.join(known)}")
    for place, value in enumerate(values):
        reason = _problem(operand, sign, value)
        if reason:
            raise NoComparisonError(reason, place)
    if isinstance(operand, Attribute) and operand.name in _STORED_LOWER:
        values = tuple(value.lower() for value in values)
    return Comparison(operand, sign, values)


def _operators(operand: Field | Attribute) -> tuple[str, tuple[str, ...]]:
    """What ``operand`` is one of, and the operators for these."""
    if isinstance(operand, Field):
        return operand.kind, (*ORDERINGS, *_EQUALS, *_PATTERNS, *_NULLS)
    if operand.name in _TIMES:
        return "times", (*ORDERINGS, *_NULLS)
    return operand.name, (*_EQUALS, *_PATTERNS, *_NULLS)


def _problem(operand: Field | Attribute, sign: str, value: str) -> str | None:
    """Why ``operand`` cannot be compared with ``value``, or None when it can."""
    if isinstance(operand, Field):
        if sign in ORDERINGS and _text_as_number(value) is None:
            return f"{sign} compares with a number, and {value[:80]!r} is none"
    elif operand.name in _TIMES:
        try:
            as_time(value)
        except ValueError as error:
            return str(error)
    elif operand.name == "state" and sign in _EQUALS and value.lower() not in STATES:
        return f"there is no state {value[:80]!r}; there are {', '.join(STATES)}"
    return None


def as_number(value: object) -> float | None:
    """``value`` as a number that has an order, or None: 0.1 is one, and so is the text "1e-3"; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str):
        if value[:1].isalpha() and value[0] not in "iInN":  # a name, and no infinity or NaN
            return None
        if "_" in value or not value.isascii():  # Python would read 1_0 and digits of other scripts: nobody else does
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
            return datetime.fromtimestamp(int(text[:20]) / 1000, timezone.utc)
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not know the Z
        return time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time.astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):  # the last one of a number that the system's own clock cannot count
        raise ValueError(f"{text[:80]!r} is no time in ISO 8601, such as 2026-03-04T05:06:07+00:00") from None


def _equals(found: object, value: str) -> bool:
    if _text(found) == value:
        return True
    left = as_number(found)
    return left is not None and left == _text_as_number(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def lower_forms(text: str) -> list[str]:
    """How the database's ``lower`` may write ``text``: in SQLite, and in the locale C, it knows ASCII letters alone."""
    return sorted({form.encode().lower().decode() for form in (text, text.lower(), text.upper(), text.title())})


def is_like(text: str, pattern: str) -> bool:
    """Whether ``text`` is of the form ``pattern``, in which % stands for any text and _ for any character.

    It takes time linear in ``text``: each part between two % is taken where it first fits.
    """
    (first, start), *others = _parts(pattern)
    if not others:
        return first.fullmatch(text) is not None
    *inner, (last, length) = others
    end = len(text) - length
    if start > end or not first.match(text) or not last.match(text, end):
        return False
    for part, _ in inner:
        found = part.search(text, start, end)
        if not found:
            return False
        start = found.end()
    return True


@functools.lru_cache(maxsize=256)
def _parts(pattern: str) -> list[tuple[re.Pattern[str], int]]:
    """What stands between the % of ``pattern``, as regular expressions, and how long each is."""
    return [(re.compile(re.escape(part).replace("_", "."), re.DOTALL), len(part)) for part in pattern.split("%")]
