"""The first line of a file of a journal: what it is for, and whose it is."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from dbnd._base.errors import DatabandError
from dbnd._base.names import new_uid
from dbnd._base.paths import open_file
from dbnd._journal import records
from dbnd._model.encoding import decode

FORMAT: Final = 1


class JournalFormatError(DatabandError):
    """A file was written by a newer dbnd, or is no journal."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a file."""

    url: str  # of the tracker that the events are for, without credentials
    id: str = field(default_factory=lambda: new_uid().hex)  # the tracker knows events by it and their number
    chain: str = ""  # id of the first file of the same process and tracker
    part: int = 0  # place in that chain
    created: int = field(default_factory=time.time_ns)  # when the chain was begun, in ns since the epoch
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    beats: bool = (
        False  # whether its process touches the file at regular times, so that other machines can tell it lives
    )
    relay: bool = False  # whether its process never delivers: a relay does

    def line(self) -> bytes:
        return records.frame({"journal": FORMAT, **asdict(self)})

    def successor(self) -> Header:
        """The header of the next file of the chain."""
        return Header(
            self.url,
            chain=self.chain or self.id,
            part=self.part + 1,
            created=self.created,
            beats=self.beats,
            relay=self.relay,
        )

    @property
    def order(self) -> tuple[int, str, int]:
        """By this files are delivered oldest first, and those of a chain one after the other."""
        return self.created, self.chain or self.id, self.part


_ANY: Final = Header("")


def read_header(path: Path) -> Header:
    """The header of a file that this process does not own.

    Raises:
        JournalFormatError: It was written by a newer dbnd, or has no header.
    """
    fd = open_file(path, os.O_RDONLY)
    try:
        return header_of(fd, path)[0]
    finally:
        os.close(fd)


def header_of(fd: int, path: Path) -> tuple[Header, int]:
    """The header of the file ``path``, open as ``fd``, and its size in bytes (see ``read_header``)."""
    line, newline, _ = os.pread(fd, 1 << 16, 0).partition(b"\n")
    values: Any = None
    with suppress(ValueError):
        values = decode(records.content(line + newline) or b"")
    version = values.get("journal") if isinstance(values, dict) else None
    if not isinstance(version, int) or "url" not in values or "id" not in values:
        raise JournalFormatError(
            f"{path} is no journal, or its first line is damaged: look at it, and remove it if it is of no use."
        )
    if version > FORMAT:
        raise JournalFormatError(
            f"{path} has format {version}, and this dbnd reads formats up to {FORMAT}: "
            "update dbnd-core-lite to deliver it."
        )
    header = Header(**{each.name: values[each.name] for each in fields(Header) if each.name in values})
    known_types = all(type(value) is type(getattr(_ANY, name)) for name, value in asdict(header).items())
    if not known_types or Path(header.id).name != header.id:
        raise JournalFormatError(
            f"{path} has a header that no dbnd has written: look at it, and remove it if it is of no use."
        )
    return header, len(line) + 1
