"""Metrics of a task run: sums and histories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Row, select

from dbnd_tracker._queries.logged import BY_ATTEMPT, select_logged
from dbnd_tracker._storage.encoding import KIND_NAMES, decode
from dbnd_tracker._storage.models import Attempt, Metric, MetricKey, MetricSeries
from dbnd_tracker._views import MetricHistory, MetricPoint

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class Series(NamedTuple):
    """A series as it stands in the database."""

    id: int
    """Its number, which may come again after rows were deleted."""
    points: int
    first_us: int
    """Time of its first point, in µs since the epoch."""


def find_series(session: Session, task_run_uid: str, key: str) -> Series | None:
    """The series of one metric of a task run: of several attempts' the latest; None when there is none."""
    first = select(Metric.timestamp_us).where(Metric.series_id == MetricSeries.id, Metric.number == 1)
    wanted = select_logged("metrics", MetricSeries.id, MetricSeries.points, first.scalar_subquery())
    wanted = wanted.where(Attempt.task_run_uid == task_run_uid, MetricKey.name == key)
    row = session.execute(wanted.order_by(*(column.desc() for column in BY_ATTEMPT)).limit(1)).first()
    return None if row is None else Series(*row)


def metric_history(
    session: Session, task_run_uid: str, key: str, *, limit: int = 10_000, after: int = 0
) -> MetricHistory:
    """Points of one metric in the order in which they came; ``after`` is the cursor that an earlier call returned."""
    series = find_series(session, task_run_uid, key)
    if series is None:
        return MetricHistory(task_run_uid=task_run_uid, key=key, data=[], after=None, total=0)
    rows = session.execute(points_query(series.id).where(Metric.number > after).limit(limit + 1)).all()
    shown = rows[:limit]
    cursor = shown[-1].number if len(rows) > limit else None
    data = [metric_point(row) for row in shown]
    return MetricHistory(task_run_uid=task_run_uid, key=key, data=data, after=cursor, total=series.points)


def points_query(series_id: int) -> Any:
    """All points of a series in the order in which they came, for callers to narrow."""
    columns = (Metric.number, Metric.step, Metric.timestamp_us, Metric.kind, Metric.value, Metric.text)
    return select(*columns).where(Metric.series_id == series_id).order_by(Metric.number)


def metric_point(row: Row[Any]) -> MetricPoint:
    """One point of a history, from a row of ``points_query``."""
    value = decode(row.kind, row.value, row.text)
    return MetricPoint(step=row.step, timestamp=row.timestamp_us // 1000, value=value, type=KIND_NAMES[row.kind])
