"""The file of a name: its making, which one it is, and what becomes of one that something else was written over."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dbnd_tracker._storage.sqlite.log import wait_until_whole, watches

Identity = tuple[int, int] | None

SIDE_FILES: Final = ("-wal", "-shm")
COPYING_S: Final = 2.0
"""Seconds that one waits for a copy that is being made over the file."""


def identity(path: str | Path) -> Identity:
    """Which file has this name now, or None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  each transaction asks, and this is the quickest way
    except OSError:
        return None
    return found.st_dev, found.st_ino


def settle(path: str | Path) -> Identity:
    """Which file has this name now; what was written over one in place has then been given a file of its own.

    Raises:
        OSError: Another program is writing over it, or there is no room.
    """
    found = identity(path)
    if found is None or _is_intact(found):
        return found
    with alone(Path(path)):
        if identity(path) == found and not _is_intact(found):
            if not wait_until_whole(path, COPYING_S):
                raise OSError("another program is writing over it, or has written only a part")
            set_apart(path)
    return identity(path)


def _is_intact(file: tuple[int, int]) -> bool:
    watch = watches.get(file)
    return watch is None or watch.is_intact()


def set_apart(path: str | Path) -> None:
    """Give what was written over a file a file of its own, without the log and without those who have it open."""
    file = os.path.realpath(path)
    copy = f"{file}.{os.getpid()}"
    try:
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        shutil.copyfile(file, copy)
        shutil.copymode(file, copy)
        for ending in SIDE_FILES:
            Path(f"{file}{ending}").unlink(missing_ok=True)
        os.replace(copy, file)  # noqa: PTH105
    finally:
        Path(copy).unlink(missing_ok=True)


def make_file(path: Path) -> None:
    """Make an empty file, its owner's alone, unless there is one; SQLite gives its side files the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(path):
        if not path.exists():
            for ending in SIDE_FILES:  # of a file that is gone
                Path(f"{os.path.realpath(path)}{ending}").unlink(missing_ok=True)
            path.touch(mode=0o600)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let no other process open or close a file of this folder meanwhile; without a folder nobody does."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)  # also where a child of this process has the folder open, too
        os.close(folder)
