"""What tasks print under ``dbnd run``, kept and reported as their logs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

from dbnd._base.forks import renew_after_fork
from dbnd._base.masking import mask_text
from dbnd._config.settings import LogSettings
from dbnd._context.current import current_task_run, get_databand_context
from dbnd._model.run import TaskRun


class TaskLog:
    """The first ``head`` and the last ``tail`` characters of a task's output; what lies between is counted."""

    def __init__(self, head: int, tail: int) -> None:
        self._head, self._tail = head, tail
        self._parts: list[str] = []
        self._held = self._left_out = 0
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Make a new lock (see ``ForkAware``)."""
        # A signal handler may print, too, in the middle of what it has interrupted.
        self._lock = threading.RLock()

    def add(self, text: str) -> None:
        with self._lock:
            self._parts.append(text)
            self._held += len(text)
            if self._held > 2 * (self._head + self._tail):  # not each time: joining costs
                self._shorten()

    def _shorten(self) -> None:
        text = "".join(self._parts)
        excess = max(len(text) - self._head - self._tail, 0)
        self._parts = [text[: self._head], text[self._head + excess :]]
        self._held -= excess
        self._left_out += excess

    def text(self) -> str:
        """The kept output, secrets masked."""
        with self._lock:
            self._shorten()
            gap = f"\n... ({self._left_out} characters left out) ...\n" if self._left_out else ""
            return mask_text(gap.join(self._parts))


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


_logs: Final[dict[str, TaskLog]] = {}


@contextmanager
def captured(task_run: TaskRun) -> Iterator[None]:
    """Keep what ``task_run`` prints and report it when the block ends.

    Only ``dbnd run`` captures: a script's or notebook's streams are its own.
    """
    context = get_databand_context()
    settings = None if context is None else context.config.settings(LogSettings)
    client = None if context is None or not task_run.run.captures_output else context.client
    if client is None or settings is None or not settings.capture_tracking_log:
        yield
        return
    log = _logs[task_run.attempt_uid] = TaskLog(settings.preview_head_bytes, settings.preview_tail_bytes)
    streams, owner = (sys.stdout, sys.stderr), os.getpid()
    # A process that was started without streams has none; the caller of a task may have replaced one of them.
    sys.stdout, sys.stderr = (stream if isinstance(stream, _Tee) else stream and _Tee(stream) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        del _logs[task_run.attempt_uid]
        text = log.text()
        if text and os.getpid() == owner:
            client.save_task_run_log(task_run.attempt_uid, text)
