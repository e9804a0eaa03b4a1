"""One artifact, and what tells where it stands."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from dbnd_tracker._queries.details import TASK_LABEL
from dbnd_tracker._queries.logged import LATEST_FIRST
from dbnd_tracker._storage.models import Artifact, Attempt, Run, TaskRun


@dataclass(frozen=True, slots=True)
class FoundArtifact:
    """An artifact of a task run, as the latest attempt that has it names its place."""

    name: str
    place: str
    links: tuple[str, ...]
    """Addresses of the task run's pages elsewhere, such as in MLflow."""
    task_run_uid: str
    task_name: str
    run_uid: str
    run_name: str | None
    job_name: str | None


def find_artifact(session: Session, task_run_uid: str, name: str) -> FoundArtifact | None:
    query = (
        select(Artifact.path, TaskRun.uid, TASK_LABEL, Run.uid, Run.name, Run.job_name)
        .join(Attempt, Attempt.id == Artifact.attempt_id)
        .join(TaskRun, TaskRun.uid == Attempt.task_run_uid)
        .join(Run, Run.uid == TaskRun.run_uid)
        .where(TaskRun.uid == task_run_uid, Artifact.name == name)
        .order_by(*LATEST_FIRST)
        .limit(1)
    )
    found = session.execute(query).first()
    if found is None:
        return None
    return FoundArtifact(name, found[0], links_of(session, task_run_uid), *found[1:])


def links_of(session: Session, task_run_uid: str) -> tuple[str, ...]:
    """Addresses of a task run's pages elsewhere, such as in MLflow."""
    linked = session.scalars(select(Attempt.external_links).where(Attempt.task_run_uid == task_run_uid))
    return tuple(url for links in linked for url in (links or {}).values() if isinstance(url, str))
