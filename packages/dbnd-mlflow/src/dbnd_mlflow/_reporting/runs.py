"""Which task run an MLflow run is reported as."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final, Protocol

from dbnd import TaskRun, TrackingAPIClient, current_task_run, get_databand_context
from dbnd.plugins import console
from dbnd.tracking import ParentTaskRun, Run, TaskDefinition, new_uid, page_url

from .derived import (
    FINAL_STATUSES,
    NOTE,
    PARENT,
    RUN_NAME,
    USER,
    attempt_uid,
    derived_task_run,
    description,
    facts_of,
    foreign,
    guessed,
    is_within,
    moment,
    name_of,
    shown,
    source_of,
)
from .heartbeats import Hearts
from .tags import ATTEMPT_UID, LINK_TAGS, MADE_FOR, RUN_UID, RUN_URL, TASK_RUN_UID, Link
from .tracked import TrackedRun

# What MLflow's errors call a run that does not exist, and an id that none can have.
_NO_SUCH_RUN: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
# So many runs that have ended, or of which only the id is known, are remembered.
MAX_IDLE: Final = 1_000


class Read(Protocol):
    """Reads runs from the user's own store."""

    @property
    def is_near(self) -> bool:
        """Whether that takes no request to a server: a write must never cause one."""

    def run(self, run_id: str) -> Any:
        """The run with this id."""

    def experiment_name(self, experiment_id: str) -> str | None:
        """Name of an experiment, or None where that would take a request."""


class RunMap:
    """The MLflow runs that this process has seen, for one tracker.

    The first top-level MLflow run of a dbnd task is that task's own; any other that is started in a task is a child
    task run. Outside of a task, an MLflow run is a dbnd run, and nested ones are its child task runs.

    Args:
        client: The tracker's client.
    """

    def __init__(self, client: TrackingAPIClient) -> None:
        self._client = client
        self._runs: dict[str, TrackedRun] = {}
        self._owned: set[str] = set()
        self._planned: dict[str, TaskRun] = {}
        # Runs that can be forgotten, longest known first: a server would keep all that it has ever seen.
        self._idle: dict[str, None] = {}
        self.experiments: dict[str, str] = {}
        self.hearts = Hearts(client)
        self.renew_lock()

    def renew_lock(self) -> None:
        """Begin with a free lock: in a forked child, whose parent's threads may have held it."""
        self._lock = threading.Lock()
        self.hearts.after_fork()

    def host(self) -> TaskRun | None:
        """The task run of the calling code, if it is tracked by this map's tracker."""
        context = get_databand_context()
        return current_task_run() if context is not None and context.client is self._client else None

    def plan(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tags by which a run that is about to be created names its task run; none outside of a task.

        Args:
            tags: The tags that it is created with; links among them are those of a run that it is a copy of.
        """
        host = self.host()
        if host is None:
            return {}
        with self._lock:
            is_own = PARENT not in tags and host.uid not in self._owned
            if is_own:
                self._owned.add(host.uid)
                uid, attempt = host.uid, host.attempt_uid
            else:
                uid = str(new_uid())
                attempt = attempt_uid(uid)
            self._planned[uid] = host
        return {
            RUN_UID: host.run.uid,
            TASK_RUN_UID: uid,
            ATTEMPT_UID: attempt,
            RUN_URL: run_url(self._client, host.run),
        }

    def give_back(self, links: Mapping[str, str]) -> None:
        """Undo ``plan`` for a run that could not be created: the next one takes its place.

        Args:
            links: What ``plan`` has returned.
        """
        with self._lock:
            host = self._planned.pop(links[TASK_RUN_UID], None)
            if host is not None and host.uid == links[TASK_RUN_UID]:
                self._owned.discard(host.uid)

    def created(self, run: Any, links: Mapping[str, str], read: Read) -> TrackedRun:
        """Remember a run that has been created.

        Args:
            run: The MLflow run.
            links: What ``plan`` has returned for it.
            read: Reads its parent, if this process does not know it.
        """
        tags, info = run.data.tags, run.info
        parent = self._parent(tags, read, below=frozenset(), may_ask=True)
        experiment = self._experiment(info.experiment_id, read)
        with self._lock:
            host = self._planned.pop(links[TASK_RUN_UID]) if links else None
            if host is None:
                task_run = derived_task_run(run, parent, experiment)
            elif links[TASK_RUN_UID] == host.uid:
                task_run = host
            else:
                task_run = host.run.new_task_run(
                    TaskDefinition(name_of(info), kind="mlflow"),
                    # Nested in an MLflow run of another dbnd run, it hangs below the task that has begun it.
                    parent=parent if parent is not None and parent.run.uid == host.run.uid else host,
                    uid=links[TASK_RUN_UID],
                    attempt_uid=links[ATTEMPT_UID],
                    start_time=moment(info.start_time),
                )
            tracked = TrackedRun(
                task_run, host, is_own=task_run is host, is_announced=True, artifact_uri=info.artifact_uri
            )
            if links:
                tracked.links = {**links, MADE_FOR: info.run_id}
            tracked.info, tracked.facts = info, facts_of(tags)
            self._runs[info.run_id] = tracked
        return tracked

    def seen(self, run: Any, read: Read, below: frozenset[str] = frozenset()) -> TrackedRun:
        """The task run of an MLflow run that was read from the store, perhaps created by another process.

        Args:
            run: The MLflow run.
            read: Reads its parent, if this process does not know it.
            below: Ids of runs that are below it: of parents that go round in a circle none is the topmost.
        """
        run_id, tags = run.info.run_id, run.data.tags
        known = self._runs.get(run_id)
        if known is not None and not known.is_guess:
            return known
        parent = self._parent(tags, read, below | {run_id}, may_ask=read.is_near)
        experiment = self._experiment(run.info.experiment_id, read)
        with self._lock:
            tracked = self._runs.get(run_id)
            if tracked is None or tracked.is_guess:
                link = Link.of(run)
                if link is not None:
                    is_own = link.attempt_uid != attempt_uid(link.task_run_uid)
                    task_run = foreign(*link, name_of(run.info))
                    task_run.run.start_time = moment(run.info.start_time)
                    # Its state is told by the run that it belongs to, wherever that is.
                    tracked = TrackedRun(task_run, task_run, is_own=is_own)
                    tracked.links = {name: tags[name] for name in LINK_TAGS & tags.keys()}
                else:
                    task_run = derived_task_run(run, parent, experiment)
                    task_run.run.is_elsewhere = parent is None or parent.run.is_elsewhere
                    # Links that are not said to be its own: it is a copy, or was made this very moment.
                    is_guess = TASK_RUN_UID in tags and MADE_FOR not in tags
                    tracked = TrackedRun(task_run, None, is_own=False, is_guess=is_guess)
                tracked.has_ended = run.info.status in FINAL_STATUSES
                tracked.artifact_uri = run.info.artifact_uri
                tracked.info, tracked.facts = run.info, facts_of(tags)
                self._runs[run_id] = tracked
                if tracked.has_ended:
                    self._retire(run_id)
                else:
                    self._idle.pop(run_id, None)
            return tracked

    def _experiment(self, experiment_id: str, read: Read) -> str | None:
        """Name of an experiment, if this process knows it or may read it."""
        if experiment_id not in self.experiments:
            name = read.experiment_name(experiment_id)
            if name is None:
                return None
            self.experiments[experiment_id] = name
        return self.experiments[experiment_id]

    def _parent(self, tags: Mapping[str, str], read: Read, below: frozenset[str], *, may_ask: bool) -> TaskRun | None:
        """The task run of a run's parent, of which perhaps nothing but its id is known.

        A run whose parent does not exist stands for itself: below nothing nobody would find it.
        """
        parent_id = tags.get(PARENT)
        if not parent_id or parent_id in below:
            return None
        tracked = self._runs.get(parent_id)
        if tracked is None and may_ask:
            tracked = self._look_up(parent_id, read, below)
        if tracked is None and read.is_near:
            return None
        return guessed(parent_id) if tracked is None else tracked.task_run

    def change(self, tracked: TrackedRun, changes: Mapping[str, str | None], read: Read) -> bool:
        """Apply what tags say of a run, and return whether the tracker is to be told.

        Args:
            tracked: The run.
            changes: The new values of tags that are facts; None for one that was taken back.
            read: Reads its parent, if this process does not know it.
        """
        before, task_run = tracked.facts, tracked.task_run
        # A name stays when its tag is taken back, as in MLflow.
        kept = {key: value for key, value in before.items() if key not in changes or key == RUN_NAME}
        tracked.facts = facts = kept | {key: value for key, value in changes.items() if value}
        # Of another process' run it was read only now what it is like, perhaps after the change.
        is_new = facts != before or not tracked.is_announced
        if not is_new or tracked.info is None or tracked.is_own:  # a task says itself what it is called
            return False
        name = shown(facts.get(RUN_NAME)) or task_run.name
        if name != task_run.name:
            task_run.definition = TaskDefinition(name, kind=task_run.definition.kind)
        parent = self._parent(facts, read, below=frozenset({tracked.info.run_id}), may_ask=read.is_near)
        if parent is None and tracked.host is not task_run:
            parent = tracked.host
        if parent is not None and not is_within(parent, task_run):
            self._move(tracked, parent)
        elif parent is None and tracked.host is None and task_run.parent is not None:
            self._move_out(tracked, read)
        if tracked.is_dbnd_run:
            run = task_run.run
            run.name = name
            run.user = shown(facts.get(USER)) or run.user
            run.description = description(facts) or ("" if run.description or NOTE in changes else None)
            run.job_name = source_of(facts) or run.job_name
        return True

    def _move(self, tracked: TrackedRun, parent: TaskRun) -> None:
        """Move a task run, and what is below it, below another one; one of a task stays in the task's run."""
        task_run = tracked.task_run
        if tracked.host is None:
            self._put(task_run, parent.run)
        if parent.run.uid == task_run.run.uid:
            task_run.parent = parent
            tracked.is_detached = False

    def _move_out(self, tracked: TrackedRun, read: Read) -> None:
        """Make a run of its own again of one that is nested no more, with what is below it."""
        task_run, former = tracked.task_run, tracked.task_run.run
        experiment = self._experiment(tracked.info.experiment_id, read)
        run = Run(
            source_of(tracked.facts) or experiment or former.job_name,
            former.cmd_name,
            project_name=experiment,
            user=shown(tracked.info.user_id) or former.user,
            uid=task_run.uid,
            start_time=task_run.start_time,
            is_elsewhere=former.is_elsewhere,
            root=task_run,
        )
        self._put(task_run, run)
        task_run.parent = None
        tracked.is_detached = True

    def _put(self, task_run: TaskRun, run: Run) -> None:
        """Put a task run and those below it into a run."""
        for other in [task_run, *(each.task_run for each in list(self._runs.values()))]:
            if other.run is not run and is_within(other, task_run):
                other.run = run

    def find(self, run_id: str, read: Read) -> TrackedRun:
        """The task run of an MLflow run by its id.

        A run that this process has never seen may be one of a dbnd task, which only its tags tell. It is read once if
        that takes no request to a server, or if there is good reason to: in a context, or in a process that a task has
        started. Elsewhere its uids follow from its id.

        Args:
            run_id: Id of the MLflow run.
            read: Reads a run from the user's own store.
        """
        tracked = self._runs.get(run_id)
        if tracked is not None:
            return tracked
        tracked = self._look_up(run_id, read, frozenset())
        if tracked is not None:
            return tracked
        with self._lock:
            self._retire(run_id)
            return self._runs.setdefault(run_id, TrackedRun(guessed(run_id), None, is_own=False, is_guess=True))

    def _look_up(self, run_id: str, read: Read, below: frozenset[str]) -> TrackedRun | None:
        """Read a run, where that is allowed; None if it is not, or in vain."""
        if not (read.is_near or self.host() is not None or ParentTaskRun.of_environment() is not None):
            return None
        try:
            return self.seen(read.run(run_id), read, below)
        except Exception as error:  # noqa: BLE001  whatever a store raises; what follows from the id stands
            if getattr(error, "error_code", None) not in _NO_SUCH_RUN:
                console.warning(f"The MLflow run {run_id} cannot be read ({type(error).__name__}).")
            return None

    def known_in(self, experiment_id: str) -> list[TrackedRun]:
        """The runs of an experiment that this process knows."""
        with self._lock:
            runs = [tracked for tracked in self._runs.values() if tracked.info is not None]
        return [tracked for tracked in runs if str(tracked.info.experiment_id) == str(experiment_id)]

    def ended(self, run_id: str) -> None:
        """A run was given a final status: it is kept for those who come late, and forgotten in time."""
        with self._lock:
            self._retire(run_id)

    def reopened(self, run_id: str) -> None:
        """A run goes on: it is to be kept."""
        with self._lock:
            self._idle.pop(run_id, None)

    def _retire(self, run_id: str) -> None:
        self._idle.pop(run_id, None)
        self._idle[run_id] = None
        while len(self._idle) > MAX_IDLE:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            self._runs.pop(oldest, None)

    def __contains__(self, run_id: str) -> bool:
        with self._lock:
            return run_id in self._runs


def run_url(client: TrackingAPIClient, run: Run) -> str:
    """Where a run can be looked at: its page, or for an embedded tracker its file and uid."""
    return page_url(client.url, run.job_name, run.uid) or f"{client.name}#{run.uid}"
