"""A run while it goes on: on a terminal, a block of lines with its task tree that changes in place."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import click

from dbnd._base.clock import utc_now
from dbnd._base.forks import start
from dbnd._model.run import TaskRunState
from dbnd._terminal import console
from dbnd._terminal.region import Region
from dbnd._terminal.text import cut, duration, number, pad, plain, width

if TYPE_CHECKING:
    from dbnd._cli.progress import RunProgress, TaskProgress

# Seconds between two looks at the run.
_PERIOD: Final = 0.25
# A run that takes less is over before anybody has read the block.
_DELAY: Final = 1.0
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
# How task runs that have ended are shown: sign, colour and word.
_ENDED: Final = {
    TaskRunState.SUCCESS: ("✓", "green", "succeeded"),
    TaskRunState.FAILED: ("✗", "red", "failed"),
    TaskRunState.UPSTREAM_FAILED: ("✗", "red", "failed by others"),
    TaskRunState.CANCELLED: ("■", "yellow", "cancelled"),
}
# Below this many columns the metrics of a task stand under it and not beside it.
_NARROW: Final = 64
_TIME: Final = 7
# The block leaves most of the screen to the user's own output.
_MAX_LINES: Final = 14
# Parts of a line, each with the arguments of ``click.style``.
_Line = list[tuple[str, dict[str, Any]]]
_DIM: Final[dict[str, Any]] = {"dim": True}


@contextmanager
def shown(progress: RunProgress) -> Iterator[None]:
    """Keep ``progress`` up to date, and show it on the terminal while the block runs.

    Where lines cannot change in place nothing is shown but, asked for by ``-v``, a line for each task run that ends.
    """
    region = Region(sys.stderr.fileno()) if console.is_live() else None
    end, colour = threading.Event(), console.has_colour(sys.stderr)
    thread = threading.Thread(target=_watch, args=(progress, region, end, colour), name="dbnd-live", daemon=True)
    is_watched = start(thread)
    try:
        yield
    finally:
        end.set()
        if is_watched:
            thread.join()
        progress.close()
        _update(progress)
        if region is not None:
            region.close()


def _watch(progress: RunProgress, region: Region | None, end: threading.Event, colour: bool) -> None:
    for frame in count():
        if end.wait(_PERIOD):
            return
        _update(progress)
        now = utc_now()
        if region is not None and (now - progress.run.start_time).total_seconds() >= _DELAY:
            try:
                region.draw(block(progress, region.size(), now, frame=frame, colour=colour))
            except OSError:  # the terminal is gone; the run is not
                region = None


def _update(progress: RunProgress) -> None:
    for task in progress.update():
        if console.verbosity() > 0:
            sign, _, word = look(task.task_run.state)
            console.info(f"{sign} {plain(task.task_run.af_id)} {word} after {_took(task, utc_now())}")


def look(state: TaskRunState) -> tuple[str, str | None, str]:
    """Sign, colour and word of a state."""
    return ("●", "cyan", "running") if not state.is_final else _ENDED.get(state, ("·", None, state.value))


def _took(task: TaskProgress, now: datetime) -> str:
    return duration(((task.task_run.end_time or now) - task.task_run.start_time).total_seconds())


def block(progress: RunProgress, size: tuple[int, int], now: datetime, *, frame: int, colour: bool) -> list[str]:
    """The lines of the block, for a terminal of so many columns and lines; ``frame`` moves the spinner on."""
    columns, room = size
    run, client = progress.run, progress.client
    took = duration((now - run.start_time).total_seconds())
    title = cut(f" {plain(run.name)} · {plain(run.job_name)} · {took} ", columns - 6)
    spinner, rest = _SPINNER[frame % len(_SPINNER)], "─" * (columns - 4 - width(title))
    lines: list[_Line] = [[("──", _DIM), (f" {spinner}", {"fg": "cyan"}), (title, {}), (rest, _DIM)]]
    if client is not None and client.trouble:
        waiting = f"! The tracker does not take events, {client.unsent} wait: {client.trouble}"
        lines.append([(waiting, {"fg": "yellow"})])
    lines += _tree(progress, columns, min(room, _MAX_LINES) - len(lines), now)
    return [_fit(line, columns, colour=colour) for line in lines[: max(room, 1)]]


def _fit(line: _Line, columns: int, *, colour: bool) -> str:
    parts = []
    for text, style in line:
        part = cut(plain(text), columns)
        columns -= width(part)
        parts.append(click.style(part, **style) if colour and part else part)
    return "".join(parts)


def _tree(progress: RunProgress, columns: int, room: int, now: datetime) -> Iterator[_Line]:
    is_narrow = columns < _NARROW
    listed = _choose(progress, room, is_narrow=is_narrow)
    rows = list(_walk(progress, listed, None, ""))
    name_columns = max((width(prefix + plain(task.task_run.name)) for prefix, _, task in rows), default=0)
    name_columns = min(name_columns, max(columns - _TIME - 4, 1) if is_narrow else columns // 2)
    for prefix, below, task in rows:
        is_running = not task.task_run.state.is_final
        sign, colour, _ = look(task.task_run.state)
        name = cut(plain(task.task_run.name), max(name_columns - width(prefix), 4))
        line: _Line = [
            (prefix, _DIM),
            (f"{sign} ", {"fg": colour}),
            (pad(name, name_columns - width(prefix)), {} if is_running else _DIM),
            (f" {_took(task, now):>{_TIME}}", _DIM),
        ]
        values = "  ".join(f"{plain(series.key)} {number(series.last)}" for series in list(task.series.values())[:20])
        shown_values = (f"  {values}", {"fg": "magenta"} if is_running else _DIM)
        if values and is_narrow and is_running:
            yield line
            yield [(below, _DIM), shown_values]
        else:
            yield [*line, shown_values]
    if progress.started > len(listed):
        ended = progress.ended.total() - sum(task.has_ended for task in listed)
        yield [(f"… {progress.started - len(listed)} more, {ended} of them ended", _DIM)]


def _choose(progress: RunProgress, room: int, *, is_narrow: bool) -> list[TaskProgress]:
    """The task runs for which there is room: first those that run, then the failed, then those that ended last."""

    def rank(task: TaskProgress) -> int:
        return 0 if not task.has_ended else 2 if task.task_run.state is TaskRunState.SUCCESS else 1

    room -= progress.started > room  # the last line says how many others there are
    chosen: set[TaskProgress] = set()
    newest_first = list(progress.tasks.values())[::-1]
    for task in sorted(newest_first, key=rank):
        branch = set(progress.branch_of(task)) - chosen
        lines = sum(2 if is_narrow and task.series and not task.has_ended else 1 for task in branch)
        if lines <= room:
            chosen |= branch
            room -= lines
    return [task for task in progress.tasks.values() if task in chosen]


def _walk(
    progress: RunProgress, listed: list[TaskProgress], parent: TaskProgress | None, before: str
) -> Iterator[tuple[str, str, TaskProgress]]:
    """Each task run below ``parent`` with what is drawn before its name, and before a line that belongs to it."""
    mine = [task for task in listed if progress.parent_of(task) is parent]
    for task in mine:
        prefix, below = before, before
        if parent is not None:
            prefix += "└─ " if task is mine[-1] else "├─ "
            below += "   " if task is mine[-1] else "│  "
        inner = list(_walk(progress, listed, task, below))
        yield prefix, below + ("│ " if inner else "  "), task
        yield from inner
