"""Processes that log to the tracker behind a proxy, and what the tracker has of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit.progress import Progress
from kit.trackers import Tracker
from kit.warm import Warm, WarmProcess


class Jobs:
    """Starts processes whose tracker is at ``url``, and reads what that has taken.

    Args:
        warm: Starts them.
        folder: Takes what they print and tell.
        url: The tracker as they know it.
        tracker: The tracker itself.

    Attributes:
        env: Variables of all of them.
    """

    def __init__(self, warm: Warm, folder: Path, url: str, tracker: Tracker) -> None:
        self._warm = warm
        self._folder = folder
        self._tracker = tracker
        self._count = 0
        self.env = {"DBND__CORE__DATABAND_URL": url, "DBND__CORE__FLUSH_TIMEOUT": "60"}

    def start(self, code: str, **env: str) -> tuple[WarmProcess, Progress]:
        """Start Python code that tells its progress."""
        progress = Progress(self._next("progress"))
        return self._warm.python(code, self._next("log"), PROGRESS=str(progress.path), **self.env | env), progress

    def run(self, code: str, exit_code: int = 0, **env: str) -> tuple[WarmProcess, Progress]:
        """Run Python code that tells its progress, and check how it ends."""
        process, progress = self.start(code, **env)
        assert process.wait() == exit_code, process.output
        return process, progress

    def dbnd(self, *arguments: str, exit_code: int = 0, **env: str) -> str:
        """Run a ``dbnd`` command, check how it ends, and return what it has printed."""
        process = self._warm.dbnd(*arguments, log=self._next("log"), **self.env | env)
        assert process.wait() == exit_code, process.output
        return process.output

    def values(self, progress: Progress, key: str = "n") -> list[Any]:
        """What the tracker has of one metric of a process."""
        return self._tracker.values(progress.task_run, key)

    def states(self, progress: Progress) -> set[str]:
        """The states of the run of a process and of all its task runs."""
        return set(self._tracker.states(progress.run).values())

    def _next(self, name: str) -> Path:
        self._count += 1
        return self._folder / f"{name}-{self._count}"


def journals(home: Path) -> list[str]:
    """The names of the files in the journal's folder."""
    return sorted(path.name for path in (home / "dbnd/journal").glob("*"))
