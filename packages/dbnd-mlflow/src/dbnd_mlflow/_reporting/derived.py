"""The task run of an MLflow run outside of any task: every process derives the same one from what MLflow says of it."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any, Final

from dbnd import TaskRun
from dbnd.plugins import mask_text, mask_url, script_name
from dbnd.tracking import Run, RunState, TaskDefinition, TaskRunState, storable, time_of, utc_now

from .tags import NOTE, SOURCE_NAME, USER, Link

STATES: Final = {
    "FINISHED": (TaskRunState.SUCCESS, RunState.SUCCESS),
    "FAILED": (TaskRunState.FAILED, RunState.FAILED),
    "KILLED": (TaskRunState.CANCELLED, RunState.CANCELLED),
}
"""What MLflow's final statuses are called in the tracker, of a task run and of a run."""


def moment(milliseconds: Any) -> datetime:
    """A time of MLflow (ms since the epoch, UTC), which SQLite takes as anything; now for None."""
    return utc_now() if milliseconds is None else time_of(integer_of(milliseconds) * 1000)


def integer_of(value: Any) -> float:
    """A time or a step as MLflow means it: SQLite keeps one of NumPy's as its bytes, and what is no number, too."""
    if isinstance(value, bytes):
        return int.from_bytes(value, sys.byteorder, signed=True)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0
    return value if value and math.isfinite(value) else 0


def uid_of(run_id: str) -> str:
    """The uid that an MLflow run outside of any task has in the tracker: its own id, which is a uuid."""
    try:
        return str(uuid.UUID(run_id))
    except ValueError:  # a store with ids of another kind
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"mlflow:run:{run_id}"))


def attempt_uid(task_run_uid: str) -> str:
    """The uid of the one attempt of an MLflow run's task run."""
    return str(uuid.uuid5(uuid.UUID(task_run_uid), "1"))


def derived_task_run(run: Any, parent: TaskRun | None, experiment: str | None, link: Link | None = None) -> TaskRun:
    """The task run of an MLflow run outside of any task; ``link`` has its uids, if they do not follow from its id."""
    info, tags = run.info, run.data.tags
    uid = uid_of(info.run_id)
    link = link or Link(uid if parent is None else parent.run.uid, uid, attempt_uid(uid))
    name = name_of(info)
    if parent is not None and parent.run.uid == link.run_uid:
        dbnd_run = parent.run
    else:
        dbnd_run = Run(
            source_of(tags) or experiment or script_name(),
            "inplace_tracking",
            project_name=experiment,
            name=name,
            uid=link.run_uid,
            start_time=moment(info.start_time),
            description=note_of(tags),
        )
        dbnd_run.user = user_of(run) or dbnd_run.user
    return dbnd_run.new_task_run(
        TaskDefinition(name, kind="mlflow"),
        parent=parent,
        uid=link.task_run_uid,
        attempt_uid=link.attempt_uid,
        start_time=moment(info.start_time),
    )


def foreign(link: Link, name: str) -> TaskRun:
    """A task run that another process has reported: enough of it to log to it, and to rename it."""
    run = Run("mlflow", "inplace_tracking", uid=link.run_uid)
    task_run = run.new_task_run(
        TaskDefinition(name or link.run_uid, kind="mlflow"),
        parent=None,
        uid=link.task_run_uid,
        attempt_uid=link.attempt_uid,
    )
    if link.task_run_uid != link.run_uid:  # which task run is the root is not known
        run.root = None
    return task_run


def guessed(run_id: str) -> TaskRun:
    """The task run that an MLflow run outside of any task has, of which only the id is known."""
    uid = uid_of(run_id)
    return foreign(Link(uid, uid, attempt_uid(uid)), run_id)


def text_of(value: object) -> str:
    """A param or a tag as MLflow means it: a file store keeps nothing as empty text, and SQLite as NULL."""
    return "" if value is None else str(value)


def shown(value: object) -> str:
    """A text as the tracker keeps it: secrets masked, and characters replaced that no database takes."""
    return storable(mask_text(str(value)))


def name_of(info: Any) -> str:
    return shown(info.run_name or info.run_id)


def user_of(run: Any) -> str | None:
    return shown(run.data.tags.get(USER) or run.info.user_id or "") or None


def note_of(tags: Mapping[str, str]) -> str | None:
    return shown(tags.get(NOTE, "")) or None


def source_of(tags: Mapping[str, str]) -> str | None:
    """Name of the script or notebook that tags name, which is the job."""
    source = shown(tags.get(SOURCE_NAME, ""))
    return PurePath(source).name or source or None


def page_of(tracking_uri: str, info: Any) -> str:
    """Where an MLflow run can be found: its page on a server, or its store and id in the same form."""
    uri = mask_url(tracking_uri)
    # Such that it means the same in any working directory.
    prefix = next((prefix for prefix in ("sqlite:///", "file:") if uri.startswith(prefix)), "")
    path = uri.removeprefix(prefix)
    if not path.startswith("/") and (prefix or ":" not in path):
        uri = f"{prefix}{Path(path).absolute()}"
    return f"{uri}#/experiments/{info.experiment_id}/runs/{info.run_id}"
