"""Engines: connections to an SQLite file, or to PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, NoSuchModuleError

from dbnd import ConfigError
from dbnd.plugins import SQLITE, mask_url, sqlite_path, sqlite_url
from dbnd_tracker._storage.encoding import from_json_text, readable
from dbnd_tracker._storage.points.models import ARCHIVE
from dbnd_tracker._storage.sqlite.connection import FileConnection

WRITING: Final = {"dbnd_begin": "BEGIN IMMEDIATE"}
"""Options of the engine of a file by which a transaction writes from its beginning."""
# Connections that stay open.
_KEPT: Final = 5


def parse_url(url: str) -> URL:
    """The database that a URL, or the path of a file, names; ConfigError where it is none that the tracker can use."""
    if "://" not in url:
        url = sqlite_url(Path(url).expanduser().absolute())
    try:
        if url.startswith(SQLITE):
            # Not every version of SQLAlchemy reads what is escaped in a path.
            path, query = sqlite_path(url)
            parsed = make_url(f"{SQLITE}?{query}").set(database=str(path) if path.name else None)
        else:
            parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        backend = ""
    if backend == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        return parsed
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise ConfigError(
        f"The database {mask_url(url)!r} cannot be used: the tracker needs a file, sqlite:///file or "
        "postgresql://user@host/name."
    )


def name_of(url: URL) -> str:
    """The database as messages name it, without credentials."""
    if url.get_backend_name() == "sqlite":
        return url.database or ""
    return mask_url(url.render_as_string(hide_password=True))


def make_engine(url: URL, most: int, archive: Path | None, options: Mapping[str, Any]) -> Engine:
    """The engine of a database, which has connected to nothing yet, for at most so many connections.

    Points that were moved to files are in ``archive``; ``options`` are those of PostgreSQL's driver.

    Raises:
        ConfigError: The driver of PostgreSQL is not installed.
    """
    is_file = url.get_backend_name() == "sqlite"
    try:
        engine = create_engine(
            url,
            json_serializer=lambda value: json.dumps(readable(value)),
            json_deserializer=from_json_text,
            pool_pre_ping=not is_file,
            connect_args={"factory": FileConnection} if is_file else options,
            pool_size=min(_KEPT, most),
            max_overflow=max(0, most - _KEPT),
            execution_options={ARCHIVE: archive},
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The database {name_of(url)} needs the Python package {error.name}, which is not installed: "
            "install dbnd-tracker[postgresql]."
        ) from None
    if is_file:
        event.listen(engine, "checkout", _check_file)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _set_up_postgresql)
    return engine


def _check_file(connection: FileConnection, _record: object, _proxy: object) -> None:
    """Let the pool open a new connection in place of one whose file was removed or replaced."""
    if not connection.is_current():
        raise InvalidatePoolError


def _set_up_postgresql(connection: Any, _record: object) -> None:
    # Times come in the zone of the session, and the first and last hours of the calendar exist in UTC alone.
    connection.execute("SET TIME ZONE 'UTC'")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get("dbnd_begin")
    connection.exec_driver_sql(begin or "BEGIN")
    if begin:
        driver: Any = connection.connection.dbapi_connection
        driver.advance()
