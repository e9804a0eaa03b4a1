"""The page that compares runs."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from dbnd.tracking import VERIFIED_TAG
from dbnd_tracker._pages.charts import Chart, ChartSection, chart_line, in_sections
from dbnd_tracker._pages.plots import Parallel, Scatter, make_parallel, make_scatter
from dbnd_tracker._pages.sections import Section, Sections
from dbnd_tracker._pages.templates import is_live, number_text
from dbnd_tracker._queries.comparison import ComparedRow, compared_rows
from dbnd_tracker._queries.expressions import KINDS, LoggedKind, as_number
from dbnd_tracker._queries.rows import rows_by_uid
from dbnd_tracker._views import RunRow

_MAX_RUNS: Final = 50
_MAX_CHARTS: Final = 60
_MAX_AXES: Final = 7
_MAX_CHOICES: Final = 300
_ALL: Final = "all"


class ComparePage:
    """Runs beside each other.

    The address' query names each ``run``, and ``x`` and ``y``, the axes of the scatter plot; ``show=all`` asks for
    what is equal, too.
    """

    def __init__(self, session: Session, query: QueryParams) -> None:
        asked = [uid.lower() for uid in query.getlist("run")]
        self.runs = rows_by_uid(session, asked[:_MAX_RUNS]).rows
        self.is_cut = len(set(asked)) > _MAX_RUNS
        self.shows_all = query.get("show") == _ALL
        self.sections = Sections("/app/compare", query)
        self.is_live = any(is_live(run.state) for run in self.runs)
        rows = compared_rows(session, [run.uid for run in self.runs])
        self.rows = [row for row in rows if row.field.name != VERIFIED_TAG]
        self._axes: dict[str, ComparedRow] = {str(row.field): row for row in self.rows if row.field.kind != "tags"}
        self.x, self.y = self._chosen_axes(query.get("x"), query.get("y"))

    @property
    def kinds(self) -> list[tuple[LoggedKind, Section]]:
        """A part of the rows of each kind that has any to show."""
        wanted = self.sections.find.casefold()
        shown: list[tuple[LoggedKind, Section]] = []
        kinds: tuple[LoggedKind, ...] = ("params", "metrics", "tags")
        for kind in kinds:
            rows = [row for row in self.rows if row.field.kind == kind and (row.differs or self.shows_all)]
            found = [row for row in rows if wanted in row.field.name.casefold()]
            if rows:
                shown.append((kind, self.sections.cut(kind, found, total=len(rows))))
        return shown

    @property
    def hidden(self) -> int:
        """How many rows are left out because all runs agree in them."""
        return 0 if self.shows_all else sum(not row.differs for row in self.rows)

    def href(self, *, without: str | None = None, shows_all: bool | None = None) -> str:
        """The address of this comparison with one thing changed."""
        asked: dict[str, Any] = {"run": [run.uid for run in self.runs if run.uid != without]}
        if self.shows_all if shows_all is None else shows_all:
            asked["show"] = _ALL
        return f"/app/compare?{urlencode(asked, doseq=True)}"

    @property
    def chart_sections(self) -> list[ChartSection]:
        """A chart for each metric that has a history."""
        found = []
        for row in self.rows:
            if row.field.kind == "metrics" and any(line and line.points > 1 for line in row.logged):
                series = [
                    # The colour of a run is the same in every chart.
                    chart_line(line.task_run_uid, line.start, line.key, _name(run), colour=place)
                    for place, (run, line) in enumerate(zip(self.runs, row.logged, strict=True))
                    if line is not None
                ]
                found.append(Chart(row.field.name, series, len(series)))
        return in_sections(found[:_MAX_CHARTS])

    @property
    def choices(self) -> dict[str, list[str]]:
        """What the axes of the scatter plot can show, by kind."""
        return {
            kind: [name for n, name in enumerate(self._named(kind)) if n < _MAX_CHOICES or name in {self.x, self.y}]
            for kind in KINDS
        }

    def _named(self, kind: LoggedKind, *, differing: bool = False) -> list[str]:
        rows = self._axes.items()
        return [name for name, row in rows if row.field.kind == kind and (row.differs or not differing)]

    def _chosen_axes(self, x: str | None, y: str | None) -> tuple[str | None, str | None]:
        """The axes asked for, or a param that differs and a metric."""
        differing = self._named("params", differing=True)
        numeric = [name for name in differing if all(as_number(v) is not None for v in self._axes[name].values)]
        metrics = self._named("metrics")
        xs = [x, *numeric, *differing, *self._named("params"), *metrics]
        ys = [y, *self._named("metrics", differing=True), *metrics]
        first = [next((name for name in names if name in self._axes), None) for names in (xs, ys)]
        return first[0], first[1]

    @property
    def scatter(self) -> Scatter | None:
        """The plot of ``y`` over ``x``."""
        if self.x is None or self.y is None:
            return None
        pairs = zip(self._axes[self.x].values, self._axes[self.y].values, strict=True)
        points = [
            (place, x, y, f"{_name(self.runs[place])}: {self.x} = {number_text(x)}, {self.y} = {number_text(y)}")
            for place, (x, y) in enumerate(pairs)
            if x is not None and as_number(y) is not None
        ]
        return make_scatter(points)

    @property
    def parallel(self) -> Parallel | None:
        """Each run as a line through the params that differ to the metric of the scatter plot."""
        if self.y is None:
            return None
        params = [name for name in self._named("params", differing=True) if name != self.y]
        names = [*params[: _MAX_AXES - 1], self.y]
        titles = [name.partition(".")[2] for name in names]
        lines = []
        for place, run in enumerate(self.runs):
            values = [self._axes[name].values[place] for name in names]
            if all(value is not None for value in values):
                pairs = zip(titles, values, strict=True)
                shown = ", ".join(f"{title} = {number_text(value)}" for title, value in pairs)
                lines.append((place, values, f"{_name(run)}: {shown}"))
        return make_parallel(titles, lines)


def _name(run: RunRow) -> str:
    return run.name or run.uid
