"""The tracking client: every call is an event in the journal, and returns."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dbnd import _console
from dbnd._facts import utc_now
from dbnd._masking import mask_url
from dbnd._paths import dbnd_home
from dbnd._run import Run, RunState, TaskRun, TaskRunState
from dbnd._settings import CoreSettings
from dbnd._tracking import wire
from dbnd._tracking.journal import Journal, JournalClosedError
from dbnd._tracking.points import Group
from dbnd._tracking.sender import Sender
from dbnd._tracking.transport import create_transport

if TYPE_CHECKING:
    from dbnd._config import Config


class TrackingAPIClient:
    """Takes tracking events for one tracker, keeps them and delivers them in the background.

    A call costs one append to a file and never raises: trouble with disk, network or tracker is counted and said, and
    never reaches the caller. Any number of threads may call.

    Args:
        url: The tracker: http(s), or a URL that an installed transport serves.
        config: Time-outs, credentials and the rest of the transport's settings.

    Attributes:
        watch: Called with the groups of every ``log_metrics``, for what shows a run while it goes on. The caller of a
            log call waits for it, and a forked child does not inherit it.

    Raises:
        ConfigError: No transport serves the URL's scheme.
    """

    def __init__(self, url: str, config: Config) -> None:
        self.url: Final = url
        self._config = config
        self._settings = config.settings(CoreSettings)
        # Made here, in the caller's thread, and not by the sender: two threads importing the same libraries at once
        # can see them half imported. Nothing is connected yet.
        self._transport = create_transport(url, config)
        self._start_afresh()
        _clients.add(self)

    def _start_afresh(self) -> None:
        """Begin without a journal: at first, and in a forked child, whose parent owns the old one."""
        self._opening = threading.Lock()
        self._channel: _Channel | None = None
        self.dropped = 0
        self.watch: Callable[[list[Group]], object] | None = None

    @property
    def name(self) -> str:
        """The tracker as messages name it: the URL without credentials."""
        return mask_url(self.url)

    @property
    def unsent(self) -> int:
        """Number of events that the tracker has not taken yet."""
        channel = self._channel
        return 0 if channel is None else channel.journal.unsent

    @property
    def refused(self) -> int:
        """Number of events that the tracker refused for good; they are in the dead-letter file."""
        channel = self._channel
        return 0 if channel is None else channel.journal.dead

    @property
    def trouble(self) -> str | None:
        """Why the tracker does not take events at the moment, or None while it does."""
        channel = self._channel
        return None if channel is None else channel.sender.trouble

    @property
    def journal_path(self) -> Path:
        """The file with the unsent events, or, before the first event, its folder."""
        channel = self._channel
        return journal_folder() if channel is None else channel.journal.path

    def init_run(self, run: Run, root: TaskRun) -> None:
        """Report a new run with its root task run."""
        self._append("init_run", wire.init_run(run, root, databand_url=mask_url(self.url)))

    def add_task_runs(self, run: Run, task_runs: Iterable[TaskRun]) -> None:
        """Report task runs that a run has got since."""
        self._append("add_task_runs", wire.add_task_runs(run, task_runs))

    def update_task_run_attempts(
        self,
        task_run: TaskRun,
        state: TaskRunState,
        *,
        timestamp: datetime | None = None,
        error: wire.ErrorInfo | None = None,
    ) -> None:
        """Report a new state of a task run: its start time if RUNNING, its end time if final."""
        timestamp = timestamp or utc_now()
        task_run.enter(state, timestamp)
        self._append("update_task_run_attempts", wire.attempt_update(task_run, state, timestamp, error))

    def set_run_state(self, run: Run, state: RunState, *, timestamp: datetime | None = None) -> None:
        """Report a new state of a run."""
        run.state = state
        self._append("set_run_state", wire.run_state(run.uid, state, timestamp or utc_now()))

    def set_unfinished_tasks_state(self, run: Run, state: TaskRunState, *, timestamp: datetime | None = None) -> None:
        """Put every task run of ``run`` that is in no final state into ``state``."""
        body = wire.unfinished_tasks_state(run.uid, state, timestamp or utc_now())
        self._append("set_unfinished_tasks_state", body)

    def log_metrics(self, groups: list[Group]) -> None:
        """Report metrics, params and tags, in one event.

        Args:
            groups: ``[attempt uid, source, points]`` each, with points as the module ``points`` makes them. The source
                tells who logged them: "user", "mlflow", "mlflow.param", "mlflow.tag".
        """
        if groups:
            self._append("log_metrics", groups)
            if self.watch is not None:
                self.watch(groups)

    def log_artifact(self, attempt_uid: str, name: str, path: str) -> None:
        """Report where an artifact stands; its content is not sent."""
        self._append("log_artifact", wire.artifact(attempt_uid, name, mask_url(path)))

    def log_targets(self, task_run: TaskRun, result: object) -> None:
        """Report what a task returned: type, shape and a preview."""
        self._append("log_targets", wire.result_target(task_run, result))

    def log_datasets(self, task_run: TaskRun, operation: wire.DatasetOperation) -> None:
        """Report that a task run read or wrote a dataset."""
        self._append("log_datasets", wire.dataset_operation(task_run, operation))

    def save_external_links(self, task_run: TaskRun, links: Mapping[str, str]) -> None:
        """Add links to a task run, by name."""
        masked = {name: mask_url(link) for name, link in links.items()}
        task_run.links |= masked
        self._append("save_external_links", wire.external_links(task_run.attempt_uid, masked))

    def save_task_run_log(self, attempt_uid: str, text: str) -> None:
        """Report what a task run has printed; replaces what was reported before."""
        self._append("save_task_run_log", wire.task_run_log(attempt_uid, text))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything logged so far is delivered.

        Args:
            timeout: Seconds to wait at most; None for ``core.flush_timeout``.

        Returns:
            Whether all of it is delivered; what is not stays in the journal.
        """
        channel = self._channel
        if channel is None:
            return True
        return channel.sender.flush(self._settings.flush_timeout if timeout is None else timeout)

    def close(self, timeout: float | None = None) -> None:
        """Flush, and remove the journal if nothing in it is unsent. A later call starts a new one."""
        self.flush(timeout)
        with self._opening:
            channel, self._channel = self._channel, None
        if channel is not None and channel.sender.stop():
            channel.journal.close()

    def _append(self, call: str, body: object) -> None:
        try:
            channel = self._channel or self._open()
            try:
                channel.journal.append(call, body)
            except JournalClosedError:  # another thread has closed the client since
                channel = self._open()
                channel.journal.append(call, body)
            channel.sender.notify()
        except (OSError, TypeError, ValueError) as error:
            self.dropped += 1
            if self.dropped == 1:
                _console.warning(f"An event ({call}) could not be kept and is lost: {error}. The run goes on.")

    def _open(self) -> _Channel:
        with self._opening:
            if self._channel is None:
                journal = Journal(journal_folder(), self.name)
                self._channel = _Channel(journal, Sender(journal, self._transport, self.name))
                _close_at_exit_of_child()
            return self._channel

    def _after_fork(self) -> None:
        if self._channel is not None:
            self._channel.journal.abandon()
        # Connections belong to the parent.
        self._transport = create_transport(self.url, self._config)
        self._start_afresh()


@dataclass(frozen=True, slots=True)
class _Channel:
    """A journal and the sender that empties it."""

    journal: Journal
    sender: Sender


_clients: Final[weakref.WeakSet[TrackingAPIClient]] = weakref.WeakSet()
_by_url: Final[dict[str, TrackingAPIClient]] = {}
_making: Final = threading.RLock()


def journal_folder() -> Path:
    """The folder of the journals."""
    return dbnd_home() / "journal"


def get_client(url: str, config: Config) -> TrackingAPIClient:
    """This process' client for ``url``: one for each URL, whoever asks.

    Raises:
        ConfigError: No transport serves the URL's scheme.
    """
    with _making:
        if url not in _by_url:
            _by_url[url] = TrackingAPIClient(url, config)
        return _by_url[url]


def close_all() -> None:
    """Flush and close every client of this process; called at its exit, and harmless when repeated."""
    for client in list(_clients):
        client.close()


def _close_at_exit_of_child() -> None:
    """A child of multiprocessing leaves by ``os._exit``, without ``atexit``; its own finalizers do run."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        from multiprocessing import util

        util.Finalize(None, close_all, exitpriority=-1)


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()  # noqa: SLF001  the clients of the same module


atexit.register(close_all)
os.register_at_fork(after_in_child=_after_fork_in_child)
