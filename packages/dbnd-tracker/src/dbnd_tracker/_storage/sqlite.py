"""An SQLite file: its making, its copying, and connections that notice when it is not the file of its name any more.

A file may be deleted, renamed or replaced while it is open: SQLite goes on with what it has open, and nobody finds what
is written. Its log (``-wal``) and its index (``-shm``) are found by name, so that those of the old file must be gone
before the new one is opened, and those of the new one must stay when the old one is closed. SQLite itself sees to
neither. What is written over a file in place (see ``log``) is given a file of its own under the name, which makes it a
replaced file like any other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dbnd.tracking import monotonic
from dbnd_tracker._errors import StorageError
from dbnd_tracker._storage.log import NUMBERS, Watch, wait_until_whole, watches

if TYPE_CHECKING:
    from collections.abc import Iterator

    Identity = tuple[int, int] | None

BUSY_TIMEOUT_MS: Final = 10_000
# Pages of 4 KiB after which SQLite moves its log into the file, which waits for the disk; four times its own number.
_CHECKPOINT: Final = 4_000
_CACHE_KIB: Final = 16_384
_SIDE_FILES: Final = ("-wal", "-shm")
# Seconds that one waits for a copy that is being made over the file.
_COPYING_S: Final = 2.0


def identity(path: str | Path) -> Identity:
    """Which file has this name now, or None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  each transaction asks, and this is the quickest way
    except OSError:
        return None
    return found.st_dev, found.st_ino


def settle(path: str | Path) -> Identity:
    """Which file has this name now; what was written over one in place has then been given a file of its own.

    Raises:
        OSError: Another program is writing over it, or there is no room.
    """
    found = identity(path)
    if found is None or _is_intact(found):
        return found
    with _alone(Path(path)):
        if identity(path) == found and not _is_intact(found):
            if not wait_until_whole(path, _COPYING_S):
                msg = "another program is writing over it, or has written only a part"
                raise OSError(msg)
            _set_apart(path)
    return identity(path)


def _is_intact(file: tuple[int, int]) -> bool:
    watch = watches.get(file)
    return watch is None or watch.is_intact()


def _set_apart(path: str | Path) -> None:
    """Give what was written over a file a file of its own, without the log and without those who have it open."""
    file = os.path.realpath(path)
    copy = f"{file}.{os.getpid()}"
    try:
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        shutil.copyfile(file, copy)
        shutil.copymode(file, copy)
        for ending in _SIDE_FILES:
            Path(f"{file}{ending}").unlink(missing_ok=True)
        os.replace(copy, file)  # noqa: PTH105
    finally:
        Path(copy).unlink(missing_ok=True)


def make_file(path: Path) -> None:
    """Make an empty file, its owner's alone, unless there is one; SQLite gives its side files the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(path):
        if not path.exists():
            for ending in _SIDE_FILES:  # of a file that is gone
                Path(f"{os.path.realpath(path)}{ending}").unlink(missing_ok=True)
            path.touch(mode=0o600)


class FileConnection(sqlite3.Connection):
    """A connection to the file of a path (see ``sqlite3.connect``), set up for the tracker."""

    _files: tuple[Identity, ...] = ()
    _watch: Watch | None = None
    _number: int | None = None

    def __init__(self, database: str, *args: Any, **options: Any) -> None:
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
        is_logged = self._use_write_ahead_log()
        self.execute("PRAGMA synchronous = NORMAL")
        self.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        self.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if (number := self._numbered()) and is_logged:
            file = identity(self._path)
            if file is not None:
                self._watch = watches.get(file) or watches.setdefault(file, Watch(self._path, self._sides, number))
                self._watch.users += 1

    def _numbered(self) -> int:
        """The number of the file, which gets a random one to begin with; 0 when it cannot have one now."""
        number = self._read_number()  # opens the side files
        if not number:
            with contextlib.suppress(sqlite3.OperationalError):  # locked, or not to be written
                if self._empty_log():
                    self.execute(f"PRAGMA application_id = {random.randrange(1, 1 << 31)}")  # noqa: S311
                    if not self._empty_log():
                        self.execute("PRAGMA application_id = 0")
            number = self._read_number()
        return number

    def _read_number(self) -> int:
        return int(self.execute("PRAGMA application_id").fetchone()[0])

    def _empty_log(self) -> bool:
        return not self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]

    def advance(self) -> None:
        """Add one to the number of the file, in a transaction that has begun and may write."""
        if number := self._read_number():
            self._number = (number + 1 + NUMBERS // 2) % NUMBERS - NUMBERS // 2 or 1  # 32 bits with a sign
            self.execute(f"PRAGMA application_id = {self._number}")

    def commit(self) -> None:
        """Commit (see ``sqlite3``)."""
        super().commit()
        if self._watch and self._number is not None:
            self._watch.number = self._number % NUMBERS
        self._number = None

    def rollback(self) -> None:
        """Roll back (see ``sqlite3``)."""
        self._number = None
        super().rollback()

    def _use_write_ahead_log(self) -> bool:
        """Let readers and the writer work side by side; False where the file system cannot do it.

        The old mode serves then. The busy time-out does not hold for this change of a file.
        """
        deadline = monotonic() + BUSY_TIMEOUT_MS / 1000
        while self.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                return bool(self.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or monotonic() > deadline:
                    raise
                time.sleep(0.02)
        return True

    def _named(self) -> tuple[Identity, ...]:
        """Which files have the names of the file and its side files now."""
        return (identity(self._path), *map(identity, self._sides))

    def is_current(self) -> bool:
        """Whether what this connection has open are still the files of these names, and nothing was written over them.

        Raises:
            OSError: Something is being written over the file.
        """
        settle(self._path)
        if self._named() == self._files:
            return True
        with _alone(Path(self._path)):  # another process may be closing the file that was there before
            return self._named() == self._files

    def close(self) -> None:
        """Close the connection, and leave those alone that have another file of that name open."""
        with _alone(Path(self._path)):
            if self._watch and self._named() == self._files and not self._watch.is_intact():
                try:
                    wait_until_whole(self._path, _COPYING_S)
                    _set_apart(self._path)
                except OSError:  # no room for a copy: without its content, the log at least does no harm
                    with contextlib.suppress(OSError):
                        os.truncate(self._sides[0], 0)
            self._close()

    def _close(self) -> None:
        file, *sides = self._named()
        if not self._files or (file, *sides) == self._files:
            self._shut()
            return
        is_same = file == self._files[0]
        if not is_same:
            with contextlib.suppress(sqlite3.Error):  # a file that was renamed takes along what its log has
                self._empty_log()
        hidden: list[str] = []
        for name, found, mine in zip(self._sides, sides, self._files[1:], strict=True):
            if found is not None and found != mine:
                hidden.append(name)
            elif found is not None and not is_same:  # the new file must not be read with the log of the old one
                os.unlink(name)  # noqa: PTH108
        for name in hidden:
            os.rename(name, f"{name}.{os.getpid()}")  # noqa: PTH104
        try:
            self._shut()
        finally:
            for name in hidden:
                os.rename(f"{name}.{os.getpid()}", name)  # noqa: PTH104

    def _shut(self) -> None:
        super().close()
        if self._watch:
            self._watch.leave()
            self._watch = None


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


def back_up(source: Path, target: Path) -> None:
    """Copy an SQLite database as it is at one moment; ``target`` is there only when it is whole.

    Args:
        source: The database; it may be in use.
        target: A file that does not exist yet. Only its owner may read it.

    Raises:
        StorageError: The copy cannot be made.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.touch(mode=0o600)
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as original,
            contextlib.closing(sqlite3.connect(partial)) as copy,
        ):
            original.backup(copy)
            copy.execute("PRAGMA application_id = 0")  # a database of its own, for those that have the original open
            copy.commit()
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole by itself
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.link(partial, target)  # unlike a rename, it never replaces a file
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        msg = f"The database {source} cannot be copied to {target}: {reason}."
        raise StorageError(msg) from None
    finally:
        partial.unlink(missing_ok=True)
