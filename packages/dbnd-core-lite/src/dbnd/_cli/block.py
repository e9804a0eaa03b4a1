"""The live block: a run's task tree with states, times and the newest values of the metrics, as lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from dbnd._model.run import TaskRunState
from dbnd._terminal.text import cut, duration, number, pad, plain, width

if TYPE_CHECKING:
    from dbnd._cli.progress import RunProgress, TaskProgress

_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
GLYPHS: Final = {
    TaskRunState.SUCCESS: ("✓", "green"),
    TaskRunState.FAILED: ("✗", "red"),
    TaskRunState.UPSTREAM_FAILED: ("✗", "red"),
    TaskRunState.CANCELLED: ("■", "yellow"),
}
_OTHER: Final = ("·", None)
ENDED: Final = {
    TaskRunState.SUCCESS: "succeeded",
    TaskRunState.FAILED: "failed",
    TaskRunState.UPSTREAM_FAILED: "failed by others",
    TaskRunState.CANCELLED: "cancelled",
}
# Below this many columns the metrics of a task stand under it and not beside it.
_NARROW: Final = 64
_TIME: Final = 7
# The block leaves most of the screen to the user's own output.
MAX_LINES: Final = 14


class Styled:
    """Pieces of a line, each with a colour, that are cut together."""

    def __init__(self) -> None:
        self._pieces: list[tuple[str, str | None, bool]] = []

    def add(self, text: str, colour: str | None = None, *, dim: bool = False) -> Styled:
        """Add a piece."""
        self._pieces.append((text, colour, dim))
        return self

    def fit(self, columns: int, *, colour: bool) -> str:
        """The line, cut to ``columns``."""
        shown = []
        for text, name, dim in self._pieces:
            if columns <= 0:
                break
            part = cut(plain(text), columns)
            columns -= width(part)
            shown.append(click.style(part, fg=name, dim=dim or None) if colour and (name or dim) else part)
        return "".join(shown)


def block(progress: RunProgress, size: tuple[int, int], now: datetime, *, frame: int, colour: bool) -> list[str]:
    """The lines of the block.

    Args:
        progress: What is shown.
        size: Columns and lines that there are.
        now: The time.
        frame: Counts the calls, for what moves.
        colour: Whether there are colours.
    """
    columns, room = size
    lines = [_header(progress, columns, now, frame)]
    trouble = progress.client.trouble if progress.client is not None else None
    if trouble:
        assert progress.client is not None
        waiting = f"! The tracker does not take events, {progress.client.unsent} wait: {plain(trouble)}"
        lines.append(Styled().add(waiting, "yellow"))
    lines += _tree(progress, columns, min(room, MAX_LINES) - len(lines), now)
    return [line.fit(columns, colour=colour) for line in lines[: max(room, 1)]]


def _header(progress: RunProgress, columns: int, now: datetime, frame: int) -> Styled:
    run = progress.run
    seconds = (now - run.start_time).total_seconds()
    spinner = _SPINNER[frame % len(_SPINNER)]
    text = f" {plain(run.name)} · {plain(run.job_name)} · {duration(seconds)} "
    text = cut(text, columns - 6)
    return (
        Styled()
        .add("──", dim=True)
        .add(f" {spinner}", "cyan")
        .add(text)
        .add("─" * max(columns - 4 - width(text), 0), dim=True)
    )


def _tree(progress: RunProgress, columns: int, room: int, now: datetime) -> list[Styled]:
    narrow = columns < _NARROW
    shown = _choose(progress, room, narrow=narrow)
    children: dict[TaskProgress | None, list[TaskProgress]] = {}
    for task in shown:
        children.setdefault(progress.parent_of(task), []).append(task)
    rows = list(_walk(children, None, ""))
    name_columns = max((width(prefix + plain(task.task_run.name)) for prefix, _, task in rows), default=0)
    name_columns = min(name_columns, max(columns - _TIME - 4, 1) if narrow else columns // 2)
    lines = []
    for prefix, below, task in rows:
        state = task.task_run.state
        running = not state.is_final
        glyph, colour = ("●", "cyan") if running else GLYPHS.get(state, _OTHER)
        end = task.task_run.end_time or now
        seconds = (end - task.task_run.start_time).total_seconds()
        name = pad(cut(plain(task.task_run.name), max(name_columns - width(prefix), 4)), name_columns - width(prefix))
        line = Styled().add(prefix, dim=True).add(f"{glyph} ", colour).add(name, dim=not running)
        line.add(f" {duration(seconds):>{_TIME}}", dim=True)
        values = _values(task)
        if values and narrow and running:
            lines += [line, Styled().add(f"{below}  ", dim=True).add(values, "magenta")]
        else:
            lines.append(line.add(f"  {values}", "magenta" if running else None, dim=not running))
    hidden = progress.started - len(shown)
    if hidden:
        ended = sum(progress.ended.values()) - sum(task.task_run.state.is_final for task in shown)
        lines.append(Styled().add(f"… {hidden} more, {ended} of them ended", dim=True))
    return lines


def _values(task: TaskProgress) -> str:
    """The newest values, that of the metric logged first in front."""
    return "  ".join(f"{plain(series.key)} {number(series.last)}" for series in list(task.series.values())[:20])


def _choose(progress: RunProgress, room: int, *, narrow: bool) -> list[TaskProgress]:
    """The task runs for which there is room: first those that run, then the failed, then those that ended last."""
    tasks = list(progress.tasks.values())
    places = {task: place for place, task in enumerate(tasks)}

    def importance(task: TaskProgress) -> tuple[int, int]:
        state = task.task_run.state
        rank = 0 if not state.is_final else 2 if state is TaskRunState.SUCCESS else 1
        return rank, -places[task]

    needed: set[TaskProgress] = set()
    # The last line says how many others there are.
    room -= progress.started > room
    for task in sorted(tasks, key=importance):
        branch = {task, *_ancestors(progress, task)} - needed
        cost = sum(2 if narrow and t.series and not t.task_run.state.is_final else 1 for t in branch)
        if cost <= room:
            needed |= branch
            room -= cost
    return sorted(needed, key=places.__getitem__)


def _ancestors(progress: RunProgress, task: TaskProgress) -> Iterator[TaskProgress]:
    parent = progress.parent_of(task)
    while parent is not None:
        yield parent
        parent = progress.parent_of(parent)


def _walk(
    children: dict[TaskProgress | None, list[TaskProgress]], parent: TaskProgress | None, before: str
) -> Iterable[tuple[str, str, TaskProgress]]:
    """Each task run below ``parent`` with what is drawn before its name, and before a line that belongs to it."""
    mine = children.get(parent, [])
    for task in mine:
        is_last = task is mine[-1]
        is_top = parent is None
        prefix = before + ("" if is_top else "└─ " if is_last else "├─ ")
        below = before + ("" if is_top else "   " if is_last else "│  ")
        yield prefix, below + ("│ " if task in children else "  "), task
        yield from _walk(children, task, below)
