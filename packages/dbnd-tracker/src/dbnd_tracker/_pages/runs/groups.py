"""Rows of the table that have the same value of a param, and what they have logged together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dbnd_tracker._queries.language.expressions import Field, as_number
from dbnd_tracker._views import RunRow


class Together(NamedTuple):
    """The values of a metric of several rows."""

    mean: float
    low: float
    high: float


class RowGroup(NamedTuple):
    value: str | None
    """None where the rows are not grouped, and empty where they have no value."""
    rows: Sequence[RunRow]
    metrics: dict[Field, Together]


def row_groups(
    rows: Sequence[RunRow], values: Mapping[str, Mapping[Field, Any]], by: Field | None, shown: Sequence[Field]
) -> list[RowGroup]:
    """Rows by their values of ``by``, numbers in their order, then texts; within a group they stay in their order."""
    if by is None:
        return [RowGroup(None, rows, {})]
    found: dict[str, list[RunRow]] = {}
    for row in rows:
        value = values.get(row.uid, {}).get(by)
        found.setdefault("" if value is None else str(value), []).append(row)
    metrics = [field for field in shown if field.kind == "metrics"]
    groups = []
    for value in sorted(found, key=_order):
        together = {}
        for field in metrics:
            logged = (as_number(values.get(row.uid, {}).get(field)) for row in found[value])
            numbers = [number for number in logged if number is not None]
            if numbers:
                low, high = min(numbers), max(numbers)
                # Of shares, because the sum may be beyond any double; rounded, they may leave the range.
                mean = sum(number / len(numbers) for number in numbers)
                together[field] = Together(min(max(mean, low), high), low, high)
        groups.append(RowGroup(value, found[value], together))
    return groups


def _order(value: str) -> tuple[bool, bool, float, str]:
    number = as_number(value)
    return not value, number is None, number or 0.0, value
