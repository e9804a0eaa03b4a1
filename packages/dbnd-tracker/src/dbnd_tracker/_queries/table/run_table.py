"""The table of runs: found, sorted and paged by anything that a run has or has logged.

Its rows are runs. Asked for by what was logged, they are task runs: roots, which stand for their runs, and nested ones.

Newest first, the database finds a page by its key (see ``by_time``); other orders are made here (see ``sorting``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, and_, or_, true
from sqlalchemy.orm import Session

from dbnd_tracker._queries.language.expressions import Expression, Field, QueryError
from dbnd_tracker._queries.logged import (
    logged_values,
)
from dbnd_tracker._queries.table.by_time import RunTable, page_by_time
from dbnd_tracker._queries.table.conditions import Conditions, are_rows
from dbnd_tracker._queries.table.finder import Finder
from dbnd_tracker._queries.table.rows import nested_uids, owned_attempts, rows_by_uid
from dbnd_tracker._queries.table.sorting import sorted_by_column, sorted_by_logged
from dbnd_tracker._storage.models import Run, TaskRun
from dbnd_tracker._views import ListMeta, RunList, RunRow

STARTED: Final = "started"
ORDERS: Final = ("name", "job", "project", "user", "state", STARTED, "took")
"""What rows can be sorted by, besides what they logged."""
ORDER_NAMES: Final = {
    **{name: name for name in ORDERS},
    "start_time": STARTED,
    "job_name": "job",
    "project_name": "project",
    "duration": "took",
}
"""``ORDERS`` by all names that they go by."""


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
        after: Uid of the row before the page, whether or not it is found itself.
        before: Uid of the row after the page.
        offset: How many rows to leave out at the start, where neither of those two is given.
    """
    wanted = [condition for condition in conditions if condition is not None]
    finder = Finder(session)
    asked = Conditions(finder)
    clauses = [*map(asked.clause, wanted), *asked.search(search)]
    is_flat = bool(search) or are_rows(wanted)
    below: list[ColumnElement[bool]] | None = None
    if is_flat or isinstance(order, Field):
        of_nested = Conditions(finder, nested=True)
        # By a word alone, runs are found, and not all that is nested in them.
        found = of_nested.search(search, only_own=not are_rows(wanted))
        below = [*map(of_nested.clause, wanted), *found]
    if order == STARTED:
        return page_by_time(
            session, clauses, below, descending=descending, limit=limit, after=after, before=before, offset=offset
        )

    def find(or_this: str | None = None) -> list[str]:
        of_runs, of_nested = clauses, below
        if or_this:
            of_runs = [or_(and_(true(), *clauses), Run.uid == or_this)]
            of_nested = None if below is None else [or_(and_(true(), *below), TaskRun.uid == or_this)]
        if isinstance(order, Field):
            return sorted_by_logged(session, of_runs, of_nested or [], order, descending=descending, is_flat=is_flat)
        return sorted_by_column(session, of_runs, of_nested, order, descending=descending)

    uids = find()
    start, cursor = offset, after or before
    if cursor:
        # Meanwhile it may have become none of the rows that are looked for: it still says how far one has come.
        among = uids if cursor in uids else find(cursor)
        place = among.index(cursor) if cursor in among else None
        if place is not None and after:
            start = place + (among is uids)
        elif place is not None:
            start = max(place - limit, 0)
    rows = rows_by_uid(session, uids[start : start + limit])
    return RunTable(rows, len(uids), start > 0, start + limit < len(uids), start + 1)


def nested_table(session: Session, uid: str, *, limit: int, offset: int = 0) -> tuple[RunRow, RunTable] | None:
    """A row, and the rows right below it in the order of their start; None if there is no such row."""
    for row in rows_by_uid(session, [uid]):
        uids = nested_uids(session, row)
        rows = rows_by_uid(session, uids[offset : offset + limit])
        return row, RunTable(rows, len(uids), offset > 0, offset + limit < len(uids), offset + 1)
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
    if after is not None and not rows_by_uid(session, [after]):
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
        found = logged_values(session, columns, owned_attempts(session, rows))
        values = {uid: {str(field): value for field, value in of.items()} for uid, of in found.items()}
        rows = [row.model_copy(update={"values": values.get(row.uid, {})}) for row in rows]
    return RunList(data=rows, meta=ListMeta(total=table.total, after=cursor))


def parse_order(sort: str) -> tuple[str | Field, bool]:
    """What ``sort`` names, and whether the largest comes first; QueryError where rows cannot be sorted by it."""
    name = sort.removeprefix("-")
    found: str | Field | None = Field.parse(name) or ORDER_NAMES.get(name)
    if found is None:
        raise QueryError(f"Runs cannot be sorted by {name[:80]!r}; they can by {', '.join(ORDER_NAMES)}, metrics.NAME.")
    return found, sort.startswith("-")


def parse_column(text: str) -> Field:
    """The logged value that ``text`` names, such as ``min:metrics.loss``; QueryError where it names none."""
    found = Field.parse(text)
    if found is None:
        raise QueryError(f"There is no column {text[:80]!r}; there are metrics.NAME, params.NAME and tags.NAME.")
    return found
