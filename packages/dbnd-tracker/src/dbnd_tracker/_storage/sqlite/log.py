"""Notices that something else was written over an SQLite file in place, to which its log (``-wal``) does not belong.

SQLite itself notices nothing: it reads pages of the one and of the other, and moves the old log into the new content.

Each transaction of ours adds one to the number of the file, ``PRAGMA application_id``. It stands in the file's first
page and thereby in the log of the transaction. A checkpoint moves pages from the log into the file, and the index of
the log (``-shm``) tells up to where. So the log says which number the file must have: that before the log when nothing
has been moved, the last one when all has, and one between them while somebody reads an older state.

The formats are those of https://sqlite.org/fileformat2.html and https://sqlite.org/walformat.html. All is read without
SQLite, and only when the time or the size of the file has changed.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dbnd.tracking import monotonic

NUMBERS: Final = 1 << 32
"""How many numbers there are; 0 follows the last one."""
_NUMBER_AT: Final = 68
_LOG_HEADER: Final = 32
_FRAME_HEADER: Final = 24
# Of the log's index: size of a page, frames in the log, frames that are in the file, frames that may be in the file.
_INDEX: Final = struct.Struct("=14x H I 76x I 28x I")
# So many transactions of others may go by unseen before a log that says nothing of the file.
_UNSEEN: Final = 1 << 20
# A checkpoint may come between two reads of ours.
_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.02
# A program that copies writes more often than this.
_STILL_S: Final = 0.1

watches: Final[dict[tuple[int, int], Watch]] = {}
"""Those of this process, by the device and the number of the file."""


class Watch:
    """What the connections of this process to one open file know of it; ``sides`` are its log and the index of that.

    Its descriptors stay open as long as there is one of them: closing any would take from this process the locks that
    SQLite holds on the file.
    """

    def __init__(self, path: str, sides: list[str], number: int) -> None:
        self.number = number % NUMBERS
        """That of the last transaction of this process."""
        self.users = 0
        self._log = sides[0]
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._index = os.open(sides[1], os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._file)
            raise
        self._state: tuple[int, int] | None = None
        self._seen: int | None = None

    def leave(self) -> None:
        """Let a connection, which is closed, have nothing to do with the file any more."""
        self.users -= 1
        if not self.users:
            for key in [key for key, watch in watches.items() if watch is self]:
                del watches[key]
            os.close(self._file)
            os.close(self._index)

    def is_intact(self) -> bool:
        """Whether the file has only been written by SQLite."""
        if self._now() == self._state:
            return True
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE_S)
            state = self._now()
            if self._fits():
                self._state = state
                return True
        return False

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._file)
        return found.st_mtime_ns, found.st_size

    def _fits(self) -> bool:
        """Whether the file has a number that it may have by its log."""
        size, last, moved, begun = _INDEX.unpack(os.pread(self._index, _INDEX.size, 0))
        page = os.pread(self._file, 4, _NUMBER_AT)
        if len(page) < 4:
            return False
        number = int.from_bytes(page, "big")
        low, high = self.number, self.number + _UNSEEN
        with contextlib.suppress(OSError), open(self._log, "rb", buffering=0) as log:  # noqa: PTH123
            first = _number(log.fileno(), size, range(1, last + 1))
            if first is not None:
                reached = _number(log.fileno(), size, range(max(moved, begun), 0, -1))
                # The first transaction of the log with the first page may also be one of another program.
                low, high = first - 1, first if reached is None else reached
                if moved == last:
                    low = high
                elif self._seen is not None and _is_between(low, self._seen, high):
                    low = self._seen
        if not _is_between(low, number, high):
            return False
        self._seen = number
        return True


def _is_between(low: int, number: int, high: int) -> bool:
    return (number - low) % NUMBERS <= (high - low) % NUMBERS


def _number(log: int, page_size: int, frames: Iterable[int]) -> int | None:
    """The number in the first one of these frames of a log that holds the first page."""
    for frame in frames:
        start = _LOG_HEADER + (frame - 1) * (_FRAME_HEADER + _page_size(page_size))
        if os.pread(log, 4, start) == b"\0\0\0\1":
            return int.from_bytes(os.pread(log, 4, start + _FRAME_HEADER + _NUMBER_AT), "big")
    return None


def _page_size(stored: int) -> int:
    """The size of a page, as both formats have it in two bytes."""
    return 65536 if stored == 1 else stored


def wait_until_whole(path: str | Path, seconds: float) -> bool:
    """Wait until nobody writes to an SQLite file past SQLite, as a copying program does; whether that is so in time."""
    deadline = monotonic() + seconds
    before = None
    while True:
        with open(path, "rb") as file:  # noqa: PTH123
            header = file.read(100)
            found = os.fstat(file.fileno())
        size, pages = _page_size(int.from_bytes(header[16:18], "big")), int.from_bytes(header[28:32], "big")
        is_whole = not header.startswith(b"SQLite format 3\0") or found.st_size >= pages * size
        if is_whole and (found.st_mtime_ns, found.st_size) == before:
            return True
        if monotonic() > deadline:
            return False
        before = found.st_mtime_ns, found.st_size
        time.sleep(_STILL_S)
