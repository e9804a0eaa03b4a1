"""One file of a journal: a header, then one record for each event.

``<id>.journal`` starts with the header ``{"journal": <format>, "id": …, "url": …, …}``; records ``[call, body]``
follow, numbered from 1 in the order of their lines. ``<id>.journal.ack`` holds how far the tracker has them:
number and byte offset. ``<id>.dead`` is a file of the same form for events that the tracker refused for good.

States of a file::

    new ──► owned ──► given up ──► adopted ──► removed
              │         (its process is gone,     ▲
              │          or has closed it)        │
              └───────────────────────────────────┘
                     every event is delivered

An event in it is accepted once its line is written; it is delivered once the ``.ack`` file points behind it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from dbnd._errors import DatabandError
from dbnd._json import decode
from dbnd._tracking import ownership, records
from dbnd._tracking.records import Record

FORMAT: Final = 1
JOURNAL: Final = ".journal"
DEAD: Final = ".dead"
# Bytes read at once when a file is adopted.
_CHUNK: Final = 1 << 20
# Longest header that is looked for, in bytes.
_MAX_HEADER: Final = 1 << 16


class JournalFormatError(DatabandError):
    """A file was written by a newer dbnd, or is no journal."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a file.

    Args:
        url: The tracker that the events are for, without credentials.
        id: Id of the file, 32 hex digits: the tracker knows events by it and their number.
        chain: Id of the first file of the same process and tracker.
        part: Place in that chain, from 0.
        created: When the chain was begun, in ns since the epoch.
        pid: Process that wrote it.
    """

    url: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    chain: str = ""
    part: int = 0
    created: int = field(default_factory=time.time_ns)
    pid: int = field(default_factory=os.getpid)

    def successor(self) -> Header:
        """The header of the next file of the chain."""
        return Header(self.url, chain=self.chain or self.id, part=self.part + 1, created=self.created)

    @property
    def order(self) -> tuple[int, str, int]:
        """By this files are delivered oldest first, and those of a chain one after the other."""
        return self.created, self.chain or self.id, self.part


class JournalFile:
    """An open file that this process owns; made by ``create`` and ``adopt``.

    Any number of threads may append; one reads and acknowledges.

    Attributes:
        path: Where it is.
        header: Its first line.
        header_size: Size of its first line in bytes.
        acknowledged: Number of the last event that is delivered.
    """

    def __init__(self, path: Path, fd: int, header: Header, *, fsync: bool = False) -> None:
        self.path: Final = path
        self.header: Final = header
        self.acknowledged = 0
        self.header_size = 0
        self._fd = fd
        self._fsync = fsync
        self._ack_fd: int | None = None
        self._read_offset = 0
        # A thread that is in the middle of an append may append once more: from a signal handler, or a finalizer.
        self._lock = threading.RLock()
        # Size in bytes and number of events, changed together; what may have been written since.
        self._state = (0, 0)
        self._pending: bytes | None = None

    @classmethod
    def create(cls, path: Path, header: Header, *, fsync: bool = False) -> JournalFile:
        """Make a file; it gets its name only once it is owned and has its header.

        Raises:
            OSError: It cannot be made.
        """
        unnamed = path.with_name(f"{path.name}.new")
        fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            ownership.own(fd, path)
            made = cls(path, fd, header, fsync=fsync)
            line = records.frame({"journal": FORMAT, **asdict(header)})
            made._write(line)
            made._begin(len(line))
            unnamed.rename(path)
        except BaseException:
            unnamed.unlink(missing_ok=True)
            os.close(fd)
            raise
        return made

    @classmethod
    def adopt(cls, path: Path) -> JournalFile | None:
        """Take over a file whose process is gone; None when it has an owner, or is no more.

        A torn last record is cut off.

        Raises:
            JournalFormatError: It was written by a newer dbnd, or has no header.
            OSError: It cannot be opened.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if not ownership.own(fd, path) or not path.exists():
                os.close(fd)
                return None
            header, start = _read_header(fd, path)
            made = cls(path, fd, header)
            made._recover(start)
        except BaseException:
            os.close(fd)
            ownership.disown(path)
            raise
        return made

    def _begin(self, header_size: int) -> None:
        self.header_size = self._read_offset = header_size
        self._state = (header_size, 0)

    def append(self, line: bytes) -> None:
        """Keep a record; when this returns, it survives the death of the process.

        Raises:
            OSError: It could not be written; nothing of it is left in the file.
        """
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
        return self._state[1] - self.acknowledged

    @property
    def unsent_bytes(self) -> int:
        """Size of the events that are not delivered."""
        return self._state[0] - self._read_offset

    def read(self, max_bytes: int) -> list[Record]:
        """The oldest events that are not delivered, about ``max_bytes`` of them.

        Damaged records are left out. When all that is left is damaged, it is acknowledged and the answer is empty.
        """
        while True:
            with self._lock:
                if self._pending is not None:
                    self._settle()
                available = self._state[0] - self._read_offset
            if not available:
                return []
            data = os.pread(self._fd, min(available, max_bytes), self._read_offset)
            end = data.rfind(b"\n") + 1
            if not end:  # one event larger than the limit
                data = os.pread(self._fd, available, self._read_offset)
                end = data.find(b"\n") + 1
            # Not splitlines(): a damaged line may hold a carriage return, and the lines behind it keep their numbers.
            lines = [line + b"\n" for line in data[: end - 1].split(b"\n")]
            found = records.parse(lines, self.acknowledged + 1, self._read_offset)
            if found:
                return found
            self.acknowledge(self.acknowledged + len(lines), self._read_offset + sum(map(len, lines)))

    def acknowledge(self, sequence: int, end: int) -> None:
        """Mark every event up to number ``sequence``, which ends at the offset ``end``, as delivered.

        On a full disk only this process knows that: after its death the events are sent again, and our tracker tells
        that it has them.
        """
        self.acknowledged, self._read_offset = sequence, end
        with contextlib.suppress(OSError):
            if self._ack_fd is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
                self._ack_fd = os.open(_ack_path(self.path), flags, 0o600)
            os.pwrite(self._ack_fd, b"%020d %020d\n" % (sequence, end), 0)

    def _recover(self, start: int) -> None:
        """Find number and size of the records, cut off a torn last one, and find how far they are delivered."""
        self._begin(start)
        size, number, rest = start, 0, b""
        offset = start
        last_line = b""
        while data := os.pread(self._fd, _CHUNK, offset):
            offset += len(data)
            *lines, rest = (rest + data).split(b"\n")
            size += sum(map(len, lines)) + len(lines)
            number += len(lines)
            last_line = lines[-1] + b"\n" if lines else last_line
        if number and records.content(last_line) is None:  # a file system may lose the middle of a last write
            size, number = size - len(last_line), number - 1
        if os.fstat(self._fd).st_size > size:
            os.ftruncate(self._fd, size)
        self._state = (size, number)
        self.acknowledged, self._read_offset = _read_ack(self.path, (0, start), self._state)

    def close(self) -> None:
        """Give the file up; it is removed when it holds nothing that is not delivered."""
        if not self.unsent:
            with contextlib.suppress(OSError):  # what stays is known to be delivered
                self.path.unlink(missing_ok=True)
                _ack_path(self.path).unlink(missing_ok=True)
        self.abandon()
        ownership.disown(self.path)

    def abandon(self) -> None:
        """Close the file and touch nothing, as a forked child does with its parent's."""
        os.close(self._fd)
        if self._ack_fd is not None:
            os.close(self._ack_fd)


def read_header(path: Path) -> Header:
    """The header of a file that this process does not own.

    Raises:
        JournalFormatError: It was written by a newer dbnd, or has no header.
        OSError: It cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_header(fd, path)[0]
    finally:
        os.close(fd)


def unsent_of(path: Path) -> int:
    """Number of events in a file that are not delivered, as far as can be told from outside."""
    number = -1
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            number += data.count(b"\n")
    return max(0, number - _read_ack(path, (0, 0), (path.stat().st_size, max(0, number)))[0])


def _read_header(fd: int, path: Path) -> tuple[Header, int]:
    line, newline, _ = os.pread(fd, _MAX_HEADER, 0).partition(b"\n")
    found = records.content(line + newline)
    decoded = decode(found) if found is not None else None
    values: dict[str, Any] = decoded if isinstance(decoded, dict) else {}
    version = values.get("journal")
    if not isinstance(version, int) or "url" not in values or "id" not in values:
        msg = f"{path} is no journal, or its first line is damaged: look at it, and remove it if it is of no use."
        raise JournalFormatError(msg)
    if version > FORMAT:
        msg = (
            f"{path} has format {version}, and this dbnd reads formats up to {FORMAT}: "
            "update dbnd-core-lite to deliver it."
        )
        raise JournalFormatError(msg)
    known = {name: values[name] for name in Header.__dataclass_fields__ if name in values}
    return Header(**known), len(line) + 1


def _ack_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.ack")


def _read_ack(path: Path, start: tuple[int, int], end: tuple[int, int]) -> tuple[int, int]:
    """Number and offset of what is delivered; the start where that is not known, for the tracker knows what it has."""
    try:
        sequence, offset = map(int, _ack_path(path).read_bytes().split())
    except (OSError, ValueError):
        return start
    size, last = end
    return (sequence, offset) if 0 <= sequence <= last and start[1] <= offset <= size else start
