"""The tracking client: every call is an event in the journal, and returns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from dbnd._base.clock import utc_now
from dbnd._base.masking import mask_url
from dbnd._config.settings import RunSettings
from dbnd._model import wire
from dbnd._model.error_info import ErrorInfo
from dbnd._model.points import Group
from dbnd._model.run import Run, RunState, TaskRun, TaskRunState
from dbnd._tracking.contracts import TransportFactory
from dbnd._tracking.outbox import Outbox
from dbnd._tracking.relayed import Relayed
from dbnd._tracking.sender import Sender

if TYPE_CHECKING:
    from dbnd._config.config import Config


class TrackingAPIClient(Outbox):
    """Takes tracking events for one tracker, keeps them and delivers them in the background.

    A call costs one append to a file and never raises: trouble with disk, network or tracker is counted and said, and
    never reaches the caller. Any number of threads may call.

    Attributes:
        watch: Called with the groups of every ``log_metrics``, for what shows a run while it goes on. The caller of a
            log call waits for it, and a forked child does not inherit it.
    """

    def __init__(self, url: str, config: Config, make_transport: TransportFactory) -> None:
        super().__init__(url, config, make_transport)
        self.watch: Callable[[list[Group]], object] | None = None

    def init_run(self, run: Run, root: TaskRun, *, detached: bool = False) -> None:
        """Report a new run with its root task run; ``detached`` says that it was a task run of another run."""
        sender = self._report("init_run", lambda: wire.init_run(run, root, databand_url=self.name, detached=detached))
        if sender is not None:
            run.is_known = functools.partial(sender.has_taken, sender.journal.accepted, run.uid)

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
        time = timestamp or utc_now()
        task_run.enter(state, time)
        self._report("update_task_run_attempts", lambda: wire.attempt_update(task_run, state, time, error))

    def set_run_state(self, run: Run, state: RunState, *, timestamp: datetime | None = None) -> None:
        """Report a new state of a run."""
        run.state = state
        self._report("set_run_state", lambda: wire.run_state(run.uid, state, timestamp or utc_now()))

    def set_unfinished_tasks_state(self, run: Run, state: TaskRunState, *, timestamp: datetime | None = None) -> None:
        """Put every task run of ``run`` that is in no final state into ``state``."""
        self._report("set_unfinished_tasks_state", lambda: wire.run_state(run.uid, state, timestamp or utc_now()))

    def log_metrics(self, groups: list[Group]) -> None:
        """Report metrics, params and tags, in one event: groups that ``dbnd.tracking.group`` has made."""
        if groups:
            self.keep("log_metrics", groups)
            if watch := self.watch:  # which another thread may end
                watch(groups)

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

    def _report(self, call: str, make_body: Callable[[], object]) -> Sender | Relayed | None:
        try:
            body = make_body()
        except Exception as error:  # noqa: BLE001  text forms of the user's objects come from his own code
            self.drop(call, error)
            return None
        return self.keep(call, body)

    @property
    def heartbeats(self) -> bool:
        """Whether heartbeats are sent at all."""
        return not self.is_relayed and self._heartbeat_interval() > 0

    def _heartbeat_interval(self) -> float:
        return self._config.settings(RunSettings).heartbeat_interval_s

    def start_heartbeat(self, run: Run, goes_on: Callable[[str], bool]) -> None:
        """Tell the tracker at regular times that ``run`` is alive, until ``stop_heartbeat``.

        ``goes_on`` is called, in another thread, with the state that the tracker answers: whether to go on.
        """
        if (sender := self._sender) and self.heartbeats:
            sender.beat(run.uid, self._heartbeat_interval(), goes_on)

    def stop_heartbeat(self, run: Run) -> None:
        """Send no more heartbeats of ``run``."""
        if sender := self._sender:
            sender.end_beat(run.uid)

    def after_fork(self) -> None:
        """Leave journal, sender, connections and whoever watches to the parent (see ``ForkAware``)."""
        super().after_fork()
        self.watch = None
