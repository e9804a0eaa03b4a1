"""Metrics, and the params and tags that travel as metrics."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from sqlalchemy import bindparam, delete, insert, select, update

from dbnd._tracking.points import DELETED, EARLIEST, LATEST
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._models import Metric, MetricSeries, MetricText, Param, Tag
from dbnd_tracker._schemas.fields import cut
from dbnd_tracker._schemas.logged import MAX_STEP, LogMetrics, MetricInfo
from dbnd_tracker._values import Kind, clean, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Table

    from dbnd._tracking.points import Group
    from dbnd_tracker._schemas.logged import Metric as MetricBody
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
    now_us = _micros(writer.now)
    entries = []
    for info in body.metrics_info:
        metric = info.metric
        source = info.source or metric.source
        is_text = source in {PARAM_SOURCE, TAG_SOURCE}
        value = _as_text(metric) if is_text and not metric.deleted else metric.chosen()
        time_us = now_us if metric.timestamp is None else _micros(metric.timestamp)
        uid = info.task_run_attempt_uid
        entries.append(_Entry(uid, source, metric.key, value, time_us, metric.step, bool(metric.deleted)))
    _add(writer, entries)
    return {}


def log_points(writer: Writer, groups: list[Group]) -> object:
    """Add points in the form in which our own client's journal keeps them.

    Raises:
        PayloadError: ``groups`` is not of that form.
    """
    try:
        entries = [
            _Entry(uid, source, cut(clean(key)), value, min(max(time_us, EARLIEST), LATEST), step, mark == DELETED)
            for uid, source, points in groups
            for key, value, time_us, *more in points
            for step, mark in [(*more, None, None)[:2]]
        ]
    except (TypeError, ValueError) as error:
        msg = f"The points are not as the journal keeps them: {error}."
        raise PayloadError(msg) from None
    for entry in entries:
        if entry.step is not None and not -MAX_STEP <= entry.step <= MAX_STEP:
            msg = f"The step {entry.step} of {entry.key!r} is larger than a database takes."
            raise PayloadError(msg)
    _add(writer, entries)
    return {}


class _Entry(NamedTuple):
    """One point, wherever it came from."""

    attempt_uid: str
    source: str | None
    key: str
    value: Any
    time_us: int
    step: int | None
    deleted: bool


def _add(writer: Writer, entries: list[_Entry]) -> None:
    texts = [entry for entry in entries if entry.source in {PARAM_SOURCE, TAG_SOURCE}]
    attempts = writer.attempt_ids({entry.attempt_uid for entry in entries})
    if texts:
        _add_texts(writer, texts, attempts)
    points = entries if not texts else [entry for entry in entries if entry.source not in {PARAM_SOURCE, TAG_SOURCE}]
    if points:
        _add_points(writer, points, attempts)


def _add_texts(writer: Writer, entries: list[_Entry], attempts: Mapping[str, int]) -> None:
    """Params and tags: of those of one name the last one counts."""
    latest = {(entry.source, entry.attempt_uid, entry.key): entry for entry in entries}.values()
    params = [
        {
            "attempt_id": attempts[e.attempt_uid],
            "source": PARAM_SOURCE,
            "name": e.key,
            "value": clean(e.value),
            "origin": None,
        }
        for e in latest
        if e.source == PARAM_SOURCE
    ]
    writer.upsert(Param, params, "attempt_id", "source", "name")
    tags = [entry for entry in latest if entry.source == TAG_SOURCE]
    for entry in tags:
        if entry.deleted:
            mine = Tag.attempt_id == attempts[entry.attempt_uid]
            writer.session.execute(delete(Tag).where(mine, Tag.name == entry.key))
    rows = [
        {"attempt_id": attempts[entry.attempt_uid], "name": entry.key, "value": clean(entry.value)}
        for entry in tags
        if not entry.deleted
    ]
    writer.upsert(Tag, rows, "attempt_id", "name")


def _as_text(metric: MetricBody) -> str:
    """The value of a param or tag: its text as it was logged where that is known, else as JSON writes it."""
    for value in (metric.text, metric.value_str, metric.value, metric.chosen()):
        if isinstance(value, str):
            return value
    return json.dumps(metric.chosen())


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _add_points(writer: Writer, entries: list[_Entry], attempts: Mapping[str, int]) -> None:
    keys = writer.key_ids({entry.key for entry in entries})
    series_of = writer.series_ids({(attempts[entry.attempt_uid], keys[entry.key]) for entry in entries})
    connection = writer.session.connection()
    numbers: list[dict[str, Any]] = []
    summaries: dict[int, _Summary] = {}
    for uid, source, key, raw, time_us, step, _ in entries:
        series = series_of[attempts[uid], keys[key]]
        kind, value, text = encode(raw)
        row = {"series_id": series, "step": step, "timestamp_us": time_us, "value": value, "kind": kind}
        if text is None:
            numbers.append(row)
        else:
            # The ids of points tell their order, so that the numbers before a text go in before it.
            _insert_numbers(connection, numbers)
            _insert_text(connection, row, text)
            numbers = []
        summary = summaries.get(series)
        if summary is None:
            summary = summaries[series] = _Summary(source)
        summary.add(time_us, step, kind, value, text)
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
