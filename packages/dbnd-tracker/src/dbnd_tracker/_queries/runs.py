"""Conditions on runs as SQL, and what lists show of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, case, false, func, literal, not_, or_, select

from dbnd_tracker._queries.expressions import ORDERINGS, Attribute, Comparison, Either, Expression, Field, Not, as_time
from dbnd_tracker._storage.models import Run
from dbnd_tracker._storage.states import LOST, lost, shown_state
from dbnd_tracker._views import RunSummary, view_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

_COLUMNS: Final[dict[str, Any]] = {
    "uid": Run.uid,
    "root_run_uid": Run.root_run_uid,
    "job": Run.job_name,
    "project": Run.project_name,
    "user": Run.user,
    "name": Run.name,
    "start_time": Run.start_time,
    "end_time": Run.end_time,
}


def clause(session: Session, expression: Expression) -> ColumnElement[bool] | None:
    """A condition as SQL, or None where it cannot be one.

    Databases do not agree on how texts that were logged compare, nor on upper and lower case beyond ASCII.
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
    Run.uid.label("run_uid"),
    Run.root_run_uid,
    Run.job_name,
    Run.name,
    Run.project_name,
    Run.user.label("user"),
    Run.description,
    Run.state,
    Run.sends_heartbeat,
    Run.last_heartbeat,
    Run.start_time,
    Run.end_time,
)
"""What ``summary`` needs of a run, for lists, which are spared the rest."""


def summary(session: Session, row: Any) -> RunSummary:
    """What lists show of a run, from a row with the columns of ``SUMMARY``."""
    return view_of(RunSummary, row, state=shown_state(session, row))


def runs_by_uid(session: Session, uids: Sequence[str]) -> list[RunSummary]:
    """The runs with these uids, in their order; what does not exist is left out."""
    found = {row.run_uid: row for row in session.execute(select(*SUMMARY).where(Run.uid.in_(uids)))}
    return [summary(session, found[uid]) for uid in dict.fromkeys(uids) if uid in found]
