"""The end of a run: how it went, what it logged, and where all of that can be found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from dbnd._base.clock import utc_now
from dbnd._base.masking import mask_text
from dbnd._cli.live import look
from dbnd._model.error_info import message_of
from dbnd._model.run import RunState, TaskRunState
from dbnd._terminal import console
from dbnd._terminal.text import Shown, cut, duration, number, pad, plain, sparkline, together, width
from dbnd._tracking.outbox import others_than

if TYPE_CHECKING:
    from dbnd._cli.progress import RunProgress, Series, TaskProgress

_ENDED: Final = {RunState.SUCCESS: "succeeded", RunState.FAILED: "failed", RunState.CANCELLED: "was cancelled"}
_LABEL: Final = 9
_INDENT: Final = "  "
_WIDEST: Final = 120
_NARROW: Final = 60
# How many params and metrics are shown without -v, and links of a name.
_MOST: Final = 12
_LINKS: Final = 3
_LONGEST_VALUE: Final = 40
# Longest reason of a failure that its headline repeats, in columns; the traceback above has the whole.
_REASON: Final = 200
_SHORTEST_REASON: Final = 30


def tell_end(progress: RunProgress, failure: BaseException | None) -> None:
    """Say how a run has ended, and what it has logged."""
    run = progress.run
    took = duration(((run.end_time or utc_now()) - run.start_time).total_seconds())
    headline = f"Run {run.name} {_ENDED[run.state]} after {took}"
    if failure is None:
        console.success(f"{headline}.")
    else:
        name, said = type(failure).__name__, message_of(failure)
        reason = name if said == name else f"{name}: {plain(mask_text(said, _REASON).strip())}"
        # On a terminal, two lines remind of it.
        columns = console.columns(sys.stderr) or _REASON
        room = max(min(2 * columns - len(f"dbnd: error: {headline}: ") - 4, _REASON), _SHORTEST_REASON)
        console.error(f"{headline}: {cut(reason, room)}")
    console.details(summary(progress))


def summary(progress: RunProgress) -> Shown:
    """What is to be said of a run that has ended, as lines that stand under its headline."""
    columns = min((console.columns(sys.stderr) or _WIDEST) - 1, _WIDEST)
    lines = [
        together((_INDENT, console.heading(pad("" if number else label, _LABEL)), text))
        for label, texts in _parts(progress, columns - _LABEL - len(_INDENT))
        for number, text in enumerate(texts)
    ]
    return together(lines, "\n")


def _parts(progress: RunProgress, room: int) -> Iterator[tuple[str, list[str]]]:
    """Labels, each with its lines."""
    tasks = list(progress.tasks.values())
    yield "tasks", [_count(progress)]
    failed = [(task.task_run.af_id, task.task_run.error or "") for task in _origins(progress)]
    if failed:
        yield "failed", _first(list(console.aligned(failed, room)), _MOST)
    owners = {task: "" if task.task_run.is_root else f"{task.task_run.af_id}." for task in tasks}
    params = [
        f"{plain(owners[task] + name)}={cut(plain(value), _LONGEST_VALUE)}"
        for task in tasks
        for name, value in task.params.items()
    ]
    if params:
        yield "params", _flow(params, room)
    metrics = [(task, series) for task in tasks for series in task.series.values()]
    if metrics:
        yield "metrics", list(_metric_lines(metrics, room))
    is_relayed = progress.client is not None and progress.client.is_relayed
    if progress.run.address is not None:
        is_known = progress.client is None or progress.run.is_known()
        not_yet = "not yet: a relay delivers it" if is_relayed else "no: the tracker has not taken this run"
        yield "tracked", [progress.run.address if is_known else not_yet]
    links: dict[str, list[str]] = {}
    for task in tasks:
        for name, url in task.task_run.links.items():
            links.setdefault(name, []).append(plain(url))
    for name, urls in links.items():
        yield cut(plain(name), _LABEL - 1), _first(urls, _LINKS)
    for outbox in (progress.client, *others_than(progress.client)):
        if outbox is not None and outbox.unsent:
            # Why, and where they are, a warning has said.
            count = outbox.unsent
            whose = "" if outbox is progress.client else f" for {outbox.destination}"
            how = " for a relay" if outbox.is_relayed else ": `dbnd sync`"
            yield "unsent", [f"1 event{whose} waits{how}" if count == 1 else f"{count} events{whose} wait{how}"]


def _origins(progress: RunProgress) -> list[TaskProgress]:
    """The task runs that have failed, but for those that failed with one that they had called."""
    failed = [task for task in progress.tasks.values() if task.task_run.state is TaskRunState.FAILED]
    callers = {progress.parent_of(task) for task in failed}
    return [task for task in failed if task.task_run.error or task not in callers]


def _count(progress: RunProgress) -> str:
    parts = [f"{count} {look(state)[2]}" for state, count in progress.ended.most_common()]
    unfinished = progress.started - progress.ended.total()
    if unfinished:
        parts.append(f"{unfinished} not ended")
    return ", ".join(parts) or "none"


def _first(items: list[str], most: int) -> list[str]:
    """``items``, or the first of them and how many there are beyond."""
    return items if len(items) <= most else [*items[:most], f"and {len(items) - most} more"]


def _flow(items: list[str], room: int) -> list[str]:
    """``items`` side by side, on as many lines as they need."""
    lines = [""]
    for item in items if console.verbosity() > 0 else _first(items, _MOST):
        if lines[-1] and width(lines[-1]) + 2 + width(item) > room:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + item
    return [cut(line, room) for line in lines]


def _metric_lines(metrics: list[tuple[TaskProgress, Series]], room: int) -> Iterator[str]:
    listed = metrics if console.verbosity() > 0 else metrics[:_MOST]
    several = len({task for task, _ in listed}) > 1
    is_narrow = room < _NARROW
    rows = []
    for _, series in listed:
        name = f"{_INDENT}{series.key}" if several else series.key
        bounds = [""] * 2 if series.low is None else [f"min {number(series.low)}", f"max {number(series.high)}"]
        history = series.history
        bars = sparkline(history, 8 if is_narrow else 24) if len(history) > 1 else ""
        value = cut(number(series.last), _LONGEST_VALUE)
        rows.append((name, value, bars) if is_narrow else (name, value, *bounds, bars))
    before = None
    for (task, _), line in zip(listed, console.aligned(rows, room), strict=True):
        if several and task is not before:
            yield cut(plain(task.task_run.af_id), room)
        before = task
        yield line
    if len(metrics) > len(listed):
        yield f"and {len(metrics) - len(listed)} more"
