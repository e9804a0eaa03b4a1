"""Histories of rows of the table: which metrics they have, and the task runs whose histories a row shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from dbnd_tracker._queries.ids import is_one_of
from dbnd_tracker._queries.logged import Owned, select_logged
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries, TaskRun

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


class Drawn(NamedTuple):
    """A task run whose history a row shows."""

    row: str
    task_run_uid: str
    name: str | None
    """What it is called, where it is one of several nested in the row; None where it stands for the row."""


def drawn_task_runs(session: Session, rows: Collection[str], key: str, limit: int) -> list[Drawn]:
    """The task runs whose histories these rows show: that of a row, or where it has none those nested in it.

    As in the table, what one other task run of a run alone has stands for the run. What is a row itself is drawn there.
    """
    query = select(TaskRun.uid, TaskRun.run_uid, TaskRun.is_root, TaskRun.name, TaskRun.id).distinct()
    query = query.join(Attempt, Attempt.task_run_uid == TaskRun.uid)
    query = query.join(MetricSeries, MetricSeries.attempt_id == Attempt.id)
    query = query.join(MetricKey, MetricKey.id == MetricSeries.key_id)
    query = query.where(MetricKey.name == key, or_(TaskRun.uid.in_(rows), TaskRun.run_uid.in_(rows)))
    own: dict[str, str] = {}
    nested: dict[str, list[tuple[str, str | None]]] = {}
    for uid, run_uid, is_root, name, _ in session.execute(query.order_by(TaskRun.id)):
        own[uid] = uid
        if is_root and run_uid:
            own[run_uid] = uid
        elif run_uid:
            nested.setdefault(run_uid, []).append((uid, name))
    found = []
    for row in rows:
        others = nested.get(row, [])
        if row in own or len(others) == 1:
            found.append(Drawn(row, own.get(row) or others[0][0], None))
        else:
            found += [Drawn(row, uid, name or uid) for uid, name in others if uid not in rows]
    # What stands for rows comes first, if there are too many.
    kept = {*sorted(found, key=lambda each: each.name is not None)[:limit]}
    return [each for each in found if each in kept]
