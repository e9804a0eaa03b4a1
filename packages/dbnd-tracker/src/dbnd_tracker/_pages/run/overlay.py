"""What a page draws of one task run beside its own charts: metrics in one chart, and other runs of the same job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from dbnd_tracker._pages.charts import Chart, Line
from dbnd_tracker._queries.listing import metrics_named
from dbnd_tracker._storage.models import Attempt, Run, TaskRun
from dbnd_tracker._views import RunSummary, TaskRunView

_PLOTTED: Final = 30
_SIBLINGS: Final = 20


class Overlay:
    """What is asked for: ``with``, uids of runs whose task of the same name is drawn; ``plot``, keys of metrics."""

    def __init__(self, session: Session, run: RunSummary, task: TaskRunView, query: QueryParams) -> None:
        self.chosen = frozenset(query.getlist("with"))
        self.siblings = _siblings(session, run, query.getlist("with"))
        self.others = _same_tasks(session, task, [uid for uid, _ in self.siblings if uid in self.chosen])
        asked = list(dict.fromkeys(query.getlist("plot")))[:_PLOTTED]
        known = metrics_named(session, [task.task_run_uid], asked) if asked else set()
        self.plotted = [key for key in asked if (task.task_run_uid, key) in known]
        self._tasks = [(run.name or run.run_uid, task.task_run_uid, task.start_time), *self.others]

    def charts(self, session: Session, keys: Sequence[str]) -> list[Chart]:
        """The chart of all metrics ``plotted``, or of each of ``keys``."""
        keys = self.plotted or keys
        known = metrics_named(session, [uid for _, uid, _ in self._tasks], keys)
        found: dict[str, Chart] = {}
        for key in keys:
            title = ", ".join(self.plotted) or key
            lines = found.setdefault(title, Chart(title, [], 0)).series
            for name, uid, start in self._tasks:
                if (uid, key) in known:
                    parts = [*([key] if self.plotted else []), *([name] if self.others else [])]
                    lines.append(Line(uid, start, key, " · ".join(parts), len(lines)))
        return list(found.values())


def _siblings(session: Session, run: RunSummary, chosen: Sequence[str]) -> list[tuple[str, str]]:
    """Uids and names of the latest other runs of the same job, and of those that are chosen already."""
    newest = (Run.start_time.desc(), Run.id.desc())
    latest = select(Run.uid).where(Run.job_name == run.job_name, Run.uid != run.run_uid).order_by(*newest)
    is_one = or_(Run.uid.in_(latest.limit(_SIBLINGS)), Run.uid.in_(chosen[:_SIBLINGS]))
    wanted = select(Run.uid, Run.name).where(is_one, Run.uid != run.run_uid).order_by(*newest)
    return [(uid, name or uid) for uid, name in session.connection().execute(wanted)]


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
