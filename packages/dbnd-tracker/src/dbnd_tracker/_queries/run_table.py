"""The table of runs: found, sorted and paged by anything that a run has or has logged.

Newest first, the database finds a page by its key. Other orders are made here, over one slim row for each run: SQLite
and PostgreSQL agree neither on how texts sort nor on which texts are numbers, and ten thousand such rows take some
hundredths of a second.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, func, or_, select

from dbnd_tracker._queries.expressions import Expression, Field, QueryError, as_number
from dbnd_tracker._queries.logged import logged_values
from dbnd_tracker._queries.runs import SUMMARY, clause, runs_by_uid, summary
from dbnd_tracker._storage.models import Run
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
_MAX_CHOICES: Final = 200


class RunTable(NamedTuple):
    """One page of the table."""

    runs: list[RunSummary]
    total: int
    """How many runs are found."""
    has_previous: bool
    has_next: bool
    first: int | None
    """Number of the first run shown, counted from 1; None where nobody has counted."""


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
        conditions: What holds for the runs.
        search: A part of the run's name, job, project, user or description, or the start of its uid.
        order: One of ``ORDERS``, or something logged. Runs without a value come last.
        descending: Largest first.
        limit: How many runs at most.
        after: Uid of the run before the page; a run that is not among those found starts at the beginning.
        before: Uid of the run after the page.
        offset: How many runs to leave out at the start, where neither of those two is given.
    """
    clauses = [clause(session, condition) for condition in conditions if condition is not None]
    if search:
        columns = (Run.name, Run.job_name, Run.project_name, Run.user, Run.description)
        contained = [func.lower(column).contains(search.lower(), autoescape=True) for column in columns]
        clauses.append(or_(*contained, Run.uid.startswith(search.lower(), autoescape=True)))
    if order == STARTED:
        return _by_time(session, clauses, descending=descending, limit=limit, after=after, before=before, offset=offset)
    uids = _sorted(session, clauses, order, descending=descending)
    places = {uid: place for place, uid in enumerate(uids)}
    start = offset
    if after in places:
        start = places[after] + 1
    elif before in places:
        start = max(places[before] - limit, 0)
    runs = runs_by_uid(session, uids[start : start + limit])
    return RunTable(runs, len(uids), start > 0, start + limit < len(uids), start + 1)


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


def _sorted(session: Session, clauses: list[ColumnElement[bool]], order: str | Field, *, descending: bool) -> list[str]:
    """Uids of all runs found, in their order."""
    column = Run.start_time if isinstance(order, Field) else _ORDERS[order]
    query = select(Run.uid, Run.start_time, column.label("key")).where(*clauses)
    rows = session.execute(query.order_by(*_time_order(is_falling=True))).all()
    values = logged_values(session, [order]) if isinstance(order, Field) else {}
    valued: list[tuple[tuple[int, float, str], str]] = []
    others = []
    for row in rows:
        key = values.get(row.uid, {}).get(order) if isinstance(order, Field) else row.key
        if order == "took":
            key = None if key is None else (key - row.start_time).total_seconds()
        elif isinstance(key, datetime):
            key = key.timestamp()
        if key is None or (isinstance(key, str) and key in {"", "NaN"}):
            others.append(row.uid)
        else:
            valued.append((_sort_key(key), row.uid))
    valued.sort(key=lambda run: run[0], reverse=descending)
    return [uid for _, uid in valued] + others


def _sort_key(value: object) -> tuple[int, float, str]:
    """Numbers in their order, and after them texts in theirs."""
    number = as_number(value)
    return (1, 0.0, str(value).casefold()) if number is None else (0, number, "")


def choices(session: Session) -> dict[str, list[str]]:
    """The jobs, projects and users that there are, for a filter to offer."""
    columns: dict[str, Any] = {"job": Run.job_name, "project": Run.project_name, "user": Run.user}
    found = {}
    for name, column in columns.items():
        query = select(column).distinct().where(column.is_not(None)).order_by(column).limit(_MAX_CHOICES)
        found[name] = [text for text in session.scalars(query) if text]
    return found
