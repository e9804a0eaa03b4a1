"""The timeline of a run: when each attempt at each task ran."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, NamedTuple

from dbnd_tracker._format import duration_text
from dbnd_tracker._pages.templates import is_live, state_look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbnd_tracker._views import AttemptView, RunDetail, TaskRunView

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
    """Bars for the attempts at task runs, and labels for the time from the first start to the last end.

    Args:
        run: The run.
        tasks: Its task runs.
        shown: Those that have a row.
    """

    def __init__(self, run: RunDetail, tasks: Sequence[TaskRunView], shown: Sequence[TaskRunView]) -> None:
        now = datetime.now(timezone.utc)
        times = [
            (attempt.start_time, _end(attempt, attempt.start_time, run, now))
            for task in tasks
            for attempt in task.attempts
            if attempt.start_time
        ]
        first = min((start for start, _ in times), default=run.start_time)
        span = max(max((end for _, end in times), default=first) - first, timedelta(milliseconds=1))
        self.ticks = ["0", *(duration_text(span * i / (_TICKS - 1)) for i in range(1, _TICKS))] if times else []
        self.rows = [
            (
                task,
                [
                    _bar(attempt, attempt.start_time - first, _end(attempt, attempt.start_time, run, now) - first, span)
                    for attempt in task.attempts
                    if attempt.start_time
                ],
            )
            for task in shown
        ]


def _end(attempt: AttemptView, start: datetime, run: RunDetail, now: datetime) -> datetime:
    """When it ended; what goes on ends now, and what was left unfinished by its run ended with that."""
    end = attempt.end_time
    if end is None:
        end = now if is_live(attempt.state) and is_live(run.state) else run.end_time or start
    return max(end, start)


def _bar(attempt: AttemptView, start: timedelta, end: timedelta, span: timedelta) -> Bar:
    width = max((end - start) / span * _WIDTH, _THINNEST)
    x = min(start / span * _WIDTH, _WIDTH - width)
    title = f"{attempt.state or 'unknown'}, {duration_text(end - start)}"
    if attempt.number and attempt.number > 1:
        title = f"Attempt {attempt.number}: {title}"
    return Bar(round(max(x, 0), 2), round(width, 2), state_look(attempt.state), title)
