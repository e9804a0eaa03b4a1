"""The page of a task run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from dbnd.tracking import VERIFIED_TAG
from dbnd_tracker._pages.logs import log_tail
from dbnd_tracker._pages.run import links_of
from dbnd_tracker._pages.sections import Section, Sections
from dbnd_tracker._pages.templates import is_live, task_url
from dbnd_tracker._queries.details import children_of
from dbnd_tracker._queries.listing import metrics_named, tag_values
from dbnd_tracker._queries.logged import ListKind
from dbnd_tracker._storage.models import Attempt, Run, TaskRun
from dbnd_tracker._views import MetricView, RunSummary, TaskRunView

_LISTS: Final[tuple[ListKind, ...]] = ("metrics", "params", "tags", "datasets", "targets")
_CHARTS: Final = 60
_PLOTTED: Final = 30
_SIBLINGS: Final = 20


class TaskPage:
    """A task run as its page shows it.

    In the address' query, ``with`` is the uid of a run whose task of the same name the charts show, too, and ``plot``
    the key of a metric; those share one chart, and without any each metric has its own.
    """

    def __init__(self, session: Session, run: RunSummary, task: TaskRunView, query: QueryParams) -> None:
        self.run = run
        self.task = task
        self.is_live = is_live(run.state)
        self.log = log_tail(session, task)
        verdicts = tag_values(session, VERIFIED_TAG, task_run_uid=task.task_run_uid)
        self.links = links_of(task, verdicts.get(task.task_run_uid))
        self.sections = sections = Sections(task_url(run.job_name, run.run_uid, task.task_run_uid), query)
        own = {task.task_run_uid: task}
        self.logged: dict[str, Section] = {kind: sections.logged(session, kind, own) for kind in _LISTS}
        self.logged["models"] = sections.logged(session, "artifacts", own, name="models", keep=_is_model)
        self.logged["artifacts"] = sections.logged(session, "artifacts", own, keep=lambda name: not _is_model(name))
        self.attempts = sections.cut("attempts", task.attempts)
        parent = select(TaskRun.uid.label("task_run_uid"), TaskRun.name).where(TaskRun.uid == task.parent_task_run_uid)
        self.parent = session.execute(parent).first()
        self.children = sections.cut("children", children_of(session, task.task_run_uid))
        self.chosen = frozenset(query.getlist("with"))
        self.siblings = _siblings(session, run, query.getlist("with"))
        self.others = _same_tasks(session, task, [uid for uid, _ in self.siblings if uid in self.chosen])
        asked = list(dict.fromkeys(query.getlist("plot")))[:_PLOTTED]
        known = metrics_named(session, [task.task_run_uid], asked) if asked else set()
        self.plotted = [key for key in asked if (task.task_run_uid, key) in known]
        self.charted = [metric.key for _, metric in self.logged["metrics"].rows if _is_number(metric)]
        self.charts = self._charts(session)

    def _charts(self, session: Session) -> list[tuple[str, list[dict[str, Any]]]]:
        """Title and series of each chart."""
        keys = self.plotted or self.charted[:_CHARTS]
        tasks = [(self.run.name or self.run.run_uid, self.task.task_run_uid, self.task.start_time), *self.others]
        known = metrics_named(session, [uid for _, uid, _ in tasks], keys) if self.others else None
        charts: dict[str, list[dict[str, Any]]] = {}
        for key in keys:
            lines = charts.setdefault(", ".join(self.plotted) or key, [])
            for name, uid, start in tasks:
                if known is None or (uid, key) in known:
                    parts = [*([key] if self.plotted else []), *([name] if self.others else [])]
                    lines.append(chart_line(uid, start, key, " · ".join(parts) or key, colour=len(lines)))
        return list(charts.items())


def chart_line(task_run_uid: str, start: datetime | None, key: str, label: str, *, colour: int) -> dict[str, Any]:
    """What a chart must know to draw one metric of a task run."""
    begin = None if start is None else round(start.timestamp() * 1000)
    return {"task": task_run_uid, "key": key, "label": label, "start": begin, "colour": colour}


def _is_model(artifact: str) -> bool:
    return artifact.startswith("model:")


def _is_number(metric: MetricView) -> bool:
    """Whether a metric has anything that a chart can draw."""
    return metric.min is not None or metric.type in {"float", "int"}


def _siblings(session: Session, run: RunSummary, chosen: Sequence[str]) -> list[tuple[str, str]]:
    """Uids and names of the latest other runs of the same job, and of those that are chosen already."""
    newest = (Run.start_time.desc(), Run.id.desc())
    latest = select(Run.uid).where(Run.job_name == run.job_name, Run.uid != run.run_uid).order_by(*newest)
    uids = [*session.scalars(latest.limit(_SIBLINGS)), *chosen[:_SIBLINGS]]
    wanted = select(Run.uid, Run.name).where(Run.uid.in_(uids), Run.uid != run.run_uid).order_by(*newest)
    return [(uid, name or uid) for uid, name in session.execute(wanted)]


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
