"""The table in other orders than that of time: made here, over little more than the uid of each row.

SQLite and PostgreSQL agree neither on how texts sort nor on which texts are numbers, and ten thousand such rows take
some hundredths of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ColumnElement, select, type_coerce
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType

from dbnd_tracker._queries.ids import is_one_of
from dbnd_tracker._queries.language.expressions import Field, as_number
from dbnd_tracker._queries.logged import BY_ATTEMPT, TABLES, field_columns, field_value, is_named, select_logged
from dbnd_tracker._queries.table.columns import NESTED_COLUMNS, NESTED_START, RUN_COLUMNS, select_nested
from dbnd_tracker._storage.models import Attempt, Run, TaskRun

Clauses = Sequence[ColumnElement[bool]]

# Times as the database gives them: they are only compared with one another.
_RUN_START: Final = type_coerce(Run.start_time, NullType())
_NESTED_START: Final = type_coerce(NESTED_START, NullType())


def sorted_by_column(
    session: Session, clauses: Clauses, below: Clauses | None, order: str, *, descending: bool
) -> list[str]:
    """Uids of the runs that meet ``clauses``, and of the nested task runs that meet what is ``below``, if any.

    The ``order`` is a column of theirs, or how long they took.
    """
    connection = session.connection()
    lasts = order == "took"
    name = "end_time" if lasts else order
    start: Any = Run.start_time if lasts else _RUN_START
    # By their ids, so that what is equal in all else stands in the same order on every page.
    rows = connection.execute(select(Run.uid, start, RUN_COLUMNS[name]).where(*clauses).order_by(Run.id)).all()
    if below is not None:
        start = NESTED_START if lasts else _NESTED_START
        nested = select_nested(TaskRun.uid, start, NESTED_COLUMNS[name]).where(*below).order_by(TaskRun.id)
        rows = [*rows, *connection.execute(nested)]
    if not lasts:
        return _sorted(rows, descending=descending)
    spans = ((uid, start, end and (end - start).total_seconds()) for uid, start, end in rows)
    return _sorted(spans, descending=descending)


def sorted_by_logged(
    session: Session, clauses: Clauses, below: Clauses, field: Field, *, descending: bool, is_flat: bool
) -> list[str]:
    """The same by something logged.

    Unless the table ``is_flat``, task runs without a value are left out, and so are runs without one that show task
    runs with one.
    """
    connection = session.connection()
    of_runs, of_nested = _values(session, field)
    wanted = below if is_flat else [*below, is_one_of(session, TaskRun.id, of_nested)]
    query = select_nested(TaskRun.uid, _NESTED_START, TaskRun.id, Run.id).where(*wanted).order_by(TaskRun.id)
    nested = connection.execute(query).all() if is_flat or of_nested else []
    shown = set() if is_flat else {run for *_, run in nested}
    runs = select(Run.uid, _RUN_START, Run.id).where(*clauses).order_by(Run.id)
    rows = [
        (uid, start, of_runs.get(run))
        for uid, start, run in connection.execute(runs)
        if run in of_runs or run not in shown
    ]
    rows += [(uid, start, of_nested.get(task)) for uid, start, task, _ in nested]
    return _sorted(rows, descending=descending)


def _values(session: Session, field: Field) -> tuple[dict[int, Any], dict[int, Any]]:
    """What was logged, by the ids of runs (their root task runs) and of nested task runs; the latest attempt counts."""
    table = TABLES[field.kind]
    query = select_logged(field.kind, *field_columns(field.kind), Attempt.run_id, TaskRun.id, TaskRun.is_root)
    query = query.join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(is_named(session, field.kind, field.name))
    of_runs: dict[int, Any] = {}
    of_nested: dict[int, Any] = {}
    for row in session.connection().execute(query.order_by(*BY_ATTEMPT, table.model.id)):
        run, task, is_root = row[-3:]
        if is_root:
            of_runs[run] = field_value(field, row)
        else:
            of_nested[task] = field_value(field, row)
    return of_runs, of_nested


def _sorted(rows: Iterable[Any], *, descending: bool) -> list[str]:
    """Uids of rows of uid, start and value in the order of their values: of those that are equal, the newest first."""
    valued: list[tuple[tuple[int, float, str], str]] = []
    others = []
    for uid, _, value in sorted(rows, key=itemgetter(1), reverse=True):
        if value is None or (isinstance(value, str) and value in {"", "NaN"}):
            others.append(uid)
        else:
            valued.append((_sort_key(value), uid))
    valued.sort(key=itemgetter(0), reverse=descending)
    return [uid for _, uid in valued] + others


def _sort_key(value: object) -> tuple[int, float, str]:
    """Numbers in their order, and after them texts in theirs."""
    number = as_number(value)
    return (1, 0.0, str(value).casefold()) if number is None else (0, number, "")
