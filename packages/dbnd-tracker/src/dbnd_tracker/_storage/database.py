"""The database of the tracker: an SQLite file or a PostgreSQL database, opened, migrated and written to."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import URL, create_engine, event, inspect, make_url, select, text
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidatePoolError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Session, configure_mappers

from dbnd import ConfigError
from dbnd.plugins import SQLITE, console, mask_url, sqlite_path, sqlite_url
from dbnd_tracker._errors import LockedError, PayloadError, StorageError
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.bulk import driver_errors
from dbnd_tracker._storage.encoding import from_json_text, readable
from dbnd_tracker._storage.migrations import REVISIONS, VERSION_TABLE, upgrade
from dbnd_tracker._storage.points.models import ARCHIVE
from dbnd_tracker._storage.sqlite import FileConnection, identity, make_file, settle
from dbnd_tracker._storage.states import HEARTBEAT_TIMEOUT
from dbnd_tracker._storage.writer import DEADLINE, IdCache, StaleIdsError, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from dbnd_tracker._storage.sqlite import Identity

    T = TypeVar("T")

_ATTEMPTS: Final = 5
LEAST_CONNECTIONS: Final = 3
"""Connections to PostgreSQL that a process needs: one to write, and two to read meanwhile."""
# Those that it uses if it may, of which some stay open, and some write at once.
_CONNECTIONS: Final = 15
_KEPT: Final = 5
_WRITERS: Final = 4
# Any constant that no other program of a PostgreSQL server is likely to use for its advisory locks.
_MIGRATION_LOCK: Final = 0x6462_6E64


def open_database(url: str, settings: TrackerSettings | None = None) -> Database:
    """The database at ``url``, created or migrated when that is needed (see ``Database.open``)."""
    database = Database(url, settings)
    database.open()
    return database


class Database:
    """One database; any number of threads may use it.

    Making one imports everything needed and checks the URL, but connects to nothing: ``open`` does.

    Args:
        url: ``sqlite:///file``, ``postgresql://…``, or the path of an SQLite file.
        settings: When silent runs are read as lost, and what a new database is made of; its database is not looked at.
        options: Of the driver of PostgreSQL.

    Raises:
        ConfigError: The URL cannot be used, or the driver of PostgreSQL is not installed.
    """

    def __init__(self, url: str, settings: TrackerSettings | None = None, **options: Any) -> None:
        settings = settings or TrackerSettings()
        configure_mappers()  # else the first batch does it, beside the training
        parsed = _parse(url)
        is_file = parsed.get_backend_name() == "sqlite"
        self.path: Path | None = Path(parsed.database or "").absolute() if is_file else None
        self.name: str = parsed.database or "" if is_file else mask_url(parsed.render_as_string(hide_password=True))
        """The database as messages name it, without credentials."""
        share = max(settings.connections // settings.workers, LEAST_CONNECTIONS)
        most = _CONNECTIONS if self.path else min(_CONNECTIONS, share)
        self.writers: int = 1 if self.path else min(_WRITERS, most - LEAST_CONNECTIONS + 1)
        """How many transactions may write at once."""
        try:
            self._engine = create_engine(
                parsed,
                json_serializer=lambda value: json.dumps(readable(value)),
                json_deserializer=from_json_text,
                pool_pre_ping=self.path is None,
                connect_args={"factory": FileConnection} if self.path else options,
                pool_size=min(_KEPT, most),
                max_overflow=max(0, most - _KEPT),
                execution_options={ARCHIVE: settings.archive},
            )
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"The database {self.name} needs the Python package {error.name}, which is not installed: "
                "install dbnd-tracker[postgresql]."
            ) from None
        self._writing = self._engine
        # Every question of a session is answered from one state, as on SQLite.
        self._reading = self._engine if self.path else self._engine.execution_options(isolation_level="REPEATABLE READ")
        if self.path:
            event.listen(self._engine, "checkout", _check_file)
            event.listen(self._engine, "begin", _begin_sqlite)
            self._writing = self._engine.execution_options(dbnd_begin="BEGIN IMMEDIATE")
        else:
            event.listen(self._engine, "connect", _set_up_postgresql)
        self._read_info = {HEARTBEAT_TIMEOUT: timedelta(seconds=settings.heartbeat_timeout_s)}
        self._partitions = settings.partitions
        self.archive = settings.archive
        self._ids = IdCache()
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(self.writers)
        self._opened = False
        self._file: Identity = None
        self.generation = 0
        """How often the file was found to be another one than before: what was in that is not in this."""
        self.written = 0
        """How many transactions of this process have written."""
        self.full_series: set[int] = set()
        """Ids of series that this process has found to have as many fresh points as make a segment."""

    def open(self) -> None:
        """Connect, and create or migrate the schema; does nothing the second time, unless the file is another one.

        Raises:
            ConfigError: The schema is of a newer version, or of another program.
            StorageError: The database cannot be reached now.
        """
        with self._lock, self._translated():
            if self._opened:
                if self.path is None or identity(self.path) == self._file:
                    return
                self._leave_old_file()
            try:
                self._prepare()
            except BaseException:
                self._engine.dispose()
                raise
            self._opened = True

    def _leave_old_file(self) -> None:
        self._opened = False
        self._engine.dispose()
        self._ids.clear()
        self.full_series.clear()
        self.generation += 1
        console.warning(
            f"The file {self.name} of the tracker was removed, replaced or written over while it was in use: what "
            "comes from now on goes into the one that is there now, and what was in the old one is not in it."
        )

    def _prepare(self) -> None:
        if self.path:
            make_file(self.path)
            self._engine.connect().close()  # finds out whether there is a log of another file
            self._file = identity(self.path)
        with self._engine.begin() as connection:
            is_current = self._revision(connection) == REVISIONS[-1]
        if not is_current:
            self._migrate()

    def _revision(self, connection: Connection) -> str | None:
        """The revision of the schema; None where there are no tables yet."""
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        revision: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
        if revision in REVISIONS:
            return revision
        raise ConfigError(
            f"The database {self.name} has the schema {revision}, and this version of dbnd-tracker knows only those up "
            f"to {REVISIONS[-1]}: install a newer dbnd-tracker, or name another database."
        )

    def _migrate(self) -> None:
        """Make the tables or bring them up to date, in one transaction that keeps other processes out."""
        with self._writing.connect() as connection:
            if self.path:
                # A table that is made anew goes for a moment, with all that its rows are referred to by.
                _pragma(connection, "foreign_keys = OFF")
            with connection.begin():
                if not self.path:
                    connection.execute(select(text(f"pg_advisory_xact_lock({_MIGRATION_LOCK})")))
                revision = self._revision(connection)
                if revision != REVISIONS[-1]:
                    upgrade(connection, revision, self._partitions)
            if self.path:
                _pragma(connection, "foreign_keys = ON")

    def write(self, work: Callable[[Writer], T]) -> T:
        """Run ``work`` in one transaction and return what it returns.

        ``work`` runs once more when another process came first, so it must not keep anything outside the database.

        Raises:
            PayloadError: The database refuses the values.
            StorageError: The database cannot take anything now, or the request took too long; nothing was written.
        """
        deadline = DEADLINE.get()
        with self._translated():
            for attempt in range(_ATTEMPTS):
                self._follow_file()
                driver: Any = None
                try:
                    # SQLite has one writer at a time; waiting here is fairer and quicker than in its busy loop.
                    with self._turns, Session(self._writing, expire_on_commit=False) as session:
                        self._check(deadline is None or not deadline.has_passed)
                        writer = Writer(session, self._ids)
                        driver = writer.connection.connection.dbapi_connection
                        result = work(writer)
                        self._check(deadline is None or deadline.begin_commit())
                        session.commit()
                        writer.keep_ids()
                        self.written += 1
                        self.full_series.update(writer.full_series)
                        if self._is_lasting(driver):
                            return result
                except Exception as error:
                    # Another server process inserted the same row, deleted a row whose id is kept here, or the two
                    # waited for each other.
                    self._ids.clear()
                    if attempt + 1 == _ATTEMPTS or not (_is_conflict(error) or not self._is_lasting(driver)):
                        raise
                    time.sleep(0.01 * 2**attempt)
            raise StorageError(f"The file {self.name} of the tracker is removed or replaced again and again.")

    def _follow_file(self) -> None:
        """Open the file that has the name now, when it is another one than that which was opened."""
        if self.path is not None and self._opened and settle(self.path) != self._file:
            self.open()

    def _is_lasting(self, driver: Any) -> bool:
        """Whether what ``driver`` has written, or could not write, is in the file of that name."""
        if self.path is None:
            return True
        return identity(self.path) == self._file and (driver is None or driver.is_current())

    def _check(self, is_in_time: bool) -> None:
        if not is_in_time:
            raise StorageError(f"The database {self.name} did not take it in time, and nothing was written.")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that reads one state of the database; StorageError when it cannot be read now."""
        with self._translated():
            self._follow_file()
            with Session(self._reading, info=self._read_info) as session:
                yield session

    def vacuum(self) -> None:
        """Give the space of deleted rows back to the file system; meanwhile nobody writes.

        Raises:
            StorageError: The database cannot be used, or there is no room for a copy of it.
        """
        with self._translated(), self._engine.connect() as connection, driver_errors(connection, "VACUUM"):
            driver: Any = connection.connection.dbapi_connection
            try:
                if self.path:
                    driver.execute("VACUUM")
                    driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                else:
                    driver.autocommit = True
                    driver.execute("VACUUM (FULL, ANALYZE)")
            finally:
                connection.invalidate()  # its mode is not that of the others

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DataError, IntegrityError, UnicodeEncodeError) as error:
            raise PayloadError(f"The database {self.name} refuses the values: {_reason(error)}.") from error
        except (SQLAlchemyError, StaleIdsError, OSError) as error:
            msg = f"The database {self.name} cannot be used: {_reason(error)}."
            raise (LockedError if "locked" in _reason(error) else StorageError)(msg) from error


def _parse(url: str) -> URL:
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


def _check_file(connection: FileConnection, _record: object, _proxy: object) -> None:
    """Let the pool open a new connection in place of one whose file was removed or replaced."""
    if not connection.is_current():
        raise InvalidatePoolError


def _set_up_postgresql(connection: Any, _record: object) -> None:
    # Times come in the zone of the session, and the first and last hours of the calendar exist in UTC alone.
    connection.execute("SET TIME ZONE 'UTC'")
    connection.commit()


def _pragma(connection: Connection, setting: str) -> None:
    """Change a setting of SQLite outside of any transaction; one that fails closes the connection."""
    driver: Any = connection.connection.dbapi_connection
    driver.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get("dbnd_begin")
    connection.exec_driver_sql(begin or "BEGIN")
    if begin:
        driver: Any = connection.connection.dbapi_connection
        driver.advance()


def _is_conflict(error: Exception) -> bool:
    # psycopg's sqlstate: serialization_failure and deadlock_detected.
    return isinstance(error, (IntegrityError, StaleIdsError)) or (
        isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) in {"40001", "40P01"}
    )


def _reason(error: Exception) -> str:
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    return (str(original).strip().splitlines() or [type(original).__name__])[0].rstrip(".")
