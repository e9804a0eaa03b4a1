"""The database of the tracker: an SQLite file or a PostgreSQL database, opened, migrated and written to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import select, text
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Session, configure_mappers

from dbnd.plugins import console
from dbnd_tracker._errors import LockedError, PayloadError, StorageError
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.bulk import driver_errors
from dbnd_tracker._storage.engine import WRITING, make_engine, name_of, parse_url
from dbnd_tracker._storage.migrations import CURRENT, revision_of, upgrade
from dbnd_tracker._storage.sqlite.file import Identity, identity, make_file, settle
from dbnd_tracker._storage.states import HEARTBEAT_TIMEOUT
from dbnd_tracker._storage.writer import DEADLINE, IdCache, StaleIdsError, Writer

T = TypeVar("T")

GENERATION: Final = "dbnd_generation"
"""Key of a session's ``info``: which of the files that had the name, one after the other, it reads."""
_ATTEMPTS: Final = 5
LEAST_CONNECTIONS: Final = 3
"""Connections to PostgreSQL that a process needs: one to write, and two to read meanwhile."""
# Those that it uses if it may, of which some write at once.
_CONNECTIONS: Final = 15
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

    Making one imports everything needed and checks the URL, or the path of an SQLite file, but connects to nothing:
    ``open`` does. The database that ``settings`` name is not looked at; ``options`` are those of PostgreSQL's driver.

    Raises:
        ConfigError: The URL cannot be used, or the driver of PostgreSQL is not installed.
    """

    def __init__(self, url: str, settings: TrackerSettings | None = None, **options: Any) -> None:
        settings = settings or TrackerSettings()
        configure_mappers()  # else the first batch does it, beside the training
        parsed = parse_url(url)
        is_file = parsed.get_backend_name() == "sqlite"
        self.path: Path | None = Path(parsed.database or "").absolute() if is_file else None
        self.name = name_of(parsed)
        """The database as messages name it, without credentials."""
        share = max(settings.connections // settings.workers, LEAST_CONNECTIONS)
        most = _CONNECTIONS if self.path else min(_CONNECTIONS, share)
        self.writers: int = 1 if self.path else min(_WRITERS, most - LEAST_CONNECTIONS + 1)
        """How many transactions may write at once."""
        self._engine = make_engine(parsed, most, settings.archive, options)
        self._writing = self._engine.execution_options(**WRITING) if self.path else self._engine
        # Every question of a session is answered from one state, as on SQLite.
        self._reading = self._engine if self.path else self._engine.execution_options(isolation_level="REPEATABLE READ")
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
            is_current = revision_of(connection, self.name) == CURRENT
        if not is_current:
            self._migrate()

    def _migrate(self) -> None:
        """Make the tables or bring them up to date, in one transaction that keeps other processes out."""
        with self._writing.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            if self.path:
                # A table that is made anew goes for a moment, with all that its rows are referred to by.
                driver.execute("PRAGMA foreign_keys = OFF")
            with connection.begin():
                if not self.path:
                    connection.execute(select(text(f"pg_advisory_xact_lock({_MIGRATION_LOCK})")))
                revision = revision_of(connection, self.name)
                if revision != CURRENT:
                    upgrade(connection, revision, self._partitions)
            if self.path:
                driver.execute("PRAGMA foreign_keys = ON")

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
        """A session that reads one state of the database; StorageError when it cannot be read now, or not in time."""
        deadline = DEADLINE.get()
        with self._translated():
            self._follow_file()
            with Session(self._reading, info={**self._read_info, GENERATION: self.generation}) as session:
                if deadline is None:
                    yield session
                    return
                driver: Any = session.connection().connection.dbapi_connection
                with deadline.bounding(driver.interrupt if self.path else driver.cancel):
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


def _is_conflict(error: Exception) -> bool:
    # psycopg's sqlstate: serialization_failure and deadlock_detected.
    return isinstance(error, (IntegrityError, StaleIdsError)) or (
        isinstance(error, OperationalError) and getattr(error.orig, "sqlstate", None) in {"40001", "40P01"}
    )


def _reason(error: Exception) -> str:
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    return (str(original).strip().splitlines() or [type(original).__name__])[0].rstrip(".")
