"""Retention: which runs are old enough to go, and their deletion with everything that belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import Delete, Table, delete, func, or_, select

from dbnd_tracker._liveness import lost
from dbnd_tracker._models import (
    Attempt,
    Base,
    ClientError,
    Metric,
    MetricSeries,
    Run,
    TaskDefinition,
    TaskRelation,
    TaskRun,
)
from dbnd_tracker._states import FINAL_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from dbnd_tracker._database import Database
    from dbnd_tracker._writer import Writer

# Runs deleted in one transaction: others write between two of them.
_RUNS: Final = 50


@dataclass(frozen=True, slots=True)
class Expired:
    """Runs of one job that are old enough to go.

    Args:
        job: The job, or None for runs that never said theirs.
        ids: ``id`` of the runs.
        points: How many points they have.
        first: When the oldest one started.
        last: When the newest one started.
    """

    job: str | None
    ids: Sequence[int]
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
    wanted = select(Run.id, Run.job_name, Run.start_time).where(
        ended, func.coalesce(Run.end_time, Run.start_time) < before
    )
    if jobs:
        wanted = wanted.where(Run.job_name.in_(jobs))
    runs: dict[str | None, list[tuple[int, datetime]]] = {}
    for run_id, job, start in session.execute(wanted.order_by(Run.start_time, Run.id)):
        runs.setdefault(job, []).append((run_id, start))
    points = _points(session, [run_id for found in runs.values() for run_id, _ in found])
    return [
        Expired(
            job=job,
            ids=[run_id for run_id, _ in found],
            points=sum(points.get(run_id, 0) for run_id, _ in found),
            first=found[0][1],
            last=found[-1][1],
        )
        for job, found in sorted(runs.items(), key=lambda item: item[0] or "")
    ]


def _points(session: Session, run_ids: Sequence[int]) -> dict[int, int]:
    """How many points runs have, by ``id``."""
    found: dict[int, int] = {}
    for start in range(0, len(run_ids), _RUNS):
        counts = (
            select(Run.id, func.sum(MetricSeries.points))
            .join(TaskRun, TaskRun.run_uid == Run.uid)
            .join(Attempt, Attempt.task_run_uid == TaskRun.uid)
            .join(MetricSeries, MetricSeries.attempt_id == Attempt.id)
            .where(Run.id.in_(run_ids[start : start + _RUNS]))
            .group_by(Run.id)
        )
        found |= {run_id: int(count) for run_id, count in session.execute(counts)}
    return found


def delete_runs(database: Database, run_ids: Sequence[int]) -> None:
    """Delete runs with everything that belongs to them, some in each transaction.

    Raises:
        StorageError: The database cannot be used; runs may be deleted already, each wholly.
    """
    for start in range(0, len(run_ids), _RUNS):
        database.write(partial(_delete, run_ids[start : start + _RUNS]))


def _delete(run_ids: Sequence[int], writer: Writer) -> None:
    session = writer.session
    of_runs = TaskRun.run_uid.in_(select(Run.uid).where(Run.id.in_(run_ids)))
    definitions = session.scalars(select(TaskRun.task_definition_uid).where(of_runs).distinct()).all()
    tasks = select(TaskRun.uid).where(of_runs)
    attempts = select(Attempt.id).where(Attempt.task_run_uid.in_(tasks))
    series = select(MetricSeries.id).where(MetricSeries.attempt_id.in_(attempts))
    statements = [
        delete(Metric).where(Metric.series_id.in_(series)),
        *(_delete_of_attempts(table, attempts) for table in _tables_of_attempts()),
        delete(Attempt).where(Attempt.task_run_uid.in_(tasks)),
        delete(TaskRelation).where(or_(TaskRelation.from_uid.in_(tasks), TaskRelation.to_uid.in_(tasks))),
        delete(TaskRun).where(of_runs),
        delete(Run).where(Run.id.in_(run_ids)),
    ]
    for statement in statements:
        session.execute(statement, execution_options={"synchronize_session": False})
    used = select(TaskRun.task_definition_uid).where(TaskRun.task_definition_uid.in_(definitions))
    unused = delete(TaskDefinition).where(TaskDefinition.uid.in_(definitions), TaskDefinition.uid.not_in(used))
    session.execute(unused, execution_options={"synchronize_session": False})


def _tables_of_attempts() -> list[Table]:
    """Every table whose rows belong to an attempt, those added later included."""
    attempt = cast("Table", Attempt.__table__).c.id
    return [table for table in Base.metadata.sorted_tables if any(key.column is attempt for key in table.foreign_keys)]


def _delete_of_attempts(table: Table, attempts: Any) -> Delete:  # noqa: ANN401  a select of one column
    return delete(table).where(table.c.attempt_id.in_(attempts))


def delete_client_errors(database: Database, before: datetime) -> None:
    """Delete what clients said about their own errors before a time."""
    database.write(lambda writer: writer.session.execute(delete(ClientError).where(ClientError.received_at < before)))
