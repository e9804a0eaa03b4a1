"""Runs, task runs, attempts and their states: what is tracked, without how it is sent."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from itertools import count
from typing import Final

from dbnd._base.clock import utc_now
from dbnd._base.environment import current_user
from dbnd._base.names import new_uid, random_name
from dbnd._model.values import storable
from dbnd._terminal import console
from dbnd._terminal.html import Row, html_table
from dbnd._terminal.text import duration


class RunState(str, Enum):
    """State of a run; the name travels on the wire."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SHUTDOWN = "shutdown"
    CANCELLED = "cancelled"


class TaskRunState(str, Enum):
    """State of a task run; the name travels on the wire."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"
    DEFERRED = "deferred"
    UPSTREAM_FAILED = "upstream_failed"
    SKIPPED = "skipped"
    UP_FOR_RETRY = "up_for_retry"
    REMOVED = "removed"

    @property
    def is_final(self) -> bool:
        """Whether a task run stays in this state."""
        return self.name in {"SUCCESS", "FAILED", "CANCELLED", "UPSTREAM_FAILED", "SKIPPED", "REMOVED"}


@dataclass(frozen=True, slots=True)
class ParamDefinition:
    """A parameter of a task as its signature declares it."""

    name: str
    value_type: str
    default: str | None = None
    """Text form of the default, or None when the parameter must be given."""


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """A task as it is declared: the same for all its runs in this process."""

    name: str
    params: tuple[ParamDefinition, ...] = ()
    uid: str = field(default_factory=lambda: str(new_uid()))
    result_type: str | None = None
    kind: str = "python"


@dataclass(frozen=True, slots=True)
class ParentTaskRun:
    """A task run that starts other runs, as environment variables of the protocol name it to them."""

    root_run_uid: str
    task_run_uid: str
    attempt_uid: str

    @classmethod
    def of_environment(cls) -> ParentTaskRun | None:
        """The task run that has started this process, or None, also where the variables are no uids."""
        values = tuple(os.environ.get(name, "") for name in _PARENT_VARIABLES)
        return _parent_of(values) if all(values) else None

    def environment(self) -> dict[str, str]:
        """The variables by which a child process finds its parent."""
        return dict(zip(_PARENT_VARIABLES, (self.root_run_uid, self.task_run_uid, self.attempt_uid), strict=True))


_PARENT_VARIABLES: Final = ("DBND_ROOT_RUN_UID", "DBND_PARENT_TASK_RUN_UID", "DBND_PARENT_TASK_RUN_ATTEMPT_UID")


@functools.lru_cache(maxsize=4)
def _parent_of(values: tuple[str, ...]) -> ParentTaskRun | None:
    try:
        return ParentTaskRun(*(str(uuid.UUID(value)) for value in values))
    except ValueError:
        given = ", ".join(f"{name} = {value!r}" for name, value in zip(_PARENT_VARIABLES, values, strict=True))
        console.warning(f"What has started this process is not known: of the environment, {given} are no uids.")
        return None


@dataclass(slots=True)
class Run:
    """One execution of a job, made of task runs.

    Args:
        job_name: What is run; the runs of one job are compared with each other.
        cmd_name: How it was started: "run" (``dbnd run``) or "inplace_tracking".
        is_attached: Whether it was begun elsewhere, and this process only takes part in it (``DBND_RUN_UID``).
        sends_heartbeat: Whether the tracker is to expect heartbeats.
        is_elsewhere: Whether it takes place in another process, whose environment this one does not know.
        captures_output: Whether what its tasks print is kept as their logs.

    Attributes:
        parent: The task run of another run that has started this one, if any.
        root: The root task run, once there is one.
        address: The address of its page, or the command that shows it; None when it is not tracked.
        error: What the task run that failed last has raised; none once the run has ended.
        is_known: Tells whether the tracker has taken it by now.
        watch: Called with each new task run, for what shows a run while it goes on.
        attempt_suffix: What distinguishes the attempts of a run that is done once more.
    """

    job_name: str
    cmd_name: str
    project_name: str | None = None
    name: str = field(default_factory=random_name)
    user: str = field(default_factory=current_user)
    description: str | None = None
    uid: str = field(default_factory=lambda: str(new_uid()))
    start_time: datetime = field(default_factory=utc_now)
    end_time: datetime | None = None
    state: RunState = RunState.RUNNING
    is_attached: bool = False
    sends_heartbeat: bool = False
    is_elsewhere: bool = False
    captures_output: bool = False
    env_uid: str = field(default_factory=lambda: str(new_uid()))
    parent: ParentTaskRun | None = field(default_factory=ParentTaskRun.of_environment)
    root: TaskRun | None = None
    address: str | None = None
    error: BaseException | None = None
    is_known: Callable[[], bool] = lambda: False
    watch: Callable[[TaskRun], object] | None = None
    attempt_suffix: str = ""
    _numbers: dict[str, count[int]] = field(default_factory=dict)
    _pid: int = field(default_factory=os.getpid)
    _process_suffix: str = ""

    def __post_init__(self) -> None:
        # Uids and addresses are made of it, and the name of a script need not be text that can be stored.
        self.job_name = storable(self.job_name)

    @property
    def root_run_uid(self) -> str:
        """The run at the top of those that have started each other; this one's own uid when nothing has started it."""
        return self.uid if self.parent is None else self.parent.root_run_uid

    @property
    def place(self) -> str | None:
        """The ``address``, by the name that scripts know it by."""
        return self.address

    @property
    def dag_id(self) -> str:
        """The name under which attempt uids are derived."""
        return f"DBND_RUN.{self.job_name}" if self.cmd_name == "run" else self.job_name

    @property
    def version(self) -> str:
        """The version of the tasks: when the run started."""
        return self.start_time.strftime("%Y%m%d_%H%M%S")

    def _suffix(self) -> str:
        """What tells the task runs of this process from those of the one that has begun the run."""
        if self._pid != os.getpid() or (self.is_attached and not self._process_suffix):
            self._pid, self._process_suffix = os.getpid(), f"_{new_uid().hex[:6]}"
        return self._process_suffix

    def rows(self) -> list[Row]:
        """What there is to say of it, whether it goes on or has ended: labels and texts."""
        end = self.end_time or utc_now()
        return [
            ("Run", self.name),
            ("Job", self.job_name),
            ("Project", self.project_name),
            ("State", self.state.value),
            ("Started", self.start_time.astimezone().strftime("%Y-%m-%d %H:%M:%S")),
            ("Took", duration((end - self.start_time).total_seconds())),
            ("Uid", self.uid),
            ("Tracked", self.address or "no"),
            *((name, url) for name, url in (self.root.links.items() if self.root else ())),
        ]

    def _repr_html_(self) -> str:
        return html_table("Databand run", self.rows())

    def new_task_run(
        self,
        definition: TaskDefinition,
        *,
        parent: TaskRun | None,
        params: dict[str, str] | None = None,
        uid: str | None = None,
        attempt_uid: str | None = None,
        start_time: datetime | None = None,
    ) -> TaskRun:
        """A task run of this run; the first one without a parent is the root.

        Args:
            definition: What is run.
            parent: The task run that called it.
            params: Parameters by name, in text form and already masked.
            uid: Uid of the task run; a new one if None.
            attempt_uid: Uid of its attempt; if None, it is derived from the run's as the original client does.
            start_time: When it started; now if None.
        """
        name = storable(definition.name)
        number = next(self._numbers.setdefault(name, count(1)))  # both steps are atomic
        af_id = (name if number == 1 else f"{name}_{number}") + self._suffix()
        task_run = TaskRun(
            run=self,
            definition=definition,
            parent=parent,
            af_id=af_id,
            params=params or {},
            uid=uid or str(new_uid()),
            attempt_uid=attempt_uid
            or str(uuid.uuid5(uuid.UUID(self.uid), f"{self.dag_id}.{af_id}:1{self.attempt_suffix}")),
            start_time=start_time or utc_now(),
        )
        if self.root is None and parent is None:
            self.root = task_run
        if watch := self.watch:  # which another thread may end
            watch(task_run)
        return task_run


@dataclass(slots=True, eq=False)
class TaskRun:
    """One execution of a task within a run, with its one attempt."""

    run: Run
    definition: TaskDefinition
    parent: TaskRun | None
    af_id: str
    params: dict[str, str]
    uid: str
    attempt_uid: str
    start_time: datetime
    state: TaskRunState = TaskRunState.SCHEDULED
    end_time: datetime | None = None
    links: dict[str, str] = field(default_factory=dict)  # where else it can be looked at, by name
    error: str | None = None  # what it has raised; None also where a task that it called has raised that
    pid: int = field(default_factory=os.getpid)  # of the process that has begun it

    def enter(self, state: TaskRunState, timestamp: datetime) -> None:
        """Be in ``state`` since ``timestamp``; a final one ends the task run."""
        self.state = state
        self.end_time = timestamp if state.is_final else None

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.definition.name

    @property
    def signature(self) -> str:
        """Ten hex digits, different for each task run."""
        return uuid.UUID(self.uid).hex[:10]

    @property
    def task_id(self) -> str:
        """Name and signature: unique for each call of the task."""
        return f"{self.name}__{self.signature}"

    def as_parent(self) -> ParentTaskRun:
        """This task run as the parent of runs in child processes."""
        return ParentTaskRun(self.run.root_run_uid, self.uid, self.attempt_uid)

    @property
    def is_root(self) -> bool:
        """Whether this is the run's root."""
        return self.run.root is self
