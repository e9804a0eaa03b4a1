"""The pages of a run and of a task run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from dbnd_tracker._format import value_text
from dbnd_tracker._models import Run
from dbnd_tracker._pages.graph import Graph, make_graph
from dbnd_tracker._pages.templates import elapsed_element, is_live, mlflow_run_id, time_element
from dbnd_tracker._pages.timeline import Timeline, make_timeline
from dbnd_tracker._queries import run_detail, task_run_log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

    from dbnd_tracker._views import ArtifactView, MetricView, RunDetail, TaskRunView

MODEL_PREFIX: Final = "model:"
"""Start of the names of artifacts that are models."""

VERIFIED: Final = "dbnd.mlflow.verified"
"""Tag in which ``dbnd mlflow verify --record`` keeps what it has found; pages show that beside the link to MLflow."""

_LOG_LINES: Final = 200
_TASKS: Final = 500
_METRICS: Final = 1_000
_SIBLINGS: Final = 20


@dataclass(frozen=True, slots=True)
class LogTail:
    """The end of a log."""

    text: str
    lines: int
    is_cut: bool


def log_tail(session: Session, tasks: Iterable[TaskRunView]) -> tuple[LogTail, TaskRunView] | None:
    """The end of the first log that there is, and whose it is."""
    for task in tasks:
        log = task_run_log(session, task.task_run_uid)
        if log is not None and log.log_body:
            lines = log.log_body.splitlines()
            shown = lines[-_LOG_LINES:]
            return LogTail("\n".join(shown), len(shown), len(lines) > len(shown)), task
    return None


class RunPage:
    """A run as its page shows it.

    Args:
        session: Where to read.
        run: The run.
        shows_all: Whether all task runs are listed, however many.
    """

    def __init__(self, session: Session, run: RunDetail, *, shows_all: bool = False) -> None:
        self.run = run
        self.tasks = [task for task in run.task_runs if not task.is_system] or run.task_runs
        self.timeline: Timeline = make_timeline(run, self.tasks, None if shows_all else _TASKS)
        self.graph: Graph | None = make_graph(self.tasks)
        self.failed = [task for task in self.tasks if task.error]
        # The log that one looks for first: of what failed, the innermost; else of the whole.
        candidates = [*reversed(self.failed), *self.tasks[:1], *reversed(self.tasks[-3:])]
        found = log_tail(session, candidates)
        self.log = found[0] if found else None
        self.log_task = found[1] if found else None
        self.is_live = is_live(run.state)
        self.facts = _run_facts(run)
        self.metrics = [(task, metric) for task in self.tasks for metric in task.metrics][:_METRICS]
        self.params = [(task, param) for task in self.tasks for param in task.params]
        self.tags = [(task, tag) for task in self.tasks for tag in task.tags if tag.name != VERIFIED]
        self.artifacts = [(task, artifact) for task in self.tasks for artifact in task.artifacts]
        self.datasets = [(task, dataset) for task in self.tasks for dataset in task.datasets]
        self.links = [link for task in self.tasks for link in links_of(task)]


def _run_facts(run: RunDetail) -> list[tuple[str, Any, bool]]:
    """Label, value, and whether it is long, of what stands at the top."""
    commit = run.environment.get("user_code_version")
    facts: list[tuple[str, Any, bool]] = [
        ("Started", time_element(run.start_time), False),
        ("Ended", time_element(run.end_time), False),
        ("Took", elapsed_element(run.start_time, run.end_time, run.state), False),
        ("Project", run.project_name, False),
        ("User", run.user, False),
        ("Machine", run.environment.get("machine"), False),
        ("Code version", commit if commit != "None" else None, False),
        ("Last heartbeat", time_element(run.last_heartbeat), False),
        ("Run", run.run_uid, False),
        ("Description", run.description, True),
        ("Command", run.environment.get("cmd_line"), True),
    ]
    return [(label, value, is_long) for label, value, is_long in facts if value]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ``dbnd mlflow verify --record`` has found.

    Args:
        time: When it compared the two sides.
        differences: How many there were.
    """

    time: datetime
    differences: int


@dataclass(frozen=True, slots=True)
class Link:
    """Where a task run can be seen elsewhere.

    Args:
        task: The task run.
        name: What the client calls the place.
        url: The place.
        mlflow_run_id: Id of the MLflow run that this is, if it is one.
        verdict: Whether MLflow and the tracker agree on that, if they have been compared.
    """

    task: TaskRunView
    name: str
    url: Any
    mlflow_run_id: str | None
    verdict: Verdict | None


def links_of(task: TaskRunView) -> list[Link]:
    """The links of a task run."""
    found = []
    for name, url in task.links.items():
        run_id = mlflow_run_id(url)
        found.append(Link(task, name, url, run_id, _verdict(task) if run_id else None))
    return found


def _verdict(task: TaskRunView) -> Verdict | None:
    text = next((tag.value for tag in task.tags if tag.name == VERIFIED), None) or ""
    time, _, count = text.partition(" ")
    try:
        return Verdict(datetime.fromisoformat(time).astimezone(timezone.utc), int(count))
    except (ValueError, OverflowError):  # anybody may set such a tag
        return None


class TaskPage:
    """A task run as its page shows it.

    Args:
        session: Where to read.
        run: Its run.
        task: The task run.
        others: Uids of runs whose task of the same name its charts show, too.
        plotted: Keys of metrics that share one chart; empty for a chart for each.
    """

    def __init__(
        self, session: Session, run: RunDetail, task: TaskRunView, others: Sequence[str], plotted: Sequence[str]
    ) -> None:
        self.run = run
        self.task = task
        self.siblings = _siblings(session, run, others)
        self.chosen = frozenset(others)
        self.others = _same_tasks(session, task, [uid for uid, _ in self.siblings if uid in self.chosen])
        self.is_live = is_live(run.state)
        found = log_tail(session, [task])
        self.log = found[0] if found else None
        self.facts = _task_facts(task)
        self.links = links_of(task)
        self.tags = [tag for tag in task.tags if tag.name != VERIFIED]
        keys = {metric.key for metric in task.metrics}
        self.plotted = [key for key in dict.fromkeys(plotted) if key in keys]
        self.artifacts = [artifact for artifact in task.artifacts if not artifact.name.startswith(MODEL_PREFIX)]
        self.models = [_model(artifact) for artifact in task.artifacts if artifact.name.startswith(MODEL_PREFIX)]
        by_uid = {other.task_run_uid: other for other in run.task_runs}
        self.parent = by_uid.get(task.parent_task_run_uid or "")
        self.children = [other for other in run.task_runs if other.parent_task_run_uid == task.task_run_uid]

    @property
    def charts(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Title and series of each chart."""
        if self.plotted:
            series = [line for key in self.plotted for line in self._lines(key, shows_key=True)]
            return [(", ".join(self.plotted), [{**line, "colour": i} for i, line in enumerate(series)])]
        numbers = [metric.key for metric in self.task.metrics if is_number(metric)]
        return [(key, self._lines(key, shows_key=False)) for key in numbers]

    def _lines(self, key: str, *, shows_key: bool) -> list[dict[str, Any]]:
        own = self.run.name or self.run.run_uid
        found: list[dict[str, Any]] = []
        for name, task in [(own, self.task), *self.others]:
            if any(metric.key == key for metric in task.metrics):
                parts = [*([key] if shows_key else []), *([name] if self.others else [])]
                label = " · ".join(parts) or key
                found.append({**chart_line(task.task_run_uid, task.start_time, key, label), "colour": len(found)})
        return found


def _siblings(session: Session, run: RunDetail, chosen: Sequence[str]) -> list[tuple[str, str]]:
    """Uids and names of the latest other runs of the same job, and of those that are chosen already."""
    latest = (
        select(Run.uid)
        .where(Run.job_name == run.job_name, Run.uid != run.run_uid)
        .order_by(Run.start_time.desc(), Run.id.desc())
        .limit(_SIBLINGS)
    )
    uids = [*session.scalars(latest), *chosen[:_SIBLINGS]]
    wanted = select(Run.uid, Run.name).where(Run.uid.in_(uids)).order_by(Run.start_time.desc(), Run.id.desc())
    return [(uid, name or uid) for uid, name in session.execute(wanted) if uid != run.run_uid]


def _same_tasks(session: Session, task: TaskRunView, runs: Sequence[str]) -> list[tuple[str, TaskRunView]]:
    """The task runs of the same name in other runs, with the names of those."""
    found = []
    for uid in runs:
        detail = run_detail(session, uid)
        same = [other for other in detail.task_runs if other.name == task.name] if detail else []
        if detail and same:
            found.append((detail.name or detail.run_uid, same[0]))
    return found


def chart_line(task_run_uid: str, start: datetime | None, key: str, label: str) -> dict[str, Any]:
    """What a chart must know to draw one metric of a task run.

    Args:
        task_run_uid: The task run.
        start: When it started.
        key: The metric.
        label: What the chart calls it.
    """
    begin = None if start is None else round(start.timestamp() * 1000)
    return {"task": task_run_uid, "key": key, "label": label, "start": begin}


def is_number(metric: MetricView) -> bool:
    """Whether a metric has anything that a chart can draw."""
    return metric.min is not None or metric.type in {"float", "int"}


def _model(artifact: ArtifactView) -> tuple[str, str]:
    return artifact.name.removeprefix(MODEL_PREFIX), artifact.path


def _task_facts(task: TaskRunView) -> list[tuple[str, Any, bool]]:
    facts: list[tuple[str, Any, bool]] = [
        ("Started", time_element(task.start_time), False),
        ("Ended", time_element(task.end_time), False),
        ("Took", elapsed_element(task.start_time, task.end_time, task.state), False),
        ("Type", task.type, False),
        ("Attempts", len(task.attempts) if len(task.attempts) > 1 else None, False),
        ("Task id", value_text(task.task_id, 80), False),
        ("Task run", task.task_run_uid, False),
    ]
    return [(label, value, is_long) for label, value, is_long in facts if value]
