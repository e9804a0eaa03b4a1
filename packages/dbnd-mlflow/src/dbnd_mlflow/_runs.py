"""Which task run an MLflow run is reported as."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import PurePath
from typing import Any, Final, NamedTuple, Protocol

from dbnd import TaskRun, TrackingAPIClient, _console, current_task_run, get_databand_context
from dbnd._context import script_name
from dbnd._run import ParentTaskRun, Run, TaskDefinition

RUN_UID: Final = "dbnd.run_uid"
TASK_RUN_UID: Final = "dbnd.task_run_uid"
ATTEMPT_UID: Final = "dbnd.task_run_attempt_uid"
RUN_URL: Final = "dbnd.run_url"
MADE_FOR: Final = "dbnd.mlflow_run_id"
"""Tag of an MLflow run that says for which run its link tags were made: copies of a run carry them, too."""
LINK_TAGS: Final = frozenset({RUN_UID, TASK_RUN_UID, ATTEMPT_UID, RUN_URL, MADE_FOR})
"""Tags of an MLflow run that are ours, and no tags of the user's."""
PARENT: Final = "mlflow.parentRunId"
_SOURCE_NAME: Final = "mlflow.source.name"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NOTE: Final = "mlflow.note.content"
FINAL_STATUSES: Final = frozenset({"FINISHED", "FAILED", "KILLED"})
# So many runs that have ended, or of which only the id is known, are remembered.
MAX_IDLE: Final = 1_000


class Read(Protocol):
    """Reads runs from the user's own store."""

    @property
    def is_near(self) -> bool:
        """Whether that takes no request to a server: a write must never cause one."""

    def run(self, run_id: str) -> Any:  # noqa: ANN401  MLflow's Run, of whichever version
        """The run with this id."""


class Link(NamedTuple):
    """The task run that the tags of an MLflow run name."""

    run_uid: str
    task_run_uid: str
    attempt_uid: str

    @classmethod
    def of(cls, run: Any) -> Link | None:  # noqa: ANN401  MLflow's Run, of whichever version
        """The link that was made for this very run, if there is one."""
        tags = run.data.tags
        return cls.in_tags(tags) if tags.get(MADE_FOR) == run.info.run_id else None

    @classmethod
    def in_tags(cls, tags: Mapping[str, str]) -> Link | None:
        """The link that tags hold, whichever run it was made for."""
        try:
            return cls(*(str(uuid.UUID(tags[name])) for name in (RUN_UID, TASK_RUN_UID, ATTEMPT_UID)))
        except (KeyError, ValueError):  # anybody may set such tags
            return None


@dataclass(slots=True, eq=False)
class TrackedRun:
    """An MLflow run and the task run that it is reported as.

    Args:
        task_run: The task run that its points belong to.
        host: The task run of the user's own code in which it was started, or None outside of any.
        is_own: Whether ``task_run`` is the user's own task, whose state is not MLflow's to say.
        is_guess: Whether the task run follows from nothing but the run's id, and may turn out to be another.
        is_announced: Whether this process has announced it, and so knows all that there is to know of it.
        has_ended: Whether MLflow gave it a final status last.
        artifact_uri: Root of its artifacts, once known.
        datasets: Name and digest of the datasets that were reported.
        artifacts: Names of the artifacts that were reported.
        links: The link tags of the run; none outside of tasks.
    """

    task_run: TaskRun
    host: TaskRun | None
    is_own: bool
    is_guess: bool = False
    is_announced: bool = False
    has_ended: bool = False
    artifact_uri: str | None = None
    datasets: set[tuple[str, str]] = field(default_factory=set)
    artifacts: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)

    @property
    def is_dbnd_run(self) -> bool:
        """Whether it is a dbnd run of its own, whose state is MLflow's to say."""
        return self.host is None and not self.is_own and self.task_run.is_root


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
        self.renew_lock()

    def renew_lock(self) -> None:
        """Begin with a free lock: in a forked child, whose parent's threads may have held it."""
        self._lock = threading.Lock()

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
                uid, attempt_uid = host.uid, host.attempt_uid
            else:
                uid = str(uuid.uuid4())
                attempt_uid = _attempt_uid(uid)
            self._planned[uid] = host
        return {
            RUN_UID: host.run.uid,
            TASK_RUN_UID: uid,
            ATTEMPT_UID: attempt_uid,
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

    def created(self, run: Any, links: Mapping[str, str], read: Read) -> TrackedRun:  # noqa: ANN401
        """Remember a run that has been created.

        Args:
            run: The MLflow run.
            links: What ``plan`` has returned for it.
            read: Reads its parent, if this process does not know it.
        """
        tags, info = run.data.tags, run.info
        parent = self.find(tags[PARENT], read).task_run if PARENT in tags else None
        with self._lock:
            host = self._planned.pop(links[TASK_RUN_UID]) if links else None
            if host is None:
                task_run = derived_task_run(run, parent, self.experiments.get(info.experiment_id))
            elif links[TASK_RUN_UID] == host.uid:
                task_run = host
            else:
                task_run = host.run.new_task_run(
                    TaskDefinition(info.run_name or info.run_id, kind="mlflow"),
                    parent=parent or host,
                    uid=links[TASK_RUN_UID],
                    attempt_uid=links[ATTEMPT_UID],
                    start_time=moment(info.start_time),
                )
            tracked = TrackedRun(
                task_run, host, is_own=task_run is host, is_announced=True, artifact_uri=info.artifact_uri
            )
            if links:
                tracked.links = {**links, MADE_FOR: info.run_id}
            self._runs[info.run_id] = tracked
        return tracked

    def seen(self, run: Any) -> TrackedRun:  # noqa: ANN401
        """The task run of an MLflow run that was read from the store, perhaps created by another process."""
        run_id, tags = run.info.run_id, run.data.tags
        with self._lock:
            tracked = self._runs.get(run_id)
            if tracked is None or tracked.is_guess:
                link = Link.of(run)
                if link is not None:
                    task_run = _foreign(*link, run.info.run_name)
                    is_own = link.attempt_uid != _attempt_uid(link.task_run_uid)
                    # Its state is told by the run that it belongs to, wherever that is.
                    tracked = TrackedRun(task_run, task_run, is_own=is_own)
                    tracked.links = {name: tags[name] for name in LINK_TAGS & tags.keys()}
                else:
                    task_run = derived_task_run(run, self._parent(tags), self.experiments.get(run.info.experiment_id))
                    # Links that are not said to be its own: it is a copy, or was made this very moment.
                    is_guess = TASK_RUN_UID in tags and MADE_FOR not in tags
                    tracked = TrackedRun(task_run, None, is_own=False, is_guess=is_guess)
                tracked.has_ended = run.info.status in FINAL_STATUSES
                tracked.artifact_uri = run.info.artifact_uri
                self._runs[run_id] = tracked
                if tracked.has_ended:
                    self._retire(run_id)
                else:
                    self._idle.pop(run_id, None)
            return tracked

    def _parent(self, tags: Mapping[str, str]) -> TaskRun | None:
        """The task run of a run's parent; of one that is not known, what follows from its id."""
        parent_id = tags.get(PARENT)
        if parent_id is None:
            return None
        known = self._runs.get(parent_id)
        return _guessed(parent_id) if known is None else known.task_run

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
        if read.is_near or self.host() is not None or ParentTaskRun.of_environment() is not None:
            try:
                return self.seen(read.run(run_id))
            except Exception as error:  # noqa: BLE001  whatever a store raises; the guess below stands
                _console.warning(f"The MLflow run {run_id} cannot be read ({type(error).__name__}).")
        with self._lock:
            self._retire(run_id)
            return self._runs.setdefault(run_id, TrackedRun(_guessed(run_id), None, is_own=False, is_guess=True))

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


def moment(milliseconds: int | None) -> datetime:
    """A time of MLflow (ms since the epoch, UTC); now for None."""
    if milliseconds is None:
        return datetime.now(timezone.utc)
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:  # MLflow takes any integer, such as one in ns; the point counts more than its time
        return datetime.max.replace(tzinfo=timezone.utc) if milliseconds > 0 else _EPOCH


def run_url(client: TrackingAPIClient, run: Run) -> str:
    """Where a run can be looked at: its page, or for an embedded tracker its file and uid."""
    if client.url.startswith("http"):
        return f"{client.name}/app/jobs/{run.job_name}/{run.uid}"
    return f"{client.name}#{run.uid}"


def uid_of(run_id: str) -> str:
    """The uid that an MLflow run outside of any task has in the tracker: its own id, which is a uuid."""
    try:
        return str(uuid.UUID(run_id))
    except ValueError:  # a store with ids of another kind
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"mlflow:run:{run_id}"))


def _attempt_uid(task_run_uid: str) -> str:
    return str(uuid.uuid5(uuid.UUID(task_run_uid), "1"))


def derived_task_run(run: Any, parent: TaskRun | None, experiment: str | None) -> TaskRun:  # noqa: ANN401
    """The task run of an MLflow run outside of any task: every process derives the same uids from its id."""
    info, tags = run.info, run.data.tags
    uid = uid_of(info.run_id)
    name = info.run_name or info.run_id
    if parent is not None:
        dbnd_run = parent.run
    else:
        dbnd_run = Run(
            _job_name(tags, experiment),
            "inplace_tracking",
            project_name=experiment,
            name=name,
            uid=uid,
            start_time=moment(info.start_time),
            description=tags.get(_NOTE),
        )
        dbnd_run.user = tags.get("mlflow.user") or info.user_id or dbnd_run.user
    return dbnd_run.new_task_run(
        TaskDefinition(name, kind="mlflow"),
        parent=parent,
        uid=uid,
        attempt_uid=_attempt_uid(uid),
        start_time=moment(info.start_time),
    )


def _job_name(tags: Mapping[str, str], experiment: str | None) -> str:
    source = tags.get(_SOURCE_NAME)
    if source:
        return PurePath(source).name or source
    return experiment or script_name()


def _guessed(run_id: str) -> TaskRun:
    """The task run that an MLflow run outside of any task has, of which only the id is known."""
    uid = uid_of(run_id)
    return _foreign(uid, uid, _attempt_uid(uid), run_id)


def _foreign(run_uid: str, task_run_uid: str, attempt_uid: str, name: str) -> TaskRun:
    """A task run that another process has reported: enough of it to add points."""
    run = Run("mlflow", "inplace_tracking", uid=run_uid)
    return run.new_task_run(TaskDefinition(name or run_uid), parent=None, uid=task_run_uid, attempt_uid=attempt_uid)
