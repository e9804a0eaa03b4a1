"""Metrics, and the params and tags that travel as metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import bindparam, delete, insert, select, update

from dbnd_tracker._ingest.points import PARAM_SOURCE, TAG_SOURCE
from dbnd_tracker._models import Metric, MetricSeries, MetricText, Param, Tag
from dbnd_tracker._values import Kind, encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Table

    from dbnd_tracker._ingest.points import Points, Series, Text
    from dbnd_tracker._writer import Writer

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


def log_points(writer: Writer, points: Points) -> object:
    """Add points to metrics; params and tags among them replace those of the same name."""
    uids = {uid for uid, _ in points.series} | {text.attempt_uid for text in points.texts}
    attempts = writer.attempt_ids(uids)
    if points.texts:
        _add_texts(writer, points.texts, attempts)
    if points.series:
        _add_points(writer, points.series, attempts)
    return {}


def _add_texts(writer: Writer, texts: list[Text], attempts: Mapping[str, int]) -> None:
    """Params and tags: of those of one name the last one counts."""
    latest = {(text.source, text.attempt_uid, text.name): text for text in texts}.values()
    params = [
        {
            "attempt_id": attempts[text.attempt_uid],
            "source": PARAM_SOURCE,
            "name": text.name,
            "value": text.value,
            "origin": None,
        }
        for text in latest
        if text.source == PARAM_SOURCE and text.value is not None
    ]
    writer.upsert(Param, params, "attempt_id", "source", "name")
    tags = [text for text in latest if text.source == TAG_SOURCE]
    for text in tags:
        if text.value is None:
            mine = Tag.attempt_id == attempts[text.attempt_uid]
            writer.session.execute(delete(Tag).where(mine, Tag.name == text.name))
    rows = [
        {"attempt_id": attempts[text.attempt_uid], "name": text.name, "value": text.value}
        for text in tags
        if text.value is not None
    ]
    writer.upsert(Tag, rows, "attempt_id", "name")


def _add_points(writer: Writer, added: Mapping[tuple[str, str], Series], attempts: Mapping[str, int]) -> None:
    keys = writer.key_ids({key for _, key in added})
    series_of = writer.series_ids({(attempts[uid], keys[key]) for uid, key in added})
    connection = writer.session.connection()
    numbers: list[dict[str, Any]] = []
    summaries: dict[int, _Summary] = {}
    for (uid, key), points in added.items():
        series = series_of[attempts[uid], keys[key]]
        summary = summaries[series] = _Summary(points.source)
        for time_us, step, raw in zip(points.times, points.steps, points.values, strict=True):
            kind, value, text = encode(raw)
            row = {"series_id": series, "step": step, "timestamp_us": time_us, "value": value, "kind": kind}
            if text is None:
                numbers.append(row)
            else:
                # The ids of points tell their order, so that the numbers before a text go in before it.
                _insert_numbers(connection, numbers)
                _insert_text(connection, row, text)
                numbers = []
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
