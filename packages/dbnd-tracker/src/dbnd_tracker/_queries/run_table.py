"""The table of runs: found, sorted and paged by anything that a run has or has logged.

Newest first, the database finds a page by its key. Other orders and conditions on what was logged are settled here,
over one slim row for each run that the other conditions leave: SQLite and PostgreSQL agree neither on how texts sort
nor on which texts are numbers, and ten thousand such rows take some hundredths of a second.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, func, or_, select

from dbnd_tracker._queries.expressions import (
    Attribute,
    Both,
    Comparison,
    Either,
    Expression,
    Field,
    Not,
    QueryError,
    as_number,
)
from dbnd_tracker._queries.logged import TABLES, logged_values, select_logged, value_of
from dbnd_tracker._queries.runs import SUMMARY, clause, column_of, runs_by_uid, summary
from dbnd_tracker._storage.models import Attempt, MetricSeries, Run
from dbnd_tracker._views import ListMeta, RunList, RunSummary

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

STARTED: Final = "started"
_ORDERS: Final[dict[str, Any]] = {
    "name": Run.name,
    "job": Run.job_name,
    "project": Run.project_name,
    "user": Run.user,
    "state": Run.state,
    STARTED: Run.start_time,
    "took": Run.end_time,
}
ORDERS: Final = tuple(_ORDERS)
"""What runs can be sorted by, besides what they logged."""
_BOUNDS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.le,
    "<=": operator.le,
    ">": operator.ge,
    ">=": operator.ge,
}
_MAX_CHOICES: Final = 200


@dataclass(frozen=True, slots=True)
class RunTable:
    """One page of the table.

    Args:
        runs: The runs shown.
        total: How many are found.
        has_previous: Whether there are runs before these.
        has_next: Whether there are runs after these.
        first: Number of the first run shown, counted from 1; None where nobody has counted.
    """

    runs: list[RunSummary]
    total: int
    has_previous: bool
    has_next: bool
    first: int | None


class _Slim(NamedTuple):
    uid: str
    key: Any


def run_table(
    session: Session,
    *conditions: Expression | None,
    search: str = "",
    order: str | Field = STARTED,
    descending: bool = True,
    limit: int = 50,
    after: str | None = None,
    before: str | None = None,
    offset: int = 0,
) -> RunTable:
    """One page of the runs that are looked for.

    Args:
        session: Where to read.
        conditions: What holds for the runs. One on what was logged holds where it does for any task run.
        search: A part of the run's name, job, project, user or description, or the start of its uid.
        order: One of ``ORDERS``, or something logged. Runs without a value come last.
        descending: Largest first.
        limit: How many runs at most.
        after: Uid of the run before the page; a run that is not among those found starts at the beginning.
        before: Uid of the run after the page.
        offset: How many runs to leave out at the start, where neither of those two is given.
    """
    clauses, others = _split(session, conditions)
    if search:
        columns = (Run.name, Run.job_name, Run.project_name, Run.user, Run.description)
        contained = [func.lower(column).contains(search.lower(), autoescape=True) for column in columns]
        clauses.append(or_(*contained, Run.uid.startswith(search.lower(), autoescape=True)))
    if order == STARTED and not others:
        return _by_time(session, clauses, descending=descending, limit=limit, after=after, before=before, offset=offset)
    uids = _sorted(session, clauses, others, order, descending=descending)
    places = {uid: place for place, uid in enumerate(uids)}
    start = offset
    if after in places:
        start = places[after] + 1
    elif before in places:
        start = max(places[before] - limit, 0)
    runs = runs_by_uid(session, uids[start : start + limit])
    return RunTable(runs, len(uids), start > 0, start + limit < len(uids), start + 1)


def _split(
    session: Session, conditions: Iterable[Expression | None]
) -> tuple[list[ColumnElement[bool]], list[Expression]]:
    """What the database finds, as SQL, and the conditions that are settled here."""
    clauses, others = [], []
    for condition in conditions:
        for part in condition.parts if isinstance(condition, Both) else [condition] if condition else []:
            sql = clause(session, part)
            if sql is None:
                others.append(part)
            else:
                clauses.append(sql)
    return clauses, others


def list_runs(
    session: Session,
    *conditions: Expression | None,
    order: str | Field = STARTED,
    descending: bool = True,
    limit: int = 50,
    after: str | None = None,
    offset: int = 0,
) -> RunList:
    """One page of the runs that meet all conditions, with a cursor to go on from; see ``run_table``.

    Raises:
        QueryError: No run has the uid ``after``.
    """
    if after is not None and session.scalar(select(Run.id).where(Run.uid == after)) is None:
        raise QueryError(f"The cursor {after[:80]!r} is not the uid of a run.")
    table = run_table(session, *conditions, order=order, descending=descending, limit=limit, after=after, offset=offset)
    cursor = table.runs[-1].run_uid if table.runs and table.has_next else None
    return RunList(data=table.runs, meta=ListMeta(total=table.total, after=cursor))


def _by_time(
    session: Session,
    clauses: list[ColumnElement[bool]],
    *,
    descending: bool,
    limit: int,
    after: str | None,
    before: str | None,
    offset: int,
) -> RunTable:
    counted = select(func.count()).select_from(Run).where(*clauses)
    cursor = session.scalar(select(Run).where(Run.uid == (after or before))) if after or before else None
    backwards = cursor is not None and after is None
    is_falling = descending != backwards
    paged = list(clauses)
    if cursor is not None:
        time, same = Run.start_time, Run.start_time == cursor.start_time
        if is_falling:
            paged.append(or_(time < cursor.start_time, same & (Run.id < cursor.id)))
        else:
            paged.append(or_(time > cursor.start_time, same & (Run.id > cursor.id)))
    # The count goes along: a question less costs a tenth of the time on PostgreSQL.
    query = select(*SUMMARY, counted.correlate(None).scalar_subquery().label("total")).where(*paged)
    query = query.order_by(*_time_order(is_falling)).limit(limit + 1).offset(0 if cursor else offset)
    found = session.execute(query).all()
    total = found[0].total if found else session.scalar(counted) or 0
    more = len(found) > limit
    runs = [summary(session, run) for run in found[:limit]]
    if cursor is None:
        return RunTable(runs, total, has_previous=offset > 0, has_next=more, first=offset + 1)
    if backwards:
        return RunTable(runs[::-1], total, has_previous=more, has_next=True, first=None if more else 1)
    return RunTable(runs, total, has_previous=True, has_next=more, first=None if more else total - len(runs) + 1)


def _time_order(is_falling: bool) -> list[ColumnElement[Any]]:
    columns = (Run.start_time, Run.id)
    return [column.desc() if is_falling else column.asc() for column in columns]


def _sorted(
    session: Session,
    clauses: list[ColumnElement[bool]],
    others: list[Expression],
    order: str | Field,
    *,
    descending: bool,
) -> list[str]:
    """Uids of all runs found, in their order."""
    tests = [_test(session, expression) for expression in others]
    if order == STARTED:
        # Times, which take long to read, are left to the database.
        uids = session.scalars(select(Run.uid).where(*clauses).order_by(*_time_order(descending)))
        return [uid for uid in uids if all(test(uid) for test in tests)]
    column = Run.start_time if isinstance(order, Field) else _ORDERS[order]
    query = select(Run.uid, Run.start_time, column.label("key")).where(*clauses)
    rows = session.execute(query.order_by(*_time_order(is_falling=True))).all()
    values = logged_values(session, [order]) if isinstance(order, Field) else {}
    found = []
    for row in rows:
        if not all(test(row.uid) for test in tests):
            continue
        key = values.get(row.uid, {}).get(order) if isinstance(order, Field) else row.key
        if order == "took":
            key = None if key is None else (key - row.start_time).total_seconds()
        elif isinstance(key, datetime):
            key = key.timestamp()
        found.append(_Slim(row.uid, key))
    valued = sorted((run for run in found if not _is_missing(run.key)), key=_sort_key, reverse=descending)
    return [run.uid for run in valued + [run for run in found if _is_missing(run.key)]]


def _is_missing(key: object) -> bool:
    return key is None or (isinstance(key, str) and key in {"", "NaN"})


def _sort_key(run: _Slim) -> tuple[int, float, str]:
    """Numbers in their order, and after them texts in theirs."""
    number = as_number(run.key)
    return (1, 0.0, str(run.key).casefold()) if number is None else (0, number, "")


def _test(session: Session, expression: Expression) -> Callable[[str], bool]:
    """Whether the run with a uid meets a condition, as a function of the uid; each comparison is asked once."""
    if isinstance(expression, Comparison):
        found = _meeting(session, expression)
        if isinstance(expression.operand, Field) and expression.operator == "is null":
            return lambda uid: uid not in found
        return found.__contains__
    if isinstance(expression, Not):
        inner = _test(session, expression.part)
        return lambda uid: not inner(uid)
    tests = [_test(session, part) for part in expression.parts]
    if isinstance(expression, Either):
        return lambda uid: any(test(uid) for test in tests)
    return lambda uid: all(test(uid) for test in tests)


def _meeting(session: Session, condition: Comparison) -> set[str]:
    """Uids of the runs that meet ``condition``; of one on what was logged, those of which some task run does.

    Of ``is null`` these are, on the contrary, the runs that have logged anything under the name. Of an argument of a
    task and a param that it has logged under the same name, the one that came last counts.
    """
    if isinstance(condition.operand, Attribute):
        sql = clause(session, condition)
        if sql is not None:
            return set(session.scalars(select(Run.uid).where(sql)))
        column = column_of(session, condition.operand)
        return {uid for uid, value in session.execute(select(Run.uid, column)) if condition.holds(value)}
    kind = condition.operand.kind
    table = TABLES[kind]
    query = select_logged(kind, Run.uid, Attempt.id, *table.values).join(Run, Run.id == Attempt.run_id)
    query = query.where(table.name == condition.operand.name)
    if "null" in condition.operator:
        return {row.uid for row in session.execute(query)}
    number = as_number(condition.values[0])
    if kind == "metrics" and number is not None and condition.operator in _BOUNDS:
        # Numbers that are far off need not be read. What is no number stays, and the comparison decides.
        bound = _BOUNDS[condition.operator](MetricSeries.last_value, number)
        query = query.where(or_(MetricSeries.last_value.is_(None), bound))
    rows = session.execute(query.order_by(table.model.id))
    values = {(uid, attempt): value_of(kind, value) for uid, attempt, *value in rows}
    return {uid for (uid, _), value in values.items() if condition.holds(value)}


def choices(session: Session) -> dict[str, list[str]]:
    """The jobs, projects and users that there are, for a filter to offer."""
    columns: dict[str, Any] = {"job": Run.job_name, "project": Run.project_name, "user": Run.user}
    found = {}
    for name, column in columns.items():
        query = select(column).distinct().where(column.is_not(None)).order_by(column).limit(_MAX_CHOICES)
        found[name] = [text for text in session.scalars(query) if text]
    return found
