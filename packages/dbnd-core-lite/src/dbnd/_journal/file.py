"""One file of a journal: a header, then one record for each event.

``<id>.journal`` starts with the header ``{"journal": <format>, "id": …, "url": …, …}``; records ``[call, body]``
follow, numbered from 1 in the order of their lines. ``<id>.journal.ack`` holds how far the tracker has them:
number, byte offset and their checksum. ``<id>.dead`` and ``<id>.damaged`` are what is kept aside (see
``dead_letters``).

States of a file::

    new ──► owned ──► given up ──► adopted ──► removed
              │         (its process is gone,     ▲
              │          or has closed it)        │
              └───────────────────────────────────┘
                     every event is delivered

A file whose header says ``relay`` is delivered while it is owned, by another process (see ``followed``), which removes
it once it is given up. An event is accepted once its line is written; it is delivered once the ``.ack`` file points
behind it.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from dbnd._base.paths import open_file
from dbnd._journal import heartbeat, ownership, records
from dbnd._journal.header import Header, header_of
from dbnd._journal.records import Record

JOURNAL: Final = ".journal"
DEAD: Final = ".dead"
DAMAGED: Final = ".damaged"
# Bytes read at once when a file is adopted.
_CHUNK: Final = 1 << 20
# By file: its size, how much of it is delivered, and how many events are not.
Known = dict[Path, tuple[int, int, int]]


class JournalFile:
    """An open file that this process owns; made by ``create`` and ``adopt``.

    Any number of threads may append; one reads and acknowledges.
    """

    def __init__(self, path: Path, fd: int, header: Header, header_size: int, *, fsync: bool = False) -> None:
        self.path: Final = path
        self.header: Final = header
        self.header_size: Final = header_size
        self.acknowledged = 0
        self._fd = fd
        self._fsync = fsync
        self._ack_fd: int | None = None
        self._read_offset = header_size
        # A thread that is in the middle of an append may append once more: from a signal handler, or a finalizer.
        self._lock = threading.RLock()
        # Size in bytes and number of events, changed together; what may have been written since.
        self._state = (header_size, 0)
        self._pending: bytes | None = None

    @classmethod
    def create(cls, path: Path, header: Header, *, fsync: bool = False) -> JournalFile:
        """Make a file; it gets its name only once it is owned and has its header."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may have been removed meanwhile
        unnamed, line = path.with_name(f"{path.name}.new"), header.line()
        fd = open_file(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        try:
            ownership.own(fd, path)
            made = cls(path, fd, header, len(line), fsync=fsync)
            made._write(line)
            unnamed.rename(path)
        except BaseException:
            unnamed.unlink(missing_ok=True)
            os.close(fd)
            raise
        return made

    @classmethod
    def adopt(cls, path: Path) -> JournalFile | None:
        """Take over a file whose process is gone; None when it has an owner, or is no more.

        Raises:
            JournalFormatError: It was written by a newer dbnd, or has no header.
        """
        try:
            fd = open_file(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            header, header_size = header_of(fd, path)
            if is_of_other_host(header) and heartbeat.is_fresh(path):
                os.close(fd)
                return None
            if not ownership.own(fd, path, others_are_gone=is_of_other_host(header)) or not path.exists():
                os.close(fd)
                return None
            made = cls(path, fd, header, header_size)
            made._recover()
        except BaseException:
            os.close(fd)
            ownership.disown(path)
            raise
        return made

    def append(self, line: bytes) -> None:
        """Keep a record, which then survives the death of the process; of one that raises OSError nothing is left."""
        size = len(line)
        with self._lock:
            if self._pending is not None:
                self._settle()
            self._pending = line
            self._write(line)
            before = self._state
            # A signal handler that has appended in the meantime may have counted this line along with its own.
            if self._pending is line or os.fstat(self._fd).st_size == before[0] + size:
                self._state = (before[0] + size, before[1] + 1)
                self._pending = None

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
            if self._fsync:
                os.fsync(self._fd)
        except OSError:
            self._settle()
            raise
        if written != len(line):
            self._settle()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _settle(self) -> None:
        """Bring size and number in line with the file, after a write that has failed or was interrupted."""
        pending, (size, last) = self._pending, self._state
        now = os.fstat(self._fd).st_size
        if pending is not None and now == size + len(pending):
            self._state = (now, last + 1)
        elif now > size:
            os.ftruncate(self._fd, size)
        self._pending = None

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self._state[0]

    @property
    def last(self) -> int:
        """Number of the last event."""
        return self._state[1]

    @property
    def unsent(self) -> int:
        """Number of events that are not delivered."""
        size, last = self._state
        # Numbers count lines, and a damaged file may have more or fewer of them than events were written.
        return max(last - self.acknowledged, 1 if self._read_offset < size else 0)

    @property
    def unsent_bytes(self) -> int:
        """Size of the events that are not delivered."""
        return max(0, self.size - self._read_offset)

    def read(self, max_bytes: int, *, merged: bool = False) -> list[Record]:
        """The oldest events that are not delivered, about ``max_bytes`` of them (see ``records.parse``)."""
        with self._lock:
            if self._pending is not None:
                self._settle()
            last, size, start = self.last, self._grown(), self._read_offset
            self._state = (size, last)  # somebody else may have changed the file
        gone = last - self.acknowledged
        if size <= start:
            found = os.pread(self._fd, size, 0) if size < start else b""
            return [records.damaged(last, size, found, gone)] if gone > 0 else []
        data = os.pread(self._fd, min(size - start, max_bytes), start)
        end = data.rfind(b"\n") + 1
        if not end:  # one event larger than the limit
            data = os.pread(self._fd, size - start, start)
            end = data.find(b"\n") + 1
        if not end:
            return [records.damaged(max(last, self.acknowledged + 1), size, data, max(1, gone))]
        # Not splitlines(): a damaged line may hold a carriage return, and the lines behind it keep their numbers.
        lines = [line + b"\n" for line in data[: end - 1].split(b"\n")]
        return records.parse(lines, self.acknowledged + 1, start, merged=merged)

    def _grown(self) -> int:
        return os.fstat(self._fd).st_size

    def waiting(self) -> Iterator[Record]:
        """The events that are not delivered; of those that are being delivered meanwhile, some or none."""
        number, offset, size, rest = self.acknowledged, self._read_offset, self.size, b""
        while data := os.pread(self._fd, min(_CHUNK, size - offset - len(rest)), offset + len(rest)):
            whole, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                yield from records.parse(lines := [line + b"\n" for line in whole.split(b"\n")], number + 1, offset)
                number, offset = number + len(lines), offset + len(whole) + 1

    def acknowledge(self, sequence: int, end: int) -> None:
        """Mark every event up to number ``sequence``, which ends at the offset ``end``, as delivered.

        On a full disk only this process knows that: after its death the events are sent again, and our tracker tells
        that it has them.
        """
        self.acknowledged, self._read_offset = sequence, end
        with suppress(OSError):
            if self._ack_fd is None:
                self._ack_fd = open_file(ack_of(self.path), os.O_WRONLY | os.O_CREAT)
            text = b"%020d %020d" % (sequence, end)
            os.pwrite(self._ack_fd, b"%b %08x\n" % (text, zlib.crc32(text)), 0)

    def _recover(self) -> None:
        """Find number and size of the records, cut off a torn last one, and find how far they are delivered.

        A torn record has no line break: its log call has not returned. Any other damage is named when it is read.
        """
        rest = self._measure(*read_ack(self.path, (0, self.header_size), os.fstat(self._fd).st_size))
        if not rest:
            return
        size, number = self._state
        os.ftruncate(self._fd, size)
        if records.content(rest[:-1] + b"\n") is not None:  # whole, but for the line break that is damaged
            os.write(self._fd, rest[:-1] + b"\n")
            self._state = (size + len(rest), number + 1)

    def _measure(self, acknowledged: int, offset: int) -> bytes:
        """Find number and size of the whole records behind what is delivered; returns what stands behind them."""
        self.acknowledged, self._read_offset = acknowledged, offset
        number, offset, rest = self.acknowledged, self._read_offset, b""
        while data := os.pread(self._fd, _CHUNK, offset):
            offset += len(data)
            number += data.count(b"\n")
            line, newline, tail = data.rpartition(b"\n")
            rest = tail if newline else rest + line + tail
        self._state = (offset - len(rest), number)
        return rest

    def touch(self) -> None:
        """Give other machines a sign of life, and write the file anew where one has taken us to be gone."""
        if os.fstat(self._fd).st_nlink:
            os.utime(self._fd)
        elif self.header.relay:
            self.restore()

    def restore(self) -> None:
        """Write the file anew if it has been removed, or another one put in its place."""
        with suppress(OSError):
            if os.path.samestat(self.path.stat(), os.fstat(self._fd)):
                return
        unnamed = self.path.with_name(f"{self.path.name}.new")
        with self._lock:
            if self._pending is not None:
                self._settle()
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = open_file(unnamed, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            try:
                offset = 0
                while data := os.pread(self._fd, _CHUNK, offset):
                    offset += os.write(fd, data)
                ownership.own(fd, self.path)
                unnamed.rename(self.path)
                # The reader may be in the middle of a read: it goes on with the same number, and finds the same bytes.
                os.dup2(fd, self._fd, inheritable=False)
            except BaseException:
                unnamed.unlink(missing_ok=True)
                raise
            finally:
                os.close(fd)
            if self._ack_fd is not None:
                os.close(self._ack_fd)
                self._ack_fd = None
                self.acknowledge(self.acknowledged, self._read_offset)

    def close(self) -> None:
        """Give the file up; it is removed when it holds nothing that is not delivered."""
        heartbeat.end(self)
        if not self.unsent:
            with suppress(OSError):  # what stays is known to be delivered
                remove(self.path)
        elif self.header.beats:
            heartbeat.give_up(self._fd)
        self.abandon()
        ownership.disown(self.path)

    def abandon(self) -> None:
        """Close the file and touch nothing, as a forked child does with its parent's."""
        os.close(self._fd)
        if self._ack_fd is not None:
            os.close(self._ack_fd)


def remove(path: Path) -> None:
    """Remove a file, with what is noted of its delivery."""
    path.unlink(missing_ok=True)
    ack_of(path).unlink(missing_ok=True)


def unsent_of(path: Path, known: Known | None = None) -> int:
    """Number of events in a file that are not delivered, as far as can be told from outside.

    ``known`` keeps the answer for who asks again while nothing has changed.
    """
    size = path.stat().st_size
    _, offset = read_ack(path, (0, 0), size)
    if known is not None and path in known and known[path][:2] == (size, offset):
        return known[path][2]
    number = 0 if offset else -1  # the header is no event
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        file.seek(offset)
        while data := file.read(_CHUNK):
            number += data.count(b"\n")
    if known is not None:
        known[path] = size, offset, max(0, number)
    return max(0, number)


def ack_of(path: Path) -> Path:
    """The file that holds how far the tracker has the events of a file."""
    return path.with_name(f"{path.name}.ack")


def is_of_other_host(header: Header) -> bool:
    """Whether its heartbeat tells if the process that writes it lives, and not a lock."""
    return header.beats and header.host != socket.gethostname()


def delivered_of(path: Path) -> int | None:
    """Number of the last event in a file that is known to be delivered; None when the file is gone."""
    try:
        return read_ack(path, (0, 0), path.stat().st_size)[0]
    except FileNotFoundError:
        return None


def read_ack(path: Path, start: tuple[int, int], size: float) -> tuple[int, int]:
    """Number and offset of what is delivered; the start where that is not known, for the tracker knows what it has."""
    try:
        with os.fdopen(open_file(ack_of(path), os.O_RDONLY), "rb") as file:
            position, _, checksum = file.read(100).rstrip().rpartition(b" ")
        sequence, offset = map(int, position.split())
        is_believed = int(checksum, 16) == zlib.crc32(position) and sequence >= 0 and start[1] <= offset <= size
    except (OSError, ValueError):
        return start
    return (sequence, offset) if is_believed else start
