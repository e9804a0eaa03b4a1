"""Which of the runs compared are chosen by conditions, such as those that a range on an axis stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from dbnd_tracker._queries.language.expressions import (
    Attribute,
    Both,
    Comparison,
    Either,
    Expression,
    Field,
    Not,
    QueryError,
)
from dbnd_tracker._queries.language.grammar import parse_expression
from dbnd_tracker._views import RunRow

_ATTRIBUTES: Final[dict[str, Callable[[RunRow], Any]]] = {
    "uid": lambda run: run.uid,
    "job": lambda run: run.job_name,
    "project": lambda run: run.project_name,
    "state": lambda run: run.state,
    "user": lambda run: run.user,
    "name": lambda run: run.name,
}


class Brush(NamedTuple):
    """What is selected on the axis of a field: from the first of ``ends`` to the last."""

    field: Field
    ends: tuple[str, ...]


class Condition(NamedTuple):
    text: str
    expression: Expression
    brush: Brush | None
    """The range on an axis that it stands for."""

    def holds(self, run: RunRow, value_of: Callable[[Field], Any]) -> bool:
        """Whether it holds for a run, whose values ``value_of`` knows."""
        return _holds(self.expression, run, value_of)


def conditions_of(texts: Sequence[str]) -> list[Condition]:
    """The conditions that these texts say; QueryError where one is none, or asks for what is not compared."""
    found = []
    for text in dict.fromkeys(texts):
        expression = parse_expression(text)
        if expression is not None:
            found.append(Condition(text, expression, _brush(expression)))
    return found


def _brush(expression: Expression) -> Brush | None:
    if isinstance(expression, Comparison) and expression.operator == "in" and isinstance(expression.operand, Field):
        return Brush(expression.operand, expression.values)
    if isinstance(expression, Both):
        parts = [part for part in expression.parts if isinstance(part, Comparison)]
        if [part.operator for part in parts] == [">=", "<="] and len(expression.parts) == len(parts):
            field = parts[0].operand
            if isinstance(field, Field) and field == parts[1].operand:
                return Brush(field, (parts[0].values[0], parts[1].values[0]))
    return None


def _holds(expression: Expression, run: RunRow, value_of: Callable[[Field], Any]) -> bool:
    if isinstance(expression, Not):
        return not _holds(expression.part, run, value_of)
    if isinstance(expression, Both):
        return all(_holds(part, run, value_of) for part in expression.parts)
    if isinstance(expression, Either):
        return any(_holds(part, run, value_of) for part in expression.parts)
    operand = expression.operand
    return expression.holds(_attribute(operand, run) if isinstance(operand, Attribute) else value_of(operand))


def _attribute(attribute: Attribute, run: RunRow) -> Any:
    if attribute.name not in _ATTRIBUTES:
        known = ", ".join(_ATTRIBUTES)
        msg = f"Runs that are compared cannot be chosen by {attribute.name}, but by what they logged and by {known}."
        raise QueryError(msg)
    return _ATTRIBUTES[attribute.name](run)
