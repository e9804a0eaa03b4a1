"""Metrics of a task run: sums and histories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Row, func, select

from dbnd_tracker._models import Attempt, Metric, MetricKey, MetricSeries
from dbnd_tracker._queries.sampling import sampled_numbers
from dbnd_tracker._values import KIND_NAMES, decode, readable
from dbnd_tracker._views import MetricHistory, MetricList, MetricPoint, MetricView

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

# Numbers in one IN list.
_CHUNK: Final = 1_000


def series_query() -> Any:  # noqa: ANN401  SQLAlchemy 2.0 and 2.1 name the type differently
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


def _bound(value: float | None, *, only_ints: bool) -> Any:  # noqa: ANN401  a Number of the views
    return int(value) if value is not None and only_ints else readable(value)


def metric_list(session: Session, task_run_uid: str) -> MetricList:
    """The metrics of a task run; of one that several attempts logged, the latest attempt's."""
    rows = session.execute(series_query().where(Attempt.task_run_uid == task_run_uid))
    found = {key: metric_view(series, key) for series, key in rows}
    return MetricList(task_run_uid=task_run_uid, data=list(found.values()))


def metric_history(
    session: Session, task_run_uid: str, key: str, *, limit: int = 10_000, after: int = 0, samples: int | None = None
) -> MetricHistory:
    """Points of one metric in the order in which they came.

    Args:
        session: Where to read.
        task_run_uid: The task run.
        key: The metric.
        limit: How many points at most.
        after: Cursor that an earlier call returned.
        samples: Instead of a page, so many points that show the shape of the whole; all if there are no more.
    """
    series = series_query().where(Attempt.task_run_uid == task_run_uid, MetricKey.name == key)
    found = [row[0] for row in session.execute(series)]
    if not found:
        return MetricHistory(task_run_uid=task_run_uid, key=key, data=[], after=None, total=0)
    latest = found[-1]
    cursor = None
    if samples is None:
        rows = session.execute(_points(latest.id).where(Metric.number > after).limit(limit + 1)).all()
        if len(rows) > limit:
            rows = rows[:limit]
            cursor = rows[-1].number
    else:
        numbers = sampled_numbers(session.connection(), latest.id, samples)
        parts = [numbers[start : start + _CHUNK] for start in range(0, len(numbers), _CHUNK)]
        rows = [row for part in parts for row in session.execute(_points(latest.id).where(Metric.number.in_(part)))]
    return MetricHistory(
        task_run_uid=task_run_uid, key=key, data=[_point(row) for row in rows], after=cursor, total=latest.points
    )


def _points(series_id: int) -> Any:  # noqa: ANN401  SQLAlchemy 2.0 and 2.1 name the type differently
    return (
        select(Metric.number, Metric.step, Metric.timestamp_us, Metric.kind, Metric.value, Metric.text)
        .where(Metric.series_id == series_id)
        .order_by(Metric.number)
    )


def _point(row: Row[Any]) -> MetricPoint:
    return MetricPoint(
        step=row.step,
        timestamp=row.timestamp_us // 1000,
        value=decode(row.kind, row.value, row.text),
        type=KIND_NAMES[row.kind],
    )
