"""A replica of the database, which lags behind it and may be away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from dbnd import ConfigError
from dbnd.plugins import console
from dbnd_tracker._errors import StorageError
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.writer import DEADLINE

# Seconds that a replica is left alone after it could not be read, and those that a connection to it may take.
_PAUSE: Final = 5.0
_CONNECT: Final = 2


class Replica(Database):
    """A streaming replica of PostgreSQL, which is only read; nothing is made or migrated there.

    Raises:
        ConfigError: The URL cannot be used.
    """

    def __init__(self, url: str, settings: TrackerSettings) -> None:
        super().__init__(url, settings, connect_timeout=_CONNECT)
        if self.path:
            raise ConfigError(f"tracker.read_database = {self.name!r} is no replica of PostgreSQL: leave it unset.")
        self._warn = console.once_a_minute()
        self._away_until = 0.0
        self._position = 0

    @property
    def is_away(self) -> bool:
        """Whether it could not be read a moment ago."""
        return time.monotonic() < self._away_until

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session as of ``Database``; when it cannot be read, nobody tries again for a moment."""
        try:
            with super().read() as session:
                yield session
        except StorageError as error:
            deadline = DEADLINE.get()
            if deadline is not None and deadline.has_passed:  # it was stopped, and is there
                raise
            self._away_until = time.monotonic() + _PAUSE
            self._warn(f"The replica (tracker.read_database) is passed over for the database itself: {error}")
            raise

    def has(self, position: int) -> bool:
        """Whether it has what was written up to a position of the log (``written``)."""
        if self._position < position:
            with self.read() as session:
                found = session.scalar(text("SELECT pg_last_wal_replay_lsn() - '0/0'"))
            self._position = int(found or 0)
        return self._position >= position


def written(database: Database) -> int:
    """The position in the log of PostgreSQL up to which the database has been written."""
    with database.read() as session:
        return int(session.scalar(text("SELECT pg_current_wal_insert_lsn() - '0/0'")) or 0)
