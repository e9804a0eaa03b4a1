"""The pages of a run and of a task run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from dbnd_tracker._format import value_text
from dbnd_tracker._pages.graph import Graph, make_graph
from dbnd_tracker._pages.sections import ROWS, Section, Sections
from dbnd_tracker._pages.templates import elapsed_element, is_live, mlflow_run_id, run_url, task_url, time_element
from dbnd_tracker._pages.timeline import Timeline, make_timeline
from dbnd_tracker._queries import logging_task_runs, task_run_log
from dbnd_tracker._queries.listing import Kind, list_part, metrics_named, tag_values
from dbnd_tracker._storage.models import Attempt, Run, TaskRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy.orm import Session
    from starlette.datastructures import QueryParams

    from dbnd_tracker._views import MetricView, RunDetail, TaskRunView

MODEL_PREFIX: Final = "model:"
"""Start of the names of artifacts that are models."""

VERIFIED: Final = "dbnd.mlflow.verified"
"""Tag in which ``dbnd mlflow verify --record`` keeps what it has found; pages show that beside the link to MLflow."""

_LOG_LINES: Final = 200
_TASKS: Final = 500
_CHARTS: Final = 60
_PLOTTED: Final = 30
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
        run: The run, without what its task runs logged.
        query: The address' query: ``tasks=all`` for all task runs, and what ``Sections`` read.
    """

    def __init__(self, session: Session, run: RunDetail, query: QueryParams) -> None:
        self.run = run
        tasks = [task for task in run.task_runs if not task.is_system] or run.task_runs
        self.sections = Sections(run_url(run.job_name, run.run_uid), query)
        size = max(len(tasks), 1) if query.get("tasks") == "all" else _TASKS
        self.tasks = self.sections.cut("tasks", tasks, size)
        self.timeline: Timeline = make_timeline(run, tasks, self.tasks.rows)
        self.graph: Graph | None = make_graph(tasks)
        self.failed = [task for task in tasks if task.error]
        # The log that one looks for first: of what failed, the innermost; else of the whole.
        logging = logging_task_runs(session, run.run_uid)
        candidates = [*reversed(self.failed), *tasks[:1], *reversed(tasks[-3:])]
        found = log_tail(session, [task for task in candidates if task.task_run_uid in logging][:1])
        self.log = found[0] if found else None
        self.log_task = found[1] if found else None
        self.is_live = is_live(run.state)
        self.facts = _run_facts(run)
        self._session = session
        self._by_uid = {task.task_run_uid: task for task in tasks}
        self._places = {task.task_run_uid: place for place, task in enumerate(tasks)}
        self.metrics = self._section("metrics")
        self.params = self._section("params")
        self.tags = self._section("tags", keep=_is_shown)
        self.artifacts = self._section("artifacts")
        self.datasets = self._section("datasets")
        verdicts = tag_values(session, run.run_uid, VERIFIED)
        self.links = [link for task in tasks for link in links_of(task, verdicts.get(task.task_run_uid))]

    def _section(self, kind: Kind, keep: Callable[[str], bool] | None = None) -> Section:
        part = list_part(
            self._session,
            kind,
            self._places,
            run_uid=self.run.run_uid,
            find=self.sections.find,
            keep=keep,
            start=self.sections.start(kind),
            limit=ROWS,
        )
        rows = [(self._by_uid[uid], item) for uid, item in part.rows]
        return self.sections.of(kind, rows, part.start, part.found, part.total)


def _is_shown(tag: str) -> bool:
    return tag != VERIFIED


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


def links_of(task: TaskRunView, verified: str | None) -> list[Link]:
    """The links of a task run.

    Args:
        task: The task run.
        verified: The value of its tag ``VERIFIED``, if it has one.
    """
    found = []
    for name, url in task.links.items():
        run_id = mlflow_run_id(url)
        found.append(Link(task, name, url, run_id, _verdict(verified) if run_id else None))
    return found


def _verdict(text: str | None) -> Verdict | None:
    time, _, count = (text or "").partition(" ")
    try:
        return Verdict(datetime.fromisoformat(time).astimezone(timezone.utc), int(count))
    except (ValueError, OverflowError):  # anybody may set such a tag
        return None


class TaskPage:
    """A task run as its page shows it.

    Args:
        session: Where to read.
        run: Its run, without what its task runs logged.
        task: The task run.
        query: The address' query: ``with``, uids of runs whose task of the same name its charts show, too; ``plot``,
            keys of metrics that share one chart, without which each has its own; and what ``Sections`` read.
    """

    def __init__(self, session: Session, run: RunDetail, task: TaskRunView, query: QueryParams) -> None:
        self.run = run
        self.task = task
        self._session = session
        others, plotted = query.getlist("with"), query.getlist("plot")
        self.sections = Sections(task_url(run.job_name, run.run_uid, task.task_run_uid), query)
        self.siblings = _siblings(session, run, others)
        self.chosen = frozenset(others)
        self.others = _same_tasks(session, task, [uid for uid, _ in self.siblings if uid in self.chosen])
        self.is_live = is_live(run.state)
        found = log_tail(session, [task])
        self.log = found[0] if found else None
        self.facts = _task_facts(task)
        self.links = links_of(task, tag_values(session, run.run_uid, VERIFIED).get(task.task_run_uid))
        self.metrics = self._section("metrics")
        self.params = self._section("params")
        self.tags = self._section("tags", keep=_is_shown)
        self.datasets = self._section("datasets")
        self.targets = self._section("targets")
        self.artifacts = self._section("artifacts", keep=lambda name: not name.startswith(MODEL_PREFIX))
        self.models = self._section("artifacts", "models", keep=lambda name: name.startswith(MODEL_PREFIX))
        self.attempts = self.sections.cut("attempts", task.attempts)
        by_uid = {other.task_run_uid: other for other in run.task_runs}
        self.parent = by_uid.get(task.parent_task_run_uid or "")
        children = [other for other in run.task_runs if other.parent_task_run_uid == task.task_run_uid]
        self.children = self.sections.cut("children", children)
        asked = list(dict.fromkeys(plotted))[:_PLOTTED]
        known = metrics_named(session, [task.task_run_uid], asked) if asked else set()
        self.plotted = [key for key in asked if (task.task_run_uid, key) in known]
        self.charts = self._charts()

    def _section(self, kind: Kind, name: str = "", keep: Callable[[str], bool] | None = None) -> Section:
        name = name or kind
        part = list_part(
            self._session,
            kind,
            {self.task.task_run_uid: 0},
            find=self.sections.find,
            keep=keep,
            start=self.sections.start(name),
            limit=ROWS,
        )
        return self.sections.of(name, [item for _, item in part.rows], part.start, part.found, part.total)

    @property
    def charted(self) -> list[str]:
        """Keys of the metrics shown that can be drawn."""
        return [metric.key for metric in self.metrics.rows if is_number(metric)]

    def _charts(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Title and series of each chart."""
        keys = self.plotted or self.charted[:_CHARTS]
        own = self.run.name or self.run.run_uid
        tasks = [(own, self.task.task_run_uid, self.task.start_time), *self.others]
        known = metrics_named(self._session, [uid for _, uid, _ in tasks], keys) if self.others else None
        charts: dict[str, list[dict[str, Any]]] = {}
        title = ", ".join(self.plotted)
        for key in keys:
            lines = charts.setdefault(title or key, [])
            for name, uid, start in tasks:
                if known is None or (uid, key) in known:
                    parts = [*([key] if self.plotted else []), *([name] if self.others else [])]
                    line = chart_line(uid, start, key, " · ".join(parts) or key)
                    lines.append({**line, "colour": len(lines)})
        return list(charts.items())


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


def _same_tasks(session: Session, task: TaskRunView, runs: Sequence[str]) -> list[tuple[str, str, datetime | None]]:
    """The task runs of the same name in other runs: the name of the run, their uids and starts."""
    found: dict[str, tuple[str, str, datetime | None]] = {}
    query = (
        select(Run.uid, func.coalesce(Run.name, Run.uid), TaskRun.uid, func.min(Attempt.start_time))
        .join(TaskRun, TaskRun.run_uid == Run.uid)
        .outerjoin(Attempt, Attempt.task_run_uid == TaskRun.uid)
        .where(Run.uid.in_(runs), TaskRun.name == task.name)
        .group_by(Run.uid, Run.name, TaskRun.uid, TaskRun.id)
        .order_by(TaskRun.id)
    )
    for run_uid, name, uid, start in session.execute(query) if runs else ():
        found.setdefault(run_uid, (name, uid, start))
    return [found[uid] for uid in runs if uid in found]


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
