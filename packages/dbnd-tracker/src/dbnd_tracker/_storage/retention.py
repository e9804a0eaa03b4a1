"""Retention: which runs are old enough to go, and their deletion with everything that belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, or_, select

from dbnd_tracker._storage.deletion import delete_runs
from dbnd_tracker._storage.liveness import lost
from dbnd_tracker._storage.models import Attempt, ClientError, MetricSeries, Run, TaskRun
from dbnd_tracker._storage.states import FINAL_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from dbnd_tracker._storage.database import Database
    from dbnd_tracker._storage.writer import Writer

# Runs deleted in one transaction: others write between two of them.
_RUNS: Final = 50


@dataclass(frozen=True, slots=True)
class Expired:
    """Runs of one job that are old enough to go.

    Args:
        job: The job, or None for runs that never said theirs.
        uids: The runs, oldest first.
        points: How many points they have.
        first: When the oldest one started.
        last: When the newest one started.
    """

    job: str | None
    uids: Sequence[str]
    points: int
    first: datetime
    last: datetime


def expired_runs(session: Session, before: datetime, jobs: Sequence[str] = ()) -> list[Expired]:
    """Runs that ended before a time, by job; a run that is in no final state is kept unless it is lost.

    Args:
        session: Where to read.
        before: The time; of a run that does not say when it ended, the start counts.
        jobs: Only runs of these jobs; none means all.
    """
    ended = or_(Run.state.in_(sorted(FINAL_STATES)), lost(session))
    wanted = select(Run.uid, Run.job_name, Run.start_time).where(
        ended, func.coalesce(Run.end_time, Run.start_time) < before
    )
    if jobs:
        wanted = wanted.where(Run.job_name.in_(jobs))
    runs: dict[str | None, list[tuple[str, datetime]]] = {}
    for uid, job, start in session.execute(wanted.order_by(Run.start_time, Run.id)):
        runs.setdefault(job, []).append((uid, start))
    return [
        Expired(
            job=job,
            uids=[uid for uid, _ in found],
            points=_points(session, [uid for uid, _ in found]),
            first=found[0][1],
            last=found[-1][1],
        )
        for job, found in sorted(runs.items(), key=lambda item: item[0] or "")
    ]


def _points(session: Session, run_uids: Sequence[str]) -> int:
    """How many points runs have."""
    total = 0
    for start in range(0, len(run_uids), _RUNS):
        attempts = (
            select(Attempt.id)
            .join(TaskRun, TaskRun.uid == Attempt.task_run_uid)
            .where(TaskRun.run_uid.in_(run_uids[start : start + _RUNS]))
        )
        total += session.scalar(select(func.sum(MetricSeries.points)).where(MetricSeries.attempt_id.in_(attempts))) or 0
    return int(total)


def delete_expired(database: Database, expired: Expired) -> None:
    """Delete runs with everything in them, some in each transaction.

    Raises:
        StorageError: The database cannot be used; runs may be deleted already, each wholly.
    """
    for start in range(0, len(expired.uids), _RUNS):
        part = expired.uids[start : start + _RUNS]
        database.write(partial(_delete, part))


def _delete(run_uids: Sequence[str], writer: Writer) -> None:
    delete_runs(writer.session, run_uids)


def delete_client_errors(database: Database, before: datetime) -> None:
    """Delete what clients said about their own errors before a time."""
    database.write(lambda writer: writer.session.execute(delete(ClientError).where(ClientError.received_at < before)))
