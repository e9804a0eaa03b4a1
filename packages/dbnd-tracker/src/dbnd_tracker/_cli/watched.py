"""A run as the tracker knows it, in the form in which ``dbnd run`` shows its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import click

from dbnd import TaskRun
from dbnd.plugins import (
    RunProgress,
    Series,
    Shown,
    TaskProgress,
    console,
    cut,
    duration,
    live_block,
    look,
    number,
    plain,
    run_summary,
    width,
)
from dbnd.tracking import Run, TaskDefinition, TaskRunState, utc_now
from dbnd_tracker._cli.plot import Point, chart
from dbnd_tracker._cli.references import read_whole
from dbnd_tracker._errors import TrackerError
from dbnd_tracker._format import type_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbnd_tracker._reader import RunReader
    from dbnd_tracker._views import MetricView, RunSummary, TaskRunView

# Columns that a chart wants and needs, and lines that it takes at least and at most.
_COLUMNS: Final = 50
_NARROWEST: Final = 24
_LINES: Final = (7, 14)
_SAMPLES: Final = 200
# Most lines of charts that stay above the summary of a run that has ended.
_LAST: Final = 16
_COLOURS: Final = ("cyan", "magenta", "green", "yellow", "blue")
_STATES: Final = {state.value: state for state in TaskRunState}
_ENDED: Final = {"success": "succeeded", "failed": "failed", "cancelled": "was cancelled", "lost": "is lost"}
# Names of what is measured of the machine begin so; that interests less than the model.
_SYSTEM: Final = "system/"


class WatchedRun(RunProgress):
    """A run of the tracker, or a task run nested in one, read again and again.

    Metrics are drawn whose names are one of ``patterns``, in which * stands for any text; all if there is none.
    """

    def __init__(self, reader: RunReader, row: RunSummary, patterns: Sequence[str]) -> None:
        detail = read_whole(reader, row)
        run = Run(detail.job_name or "", "", name=detail.name or "", uid=detail.run_uid, parent=None)
        super().__init__(run, None)
        run.start_time = detail.start_time
        run.address = reader.page_url(row) or f"dbnd runs show {row.place[-1][:8]}"
        self._reader, self._row, self._detail, self._patterns = reader, row, detail, patterns
        self._lines: dict[tuple[str, str], _Line] = {}
        self._trouble = ""

    @property
    def state(self) -> str:
        return self._detail.state or "unknown"

    @property
    def has_ended(self) -> bool:
        """Whether it is over, or the tracker hears no more of it."""
        return self._detail.end_time is not None or self.state in _ENDED

    def read(self, size: tuple[int, int] | None) -> list[str]:
        """Ask the tracker, also for what is drawn on a terminal of this size; without one nothing is.

        A tracker that does not answer is asked again later: what is watched goes on without it.

        Returns:
            A sentence for each task run that has ended since.

        Raises:
            DatabandError: The run was deleted, or the tracker does not let us read it.
        """
        before = {uid for uid, task in self.tasks.items() if task.has_ended}
        try:
            self._detail = read_whole(self._reader, self._row)
            self._update_tasks()
            wanted = self._charts()
            for task, metric in wanted[: math.prod(_grid(len(wanted), size))] if size else ():
                self._read_line(task, metric)
            self._trouble = ""
        except TrackerError as error:
            self._trouble = str(error)
        ended = [task for uid, task in self.tasks.items() if task.has_ended and uid not in before]
        return [f"{task.task_run.af_id} {look(task.task_run.state)[2]} after {_took(task.task_run)}" for task in ended]

    def picture(self, size: tuple[int, int], frame: int, *, colour: bool) -> list[str]:
        """The lines that show it, on a terminal of so many columns and lines."""
        columns, room = size
        shown = live_block(self, (columns, max(room // 3, 3)), utc_now(), frame=frame, colour=colour)
        if self._trouble:
            told = cut(plain(f"! {self._trouble}"), columns)
            shown.append(click.style(told, fg="yellow") if colour else told)
        return [*shown, *self.charts((columns, room - len(shown)), colour=colour)][:room]

    def charts(self, size: tuple[int, int], *, colour: bool) -> list[str]:
        """The lines of as many charts as there is room for."""
        columns, room = size
        wanted = self._charts()
        beside, below = _grid(len(wanted), size)
        if not below:
            return []
        lines, rest = min((room - 1) // below, _LINES[1]), len(wanted) - beside * below
        several = len({task.task_run_uid for task, _ in wanted}) > 1
        drawn = []
        for place, (task, metric) in enumerate(wanted[: beside * below]):
            line = self._lines.get((task.task_run_uid, metric.key), _Line(0, [], ("", "")))
            name, last = f"{f'{task.label} · ' if several else ''}{metric.key}", f" {number(metric.last_value)}"
            title = cut(plain(name), columns // beside - 2 - width(last)) + last
            head, *body = chart(title, line.points, columns // beside - 2, lines, x_labels=line.ends)
            if colour:
                fg = _COLOURS[place % len(_COLOURS)]
                head, body = click.style(head, bold=True), [click.style(text, fg=fg) for text in body]
            drawn.append([head, *body])
        rows = [
            "  ".join(parts) for i in range(0, len(drawn), beside) for parts in zip(*drawn[i : i + beside], strict=True)
        ]
        return [*rows, *([f"… and {rest} more metrics: --metric NAME draws them"] if rest > 0 else [])]

    def tell_end(self, size: tuple[int, int] | None, *, colour: bool) -> None:
        """Say how the run has ended, and what it has logged, on a terminal of this size with the charts."""
        if size is not None and (drawn := self.charts((size[0], min(size[1], _LAST)), colour=colour)):
            console.details(Shown("\n".join(drawn)))
        took = _took(self.run)
        headline = f"Run {self.run.name} {_ENDED.get(self.state, self.state)} after {took}"
        (console.success if self.state == "success" else console.error)(f"{headline}.")
        console.details(run_summary(self))

    def _update_tasks(self) -> None:
        """Bring what ``dbnd run`` would know of the run up to date."""
        self.run.end_time = self._detail.end_time
        for view in self._detail.task_runs:
            task = self.tasks.get(view.task_run_uid) or self._add(view)
            task.task_run.enter(_STATES.get(view.state or "", TaskRunState.SCHEDULED), view.end_time or utc_now())
            task.task_run.error = _error(view)
            task.task_run.links = {name: str(url) for name, url in view.links.items()}
            task.has_ended = task.task_run.state.is_final
            task.params = {param.name: param.value or "" for param in view.params}
            for metric in view.metrics:
                series = task.series.setdefault(metric.key, Series(metric.key))
                series.last, series.low, series.high = metric.last_value, _bound(metric.min), _bound(metric.max)
        self.started = len(self.tasks)

    def _add(self, view: TaskRunView) -> TaskProgress:
        parent = self.tasks.get(view.parent_task_run_uid or "")
        task_run = TaskRun(
            run=self.run,
            definition=TaskDefinition(view.name or view.task_run_uid),
            parent=None if parent is None else parent.task_run,
            af_id=view.label,
            params={},
            uid=view.task_run_uid,
            attempt_uid=view.task_run_uid,
            start_time=view.start_time or self.run.start_time,
        )
        if view.is_root:
            self.run.root = task_run
        return self.tasks.setdefault(task_run.uid, TaskProgress(task_run, {}))

    def _charts(self) -> list[tuple[TaskRunView, MetricView]]:
        """The metrics that can be drawn: of task runs that go on first, then of the newest.

        Losses come first among them, and what is measured of the machine last.
        """
        found = [
            (task, metric)
            for task in reversed(self._detail.task_runs)
            for metric in task.metrics
            if metric.points > 1 and metric.min is not None
            if not self._patterns or any(fnmatchcase(metric.key, pattern) for pattern in self._patterns)
        ]

        def rank(one: tuple[TaskRunView, MetricView]) -> tuple[bool, bool, bool]:
            task, metric = one
            return (
                self.tasks[task.task_run_uid].has_ended,
                metric.key.startswith(_SYSTEM),
                "loss" not in metric.key.lower(),
            )

        return sorted(found, key=rank)

    def _read_line(self, task: TaskRunView, metric: MetricView) -> None:
        key = task.task_run_uid, metric.key
        if key in self._lines and self._lines[key].count == metric.points:
            return
        points = self._reader.sample(*key, _SAMPLES)
        steps = {point.step for point in points}
        has_steps = None not in steps and len(steps) > 1
        ys = [float(point.value) if point.type in {"int", "float"} else math.nan for point in points]
        xs = [point.step if has_steps and point.step is not None else point.timestamp for point in points]
        line: list[Point] = sorted(zip(xs, ys, strict=True), key=itemgetter(0))
        first, last = (line[0][0], line[-1][0]) if line else (0, 0)
        ends = (str(first), str(last)) if has_steps else ("0s", duration((last - first) / 1000))
        self._lines[key] = _Line(metric.points, line, ends)
        self.tasks[task.task_run_uid].series[metric.key].kept = [(0, 0, y) for _, y in line]


@dataclass(frozen=True, slots=True)
class _Line:
    """A metric as it is drawn: how many points it had when it was read, a sample of them, the ends of its axis."""

    count: int
    points: list[Point]
    ends: tuple[str, str]


def _grid(wanted: int, size: tuple[int, int]) -> tuple[int, int]:
    """How many charts stand beside and below each other on so many columns and lines."""
    columns, room = size
    beside = max(min(columns // _COLUMNS, wanted), 1)
    fitting = (room - 1) // _LINES[0] if columns >= _NARROWEST else 0
    return beside, max(min(-(-wanted // beside), fitting), 0)


def _bound(value: object) -> float | None:
    return None if value is None else float(str(value))


def _error(view: TaskRunView) -> str | None:
    return None if view.error is None else f"{type_name(view.error.get('exc_type'))}: {view.error.get('msg') or ''}"


def _took(what: Run | TaskRun) -> str:
    return duration(((what.end_time or utc_now()) - what.start_time).total_seconds())
