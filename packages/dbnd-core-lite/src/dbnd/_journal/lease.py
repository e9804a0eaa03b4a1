"""The lease of a folder of journals that several machines may share: who holds it delivers them, and nobody else does.

It is a file with the holder's name: a lock on it tells of holders on this machine, its heartbeat of those on others.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Final

from dbnd._base.clock import monotonic
from dbnd._base.names import new_uid
from dbnd._base.paths import open_file
from dbnd._journal import heartbeat, ownership

_NAME: Final = "deliverer.lease"
# Seconds after which the name in it stands, where somebody of another machine has written at the same time.
_SETTLE: Final = 0.3


class Lease:
    """A lease that this process holds; made by ``take``."""

    def __init__(self, path: Path, fd: int, name: bytes) -> None:
        self._path = path
        self._fd = fd
        self._name = name
        self._is_held = True
        self._touched_at = monotonic()
        heartbeat.begin(self)

    @classmethod
    def take(cls, folder: Path) -> Lease | None:
        """Take the lease of ``folder``; None while another process has it, OSError where it cannot be written."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / _NAME
        fd = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            # The random part tells this process from one of another container with the same name and number.
            name = f"{ownership.me()} {new_uid().hex}\n".encode()
            if _is_taken(path, fd) or not _write(path, fd, name):
                os.close(fd)
                return None
        except BaseException:
            os.close(fd)
            raise
        return cls(path, fd, name)

    @property
    def is_held(self) -> bool:
        """Whether this process still has it: one that was stopped for a minute may find that another has taken it."""
        if self._is_held and monotonic() > self._touched_at + heartbeat.STALE / 2:
            try:
                self.touch()
            except OSError:
                return False
        return self._is_held

    def touch(self) -> None:
        """Give a sign of life, if it is still ours."""
        if _read(self._path) != self._name:
            self._is_held = False
        else:
            os.utime(self._fd)
            self._touched_at = monotonic()

    def release(self) -> None:
        """Let others take it at once."""
        heartbeat.end(self)
        if self._is_held and _read(self._path) == self._name:
            os.ftruncate(self._fd, 0)
            heartbeat.give_up(self._fd)
        os.close(self._fd)


def holder_of(folder: Path) -> str:
    """Who has the lease of ``folder``, as the end of a sentence."""
    host, pid, *_ = [*_read(folder / _NAME).decode(errors="replace").split(), "", ""]
    return f"process {pid} of {host}" if pid else "another process"


def _is_taken(path: Path, fd: int) -> bool:
    """Whether a living process has the lease; if not, it is locked for us where it can be."""
    locked = ownership.lock(fd)
    name = os.pread(fd, 1000, 0).decode(errors="replace")
    if name.partition(" ")[0] in {"", socket.gethostname()}:
        return ownership.lives(name.rpartition(" ")[0]) if locked is None else not locked
    return heartbeat.is_fresh(path)


def _write(path: Path, fd: int, name: bytes) -> bool:
    """Put our name into it; False where another machine has done so at the same time."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, name, 0)
    os.fsync(fd)
    time.sleep(_SETTLE)
    return _read(path) == name


def _read(path: Path) -> bytes:
    try:
        with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
            return file.read(1000)
    except OSError:
        return b""
