"""The task run of an MLflow run outside of any task: every process derives the same one from what MLflow says of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any, Final, overload

from dbnd import TaskRun
from dbnd.plugins import mask_text, script_name
from dbnd.tracking import Run, TaskDefinition, storable, time_of, utc_now

from .tags import Link

PARENT: Final = "mlflow.parentRunId"
RUN_NAME: Final = "mlflow.runName"
_SOURCE_NAME: Final = "mlflow.source.name"
USER: Final = "mlflow.user"
NOTE: Final = "mlflow.note.content"
FINAL_STATUSES: Final = frozenset({"FINISHED", "FAILED", "KILLED"})
FACTS: Final = frozenset({RUN_NAME, PARENT, _SOURCE_NAME, USER, NOTE})
"""Tags that are facts of a run, which MLflow's own page shows as such."""


def moment(milliseconds: int | None) -> datetime:
    """A time of MLflow (ms since the epoch, UTC), which may be any number; now for None."""
    return utc_now() if milliseconds is None else time_of(milliseconds * 1000)


def uid_of(run_id: str) -> str:
    """The uid that an MLflow run outside of any task has in the tracker: its own id, which is a uuid."""
    try:
        return str(uuid.UUID(run_id))
    except ValueError:  # a store with ids of another kind
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"mlflow:run:{run_id}"))


def attempt_uid(task_run_uid: str) -> str:
    """The uid of the one attempt of an MLflow run's task run."""
    return str(uuid.uuid5(uuid.UUID(task_run_uid), "1"))


def derived_task_run(
    run: Any,
    parent: TaskRun | None,
    experiment: str | None,
    link: Link | None = None,
) -> TaskRun:
    """The task run of an MLflow run outside of any task: every process derives the same uids from its id.

    Args:
        run: The MLflow run.
        parent: The task run that it is nested in.
        experiment: Name of its experiment.
        link: The uids of the task run, where they are not those that follow from the id.
    """
    info, tags = run.info, run.data.tags
    uid = uid_of(info.run_id)
    link = link or Link(uid if parent is None else parent.run.uid, uid, attempt_uid(uid))
    name = name_of(info)
    if parent is not None and parent.run.uid == link.run_uid:
        dbnd_run = parent.run
    else:
        dbnd_run = Run(
            _job_name(tags, experiment),
            "inplace_tracking",
            project_name=experiment,
            name=name,
            uid=link.run_uid,
            start_time=moment(info.start_time),
            description=description(tags),
        )
        dbnd_run.user = user_of(run) or dbnd_run.user
    return dbnd_run.new_task_run(
        TaskDefinition(name, kind="mlflow"),
        parent=parent,
        uid=link.task_run_uid,
        attempt_uid=link.attempt_uid,
        start_time=moment(info.start_time),
    )


def name_of(info: Any) -> str:
    """Name of an MLflow run, as it is reported and kept."""
    return shown(str(info.run_name or info.run_id))


def user_of(run: Any) -> str | None:
    """Who has started an MLflow run, if it says so."""
    name: str | None = run.data.tags.get(USER) or run.info.user_id
    return shown(name)


def _job_name(tags: Mapping[str, str], experiment: str | None) -> str:
    return source_of(tags) or experiment or script_name()


def source_of(tags: Mapping[str, str]) -> str | None:
    """Name of the script or notebook that tags name, which is the job."""
    source = shown(tags.get(_SOURCE_NAME))
    return (PurePath(source).name or source) if source else None


@overload
def shown(text: str) -> str: ...
@overload
def shown(text: None) -> None: ...
def shown(text: str | None) -> str | None:
    """A text that is a fact of a run, as it is kept: secrets masked, and what no database takes replaced."""
    return None if text is None else storable(mask_text(text))


def description(tags: Mapping[str, str]) -> str | None:
    """The note that tags hold, secrets masked."""
    return shown(tags.get(NOTE))


def facts_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Those of the tags that are facts of the run."""
    return {name: tags[name] for name in FACTS & tags.keys()}


def is_within(task_run: TaskRun, top: TaskRun) -> bool:
    """Whether a task run is ``top`` or below it."""
    each: TaskRun | None = task_run
    while each is not None:
        if each.uid == top.uid:
            return True
        each = each.parent
    return False


def guessed(run_id: str) -> TaskRun:
    """The task run that an MLflow run outside of any task has, of which only the id is known."""
    uid = uid_of(run_id)
    return foreign(uid, uid, attempt_uid(uid), run_id)


def foreign(run_uid: str, task_run_uid: str, attempt_uid: str, name: str) -> TaskRun:
    """A task run that another process has reported: enough of it to add points, and to name it anew.

    It is the root of its run only if it has the run's uid; where it is otherwise, is not known.
    """
    run = Run("mlflow", "inplace_tracking", uid=run_uid)
    task_run = run.new_task_run(
        TaskDefinition(name or run_uid, kind="mlflow"), parent=None, uid=task_run_uid, attempt_uid=attempt_uid
    )
    if task_run_uid != run_uid:
        run.root = None
    return task_run
