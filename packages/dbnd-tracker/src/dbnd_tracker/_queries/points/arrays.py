"""Series in compact arrays, kept from one question to the next.

A chart that is zoomed, and one that follows a run, ask for the same points again and again. What was read once is kept,
and only what has come since is read: a million points take a tenth of a second or more the first time, and some
milliseconds afterwards.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dbnd_tracker._storage.bulk import driver_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from dbnd_tracker._queries.points.metrics import Series

    Array = np.ndarray[Any, Any]

# Of 25 bytes each, if all of their columns are asked for.
_MAX_KEPT: Final = 4_000_000

NO_STEP: Final = 8
"""Bit of ``flags``: the point has no step."""
NO_VALUE: Final = 16
"""Bit of ``flags``: the value is NULL, which is NaN or, by the point's kind, no number."""

# Without NULL, so that all elements of an array of PostgreSQL have one length, and rows of SQLite fit an array's type.
_VALUE: Final = {"value": "coalesce(value, {missing})"}
_OTHERS: Final = {
    "step": "coalesce(step, 0)",
    "timestamp_us": "timestamp_us",
    "flags": (
        f"kind + CASE WHEN step IS NULL THEN {NO_STEP} ELSE 0 END + CASE WHEN value IS NULL THEN {NO_VALUE} ELSE 0 END"
    ),
}
_TYPES: Final = {"value": "f8", "step": "i8", "timestamp_us": "i8", "flags": "i1"}
_PART: Final = "FROM metrics WHERE series_id = %d AND number > %d AND number <= %d"
_ARRAY_HEAD: Final = 20
_ARRAY_LENGTH: Final = 2_000_000


class Columns:
    """The points of a series in the order in which they came, as arrays."""

    def __init__(self) -> None:
        self.value: Array = np.empty(0, _TYPES["value"])
        """NaN or infinite where there is no number."""
        self.step: Array = np.empty(0, _TYPES["step"])
        """0 where there is none."""
        self.timestamp_us: Array = np.empty(0, _TYPES["timestamp_us"])
        self.flags: Array = np.empty(0, _TYPES["flags"])
        """The kind of each value and, of ``NO_STEP`` and ``NO_VALUE``, what holds."""
        self.derived: dict[Any, Any] = {}
        """What was made of the arrays; forgotten when points are added."""
        self.lock = threading.Lock()

    def read(self, session: Session, series: Series, *, only_values: bool) -> None:
        """Read what has come since the last time."""
        # Points are numbered in the order in which their transactions end, so that none comes before the last one read.
        for columns in (_VALUE,) if only_values else (_VALUE, _OTHERS):
            known = len(getattr(self, next(iter(columns))))
            if known >= series.points:
                continue
            self.derived.clear()
            parts = _read(session.connection(), series.id, known, series.points, columns)
            for name, part in zip(columns, parts, strict=True):
                setattr(self, name, np.concatenate((getattr(self, name), part)))


def _read(connection: Connection, series_id: int, after: int, last: int, columns: dict[str, str]) -> list[Array]:
    """Columns of the points whose numbers are above ``after`` and at most ``last``."""
    if connection.dialect.name == "postgresql":
        parts = [
            _read_arrays(connection, series_id, start, min(start + _ARRAY_LENGTH, last), columns)
            for start in range(after, last, _ARRAY_LENGTH)
        ]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]
    # A literal that is too large for a double is read as infinity.
    wanted = ", ".join(columns.values()).format(missing="9e999")
    rows: Any = connection.exec_driver_sql(f"SELECT {wanted} {_PART % (series_id, after, last)} ORDER BY number").cursor
    if len(columns) == 1:
        return [np.fromiter(chain.from_iterable(rows), _TYPES[name]) for name in columns]
    table = np.fromiter(rows, np.dtype([(name, _TYPES[name]) for name in columns]))
    return [table[name] for name in columns]


def _read_arrays(connection: Connection, series_id: int, after: int, last: int, columns: dict[str, str]) -> list[Array]:
    """The same from PostgreSQL: one row of arrays, because each of a million rows would cost the driver a message."""
    eight = {name: "float8" if name == "value" else "int8" for name in columns}
    arrays = (f"array_agg(({sql})::{eight[name]} ORDER BY number)" for name, sql in columns.items())
    wanted = ", ".join(arrays).format(missing="'NaN'")
    query = f"SELECT {wanted} {_PART % (series_id, after, last)}"
    driver: Any = connection.connection.dbapi_connection
    found = []
    with driver_errors(connection, query), driver.cursor(binary=True) as cursor:
        result = cursor.execute(query).pgresult
        for place, name in enumerate(columns):
            element = np.dtype([("length", ">i4"), ("value", ">f8" if eight[name] == "float8" else ">i8")])
            data = result.get_value(0, place) or bytes(_ARRAY_HEAD)
            found.append(np.frombuffer(data, element, offset=_ARRAY_HEAD)["value"].astype(_TYPES[name]))
    return found


class SeriesCache:
    """The series that were asked for lately, up to ``max_points`` in all; any number of threads may use it."""

    def __init__(self, max_points: int = _MAX_KEPT) -> None:
        self._max_points = max_points
        self._kept: OrderedDict[tuple[int, int], Columns] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def columns(self, session: Session, series: Series, *, only_values: bool = False) -> Iterator[Columns]:
        """The points of a series, for one thread at a time; if ``only_values``, other arrays may be shorter."""
        key = series.id, series.first_us
        with self._lock:
            columns = self._kept.setdefault(key, Columns())
            self._kept.move_to_end(key)
        with columns.lock:
            columns.read(session, series, only_values=only_values)
            yield columns
        with self._lock:
            while len(self._kept) > 1 and sum(len(kept.value) for kept in self._kept.values()) > self._max_points:
                self._kept.popitem(last=False)
