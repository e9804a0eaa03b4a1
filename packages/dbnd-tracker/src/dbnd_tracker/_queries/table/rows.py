"""The rows of lists: runs, each of which stands for its root task run, and the task runs nested in them."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Sequence
from itertools import starmap
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session, aliased

from dbnd_tracker._queries.details import SUMMARY
from dbnd_tracker._queries.ids import is_given, read_given
from dbnd_tracker._queries.logged import BY_ATTEMPT, LIFECYCLE_TAG, MAX_NESTED, NAME_TAG, Owned
from dbnd_tracker._queries.table.columns import NESTED_COLUMNS, START
from dbnd_tracker._storage.base import NAME_LENGTH
from dbnd_tracker._storage.models import CHILD, Attempt, Run, Tag, TaskRelation, TaskRun
from dbnd_tracker._storage.states import shown_state
from dbnd_tracker._views import RunRow

_MAX_DEPTH: Final = 50


def rows_by_uid(session: Session, uids: Sequence[str]) -> list[RunRow]:
    """The rows that these uids name, of runs or of nested task runs, in their order, as far as there are any."""
    found: dict[str, dict[str, Any]] = {}
    if uids:
        for run in read_given(session, _select_runs, ids=uids).all():
            facts = dict(zip(_NAMES, run, strict=True))
            facts["state"] = shown_state(session, run)
            facts["nested_in"] = []
            _add(found, run.run_uid, facts)
    if others := [uid for uid in uids if uid not in found]:
        found |= _nested(session, others)
    return _ROWS.validate_python([found[uid] for uid in dict.fromkeys(uids) if uid in found])


_ROWS: Final = TypeAdapter(list[RunRow])


def _add(found: dict[str, dict[str, Any]], uid: str, facts: dict[str, Any]) -> None:
    """Add what a row has with one of its attempts: the latest counts, and for what it does not say an earlier one."""
    if uid in found:
        facts |= {name: facts[name] or found[uid][name] for name in ("mlflow_run_id", "mlflow_run_name")}
    found[uid] = facts


def _tag(name: str) -> Any:
    value = func.substr(Tag.value, 1, NAME_LENGTH)  # which a tag's may be any longer than
    return select(value).where(Tag.attempt_id == Attempt.id, Tag.name == name).correlate(Attempt).scalar_subquery()


_BELOW: Final = aliased(TaskRun)
_OF_ATTEMPT: Final = (
    Attempt.mlflow_run_id,
    _tag(NAME_TAG).label("mlflow_run_name"),
    (func.coalesce(_tag(LIFECYCLE_TAG), "") == "deleted").label("is_deleted_in_mlflow"),
)
_OF_RUN: Final = (
    *SUMMARY,
    Attempt.task_run_uid,
    *_OF_ATTEMPT,
    select(_BELOW.id).where(_BELOW.run_uid == Run.uid, ~_BELOW.is_root).exists().label("has_nested"),
)
_NAMES: Final = tuple(column.key for column in _OF_RUN)


@functools.cache  # to make a query takes about as long as to execute it
def _select_runs(dialect: str) -> Any:
    """Runs, each with every attempt at its root task run, of several at the first one last."""
    query = select(*_OF_RUN).select_from(Run).outerjoin(TaskRun, and_(TaskRun.run_uid == Run.uid, TaskRun.is_root))
    query = query.outerjoin(Attempt, Attempt.task_run_uid == TaskRun.uid).where(is_given(dialect, Run.uid))
    return query.order_by(TaskRun.id.desc(), *BY_ATTEMPT)


def _nested(session: Session, uids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the rows of task runs that are nested in runs have, by their uids."""
    found: dict[str, dict[str, Any]] = {}
    for row in read_given(session, _select_task_runs, ids=uids).all():
        _add(found, row.task_run_uid, row._asdict())
    above = _above(session, found)
    for uid, facts in found.items():
        facts["description"] = None
        facts["nested_in"] = [facts["of_run"] or facts["run_uid"], *above[uid]]
    return found


@functools.cache
def _select_task_runs(dialect: str) -> Any:
    """Task runs that are nested in runs, each with every attempt at it."""
    own = {name: NESTED_COLUMNS[name].label(name) for name in ("name", "state", "start_time", "end_time")}
    columns = {column.key: column for column in SUMMARY} | own
    below = TaskRelation
    has_nested = select(below.to_uid).where(below.kind == CHILD, below.from_uid == TaskRun.uid).exists()
    others = (Run.name.label("of_run"), has_nested.label("has_nested"))
    query = select(TaskRun.uid.label("task_run_uid"), *columns.values(), *_OF_ATTEMPT, *others)
    query = query.select_from(TaskRun).join(Run, Run.uid == TaskRun.run_uid)
    query = query.outerjoin(Attempt, Attempt.task_run_uid == TaskRun.uid).where(is_given(dialect, TaskRun.uid))
    return query.order_by(*BY_ATTEMPT)


def owned_attempts(session: Session, rows: Iterable[RunRow]) -> list[Owned]:
    """The attempts whose values rows may show: their own, and of runs those of the first task runs below them."""
    uids: dict[bool, list[str]] = {True: [], False: []}
    for row in rows:
        uids[not row.nested_in].append(row.uid)
    found = read_given(session, _select_attempts, ids=uids[True]).all() if uids[True] else []
    own = read_given(session, _select_own_attempts, ids=uids[False]).all() if uids[False] else []
    return [*starmap(Owned, found), *(Owned(each, uid, uid, is_own=True) for each, uid in own)]


@functools.cache
def _select_attempts(dialect: str) -> Any:
    """The attempts of the first task runs of runs, of each run those of its root last."""
    place = func.row_number().over(partition_by=TaskRun.run_uid, order_by=(TaskRun.is_root.desc(), TaskRun.id))
    numbered = select(TaskRun.uid, TaskRun.run_uid, TaskRun.is_root, place.label("place"))
    first = numbered.where(is_given(dialect, TaskRun.run_uid)).subquery()
    query = select(Attempt.id, first.c.run_uid, first.c.uid, first.c.is_root)
    query = query.join(Attempt, Attempt.task_run_uid == first.c.uid).where(first.c.place <= MAX_NESTED)
    return query.order_by(first.c.place.desc(), *BY_ATTEMPT)


@functools.cache
def _select_own_attempts(dialect: str) -> Any:
    query = select(Attempt.id, Attempt.task_run_uid)
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


def nested_uids(session: Session, row: RunRow) -> list[str]:
    """Uids of the task runs right below a row, in the order of their start."""
    query = select(TaskRun.uid, TaskRun.is_root).where(TaskRun.run_uid == row.run_uid)
    arrows = select(TaskRelation.to_uid, TaskRelation.from_uid).where(TaskRelation.kind == CHILD)
    if row.nested_in:
        below = arrows.with_only_columns(TaskRelation.to_uid).where(TaskRelation.from_uid == row.uid)
        query = query.where(TaskRun.uid.in_(below), TaskRun.uid != row.uid)
    rows = session.execute(query.order_by(START.is_(None), START, TaskRun.id)).all()
    if row.nested_in:
        return [each.uid for each in rows]
    nested = {each.uid for each in rows if not each.is_root}
    of_run = arrows.join(TaskRun, TaskRun.uid == TaskRelation.to_uid).where(TaskRun.run_uid == row.run_uid)
    deeper = {child for child, parent in session.execute(of_run) if parent in nested and parent != child}
    return [each.uid for each in rows if each.uid in nested and each.uid not in deeper]
