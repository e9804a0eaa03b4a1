"""Statements of many rows, as text of the driver: putting them together anew takes longer than their execution.

Python gives the interpreter away at each statement, and other threads keep it for milliseconds: with a statement for
each row, one busy thread would slow insertion down a thousand times.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy.exc import DBAPIError

from dbnd_tracker._storage.models import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    T = TypeVar("T")

CHUNK: Final = 1_000
"""Values of one IN list or VALUES clause; SQLite takes some 32,000 variables."""
# Rows of one statement.
_ROWS: Final = 400
_POINT: Final = tuple(column.name for column in Metric.__table__.columns)
_COPY: Final = f"COPY metrics ({', '.join(_POINT)}) FROM STDIN"
_NULL: Final = r"\N"
# What COPY's text form writes with a backslash.
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """``values`` in parts for one statement each."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def insert_rows(
    connection: Connection, table: str, names: tuple[str, ...], values: Sequence[Any], ending: str = ""
) -> None:
    """Insert rows within the transaction that ``connection`` is in.

    Args:
        connection: Of the database.
        table: Name of the table.
        names: Names of columns.
        values: Values of these columns of the first row, then of the second, and so on.
        ending: What follows the rows in the statement: ``ON CONFLICT …``, in which the row that is there is ``old``.
    """
    size = _ROWS * len(names)
    for start in range(0, len(values), size):
        part = tuple(values[start : start + size])
        rows = value_rows(connection.dialect.name, len(names), len(part) // len(names))
        text = f"INSERT INTO {table} AS old ({', '.join(names)}) {rows} {ending}"
        connection.exec_driver_sql(text, part)


@functools.lru_cache(maxsize=_ROWS)
def value_rows(dialect: str, width: int, rows: int) -> str:
    """A VALUES clause with places for that many rows."""
    row = f"({', '.join(['%s' if dialect == 'postgresql' else '?'] * width)})"
    return f"VALUES {', '.join([row] * rows)}"


def insert_points(connection: Connection, columns: Sequence[Sequence[Any]]) -> None:
    """Insert points, given by the columns of ``Metric`` in their order; PostgreSQL takes them by COPY."""
    if not columns[0]:
        return
    if connection.dialect.name == "postgresql":
        _copy(connection, columns)
        return
    # Columns of nothing but None are left out: SQLite's driver looks long for what each None is to be written as.
    given = {
        name: column for name, column in zip(_POINT, columns, strict=True) if any(value is not None for value in column)
    }
    values: list[Any] = [None] * (len(columns[0]) * len(given))
    for place, column in enumerate(given.values()):
        values[place :: len(given)] = column
    insert_rows(connection, "metrics", tuple(given), values)


def _copy(connection: Connection, columns: Sequence[Sequence[Any]]) -> None:
    lines = [
        f"{series}\t{number}\t{_NULL if step is None else step}\t{time_us}\t"
        f"{_NULL if value is None else repr(value)}\t{kind}\t{_NULL if text is None else text.translate(_ESCAPES)}"
        for series, number, step, time_us, value, kind, text in zip(*columns, strict=True)
    ]
    lines.append("")
    driver: Any = connection.connection.dbapi_connection
    with driver_errors(connection, _COPY), driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write("\n".join(lines).encode())


@contextmanager
def driver_errors(connection: Connection, statement: str) -> Iterator[None]:
    """Report errors of the driver, which the block uses past SQLAlchemy, as SQLAlchemy does."""
    errors = connection.dialect.loaded_dbapi.Error
    try:
        yield
    except errors as error:
        raise DBAPIError.instance(statement, None, error, errors, dialect=connection.dialect) from error
