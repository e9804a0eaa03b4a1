"""Points become rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dbnd_tracker._storage.bulk import driver_errors, insert_rows
from dbnd_tracker._storage.points.models import Metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_POINT: Final = tuple(column.name for column in Metric.__table__.columns)
_COPY: Final = f"COPY metrics ({', '.join(_POINT)}) FROM STDIN"
_NULL: Final = r"\N"
# What COPY's text form writes with a backslash.
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


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
