"""Deletion of runs with everything in them, and which runs are old enough for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from sqlalchemy import delete, func, insert, literal, or_, select, union
from sqlalchemy.orm import Session

from dbnd_tracker._errors import StorageError
from dbnd_tracker._storage.base import OfAttempt, UtcDateTime
from dbnd_tracker._storage.bulk import chunks
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.models import (
    Attempt,
    ClientError,
    Deleted,
    MetricSeries,
    Run,
    TaskDefinition,
    TaskRelation,
    TaskRun,
)
from dbnd_tracker._storage.points.archive import remove_files
from dbnd_tracker._storage.points.models import ARCHIVED, Metric, Segment
from dbnd_tracker._storage.states import FINAL_STATES, lost

# Runs deleted in one transaction: others write between two of them.
_RUNS: Final = 50


def delete_runs(session: Session, run_uids: Sequence[str]) -> int:
    """Delete runs and everything in them, within the transaction of ``session``; returns how many there were.

    Their uids are kept, so that what comes for them later is dropped. At most some hundred; those that do not exist are
    passed over.
    """
    # Locked, so that nobody adds to them meanwhile.
    run_uids = session.scalars(select(Run.uid).where(Run.uid.in_(run_uids)).order_by(Run.id).with_for_update()).all()
    is_inside = TaskRun.run_uid.in_(run_uids)
    task_runs: Any = select(TaskRun.uid).where(is_inside)
    attempts: Any = select(Attempt.id).where(Attempt.task_run_uid.in_(task_runs))
    wanted = select(MetricSeries.id).where(MetricSeries.attempt_id.in_(attempts)).order_by(MetricSeries.id)
    series = session.scalars(wanted.with_for_update()).all()
    for uids in (
        select(Run.uid, Run.uid).where(Run.uid.in_(run_uids)),
        # A run whose only task run has its uid is one uid.
        select(TaskRun.uid, TaskRun.run_uid).where(is_inside, TaskRun.uid.not_in(run_uids)),
        select(Attempt.uid, TaskRun.run_uid).join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(is_inside),
    ):
        now: Any = literal(datetime.now(timezone.utc), UtcDateTime())
        rows = uids.add_columns(now, literal(0))
        session.execute(insert(Deleted).from_select(["uid", "run_uid", "deleted_at", "dropped"], rows))
    definitions = session.scalars(select(TaskRun.task_definition_uid).where(is_inside).distinct()).all()
    for some in chunks(series):  # by their ids, so that partitions without them are left alone
        for table in (Metric, Segment):
            _delete(session, table, table.series_id.in_(some))
    for model in OfAttempt.__subclasses__():
        _delete(session, model, model.attempt_id.in_(attempts))
    _delete(session, Attempt, Attempt.task_run_uid.in_(task_runs))
    _delete(session, TaskRelation, or_(TaskRelation.from_uid.in_(task_runs), TaskRelation.to_uid.in_(task_runs)))
    _delete(session, TaskRun, is_inside)
    # The definitions of a process belong to all runs that it has made.
    for part in chunks(definitions):
        used = select(TaskRun.task_definition_uid).where(TaskRun.task_definition_uid.in_(part))
        _delete(session, TaskDefinition, TaskDefinition.uid.in_(part), TaskDefinition.uid.not_in(used))
    return _delete(session, Run, Run.uid.in_(run_uids))


def delete_wholly(database: Database, run_uids: Sequence[str]) -> int:
    """Delete runs as ``delete_runs`` does, and then their files in the archive; returns how many there were.

    Raises:
        StorageError: The database cannot be used, or the archive that has files of theirs is not there.
    """
    its = select(TaskRun.uid, TaskRun.run_uid).join(Attempt, Attempt.task_run_uid == TaskRun.uid).join(MetricSeries)
    its = its.join(Segment, Segment.series_id == MetricSeries.id).where(Segment.version == ARCHIVED).distinct()
    known = union(*(select(uid).where(uid.in_(run_uids)) for uid in (Run.uid, Deleted.uid)))
    with database.read() as session:
        archived = session.execute(its.where(TaskRun.run_uid.in_(run_uids))).all()
        # Those deleted before, too: their files may have been left.
        runs = session.scalars(known).all()
    folder = database.archive
    if archived and (folder is None or not folder.is_dir()):
        why = "set tracker.archive to its folder" if folder is None else f"{folder} (tracker.archive) is not there"
        run = archived[0].run_uid
        raise StorageError(f"The points of the run {run} are in the archive, and would stay there: {why}.")
    count = database.write(lambda writer: delete_runs(writer.session, run_uids))
    if folder:  # a task run may have been a run of its own when it was archived
        remove_files(folder, {*runs, *(row.uid for row in archived)})
    return count


def _delete(session: Session, table: Any, *conditions: Any) -> int:
    result: Any = session.execute(delete(table).where(*conditions).execution_options(synchronize_session=False))
    return int(result.rowcount)


@dataclass(frozen=True, slots=True)
class Expired:
    """Runs of one job, oldest first, that are old enough to go, and when the first and the last one started."""

    job: str | None
    uids: Sequence[str]
    points: int
    first: datetime
    last: datetime


def expired_runs(session: Session, before: datetime, jobs: Sequence[str] = ()) -> list[Expired]:
    """Runs, of these jobs if any are named, that ended before a time, by job; runs that go on are kept, lost ones not.

    Of a run that does not say when it ended, the start counts.
    """
    ended = or_(Run.state.in_(sorted(FINAL_STATES)), lost(session))
    points = select(func.sum(MetricSeries.points)).join(Attempt, Attempt.id == MetricSeries.attempt_id)
    points_of_run = points.where(Attempt.run_id == Run.id).scalar_subquery().label("points")
    wanted = select(Run.uid, Run.job_name, Run.start_time, points_of_run)
    wanted = wanted.where(ended, func.coalesce(Run.end_time, Run.start_time) < before)
    if jobs:
        wanted = wanted.where(Run.job_name.in_(jobs))
    found: dict[str | None, list[Any]] = {}
    for row in session.execute(wanted.order_by(Run.start_time, Run.id)):
        found.setdefault(row.job_name, []).append(row)
    return [
        Expired(
            job=job,
            uids=[row.uid for row in rows],
            points=sum(int(row.points or 0) for row in rows),  # PostgreSQL sums up to a Decimal
            first=rows[0].start_time,
            last=rows[-1].start_time,
        )
        for job, rows in sorted(found.items(), key=lambda item: item[0] or "")
    ]


def delete_expired(database: Database, expired: Expired) -> None:
    """Delete runs with everything in them, some in each transaction: when it fails, some may be gone, each wholly."""
    for start in range(0, len(expired.uids), _RUNS):
        delete_wholly(database, expired.uids[start : start + _RUNS])


def delete_client_errors(database: Database, before: datetime) -> None:
    """Delete what clients said about their own errors before a time."""
    database.write(lambda writer: writer.session.execute(delete(ClientError).where(ClientError.received_at < before)))
