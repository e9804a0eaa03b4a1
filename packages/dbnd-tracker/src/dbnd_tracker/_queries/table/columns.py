"""What the two sorts of rows have: runs, which stand for their root task runs, and the task runs nested in them."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import func, select

from dbnd_tracker._queries.logged import LATEST_FIRST
from dbnd_tracker._storage.models import Attempt, Run, TaskRun

OF_TASK_RUN: Final = Attempt.task_run_uid == TaskRun.uid
"""That an attempt is one of a task run."""


def _of_latest(column: Any) -> Any:
    return select(column).where(OF_TASK_RUN).order_by(*LATEST_FIRST).limit(1).correlate(TaskRun).scalar_subquery()


START: Final = select(func.min(Attempt.start_time)).where(OF_TASK_RUN).correlate(TaskRun).scalar_subquery()
"""When a task run started."""
NESTED_START: Final = func.coalesce(START, Run.start_time)
"""The same; of one that does not say when, its run did."""
_ROOT: Final = (
    select(func.min(TaskRun.uid)).where(TaskRun.run_uid == Run.uid, TaskRun.is_root).correlate(Run).scalar_subquery()
)
_OF_RUN: Final[dict[str, Any]] = {
    "uid": Run.uid,
    "root_run_uid": Run.root_run_uid,
    "job": Run.job_name,
    "project": Run.project_name,
    "user": Run.user,
}
RUN_COLUMNS: Final = {
    **_OF_RUN,
    "task_run_uid": _ROOT,
    "name": Run.name,
    "state": Run.state,
    "start_time": Run.start_time,
    "end_time": Run.end_time,
}
"""What runs have."""
NESTED_COLUMNS: Final = {
    **_OF_RUN,
    "task_run_uid": TaskRun.uid,
    "name": TaskRun.name,
    "state": _of_latest(Attempt.state),
    "start_time": NESTED_START,
    "end_time": _of_latest(Attempt.end_time),
}
"""What task runs nested in runs have."""


def select_nested(*columns: Any) -> Any:
    """These columns of all task runs that are nested in runs."""
    query = select(*columns).join_from(TaskRun, Run, Run.uid == TaskRun.run_uid)
    return query.where(~TaskRun.is_root, ~TaskRun.is_system)
