"""The timeline of a run: when each attempt at each task ran."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from dbnd_tracker._format import duration_text
from dbnd_tracker._pages.templates import is_live, state_look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbnd_tracker._views import AttemptView, RunDetail, TaskRunView

WIDTH: Final = 1_000
"""Units from the left end of a bar's place to its right end."""

_TICKS: Final = 5
_THINNEST: Final = 4.0
_MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """An attempt on the timeline, in units of ``WIDTH``."""

    x: float
    width: float
    look: str
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """A task run on the timeline."""

    task: TaskRunView
    depth: int
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The task runs of a run, as a tree laid out in rows, with their time beside them.

    Args:
        rows: One for each task run shown.
        ticks: Labels from the left end to the right one, equally far apart; empty when nothing has started.
    """

    rows: list[Row]
    ticks: list[str]


def make_timeline(run: RunDetail, tasks: Sequence[TaskRunView], shown: Sequence[TaskRunView]) -> Timeline:
    """The timeline of the task runs of a run.

    Args:
        run: The run.
        tasks: Its task runs.
        shown: Those that have a row.
    """
    attempts = [attempt for task in tasks for attempt in task.attempts if attempt.start_time]
    now = datetime.now(timezone.utc)
    start = min((a.start_time for a in attempts if a.start_time), default=run.start_time)
    end = max((_end(a, run, now) for a in attempts), default=start)
    span = max(end - start, timedelta(milliseconds=1))
    rows = []
    for task in shown:
        bars = [_bar(attempt, run, start, span, now) for attempt in task.attempts if attempt.start_time]
        rows.append(Row(task, min(task.depth, _MAX_DEPTH), bars))
    ticks = ["0", *(duration_text(span * i / (_TICKS - 1)) for i in range(1, _TICKS))] if attempts else []
    return Timeline(rows, ticks)


def _end(attempt: AttemptView, run: RunDetail, now: datetime) -> datetime:
    """When it ended; what goes on ends now, and what was left unfinished by its run ended with that."""
    assert attempt.start_time is not None
    end = attempt.end_time
    if end is None:
        end = now if is_live(attempt.state) and is_live(run.state) else run.end_time or attempt.start_time
    return max(end, attempt.start_time)


def _bar(attempt: AttemptView, run: RunDetail, start: datetime, span: timedelta, now: datetime) -> Bar:
    assert attempt.start_time is not None
    end = _end(attempt, run, now)
    width = max((end - attempt.start_time) / span * WIDTH, _THINNEST)
    x = min((attempt.start_time - start) / span * WIDTH, WIDTH - width)
    title = f"{attempt.state or 'unknown'}, {duration_text(end - attempt.start_time)}"
    if attempt.number and attempt.number > 1:
        title = f"Attempt {attempt.number}: {title}"
    return Bar(round(max(x, 0), 2), round(width, 2), state_look(attempt.state), title)
