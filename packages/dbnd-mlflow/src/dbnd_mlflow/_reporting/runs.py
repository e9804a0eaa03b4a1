"""Which task run an MLflow run is reported as."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, Final

from dbnd import TaskRun, TrackingAPIClient, current_task_run, get_databand_context
from dbnd.plugins import console
from dbnd.tracking import ParentTaskRun, Run, TaskDefinition, new_uid, page_url

from .derived import STATES, attempt_uid, derived_task_run, foreign, guessed, moment, name_of, note_of, shown, source_of
from .heartbeats import Heartbeats
from .store_reader import StoreReader
from .tags import LINK_TAGS, MADE_FOR, NOTE, PARENT, RUN_NAME, RUN_URL, TASK_RUN_UID, USER, Link, fields_of
from .tracked import TrackedRun

# How MLflow answers for a run that does not exist, and for an id that none can have.
NO_SUCH_RUN: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
# How many runs are remembered that have ended, or of which only the id is known.
MAX_IDLE: Final = 1_000


class RunMap:
    """The MLflow runs that this process has seen, for one tracker.

    The first top-level MLflow run of a dbnd task is that task's own; any other that is started in a task, or in a fork
    of its process, is a child task run. Outside of a task, an MLflow run is a dbnd run, and nested ones are its child
    task runs.
    """

    def __init__(self, client: TrackingAPIClient) -> None:
        self._client = client
        self._runs: dict[str, TrackedRun] = {}
        # Uids of the tasks that have an MLflow run of their own.
        self._owned: set[str] = set()
        # Tasks in which a run is being created, by the uid of its task run.
        self._planned: dict[str, TaskRun] = {}
        # Runs that can be forgotten, oldest first: a server would otherwise keep all that it has ever seen.
        self._idle: dict[str, None] = {}
        self.experiments: dict[str, str] = {}
        self.heartbeats = Heartbeats(client)
        self._has_said = False
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with a free lock: a thread of the parent may have held it."""
        self._lock = threading.RLock()
        self.heartbeats.after_fork()

    def say_where(self, run: Run) -> None:
        """Say where the first run of a script is tracked, which nobody has said that gave it nothing but a URI."""
        if self._has_said:
            return
        self._has_said = True
        url = page_url(self._client.url, run.job_name, run.uid)
        shown_by = url or f"{self._client.name} (`dbnd runs show {run.uid[:8]}`)"
        console.info(f"Run {run.name} of {run.job_name}, tracked in {shown_by}")

    def __contains__(self, run_id: str) -> bool:
        with self._lock:
            return run_id in self._runs

    def known(self) -> list[TrackedRun]:
        with self._lock:
            return list(self._runs.values())

    def plan(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tags by which a run that is about to be created with ``tags`` names its task run, if any."""
        host = self._host()
        if host is None:
            return {}
        run_uid = host.run.uid
        with self._lock:
            # Forked children know nothing of each other: only the process that has begun a task gives it a run.
            if PARENT not in tags and host.uid not in self._owned and host.pid == os.getpid():
                self._owned.add(host.uid)
                link = Link(run_uid, host.uid, host.attempt_uid)
            else:
                uid = str(new_uid())
                link = Link(run_uid, uid, attempt_uid(uid))
            self._planned[link.task_run_uid] = host
        # An embedded tracker has no pages: its file and the uid take their place.
        url = page_url(self._client.url, host.run.job_name, run_uid) or f"{self._client.name}#{run_uid}"
        return {**link.tags(), RUN_URL: url}

    def give_back(self, links: Mapping[str, str]) -> None:
        """Undo ``plan`` for a run that could not be created."""
        with self._lock:
            host = self._planned.pop(links[TASK_RUN_UID], None)
            if host is not None and host.uid == links[TASK_RUN_UID]:
                self._owned.discard(host.uid)

    def created(self, run: Any, links: Mapping[str, str], read: StoreReader) -> TrackedRun:
        """Remember a run that has been created with what ``plan`` has returned."""
        info = run.info
        parent = self._parent(run.data.tags, read, below=frozenset(), may_ask=True)
        experiment = self._experiment(info.experiment_id, read)
        with self._lock:
            link = Link.in_tags(links)
            host = None if link is None else self._planned.pop(link.task_run_uid)
            if link is None or host is None:
                task_run = derived_task_run(run, parent, experiment)
            elif link.task_run_uid == host.uid:
                task_run = host
            else:
                task_run = host.run.new_task_run(
                    TaskDefinition(name_of(info), kind="mlflow"),
                    # Nested in an MLflow run of another dbnd run, it hangs below the task that has begun it.
                    parent=parent if parent is not None and parent.run.uid == host.run.uid else host,
                    uid=link.task_run_uid,
                    attempt_uid=link.attempt_uid,
                    start_time=moment(info.start_time),
                )
            tracked = TrackedRun(task_run, host, is_own=task_run is host, is_announced=True)
            tracked.links = {**links, MADE_FOR: info.run_id} if links else {}
            self._remember(run, tracked)
        return tracked

    def seen(self, run: Any, read: StoreReader, below: frozenset[str] = frozenset()) -> TrackedRun:
        """The task run of an MLflow run that was read from the store, perhaps created by another process.

        ``below`` are the ids of runs below it: of parents that go round in a circle none is the topmost.
        """
        run_id, tags = run.info.run_id, run.data.tags
        known = self._known(run_id, read)
        if known is not None and not known.is_guess:
            return known
        parent = self._parent(tags, read, below | {run_id}, may_ask=read.is_near)
        experiment = self._experiment(run.info.experiment_id, read)
        with self._lock:
            known = self._runs.get(run_id)
            if known is not None and not known.is_guess:
                return known
            link = Link.of(run)
            if link is not None:
                task_run = foreign(link, name_of(run.info))
                task_run.run.start_time = moment(run.info.start_time)
                # Its state is reported with the run that it belongs to, perhaps by another process.
                tracked = TrackedRun(task_run, task_run, is_own=link.attempt_uid != attempt_uid(link.task_run_uid))
                tracked.links = {name: tags[name] for name in LINK_TAGS & tags.keys()}
            else:
                task_run = derived_task_run(run, parent, experiment)
                task_run.run.is_elsewhere = parent is None or parent.run.is_elsewhere
                # The links may not be its own: it is a copy, or has been created a moment ago.
                is_guess = TASK_RUN_UID in tags and MADE_FOR not in tags
                tracked = TrackedRun(task_run, None, is_own=False, is_guess=is_guess)
            tracked.has_ended = run.info.status in STATES
            self._remember(run, tracked)
            self.set_idle(run_id, is_idle=tracked.has_ended)
            return tracked

    def find(self, run_id: str, read: StoreReader) -> TrackedRun:
        """The task run of an MLflow run by its id.

        A run that this process has never seen may be one of a dbnd task, which only its tags tell. It is read once if
        that takes no request to a server, or if there is good reason to: in a context, or in a process that a task has
        started. Elsewhere its uids follow from its id.
        """
        tracked = self._known(run_id, read) or self._look_up(run_id, read, frozenset())
        if tracked is not None:
            return tracked
        run_id = read.first_id(run_id)
        with self._lock:
            self.set_idle(run_id, is_idle=True)
            return self._runs.setdefault(run_id, TrackedRun(guessed(run_id), None, is_own=False, is_guess=True))

    def change(self, tracked: TrackedRun, changes: Mapping[str, str | None], read: StoreReader) -> bool:
        """Apply new values of tags that are fields, None if taken back; return whether to tell the tracker."""
        before, task_run = tracked.fields, tracked.task_run
        # A name stays when its tag is taken back, as in MLflow.
        kept = {key: value for key, value in before.items() if key not in changes or key == RUN_NAME}
        tracked.fields = fields = kept | {key: value for key, value in changes.items() if value}
        # A run of another process was perhaps read after the change.
        is_new = fields != before or not tracked.is_announced
        if not is_new or tracked.info is None or tracked.is_own:  # a task says itself what it is called
            return False
        name = shown(fields.get(RUN_NAME, "")) or task_run.name
        if name != task_run.name:
            task_run.definition = TaskDefinition(name, kind=task_run.definition.kind)
            task_run.af_id = name
        parent = self._parent(fields, read, below=frozenset({tracked.info.run_id}), may_ask=read.is_near)
        if parent is None and tracked.host is not task_run:
            parent = tracked.host
        if parent is not None and not _is_within(parent, task_run):
            self._move(tracked, parent)
        elif parent is None and tracked.host is None and task_run.parent is not None:
            self._move_out(tracked, read)
        if tracked.is_dbnd_run:
            run = task_run.run
            run.name = name
            run.user = shown(fields.get(USER, "")) or run.user
            run.description = note_of(fields) or ("" if run.description or NOTE in changes else None)
            run.job_name = source_of(fields) or run.job_name
        return True

    def set_idle(self, run_id: str, *, is_idle: bool) -> None:
        """Let a run that has ended be forgotten when many others have since, and keep one that goes on."""
        with self._lock:
            self._idle.pop(run_id, None)
            if is_idle:
                self._idle[run_id] = None
            while len(self._idle) > MAX_IDLE:
                oldest = next(iter(self._idle))
                del self._idle[oldest]
                self._runs.pop(oldest, None)

    def _host(self) -> TaskRun | None:
        """The task run of the calling code, if it is tracked by this map's tracker."""
        context = get_databand_context()
        return current_task_run() if context is not None and context.client is self._client else None

    def _remember(self, run: Any, tracked: TrackedRun) -> None:
        tracked.artifact_uri = run.info.artifact_uri
        tracked.info, tracked.fields = run.info, fields_of(run.data.tags)
        self._runs[run.info.run_id] = tracked

    def _experiment(self, experiment_id: str, read: StoreReader) -> str | None:
        """Name of an experiment, if this process knows it or may read it."""
        if experiment_id not in self.experiments:
            name = read.experiment_name(experiment_id)
            if name is None:
                return None
            self.experiments[experiment_id] = name
        return self.experiments[experiment_id]

    def _parent(
        self, tags: Mapping[str, str], read: StoreReader, below: frozenset[str], *, may_ask: bool
    ) -> TaskRun | None:
        """The task run of a run's parent; None if it has none, or one that does not exist."""
        parent_id = tags.get(PARENT)
        if not parent_id or parent_id in below:
            return None
        tracked = self._known(parent_id, read)
        if tracked is None and may_ask:
            tracked = self._look_up(parent_id, read, below)
        if tracked is not None:
            return tracked.task_run
        return None if read.is_near else guessed(read.first_id(parent_id))

    def _known(self, run_id: str, read: StoreReader) -> TrackedRun | None:
        """A run that this process has seen, by the store's id of it or the one that it had first."""
        return self._runs.get(run_id) or self._runs.get(read.first_id(run_id))

    def _look_up(self, run_id: str, read: StoreReader, below: frozenset[str]) -> TrackedRun | None:
        """Read a run, where that is allowed; None if it is not, or the run cannot be read."""
        if not (read.is_near or self._host() is not None or ParentTaskRun.of_environment() is not None):
            return None
        try:
            return self.seen(read.run(run_id), read, below)
        except Exception as error:  # noqa: BLE001  whatever a store raises; what follows from the id stands
            if getattr(error, "error_code", None) not in NO_SUCH_RUN:
                console.warning(f"The MLflow run {run_id} cannot be read ({type(error).__name__}).")
            return None

    def _move(self, tracked: TrackedRun, parent: TaskRun) -> None:
        """Move a task run, and what is below it, below another one; one of a task stays in the task's run."""
        task_run = tracked.task_run
        if tracked.host is None:
            self._put(task_run, parent.run)
        if parent.run.uid == task_run.run.uid:
            task_run.parent = parent
            tracked.is_detached = False

    def _move_out(self, tracked: TrackedRun, read: StoreReader) -> None:
        """Make a run of one that is nested no more, with what is below it."""
        task_run, former = tracked.task_run, tracked.task_run.run
        experiment = self._experiment(tracked.info.experiment_id, read)
        run = Run(
            source_of(tracked.fields) or experiment or former.job_name,
            former.cmd_name,
            project_name=experiment,
            user=shown(tracked.info.user_id or "") or former.user,
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
        for other in [task_run, *(each.task_run for each in self.known())]:
            if other.run is not run and _is_within(other, task_run):
                other.run = run


def _is_within(task_run: TaskRun, top: TaskRun) -> bool:
    """Whether a task run is ``top`` or below it."""
    each: TaskRun | None = task_run
    while each is not None and each.uid != top.uid:
        each = each.parent
    return each is not None


_maps: Final[dict[TrackingAPIClient, RunMap]] = {}


def map_of(client: TrackingAPIClient) -> RunMap:
    """The runs that this process has seen for a tracker, by its client."""
    return _maps.setdefault(client, RunMap(client))


def is_reported(run_id: str) -> bool:
    """Whether an MLflow run was created or read through a composite URI in this process."""
    return any(run_id in runs for runs in list(_maps.values()))


def _after_fork() -> None:
    for runs in _maps.values():
        runs.after_fork()


os.register_at_fork(after_in_child=_after_fork)
