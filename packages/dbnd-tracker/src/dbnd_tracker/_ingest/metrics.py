"""Metrics, and the params and tags that travel as metrics."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import delete

from dbnd.tracking import Mark, Source, storable
from dbnd_tracker._ingest.points import TEXT_SOURCES
from dbnd_tracker._storage.bulk import chunks, insert_rows, value_rows
from dbnd_tracker._storage.encoding import Kind, encode_all
from dbnd_tracker._storage.models import Param, Tag
from dbnd_tracker._storage.points.insertion import insert_points
from dbnd_tracker._storage.points.models import SEGMENT
from dbnd_tracker._storage.points.repeats import Known
from dbnd_tracker._storage.writer import StaleIdsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from dbnd_tracker._ingest.points import Group
    from dbnd_tracker._storage.points.repeats import Identity
    from dbnd_tracker._storage.writer import Writer

_LOCKED: Final = (
    "SELECT series.id, points, sealed, latest_us, last_step, last_timestamp_us "
    "FROM ({rows}) AS wanted JOIN metric_series AS series ON series.id = wanted.column1 ORDER BY series.id"
)
_LOCK: Final = {"sqlite": "", "postgresql": " FOR NO KEY UPDATE OF series"}
# What a batch of points changes in the sums of a series, by its column: the row that is there, and what is added.
# The last value is MLflow's: that of the highest step, then of the latest time, then the greatest one; no step is the
# step 0, and NaN counts as 0. Of texts of one step and time the one that came last counts.
_RANK: Final = "(coalesce({0}.last_step, 0), {0}.last_timestamp_us, coalesce({0}.last_value, 0))"
_NEW, _OLD = _RANK.format("excluded"), _RANK.format("old")
_LATER: Final = (
    f"old.last_timestamp_us IS NULL OR {_NEW} > {_OLD} OR ({_NEW} = {_OLD} AND excluded.last_kind >= {Kind.STR.value})"
)
_LAST: Final = ("last_timestamp_us", "last_step", "last_kind", "last_value", "last_text")
_CHANGES: Final = {
    "source": "coalesce(excluded.source, old.source)",
    "points": "old.points + excluded.points",
    "latest_us": "CASE WHEN old.latest_us > excluded.latest_us THEN old.latest_us ELSE excluded.latest_us END",
    **{name: f"CASE WHEN {_LATER} THEN excluded.{name} ELSE old.{name} END" for name in _LAST},
    "min_value": "CASE WHEN excluded.min_value < old.min_value THEN excluded.min_value"
    " ELSE coalesce(old.min_value, excluded.min_value) END",
    "max_value": "CASE WHEN excluded.max_value > old.max_value THEN excluded.max_value"
    " ELSE coalesce(old.max_value, excluded.max_value) END",
    "only_ints": "old.only_ints AND excluded.only_ints",
}
_SUMMED: Final = ("id", "attempt_id", "key_id", *_CHANGES)
# Each series is there: what is inserted is added to it.
_SUMMING: Final = (
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = {change}' for name, change in _CHANGES.items())}"
)


class _Points(NamedTuple):
    """Points as they are stored, in columns of one length, those of a series together."""

    series: Sequence[int]
    steps: Sequence[int | None]
    times: Sequence[int]
    numbers: Sequence[float | None]
    kinds: Sequence[int]
    texts: Sequence[str | None]

    def only(self, places: Sequence[int]) -> _Points:
        return _Points(*(_at(column, places) for column in self))


def _at(column: Sequence[Any], places: Iterable[int]) -> list[Any]:
    """What stands at these places of a column."""
    return list(map(column.__getitem__, places))


def log_points(writer: Writer, groups: list[Group]) -> None:
    """Add points to metrics; params and tags among them replace those of the same name."""
    attempts = writer.attempt_ids({group.attempt_uid for group in groups})
    by_source: dict[str | None, list[Group]] = {}
    for group in groups:
        if group.attempt_uid in attempts:
            by_source.setdefault(group.source, []).append(group)
        else:
            writer.deleted.drop(group.attempt_uid, len(group.keys))
    for source, some in by_source.items():
        if source in TEXT_SOURCES:
            _add_texts(writer, source, some, attempts)
        else:
            _add_points(writer, source, some, attempts)


def _add_texts(writer: Writer, source: str | None, groups: Iterable[Group], attempts: Mapping[str, int]) -> None:
    """Params and tags: of those of one name the last one counts."""
    texts: dict[tuple[int, str], str | None] = {}
    for group in groups:
        for name, value, mark in zip(group.keys, group.values, group.marks, strict=True):
            whole = value if isinstance(value, str) else json.dumps(value)
            texts[attempts[group.attempt_uid], name] = None if mark == Mark.DELETED else storable(whole)
    rows = [
        {"attempt_id": attempt_id, "name": name, "value": text}
        for (attempt_id, name), text in texts.items()
        if text is not None
    ]
    if source == Source.PARAM:
        params = [{**row, "source": source, "origin": None} for row in rows]
        writer.upsert(Param, params, "attempt_id", "source", "name")
        return
    gone: dict[int, list[str]] = {}
    for (attempt_id, name), text in texts.items():
        if text is None:
            gone.setdefault(attempt_id, []).append(name)
    for attempt_id, names in gone.items():
        writer.session.execute(delete(Tag).where(Tag.attempt_id == attempt_id, Tag.name.in_(names)))
    writer.upsert(Tag, rows, "attempt_id", "name")


def _add_points(writer: Writer, source: str | None, groups: Iterable[Group], attempts: Mapping[str, int]) -> None:
    """Add points of one source to their series, and to the sums of these."""
    keys = writer.key_ids(set().union(*(group.names for group in groups)))
    ids = writer.series_ids({(attempts[group.attempt_uid], keys[name]) for group in groups for name in group.names})
    found = _lock(writer.connection, sorted(ids.values()))
    series: list[int] = []
    steps: list[int | None] = []
    times: list[int] = []
    values: list[Any] = []
    for group in groups:
        by_name = {name: ids[attempts[group.attempt_uid], keys[name]] for name in group.names}
        series += map(by_name.__getitem__, group.keys)
        steps += group.steps
        times += group.times
        values += group.values
    if len(found) > 1:  # points of a series together, so that they are written to the same pages
        order = sorted(range(len(series)), key=series.__getitem__)
        series, steps, times, values = _at(series, order), _at(steps, order), _at(times, order), _at(values, order)
    points = _Points(series, steps, times, *encode_all(values))
    counts = Counter(series)
    if source == Source.METRIC and (repeats := _repeats(writer, found, counts, points)):
        points = points.only([place for place in range(len(series)) if place not in repeats])
        counts = Counter(points.series)
    numbers: list[int] = []
    sums: list[Any] = []
    start = 0
    names = {each: pair for pair, each in ids.items()}
    for each, known in found.items():
        count = counts[each]
        numbers += range(known.points + 1, known.points + 1 + count)
        if count:
            sums += (each, *names[each], source, count, *_sums(points, start, start + count))
            if known.points + count - known.sealed >= SEGMENT:
                writer.full_series.add(each)
        start += count
    insert_points(writer.connection, (points.series, numbers, *points[1:]))
    insert_rows(writer.connection, "metric_series", _SUMMED, sums, _SUMMING)


def _repeats(writer: Writer, found: Mapping[int, Known], counts: Mapping[int, int], points: _Points) -> set[int]:
    """Places of points that their series has already, or that stand before in the batch."""
    repeats: set[int] = set()
    start = 0
    for each, known in found.items():
        stop = start + counts[each]
        times, steps = points.times[start:stop], [step or 0 for step in points.steps[start:stop]]
        if not known.are_new(times, steps):
            identities = list(zip(times, steps, points.numbers[start:stop], points.texts[start:stop], strict=True))
            doubtful = known.doubtful(identities)
            seen = writer.seen(each) if doubtful else None
            there = seen.find(writer.connection, known, doubtful) if seen else set()
            kept: dict[Identity, None] = {}
            for place, identity in enumerate(identities, start):
                if identity in there or identity in kept:
                    repeats.add(place)
                else:
                    kept[identity] = None
            if seen:
                seen.add(kept)
        start = stop
    return repeats


def _sums(points: _Points, start: int, stop: int) -> tuple[Any, ...]:
    """The sums of the points of a series: what they change, in the order of ``_CHANGES`` after the number of points."""
    _, steps, times, numbers, kinds, texts = points
    if stop - start == 1:  # as where each step logs its metrics
        time_us, number, kind = times[start], numbers[start], kinds[start]
        return time_us, time_us, steps[start], kind, number, texts[start], number, number, kind == Kind.INT
    last = _last(points, start, stop)
    bounds = [number for number in numbers[start:stop] if number is not None]
    return (
        max(times[start:stop]),
        times[last],
        steps[last],
        kinds[last],
        numbers[last],
        texts[last],
        min(bounds, default=None),
        max(bounds, default=None),
        kinds[start:stop].count(Kind.INT) == stop - start,
    )


def _last(points: _Points, start: int, stop: int) -> int:
    """The place of the last value, by the rule of ``_LATER``."""
    steps = [step or 0 for step in points.steps[start:stop]]
    if steps[-1] > steps[-2] and sorted(steps) == steps:  # as nearly always, and seen quickly
        return stop - 1
    numbers = [number or 0 for number in points.numbers[start:stop]]
    ranks = list(zip(steps, points.times[start:stop], numbers, strict=True))
    highest = max(ranks)
    first, *others = (place for place, rank in enumerate(ranks, start) if rank == highest)
    return next((place for place in reversed(others) if points.kinds[place] >= Kind.STR), first)


def _lock(connection: Connection, ids: list[int]) -> dict[int, Known]:
    """What there is of these series, by id; until the transaction ends, nobody else adds to them.

    The order is one everywhere, so that two transactions cannot wait for each other.
    """
    dialect = connection.dialect.name
    found: dict[int, Known] = {}
    for part in chunks(ids):
        text = _LOCKED.format(rows=value_rows(dialect, 1, len(part))) + _LOCK[dialect]
        found.update((row[0], Known(*row)) for row in connection.exec_driver_sql(text, tuple(part)))
    if len(found) != len(ids):
        raise StaleIdsError("metrics are deleted as they are written")
    return found
