"""Conditions on what runs logged: the last value of a metric, and params and tags."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, and_, case, cast, or_, select

from dbnd_tracker._models import Attempt, MetricKey, MetricSeries, Param, Run, Tag

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, SQLColumnExpression

_COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_NUMBER: Final = r"^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$"


def logged_clause(kind: str, name: str, op: str, value: str) -> ColumnElement[bool] | None:
    """The condition that some task run of a run logged such a value, as SQL; None where there is no such operator.

    Numbers are compared as numbers, and texts only for being equal or like. A run that has logged nothing under the
    name meets no condition.

    Args:
        kind: "metrics", "params" or "tags".
        name: Name of what was logged.
        op: One of eq, ne, lt, le, gt, ge, like.
        value: What it is compared with.
    """
    if op not in _COMPARISONS and op != "like":
        return None
    if kind == "metrics":
        holds = _holds(op, value, MetricSeries.last_value, MetricSeries.last_text)
        source: Any = select(Attempt.run_id).join(MetricSeries, MetricSeries.attempt_id == Attempt.id)
        source = source.join(MetricKey, MetricKey.id == MetricSeries.key_id).where(MetricKey.name == name)
    else:
        table: Any = Param if kind == "params" else Tag
        number = case((table.value.regexp_match(_NUMBER), cast(table.value, Double)))
        holds = _holds(op, value, number, table.value)
        source = select(Attempt.run_id).join(table, table.attempt_id == Attempt.id).where(table.name == name)
    return Run.id.in_(source.where(Attempt.run_id.is_not(None), holds))


def _holds(
    op: str, value: str, number: SQLColumnExpression[Any], text: SQLColumnExpression[Any]
) -> ColumnElement[bool]:
    if op == "like":
        return text.like(value)
    compare = _COMPARISONS[op]
    try:
        wanted = float(value)
    except ValueError:
        wanted = math.nan
    as_number = compare(number, wanted) if math.isfinite(wanted) else None
    if op == "eq":
        return text == value if as_number is None else or_(text == value, as_number)
    if op == "ne":
        other_text = and_(text.is_not(None), text != value)
        return other_text if as_number is None else or_(as_number, and_(number.is_(None), other_text))
    return number.is_not(None) & (number != number) if as_number is None else as_number  # noqa: PLR0124  never true
