"""The rows of lists: runs, each of which stands for its root task run, and the task runs nested in them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import aliased

from dbnd_tracker._queries.ids import given, is_given
from dbnd_tracker._queries.logged import BY_ATTEMPT, LIFECYCLE_TAG, MAX_NESTED, NAME_TAG, Owned
from dbnd_tracker._queries.runs import SUMMARY
from dbnd_tracker._queries.table.conditions import COLUMNS
from dbnd_tracker._storage.models import CHILD, Attempt, Run, Tag, TaskRelation, TaskRun
from dbnd_tracker._storage.states import shown_state
from dbnd_tracker._views import RunRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy.orm import Session

_MAX_DEPTH: Final = 50
_TASK_RUN: Final = Attempt.task_run_uid == TaskRun.uid


class Rows(NamedTuple):
    """Rows, and the attempts whose values they may show."""

    rows: list[RunRow]
    owned: list[Owned]


def rows_of_runs(session: Session, uids: Sequence[str]) -> Rows:
    """The rows of runs, in their order; what does not exist is left out."""
    found = {run.run_uid: run for run in session.execute(select(*SUMMARY).where(Run.uid.in_(uids)))}
    return complete(session, [found[uid] for uid in dict.fromkeys(uids) if uid in found])


def complete(session: Session, runs: Sequence[Any]) -> Rows:
    """The rows of runs of which the columns of ``SUMMARY`` have been read, in their order.

    Besides their own attempts they have those of the first task runs below their roots.
    """
    if not runs:
        return Rows([], [])
    uids = [run.run_uid for run in runs]
    attempts = session.connection().execute(_select_attempts(), {"uids": uids}).all()
    marks = _marks(session, [(*row,) for *row, is_root in attempts if is_root])
    nested = {row.run_uid for row in attempts if not row.is_root}
    names = runs[0]._fields  # of all alike, where each row would make its own
    rows = [
        RunRow(
            **{**dict(zip(names, run, strict=True)), "state": shown_state(session, run)},
            **marks.get(run.run_uid, _NO_MARKS)._asdict(),
            nested_in=[],
            has_nested=run.run_uid in nested,
        )
        for run in runs
    ]
    return Rows(rows, [Owned(row.id, row.run_uid, row.uid, is_own=row.is_root) for row in attempts])


@functools.cache  # to make a query takes about as long as to execute it
def _select_attempts() -> Any:
    """The attempts of the first task runs of runs, of each run those of its root last."""
    place = func.row_number().over(partition_by=TaskRun.run_uid, order_by=(TaskRun.is_root.desc(), TaskRun.id))
    numbered = select(TaskRun.uid, TaskRun.run_uid, TaskRun.is_root, place.label("place"))
    first = numbered.where(TaskRun.run_uid.in_(bindparam("uids", expanding=True))).subquery()
    query = select(first.c.run_uid, first.c.uid, Attempt.id, Attempt.mlflow_run_id, first.c.is_root)
    query = query.join(Attempt, Attempt.task_run_uid == first.c.uid).where(first.c.place <= MAX_NESTED)
    return query.order_by(first.c.place.desc(), *BY_ATTEMPT)


class _Marks(NamedTuple):
    """What a row has besides its run."""

    task_run_uid: str | None = None
    mlflow_run_id: str | None = None
    mlflow_run_name: str | None = None
    is_deleted_in_mlflow: bool = False


_NO_MARKS: Final = _Marks()


def _marks(session: Session, attempts: Sequence[Any]) -> dict[str, _Marks]:
    """By what comes first in a row: of its attempts, which follow with their task runs, what the latest one says."""
    dialect = session.get_bind().dialect.name
    ids = {"ids": given(dialect, [attempt_id for _, _, attempt_id, _ in attempts])}
    tags = {(each, name): text for each, name, text in session.connection().execute(_select_marks(dialect), ids)}
    found: dict[str, _Marks] = {}
    for key, task_run_uid, attempt_id, mlflow_run_id in attempts:
        before = found.get(key, _NO_MARKS)
        found[key] = _Marks(
            task_run_uid,
            mlflow_run_id or before.mlflow_run_id,
            tags.get((attempt_id, NAME_TAG)) or before.mlflow_run_name,
            tags.get((attempt_id, LIFECYCLE_TAG)) == "deleted",
        )
    return found


@functools.cache
def _select_marks(dialect: str) -> Any:
    of_these = is_given(dialect, Tag.attempt_id), Tag.name.in_([NAME_TAG, LIFECYCLE_TAG])
    return select(Tag.attempt_id, Tag.name, Tag.value).where(*of_these)


def rows_of_task_runs(session: Session, uids: Sequence[str]) -> Rows:
    """The rows of task runs that are nested in runs, in their order; what does not exist is left out."""
    own = COLUMNS[True]
    columns = {column.key: column for column in SUMMARY} | {name: own[name].label(name) for name in _OWN}
    query = select(TaskRun.uid, *columns.values()).join(Run, Run.uid == TaskRun.run_uid)
    below = TaskRelation
    has_nested = select(below.to_uid).where(below.kind == CHILD, below.from_uid == TaskRun.uid).exists()
    query = query.add_columns(Run.name.label("of_run"), has_nested.label("has_nested"), Run.start_time.label("began"))
    found = {row.uid: row for row in session.execute(query.where(TaskRun.uid.in_(uids)))} if uids else {}
    if not found:
        return Rows([], [])
    of_task_runs = select(TaskRun.uid, TaskRun.uid, Attempt.id, Attempt.mlflow_run_id).join(Attempt, _TASK_RUN)
    attempts = session.execute(of_task_runs.where(TaskRun.uid.in_(found)).order_by(*BY_ATTEMPT)).all()
    marks = _marks(session, attempts)
    above = _above(session, found)
    rows = []
    for uid in dict.fromkeys(uids):
        if uid not in found:
            continue
        row = found[uid]._asdict()
        facts = {name: row[name] for name in RunRow.model_fields if name in row}
        facts |= {
            "description": None,
            "start_time": row["start_time"] or row["began"],
            "has_nested": bool(row["has_nested"]),
        }
        place = [row["of_run"] or row["run_uid"], *above[uid]]
        rows.append(RunRow(**facts | marks.get(uid, _Marks(uid))._asdict(), nested_in=place))
    return Rows(rows, [Owned(each, uid, uid, is_own=True) for uid, _, each, _ in attempts])


_OWN: Final = ("name", "state", "start_time", "end_time")


def _above(session: Session, uids: Collection[str]) -> dict[str, list[str]]:
    """The names of the task runs above each of these, outermost first, without the roots of runs."""
    parent = aliased(TaskRun)
    query = (
        select(TaskRelation.to_uid, parent.uid, parent.name, parent.is_root)
        .join(TaskRun, TaskRun.uid == TaskRelation.to_uid)
        .join(parent, (parent.uid == TaskRelation.from_uid) & (parent.run_uid == TaskRun.run_uid))
        .where(TaskRelation.kind == CHILD, TaskRelation.from_uid != TaskRelation.to_uid)
        .order_by(TaskRelation.from_uid.desc())  # of several parents the first one counts
    )
    known: dict[str, Any] = {}
    asked: set[str] = set()
    for _ in range(_MAX_DEPTH):  # a query for each level, and no more of them than names are shown
        pending = {*uids, *(row.uid for row in known.values() if not row.is_root)} - asked
        if not pending:
            break
        asked |= pending
        known |= {row.to_uid: row for row in session.execute(query.where(TaskRelation.to_uid.in_(pending)))}
    found = {}
    for uid in uids:
        names: list[str] = []
        at = uid
        while at in known and not known[at].is_root and len(names) < _MAX_DEPTH:
            names.append(known[at].name or known[at].uid)
            at = known[at].uid
        found[uid] = names[::-1]
    return found


def rows_by_uid(session: Session, uids: Sequence[str]) -> Rows:
    """The rows that these uids name, of runs or of nested task runs, in their order."""
    runs = rows_of_runs(session, uids)
    there = {row.uid for row in runs.rows}
    nested = rows_of_task_runs(session, [uid for uid in uids if uid not in there])
    return in_order(uids, runs, nested)


def in_order(uids: Iterable[str], runs: Rows, nested: Rows) -> Rows:
    """Rows of both sorts in the order of their uids."""
    found = {row.uid: row for row in (*runs.rows, *nested.rows)}
    return Rows([found[uid] for uid in dict.fromkeys(uids) if uid in found], runs.owned + nested.owned)


def nested_uids(session: Session, row: RunRow) -> list[str]:
    """Uids of the task runs right below a row, in the order of their start."""
    start = COLUMNS[True]["start_time"]
    query = select(TaskRun.uid, TaskRun.is_root, start.label("start")).where(TaskRun.run_uid == row.run_uid)
    arrows = select(TaskRelation.to_uid, TaskRelation.from_uid).where(TaskRelation.kind == CHILD)
    if row.nested_in:
        below = arrows.with_only_columns(TaskRelation.to_uid).where(TaskRelation.from_uid == row.uid)
        query = query.where(TaskRun.uid.in_(below), TaskRun.uid != row.uid)
    rows = session.execute(query.order_by(start.is_(None), start, TaskRun.id)).all()
    if row.nested_in:
        return [each.uid for each in rows]
    nested = {each.uid for each in rows if not each.is_root}
    of_run = arrows.join(TaskRun, TaskRun.uid == TaskRelation.to_uid).where(TaskRun.run_uid == row.run_uid)
    deeper = {child for child, parent in session.execute(of_run) if parent in nested and parent != child}
    return [each.uid for each in rows if each.uid in nested and each.uid not in deeper]
