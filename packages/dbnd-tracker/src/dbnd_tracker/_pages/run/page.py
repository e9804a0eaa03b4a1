"""The page of a run or of one of its task runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from dbnd.tracking import VERIFIED_TAG
from dbnd_tracker._pages.artifacts import artifact_url, thumbnail_url
from dbnd_tracker._pages.charts import Charts, in_sections
from dbnd_tracker._pages.run.links import Links
from dbnd_tracker._pages.run.logs import run_logs
from dbnd_tracker._pages.run.overlay import Overlay
from dbnd_tracker._pages.run.timeline import Timeline
from dbnd_tracker._pages.sections import Section, Sections
from dbnd_tracker._pages.templates import is_live, run_url, task_url
from dbnd_tracker._queries.details import TASK_LABEL, logging_task_runs
from dbnd_tracker._queries.listing import tag_values
from dbnd_tracker._queries.logged import LIFECYCLE_TAG, NAME_TAG, ListKind
from dbnd_tracker._storage.models import TaskRun
from dbnd_tracker._views import MetricView, RunDetail, RunSummary, TaskRunView

_TASKS: Final = 500
_TILES: Final = 24
_IMAGES: Final = 24
_LONGEST_TILE: Final = 40
# Tags that MLflow and databand set by themselves.
_SYSTEM_TAGS: Final = ("mlflow.", "dbnd.")


class RunPage:
    """A run as its page shows it, or one of its task runs.

    A run of one task is shown with it; it has its details if the page is its own. Timeline and charts show ``tasks``:
    those of the run, or one ``task``, whose things alone are shown then, and those that it has started. In the address'
    query, ``tasks=all`` asks for all task runs at once; of one task run, ``with`` and ``plot`` are what ``Overlay``
    takes.
    """

    def __init__(
        self,
        session: Session,
        run: RunSummary,
        tasks: Sequence[TaskRunView],
        query: QueryParams,
        task: TaskRunView | None = None,
    ) -> None:
        self.run = run
        self.task = task
        self.detail = run if isinstance(run, RunDetail) else None
        self.is_live = is_live(run.state)
        own = tasks if task is None else [task]
        # Of all task runs, or of one: few are looked for by their uids.
        run_uid = run.run_uid if task is None else None
        self.url = run_url(run.job_name, run.run_uid)
        if task and not self.detail:
            self.url = task_url(run.job_name, run.run_uid, task.task_run_uid)
        self.sections = sections = Sections(self.url, query)
        by_uid = {each.task_run_uid: each for each in own}
        self.logged: dict[str, Section] = {
            name: sections.logged(session, kind, by_uid, run_uid=run_uid, name=name, keep=keep)
            for name, _, kind, keep in _LISTS
        }
        self.tiles = _tiles(self.logged["metrics"])
        self.charts = Charts(session, tasks, run_uid, sections.find)
        self.chart_sections = self.charts.sections
        self.overlay = Overlay(session, run, task, query) if task else None
        if self.overlay and (self.overlay.plotted or self.overlay.others):
            keys = [chart.title for section in self.chart_sections for chart in section.charts]
            self.chart_sections = in_sections(self.overlay.charts(session, keys))
        size = max(len(tasks), 1) if query.get("tasks") == "all" else _TASKS
        self.tasks = sections.cut("tasks", tasks, size)
        self.timeline = Timeline(run, tasks, self.tasks.rows)
        self.attempts = sections.cut("attempts", task.attempts if task else [])
        self.failed = [each for each in own if each.error]
        tags = tag_values(session, (VERIFIED_TAG, NAME_TAG, LIFECYCLE_TAG), by_uid, run_uid=run_uid)
        self.links = Links(own, {uid: text for (uid, name), text in tags.items() if name == VERIFIED_TAG})
        first = own[0].task_run_uid if own else ""
        self.mlflow_name = tags.get((first, NAME_TAG))
        self.is_deleted_in_mlflow = tags.get((first, LIFECYCLE_TAG)) == "deleted"
        known = logging_task_runs(session, run.run_uid)
        logging = [each for each in self._by_need(own) if each.task_run_uid in known]
        self.logging = len(logging)
        self.logs = run_logs(session, logging)
        self.parent = None
        if task and task.parent_task_run_uid and not self.detail:
            parent = select(TaskRun.uid.label("task_run_uid"), TASK_LABEL.label("label"))
            self.parent = session.execute(parent.where(TaskRun.uid == task.parent_task_run_uid)).first()

    @property
    def images(self) -> list[tuple[str, str, str]]:
        """The first images among the artifacts shown: name, page, and where their content is."""
        found = [(task.task_run_uid, item.name, item.path) for task, item in self.logged["artifacts"].rows]
        shown = [(one[1], artifact_url(*one), thumbnail_url(*one)) for one in found]
        return [(name, url, image) for name, url, image in shown if url and image][:_IMAGES]

    def _by_need(self, tasks: Sequence[TaskRunView]) -> list[TaskRunView]:
        """These task runs, first those whose logs one looks for: what failed, the innermost first; then the whole."""
        wanted = [*reversed(self.failed), *tasks[:1], *reversed(tasks[-3:]), *tasks]
        return list({task.task_run_uid: task for task in wanted}.values())

    @property
    def title(self) -> str:
        if self.task and not self.detail:
            return self.task.label
        return self.run.name or self.run.run_uid

    @property
    def tabs(self) -> list[tuple[str, str, int]]:
        """The parts that the page has: id, name, and how many things stand there."""
        parts = [
            ("charts", "Charts", sum(len(section.charts) for section in self.chart_sections)),
            ("tasks", "Tasks", self.tasks.total if self.tasks.total > 1 else 0),
            ("attempts", "Attempts", self.attempts.total if self.attempts.total > 1 else 0),
            *((name, title, self.logged[name].total) for name, title, *_ in _LISTS if title),
            ("log", "Logs" if self.logging > 1 else "Log", self.logging),
        ]
        return [part for part in parts if part[2]]


_LISTS: Final[tuple[tuple[str, str, ListKind, Callable[[str], bool] | None], ...]] = (
    ("metrics", "Metrics", "metrics", None),
    ("params", "Params", "params", None),
    ("tags", "Tags", "tags", lambda name: name != VERIFIED_TAG and not name.startswith(_SYSTEM_TAGS)),
    ("system_tags", "", "tags", lambda name: name != VERIFIED_TAG and name.startswith(_SYSTEM_TAGS)),
    ("datasets", "Datasets", "datasets", None),
    ("targets", "Inputs and outputs", "targets", None),
    ("models", "Models", "artifacts", lambda name: name.startswith("model:")),
    ("artifacts", "Artifacts", "artifacts", lambda name: not name.startswith("model:")),
)
"""What was logged: id, title of the tab if there is one, kind, and which names are in it."""


class Tile(NamedTuple):
    """A single value, and whose it is."""

    task: TaskRunView
    metric: MetricView


def _tiles(metrics: Section) -> list[Tile]:
    """What was logged once, by one task run, and is short: in a sweep each trial's value is no tile."""
    often = Counter(metric.key for _, metric in metrics.rows)
    found = [
        Tile(task, metric)
        for task, metric in metrics.rows
        if metric.points == 1 and often[metric.key] == 1 and len(str(metric.last_value)) <= _LONGEST_TILE
    ]
    return found[:_TILES]
