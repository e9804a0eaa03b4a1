"""Connections to an SQLite file that notice when it is not the file of its name any more."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from dbnd.tracking import monotonic
from dbnd_tracker._storage.sqlite.file import COPYING_S, SIDE_FILES, Identity, alone, identity, set_apart, settle
from dbnd_tracker._storage.sqlite.log import NUMBERS, Watch, wait_until_whole, watches

BUSY_TIMEOUT_MS: Final = 10_000
# Pages of 4 KiB after which SQLite moves its log into the file, which waits for the disk; four times its own number.
_CHECKPOINT: Final = 4_000
_CACHE_KIB: Final = 16_384


class FileConnection(sqlite3.Connection):
    """A connection to the file of a path (see ``sqlite3.connect``), set up for the tracker."""

    _files: tuple[Identity, ...] = ()
    _watch: Watch | None = None
    _number: int | None = None

    def __init__(self, database: str, *args: Any, **options: Any) -> None:
        self._path = database
        # Of a symbolic link, the side files are beside the file that it leads to.
        self._sides = [f"{os.path.realpath(database)}{ending}" for ending in SIDE_FILES]
        with alone(Path(database)):
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
        super().commit()
        if self._watch and self._number is not None:
            self._watch.number = self._number % NUMBERS
        self._number = None

    def rollback(self) -> None:
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
        with alone(Path(self._path)):  # another process may be closing the file that was there before
            return self._named() == self._files

    def close(self) -> None:
        """Close the connection, and leave those alone that have another file of that name open."""
        with alone(Path(self._path)):
            if self._watch and self._named() == self._files and not self._watch.is_intact():
                try:
                    wait_until_whole(self._path, COPYING_S)
                    set_apart(self._path)
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
