"""What is kept aside: events that a tracker refuses for good or that cannot be read, and the bytes of damaged ones.

``<id>.dead`` holds the dead letters of the file ``<id>.journal``, and is itself a file of the same form (see ``file``):
its records are ``[call, body, reason, number in the journal]``. `dbnd sync --retry-dead` delivers them like a journal.
``<id>.damaged`` has the same header; behind it stand the damaged lines as they were found, each after its number in the
journal. They are for a person to look at, and to remove.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dbnd._base.paths import open_file
from dbnd._journal.file import DAMAGED, DEAD, JournalFile
from dbnd._journal.header import Header, JournalFormatError
from dbnd._journal.records import Record, extended, frame


def keep_aside(record: Record, reason: str, of: JournalFile) -> Path:
    """Keep an event of the file ``of`` beside it, and return where; OSError where that cannot be written.

    One that is kept already, because the process was killed before it went on, is not kept twice.
    """
    if record.is_damaged:
        suffix, line = DAMAGED, b"%d %b\n" % (record.sequence, record.line.removesuffix(b"\n"))
    elif record.line:  # as it stands: another Python may be able to read it
        suffix, line = DEAD, extended(record.line, reason, record.sequence)
    else:
        suffix, line = DEAD, frame((record.call, record.body, reason, record.sequence))
    with _opened(of, suffix) as file:
        if record.sequence > max(_numbers(file.path), default=0):
            file.append(line)
        return file.path


@contextmanager
def _opened(of: JournalFile, suffix: str) -> Iterator[JournalFile]:
    path, header = of.path.with_name(f"{of.header.id}{suffix}"), Header(of.header.url)
    file = None
    with suppress(JournalFormatError, OSError):  # named by `dbnd sync`; the letters go elsewhere
        file = JournalFile.adopt(path)
    if file is None:
        if path.exists():  # or somebody delivers it at this moment
            path = path.with_name(f"{header.id}{suffix}")
        file = JournalFile.create(path, header)
    try:
        yield file
    finally:
        file.close()


def _numbers(path: Path) -> Iterator[int]:
    """The numbers in the journal of what a file keeps: at the end of dead letters, and before damaged lines."""
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as lines:
        next(lines, None)
        for line in lines:
            text = line.partition(b" ")[0] if path.suffix == DAMAGED else line.rpartition(b",")[2].rstrip(b"]\n")
            if text.isdigit():
                yield int(text)
