"""Metrics, and the params and tags that travel as metrics."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import bindparam, delete, insert, select, update

from dbnd_tracker._models import Metric, MetricSeries, MetricText, Param, Tag
from dbnd_tracker._schemas.logged import LogMetrics, MetricInfo
from dbnd_tracker._values import Kind, clean, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Table

    from dbnd_tracker._writer import Writer

PARAM_SOURCE: Final = "mlflow.param"
TAG_SOURCE: Final = "mlflow.tag"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)
# Core tables: rows of points are too many to become objects.
_POINTS: Final = cast("Table", Metric.__table__)
_SERIES: Final = cast("Table", MetricSeries.__table__)
# Series updated per statement's IN list.
_CHUNK: Final = 1_000


@dataclass(slots=True)
class _Summary:
    """What a batch adds to a series."""

    source: str | None
    points: int = 0
    timestamp_us: int | None = None
    step: int | None = None
    kind: int = 0
    value: float | None = None
    text: str | None = None
    low: float | None = None
    high: float | None = None
    only_ints: bool = True

    def add(self, timestamp_us: int, step: int | None, kind: int, value: float | None, text: str | None) -> None:
        self.points += 1
        if self.timestamp_us is None or timestamp_us >= self.timestamp_us:
            self.timestamp_us, self.step, self.kind, self.value, self.text = timestamp_us, step, kind, value, text
        if value is not None:
            self.low = value if self.low is None or value < self.low else self.low
            self.high = value if self.high is None or value > self.high else self.high
        if kind != Kind.INT:
            self.only_ints = False


def log_metric(writer: Writer, body: MetricInfo) -> object:
    """Add one metric."""
    return log_metrics(writer, LogMetrics.model_construct(metrics_info=[body]))


def log_metrics(writer: Writer, body: LogMetrics) -> object:
    """Add points to metrics; params and tags among them replace those of the same name."""
    points: list[MetricInfo] = []
    params: dict[tuple[str, str], MetricInfo] = {}
    tags: dict[tuple[str, str], MetricInfo] = {}
    for info in body.metrics_info:
        source = info.source or info.metric.source
        if source == PARAM_SOURCE:
            params[info.task_run_attempt_uid, info.metric.key] = info
        elif source == TAG_SOURCE:
            tags[info.task_run_attempt_uid, info.metric.key] = info
        else:
            points.append(info)
    attempts = writer.attempt_ids({info.task_run_attempt_uid for info in body.metrics_info})
    rows: list[dict[str, Any]] = [
        {
            "attempt_id": attempts[uid],
            "source": PARAM_SOURCE,
            "name": name,
            "value": _as_text(info),
            "origin": None,
        }
        for (uid, name), info in params.items()
    ]
    writer.upsert(Param, rows, "attempt_id", "source", "name")
    for (uid, name), info in tags.items():
        if info.metric.deleted:
            writer.session.execute(delete(Tag).where(Tag.attempt_id == attempts[uid], Tag.name == name))
    rows = [
        {"attempt_id": attempts[uid], "name": name, "value": _as_text(info)}
        for (uid, name), info in tags.items()
        if not info.metric.deleted
    ]
    writer.upsert(Tag, rows, "attempt_id", "name")
    if points:
        _add_points(writer, points, attempts)
    return {}


def _as_text(info: MetricInfo) -> str:
    """The value of a param or tag: its text as it was logged where that is known, else as JSON writes it."""
    metric = info.metric
    for value in (metric.text, metric.value_str, metric.value, metric.chosen()):
        if isinstance(value, str):
            return clean(value)
    return json.dumps(metric.chosen())


def _add_points(writer: Writer, points: list[MetricInfo], attempts: Mapping[str, int]) -> None:
    keys = writer.key_ids({info.metric.key for info in points})
    series_of = writer.series_ids({(attempts[i.task_run_attempt_uid], keys[i.metric.key]) for i in points})
    now_us = (writer.now - _EPOCH) // _MICROSECOND
    connection = writer.session.connection()
    numbers: list[dict[str, Any]] = []
    summaries: dict[int, _Summary] = {}
    for info in points:
        metric = info.metric
        series = series_of[attempts[info.task_run_attempt_uid], keys[metric.key]]
        time = metric.timestamp
        timestamp_us = now_us if time is None else (time - _EPOCH) // _MICROSECOND
        kind, value, text = encode(metric.chosen())
        row = {
            "series_id": series,
            "step": metric.step,
            "timestamp_us": timestamp_us,
            "value": value,
            "kind": kind,
        }
        if text is None:
            numbers.append(row)
        else:
            # The ids of points tell their order, so that the numbers before a text go in before it.
            _insert_numbers(connection, numbers)
            _insert_text(connection, row, text)
            numbers = []
        summary = summaries.get(series)
        if summary is None:
            summary = summaries[series] = _Summary(info.source or metric.source)
        summary.add(timestamp_us, metric.step, kind, value, text)
    _insert_numbers(connection, numbers)
    _sum_up(connection, summaries)


def _insert_numbers(connection: Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(_POINTS), rows)


def _insert_text(connection: Connection, row: dict[str, Any], text: str) -> None:
    inserted = connection.execute(insert(_POINTS).values(row).returning(_POINTS.c.id)).scalar_one()
    connection.execute(insert(MetricText).values(metric_id=inserted, text=text))


def _sum_up(connection: Connection, summaries: dict[int, _Summary]) -> None:
    """Fold what a batch adds into the series' own sums."""
    ids = sorted(summaries)
    rows = []
    for start in range(0, len(ids), _CHUNK):
        wanted = select(_SERIES).where(_SERIES.c.id.in_(ids[start : start + _CHUNK])).order_by(_SERIES.c.id)
        for old in connection.execute(wanted.with_for_update(key_share=True)):
            new = summaries[old.id]
            assert new.timestamp_us is not None
            is_later = old.last_timestamp_us is None or new.timestamp_us >= old.last_timestamp_us
            rows.append(
                {
                    "series": old.id,
                    "source": new.source or old.source,
                    "points": old.points + new.points,
                    "last_timestamp_us": new.timestamp_us if is_later else old.last_timestamp_us,
                    "last_step": new.step if is_later else old.last_step,
                    "last_kind": new.kind if is_later else old.last_kind,
                    "last_value": new.value if is_later else old.last_value,
                    "last_text": new.text if is_later else old.last_text,
                    "min_value": min((x for x in (old.min_value, new.low) if x is not None), default=None),
                    "max_value": max((x for x in (old.max_value, new.high) if x is not None), default=None),
                    "only_ints": old.only_ints and new.only_ints,
                }
            )
    connection.execute(update(_SERIES).where(_SERIES.c.id == bindparam("series")), rows)
