"""Metrics, and the params and tags that travel as metrics."""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import bindparam, delete, select, update

from dbnd_tracker._ingest.bulk import insert_points
from dbnd_tracker._ingest.points import PARAM_SOURCE, TAG_SOURCE
from dbnd_tracker._models import MetricSeries, Param, Tag
from dbnd_tracker._values import encode_all
from dbnd_tracker._writer import StaleIdsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Row, Table

    from dbnd_tracker._ingest.bulk import PointRow
    from dbnd_tracker._ingest.points import Points, Series, Text
    from dbnd_tracker._values import Encoded
    from dbnd_tracker._writer import Writer

# Core tables: rows of points are too many to become objects.
_SERIES: Final = cast("Table", MetricSeries.__table__)
# Made once: making them takes longer than their execution.
_LOCKED: Final = (
    select(_SERIES)
    .where(_SERIES.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(_SERIES.c.id)
    .with_for_update(key_share=True)
)
_UPDATE: Final = update(_SERIES).where(_SERIES.c.id == bindparam("series"))
# Series looked up by one statement.
_CHUNK: Final = 1_000


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
    ids = writer.series_ids({(attempts[uid], keys[key]) for uid, key in added})
    # In one order everywhere, so that two transactions cannot wait for each other.
    series = sorted((ids[attempts[uid], keys[key]], points) for (uid, key), points in added.items())
    connection = writer.session.connection()
    rows: list[Iterable[PointRow]] = []
    sums: list[dict[str, Any]] = []
    for start in range(0, len(series), _CHUNK):
        part = dict(series[start : start + _CHUNK])
        found = connection.execute(_LOCKED, {"ids": list(part)}).all()
        if len(found) != len(part):
            msg = "metrics are deleted as they are written"
            raise StaleIdsError(msg)
        for old in found:
            encoded = encode_all(part[old.id].values)
            sums.append(_sum_up(old, part[old.id], encoded))
            rows.append(_rows(old, part[old.id], encoded))
    insert_points(connection, chain.from_iterable(rows))
    connection.execute(_UPDATE, sums)


def _rows(old: Row[Any], added: Series, encoded: Encoded) -> Iterable[PointRow]:
    """Rows of points, numbered on from those that are there."""
    numbers = range(old.points + 1, old.points + 1 + len(added.times))
    return zip(
        repeat(old.id),
        numbers,
        added.steps,
        added.times,
        encoded.numbers,
        encoded.kinds,
        encoded.texts,
    )


def _sum_up(old: Row[Any], added: Series, encoded: Encoded) -> dict[str, Any]:
    """The sums of a series with what is added to it; of points of one time, the one that came last is the last."""
    time_us = max(added.times)
    is_later = old.last_timestamp_us is None or time_us >= old.last_timestamp_us
    last = len(added.times) - 1 - added.times[::-1].index(time_us)
    bounds = [number for number in encoded.numbers if number is not None]
    return {
        "series": old.id,
        "source": added.source or old.source,
        "points": old.points + len(added.times),
        "last_timestamp_us": time_us if is_later else old.last_timestamp_us,
        "last_step": added.steps[last] if is_later else old.last_step,
        "last_kind": encoded.kinds[last] if is_later else old.last_kind,
        "last_value": encoded.numbers[last] if is_later else old.last_value,
        "last_text": encoded.texts[last] if is_later else old.last_text,
        "min_value": min([*bounds, *([] if old.min_value is None else [old.min_value])], default=None),
        "max_value": max([*bounds, *([] if old.max_value is None else [old.max_value])], default=None),
        "only_ints": old.only_ints and encoded.only_ints,
    }
