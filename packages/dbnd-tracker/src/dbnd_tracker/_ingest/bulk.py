"""Insertion of many points: statements of many rows on SQLite, COPY on PostgreSQL."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from dbnd_tracker._drivers import driver_errors
from dbnd_tracker._models import Metric

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    PointRow = tuple[int, int, int | None, int, float | None, int, str | None]
    """Values of all columns of ``Metric``, in their order."""

_NAMES: Final = ", ".join(column.name for column in Metric.__table__.columns)
_VALUES: Final = f"({', '.join('?' for _ in Metric.__table__.columns)})"
# Rows of one statement of SQLite. Python gives the interpreter away at each statement, and other threads keep it for
# milliseconds; with a statement for each row, one busy thread would slow insertion down a thousand times.
_ROWS: Final = 100
_INSERT: Final = f"INSERT INTO metrics ({_NAMES}) VALUES "  # noqa: S608  names of columns
_INSERT_ROWS: Final = _INSERT + ", ".join([_VALUES] * _ROWS)
_COPY: Final = f"COPY metrics ({_NAMES}) FROM STDIN"
_NULL: Final = r"\N"
# What COPY's text form writes with a backslash.
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def insert_points(connection: Connection, rows: Iterable[PointRow]) -> None:
    """Insert rows of points within the transaction that ``connection`` is in.

    Raises:
        DBAPIError: The database does not take them.
    """
    if connection.dialect.name == "postgresql":
        _copy(connection, rows)
        return
    given = list(rows)
    whole = len(given) - len(given) % _ROWS
    for start in range(0, whole, _ROWS):
        connection.exec_driver_sql(_INSERT_ROWS, tuple(chain.from_iterable(given[start : start + _ROWS])))
    if given[whole:]:
        values = tuple(chain.from_iterable(given[whole:]))
        connection.exec_driver_sql(_INSERT + ", ".join([_VALUES] * len(given[whole:])), values)


def _copy(connection: Connection, rows: Iterable[PointRow]) -> None:
    lines = [
        f"{series}\t{number}\t{_NULL if step is None else step}\t{time_us}\t"
        f"{_NULL if value is None else repr(value)}\t{kind}\t{_NULL if text is None else text.translate(_ESCAPES)}"
        for series, number, step, time_us, value, kind, text in rows
    ]
    lines.append("")
    driver: Any = connection.connection.dbapi_connection
    with driver_errors(connection, _COPY), driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write("\n".join(lines).encode())
