"""The tracker without a server: batches go straight into the database, in the sender's thread."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dbnd import ConfigError
from dbnd.tracking import BusyError, RefusedError, TooLargeError, TransportError, UnreachableError
from dbnd_tracker._errors import LockedError, PayloadError, StorageError, TooMuchError
from dbnd_tracker._ingest import apply_batch, apply_call, apply_raw

# Imported here and not in `send`: the thread that makes the client imports, the sender's thread only works.
from dbnd_tracker._storage.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dbnd.tracking import Batch
    from dbnd_tracker._settings import TrackerSettings


# Calls without which nobody finds what is logged, and how many of them are remembered.
_ANNOUNCING: Final = frozenset({"init_run", "add_task_runs"})
_ANNOUNCEMENTS: Final = 100
# What errors of the tracker mean to the sender, the closest class first. A database of another version keeps events
# waiting like one that is down: they stay in the journal.
_MEANINGS: Final[tuple[tuple[type[Exception], type[TransportError]], ...]] = (
    (TooMuchError, TooLargeError),
    (PayloadError, RefusedError),
    (LockedError, BusyError),
    (Exception, UnreachableError),
)
# The longest time that a fork waits for a batch to be applied, in seconds.
_FORK_WAIT: Final = 5.0


class EmbeddedTransport:
    """Applies batches to a database; it is opened, and created where it is missing, by the first batch.

    The database that ``settings`` name is not looked at.

    Raises:
        ConfigError: The URL cannot be used, or the driver of PostgreSQL is not installed.
    """

    def __init__(self, url: str, settings: TrackerSettings | None = None) -> None:
        self._database = Database(url, settings)
        self.working = threading.Lock()
        """Held while the database is at work."""
        # What announces the runs of this process, to be said again in a file that has taken the place of another one.
        self._generation = 0
        self._announcements: deque[tuple[str, bytes]] = deque(maxlen=_ANNOUNCEMENTS)
        _transports.add(self)
        self.deadline: float | None = None  # a database has its own time-outs

    def send(self, batch: Batch) -> Mapping[str, int]:
        with self.working, _as_transport_errors():
            self._database.open()
            dropped = apply_batch(self._database, batch).dropped
            if self._database.generation != self._generation:
                for call, body in self._announcements:
                    apply_raw(self._database, call, body)
                self._generation = self._database.generation
            if batch.call in _ANNOUNCING:
                self._announcements.append((batch.call, batch.wire_text().encode()))
            return dropped

    def heartbeat(self, run_uid: str) -> str | None:
        with self.working, _as_transport_errors():
            self._database.open()
            state = apply_call(self._database, "heartbeat", {"run_uid": run_uid}).answer
        return state if isinstance(state, str) else None

    def check(self) -> None:
        with self.working, _as_transport_errors():
            self._database.open()

    def close(self) -> None:
        self._database.close()


@contextmanager
def _as_transport_errors() -> Iterator[None]:
    try:
        yield
    except (PayloadError, StorageError, ConfigError) as error:
        text = str(error).removesuffix(".")
        meaning = next(meaning for kind, meaning in _MEANINGS if isinstance(error, kind))
        raise meaning(f"{text[:1].lower()}{text[1:]}") from error


_transports: Final[weakref.WeakSet[EmbeddedTransport]] = weakref.WeakSet()
_kept_still: Final = threading.local()


def _before_fork() -> None:
    """Let no thread be in the middle of a transaction.

    SQLite notes in the process' memory which files it has locked, and a child inherits the note without the lock: it
    would find the database locked for ever.
    """
    _kept_still.locks = [each.working for each in list(_transports) if each.working.acquire(timeout=_FORK_WAIT)]


def _after_fork() -> None:
    for lock in _kept_still.locks:
        lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
