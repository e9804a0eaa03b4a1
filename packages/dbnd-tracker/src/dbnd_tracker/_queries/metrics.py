"""Metrics of a task run: sums and histories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, func, select

from dbnd_tracker._storage.encoding import KIND_NAMES, decode, readable
from dbnd_tracker._storage.models import Attempt, Metric, MetricKey, MetricSeries
from dbnd_tracker._views import MetricHistory, MetricPoint, MetricView

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Series:
    """A series as it stands in the database.

    Args:
        id: Its number, which may come again after rows were deleted.
        points: How many points it has.
        first_us: Time of its first point, in µs since the epoch.
    """

    id: int
    points: int
    first_us: int


def find_series(session: Session, task_run_uid: str, key: str) -> Series | None:
    """The series of one metric of a task run: of several attempts' the latest; None when there is none."""
    first = select(Metric.timestamp_us).where(Metric.series_id == MetricSeries.id, Metric.number == 1)
    wanted = (
        select(MetricSeries.id, MetricSeries.points, first.scalar_subquery())
        .join(MetricKey, MetricKey.id == MetricSeries.key_id)
        .join(Attempt, Attempt.id == MetricSeries.attempt_id)
        .where(Attempt.task_run_uid == task_run_uid, MetricKey.name == key, MetricSeries.points > 0)
        .order_by(Attempt.number.desc().nulls_last(), Attempt.id.desc())
        .limit(1)
    )
    row = session.execute(wanted).first()
    return None if row is None else Series(*row)


def series_query() -> Any:
    """All series with their keys, by attempt and key, for callers to narrow."""
    return (
        select(MetricSeries, MetricKey.name)
        .join(MetricKey, MetricKey.id == MetricSeries.key_id)
        .join(Attempt, Attempt.id == MetricSeries.attempt_id)
        .where(MetricSeries.points > 0)
        .order_by(func.coalesce(Attempt.number, 0), Attempt.id, MetricKey.name)
    )


def metric_view(series: MetricSeries, key: str) -> MetricView:
    """The sums of one series."""
    kind, timestamp_us = series.last_kind, series.last_timestamp_us
    assert kind is not None
    assert timestamp_us is not None
    return MetricView(
        key=key,
        source=series.source,
        points=series.points,
        type=KIND_NAMES[kind],
        last_value=decode(kind, series.last_value, series.last_text),
        last_step=series.last_step,
        last_timestamp=timestamp_us // 1000,
        min=_bound(series.min_value, only_ints=series.only_ints),
        max=_bound(series.max_value, only_ints=series.only_ints),
    )


def _bound(value: float | None, *, only_ints: bool) -> Any:
    return int(value) if value is not None and only_ints else readable(value)


def metric_history(
    session: Session, task_run_uid: str, key: str, *, limit: int = 10_000, after: int = 0
) -> MetricHistory:
    """Points of one metric in the order in which they came.

    Args:
        session: Where to read.
        task_run_uid: The task run.
        key: The metric.
        limit: How many points at most.
        after: Cursor that an earlier call returned.
    """
    series = find_series(session, task_run_uid, key)
    if series is None:
        return MetricHistory(task_run_uid=task_run_uid, key=key, data=[], after=None, total=0)
    rows = session.execute(points_query(series.id).where(Metric.number > after).limit(limit + 1)).all()
    cursor = None
    if len(rows) > limit:
        rows = rows[:limit]
        cursor = rows[-1].number
    data = [metric_point(row) for row in rows]
    return MetricHistory(task_run_uid=task_run_uid, key=key, data=data, after=cursor, total=series.points)


def points_query(series_id: int) -> Any:
    """All points of a series in the order in which they came, for callers to narrow."""
    return (
        select(Metric.number, Metric.step, Metric.timestamp_us, Metric.kind, Metric.value, Metric.text)
        .where(Metric.series_id == series_id)
        .order_by(Metric.number)
    )


def metric_point(row: Row[Any]) -> MetricPoint:
    """One point of a history, from a row of ``points_query``."""
    return MetricPoint(
        step=row.step,
        timestamp=row.timestamp_us // 1000,
        value=decode(row.kind, row.value, row.text),
        type=KIND_NAMES[row.kind],
    )
