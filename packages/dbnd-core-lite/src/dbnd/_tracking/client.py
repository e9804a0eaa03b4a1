"""The tracking client: every call is an event in the journal, and returns."""

from __future__ import annotations

import atexit
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final

from dbnd._base.clock import monotonic, utc_now
from dbnd._base.forks import in_children, renew_after_fork
from dbnd._base.masking import mask_url
from dbnd._config.settings import CoreSettings, RunSettings
from dbnd._journal.journal import JournalClosedError
from dbnd._model import wire
from dbnd._model.error_info import ErrorInfo, message_of
from dbnd._model.points import Group
from dbnd._model.run import Run, RunState, TaskRun, TaskRunState
from dbnd._terminal import console
from dbnd._tracking.channel import Channel
from dbnd._tracking.transport import Transport, TransportFactory

if TYPE_CHECKING:
    from dbnd._config.config import Config

# Seconds after which a journal that could not be opened is tried again.
_OPEN_AGAIN: Final = 5.0


class TrackingAPIClient:
    """Takes tracking events for one tracker, keeps them and delivers them in the background.

    A call costs one append to a file and never raises: trouble with disk, network or tracker is counted and said, and
    never reaches the caller. Any number of threads may call.

    Args:
        url: The tracker: http(s), or a URL that an installed transport serves.
        config: Time-outs, credentials and the rest of the transport's settings.
        make_transport: Makes what carries events to ``url``.

    Attributes:
        watch: Called with the groups of every ``log_metrics``, for what shows a run while it goes on. The caller of a
            log call waits for it, and a forked child does not inherit it.

    Raises:
        ConfigError: No transport serves the URL's scheme.
    """

    def __init__(self, url: str, config: Config, make_transport: TransportFactory) -> None:
        self.url: Final = url
        self._make_transport: Final = make_transport
        self._config = config
        self._settings = config.settings(CoreSettings)
        # Made here, in the caller's thread, and not by the sender: two threads importing the same libraries at once
        # can see them half imported. Nothing is connected yet.
        self._transport: Transport | None = make_transport(url, config)
        self._name: Final = mask_url(url)
        self._warn_of_loss = console.once_a_minute()
        self._start_afresh()
        _clients.add(self)
        renew_after_fork(self)

    def reconfigure(self, config: Config) -> None:
        """Use other credentials and time-outs from now on, also for what is unsent.

        Args:
            config: The configuration, of the same tracker.
        """
        settings = config.settings(CoreSettings)
        if settings == self._settings:
            return
        self._config, self._settings = config, settings
        transport = self._make_transport(self.url, config)
        with self._opening:
            if self._channel is None:
                self._transport = transport
            else:
                self._channel.sender.use(transport)

    def _start_afresh(self) -> None:
        """Begin without a journal: at first, and in a forked child, whose parent owns the old one."""
        self._opening = threading.RLock()  # a signal handler may log, too
        self._channel: Channel | None = None
        self.dropped = 0
        self.watch: Callable[[list[Group]], object] | None = None
        # Seconds that were waited in vain for a tracker that takes nothing.
        self._waited = 0.0
        # Why the journal could not be opened, and when that is tried again.
        self._unopened: OSError | None = None
        self._open_again_at = 0.0
        # Seconds spent on what was logged after the end of the process' tracking, and whether what is left was said.
        self._late = 0.0
        self._said_late = False
        # Counts already reported, so that the same warning is not repeated.
        self._told = (0, 0, 0, 0, 0)

    @property
    def name(self) -> str:
        """The tracker as messages name it: the URL without credentials."""
        return self._name

    @property
    def unsent(self) -> int:
        """Number of events that the tracker has not taken yet."""
        channel = self._channel
        return 0 if channel is None else channel.journal.unsent

    @property
    def refused(self) -> int:
        """Number of events that the tracker refused for good; they are kept as dead letters."""
        channel = self._channel
        return 0 if channel is None else channel.sender.dead

    @property
    def trouble(self) -> str | None:
        """Why the tracker does not take events at the moment, or None while it does."""
        channel = self._channel
        return None if channel is None else channel.sender.trouble

    def init_run(self, run: Run, root: TaskRun, *, detached: bool = False) -> None:
        """Report a new run with its root task run.

        Args:
            run: The run.
            root: Its root task run.
            detached: Whether it was a task run of another run.
        """
        channel = self._report("init_run", lambda: wire.init_run(run, root, databand_url=self.name, detached=detached))
        if channel is not None:
            run.is_known = functools.partial(channel.has_taken, channel.journal.accepted, run.uid)

    def add_task_runs(self, run: Run, task_runs: Iterable[TaskRun]) -> None:
        """Report task runs that a run has got since."""
        self._report("add_task_runs", lambda: wire.add_task_runs(run, task_runs))

    def update_task_run_attempts(
        self,
        task_run: TaskRun,
        state: TaskRunState,
        *,
        timestamp: datetime | None = None,
        error: ErrorInfo | None = None,
    ) -> None:
        """Report a new state of a task run: its start time if RUNNING, its end time if final."""
        time_ = timestamp or utc_now()
        task_run.enter(state, time_)
        self._report("update_task_run_attempts", lambda: wire.attempt_update(task_run, state, time_, error))

    def set_run_state(self, run: Run, state: RunState, *, timestamp: datetime | None = None) -> None:
        """Report a new state of a run."""
        run.state = state
        self._report("set_run_state", lambda: wire.run_state(run.uid, state, timestamp or utc_now()))

    def set_unfinished_tasks_state(self, run: Run, state: TaskRunState, *, timestamp: datetime | None = None) -> None:
        """Put every task run of ``run`` that is in no final state into ``state``."""
        time_ = timestamp or utc_now()
        self._report("set_unfinished_tasks_state", lambda: wire.run_state(run.uid, state, time_))

    def log_metrics(self, groups: list[Group]) -> None:
        """Report metrics, params and tags, in one event.

        Args:
            groups: As ``points.group`` makes them. Their source tells who logged them: "user", ``METRIC_SOURCE``…
        """
        if groups:
            self._append("log_metrics", groups)
            if self.watch is not None:
                self.watch(groups)

    def log_artifact(self, attempt_uid: str, name: str, path: str) -> None:
        """Report where an artifact stands; its content is not sent."""
        self._report("log_artifact", lambda: wire.artifact(attempt_uid, name, mask_url(path)))

    def log_targets(self, task_run: TaskRun, result: object) -> None:
        """Report what a task returned: type, shape and a preview."""
        self._report("log_targets", lambda: wire.result_target(task_run, result))

    def log_datasets(self, task_run: TaskRun, operation: wire.DatasetOperation) -> None:
        """Report that a task run read or wrote a dataset."""
        self._report("log_datasets", lambda: wire.dataset_operation(task_run, operation))

    def save_external_links(self, task_run: TaskRun, links: Mapping[str, str]) -> None:
        """Add links to a task run, by name."""
        masked = {name: mask_url(link) for name, link in links.items()}
        task_run.links |= masked
        self._report("save_external_links", lambda: wire.external_links(task_run.attempt_uid, masked))

    def save_task_run_log(self, attempt_uid: str, text: str) -> None:
        """Report what a task run has printed; replaces what was reported before."""
        self._report("save_task_run_log", lambda: wire.task_run_log(attempt_uid, text))

    @property
    def heartbeats(self) -> bool:
        """Whether heartbeats are sent at all."""
        return self._config.settings(RunSettings).heartbeat_interval_s > 0

    def start_heartbeat(self, run: Run, goes_on: Callable[[str], bool]) -> None:
        """Tell the tracker at regular times that ``run`` is alive, until ``stop_heartbeat``.

        Args:
            run: The run.
            goes_on: Called, in another thread, with the state that the tracker answers: whether to go on.
        """
        channel, interval = self._channel, self._config.settings(RunSettings).heartbeat_interval_s
        if channel is None or interval <= 0:
            return

        def on_state(state: str) -> None:
            if not goes_on(state):
                channel.sender.end_beat(run.uid)

        channel.sender.beat(run.uid, interval, on_state)

    def stop_heartbeat(self, run: Run) -> None:
        """Send no more heartbeats of ``run``."""
        if self._channel is not None:
            self._channel.sender.end_beat(run.uid)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything logged so far is delivered.

        Args:
            timeout: Seconds to wait at most. None for a tracker that takes nothing is what is left of
                ``core.flush_timeout`` after earlier waits in vain; then a terminal shows how far it is.

        Returns:
            Whether all of it is delivered; what is not stays in the journal.
        """
        channel = self._channel
        return channel is None or self._deliver(channel, timeout)

    def left_over(self) -> str | None:
        """What is to be said about events that are not delivered, in sentences, unless it was said before."""
        return self._left_over(self._channel)

    def close(self, timeout: float | None = None) -> str | None:
        """Flush, and remove the journal if nothing in it is unsent. A later call starts a new one.

        Args:
            timeout: As of ``flush``.

        Returns:
            What is to be said about events that are not delivered, unless it was said before.
        """
        with self._opening:
            channel, self._channel = self._channel, None
        if channel is None:
            return self._left_over(None)
        channel.journal.seal()
        with suppress(KeyboardInterrupt):  # somebody does not want to wait
            self._deliver(channel, timeout)
        problem = self._left_over(channel)
        channel.close()
        return problem

    def _deliver(self, channel: Channel, timeout: float | None = None) -> bool:
        if timeout is not None:
            return channel.sender.flush(timeout)
        started = monotonic()
        try:
            done = channel.drain(max(0.0, self._settings.flush_timeout - self._waited))
        except BaseException:
            self._waited = self._settings.flush_timeout
            raise
        self._waited = 0.0 if done else self._waited + monotonic() - started
        return done

    def _left_over(self, channel: Channel | None) -> str | None:
        counts = (*(channel.counts() if channel is not None else (0, 0, 0, 0)), self.dropped)
        if counts == self._told:
            return None
        self._told = counts
        sentences = channel.left_over() if channel is not None else []
        if self.dropped:
            sentences.append(f"{self.dropped} events could not be written to the journal and are lost.")
        return " ".join(sentences) or None

    def _append(self, call: str, body: object) -> Channel | None:
        """Keep an event; None when that is not possible."""
        try:
            while True:
                channel = self._channel or self._open()
                try:
                    channel.append(call, body)
                except JournalClosedError:  # another thread has closed the client since
                    continue
                break
        except Exception as error:  # noqa: BLE001  whatever it is, it is not the user's code that must deal with it
            self.drop(call, error)
            return None
        if channel.is_late:
            self._deliver_late(channel)
        return channel

    def _report(self, call: str, make_body: Callable[[], object]) -> Channel | None:
        try:
            body = make_body()
        except Exception as error:  # noqa: BLE001  text forms of the user's objects come from his own code
            self.drop(call, error)
            return None
        return self._append(call, body)

    def _deliver_late(self, channel: Channel) -> None:
        """Deliver what is logged after the end of tracking at once: nobody does it later in this process.

        All of that takes ``core.flush_timeout`` at most; what is left then is said once.
        """
        started = monotonic()
        try:
            if self._late < self._settings.flush_timeout:
                self._deliver(channel)
            problem = self._left_over(channel)
        except Exception as error:  # noqa: BLE001  a transport may come from a plugin
            problem = f"{type(error).__name__}: {error}"
        self._late += monotonic() - started
        if problem and not self._said_late:
            self._said_late = True
            console.warning(f"Logged after the end of tracking: {problem} What follows may wait there, too.")
        if not channel.journal.unsent:
            self.close(0)

    def drop(self, call: str, error: Exception) -> None:
        """Count an event that could not be kept, and say so at most once a minute."""
        self.dropped += 1
        why = message_of(error)
        self._warn_of_loss(f"An event ({call}) could not be kept and is lost: {why}. The run goes on.")

    def _open(self) -> Channel:
        with self._opening:
            if self._channel is None:
                if self._unopened is not None and monotonic() < self._open_again_at:
                    raise OSError(*self._unopened.args)
                transport, self._transport = self._transport or self._make_transport(self.url, self._config), None
                try:
                    self._channel = Channel(self.name, self._settings, transport, is_late=_is_over)
                except OSError as error:
                    self._unopened, self._open_again_at = error, monotonic() + _OPEN_AGAIN
                    self._transport = transport
                    raise
                self._unopened = None
                _close_at_exit_of_child()
            return self._channel

    def after_fork(self) -> None:
        """Leave journal, sender and connections to the parent (see ``ForkAware``)."""
        if self._channel is not None:
            self._channel.journal.abandon()
        # Kept, for what a destructor does to a connection (to a database's, above all) would disturb the parent.
        _of_parents.append((self._channel, self._transport))
        self._transport = None
        self._start_afresh()


_clients: Final[weakref.WeakSet[TrackingAPIClient]] = weakref.WeakSet()
_of_parents: Final[list[object]] = []
# Whether the process has come to its end, and `close_all` was called.
_is_over = False


def close_all() -> None:
    """Drain and close every client of this process; called at its exit, and harmless when repeated.

    What is logged from then on, by handlers and threads that end later, is delivered by the log call itself.
    """
    global _is_over  # noqa: PLW0603  one process, one end
    _is_over = True
    for client in list(_clients):
        try:
            problem = client.close()
            if problem:
                console.warning(problem)
        except Exception as error:  # noqa: BLE001  a transport may come from a plugin; the others end, too
            console.warning(f"The client of {client.name} did not end as it should ({type(error).__name__}: {error}).")


def _close_at_exit_of_child() -> None:
    """A child of multiprocessing leaves by ``os._exit``, without ``atexit``; its own finalizers do run."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        from multiprocessing import util

        util.Finalize(None, close_all, exitpriority=-1)


@in_children
def _begin_anew() -> None:
    global _is_over  # noqa: PLW0603  the child only begins
    _is_over = False


atexit.register(close_all)
