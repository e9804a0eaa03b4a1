"""Conditions on runs as SQL, and what lists show of runs."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ARRAY, BigInteger, ColumnElement, and_, any_, case, false, func, literal, not_, or_, select

from dbnd_tracker._queries.expressions import (
    ORDERINGS,
    Attribute,
    Both,
    Comparison,
    Either,
    Expression,
    Field,
    Not,
    as_number,
    as_time,
)
from dbnd_tracker._queries.logged import TABLES, select_logged, value_of
from dbnd_tracker._storage.models import Attempt, MetricSeries, Run
from dbnd_tracker._storage.states import LOST, lost, shown_state
from dbnd_tracker._views import RunSummary

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
_BOUNDS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.le,
    "<=": operator.le,
    ">": operator.ge,
    ">=": operator.ge,
}


def clause(session: Session, expression: Expression) -> ColumnElement[bool]:
    """A condition as SQL; one on what was logged holds for a run where it does for any of its task runs."""
    if isinstance(expression, Not):
        # A comparison with NULL is NULL, which is not its own opposite.
        return not_(func.coalesce(clause(session, expression.part), false()))
    if isinstance(expression, Both):
        return and_(*(clause(session, part) for part in expression.parts))
    if isinstance(expression, Either):
        return or_(*(clause(session, part) for part in expression.parts))
    if isinstance(expression.operand, Field):
        return _by_logged(session, expression, expression.operand)
    return _by_attribute(session, expression, expression.operand)


def _by_attribute(session: Session, condition: Comparison, attribute: Attribute) -> ColumnElement[bool]:
    sign, values = condition.operator, condition.values
    # The state is the one that is shown: a lost run is in no other.
    column = _COLUMNS.get(attribute.name, case((lost(session), literal(LOST)), else_=Run.state))
    if sign in ORDERINGS:
        found: ColumnElement[bool] = ORDERINGS[sign](column, as_time(values[0]))
    elif "null" in sign:
        found = column.is_(None) if sign == "is null" else column.is_not(None)
    elif sign in {"like", "not like"}:
        pattern = _like(session, column, values[0])
        found = not_(pattern) if sign.startswith("not") else pattern
    elif condition == Comparison(Attribute("state"), "=", (LOST,)):
        found = lost(session)
    elif attribute.name == "state" and sign == "=":  # by its index
        found = and_(Run.state == values[0], not_(lost(session)))
    elif sign in {"=", "!="}:
        found = column == values[0] if sign == "=" else column != values[0]
    elif sign in {"in", "not in"}:
        found = column.in_(values) if sign == "in" else column.not_in(values)
    else:  # compared here: for ilike, databases do not agree on upper and lower case beyond ASCII
        rows = session.execute(select(Run.id, column))
        found = _is_one_of(session, {run for run, value in rows if condition.holds(value)})
    return found


def _by_logged(session: Session, condition: Comparison, field: Field) -> ColumnElement[bool]:
    """Compared here, because databases do not agree on which texts are numbers.

    Of an argument of a task and a param that it has logged under the same name, the one that came last counts.
    """
    table = TABLES[field.kind]
    query = select_logged(field.kind, Attempt.run_id, Attempt.id, *table.values)
    query = query.where(table.name == field.name, Attempt.run_id.is_not(None))
    if "null" in condition.operator:
        found = _is_one_of(session, {row.run_id for row in session.execute(query)})
        return not_(found) if condition.operator == "is null" else found
    number = as_number(condition.values[0])
    if field.kind == "metrics" and number is not None and condition.operator in _BOUNDS:
        # Numbers that are far off need not be read. What is no number stays, and the comparison decides.
        bound = _BOUNDS[condition.operator](MetricSeries.last_value, number)
        query = query.where(or_(MetricSeries.last_value.is_(None), bound))
    rows = session.execute(query.order_by(table.model.id))
    values = {(run, attempt): value_of(field.kind, value) for run, attempt, *value in rows}
    return _is_one_of(session, {run for (run, _), value in values.items() if condition.holds(value)})


def _is_one_of(session: Session, ids: set[int]) -> ColumnElement[bool]:
    """That a run has one of any number of ids, which are one parameter of the query."""
    if session.get_bind().dialect.name == "postgresql":
        return Run.id == any_(literal(list(ids), ARRAY(BigInteger)))
    return Run.id.in_(select(func.json_each(json.dumps(list(ids))).table_valued("value").c.value))


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
    *(getattr(Run, name).label(name) for name in RunSummary.model_fields if name != "run_uid"),
    Run.sends_heartbeat,
    Run.last_heartbeat,
)
"""What ``summary`` needs of a run, for lists, which are spared the rest."""


def summary(session: Session, row: Any) -> RunSummary:
    """What lists show of a run, from a row with the columns of ``SUMMARY``."""
    return RunSummary(**{**row._asdict(), "state": shown_state(session, row)})


def runs_by_uid(session: Session, uids: Sequence[str]) -> list[RunSummary]:
    """The runs with these uids, in their order; what does not exist is left out."""
    found = {row.run_uid: row for row in session.execute(select(*SUMMARY).where(Run.uid.in_(uids)))}
    return [summary(session, found[uid]) for uid in dict.fromkeys(uids) if uid in found]
