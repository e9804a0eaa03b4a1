"""Connections to an SQLite file that notice when it is not the file of that name any more.

A file may be deleted, renamed or replaced while it is open: SQLite goes on with what it has open, and nobody finds what
is written. Its log (``-wal``) and its index (``-shm``) are found by name, so that those of the old file must be gone
before the new one is opened, and those of the new one must stay when the old one is closed. SQLite itself sees to
neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    Identity = tuple[int, int] | None

BUSY_TIMEOUT_MS: Final = 10_000
# Pages of 4 KiB after which SQLite moves its log into the file, which waits for the disk; four times its own number.
_CHECKPOINT: Final = 4_000
_CACHE_KIB: Final = 16_384
_SIDE_FILES: Final = ("-wal", "-shm")


def identity(path: str | Path) -> Identity:
    """Which file has this name now, or None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  each transaction asks, and this is the quickest way
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_file(path: Path) -> None:
    """Make an empty file, its owner's alone, unless there is one; SQLite gives its side files the same mode.

    Raises:
        OSError: It cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(path):
        if not path.exists():
            for ending in _SIDE_FILES:  # of a file that is gone
                Path(f"{os.path.realpath(path)}{ending}").unlink(missing_ok=True)
            path.touch(mode=0o600)


class FileConnection(sqlite3.Connection):
    """A connection to the file of a path (see ``sqlite3.connect``), set up for the tracker."""

    _files: tuple[Identity, ...] = ()

    def __init__(self, database: str, *args: Any, **options: Any) -> None:  # noqa: ANN401  sqlite3's own
        self._path = database
        # Of a symbolic link, the side files are beside the file that it leads to.
        self._sides = [f"{os.path.realpath(database)}{ending}" for ending in _SIDE_FILES]
        with _alone(Path(database)):
            super().__init__(database, *args, **options)
            self._set_up()
            self._files = self._named()

    def _set_up(self) -> None:
        self.isolation_level = None  # transactions begin where the engine says
        self.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        self.execute("PRAGMA foreign_keys = ON")
        self._use_write_ahead_log()
        self.execute("PRAGMA synchronous = NORMAL")
        self.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        self.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens the side files

    def _use_write_ahead_log(self) -> None:
        """Let readers and the writer work side by side; the busy time-out does not hold for this change of a file."""
        deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
        while self.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                self.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return  # or the file system cannot do it, and the old mode serves

    def _named(self) -> tuple[Identity, ...]:
        """Which files have the names of the file and its side files now."""
        return (identity(self._path), *map(identity, self._sides))

    def is_current(self) -> bool:
        """Whether what this connection has open are still the files of these names."""
        if self._named() == self._files:
            return True
        with _alone(Path(self._path)):  # another process may be closing the file that was there before
            return self._named() == self._files

    def close(self) -> None:
        """Close the connection, and leave those alone that have another file of that name open."""
        with _alone(Path(self._path)):
            file, *sides = self._named()
            if not self._files or (file, *sides) == self._files:
                super().close()
                return
            is_same = file == self._files[0]
            if not is_same:
                with contextlib.suppress(sqlite3.Error):  # a file that was renamed takes along what its log has
                    self.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            hidden: list[str] = []
            for name, found, mine in zip(self._sides, sides, self._files[1:], strict=True):
                if found is not None and found != mine:
                    hidden.append(name)
                elif found is not None and not is_same:  # the new file must not be read with the log of the old one
                    os.unlink(name)  # noqa: PTH108
            for name in hidden:
                os.rename(name, f"{name}.{os.getpid()}")  # noqa: PTH104
            try:
                super().close()
            finally:
                for name in hidden:
                    os.rename(f"{name}.{os.getpid()}", name)  # noqa: PTH104


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let no other process open or close a file of this folder meanwhile; without a folder nobody does."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)  # also where a child of this process has the folder open, too
        os.close(folder)
