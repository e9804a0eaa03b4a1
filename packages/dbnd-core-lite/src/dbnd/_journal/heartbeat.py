"""Signs of life of what several machines may share: its owner touches the file every few seconds.

A lock does not tell whether a process of another machine lives: some file systems keep locks to one machine, others
keep those of a machine that is gone. The time of the last touch tells, by the file system's own clock, so that the
clocks of the machines do not matter. Who ends sets that time to 0.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from dbnd._base.clock import monotonic
from dbnd._base.forks import in_children, start
from dbnd._base.paths import open_file

BEAT: Final = 5.0
"""Seconds between two touches."""
STALE: Final = 60.0
"""Seconds after which an owner that has touched nothing is taken to be gone."""


class Beating(Protocol):
    """What is touched as long as its process lives."""

    def touch(self) -> None:
        """Give a sign of life; called by a thread of its own."""


class _Beats:
    """All that this process touches, and the thread that does."""

    def __init__(self) -> None:
        self._all: Final[weakref.WeakSet[Beating]] = weakref.WeakSet()
        self._lock: Final = threading.RLock()
        self._thread: threading.Thread | None = None

    def begin(self, what: Beating) -> None:
        with self._lock:
            self._all.add(what)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="dbnd-heartbeat", daemon=True)
                self._thread = thread if start(thread) else None  # without one, each event is a sign of life

    def end(self, what: Beating) -> None:
        with self._lock:  # from here on nobody touches it
            self._all.discard(what)

    def _run(self) -> None:
        wait = threading.Event().wait
        while True:
            wait(BEAT)
            with self._lock:
                if not self._all:
                    self._thread = None
                    return
                for each in list(self._all):
                    with suppress(OSError):  # the next event, or the next touch, meets the same trouble
                        each.touch()


_beats = _Beats()


@in_children
def _leave_to_the_parent() -> None:
    global _beats  # noqa: PLW0603  another thread of the parent may hold its lock
    _beats = _Beats()


def begin(what: Beating) -> None:
    """Touch ``what`` at regular times, until ``end``."""
    _beats.begin(what)


def end(what: Beating) -> None:
    """Touch ``what`` no more; when this returns, nobody does."""
    _beats.end(what)


def give_up(fd: int) -> None:
    """Say that the owner of an open file is gone."""
    with suppress(OSError):
        os.utime(fd, ns=(0, 0))


def is_fresh(path: Path) -> bool:
    """Whether the owner of a file has given a sign of life lately."""
    fd = open_file(path, os.O_RDONLY)  # a network file system looks anew at a file that is opened
    try:
        touched = os.fstat(fd).st_mtime
    finally:
        os.close(fd)
    return touched > _now(path.parent) - STALE


# By folder, how far the clock of its file system is ahead of ours, and when that was looked at.
_clocks: Final[dict[Path, tuple[float, float]]] = {}


def _now(folder: Path) -> float:
    """The time by the clock of the file system, in seconds since the epoch."""
    ahead, looked_at = _clocks.get(folder, (0.0, float("-inf")))
    if monotonic() > looked_at + STALE / 2:
        looked_at = monotonic()
        with tempfile.TemporaryFile(dir=folder, suffix=".new") as probe:
            os.write(probe.fileno(), b"\n")
            ahead = os.fstat(probe.fileno()).st_mtime - looked_at
        _clocks[folder] = ahead, looked_at
    return monotonic() + ahead
