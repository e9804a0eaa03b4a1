"""What a process tells of itself while it may be killed at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kit.warm import LIMIT

# How a child tells it; goes before its own code, which calls `returned()` after each call that has returned.
TELLING = """
import os
from dbnd import current_task_run, dbnd_tracking, log_metric

_progress = os.open(os.environ["PROGRESS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def began():
    os.write(_progress, f"{current_task_run().run.uid} {current_task_run().uid}\\n".encode())

def returned():
    os.write(_progress, b".")

def left():
    os.write(_progress, b"!")
"""


@dataclass(frozen=True)
class Progress:
    """The file in which a process tells how far it is: uids of its run and task run, then a byte for each call.

    Args:
        path: The file; it need not exist yet.
    """

    path: Path

    @property
    def returned(self) -> int:
        """How many calls have returned."""
        return self._text.count(".")

    @property
    def run(self) -> str:
        """Uid of its run."""
        return self._text.partition("\n")[0].partition(" ")[0]

    @property
    def task_run(self) -> str:
        """Uid of its task run."""
        return self._text.partition("\n")[0].partition(" ")[2]

    @property
    def left(self) -> bool:
        """Whether it has left its run."""
        return self._text.endswith("!")

    @property
    def _text(self) -> str:
        return self.path.read_text() if self.path.exists() else ""


def wait_until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait until ``condition`` holds.

    Args:
        condition: What to wait for.
        what: Tells, when it has not come, what there is instead.
    """
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what()}"
        time.sleep(0.005)
