"""How long a request may take, as far into the work on it as the database."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Final


class Deadline:
    """The end of a request's time: what has not begun to be committed by then never is.

    So that whoever gives up on a request can say what became of it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._has_passed = False
        self._commits = False

    @property
    def has_passed(self) -> bool:
        """Whether it is too late to begin anything."""
        return self._has_passed

    def begin_commit(self) -> bool:
        """Called before a commit; False when it is too late for one."""
        with self._lock:
            self._commits = not self._has_passed
            return self._commits

    def pass_by(self) -> bool:
        """Let it be too late from now on; False when something is committed, or is about to be."""
        with self._lock:
            self._has_passed = not self._commits
            return self._has_passed


DEADLINE: Final[ContextVar[Deadline | None]] = ContextVar("dbnd_deadline", default=None)
"""That of the request which this thread or task works on."""
