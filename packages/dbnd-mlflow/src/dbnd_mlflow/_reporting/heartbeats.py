"""Heartbeats of MLflow runs outside of tasks, by which a tracker tells a run that goes on from one that has died.

A process sends them for the runs that it has started, until they end or it does, and for runs of other processes that
it logs to: an MLflow server does so for its clients. Whether those processes are alive it cannot know. So it stops when
it has heard nothing of a run for a day: a quiet training is not shown as lost, nor a dead one as running for ever.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

from dbnd import TrackingAPIClient
from dbnd.plugins import console
from dbnd.tracking import Run, RunState, monotonic

from .tracked import TrackedRun

# Each heartbeat is a request. Further runs announce that they send none, and are never shown as lost.
MAX_HEARTS: Final = 100
# Seconds for which a process sends heartbeats of a run of another process without hearing of it.
PATIENCE: Final = 24 * 60 * 60.0
_FINAL: Final = frozenset({RunState.SUCCESS.value, RunState.FAILED.value, RunState.CANCELLED.value})
# Where an MLflow server says what it serves.
_SERVES: Final = "_MLFLOW_SERVER_FILE_STORE"


class Heartbeats:
    """The runs that this process sends heartbeats of, to one tracker."""

    def __init__(self, client: TrackingAPIClient) -> None:
        self._client = client
        self.after_fork()

    def after_fork(self) -> None:
        """Send none in a forked child: its parent does."""
        self._lock = threading.Lock()
        self._beating: dict[TrackedRun, Run] = {}

    def expect(self, tracked: TrackedRun) -> None:
        """Note in a new run, before it is announced, whether the tracker is to expect heartbeats."""
        if tracked.is_dbnd_run and self._client.heartbeats:
            tracked.task_run.run.sends_heartbeat = len(self._beating) < MAX_HEARTS

    def begin(self, tracked: TrackedRun, *, is_started: bool = True) -> None:
        """Send heartbeats of a run that this process has started, or only logs to; a nested run needs none."""
        tracked.beats = True
        if not tracked.is_dbnd_run or tracked.is_guess or not self._client.heartbeats:
            return
        with self._lock:
            if tracked in self._beating or len(self._beating) >= MAX_HEARTS:
                return
            self._beating[tracked] = run = tracked.task_run.run
        is_told = False
        is_of_another = not is_started or _is_server()

        def goes_on(state: str) -> bool:
            nonlocal is_told
            is_silent = is_of_another and monotonic() - tracked.heard_at > PATIENCE
            tracked.beats = not is_silent  # what is logged next starts them again
            # Another process may have ended it, or moved it below another one.
            if state in _FINAL or is_silent or tracked.task_run.run is not run:
                self.end(tracked)
                return False
            if state == RunState.SHUTDOWN.value and not is_told:
                is_told = True
                console.warning(
                    f"The run {run.name} is asked to stop: one outside of tasks is stopped by its own code."
                )
            return True

        self._client.start_heartbeat(run, goes_on=goes_on)

    def end(self, tracked: TrackedRun) -> None:
        with self._lock:
            run = self._beating.pop(tracked, None)
        if run is not None:
            self._client.stop_heartbeat(run)


def _is_server() -> bool:
    return _SERVES in os.environ and "mlflow.server.handlers" in sys.modules
