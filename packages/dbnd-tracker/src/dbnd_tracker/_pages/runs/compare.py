"""The page that compares runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from dbnd_tracker._pages.charts import Chart, ChartSection, Line, in_sections
from dbnd_tracker._pages.runs.chosen import Condition, conditions_of
from dbnd_tracker._pages.runs.plots import Axis, Parallel, Scatter, make_axis, make_parallel, make_scatter
from dbnd_tracker._pages.sections import Section, Sections
from dbnd_tracker._pages.templates import is_live, number_text
from dbnd_tracker._queries.language.expressions import KINDS, Field, LoggedKind, QueryError, as_number
from dbnd_tracker._queries.logged import OWN_TAGS
from dbnd_tracker._queries.table.comparison import ComparedRow, compared_rows
from dbnd_tracker._queries.table.rows import rows_by_uid
from dbnd_tracker._views import RunRow

_MAX_RUNS: Final = 200
_MAX_CHARTS: Final = 60
_MAX_AXES: Final = 8
_MAX_CHOICES: Final = 300
_MAX_CELLS: Final = 6_000
_FEWEST_ROWS: Final = 20
_MOST_ROWS: Final = 200
# So many runs are told apart by their colours; of more, those that are best by the target stand out.
_CLEAR: Final = 20
_BEST: Final = 10
_TONES: Final = 6
_ALL: Final = "all"
_RUNS: Final = "runs"
_VALUES: Final = "values"


class Compared(NamedTuple):
    run: RunRow
    place: int
    """Which it is of those that the address names."""
    colour: int
    """The number of its colour in charts of metrics."""
    tone: int | None
    """Where its target stands on the scale of colours, from low to high."""
    is_chosen: bool
    """Whether it meets the conditions."""
    is_clear: bool
    """Whether it stands out."""

    @property
    def name(self) -> str:
        return self.run.name or self.run.uid


class Part(NamedTuple):
    """What was logged of one kind, as the table shows it."""

    kind: LoggedKind
    section: Section
    rows: list[tuple[ComparedRow, float | None]]
    """Each with the best value among the runs that are chosen, if one is best."""


class ComparePage:
    """Runs beside each other, the best by the target first.

    The address' query names each ``run``, or one to leave out as ``without``; ``y``, the target, and ``x``, over which
    it is drawn; what parallel coordinates lead ``through``; conditions as ``where``, that fade all other runs;
    ``show=all`` asks for what is equal, too, and ``rows`` says whether ``runs`` or ``values`` are the table's rows.
    """

    def __init__(self, session: Session, query: QueryParams) -> None:
        self._query = query
        without = {uid.lower() for uid in query.getlist("without")}
        asked = [uid for uid in dict.fromkeys(uid.lower() for uid in query.getlist("run")) if uid not in without]
        runs = rows_by_uid(session, asked[:_MAX_RUNS])
        self.is_cut = len(asked) > _MAX_RUNS
        self.shows_all = query.get("show") == _ALL
        self.sections = Sections("/app/compare", query)
        self.is_live = any(is_live(run.state) for run in runs)
        self.are_runs_rows = query.get("rows", _RUNS if len(runs) > _BEST else _VALUES) == _RUNS
        rows = compared_rows(session, [run.uid for run in runs])
        self.rows = [row for row in rows if row.field.name not in OWN_TAGS]
        self._by_field = {row.field: row for row in self.rows}
        self._axes: dict[str, ComparedRow] = {str(row.field): row for row in self.rows if row.field.kind != "tags"}
        self.x, self.y = self._chosen_axes(query.get("x"), query.get("y"))
        self.problem = ""
        self.conditions: list[Condition] = []
        chosen = [True] * len(runs)
        try:
            self.conditions = conditions_of(query.getlist("where"))
            chosen = [self._is_chosen(run, place) for place, run in enumerate(runs)]
        except QueryError as error:
            self.problem, self.conditions = str(error), []
        self.runs = self._ranked(runs, chosen)
        self.chosen = [one for one in self.runs if one.is_chosen]

    def _is_chosen(self, run: RunRow, place: int) -> bool:
        def value_of(field: Field) -> Any:
            return self._by_field[field].values[place] if field in self._by_field else None

        return all(condition.holds(run, value_of) for condition in self.conditions)

    def _ranked(self, runs: Sequence[RunRow], chosen: Sequence[bool]) -> list[Compared]:
        """The runs in the order of the target, those without one last."""
        values = self._axes[self.y].values if self.y else [None] * len(runs)
        self.target = make_axis(values)
        numbers = [as_number(value) for value in values]
        sign = 1 if self.falls else -1
        ranked = sorted(
            range(len(runs)), key=lambda place: (numbers[place] is None, sign * (numbers[place] or 0), place)
        )
        found, clear = [], 0
        for rank, place in enumerate(ranked):
            at = self.target.place(values[place])
            is_clear = chosen[place] and (bool(self.conditions) or len(runs) <= _CLEAR or clear < _BEST)
            clear += is_clear
            found.append(
                Compared(
                    runs[place],
                    place,
                    place if len(runs) <= _BEST else rank,
                    None if at is None else min(int(at * _TONES), _TONES - 1),
                    chosen[place],
                    is_clear,
                )
            )
        return found

    @property
    def falls(self) -> bool:
        """Whether less of the target is better, by its name."""
        return self.y is not None and self._axes[self.y].field.is_loss

    @property
    def note(self) -> str:
        """Which runs stand out, and why."""
        if self.conditions:
            return f"{len(self.chosen)} of {len(self.runs)} runs chosen"
        if self.y and len(self.runs) > _CLEAR:
            return f"the best {_BEST} of {len(self.runs)} stand out"
        return ""

    @cached_property
    def parts(self) -> list[Part]:
        """What was logged of each kind that has any to show."""
        wanted = self.sections.find.casefold()
        size = min(max(_MAX_CELLS // max(len(self.chosen), 1), _FEWEST_ROWS), _MOST_ROWS)
        shown = []
        for kind in KINDS:
            rows = [row for row in self.rows if row.field.kind == kind and (self.shows_all or self._is_telling(row))]
            found = [row for row in rows if wanted in row.field.name.casefold()]
            if rows:
                section = self.sections.cut(kind, found, size, total=len(rows))
                shown.append(Part(kind, section, [(row, self._best_of(row)) for row in section.rows]))
        return shown

    @staticmethod
    def _is_telling(row: ComparedRow) -> bool:
        return row.differs and not (row.field.kind == "tags" and row.field.name.startswith("mlflow."))

    @property
    def hidden(self) -> int:
        """How many rows are left out because all runs agree in them, or because they are MLflow's own tags."""
        return 0 if self.shows_all else sum(not self._is_telling(row) for row in self.rows)

    def values_of(self, one: Compared) -> list[tuple[Any, float | None]]:
        """What the table shows of a run, each with the best of all."""
        return [(row.values[one.place], best) for part in self.parts for row, best in part.rows]

    def values_in(self, row: ComparedRow, best: float | None) -> list[tuple[Any, float | None]]:
        """The same of all runs that the table shows."""
        return [(row.values[one.place], best) for one in self.chosen]

    def _best_of(self, row: ComparedRow) -> float | None:
        """The best value of a metric among the runs that the table shows; None where there is none to choose from."""
        numbers = {as_number(row.values[one.place]) for one in self.chosen} - {None}
        if row.field.kind != "metrics" or row.field.is_system or len(numbers) < 2:
            return None
        known = [number for number in numbers if number is not None]
        return min(known) if row.field.is_loss else max(known)

    def href(self, **changed: str | None) -> str:
        """The address of this comparison with some things changed, or left out."""
        kept = [(name, value) for name, value in self._query.multi_items() if name not in changed]
        return f"/app/compare?{urlencode(kept + [(name, value) for name, value in changed.items() if value])}"

    @cached_property
    def lines(self) -> list[Compared]:
        """The runs that have lines in charts: those that stand out."""
        found = [one for one in self.runs if one.is_clear][:_CLEAR]
        return sorted(found, key=lambda one: one.place) if len(self.runs) <= _BEST else found

    @property
    def target_ends(self) -> tuple[str, str]:
        """Lowest and highest of the target, as text."""
        order = self.target.order
        return (order[0], order[-1]) if order else (number_text(self.target.low), number_text(self.target.high))

    @property
    def chart_sections(self) -> list[ChartSection]:
        """A chart for each metric that has a history, with lines of the runs that stand out."""
        found = []
        for row in self.rows:
            if row.field.kind == "metrics" and any(line and line.points > 1 for line in row.logged):
                series = [
                    # The colour of a run is the same in every chart.
                    Line(line.task_run_uid, line.start, line.key, one.name, one.colour)
                    for one in self.lines
                    if (line := row.logged[one.place]) is not None
                ]
                if series:
                    found.append(Chart(row.field.name, series, len(series)))
        return in_sections(found[:_MAX_CHARTS])

    @property
    def choices(self) -> dict[str, list[str]]:
        """What the axes can show, by kind."""
        shown = {self.x, self.y}
        return {
            kind: [name for n, name in enumerate(self._named(kind)) if n < _MAX_CHOICES or name in shown]
            for kind in KINDS
        }

    def _named(self, kind: LoggedKind, *, differing: bool = False) -> list[str]:
        rows = self._axes.items()
        return [name for name, row in rows if row.field.kind == kind and (row.differs or not differing)]

    def _chosen_axes(self, x: str | None, y: str | None) -> tuple[str | None, str | None]:
        """The axes asked for, or a param that differs and a metric, a loss if there is one."""
        differing = self._named("params", differing=True)
        numeric = [name for name in differing if all(as_number(v) is not None for v in self._axes[name].values)]
        metrics = sorted(self._named("metrics"), key=lambda name: not self._axes[name].field.is_loss)
        xs = [x, *numeric, *differing, *self._named("params"), *metrics]
        ys = [y, *(name for name in metrics if self._axes[name].differs), *metrics]
        first = [next((name for name in names if name in self._axes), None) for names in (xs, ys)]
        return first[0], first[1]

    @cached_property
    def axes(self) -> list[str]:
        """What the parallel coordinates show before the target: what was asked for, or the commonest params."""
        asked = [name for name in dict.fromkeys(self._query.getlist("through")) if name in self._axes]
        differing = self._named("params", differing=True)
        common = sorted(differing, key=lambda name: sum(value is None for value in self._axes[name].values))
        found = sorted(common[: _MAX_AXES - 1], key=differing.index)
        return [name for name in asked[:_MAX_AXES] or found if name != self.y]

    @property
    def scatter(self) -> Scatter | None:
        """The plot of ``y`` over ``x``."""
        if self.x is None or self.y is None:
            return None
        x, y = self._axes[self.x].values, self._axes[self.y].values
        return make_scatter(make_axis(x), self.target, [(x[one.place], y[one.place]) for one in self.runs])

    @property
    def parallel(self) -> Parallel | None:
        """Each run as a line through ``axes`` to the target."""
        if self.y is None:
            return None
        brushes = {str(one.brush.field): one.brush.ends for one in self.conditions if one.brush}
        names = [*self.axes, self.y]
        axes = []
        for name in names:
            axis = self.target if name == self.y else make_axis(self._axes[name].values)
            axes.append((_title(name), axis, _between(axis, brushes.get(name, ()))))
        return make_parallel(axes, [[self._axes[name].values[one.place] for name in names] for one in self.runs])

    def describe(self, one: Compared, names: Sequence[str]) -> str:
        """A run and some of its values, in words."""
        values = ((name, self._axes[name].values[one.place]) for name in names)
        shown = (f"{_title(name)} = {number_text(value)}" for name, value in values if value is not None)
        return f"{one.name}: {', '.join(shown)}"


def _title(name: str) -> str:
    return name.partition(".")[2]


def _between(axis: Axis, ends: Sequence[str]) -> tuple[float, float] | None:
    places = [place for place in map(axis.place, ends) if place is not None]
    return (min(places), max(places)) if places else None
