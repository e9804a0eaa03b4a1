"""Operations on datasets, and what follows from them: which datasets were made of which."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from dbnd_tracker import _views as views
from dbnd_tracker._storage.models import Attempt, DatasetOperation, Run, TaskRun
from dbnd_tracker._view import view_of

_MAX_OPERATIONS: Final = 1_000


def dataset_operations(
    session: Session, *, path: str | None = None, run_uid: str | None = None, limit: int = 100, after: int | None = None
) -> views.DatasetOperationList:
    """Operations on datasets, newest first, of one path or run; ``after`` is the cursor of an earlier call."""
    query = _operations().order_by(DatasetOperation.id.desc()).limit(limit + 1)
    if path is not None:
        query = query.where(DatasetOperation.path == path)
    if run_uid is not None:
        query = query.where(TaskRun.run_uid == run_uid)
    if after is not None:
        query = query.where(DatasetOperation.id < after)
    rows = session.execute(query).all()
    cursor = rows[limit - 1].DatasetOperation.id if len(rows) > limit else None
    return views.DatasetOperationList(data=[_view(row) for row in rows[:limit]], after=cursor)


def lineage(session: Session, path: str) -> views.Lineage:
    """What was read by the task runs that wrote ``path``, and what was written by those that read it."""
    touched = session.execute(
        _operations().where(DatasetOperation.path == path).order_by(DatasetOperation.id.desc()).limit(_MAX_OPERATIONS)
    ).all()
    task_runs: dict[str, set[str]] = defaultdict(set)
    for row in touched:
        if row.task_run_uid is not None:
            task_runs[row.DatasetOperation.operation_type].add(row.task_run_uid)
    return views.Lineage(
        path=path,
        upstream=_paths(session, task_runs["write"], "read", path),
        downstream=_paths(session, task_runs["read"], "write", path),
        operations=[_view(row) for row in touched],
    )


def _paths(session: Session, task_runs: set[str], operation: str, own: str) -> list[views.LineageEdge]:
    """Other datasets on which these task runs did ``operation``."""
    found: dict[str, set[str]] = defaultdict(set)
    query = _operations().where(
        TaskRun.uid.in_(sorted(task_runs)),
        DatasetOperation.operation_type == operation,
        DatasetOperation.path.is_not(None),
        DatasetOperation.path != own,
    )
    for row in session.execute(query):
        found[row.DatasetOperation.path].add(row.task_run_uid)
    return [views.LineageEdge(path=other, task_run_uids=sorted(uids)) for other, uids in sorted(found.items())]


def _operations() -> Any:
    columns = (
        TaskRun.uid.label("task_run_uid"),
        TaskRun.name.label("task_run_name"),
        TaskRun.run_uid.label("run_uid"),
        Run.job_name.label("job_name"),
    )
    return (
        select(DatasetOperation, *columns)
        .join(Attempt, Attempt.id == DatasetOperation.attempt_id)
        .outerjoin(TaskRun, TaskRun.uid == Attempt.task_run_uid)
        .outerjoin(Run, Run.uid == TaskRun.run_uid)
    )


def _view(row: Any) -> views.DatasetOperationView:
    owner = row._asdict()
    return view_of(views.DatasetOperationView, owner.pop("DatasetOperation"), **owner)
