"""The page of the runs' table."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from dbnd_tracker._pages.charts import Chart, in_sections
from dbnd_tracker._pages.runs.columns import Columns
from dbnd_tracker._pages.runs.groups import row_groups
from dbnd_tracker._pages.runs.row import SIZES, RowLook
from dbnd_tracker._pages.runs.trend import Trend
from dbnd_tracker._pages.sections import whole_number
from dbnd_tracker._pages.templates import is_live, job_url
from dbnd_tracker._queries.language.expressions import STATES, Expression, Field, QueryError, as_number, operands
from dbnd_tracker._queries.language.grammar import Asked, condition, joined, parse_expression, parse_query
from dbnd_tracker._queries.logged import logged_names, logged_values
from dbnd_tracker._queries.table.by_time import RunTable
from dbnd_tracker._queries.table.conditions import are_rows
from dbnd_tracker._queries.table.row_series import drawn_metrics
from dbnd_tracker._queries.table.rows import owned_attempts
from dbnd_tracker._queries.table.run_table import ORDERS, STARTED, nested_table, run_table
from dbnd_tracker._queries.table.suggestions import choices
from dbnd_tracker._views import RunRow

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DEFAULT_SIZE: Final = 50
_OPTIONAL: Final = {"job": "job_name", "project": "project_name", "user": "user"}
_TIMES: Final = (STARTED, "took")
# What one wants to see from its smallest value on.
_RISING: Final = frozenset({"name", "job", "project", "user", "state", "params", "tags"})
_FILTERS: Final = ("job", "project", "user", "state", "since", "until")
_OF_CHARTS: Final = ("charts", "group", "colour", "lines", "width", "trend")
_KEPT: Final = ("q", *_FILTERS, "where", "sort", "col", "limit", "below", *_OF_CHARTS)
_LABELS: Final = {"since": "from", "until": "to"}


class Header(NamedTuple):
    """The head of a column of what rows are (of kind ``run``) or logged, and the address of the table sorted by it."""

    label: str
    name: str
    """What was logged, without the choice of its value."""
    kind: str
    href: str
    direction: str | None


class Chip(NamedTuple):
    """Something that the rows of the page meet, and the address of the table without it."""

    text: str
    href: str


class TablePage:
    """The rows that an address asks for: runs of one ``job`` or all, or what is nested in one, ``below`` it.

    ``kept_columns`` are those that the browser keeps.
    """

    def __init__(self, session: Session, query: QueryParams, job: str | None = None, kept_columns: str = "") -> None:
        self.job = job
        self.states = STATES
        self.sizes = SIZES
        self.given = {name: [*dict.fromkeys(text for text in query.getlist(name) if text)] for name in _KEPT}
        self._facts = query.getlist("facts")
        self.has_charts = bool(self.text("charts"))
        self.limit = next((size for size in SIZES if str(size) == self.text("limit")), _DEFAULT_SIZE)
        name = self.text("sort").removeprefix("-")
        known = Field.parse(name) or (name if name in ORDERS else None)
        self.order = known or STARTED
        self.descending = known is None or self.text("sort").startswith("-")
        self.chosen_states = list(dict.fromkeys(state.lower() for state in self.given["state"]))
        self.problem = ""
        self.table = RunTable([], 0, has_previous=False, has_next=False, first=None)
        self.row: RunRow | None = None
        self._asked = Asked([], [])
        conditions: list[Expression | None] = []
        after, before = query.get("after") or None, query.get("before") or None
        try:
            self._asked = parse_query(self.text("q"))
            # What was written as a condition joins those of the address.
            self.given["where"] = [*dict.fromkeys([*self.given["where"], *self._asked.conditions])]
            conditions = self._conditions()
        except QueryError as error:
            self.problem = str(error)
        else:
            self._find(session, conditions, after, before, whole_number(query.get("start", "")))
        self.is_flat = bool(self._asked.words) or isinstance(self.order, Field) or are_rows(conditions)
        # New runs come first, and running ones end.
        self.is_live = after is before is None or any(is_live(run.state) for run in self.table.rows)
        self.choices = choices(session)
        owned = owned_attempts(session, self.table.rows)
        self.group, self.colour = Field.parse(self.text("group")), Field.parse(self.text("colour"))
        drawn = Field.parse(self.text("trend")) if job else None
        used = [self.order, drawn, *([self.group, self.colour] if self.has_charts else [])]
        named = [each for tested in (*map(operands, conditions), used) for each in tested]
        self.columns = Columns(
            query.getlist("col") if "col" in query else None,
            kept_columns,
            [each for each in named if isinstance(each, Field)],
            logged_names(session, owned),
            may_be_empty=not all(each.is_own for each in owned),
        )
        self.values = logged_values(session, self.columns.shown, owned)
        self.columns.settle(self.values)
        drawn = drawn or next((field for field in self.columns.shown if field.kind == "metrics"), None)
        self.trend = Trend(self.table.rows, self.values, drawn) if job and len(self.table.rows) > 1 else None
        group = self.group if self.has_charts else None
        self.groups = row_groups(self.table.rows, self.values, group, self.columns.shown)
        keys = drawn_metrics(session, owned) if self.has_charts else []
        self.chart_sections = in_sections([Chart(key, [], 0) for key in keys])
        # Columns that were chosen by what is common on this page stay when the page is turned.
        rows, start = self.table.rows, (self.table.first or 1) - 1
        ways: list[dict[str, Any]] = [{"start": start + self.limit}, {"start": max(start - self.limit, 0)}]
        if self.row is None:
            ways = [{"after": row.uid} for row in rows[-1:]] + [{"before": row.uid} for row in rows[:1]]
        self.next = self._href(ways[0], keeps_columns=True) if self.table.has_next and rows else None
        self.previous = self._href(ways[1], keeps_columns=True) if self.table.has_previous and rows else None

    def _find(
        self, session: Session, conditions: list[Expression | None], after: str | None, before: str | None, start: int
    ) -> None:
        if self.text("below"):
            found = nested_table(session, self.text("below").lower(), limit=self.limit, offset=start)
            if found is None:
                self.problem = f"There is no run {self.text('below')[:80]}."
            else:
                self.row, self.table = found
            return
        self.table = run_table(
            session,
            *conditions,
            search=self._asked.words,
            order=self.order,
            descending=self.descending,
            limit=self.limit,
            after=after,
            before=before,
        )

    def text(self, name: str) -> str:
        """The first value that the address gives for ``name``."""
        return next(iter(self.given[name]), "")

    @property
    def words(self) -> str:
        """What is searched for, as it was written but for the conditions."""
        words = self._asked.words
        return self.text("q") if self.problem else " ".join(f'"{word}"' if " " in word else word for word in words)

    def day(self, name: str) -> str:
        """The day of a time that the address gives, as the browser's own field for days wants it."""
        day = self.text(name)[: len("2026-03-04")]
        return day if _DAY.fullmatch(day) else ""

    def _conditions(self) -> list[Expression | None]:
        """What the address asks for: what was written as a condition, and what the fields say."""
        given = {"job": self.job or self.text("job"), "project": self.text("project"), "user": self.text("user")}
        texts = [condition(name, "=", value) for name, value in given.items() if value]
        since, until = self.text("since"), self.text("until")
        if since:
            texts.append(condition("start_time", ">=", since))
        if _DAY.fullmatch(until):  # a day is meant to its end
            texts.append(condition("start_time", "<=", f"{until}T23:59:59.999999"))
        elif until:
            texts.append(condition("start_time", "<", until))
        if self.chosen_states:
            texts.append(" or ".join(condition("state", "=", state) for state in self.chosen_states))
        return [parse_expression(joined(self.given["where"])), parse_expression(joined(texts))]

    @cached_property
    def unfolds(self) -> bool:
        return not self.is_flat and (self.row is not None or any(row.has_nested for row in self.table.rows))

    @property
    def address(self) -> str:
        return job_url(self.job) if self.job else "/"

    def _href(self, changes: dict[str, Any], *, keeps_columns: bool = False) -> str:
        """The address of this table with some of what it asks for changed; it starts at the first page."""
        asked: dict[str, Any] = {name: values for name, values in self.given.items() if values}
        asked["q"] = self.words
        if keeps_columns or not (self.columns.are_default or self.columns.are_kept):
            asked["col"] = [str(column) for column in self.columns.shown] or [""]
        asked |= changes
        return f"{self.address}?{urlencode({name: value for name, value in asked.items() if value}, doseq=True)}"

    @property
    def chips(self) -> list[Chip]:
        if self.problem:
            return []
        found = [Chip(f"“{self.words}”", self._href({"q": ""}))] if self.words else []
        for name in _FILTERS:
            for text in self.given[name]:
                others = [other for other in self.given[name] if other != text]
                found.append(Chip(f"{_LABELS.get(name, name)} {text}", self._href({name: others})))
        wheres = self.given["where"]
        return found + [
            Chip(text, self._href({"where": [other for other in wheres if other != text]})) for text in wheres
        ]

    @property
    def charts_href(self) -> str:
        """The address of the same table with charts beside it, or without."""
        return self._href({"charts": ""} if self.has_charts else {"charts": "beside"})

    def cell(self, field: Field | None) -> int | None:
        """Which cell of a row has the value of a column, counted from 0."""
        if field not in self.columns.shown:
            return None
        return len(self.headers) - len(self.columns.shown) + 1 + self.columns.shown.index(field)

    @cached_property
    def look(self) -> RowLook:
        facts = self.optional.values()
        return RowLook(self.is_flat, self.unfolds, facts, self.times, self.columns.shown, self.values)

    @property
    def asked_columns(self) -> str:
        """What an address ends with that asks for the columns of this page."""
        facts = [*self.optional, *self.times] or ["none"]
        asked = {"col": [str(column) for column in self.columns.shown] or [""], "facts": facts}
        return urlencode(asked, doseq=True)

    @cached_property
    def headers(self) -> list[Header]:
        names = ["name", "state", *self.optional, *self.times]
        found = [self._header(name, "Run" if name == "name" else name.capitalize(), "run") for name in names]
        for column in self.columns.shown:
            label = column.name if column.shown == "last" else f"{column.name} ({column.shown})"
            header = self._header(str(column), label, column.kind)
            values = [value for of in self.values.values() if (value := of.get(column)) is not None]
            is_number = column.kind != "metrics" and values and all(as_number(value) is not None for value in values)
            found.append(header._replace(kind=f"{column.kind} number") if is_number else header)
        return found

    @cached_property
    def optional(self) -> dict[str, str]:
        """The fields of the optional columns that any run of the page has something for, by what they are sorted by."""
        if self.has_charts:  # beside them there is little room
            return {}
        if self._facts:
            return {name: f for name, f in _OPTIONAL.items() if name in self._facts}
        rows, of_one_job = self.table.rows, "job" if self.job else ""
        return {name: f for name, f in _OPTIONAL.items() if name != of_one_job and any(getattr(r, f) for r in rows)}

    @property
    def times(self) -> list[str]:
        """The columns that say when runs were, by what they are sorted by."""
        if self._facts:
            return [name for name in _TIMES if name in self._facts]
        return [] if self.has_charts else [*_TIMES]

    def _header(self, name: str, label: str, kind: str) -> Header:
        # What is nested in a row stands in its own order; sorted by something, it is found among all.
        changes = {"below": ""} if self.row else {}
        field = Field.parse(name)
        of = field.name if field else name
        if name != str(self.order) or self.row:
            rises_first = name in _RISING or kind in _RISING or (field is not None and field.is_loss)
            return Header(label, of, kind, self._href({"sort": name if rises_first else f"-{name}"} | changes), None)
        other = self._href({"sort": name if self.descending else f"-{name}"})
        return Header(label, of, kind, other, "descending" if self.descending else "ascending")

    @property
    def is_filtered(self) -> bool:
        """Whether the address asks for a part of the runs."""
        names = ["q", *([] if self.job else ["job"]), "project", "user", "state", "since", "until", "where"]
        return not self.problem and any(self.given[name] for name in names)
