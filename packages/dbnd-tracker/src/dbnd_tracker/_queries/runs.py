"""Conditions on runs as SQL, and what lists show of runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, case, false, func, literal, not_, or_

from dbnd.tracking import storable
from dbnd_tracker._queries.expressions import (
    ATTRIBUTES,
    KINDS,
    ORDERINGS,
    STARTS_WITH,
    Attribute,
    Comparison,
    Either,
    Expression,
    Field,
    Not,
    QueryError,
    as_time,
    comparison,
    problem,
)
from dbnd_tracker._storage.models import Run
from dbnd_tracker._storage.states import LOST, lost, shown_state

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_COLUMNS: Final[dict[str, Any]] = {
    "uid": Run.uid,
    "root_run_uid": Run.root_run_uid,
    "job": Run.job_name,
    "project": Run.project_name,
    "state": Run.state,
    "user": Run.user,
    "name": Run.name,
    "start_time": Run.start_time,
    "end_time": Run.end_time,
}
_SIGNS: Final = {
    "eq": "=",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "like": "like",
    "startswith": STARTS_WITH,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on runs, as the read API's ``filter`` writes it.

    Args:
        name: One of uid, root_run_uid, job_name (job), project_name (project), state, user, name; or start_time or
            end_time; or metrics.NAME (its last value), params.NAME, tags.NAME.
        op: One of eq, ne, like (% stands for any text, _ for any character), startswith; lt, le, gt, ge of times and of
            what was logged.
        val: What the field is compared with; a time in ISO 8601, UTC unless it says otherwise.
    """

    name: str
    op: str
    val: str

    def comparison(self) -> Comparison:
        """What the condition says.

        Raises:
            QueryError: There is no such field or operator, or its value cannot be compared.
        """
        operand: Field | Attribute | None = Field.parse(storable(self.name))
        if operand is None and self.name in ATTRIBUTES:
            operand = Attribute(ATTRIBUTES[self.name])
        if operand is None:
            names = ", ".join([*ATTRIBUTES, *(f"{kind}.NAME" for kind in KINDS)])
            msg = f"Runs cannot be filtered by {self.name[:80]!r}; they can by {names}."
            raise QueryError(msg)
        sign, values = _SIGNS.get(self.op), (storable(self.val),)
        if sign is None:
            msg = f"The operator {self.op[:80]!r} does not exist; there are {', '.join(_SIGNS)}."
            raise QueryError(msg)
        found = problem(operand, sign, values)
        if found is not None:
            msg = f"{found[0][:1].upper()}{found[0][1:]}."
            raise QueryError(msg)
        return comparison(operand, sign, values)


def clause(session: Session, expression: Expression) -> ColumnElement[bool] | None:
    """A condition as SQL, or None where it cannot be one.

    Databases do not agree on how texts that were logged compare, nor on upper and lower case beyond ASCII.

    Args:
        session: Where it will be asked.
        expression: The condition.
    """
    if isinstance(expression, Comparison):
        return _comparison_clause(session, expression)
    if isinstance(expression, Not):
        inner = clause(session, expression.part)
        # A comparison with NULL is NULL, which is not its own opposite.
        return None if inner is None else not_(func.coalesce(inner, false()))
    parts = [clause(session, part) for part in expression.parts]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return or_(*known) if isinstance(expression, Either) else and_(*known)


def _comparison_clause(session: Session, condition: Comparison) -> ColumnElement[bool] | None:
    sign, values = condition.operator, condition.values
    if isinstance(condition.operand, Field) or "ilike" in sign:
        return None
    column = column_of(session, condition.operand)
    if sign in ORDERINGS:
        found: ColumnElement[bool] = ORDERINGS[sign](column, as_time(values[0]))
    elif "null" in sign:
        found = column.is_(None) if sign == "is null" else column.is_not(None)
    elif "like" in sign:
        pattern = _like(session, column, values[0])
        found = not_(pattern) if sign.startswith("not") else pattern
    elif sign == STARTS_WITH:
        found = func.substr(column, 1, len(values[0])) == values[0]
    elif condition == Comparison(Attribute("state"), "=", (LOST,)):
        found = lost(session)
    elif condition.operand.name == "state" and sign == "=":  # by its index
        found = and_(Run.state == values[0], not_(lost(session)))
    else:
        found = column.not_in(values) if sign in {"!=", "not in"} else column.in_(values)
    return found


def column_of(session: Session, attribute: Attribute) -> Any:
    """What runs have, in SQL; the state is the one that is shown: a lost run is in no other."""
    if attribute.name == "state":
        return case((lost(session), literal(LOST)), else_=Run.state)
    return _COLUMNS[attribute.name]


def _like(session: Session, column: Any, pattern: str) -> ColumnElement[bool]:
    """``column like pattern`` as ``is_like`` means it: no character is special but % and _, and case counts."""
    if session.get_bind().dialect.name == "postgresql":
        return column.like(pattern, escape="")  # type: ignore[no-any-return]
    # SQLite's LIKE overlooks the case of ASCII letters.
    special = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    found: ColumnElement[bool] = column.op("GLOB", is_comparison=True)("".join(special.get(c, c) for c in pattern))
    return found


SUMMARY: Final = (
    Run.uid,
    Run.root_run_uid,
    Run.job_name,
    Run.name,
    Run.project_name,
    Run.user,
    Run.description,
    Run.state,
    Run.sends_heartbeat,
    Run.last_heartbeat,
    Run.start_time,
    Run.end_time,
)
"""What ``summary`` needs of a run, for lists, which are spared the rest."""


def summary(session: Session, run: Any) -> dict[str, Any]:
    """The fields of a ``RunSummary``, of a ``Run`` or a row with the columns of ``SUMMARY``."""
    return {
        "run_uid": run.uid,
        "root_run_uid": run.root_run_uid,
        "job_name": run.job_name,
        "name": run.name,
        "project_name": run.project_name,
        "user": run.user,
        "description": run.description,
        "state": shown_state(session, run),
        "start_time": run.start_time,
        "end_time": run.end_time,
    }
