"""What earlier processes have left in the folder of the journals: found, listed and tidied up."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dbnd._base.paths import open_file
from dbnd._journal import heartbeat, ownership
from dbnd._journal.file import (
    DAMAGED,
    DEAD,
    JOURNAL,
    JournalFile,
    Known,
    is_of_other_host,
    remove,
    unsent_of,
)
from dbnd._journal.folders import folders_of
from dbnd._journal.header import Header, JournalFormatError, read_header

# What the time of a file may be behind the clock.
_COARSE_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file with events that are not delivered."""

    path: Path
    header: Header | None  # None when that cannot be read
    events: int  # number of those that are not delivered
    is_owned: bool  # whether a living process writes or delivers them
    problem: str | None = None  # why it cannot be delivered, as a sentence

    @property
    def is_dead(self) -> bool:
        """Whether the tracker has refused its events."""
        return self.path.suffix == DEAD

    @property
    def is_damaged(self) -> bool:
        """Whether it keeps bytes of damaged events, which nobody can deliver."""
        return self.path.suffix == DAMAGED

    @property
    def is_in_use(self) -> bool:
        """Whether the process that owns it is the one that writes it, as far as can be told."""
        return self.is_owned and self.header is not None and ownership.is_alive(self.header.host, self.header.pid)

    @property
    def is_relayed(self) -> bool:
        """Whether a living process writes it and leaves it to a relay."""
        return self.is_in_use and self.header is not None and self.header.relay

    @property
    def age(self) -> float:
        """Seconds since it was begun."""
        return time.time() - (self.header.created / 1e9 if self.header else self.path.lstat().st_mtime)

    @property
    def state(self) -> str:
        """What is the matter with it, in a word or two."""
        if self.problem:
            return "unreadable"
        if self.is_damaged:
            return "damaged"
        if self.is_dead:
            return "refused"
        if self.is_relayed:
            return "relayed"
        return "in use" if self.is_owned else "waiting"


def find(folder: Path, known: Known | None = None) -> list[Leftover]:
    """Files of ``folder`` that hold undelivered events, dead letters and damaged ones among them, oldest first.

    ``known`` is for who looks again and again, and keeps what has been counted.
    """
    paths = _files(folder, JOURNAL, DEAD, DAMAGED)
    if known is not None:
        for path in known.keys() - paths:
            del known[path]
    found = (look_at(path, known) for path in paths)
    wanted = [leftover for leftover in found if leftover and (leftover.events or leftover.problem)]
    return sorted(wanted, key=lambda leftover: leftover.header.order if leftover.header else (0, "", 0))


def urls_in(folder: Path) -> set[str]:
    """Where the events of the journals of ``folder`` go, which are not counted."""
    urls = set()
    for path in _files(folder, JOURNAL):
        with suppress(JournalFormatError, OSError):  # it is gone, or ``find`` says what is wrong with it
            urls.add(read_header(path).url)
    return urls


def left_since(since: int, folder: Path, url: str) -> list[Path]:
    """Journals for ``url`` that other processes have begun since a time, in ns, and left behind, in order.

    Those that several machines may see are left to who holds the lease of their folder.
    """
    found: dict[tuple[int, str, int], Path] = {}
    held: set[tuple[int, str]] = set()
    for path in _files(folder, JOURNAL):
        with suppress(JournalFormatError, OSError):  # it is gone, or ``find`` says what is wrong with it
            if path.stat().st_mtime_ns < since - _COARSE_NS:  # of thousands, to open each would take seconds
                continue
            header = read_header(path)
            is_others = header.pid != os.getpid() and not header.beats
            if is_others and header.url == url and header.created >= since:
                found[header.order] = path
                if ownership.is_owned(path):
                    held.add(header.order[:2])
    return [found[order] for order in sorted(found) if order[:2] not in held]


def _files(folder: Path, *suffixes: str) -> list[Path]:
    """Files of ``folder``, and of those that stand in for it where it cannot be written."""
    return [path for each in folders_of(folder) for suffix in suffixes for path in each.glob(f"*{suffix}")]


def look_at(path: Path, known: Known | None = None) -> Leftover | None:
    """What a file holds; None when it is gone."""
    try:
        header = read_header(path)
        is_owned = heartbeat.is_fresh(path) if is_of_other_host(header) else ownership.is_owned(path)
        return Leftover(path, header, unsent_of(path, known), is_owned)
    except FileNotFoundError:  # delivered since
        return None
    except JournalFormatError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror or error}."
    return Leftover(path, None, 0, is_owned=False, problem=problem)


def discard(path: Path) -> bool:
    """Remove a file with all that is in it; False when a process has taken it since, and nothing is done."""
    try:
        fd = open_file(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        if not ownership.own(fd, path):
            return False
        remove(path)
    finally:
        os.close(fd)
    ownership.disown(path)
    return True


def tidy(folder: Path) -> None:
    """Remove what killed processes have left in the folder, and nothing that holds an event which is not delivered."""
    for path in _files(folder, JOURNAL, DEAD):
        with suppress(JournalFormatError, OSError):  # not ours to judge, or gone since
            if not ownership.is_owned(path) and not unsent_of(path) and (file := JournalFile.adopt(path)) is not None:
                file.close()
    for path in _files(folder, ".ack", ".owner", ".new"):
        with suppress(OSError):  # it has got its name since; or it is no file of ours
            # One that has not got its name after an hour was left by a process that was killed.
            is_new = path.suffix == ".new"
            if time.time() - path.stat().st_mtime > 3600 if is_new else not path.with_suffix("").exists():
                path.unlink()
