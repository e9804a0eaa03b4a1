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

An event in it is accepted once its line is written; it is delivered once the ``.ack`` file points behind it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from dbnd._base.errors import DatabandError
from dbnd._base.names import new_uid
from dbnd._journal import ownership, records
from dbnd._journal.opening import open_file
from dbnd._journal.records import Record
from dbnd._model.encoding import decode

FORMAT: Final = 1
JOURNAL: Final = ".journal"
DEAD: Final = ".dead"
DAMAGED: Final = ".damaged"
# Bytes read at once when a file is adopted.
_CHUNK: Final = 1 << 20
# Longest header that is looked for, in bytes.
_MAX_HEADER: Final = 1 << 16
# Longest content of an `.ack` file, in bytes.
_LONGEST_ACK: Final = 100


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
        host: Where that ran.
    """

    url: str
    id: str = field(default_factory=lambda: new_uid().hex)
    chain: str = ""
    part: int = 0
    created: int = field(default_factory=time.time_ns)
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

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
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may have been removed meanwhile
        unnamed = path.with_name(f"{path.name}.new")
        fd = open_file(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
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
            fd = open_file(path, os.O_RDWR | os.O_APPEND)
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
        size, last = self._state
        # Numbers count lines, and a damaged file may have more or fewer of them than events were written.
        return max(last - self.acknowledged, 1 if self._read_offset < size else 0)

    @property
    def unsent_bytes(self) -> int:
        """Size of the events that are not delivered."""
        return max(0, self._state[0] - self._read_offset)

    def read(self, max_bytes: int) -> list[Record]:
        """The oldest events that are not delivered, about ``max_bytes`` of them; damaged ones have a trouble."""
        with self._lock:
            if self._pending is not None:
                self._settle()
            last, size, start = self._state[1], os.fstat(self._fd).st_size, self._read_offset
            self._state = (size, last)  # somebody else may have changed the file
        if size <= start:
            gone = last - self.acknowledged
            found = os.pread(self._fd, size, 0) if size < start else b""
            return [records.damaged(last, size, found, gone)] if gone > 0 else []
        data = os.pread(self._fd, min(size - start, max_bytes), start)
        end = data.rfind(b"\n") + 1
        if not end:  # one event larger than the limit
            data = os.pread(self._fd, size - start, start)
            end = data.find(b"\n") + 1
        if not end:
            return [records.damaged(max(last, self.acknowledged + 1), size, data, max(1, last - self.acknowledged))]
        # Not splitlines(): a damaged line may hold a carriage return, and the lines behind it keep their numbers.
        lines = [line + b"\n" for line in data[: end - 1].split(b"\n")]
        return records.parse(lines, self.acknowledged + 1, start)

    def acknowledge(self, sequence: int, end: int) -> None:
        """Mark every event up to number ``sequence``, which ends at the offset ``end``, as delivered.

        On a full disk only this process knows that: after its death the events are sent again, and our tracker tells
        that it has them.
        """
        self.acknowledged, self._read_offset = sequence, end
        with contextlib.suppress(OSError):
            if self._ack_fd is None:
                self._ack_fd = open_file(_ack_path(self.path), os.O_WRONLY | os.O_CREAT)
            text = b"%020d %020d" % (sequence, end)
            os.pwrite(self._ack_fd, b"%b %08x\n" % (text, zlib.crc32(text)), 0)

    def _recover(self, start: int) -> None:
        """Find number and size of the records, cut off a torn last one, and find how far they are delivered.

        A torn record has no line break: its log call has not returned. Any other damage is named when it is read.
        """
        self._begin(start)
        self.acknowledged, self._read_offset = _read_ack(self.path, (0, start), os.fstat(self._fd).st_size)
        number, offset, rest = self.acknowledged, self._read_offset, b""
        while data := os.pread(self._fd, _CHUNK, offset):
            offset += len(data)
            number += data.count(b"\n")
            line, newline, tail = data.rpartition(b"\n")
            rest = tail if newline else rest + line + tail
        size = offset - len(rest)
        if rest:
            os.ftruncate(self._fd, size)
            if records.content(rest[:-1] + b"\n") is not None:  # whole, but for the line break that is damaged
                os.write(self._fd, rest[:-1] + b"\n")
                size, number = offset, number + 1
        self._state = (size, number)

    def restore(self) -> None:
        """Write the file anew if it has been removed, or another one put in its place.

        Raises:
            OSError: It could not be written.
        """
        if self._has_its_name():
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

    def _has_its_name(self) -> bool:
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except OSError:
            return False

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
    fd = open_file(path, os.O_RDONLY)
    try:
        return _read_header(fd, path)[0]
    finally:
        os.close(fd)


def unsent_of(path: Path) -> int:
    """Number of events in a file that are not delivered, as far as can be told from outside."""
    _, offset = _read_ack(path, (0, 0), path.stat().st_size)
    number = 0 if offset else -1  # the header is no event
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        file.seek(offset)
        while data := file.read(_CHUNK):
            number += data.count(b"\n")
    return max(0, number)


def _read_header(fd: int, path: Path) -> tuple[Header, int]:
    line, newline, _ = os.pread(fd, _MAX_HEADER, 0).partition(b"\n")
    found = records.content(line + newline)
    decoded = None
    with contextlib.suppress(ValueError):
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
    header = Header(**known)
    known_types = all(type(value) is type(getattr(_ANY_HEADER, name)) for name, value in asdict(header).items())
    if not known_types or Path(header.id).name != header.id:
        msg = f"{path} has a header that no dbnd has written: look at it, and remove it if it is of no use."
        raise JournalFormatError(msg)
    return header, len(line) + 1


_ANY_HEADER: Final = Header("")


def _ack_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.ack")


def _read_ack(path: Path, start: tuple[int, int], size: int) -> tuple[int, int]:
    """Number and offset of what is delivered; the start where that is not known, for the tracker knows what it has."""
    try:
        with os.fdopen(open_file(_ack_path(path), os.O_RDONLY), "rb") as file:
            text = file.read(_LONGEST_ACK).rstrip()
        position, _, checksum = text.rpartition(b" ")
        if b" " not in position:  # as dbnd 2.1 and earlier have written it
            position = text
        elif int(checksum, 16) != zlib.crc32(position):
            return start
        sequence, offset = map(int, position.split())
    except (OSError, ValueError):
        return start
    return (sequence, offset) if sequence >= 0 and start[1] <= offset <= size else start
