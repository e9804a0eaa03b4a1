"""Long lists of what task runs logged, a part at a time: their names are read, and the rows of what is shown."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, exists, inspect, select
from sqlalchemy.orm import Session, aliased

from dbnd_tracker import _views as views
from dbnd_tracker._queries.ids import is_given, read_given
from dbnd_tracker._queries.logged import BY_ATTEMPT, TABLES, ListKind, select_logged
from dbnd_tracker._storage.encoding import Kind
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries, Param, Tag, TaskRun
from dbnd_tracker._view import View

_ARGUMENT: Final = aliased(Param)
# What is logged of a task's own arguments stands there once.
_IS_ARGUMENT: Final = exists().where(
    _ARGUMENT.attempt_id == Param.attempt_id,
    _ARGUMENT.name == Param.name,
    _ARGUMENT.value == Param.value,
    _ARGUMENT.source < Param.source,
)


class Part(NamedTuple):
    rows: list[tuple[str, Any]]
    """Uids of task runs, and what they logged."""
    start: int
    """How many rows stand before the part."""
    found: int
    """How many rows the search finds, of all."""
    total: int


Names = dict[tuple[str, str | None, Any], int]
"""Things of one kind that were logged: the uid of a task run, a name, and what tells apart those of one name."""


def names_of(session: Session, kind: ListKind, task_runs: Iterable[str], *, run_uid: str | None = None) -> Names:
    """What task runs logged, and the ids of the rows; of what several attempts logged under one name, the latest's.

    They are those of a run, or ``task_runs``, of which there are few then.
    """
    ids = () if run_uid else task_runs
    rows = read_given(session, _select_names, kind, run_uid is not None, ids=ids, run_uid=run_uid)
    return {(uid, name, beside): row_id for uid, name, beside, row_id in rows.all()}


@functools.cache  # to make a query takes longer than to execute it
def _select_names(dialect: str, kind: ListKind, of_run: bool) -> Any:
    table = TABLES[kind]
    query = select_logged(kind, Attempt.task_run_uid, table.name, table.beside, table.model.id)
    if kind == "params":
        query = query.where(~_IS_ARGUMENT)
    return query.where(_is_of(dialect, of_run)).order_by(*BY_ATTEMPT, table.order)


def _is_of(dialect: str, of_run: bool) -> Any:
    if not of_run:
        return is_given(dialect, Attempt.task_run_uid)
    return Attempt.task_run_uid.in_(select(TaskRun.uid).where(TaskRun.run_uid == bindparam("run_uid")))


def list_part(
    session: Session,
    kind: ListKind,
    names: Names,
    task_runs: Mapping[str, int],
    *,
    find: str = "",
    keep: Callable[[str], bool] | None = None,
    start: int = 0,
    limit: int,
) -> Part:
    """A part of what task runs logged, of all ``names`` that there are, by the places of ``task_runs``.

    Rows count whose names meet ``keep``; those of them are found whose names hold the text ``find``, whatever its case.
    """
    known = [(uid, name, row_id) for (uid, name, _), row_id in names.items() if uid in task_runs]
    if keep:
        known = [each for each in known if keep(each[1] or "")]
    wanted = find.casefold()
    found = [each for each in known if wanted in (each[1] or "").casefold()]
    found.sort(key=lambda row: task_runs[row[0]])
    start = start if start < len(found) else 0
    shown = found[start : start + limit]
    rows = _rows(session, kind, [row[-1] for row in shown])
    return Part([(uid, rows[row_id]) for uid, *_, row_id in shown if row_id in rows], start, len(found), len(known))


def _rows(session: Session, kind: ListKind, ids: list[int]) -> dict[int, View]:
    if not ids:
        return {}
    view = TABLES[kind].view
    return {row.id: view(row, row.key) for row in read_given(session, _select_rows, kind, ids=ids).all()}


@functools.cache
def _select_rows(dialect: str, kind: ListKind) -> Any:
    table = TABLES[kind]
    columns = [getattr(table.model, column.key).label(column.key) for column in inspect(table.model).column_attrs]
    return select_logged(kind, *columns, table.name.label("key")).where(is_given(dialect, table.model.id))


def histories(
    session: Session, task_runs: Mapping[str, int], *, run_uid: str | None = None, find: str = ""
) -> dict[str, list[str]]:
    """The metrics that have more than one point, by key: uids of the task runs that logged them (see ``list_part``)."""
    ids = () if run_uid else task_runs
    rows = read_given(session, _select_histories, run_uid is not None, ids=ids, run_uid=run_uid).all()
    latest = {(key, uid): drawn for key, uid, drawn in rows}
    found: dict[str, list[str]] = {}
    wanted = find.casefold()
    for key, uid in sorted(place for place, drawn in latest.items() if drawn):
        if uid in task_runs and wanted in key.casefold():
            found.setdefault(key, []).append(uid)
    return {key: sorted(uids, key=task_runs.__getitem__) for key, uids in found.items()}


@functools.cache
def _select_histories(dialect: str, of_run: bool) -> Any:
    has_numbers = MetricSeries.min_value.is_not(None) | (MetricSeries.last_kind <= Kind.INT)
    query = select_logged("metrics", MetricKey.name, Attempt.task_run_uid, has_numbers & (MetricSeries.points > 1))
    return query.where(_is_of(dialect, of_run)).order_by(*BY_ATTEMPT)


def metrics_named(session: Session, task_runs: Collection[str], keys: Collection[str]) -> set[tuple[str, str]]:
    """Which of these task runs have which of these metrics: uids and keys."""
    query = select_logged("metrics", Attempt.task_run_uid, MetricKey.name)
    mine = query.where(Attempt.task_run_uid.in_(task_runs), MetricKey.name.in_(keys))
    return {(uid, key) for uid, key in session.execute(mine)}


def metric_list(session: Session, task_run_uid: str, *, limit: int = 10_000, after: int = 0) -> views.MetricList:
    """The metrics of a task run; ``after`` is the cursor that an earlier call returned."""
    names = names_of(session, "metrics", [task_run_uid])
    part = list_part(session, "metrics", names, {task_run_uid: 0}, start=after, limit=limit)
    shown = [metric for _, metric in part.rows] if part.start == after else []
    following = after + len(shown) if after + len(shown) < part.total and shown else None
    return views.MetricList(task_run_uid=task_run_uid, data=shown, after=following, total=part.total)


def tag_values(
    session: Session, names: Sequence[str], task_runs: Iterable[str], *, run_uid: str | None = None
) -> dict[tuple[str, str], str | None]:
    """The values of some tags by task run and name, of a run or of ``task_runs``, of which there are few then."""
    ids = () if run_uid else task_runs
    rows = read_given(session, _select_tags, run_uid is not None, ids=ids, run_uid=run_uid, names=names).all()
    return {(uid, name): value for uid, name, value in rows}


@functools.cache
def _select_tags(dialect: str, of_run: bool) -> Any:
    query = select_logged("tags", Attempt.task_run_uid, Tag.name, Tag.value)
    query = query.where(_is_of(dialect, of_run), Tag.name.in_(bindparam("names", expanding=True)))
    return query.order_by(*BY_ATTEMPT)
