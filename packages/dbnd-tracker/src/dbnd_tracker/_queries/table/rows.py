"""The rows of lists: runs, each of which stands for its root task run, and the task runs nested in them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import aliased

from dbnd_tracker._queries.ids import is_given, read_given
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


class Rows(NamedTuple):
    """Rows, and the attempts whose values they may show."""

    rows: list[RunRow]
    owned: list[Owned]


def rows_of_runs(session: Session, uids: Sequence[str]) -> Rows:
    """The rows of runs, in their order; what does not exist is left out."""
    found = {run.run_uid: run for run in read_given(session, _select_runs, ids=uids)}
    return complete(session, [found[uid] for uid in dict.fromkeys(uids) if uid in found])


@functools.cache  # to make a query takes about as long as to execute it
def _select_runs(dialect: str) -> Any:
    return select(*SUMMARY).where(is_given(dialect, Run.uid))


def complete(session: Session, runs: Sequence[Any]) -> Rows:
    """The rows of runs of which the columns of ``SUMMARY`` have been read, in their order.

    Besides their own attempts they have those of the first task runs below their roots.
    """
    if not runs:
        return Rows([], [])
    attempts = read_given(session, _select_attempts, ids=[run.run_uid for run in runs]).all()
    marks = _marks((uid, attempt) for uid, is_root, *attempt in attempts if is_root)
    nested = {uid for uid, is_root, *_ in attempts if not is_root}
    names = runs[0]._fields  # of all alike, where each row would make its own
    rows = []
    for run in runs:
        uid = run.run_uid
        facts = dict(zip(names, run, strict=True)) | marks.get(uid, _NO_MARKS)
        rows.append(
            RunRow(**facts | {"state": shown_state(session, run), "nested_in": [], "has_nested": uid in nested})
        )
    return Rows(rows, [Owned(own, uid, task_run, is_root) for uid, is_root, task_run, own, *_ in attempts])


def _tag(name: str) -> Any:
    return select(Tag.value).where(Tag.attempt_id == Attempt.id, Tag.name == name).correlate(Attempt).scalar_subquery()


@functools.cache
def _select_attempts(dialect: str) -> Any:
    """The attempts of the first task runs of runs, of each run those of its root last."""
    place = func.row_number().over(partition_by=TaskRun.run_uid, order_by=(TaskRun.is_root.desc(), TaskRun.id))
    numbered = select(TaskRun.uid, TaskRun.run_uid, TaskRun.is_root, place.label("place"))
    first = numbered.where(is_given(dialect, TaskRun.run_uid)).subquery()
    query = select(first.c.run_uid, first.c.is_root, first.c.uid, *_OF_ATTEMPT)
    query = query.join(Attempt, Attempt.task_run_uid == first.c.uid).where(first.c.place <= MAX_NESTED)
    return query.order_by(first.c.place.desc(), *BY_ATTEMPT)


_OF_ATTEMPT: Final = (
    Attempt.id,
    Attempt.mlflow_run_id,
    _tag(NAME_TAG).label("mlflow_run_name"),
    _tag(LIFECYCLE_TAG).label("lifecycle"),
)
_NO_MARKS: Final[dict[str, Any]] = {
    "task_run_uid": None,
    "mlflow_run_id": None,
    "mlflow_run_name": None,
    "is_deleted_in_mlflow": False,
}


def _marks(attempts: Iterable[tuple[str, Sequence[Any]]]) -> dict[str, dict[str, Any]]:
    """What rows have besides their runs: of the attempts of each, given by its uid, what the latest one says."""
    found: dict[str, dict[str, Any]] = {}
    for uid, (task_run_uid, _, run_id, name, lifecycle) in attempts:
        before = found.get(uid, _NO_MARKS)
        found[uid] = {
            "task_run_uid": task_run_uid,
            "mlflow_run_id": run_id or before["mlflow_run_id"],
            "mlflow_run_name": name or before["mlflow_run_name"],
            "is_deleted_in_mlflow": lifecycle == "deleted",
        }
    return found


def rows_of_task_runs(session: Session, uids: Sequence[str]) -> Rows:
    """The rows of task runs that are nested in runs, in their order; what does not exist is left out."""
    if not uids:
        return Rows([], [])
    found = {row.uid: row for row in read_given(session, _select_task_runs, ids=uids)}
    attempts = read_given(session, _select_their_attempts, ids=uids).all()
    marks = _marks((attempt[0], attempt) for attempt in attempts)
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
        rows.append(RunRow(**facts | marks.get(uid, _NO_MARKS | {"task_run_uid": uid}), nested_in=place))
    return Rows(rows, [Owned(own, uid, uid, is_own=True) for uid, own, *_ in attempts if uid in found])


@functools.cache
def _select_task_runs(dialect: str) -> Any:
    own = {name: COLUMNS[True][name].label(name) for name in ("name", "state", "start_time", "end_time")}
    columns = {column.key: column for column in SUMMARY} | own
    below = TaskRelation
    has_nested = select(below.to_uid).where(below.kind == CHILD, below.from_uid == TaskRun.uid).exists()
    others = (Run.name.label("of_run"), has_nested.label("has_nested"), Run.start_time.label("began"))
    query = select(TaskRun.uid, *columns.values(), *others).join(Run, Run.uid == TaskRun.run_uid)
    return query.where(is_given(dialect, TaskRun.uid))


@functools.cache
def _select_their_attempts(dialect: str) -> Any:
    query = select(Attempt.task_run_uid.label("uid"), *_OF_ATTEMPT)
    return query.where(is_given(dialect, Attempt.task_run_uid)).order_by(*BY_ATTEMPT)


def _above(session: Session, uids: Collection[str]) -> dict[str, list[str]]:
    """The names of the task runs above each of these, outermost first, without the roots of runs."""
    known: dict[str, Any] = {}
    asked: set[str] = set()
    for _ in range(_MAX_DEPTH):  # a query for each level, and no more of them than names are shown
        pending = {*uids, *(row.uid for row in known.values() if not row.is_root)} - asked
        if not pending:
            break
        asked |= pending
        known |= {row.to_uid: row for row in read_given(session, _select_parents, ids=pending)}
    found = {}
    for uid in uids:
        names: list[str] = []
        at = uid
        while at in known and not known[at].is_root and len(names) < _MAX_DEPTH:
            names.append(known[at].name or known[at].uid)
            at = known[at].uid
        found[uid] = names[::-1]
    return found


@functools.cache
def _select_parents(dialect: str) -> Any:
    parent = aliased(TaskRun)
    query = select(TaskRelation.to_uid, parent.uid, parent.name, parent.is_root)
    query = query.join(TaskRun, TaskRun.uid == TaskRelation.to_uid)
    query = query.join(parent, (parent.uid == TaskRelation.from_uid) & (parent.run_uid == TaskRun.run_uid))
    query = query.where(TaskRelation.kind == CHILD, TaskRelation.from_uid != TaskRelation.to_uid)
    # Of several parents the first one counts.
    return query.where(is_given(dialect, TaskRelation.to_uid)).order_by(TaskRelation.from_uid.desc())


def rows_by_uid(session: Session, uids: Sequence[str]) -> Rows:
    """The rows that these uids name, of runs or of nested task runs, in their order."""
    runs = rows_of_runs(session, uids)
    there = {row.uid for row in runs.rows}
    others = [uid for uid in uids if uid not in there]
    return in_order(uids, runs, rows_of_task_runs(session, others)) if others else runs


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
