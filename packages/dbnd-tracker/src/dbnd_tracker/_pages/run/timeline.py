"""The timeline of task runs: when each attempt began, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Final, NamedTuple

from dbnd_tracker._format import duration_text
from dbnd_tracker._pages.templates import is_live, state_look
from dbnd_tracker._views import AttemptView, RunSummary, TaskRunView

_WIDTH: Final = 1_000
_TICKS: Final = 5
_THINNEST: Final = 4.0


class Bar(NamedTuple):
    """An attempt on the timeline, in thousandths of its width."""

    x: float
    width: float
    look: str
    title: str


class Timeline:
    """Bars for the attempts at the task runs shown, and labels for the time that all took together."""

    def __init__(self, run: RunSummary, tasks: Sequence[TaskRunView], shown: Sequence[TaskRunView]) -> None:
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


def _spans(task: TaskRunView, run: RunSummary, now: datetime) -> list[tuple[AttemptView, datetime, datetime]]:
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
