"""The journal: where the events of one process for one tracker are kept before a log call returns.

It is a chain of files (see ``file``). Events are appended to the last one; once that has its size, the journal
rolls on into a further file, and the files before are removed as they are delivered. So the disk holds little more than
what the tracker has not taken, and never more than the cap: past it, events are refused, and the client counts them.

States of an event::

    logged ──► accepted ──► delivered      the tracker has it
       │          │    └──► dead           the tracker refuses it for good: kept in a dead-letter file
       │          └ ─ ─ ─► left behind     the process has ended first: `dbnd sync` delivers it
       └──► dropped                        disk full, or the cap is reached
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from dbnd._base.mounts import network_file_system
from dbnd._config.settings import CoreSettings
from dbnd._journal import heartbeat, records
from dbnd._journal.file import JOURNAL, JournalFile, delivered_of
from dbnd._journal.folders import make_private, spares_of
from dbnd._journal.header import Header, JournalFormatError
from dbnd._journal.leftovers import left_since
from dbnd._journal.records import Record
from dbnd._model.parts import parts_of
from dbnd._terminal import console

# A file goes on in a further one at this size in bytes, or at an eighth of the cap.
_FILE_SIZE: Final = 16 << 20
# From this size of an event on, in bytes, it may have to be taken apart.
_LARGE: Final = 1 << 16


class JournalClosedError(Exception):
    """The journal takes no more events; a new one does."""


class JournalFullError(OSError):
    """The journal has reached its cap."""


class Journal:
    """The journal of this process for one tracker. Any number of threads may append; one delivers.

    Args:
        directory: Folder of the journals, made if need be (readable by its owner only).
        url: The tracker the events are for, without credentials.
        max_bytes: The cap: bytes that its files may take together.
        fsync: Whether each event is to survive a power cut too.
        shared: Whether other machines may look into the folder, and must be able to tell that this process lives.
        relay: Whether a relay delivers it, and this process does nothing but append; then ``shared``, too.
    """

    def __init__(
        self,
        directory: Path,
        url: str,
        *,
        max_bytes: int = 1 << 30,
        fsync: bool = False,
        shared: bool = False,
        relay: bool = False,
    ) -> None:
        for folder in (directory.parent, directory):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory: Final = directory
        self._max_bytes = max_bytes
        self._file_size = min(_FILE_SIZE, max(1, max_bytes // 8))
        self._fsync = fsync
        self._lock = threading.RLock()
        self._sealed = False
        self._relay = relay
        self._files = deque([self._create(Header(url, beats=shared or relay, relay=relay))])
        # Files of the chain that were left to the relay, each with its size and its number of events.
        self._left: list[tuple[Path, int, int]] = []
        # Events of the files that are delivered and gone.
        self._gone = 0
        # Bytes that the last file may grow to before something has to be decided.
        self._room = self._file_size

    @property
    def path(self) -> Path:
        """The file that events are appended to."""
        return self._files[-1].path

    def append(self, call: str, body: object) -> None:
        """Keep an event, in several parts if it is large; when this returns, it survives the death of the process.

        Raises:
            OSError: It could not be written (a full disk, or the cap); nothing of it is left.
            JournalClosedError: The journal was closed.
        """
        line = records.frame((call, body))
        if len(line) > _LARGE and (parts := parts_of(call, body, len(line))):
            for part in parts:
                self.append(call, part)
            return
        with self._lock:
            if self._sealed:
                raise JournalClosedError
            if self._files[-1].size + len(line) > self._room:
                self._make_room(len(line))
            self._files[-1].append(line)

    def _make_room(self, wanted: int) -> None:
        """Go on in a further file, if the cap allows it."""
        current = self._files[-1]
        if self._left:
            gone = [left for left in self._left if not left[0].exists()]
            self._left = [left for left in self._left if left not in gone]
            self._gone += sum(events for _, _, events in gone)
        following = wanted + current.header_size + 64  # its header may be some digits longer
        if self._size() + (following if current.last else wanted) > self._max_bytes:
            raise JournalFullError(f"the journal has reached core.journal_max_bytes = {self._max_bytes}")
        if not current.last:  # one event larger than a file should be
            return
        try:
            self._files.append(self._create(current.header.successor()))
        except OSError:  # no further file, but there may be room in this one; tried again a megabyte later
            self._room = min(current.size + wanted + (1 << 20), self._max_bytes - self._size() + current.size)
            return
        if self._relay:  # it is complete
            self._files.popleft()
            self._left.append((current.path, current.size, current.last))
            current.close()
        self._measure_room()

    def _create(self, header: Header) -> JournalFile:
        file = JournalFile.create(self.directory / f"{header.id}{JOURNAL}", header, fsync=self._fsync)
        if header.beats:
            heartbeat.begin(file)
        return file

    def _size(self) -> int:
        return sum(file.size for file in self._files) + sum(size for _, size, _ in self._left)

    def _measure_room(self) -> None:
        self._room = min(self._file_size, self._max_bytes - self._size() + self._files[-1].size)

    def front(self) -> JournalFile | None:
        """The oldest file with events that are not delivered, or None; delivered files before it are removed."""
        while True:
            with self._lock:
                file = self._files[0]
                if file.unsent:
                    with contextlib.suppress(OSError):  # it can be delivered all the same
                        self.restore()
                    return file
                if len(self._files) == 1:
                    return None
                self._files.popleft()
                self._gone += file.last
                self._measure_room()
            file.close()

    def adopt(self, since: int) -> bool:
        """Deliver, along with what is here, what processes have left that began since a time, in ns, and are gone.

        Returns:
            Whether there is any.
        """
        found: list[JournalFile | None] = []
        with self._lock:
            # Another thread may have closed this one.
            for path in left_since(since, self.directory, self._files[-1].header.url) if self._files else ():
                with contextlib.suppress(OSError, JournalFormatError):  # `dbnd sync` says what is wrong with it
                    found.append(JournalFile.adopt(path))
            adopted = list(filter(None, found))
            self._files.extendleft(reversed(adopted))
        return bool(adopted)

    def waiting(self) -> Iterator[Record]:
        """The events that are not delivered, oldest first."""
        with self._lock:
            files = list(self._files)
        for file in files:
            yield from file.waiting()

    @property
    def accepted(self) -> int:
        """Number of events that were kept."""
        with self._lock:
            return self._gone + sum(file.last for file in self._files) + sum(events for _, _, events in self._left)

    @property
    def settled(self) -> int:
        """Number of events that are delivered or dead."""
        with self._lock:
            if self._relay:
                return self.accepted - self.unsent
            return self._gone + sum(file.acknowledged for file in self._files)

    @property
    def unsent(self) -> int:
        """Number of events that are neither delivered nor dead."""
        with self._lock:
            if self._relay:  # as far as the relay has noted
                files = [*((path, events) for path, _, events in self._left), *((f.path, f.last) for f in self._files)]
                noted = [(events, delivered_of(path)) for path, events in files]
                return sum(events - delivered for events, delivered in noted if delivered is not None)
            return sum(file.unsent for file in self._files)

    @property
    def unsent_bytes(self) -> int:
        """Size of these events."""
        with self._lock:
            return sum(file.unsent_bytes for file in self._files)

    def restore(self) -> None:
        """Write files anew that somebody has removed, as far as they hold events that are not delivered."""
        with self._lock:
            for file in self._files:
                if file.unsent:
                    file.restore()

    def seal(self) -> None:
        """Take no more events; what is there can still be delivered."""
        with self._lock:
            self._sealed = True

    def close(self) -> None:
        """Give the journal up; only files with events that are not delivered stay."""
        self.seal()
        with self._lock:
            while self._files:
                file = self._files.pop()
                if self._relay:
                    self._left.append((file.path, file.size, file.last))
                else:
                    self._gone += file.acknowledged
                if file.unsent:
                    with contextlib.suppress(OSError):  # named by whoever asks for what is left over
                        file.restore()
                file.close()

    def abandon(self) -> None:
        """Close the files and touch nothing, as a forked child does with its parent's."""
        self._sealed = True
        while self._files:
            self._files.pop().abandon()


def open_journal(name: str, settings: CoreSettings) -> Journal:
    """A journal in the home, or in another folder where that cannot be written, which is said once."""
    home = settings.journals
    trouble: OSError | None = None
    for folder in chain([home], spares_of(home)):
        try:
            if trouble is not None:
                make_private(folder.parent)
            journal = Journal(
                folder,
                name,
                max_bytes=settings.journal_max_bytes,
                fsync=settings.journal_fsync,
                shared=settings.journal_folder is not None or network_file_system(folder) is not None,
                relay=settings.delivery == "relay",
            )
        except OSError as error:
            trouble = trouble or error
            continue
        if trouble is not None:
            console.warn_once(
                f"Events cannot be kept in {home} ({trouble}); they are kept in {folder}, and `dbnd sync` looks there, "
                "too. Set DBND_HOME, or core.journal_folder, to a folder that can be written."
            )
        return journal
    assert trouble is not None
    raise trouble
