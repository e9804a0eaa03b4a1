"""The journal: one append-only file per process, in which an event is kept before a log call returns.

A journal is a folder entry ``<id>.journal``: lines of ``<crc32 of the JSON, 8 hex digits> <JSON>``. The first line is
the header ``{"journal": 1, "id": …, "url": …}``, each further line one event ``[call, body]``. Events are numbered from
1 in the order of their lines. ``<id>.ack`` holds how far the tracker has acknowledged them: sequence number and byte
offset. ``<id>.dead`` holds, in the same format, events that the tracker refused for good.

States of an event: accepted (its line is written) → acknowledged (the ``.ack`` file points behind it), or → dead. The
files are removed when every event is acknowledged and the process is done. A lock on the journal tells that its process
still lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FORMAT: Final = 1
_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Record:
    """An event read back from a journal.

    Args:
        sequence: Its number, from 1.
        end: Byte offset behind its line.
        call: Name of the wire call.
        body: Body of the wire call; of ``log_metrics`` a list of groups of points.
    """

    sequence: int
    end: int
    call: str
    body: Any


class JournalClosedError(Exception):
    """The journal takes no more events; a new one does."""


class Journal:
    """The journal of this process for one tracker.

    Any number of threads may append; one reads and acknowledges.

    Args:
        directory: Folder of the journals, made if need be (readable by its owner only).
        url: The tracker the events are for, without credentials.

    Raises:
        OSError: The folder or the file cannot be made.
    """

    def __init__(self, directory: Path, url: str) -> None:
        for folder in (directory.parent, directory):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.id: Final = uuid.uuid4().hex
        self.path: Final = directory / f"{self.id}.journal"
        self._ack_path: Final = self.path.with_suffix(".ack")
        self.dead_path: Final = self.path.with_suffix(".dead")
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._ack_fd = os.open(self._ack_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._lock = threading.Lock()
        self._closed = False
        self._size = 0
        self._write(_encode({"journal": FORMAT, "id": self.id, "url": url, "pid": os.getpid()}))
        self._read_offset = self._size
        self.last = 0
        self.acknowledged = 0
        self.dead = 0

    def append(self, call: str, body: object) -> int:
        """Keep an event and return its sequence number; it survives the death of the process.

        Raises:
            OSError: It could not be written (a full disk); nothing of it is left in the file.
            JournalClosedError: The journal was given up.
            TypeError: ``body`` is not made of JSON's types.
        """
        text = _encode([call, body])
        with self._lock:
            if self._closed:
                raise JournalClosedError
            self._write(text)
            self.last += 1
            return self.last

    def _write(self, text: str) -> None:
        data = text.encode("ascii")
        line = b"%08x %b\n" % (zlib.crc32(data), data)
        written = os.write(self._fd, line)
        if written != len(line):
            os.ftruncate(self._fd, self._size)
            raise OSError(28, "No space left on device", str(self.path))
        self._size += written

    def read(self, max_records: int, max_bytes: int) -> list[Record]:
        """The oldest unacknowledged events: at most ``max_records``, and about ``max_bytes`` of them."""
        with self._lock:
            available = self._size - self._read_offset
        if not available:
            return []
        data = os.pread(self._fd, min(available, max_bytes), self._read_offset)
        if b"\n" not in data:  # one event larger than the limit
            data = os.pread(self._fd, available, self._read_offset)
        records: list[Record] = []
        end = self._read_offset
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True)[:max_records]:
            end += len(line)
            call, body = json.loads(line[9:])
            records.append(Record(self.acknowledged + len(records) + 1, end, call, body))
        return records

    def acknowledge(self, record: Record) -> None:
        """Mark every event up to ``record`` as delivered."""
        os.pwrite(self._ack_fd, b"%020d %020d\n" % (record.sequence, record.end), 0)
        self.acknowledged, self._read_offset = record.sequence, record.end

    def bury(self, records: list[Record]) -> None:
        """Put events that the tracker refused for good into the dead-letter file."""
        with self.dead_path.open("ab") as file:
            for record in records:
                data = _encode([record.call, record.body]).encode("ascii")
                file.write(b"%08x %b\n" % (zlib.crc32(data), data))
        self.dead += len(records)

    @property
    def unsent(self) -> int:
        """Number of events that the tracker has not acknowledged."""
        return self.last - self.acknowledged

    def close(self) -> None:
        """Give the journal up; its files stay only if they hold unsent events."""
        with self._lock:
            if self._closed:
                return
            if not self.unsent:
                self.path.unlink(missing_ok=True)
                self._ack_path.unlink(missing_ok=True)
            self.abandon()

    def abandon(self) -> None:
        """Close the files without touching them, as a forked child does with its parent's."""
        self._closed = True
        os.close(self._fd)
        os.close(self._ack_fd)
