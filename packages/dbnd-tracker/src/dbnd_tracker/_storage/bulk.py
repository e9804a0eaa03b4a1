"""Statements of many rows, as text of the driver: putting them together anew takes longer than their execution.

Python gives the interpreter away at each statement, and other threads keep it for milliseconds: with a statement for
each row, one busy thread would slow insertion down a thousand times.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    T = TypeVar("T")

CHUNK: Final = 1_000
"""Values of one IN list or VALUES clause; SQLite takes some 32,000 variables."""
# Rows of one statement.
_ROWS: Final = 400


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


@contextmanager
def driver_errors(connection: Connection, statement: str) -> Iterator[None]:
    """Report errors of the driver, which the block uses past SQLAlchemy, as SQLAlchemy does."""
    errors = connection.dialect.loaded_dbapi.Error
    try:
        yield
    except errors as error:
        raise DBAPIError.instance(statement, None, error, errors, dialect=connection.dialect) from error
