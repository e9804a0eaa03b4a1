"""Which charts a page has, in which order: a section for each prefix of metrics, what the system did last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy.orm import Session

from dbnd_tracker._queries.listing import histories
from dbnd_tracker._views import TaskRunView

_CHARTS: Final = 300
_LINES: Final = 50
_SYSTEM: Final = "system"


class Line(NamedTuple):
    """One metric of a task run, as a chart draws it."""

    task_run_uid: str
    start: datetime | None
    key: str
    label: str
    colour: int


class Chart(NamedTuple):
    """A chart: one metric of one or several task runs, or several metrics."""

    title: str
    series: list[Line]
    lines: int
    """How many there would be, were there no limit."""


class ChartSection(NamedTuple):
    """Charts of metrics whose keys begin alike, such as ``train/loss`` and ``train/accuracy``."""

    prefix: str
    charts: list[Chart]

    @property
    def title(self) -> str:
        return {"": "Metrics", _SYSTEM: "System metrics"}.get(self.prefix, f"{self.prefix}/")

    @property
    def is_open(self) -> bool:
        return self.prefix != _SYSTEM


def in_sections(charts: Sequence[Chart]) -> list[ChartSection]:
    """These charts by the prefixes of their titles: those without first, system metrics last."""
    found: dict[str, list[Chart]] = {}
    for chart in charts:
        prefix, slash, _ = chart.title.partition("/")
        found.setdefault(prefix if slash else "", []).append(chart)
    order = sorted(found, key=lambda prefix: (prefix == _SYSTEM, prefix))
    return [ChartSection(prefix, found[prefix]) for prefix in order]


class Charts:
    """A chart for each metric that has a history: a line for each of the task runs that logged it."""

    def __init__(self, session: Session, tasks: Sequence[TaskRunView], run_uid: str | None, find: str) -> None:
        by_uid = {task.task_run_uid: task for task in tasks}
        found = histories(session, {uid: place for place, uid in enumerate(by_uid)}, run_uid=run_uid, find=find)
        self.total = len(found)
        # Of each task run that has a line, the same in every chart; those called the same are told apart by numbers.
        drawn = dict.fromkeys(uid for uids in found.values() for uid in uids)
        of_name: dict[str, list[str]] = {}
        for uid in (uid for uid in by_uid if uid in drawn):
            of_name.setdefault(by_uid[uid].label, []).append(uid)
        labels = {
            uid: f"{name} #{number}" if len(uids) > 1 else name
            for name, uids in of_name.items()
            for number, uid in enumerate(uids, start=1)
        }
        lines = {uid: Line(uid, by_uid[uid].start_time, "", labels[uid], place) for place, uid in enumerate(drawn)}
        charts = []
        for key, uids in [*found.items()][:_CHARTS]:
            series = [lines[uid]._replace(key=key) for uid in uids[:_LINES]]
            if len(series) == 1:
                series = [series[0]._replace(label=key)]
            charts.append(Chart(key, series, len(uids)))
        self.sections = in_sections(charts)
        self.shown = len(charts)


class Written:
    """Charts as a page has them: what lines have in common stands there once, however many charts there are.

    ``tasks`` are the task runs: uid, start in milliseconds, and the label and colour that their lines have in common. A
    line is the number of its task run, or a list of that and of what differs: label and key (null for the title of its
    chart, which is the key that lines have in common), and colour.
    """

    def __init__(self, sections: Iterable[ChartSection]) -> None:
        self.tasks: list[list[Any]] = []
        self._places: dict[str, int] = {}
        for section in sections:
            for chart in section.charts:
                for line in chart.series:
                    if line.task_run_uid not in self._places:
                        self._places[line.task_run_uid] = len(self.tasks)
                        begin = None if line.start is None else round(line.start.timestamp() * 1000)
                        self.tasks.append([line.task_run_uid, begin, line.label, line.colour])

    def lines(self, chart: Chart) -> list[Any]:
        return [self._line(chart.title, line) for line in chart.series]

    def _line(self, title: str, line: Line) -> Any:
        place = self._places[line.task_run_uid]
        *_, label, colour = self.tasks[place]
        if (line.label, line.key, line.colour) == (label, title, colour):
            return place
        own = [None if text == title else text for text in (line.label, line.key)]
        if line.colour != colour:
            return [place, *own, line.colour]
        return [place, *own] if own[1] else [place, own[0]] if own[0] else [place]
