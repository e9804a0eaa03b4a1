"""Points as arrays, from segments and from rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection

from dbnd_tracker._storage.bulk import driver_errors
from dbnd_tracker._storage.encoding import Kind
from dbnd_tracker._storage.points.models import SEGMENT
from dbnd_tracker._storage.points.segments import KIND, NO_STEP, NO_VALUE, TYPES, Array, Points, join, room, unpack

# Without NULL, so that all elements of an array of PostgreSQL have one length, and rows of SQLite fit an array's type.
_COLUMNS: Final = {
    "step": "coalesce(step, 0)",
    "timestamp_us": "timestamp_us",
    "value": "coalesce(value, {missing})",
    "flags": (
        f"kind + CASE WHEN step IS NULL THEN {NO_STEP} ELSE 0 END + CASE WHEN value IS NULL THEN {NO_VALUE} ELSE 0 END"
    ),
}
_PART: Final = "FROM metrics WHERE series_id = %d AND number > %d AND number <= %d"
_SEGMENTS: Final = (
    "SELECT first, points, data FROM segments WHERE series_id = %d AND first > %d AND first <= %d ORDER BY first"
)
# Segments that one thread unpacks in some milliseconds, beside which its start is nothing.
_TOGETHER: Final = 16
_MOST_THREADS: Final = 4
_ARRAY_HEAD: Final = 20
_ARRAY_LENGTH: Final = 2_000_000


def read_points(connection: Connection, series_id: int, after: int, last: int) -> Points:
    """The points of a series with the numbers above ``after`` up to ``last``, in the order in which they came."""
    parts = []
    segments = connection.exec_driver_sql(_SEGMENTS % (series_id, after - SEGMENT, last)).all()
    for is_archived, group in groupby(segments, lambda segment: not segment.data):
        some = list(group)
        end = min(some[-1].first + some[-1].points - 1, last)
        if not is_archived:
            first = some[0].first
            parts.append(_unpacked(some).part(max(after + 1 - first, 0), last + 1 - first))
        elif after < end:
            from dbnd_tracker._storage.points.archive import read_archive  # seldom needed

            parts.append(read_archive(connection, series_id, after, end))
        after = max(after, end)
    if after < last:
        parts.append(read_rows(connection, series_id, after, last))
    return join(parts)


def _unpacked(segments: Sequence[Any]) -> Points:
    """The points of segments that follow one another.

    Many are unpacked on some cores at once: zlib and NumPy leave the interpreter to others meanwhile.
    """
    first = segments[0].first
    points = room(segments[-1].first + segments[-1].points - first)

    def unpack_some(start: int) -> None:
        for segment in segments[start : start + _TOGETHER]:
            unpack(segment.data, points, segment.first - first, segment.points)

    starts = range(0, len(segments), _TOGETHER)
    if len(starts) == 1:
        unpack_some(0)
    else:  # a pool of its own for each question: a fork would have none of the threads of one that stays.
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS), "dbnd-segments") as pool:
            list(pool.map(unpack_some, starts))
    return points


def read_rows(connection: Connection, series_id: int, after: int, last: int) -> Points:
    """The same of those points alone that are not sealed."""
    if connection.dialect.name == "sqlite":
        return _read_part(connection, series_id, after, last, _read_table)
    bounds = range(after, last, _ARRAY_LENGTH)
    return join([_read_part(connection, series_id, n, min(n + _ARRAY_LENGTH, last), _read_arrays) for n in bounds])


def _read_part(
    connection: Connection, series_id: int, after: int, last: int, read: Callable[[Connection, str], dict[str, Array]]
) -> Points:
    part = _PART % (series_id, after, last)
    columns = read(connection, part)
    value, flags = columns["value"], columns["flags"]
    value[(flags & NO_VALUE) != 0] = np.nan
    texts: dict[int, str] = {}
    if (flags & KIND >= Kind.STR).any():
        query = f"SELECT number, text {part} AND text IS NOT NULL"
        texts = {number - after - 1: text for number, text in connection.exec_driver_sql(query)}
    return Points(columns["step"], columns["timestamp_us"], value, flags, texts)


def _read_table(connection: Connection, part: str) -> dict[str, Array]:
    # A literal that is too large for a double is read as infinity.
    wanted = ", ".join(_COLUMNS.values()).format(missing="9e999")
    rows: Any = connection.exec_driver_sql(f"SELECT {wanted} {part} ORDER BY number").cursor
    table = np.fromiter(rows, np.dtype([(name, TYPES[name]) for name in _COLUMNS]))
    return {name: np.ascontiguousarray(table[name]) for name in _COLUMNS}


def _read_arrays(connection: Connection, part: str) -> dict[str, Array]:
    """The same from PostgreSQL: one row of arrays, because each of a million rows would cost the driver a message."""
    eight = {name: "float8" if name == "value" else "int8" for name in _COLUMNS}
    arrays = (f"array_agg(({sql})::{eight[name]} ORDER BY number)" for name, sql in _COLUMNS.items())
    wanted = ", ".join(arrays).format(missing="'NaN'")
    query = f"SELECT {wanted} {part}"
    driver: Any = connection.connection.dbapi_connection
    read = {}
    with driver_errors(connection, query), driver.cursor(binary=True) as cursor:
        result = cursor.execute(query).pgresult
        for place, name in enumerate(_COLUMNS):
            element = np.dtype([("length", ">i4"), ("value", ">f8" if eight[name] == "float8" else ">i8")])
            data = result.get_value(0, place) or bytes(_ARRAY_HEAD)
            read[name] = np.frombuffer(data, element, offset=_ARRAY_HEAD)["value"].astype(TYPES[name])
    return read
