"""What is kept aside: events that a tracker refuses for good or that cannot be read, and the bytes of damaged ones.

``<id>.dead`` holds the dead letters of the file ``<id>.journal``, and is itself a file of the same form (see
``journal_file``): its records are ``[call, body, reason, number in the journal]``. `dbnd sync --retry-dead` delivers
them like a journal. ``<id>.damaged`` has the same header; behind it stand the damaged lines as they were found, each
after its number in the journal. They are for a person to look at, and to remove.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dbnd._journal import records
from dbnd._journal.file import DAMAGED, DEAD, Header, JournalFile, JournalFormatError
from dbnd._journal.opening import open_file
from dbnd._model.encoding import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self


class DeadLetters:
    """What is kept aside of one file of a journal, open for writing within ``with``.

    Args:
        of: The file that the events stand in.
        suffix: ``DEAD`` or ``DAMAGED``.

    Attributes:
        path: Where they are.
    """

    def __init__(self, of: JournalFile, suffix: str = DEAD) -> None:
        self._of = of
        self._suffix = suffix
        self.path = of.path.with_name(f"{of.header.id}{suffix}")
        self._file: JournalFile | None = None
        self._kept = 0

    def __enter__(self) -> Self:
        adopted = None
        with contextlib.suppress(JournalFormatError, OSError):  # named by `dbnd sync`; the letters go elsewhere
            adopted = JournalFile.adopt(self.path)
        if adopted is None:
            header = Header(self._of.header.url)
            if self.path.exists():  # or somebody delivers it at this moment
                self.path = self.path.with_name(f"{header.id}{self._suffix}")
            adopted = JournalFile.create(self.path, header)
        else:
            self._kept = max(_numbers(self.path), default=0)
        self._file = adopted
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    def add(self, record: records.Record, reason: str) -> None:
        """Keep an event; one that is kept already, because the process was killed before it went on, is not kept twice.

        Raises:
            OSError: It could not be written.
        """
        assert self._file is not None
        if record.sequence <= self._kept:
            return
        if record.is_damaged:
            line = b"%d %b\n" % (record.sequence, record.line.removesuffix(b"\n"))
        elif record.line:  # as it stands: another Python may be able to read it
            line = records.extended(record.line, reason, record.sequence)
        else:
            line = records.frame((record.call, record.body, reason, record.sequence))
        self._file.append(line)


def letters(path: Path) -> Iterator[tuple[str, Any, str, int]]:
    """The events of a dead-letter file that can be read: call, body, why it was refused, number in its journal."""
    for line in _lines(path):
        found = records.content(line)
        if found is not None:
            with contextlib.suppress(ValueError):
                call, body, *_, reason, number = decode(found)
                yield call, body, reason, number


def _numbers(path: Path) -> Iterator[int]:
    """The numbers in the journal of what a file keeps: at the end of dead letters, and before damaged lines."""
    for line in _lines(path):
        text = line.partition(b" ")[0] if path.suffix == DAMAGED else line.rpartition(b",")[2].rstrip(b"]\n")
        if text.isdigit():
            yield int(text)


def _lines(path: Path) -> Iterator[bytes]:
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        next(file, None)
        yield from file
