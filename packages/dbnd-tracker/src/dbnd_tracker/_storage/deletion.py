"""Deletion of runs, with everything in them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import delete, insert, literal, or_, select

from dbnd_tracker._storage.models import (
    Attempt,
    Base,
    Deleted,
    Metric,
    MetricSeries,
    Run,
    TaskDefinition,
    TaskRelation,
    TaskRun,
    UtcDateTime,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table
    from sqlalchemy.orm import Session


def delete_runs(session: Session, run_uids: Sequence[str]) -> int:
    """Delete runs and everything in them, within the transaction of ``session``; returns how many there were.

    Their uids are kept, so that what comes for them later is dropped.

    Args:
        session: A writing session.
        run_uids: The runs; those that do not exist are passed over. At most some hundred.
    """
    # Locked, so that nobody adds to them meanwhile.
    run_uids = session.scalars(select(Run.uid).where(Run.uid.in_(run_uids)).order_by(Run.id).with_for_update()).all()
    task_runs: Any = select(TaskRun.uid).where(TaskRun.run_uid.in_(run_uids))
    attempts: Any = select(Attempt.id).where(Attempt.task_run_uid.in_(task_runs))
    series = select(MetricSeries.id).where(MetricSeries.attempt_id.in_(attempts))
    definitions = select(TaskRun.task_definition_uid).where(TaskRun.run_uid.in_(run_uids)).distinct()
    _record(session, run_uids)
    its_definitions = [uid for uid in session.scalars(definitions) if uid is not None]
    _delete(session, Metric, Metric.series_id.in_(series))
    for table in _tables_of_attempts():
        _delete(session, table, table.c.attempt_id.in_(attempts))
    _delete(session, Attempt, Attempt.task_run_uid.in_(task_runs))
    _delete(session, TaskRelation, or_(TaskRelation.from_uid.in_(task_runs), TaskRelation.to_uid.in_(task_runs)))
    _delete(session, TaskRun, TaskRun.run_uid.in_(run_uids))
    # The definitions of a process belong to all runs that it has made.
    used = select(TaskRun.task_definition_uid).where(TaskRun.task_definition_uid.in_(its_definitions))
    _delete(session, TaskDefinition, TaskDefinition.uid.in_(its_definitions), TaskDefinition.uid.not_in(used))
    return _delete(session, Run, Run.uid.in_(run_uids))


def _record(session: Session, run_uids: Sequence[str]) -> None:
    """Keep the uids of runs, and of the task runs and attempts in them."""
    mine = TaskRun.run_uid.in_(run_uids)
    for uids in (
        select(Run.uid, Run.uid).where(Run.uid.in_(run_uids)),
        # A run whose only task run has its uid is one uid.
        select(TaskRun.uid, TaskRun.run_uid).where(mine, TaskRun.uid.not_in(run_uids)),
        select(Attempt.uid, TaskRun.run_uid).join(TaskRun, TaskRun.uid == Attempt.task_run_uid).where(mine),
    ):
        now: Any = literal(datetime.now(timezone.utc), UtcDateTime())
        rows = uids.add_columns(now, literal(0))
        session.execute(insert(Deleted).from_select(["uid", "run_uid", "deleted_at", "dropped"], rows))


def _tables_of_attempts() -> list[Table]:
    """Every table whose rows belong to an attempt, those added later included."""
    attempt = cast("Table", Attempt.__table__).c.id
    return [table for table in Base.metadata.sorted_tables if any(key.column is attempt for key in table.foreign_keys)]


def _delete(session: Session, table: Any, *conditions: Any) -> int:
    result: Any = session.execute(delete(table).where(*conditions).execution_options(synchronize_session=False))
    return int(result.rowcount)
