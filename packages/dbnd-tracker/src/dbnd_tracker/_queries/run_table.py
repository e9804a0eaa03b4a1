"""The table of runs: found, sorted and paged by anything that a run has or has logged.

Its rows are runs. Asked for by what was logged, they are task runs: roots, which stand for their runs, and nested ones.

Newest first, the database finds a page of runs by its key. Other orders are made here, over one slim row for each:
SQLite and PostgreSQL agree neither on how texts sort nor on which texts are numbers, and ten thousand such rows take
some hundredths of a second.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, func, or_, select

from dbnd_tracker._queries.conditions import COLUMNS, START, Conditions, are_rows
from dbnd_tracker._queries.expressions import STATES, Expression, Field, QueryError, as_number
from dbnd_tracker._queries.ids import is_one_of
from dbnd_tracker._queries.logged import (
    BY_ATTEMPT,
    EXPERIMENT_TAG,
    TABLES,
    Owned,
    field_columns,
    field_value,
    logged_values,
    select_logged,
)
from dbnd_tracker._queries.rows import complete, nested_uids, rows_by_uid, rows_of_task_runs
from dbnd_tracker._queries.runs import SUMMARY
from dbnd_tracker._storage.models import Attempt, Run, Tag, TaskRun
from dbnd_tracker._views import ListMeta, RunList, RunRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

STARTED: Final = "started"
_COLUMNS: Final = {
    **{name: name for name in ("name", "job", "project", "user", "state")},
    STARTED: "start_time",
    "took": "end_time",
}
ORDERS: Final = tuple(_COLUMNS)
"""What rows can be sorted by, besides what they logged."""
ORDER_NAMES: Final = {
    **{name: name for name in ORDERS},
    "start_time": STARTED,
    "job_name": "job",
    "project_name": "project",
    "duration": "took",
}
"""``ORDERS`` by all names that they go by."""
_SUGGESTED: Final[dict[str, Any]] = {
    "job": Run.job_name,
    "project": Run.project_name,
    "experiment": Run.project_name,
    "user": Run.user,
    "name": Run.name,
}
_MAX_CHOICES: Final = 200


class RunTable(NamedTuple):
    """One page of the table."""

    rows: list[RunRow]
    total: int
    """How many rows are found."""
    has_previous: bool
    has_next: bool
    first: int | None
    """Number of the first row shown, counted from 1; None where nobody has counted."""
    owned: list[Owned]
    """The attempts whose values the rows may show."""


def run_table(
    session: Session,
    *conditions: Expression | None,
    search: Sequence[str] = (),
    order: str | Field = STARTED,
    descending: bool = True,
    limit: int = 50,
    after: str | None = None,
    before: str | None = None,
    offset: int = 0,
) -> RunTable:
    """One page of the rows that are looked for.

    Args:
        session: Where to read.
        conditions: What holds for the rows.
        search: Words that stand in a row's name, job, project, experiment, user or description, or begin its uid or
            the id of its MLflow run.
        order: One of ``ORDERS``, or something logged. Rows without a value come last.
        descending: Largest first.
        limit: How many rows at most.
        after: Uid of the row before the page; one that is not among those found starts at the beginning.
        before: Uid of the row after the page.
        offset: How many rows to leave out at the start, where neither of those two is given.
    """
    wanted = [condition for condition in conditions if condition is not None]
    asked = Conditions(session)
    clauses = [*map(asked.clause, wanted), *asked.search(search)]
    is_flat = bool(search) or are_rows(wanted)
    if order == STARTED and not is_flat:
        return _by_time(session, clauses, descending=descending, limit=limit, after=after, before=before, offset=offset)
    slim = _slim_rows(session, clauses, order)
    if is_flat:
        below = asked.of_nested()
        # By a word alone, runs are found, and not all that is nested in them.
        found = below.search(search, only_own=not are_rows(wanted))
        slim += _slim_nested(session, [*map(below.clause, wanted), *found], order)
    elif isinstance(order, Field):
        # Task runs without a value are not asked for, nor are runs that have none of their own but show task runs.
        below = asked.of_nested()
        nested = _slim_nested(session, [*map(below.clause, wanted)], order, only_valued=True)
        runs = {row.run_uid for row in nested}
        slim = [row for row in slim if row.key is not None or row.run_uid not in runs] + nested
    uids = _sorted(slim, descending=descending)
    places = {uid: place for place, uid in enumerate(uids)}
    start = offset
    if after in places:
        start = places[after] + 1
    elif before in places:
        start = max(places[before] - limit, 0)
    rows, owned = rows_by_uid(session, uids[start : start + limit])
    return RunTable(rows, len(uids), start > 0, start + limit < len(uids), start + 1, owned)


def nested_table(session: Session, uid: str, *, limit: int, offset: int = 0) -> tuple[RunRow, RunTable] | None:
    """A row, and the rows right below it in the order of their start; None if there is no such row."""
    for row in rows_by_uid(session, [uid]).rows:
        uids = nested_uids(session, row)
        rows, owned = rows_of_task_runs(session, uids[offset : offset + limit])
        return row, RunTable(rows, len(uids), offset > 0, offset + limit < len(uids), offset + 1, owned)
    return None


def list_runs(
    session: Session,
    *conditions: Expression | None,
    search: Sequence[str] = (),
    order: str | Field = STARTED,
    descending: bool = True,
    limit: int = 50,
    after: str | None = None,
    offset: int = 0,
    columns: Sequence[Field] = (),
) -> RunList:
    """One page of the rows that meet all conditions, with a cursor to go on from; see ``run_table``.

    Each row has the values of ``columns``.

    Raises:
        QueryError: No row has the uid ``after``.
    """
    if after is not None and not rows_by_uid(session, [after]).rows:
        raise QueryError(f"The cursor {after[:80]!r} is not the uid of a run.")
    table = run_table(
        session,
        *conditions,
        search=search,
        order=order,
        descending=descending,
        limit=limit,
        after=after,
        offset=offset,
    )
    cursor = table.rows[-1].uid if table.rows and table.has_next else None
    rows = table.rows
    if columns:
        found = logged_values(session, columns, table.owned)
        values = {uid: {str(field): value for field, value in of.items()} for uid, of in found.items()}
        rows = [row.model_copy(update={"values": values.get(row.uid, {})}) for row in rows]
    return RunList(data=rows, meta=ListMeta(total=table.total, after=cursor))


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
    rows, owned = complete(session, found[:limit], [run.run_uid for run in found[:limit]])
    if cursor is None:
        return RunTable(rows, total, has_previous=offset > 0, has_next=more, first=offset + 1, owned=owned)
    if backwards:
        return RunTable(rows[::-1], total, more, has_next=True, first=None if more else 1, owned=owned)
    first = None if more else total - len(rows) + 1
    return RunTable(rows, total, has_previous=True, has_next=more, first=first, owned=owned)


def _time_order(is_falling: bool) -> list[ColumnElement[Any]]:
    columns = (Run.start_time, Run.id)
    return [column.desc() if is_falling else column.asc() for column in columns]


class _Slim(NamedTuple):
    """A row of which little more than the order is known."""

    uid: str
    run_uid: str
    start: datetime
    key: Any


def _slim_rows(session: Session, clauses: list[ColumnElement[bool]], order: str | Field) -> list[_Slim]:
    column = Run.start_time if isinstance(order, Field) else COLUMNS[False][_COLUMNS[order]]
    rows = session.execute(select(Run.uid, Run.start_time, column, Run.id).where(*clauses)).all()
    if isinstance(order, Field):
        values = _values(session, order, is_root=True)
        return [_Slim(uid, uid, start, values.get(run)) for uid, start, _, run in rows]
    return [_Slim(uid, uid, start, _key(order, start, value)) for uid, start, value, _ in rows]


def _slim_nested(
    session: Session, clauses: list[ColumnElement[bool]], order: str | Field, *, only_valued: bool = False
) -> list[_Slim]:
    column = START if isinstance(order, Field) else COLUMNS[True][_COLUMNS[order]]
    query = select(TaskRun.uid, Run.uid, func.coalesce(START, Run.start_time), column, TaskRun.id)
    query = query.join(Run, Run.uid == TaskRun.run_uid).where(~TaskRun.is_root, ~TaskRun.is_system, *clauses)
    if not isinstance(order, Field):
        rows = session.execute(query)
        return [_Slim(uid, run, start, _key(order, start, value)) for uid, run, start, value, _ in rows]
    values = _values(session, order, is_root=False)
    if only_valued:
        query = query.where(is_one_of(session, TaskRun.id, values.keys()))
    return [_Slim(uid, run, start, values.get(task)) for uid, run, start, _, task in session.execute(query)]


def _key(order: str, start: datetime, value: Any) -> Any:
    return value - start if order == "took" and value is not None else value


def _values(session: Session, field: Field, *, is_root: bool) -> dict[int, Any]:
    """What was logged, by the ids of runs (their root task runs) or of nested task runs; the latest attempt counts."""
    table = TABLES[field.kind]
    query = select_logged(field.kind, *field_columns(field.kind), Attempt.run_id if is_root else TaskRun.id)
    query = query.join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(table.name == field.name)
    query = query.where(TaskRun.is_root if is_root else ~TaskRun.is_root)
    return {row[-1]: field_value(field, row) for row in session.execute(query.order_by(*BY_ATTEMPT, table.model.id))}


def _sorted(rows: list[_Slim], *, descending: bool) -> list[str]:
    """Uids of rows in their order: of those that are equal, the newest first."""
    valued: list[tuple[tuple[int, float, str], str]] = []
    others = []
    for row in sorted(rows, key=lambda row: row.start, reverse=True):
        uid, value = row.uid, row.key
        key = value
        if isinstance(value, datetime):
            key = value.timestamp()
        elif isinstance(value, timedelta):
            key = value.total_seconds()
        if key is None or (isinstance(key, str) and key in {"", "NaN"}):
            others.append(uid)
        else:
            valued.append((_sort_key(key), uid))
    valued.sort(key=lambda row: row[0], reverse=descending)
    return [uid for _, uid in valued] + others


def _sort_key(value: object) -> tuple[int, float, str]:
    """Numbers in their order, and after them texts in theirs."""
    number = as_number(value)
    return (1, 0.0, str(value).casefold()) if number is None else (0, number, "")


def parse_order(sort: str) -> tuple[str | Field, bool]:
    """What ``sort`` names, and whether the largest comes first.

    Raises:
        QueryError: Rows cannot be sorted by it.
    """
    name = sort.removeprefix("-")
    found: str | Field | None = Field.parse(name) or ORDER_NAMES.get(name)
    if found is None:
        msg = f"Runs cannot be sorted by {name[:80]!r}; they can by {', '.join(ORDER_NAMES)}, metrics.NAME."
        raise QueryError(msg)
    return found, sort.startswith("-")


def parse_column(text: str) -> Field:
    """The logged value that ``text`` names, as ``metrics.loss`` or ``min:metrics.loss``.

    Raises:
        QueryError: It names none.
    """
    found = Field.parse(text)
    if found is None:
        raise QueryError(f"There is no column {text[:80]!r}; there are metrics.NAME, params.NAME and tags.NAME.")
    return found


def known_values(session: Session, of: Field | str, start: str, limit: int) -> list[str]:
    """Values of a param, a tag or an attribute such as job that begin with ``start``; none of what has numbers."""
    if isinstance(of, Field):
        table = TABLES[of.kind]
        query = select_logged(of.kind, *table.values).where(table.name == of.name).distinct()
        column = table.values[0]
        if of.kind == "metrics":
            return []
    else:
        column = _SUGGESTED.get(of)
        if column is None:
            return [*STATES] if of == "state" else []
        query = select(column).distinct()
        if of == "experiment":
            query = select(Tag.value).where(Tag.name == EXPERIMENT_TAG).distinct().union(query)
            return [text for text in session.scalars(query) if text and text.lower().startswith(start.lower())][:limit]
    query = query.where(func.lower(column).startswith(start.lower(), autoescape=True)).order_by(column).limit(limit)
    return [text for text in session.scalars(query) if text]


def choices(session: Session) -> dict[str, list[str]]:
    """The jobs, projects and users that there are, for a filter to offer."""
    columns: dict[str, Any] = {"job": Run.job_name, "project": Run.project_name, "user": Run.user}
    found = {}
    for name, column in columns.items():
        query = select(column).distinct().where(column.is_not(None)).order_by(column).limit(_MAX_CHOICES)
        found[name] = [text for text in session.scalars(query) if text]
    return found
