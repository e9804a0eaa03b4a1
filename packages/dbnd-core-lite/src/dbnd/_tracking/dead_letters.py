"""Dead letters: events that a tracker refuses for good, kept beside the journal that they were in.

``<id>.dead`` holds those of the file ``<id>.journal``, and is itself a file of the same form (see ``journal_file``):
its records are ``[call, body, reason, number in the journal]``. `dbnd sync --retry-dead` delivers them like a journal.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dbnd._json import decode
from dbnd._tracking import records
from dbnd._tracking.journal_file import DEAD, Header, JournalFile, JournalFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self


class DeadLetters:
    """The dead letters of one file of a journal, open for writing within ``with``.

    Args:
        of: The file that the events stand in.

    Attributes:
        path: Where they are.
    """

    def __init__(self, of: JournalFile) -> None:
        self._of = of
        self.path = of.path.with_name(f"{of.header.id}{DEAD}")
        self._file: JournalFile | None = None
        self._buried = 0

    def __enter__(self) -> Self:
        adopted = None
        with contextlib.suppress(JournalFormatError):  # named by `dbnd sync`; the letters go elsewhere
            adopted = JournalFile.adopt(self.path)
        if adopted is None:
            header = Header(self._of.header.url)
            if self.path.exists():  # or somebody delivers it at this moment
                self.path = self.path.with_name(f"{header.id}{DEAD}")
            adopted = JournalFile.create(self.path, header)
        else:
            self._buried = max((number for *_, number in letters(self.path)), default=0)
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
        if record.sequence > self._buried:
            self._file.append(records.frame((record.call, record.body, reason, record.sequence)))


def letters(path: Path) -> Iterator[tuple[str, Any, str, int]]:
    """The events of a dead-letter file: call, body, why it was refused, number in its journal."""
    with path.open("rb") as file:
        next(file, None)
        for line in file:
            found = records.content(line)
            if found is not None:
                call, body, reason, number = decode(found)
                yield call, body, reason, number
