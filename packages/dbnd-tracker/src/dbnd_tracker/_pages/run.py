"""The page of a run, with the timeline of its tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NamedTuple

from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from dbnd.tracking import VERIFIED_TAG
from dbnd_tracker._format import duration_text
from dbnd_tracker._pages.logs import run_logs
from dbnd_tracker._pages.sections import Sections
from dbnd_tracker._pages.templates import is_live, run_url, state_look
from dbnd_tracker._queries.details import logging_task_runs
from dbnd_tracker._queries.listing import tag_values
from dbnd_tracker._queries.logged import ListKind
from dbnd_tracker._views import AttemptView, RunDetail, TaskRunView

_LISTS: Final[tuple[ListKind, ...]] = ("metrics", "params", "tags", "artifacts", "datasets")
_MLFLOW_RUN: Final = re.compile(r"/runs/([0-9A-Za-z_-]{1,64})/?$")
_TASKS: Final = 500
_WIDTH: Final = 1_000
_TICKS: Final = 5
_THINNEST: Final = 4.0


class RunPage:
    """A run as its page shows it; ``tasks=all`` in the address' query asks for all its task runs at once."""

    def __init__(self, session: Session, run: RunDetail, query: QueryParams) -> None:
        self.run = run
        self.is_live = is_live(run.state)
        tasks = [task for task in run.task_runs if not task.is_system] or run.task_runs
        self.sections = Sections(run_url(run.job_name, run.run_uid), query)
        size = max(len(tasks), 1) if query.get("tasks") == "all" else _TASKS
        self.tasks = self.sections.cut("tasks", tasks, size)
        self.timeline = Timeline(run, tasks, self.tasks.rows)
        self.failed = [task for task in tasks if task.error]
        # The log that one looks for first: of what failed, the innermost; else of the whole.
        logging = logging_task_runs(session, run.run_uid)
        candidates = [*reversed(self.failed), *tasks[:1], *reversed(tasks[-3:])]
        by_need = {task.task_run_uid: task for task in [*candidates, *tasks] if task.task_run_uid in logging}
        self.logging = len(by_need)
        self.logs = run_logs(session, by_need.values())
        by_uid = {task.task_run_uid: task for task in tasks}
        self.logged = {kind: self.sections.logged(session, kind, by_uid, run_uid=run.run_uid) for kind in _LISTS}
        verdicts = tag_values(session, VERIFIED_TAG, run_uid=run.run_uid)
        self.links = [link for task in tasks for link in links_of(task, verdicts.get(task.task_run_uid))]


class Bar(NamedTuple):
    """An attempt on the timeline, in thousandths of its width."""

    x: float
    width: float
    look: str
    title: str


class Timeline:
    """Bars for the attempts at the task runs shown, and labels for the time that all took together."""

    def __init__(self, run: RunDetail, tasks: Sequence[TaskRunView], shown: Sequence[TaskRunView]) -> None:
        now = datetime.now(timezone.utc)
        spans = {task.task_run_uid: _spans(task, run, now) for task in tasks}
        times = [times for found in spans.values() for times in found]
        first = min((start for _, start, _ in times), default=run.start_time)
        whole = max(max((end for _, _, end in times), default=first) - first, timedelta(milliseconds=1))
        self.ticks = ["0", *(duration_text(whole * i / (_TICKS - 1)) for i in range(1, _TICKS))] if times else []
        self.rows = [
            (task, [_bar(a, start - first, end - first, whole) for a, start, end in spans[task.task_run_uid]])
            for task in shown
        ]


def _spans(task: TaskRunView, run: RunDetail, now: datetime) -> list[tuple[AttemptView, datetime, datetime]]:
    """Its attempts with their starts and ends; what goes on ends now, and what its run left unfinished with that."""
    found = []
    for attempt in task.attempts:
        start, end = attempt.start_time, attempt.end_time
        if start is not None:
            if end is None:
                end = now if is_live(attempt.state) and is_live(run.state) else run.end_time or start
            found.append((attempt, start, max(start, end)))
    return found


def _bar(attempt: AttemptView, start: timedelta, end: timedelta, whole: timedelta) -> Bar:
    width = max((end - start) / whole * _WIDTH, _THINNEST)
    x = min(start / whole * _WIDTH, _WIDTH - width)
    title = f"{attempt.state or 'unknown'}, {duration_text(end - start)}"
    if attempt.number and attempt.number > 1:
        title = f"Attempt {attempt.number}: {title}"
    return Bar(round(max(x, 0), 2), round(width, 2), state_look(attempt.state), title)


class Verdict(NamedTuple):
    """When ``dbnd mlflow verify --record`` compared the two sides, and in how much they differed."""

    time: datetime
    differences: int


class Link(NamedTuple):
    """Where a task run can be seen elsewhere; MLflow's own run has an id, and a verdict once it was compared."""

    task: TaskRunView
    name: str
    url: Any
    mlflow_run_id: str | None
    verdict: Verdict | None


def links_of(task: TaskRunView, verified: str | None) -> list[Link]:
    """The links of a task run; ``verified`` is the value of its tag ``VERIFIED_TAG``."""
    found = []
    for name, url in task.links.items():
        match = _MLFLOW_RUN.search(url) if isinstance(url, str) else None
        found.append(Link(task, name, url, match[1] if match else None, _verdict(verified) if match else None))
    return found


def _verdict(text: str | None) -> Verdict | None:
    time, _, count = (text or "").partition(" ")
    try:
        return Verdict(datetime.fromisoformat(time).astimezone(timezone.utc), int(count))
    except (ValueError, OverflowError):  # anybody may set such a tag
        return None
