"""How far a run is: its task runs and the sums of what they log, kept beside the run for whoever shows it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from dbnd._model.points import Mark, Source, comes_after, points_of
from dbnd._model.run import TaskRunState

if TYPE_CHECKING:
    from dbnd._model.points import Group, Point
    from dbnd._model.run import Run, TaskRun
    from dbnd._tracking.client import TrackingAPIClient

# Of more task runs that have ended, the oldest that have logged nothing are counted and no longer listed.
MAX_TASKS: Final = 500
_HISTORY: Final = 64


@dataclass(slots=True)
class Series:
    """One metric of a task run, summed up: however many points it has, it takes the same memory."""

    key: str
    last: object = None  # the last value, as MLflow has it (see ``points.comes_after``)
    low: float | None = None
    high: float | None = None
    kept: list[tuple[int, int, float]] = field(default_factory=list)  # each ``every``-th number, after step and time
    every: int = 1
    count: int = 0
    _latest: Point | None = None

    @property
    def history(self) -> list[float]:
        """Its numbers by step and time: threads, such as those of MLflow's asynchronous logging, change places."""
        return [value for _, _, value in sorted(self.kept, key=itemgetter(0, 1))]

    def add(self, point: Point) -> None:
        """Take one more point."""
        _, value, time_us, step, mark = point
        if self._latest is None or comes_after(point, self._latest):
            self._latest, self.last = point, value
        if mark is not None or not isinstance(value, int | float):
            return
        # A comparison with NaN is false, so that NaN is neither the smallest nor the largest number.
        if value == value:  # noqa: PLR0124
            self.low = value if self.low is None or value < self.low else self.low
            self.high = value if self.high is None or value > self.high else self.high
        if self.count % self.every == 0:
            self.kept.append((step or 0, time_us, value))
        self.count += 1
        if len(self.kept) == 2 * _HISTORY:
            self.kept = self.kept[::2]
            self.every *= 2


@dataclass(slots=True, eq=False)
class TaskProgress:
    """One task run and what it has logged so far."""

    task_run: TaskRun
    params: dict[str, str]
    series: dict[str, Series] = field(default_factory=dict)
    has_ended: bool = False


class RunProgress:
    """What a run has done so far; made before its first task run.

    Task runs and points arrive in two queues, to which the user's threads append; that is all that a log call pays.
    ``update`` takes them out and is called by one thread at a time.

    Attributes:
        tasks: Task runs by attempt uid, in the order of their start.
        started: Number of all task runs.
    """

    def __init__(self, run: Run, client: TrackingAPIClient | None) -> None:
        self.run: Final = run
        self.client: Final = client
        self.tasks: Final[dict[str, TaskProgress]] = {}
        self.started = 0
        self._forgotten: Final[Counter[TaskRunState]] = Counter()
        self._new: Final[deque[TaskRun]] = deque()
        self._logged: Final[deque[list[Group]]] = deque()
        run.watch = self._new.append
        if client is not None:
            client.watch = self._logged.append

    def close(self) -> None:
        """Watch no longer."""
        self.run.watch = None
        if self.client is not None:
            self.client.watch = None

    def update(self) -> list[TaskProgress]:
        """Take in what has happened since the last call; returns the task runs that have ended since."""
        # Counted first: the task run of a point that is there now is there, too.
        count = len(self._logged)
        while self._new:
            task_run = self._new.popleft()
            self.tasks[task_run.attempt_uid] = TaskProgress(task_run, dict(task_run.params))
            self.started += 1
        for _ in range(count):
            for group in self._logged.popleft():
                self._take(group)
        done = []
        for task in self.tasks.values():
            is_final = task.task_run.state.is_final
            if is_final and not task.has_ended:
                done.append(task)
            task.has_ended = is_final  # a task run may be reopened
        ended = [task for task in self.tasks.values() if task.has_ended]
        if len(ended) > MAX_TASKS:
            for task in [task for task in ended if not task.series][: len(ended) - MAX_TASKS // 2]:
                self._forgotten[task.task_run.state] += 1
                del self.tasks[task.task_run.attempt_uid]
        return sorted(done, key=lambda task: task.task_run.end_time or task.task_run.start_time)

    @property
    def ended(self) -> Counter[TaskRunState]:
        """Numbers of task runs that have ended, by state."""
        return self._forgotten + Counter(task.task_run.state for task in self.tasks.values() if task.has_ended)

    def parent_of(self, task: TaskProgress) -> TaskProgress | None:
        """The listed task run that has started ``task``, or None."""
        parent = task.task_run.parent
        return None if parent is None else self.tasks.get(parent.attempt_uid)

    def branch_of(self, task: TaskProgress) -> list[TaskProgress]:
        """``task``, the task run that has started it, the one that has started that, and so on."""
        branch = [task]
        while (parent := self.parent_of(branch[-1])) is not None:
            branch.append(parent)
        return branch

    def _take(self, group: Group) -> None:
        attempt, source, _ = group
        task = self.tasks.get(attempt)
        if task is None or source == Source.TAG:
            return
        if source == Source.PARAM:
            task.params |= {key: str(value) for key, value, *_ in points_of(group)}
            return
        for point in points_of(group):
            if point[-1] != Mark.DELETED:
                key = point[0]
                if key not in task.series:
                    task.series[key] = Series(key)
                task.series[key].add(point)
