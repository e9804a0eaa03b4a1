"""Histories of rows of the table: which metrics they have, and the task run whose history a row shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import func, or_, select

from dbnd_tracker._queries.ids import is_one_of
from dbnd_tracker._queries.logged import Owned, select_logged
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries, TaskRun

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.orm import Session

_MAX_KEYS: Final = 300


def drawn_metrics(session: Session, owned: Sequence[Owned]) -> list[str]:
    """The metrics of which any of these attempts has more than one number, those of most attempts first."""
    count = func.count(MetricSeries.attempt_id.distinct())
    query = select_logged("metrics", MetricKey.name).where(
        is_one_of(session, MetricSeries.attempt_id, [each.attempt_id for each in owned]),
        MetricSeries.points > 1,
        MetricSeries.min_value.is_not(None),
    )
    query = query.group_by(MetricKey.name).order_by(count.desc(), MetricKey.name).limit(_MAX_KEYS)
    return [*session.scalars(query)]


def drawn_task_runs(session: Session, rows: Collection[str], key: str) -> dict[str, str]:
    """Of each of these rows that has the metric, the task run that has it.

    As in the table, what a run's root task run has not, but one other of its task runs alone has, stands for the run.
    """
    query = select(TaskRun.uid, TaskRun.run_uid, TaskRun.is_root).distinct()
    query = query.join(Attempt, Attempt.task_run_uid == TaskRun.uid)
    query = query.join(MetricSeries, MetricSeries.attempt_id == Attempt.id)
    query = query.join(MetricKey, MetricKey.id == MetricSeries.key_id)
    query = query.where(MetricKey.name == key, or_(TaskRun.uid.in_(rows), TaskRun.run_uid.in_(rows)))
    own: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for uid, run_uid, is_root in session.execute(query):
        own[uid] = uid
        if is_root and run_uid:
            own[run_uid] = uid
        elif run_uid:
            others.setdefault(run_uid, []).append(uid)
    alone = {run_uid: uids[0] for run_uid, uids in others.items() if len(uids) == 1}
    return {row: found for row in rows if (found := own.get(row) or alone.get(row))}
