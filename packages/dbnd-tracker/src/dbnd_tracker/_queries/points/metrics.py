"""Metrics of a task run: sums and histories."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import bindparam
from sqlalchemy.orm import Session

from dbnd_tracker._queries.ids import is_given, read_given
from dbnd_tracker._queries.logged import LATEST_FIRST, select_logged
from dbnd_tracker._storage.encoding import KIND_NAMES, decode
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries
from dbnd_tracker._storage.points.reading import read_points
from dbnd_tracker._storage.points.segments import Points
from dbnd_tracker._view import MetricPoint
from dbnd_tracker._views import MetricHistory


class Series(NamedTuple):
    """A series as it stands in the database."""

    id: int
    points: int
    sealed: int
    """How many of its points, the first ones, are in segments."""


def find_series(session: Session, task_run_uid: str, key: str) -> Series | None:
    """The series of one metric of a task run: of several attempts' the latest; None when there is none."""
    return find_all_series(session, [task_run_uid], key).get(task_run_uid)


def find_all_series(session: Session, task_run_uids: Collection[str], key: str) -> dict[str, Series]:
    """The same of those of some task runs that have one, by their uids."""
    found: dict[str, Series] = {}
    for uid, *series in read_given(session, _select_series, ids=task_run_uids, key=key):
        found.setdefault(uid, Series(*series))
    return found


@functools.cache
def _select_series(dialect: str) -> Any:
    columns = Attempt.task_run_uid, MetricSeries.id, MetricSeries.points, MetricSeries.sealed
    query = select_logged("metrics", *columns).where(MetricKey.name == bindparam("key"))
    return query.where(is_given(dialect, Attempt.task_run_uid)).order_by(*LATEST_FIRST)


def metric_history(
    session: Session, task_run_uid: str, key: str, *, limit: int = 10_000, after: int = 0
) -> MetricHistory:
    """Points of one metric in the order in which they came; ``after`` is the cursor that an earlier call returned."""
    series = find_series(session, task_run_uid, key)
    if series is None:
        return MetricHistory(task_run_uid=task_run_uid, key=key, data=[], after=None, total=0)
    last = min(after + limit, series.points)
    points = read_points(session.connection(), series.id, after, last)
    cursor = last if last < series.points else None
    return MetricHistory(
        task_run_uid=task_run_uid, key=key, data=metric_points(points), after=cursor, total=series.points
    )


def metric_points(points: Points) -> list[MetricPoint]:
    """Points as a history shows them."""
    steps, times_us, kinds, numbers, texts = points.columns()
    times = [time_us // 1000 for time_us in times_us]
    return list(map(MetricPoint, steps, times, map(decode, kinds, numbers, texts), map(KIND_NAMES.__getitem__, kinds)))
