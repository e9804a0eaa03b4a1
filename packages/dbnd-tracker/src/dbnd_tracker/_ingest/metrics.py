"""Metrics, and the params and tags that travel as metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete

from dbnd.tracking import METRIC_SOURCE, PARAM_SOURCE, TAG_SOURCE
from dbnd_tracker._storage.bulk import insert_points, insert_rows, value_rows
from dbnd_tracker._storage.encoding import Encoded, Kind, encode_all
from dbnd_tracker._storage.models import Param, Tag
from dbnd_tracker._storage.repeats import Known
from dbnd_tracker._storage.writer import StaleIdsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from dbnd_tracker._ingest.points import Points, Text
    from dbnd_tracker._storage.repeats import Identity
    from dbnd_tracker._storage.writer import Writer

_LOCKED: Final = (
    "SELECT series.id, points, latest_us, last_step, last_timestamp_us "
    "FROM ({rows}) AS wanted JOIN metric_series AS series ON series.id = wanted.column1 ORDER BY series.id"
)
_LOCK: Final = {"sqlite": "", "postgresql": " FOR NO KEY UPDATE OF series"}
# Series of one statement.
_CHUNK: Final = 1_000
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


def log_points(writer: Writer, points: Points) -> object:
    """Add points to metrics; params and tags among them replace those of the same name."""
    uids = {uid for uid, _, _ in points.series} | {text.attempt_uid for text in points.texts}
    attempts = writer.attempt_ids(uids)
    if len(attempts) < len(uids):
        points = _without_deleted(writer, points, attempts)
    if points.texts:
        _add_texts(writer, points.texts, attempts)
    for part in points.by_source():
        if part.series:
            _add_points(writer, part, attempts)
    return {}


def _without_deleted(writer: Writer, points: Points, attempts: Mapping[str, int]) -> Points:
    """Those points whose attempts were not deleted; the others are dropped and counted."""
    names = list(points.series)
    dropped = Counter(names[place][0] for place in points.members) + Counter(text.attempt_uid for text in points.texts)
    for uid, events in dropped.items():
        if uid not in attempts:
            writer.deleted.drop(uid, events)
    return points.only(lambda uid, _: uid in attempts)


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
    gone: dict[int, list[str]] = {}
    for text in tags:
        if text.value is None:
            gone.setdefault(attempts[text.attempt_uid], []).append(text.name)
    for attempt_id, names in gone.items():
        for start in range(0, len(names), _CHUNK):
            part = names[start : start + _CHUNK]
            writer.session.execute(delete(Tag).where(Tag.attempt_id == attempt_id, Tag.name.in_(part)))
    rows = [
        {"attempt_id": attempts[text.attempt_uid], "name": text.name, "value": text.value}
        for text in tags
        if text.value is not None
    ]
    writer.upsert(Tag, rows, "attempt_id", "name")


def _add_points(writer: Writer, added: Points, attempts: Mapping[str, int]) -> None:
    keys = writer.key_ids({key for _, key, _ in added.series})
    pairs = [(attempts[uid], keys[key]) for uid, key, _ in added.series]
    by_pair = writer.series_ids(pairs)
    ids = [by_pair[pair] for pair in pairs]
    connection = writer.connection
    series = [ids[place] for place in added.members]
    counts = Counter(series)
    found = _lock(connection, sorted(counts))
    times, steps, values = added.times, added.steps, added.values
    if len(counts) > 1:  # points of a series together, so that they are written to the same pages
        order = sorted(range(len(series)), key=series.__getitem__)
        series = [series[place] for place in order]
        times = [times[place] for place in order]
        steps = [steps[place] for place in order]
        values = [values[place] for place in order]
    zeros = [step or 0 for step in steps]
    encoded = encode_all(values)
    sources = {each: source for each, (_, _, source) in zip(ids, added.series, strict=True)}
    # MLflow's own database keeps one point of a key, time, step and value.
    once = {each for each, source in sources.items() if source == METRIC_SOURCE}
    repeats = _repeats(writer, once, found, counts, times, zeros, encoded) if once else set()
    if repeats:
        kept = [place for place in range(len(series)) if place not in repeats]
        series = [series[place] for place in kept]
        times = [times[place] for place in kept]
        steps = [steps[place] for place in kept]
        zeros = [zeros[place] for place in kept]
        encoded = encoded.only(kept)
        counts = Counter(series)
    numbers: list[int] = []
    for each, known in found.items():
        numbers += range(known.points + 1, known.points + 1 + counts[each])
    insert_points(connection, (series, numbers, steps, times, encoded.numbers, encoded.kinds, encoded.texts))
    names = {each: (*pair, sources[each]) for each, pair in zip(ids, pairs, strict=True)}
    sums: list[Any] = []
    start = 0
    for each in found:
        stop = start + counts[each]
        if start < stop:
            sums += (each, *names[each], stop - start, *_sums(times, steps, zeros, encoded, start, stop))
        start = stop
    insert_rows(connection, "metric_series", _SUMMED, sums, _SUMMING)


def _repeats(
    writer: Writer,
    once: set[int],
    found: Mapping[int, Known],
    counts: Mapping[int, int],
    times: list[int],
    steps: list[int],
    encoded: Encoded,
) -> set[int]:
    """Places of points that their series has already, or that stand before in the batch, of the series ``once``."""
    repeats: set[int] = set()
    stop = 0
    for each, known in found.items():
        start, stop = stop, stop + counts[each]
        if each not in once or known.are_new(times[start:stop], steps[start:stop]):
            continue
        columns = (times, steps, encoded.numbers, encoded.texts)
        identities: list[Identity] = list(zip(*(column[start:stop] for column in columns), strict=True))
        doubtful = known.doubtful(identities)
        if not doubtful and len(set(identities)) == len(identities):
            continue
        kept: dict[Identity, None] = {}
        seen = writer.seen(each) if doubtful else None
        there = set() if seen is None else seen.find(writer.connection, known, doubtful)
        for place, identity in enumerate(identities, start):
            if identity in there or identity in kept:
                repeats.add(place)
            else:
                kept[identity] = None
        if seen is not None:
            seen.add(kept)
    return repeats


def _sums(
    times: list[int], steps: list[int | None], zeros: list[int], encoded: Encoded, start: int, stop: int
) -> tuple[int, int, int | None, int, float | None, str | None, float | None, float | None, bool]:
    """The sums of the points from ``start`` to ``stop``: what they change, in the order of ``_CHANGES``."""
    if stop - start == 1:  # as where each step logs its metrics
        time_us, number, kind = times[start], encoded.numbers[start], encoded.kinds[start]
        return time_us, time_us, steps[start], kind, number, encoded.texts[start], number, number, kind == Kind.INT
    last = _last(times, zeros, encoded, start, stop)
    bounds = [number for number in encoded.numbers[start:stop] if number is not None]
    only_ints = encoded.kinds[start:stop].count(Kind.INT) == stop - start
    return (
        max(times[start:stop]),
        times[last],
        steps[last],
        encoded.kinds[last],
        encoded.numbers[last],
        encoded.texts[last],
        min(bounds, default=None),
        max(bounds, default=None),
        only_ints,
    )


def _last(times: list[int], steps: list[int], encoded: Encoded, start: int, stop: int) -> int:
    """The place of the last value among the points from ``start`` to ``stop``, by the rule of ``_LATER``."""
    part = steps[start:stop]
    if part[-1] > part[-2] and sorted(part) == part:  # as nearly always, and seen quickly
        return stop - 1
    places: Sequence[int] = _places_of(max(part), part, range(start, stop))
    if len(places) > 1:
        part = [times[place] for place in places]
        places = _places_of(max(part), part, places)
    last, *others = places
    for place in others:
        new, old = encoded.numbers[place] or 0.0, encoded.numbers[last] or 0.0
        if new > old or (new == old and encoded.kinds[place] >= Kind.STR):
            last = place
    return last


def _places_of(value: int, part: Sequence[int], places: Sequence[int]) -> Sequence[int]:
    """Those of ``places`` where ``value`` stands in ``part``, which is as long; nearly always one, or all."""
    count = part.count(value)
    if count == 1:
        return [places[part.index(value)]]
    return places if count == len(part) else [place for place, each in zip(places, part, strict=True) if each == value]


def _lock(connection: Connection, ids: list[int]) -> dict[int, Known]:
    """What there is of these series, by id; until the transaction ends, nobody else adds to them.

    The order is one everywhere, so that two transactions cannot wait for each other.
    """
    dialect = connection.dialect.name
    found: dict[int, Known] = {}
    for start in range(0, len(ids), _CHUNK):
        part = tuple(ids[start : start + _CHUNK])
        text = _LOCKED.format(rows=value_rows(dialect, 1, len(part))) + _LOCK[dialect]
        found.update((row[0], Known(*row)) for row in connection.exec_driver_sql(text, part))
    if len(found) != len(ids):
        msg = "metrics are deleted as they are written"
        raise StaleIdsError(msg)
    return found
