"""The summary at the end of a run: how it went, what it logged, and where all of that can be found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dbnd._cli.block import ENDED
from dbnd._terminal import console
from dbnd._terminal.text import Shown, cut, number, pad, plain, sparkline, together, width

if TYPE_CHECKING:
    from dbnd._cli.progress import RunProgress, Series, TaskProgress

_LABEL: Final = 9
_INDENT: Final = "  "
_WIDEST: Final = 120
_NARROW: Final = 60
# How much is shown without -v.
_PARAMS: Final = 12
_METRICS: Final = 12
_LINKS: Final = 3
_LONGEST_VALUE: Final = 40
# Columns that stay for the line of bars, on a wide and on a narrow terminal, and for the name of a metric.
_BARS: Final = (8, 4)
_SHORTEST_NAME: Final = 12


def summary(progress: RunProgress) -> Shown:
    """What is to be said of a run that has ended, as lines that stand under its headline."""
    columns = _columns()
    lines = []
    for label, texts in _facts(progress, columns - _LABEL - len(_INDENT)):
        for text in texts:
            lines.append(together((_INDENT, console.heading(pad(label, _LABEL)), text)))
            label = ""  # noqa: PLW2901  the further lines of one fact have no label
    return together(lines, "\n")


def _columns() -> int:
    """Columns of the terminal; elsewhere as many as a wide one has."""
    return min((console.columns(sys.stderr) or _WIDEST) - 1, _WIDEST)


def _facts(progress: RunProgress, room: int) -> Iterator[tuple[str, list[str]]]:
    tasks = list(progress.tasks.values())
    yield "tasks", [_count(progress)]
    params = [_param(task, name, value) for task in tasks for name, value in task.params.items()]
    if params:
        yield "params", _flow(params, room)
    metrics = [(task, series) for task in tasks for series in task.series.values()]
    if metrics:
        yield "metrics", list(_metric_lines(metrics, room))
    if progress.run.address is not None:
        is_known = progress.client is None or progress.run.is_known()
        yield "tracked", [progress.run.address if is_known else "no: the tracker has not taken this run"]
    links: dict[str, list[str]] = {}
    for task in tasks:
        for name, url in task.task_run.links.items():
            links.setdefault(name, []).append(url)
    for name, urls in links.items():
        more = [f"and {len(urls) - _LINKS} more"] if len(urls) > _LINKS else []
        yield cut(plain(name), _LABEL - 1), [plain(url) for url in urls[:_LINKS]] + more
    if progress.client is not None and progress.client.unsent:
        # Why, and where they are, the client has said in a warning.
        count = progress.client.unsent
        yield "unsent", ["1 event waits: `dbnd sync`" if count == 1 else f"{count} events wait: `dbnd sync`"]


def _count(progress: RunProgress) -> str:
    parts = [f"{count} {ENDED.get(state, state.value)}" for state, count in progress.ended.most_common() if count]
    unfinished = progress.started - sum(progress.ended.values())
    if unfinished:
        parts.append(f"{unfinished} not ended")
    return ", ".join(parts) or "none"


def _param(task: TaskProgress, name: str, value: str) -> str:
    owner = "" if task.task_run.is_root else f"{task.task_run.af_id}."
    return f"{plain(owner + name)}={cut(plain(value), _LONGEST_VALUE)}"


def _flow(items: list[str], room: int) -> list[str]:
    """``items`` side by side, on as many lines as they need."""
    limit = len(items) if console.verbosity() > 0 else _PARAMS
    if len(items) > limit:
        items = [*items[:limit], f"and {len(items) - limit} more"]
    lines = [""]
    for item in items:
        if lines[-1] and width(lines[-1]) + 2 + width(item) > room:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + item
    return [cut(line, room) for line in lines]


def _metric_lines(metrics: list[tuple[TaskProgress, Series]], room: int) -> Iterator[str]:
    limit = len(metrics) if console.verbosity() > 0 else _METRICS
    more, metrics = len(metrics) - limit, metrics[:limit]
    several = len({task for task, _ in metrics}) > 1
    names = [plain(f"{task.task_run.af_id}.{series.key}" if several else series.key) for task, series in metrics]
    values = [cut(number(series.last), _LONGEST_VALUE) for _, series in metrics]
    bounds = [
        "" if series.low is None else f"min {number(series.low)}  max {number(series.high)}" for _, series in metrics
    ]
    value_columns = max(map(width, values))
    bound_columns = max(map(width, bounds))
    if room < _NARROW:  # the bounds are left out for the line of bars
        bound_columns = 0
    bar_columns = _BARS[room < _NARROW] if any(len(series.history) > 1 for _, series in metrics) else 0
    taken = sum(columns + 2 for columns in (value_columns, bound_columns) if columns)
    room_for_names = room - taken - (bar_columns + 2 if bar_columns else 0)
    name_columns = min(max(map(width, names)), max(room_for_names, _SHORTEST_NAME))
    left = room - name_columns - taken - 2
    for name, value, bound, (_, series) in zip(names, values, bounds, metrics, strict=True):
        parts = [pad(cut(name, name_columns), name_columns), pad(value, value_columns)]
        if bound_columns:
            parts.append(pad(bound, bound_columns))
        if len(series.history) > 1 and left > 1:
            parts.append(console.dimmed(sparkline(series.history, min(left, 24))))
        else:
            parts[-1] = parts[-1].rstrip()
        yield together(parts, "  ")
    if more > 0:
        yield f"and {more} more"
