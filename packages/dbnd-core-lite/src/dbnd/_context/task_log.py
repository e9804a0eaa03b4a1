"""What tasks print under ``dbnd run``, kept and reported as their logs."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

from dbnd._base.forks import renew_after_fork
from dbnd._base.masking import mask_text
from dbnd._config.settings import LogSettings
from dbnd._context.current import current_task_run, get_databand_context
from dbnd._model.run import TaskRun


class TaskLog:
    """The head and the tail of a task's output; what lies between is counted and left out.

    Args:
        head: Characters kept from the start.
        tail: Characters kept from the end.
    """

    def __init__(self, head: int, tail: int) -> None:
        self._room, self._tail_size = head, tail
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._held = self._left_out = 0
        # A signal handler may print, too, in the middle of what it has interrupted.
        self._lock = threading.RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Make a new lock (see ``ForkAware``)."""
        self._lock = threading.RLock()

    def add(self, text: str) -> None:
        """Take more output."""
        with self._lock:
            if self._room:
                self._head.append(text[: self._room])
                text = text[self._room :]
                self._room -= len(self._head[-1])
            if text:
                self._tail.append(text)
                self._held += len(text)
                while self._held > self._tail_size:
                    self._drop(self._held - self._tail_size)

    def _drop(self, excess: int) -> None:
        first = self._tail.popleft()
        if len(first) > excess:
            self._tail.appendleft(first[excess:])
        dropped = min(len(first), excess)
        self._held -= dropped
        self._left_out += dropped

    def text(self) -> str:
        """The kept output, secrets masked."""
        gap = f"\n... ({self._left_out} characters left out) ...\n" if self._left_out else ""
        with self._lock:
            return mask_text("".join((*self._head, gap, *self._tail)))


class _Tee:
    """A standard stream that also feeds the log of the task run that writes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: Final = stream

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        task_run = current_task_run()
        log = None if task_run is None else _logs.get(task_run.attempt_uid)
        if log is not None:
            log.add(text)
        return written

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _teed(stream: Any) -> Any:
    return None if stream is None else _Tee(stream)


_logs: Final[dict[str, TaskLog]] = {}


@contextmanager
def captured(task_run: TaskRun) -> Iterator[None]:
    """Keep what ``task_run`` prints and report it when the block ends.

    Only ``dbnd run`` captures: a script's or notebook's streams are its own.
    """
    context = get_databand_context()
    if context is None or context.client is None or not task_run.run.captures_output:
        yield
        return
    settings = context.config.settings(LogSettings)
    if not settings.capture_tracking_log:
        yield
        return
    log = _logs[task_run.attempt_uid] = TaskLog(settings.preview_head_bytes, settings.preview_tail_bytes)
    streams, owner = (sys.stdout, sys.stderr), os.getpid()
    if not isinstance(sys.stdout, _Tee):
        sys.stdout, sys.stderr = _teed(sys.stdout), _teed(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        del _logs[task_run.attempt_uid]
        text = log.text()
        if text and os.getpid() == owner:
            context.client.save_task_run_log(task_run.attempt_uid, text)
