"""Heartbeats of MLflow runs outside of tasks, by which a tracker tells a run that goes on from one that has died.

A process sends them for the runs that it has started, or started again, until they end or it does; and for those that
others have started and it logs to, for others may have left them to it. A server does so for its clients, of which it
cannot know whether they live. Where a process speaks for others, it stops when it has heard nothing of a run for a day,
so that neither a quiet training is shown as lost nor a dead one as running for ever.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from dbnd.plugins import console
from dbnd.tracking import RunState, monotonic

if TYPE_CHECKING:
    from dbnd import TrackingAPIClient
    from dbnd.tracking import Run

    from .tracked import TrackedRun

# Each heartbeat is a request: of more runs at once the others are not expected to send any, and never shown as lost.
MAX_HEARTS: Final = 100
# How long a process speaks for another one that says nothing, in seconds.
PATIENCE: Final = 24 * 60 * 60.0
_FINAL: Final = frozenset({RunState.SUCCESS.value, RunState.FAILED.value, RunState.CANCELLED.value})
# Where an MLflow server says what it serves.
_SERVES: Final = "_MLFLOW_SERVER_FILE_STORE"


class Hearts:
    """The runs that this process sends heartbeats of, to one tracker.

    Args:
        client: The tracker's client.
    """

    def __init__(self, client: TrackingAPIClient) -> None:
        self._client = client
        self.after_fork()

    def after_fork(self) -> None:
        """Send none: in a forked child, whose parent does for its runs."""
        self._lock = threading.Lock()
        self._beating: dict[TrackedRun, Run] = {}

    def expect(self, tracked: TrackedRun) -> None:
        """Say in what is about to be reported of a new run whether heartbeats are to be expected."""
        if tracked.is_dbnd_run and self._client.heartbeats:
            tracked.task_run.run.sends_heartbeat = len(self._beating) < MAX_HEARTS

    def begin(self, tracked: TrackedRun, *, is_started: bool = True) -> None:
        """Send heartbeats of a run; of a run below another one its root's tell.

        Args:
            tracked: The run.
            is_started: Whether this process has started it, and does not only log to it.
        """
        tracked.beats = True
        if not tracked.is_dbnd_run or tracked.is_guess or not self._client.heartbeats:
            return
        with self._lock:
            if tracked in self._beating or len(self._beating) >= MAX_HEARTS:
                return
            self._beating[tracked] = run = tracked.task_run.run
        is_told = False
        speaks_for_another = not is_started or _is_server()

        def goes_on(state: str) -> bool:
            nonlocal is_told
            is_silent = speaks_for_another and monotonic() - tracked.heard_at > PATIENCE
            tracked.beats = not is_silent  # the next that is logged begins again
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
        """Send no more heartbeats of a run."""
        with self._lock:
            run = self._beating.pop(tracked, None)
        if run is not None:
            self._client.stop_heartbeat(run)


def _is_server() -> bool:
    return _SERVES in os.environ and "mlflow.server.handlers" in sys.modules
