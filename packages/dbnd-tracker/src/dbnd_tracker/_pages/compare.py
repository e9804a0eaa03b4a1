"""The page that compares runs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from dbnd_tracker._pages.plots import Parallel, Scatter, make_parallel, make_scatter
from dbnd_tracker._pages.run import VERIFIED, chart_line
from dbnd_tracker._pages.sections import Section, Sections
from dbnd_tracker._pages.templates import is_live, number_text
from dbnd_tracker._queries.comparison import Logged, everything_logged, runs_by_uid
from dbnd_tracker._queries.expressions import KINDS, Field, Kind, as_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session
    from starlette.datastructures import QueryParams

    from dbnd_tracker._views import RunSummary

MAX_RUNS: Final = 50
"""How many runs are compared at most."""

_MAX_CHARTS: Final = 60
_MAX_AXES: Final = 7
_MAX_CHOICES: Final = 300
_ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Row:
    """Something that was logged, with its value in each run; None where a run has none."""

    field: Field
    values: list[Any]
    differs: bool


class ComparePage:
    """Runs beside each other.

    Args:
        session: Where to read.
        query: The address' query: ``run`` for each run, ``show=all`` for what is equal, too, and ``x`` and ``y``, the
            axes of the scatter plot; and what ``Sections`` read.
    """

    def __init__(self, session: Session, query: QueryParams) -> None:
        asked = [uid.lower() for uid in query.getlist("run")]
        self.runs = runs_by_uid(session, asked[:MAX_RUNS])
        self.is_cut = len(set(asked)) > MAX_RUNS
        self.shows_all = query.get("show") == _ALL
        self.sections = Sections("/app/compare", query)
        self.is_live = any(is_live(run.state) for run in self.runs)
        logged = everything_logged(session, [run.run_uid for run in self.runs])
        self._columns = _columns([one for one in logged if one.field.name != VERIFIED])
        places = {run.run_uid: place for place, run in enumerate(self.runs)}
        self.rows = [_row(field, columns, places) for field, columns in sorted(self._columns.items(), key=_row_order)]
        self._axes: dict[str, Row] = {str(row.field): row for row in self.rows if row.field.kind != "tags"}
        self.x, self.y = self._chosen_axes(query.get("x"), query.get("y"))

    @property
    def kinds(self) -> list[tuple[Kind, Section]]:
        """A part of the rows of each kind that has any to show."""
        wanted = self.sections.find.casefold()
        shown: list[tuple[Kind, Section]] = []
        kinds: tuple[Kind, ...] = ("params", "metrics", "tags")
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
        asked: dict[str, Any] = {"run": [run.run_uid for run in self.runs if run.run_uid != without]}
        if self.shows_all if shows_all is None else shows_all:
            asked["show"] = _ALL
        return f"/app/compare?{urlencode(asked, doseq=True)}"

    @property
    def charts(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Title and series of a chart for each metric that has a history."""
        found = []
        for row in self.rows:
            if row.field.kind == "metrics":
                lines = [self._columns[row.field].get(run.run_uid) for run in self.runs]
                if any(line is not None and line.points > 1 for line in lines):
                    series = [
                        # The colour of a run is the same in every chart.
                        {**chart_line(line.task_run_uid, line.start, line.field.name, _name(run)), "colour": place}
                        for place, (run, line) in enumerate(zip(self.runs, lines, strict=True))
                        if line is not None
                    ]
                    found.append((row.field.name, series))
                    if len(found) == _MAX_CHARTS:
                        break
        return found

    @property
    def choices(self) -> dict[str, list[str]]:
        """What the axes of the scatter plot can show, by kind."""
        chosen = {self.x, self.y}
        found: dict[str, list[str]] = {}
        for kind in KINDS:
            names = [name for name, row in self._axes.items() if row.field.kind == kind]
            found[kind] = [*names[:_MAX_CHOICES], *(name for name in names[_MAX_CHOICES:] if name in chosen)]
        return found

    def _chosen_axes(self, x: str | None, y: str | None) -> tuple[str | None, str | None]:
        """The axes asked for, or a param that differs and a metric."""
        params = [name for name, row in self._axes.items() if row.field.kind == "params"]
        metrics = [name for name, row in self._axes.items() if row.field.kind == "metrics"]
        differing = [name for name in params if self._axes[name].differs]
        numeric = [name for name in differing if all(as_number(v) is not None for v in self._axes[name].values)]
        xs = [*([x] if x in self._axes else []), *numeric, *differing, *params, *metrics]
        moving = [name for name in metrics if self._axes[name].differs]
        ys = [*([y] if y in self._axes else []), *moving, *metrics]
        return next(iter(xs), None), next(iter(ys), None)

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
        names = [name for name, row in self._axes.items() if row.field.kind == "params" and row.differs]
        names = [name for name in names if name != self.y][: _MAX_AXES - 1]
        if self.y is None:
            return None
        names.append(self.y)
        lines = []
        for place, run in enumerate(self.runs):
            values = [self._axes[name].values[place] for name in names]
            if all(value is not None for value in values):
                pairs = zip(names, values, strict=True)
                title = ", ".join(f"{name.partition('.')[2]} = {number_text(value)}" for name, value in pairs)
                lines.append((place, values, f"{_name(run)}: {title}"))
        return make_parallel([name.partition(".")[2] for name in names], lines)


def _name(run: RunSummary) -> str:
    return run.name or run.run_uid


def _columns(logged: Sequence[Logged]) -> dict[Field, dict[str, Logged]]:
    """What was logged by field and run; where a run's tasks differ under one name, the name gets the task's."""
    by_field: dict[Field, dict[str, list[Logged]]] = defaultdict(lambda: defaultdict(list))
    for one in logged:
        by_field[one.field][one.run_uid].append(one)
    found: dict[Field, dict[str, Logged]] = defaultdict(dict)
    for field, runs in by_field.items():
        is_ambiguous = any(len({str(one.value) for one in ones}) > 1 for ones in runs.values())
        for run_uid, ones in runs.items():
            for one in ones:
                named = Field(field.kind, f"{field.name} ({one.task})") if is_ambiguous else field
                found[named][run_uid] = one
    return found


def _row(field: Field, columns: dict[str, Logged], places: dict[str, int]) -> Row:
    values: list[Any] = [None] * len(places)
    for run_uid, logged in columns.items():
        values[places[run_uid]] = logged.value
    return Row(field, values, differs=len({str(value) for value in values}) > 1)


def _row_order(item: tuple[Field, object]) -> tuple[str, str]:
    return item[0].kind, item[0].name
