"""A file of a journal that another process still writes, as the relay reads it."""

from __future__ import annotations

import os
from pathlib import Path

from dbnd._base.paths import open_file
from dbnd._journal.file import JournalFile, read_ack
from dbnd._journal.header import header_of
from dbnd._journal.records import Record


class FollowedFile(JournalFile):
    """Delivers what is whole in a file as it was opened; the file itself stays its writer's, and is never changed."""

    @classmethod
    def follow(cls, path: Path) -> FollowedFile | None:
        """Open a file (see ``read_header``); None when it is no more."""
        try:
            fd = open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            made = cls(path, fd, *header_of(fd, path))
            # A network file system may show less than what has been delivered already: that comes.
            made._measure(*read_ack(path, (0, made.header_size), float("inf")))
        except BaseException:
            os.close(fd)
            raise
        return made

    def _grown(self) -> int:
        return self.size  # what is written since is for the next look

    def read(self, max_bytes: int, *, merged: bool = False) -> list[Record]:
        """The oldest events that are not delivered, up to the first that is not whole: it may be written right now."""
        found = super().read(max_bytes, merged=merged)
        for place, record in enumerate(found):
            if record.is_damaged:
                end = found[place - 1].end if place else self._read_offset
                self._state = (end, record.sequence - 1)
                return found[:place]
        return found

    def close(self) -> None:
        self.abandon()
