"""The page of the runs' table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from dbnd_tracker._pages.templates import is_live, job_url
from dbnd_tracker._queries.expressions import KINDS, STATES, Expression, Field, QueryError
from dbnd_tracker._queries.grammar import condition, joined, parse_expression
from dbnd_tracker._queries.logged import logged_names, logged_values
from dbnd_tracker._queries.run_table import ORDERS, STARTED, RunTable, choices, run_table

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SIZES: Final = (25, 50, 100, 200)
_DEFAULT_SIZE: Final = 50
_DEFAULT_METRICS: Final = 3
_DEFAULT_PARAMS: Final = 2
# The address of each column's order names all columns.
_MAX_COLUMNS: Final = 60
# What one wants to see from its smallest value on.
_OPTIONAL: Final = {"project": "project_name", "user": "user"}
_RISING: Final = frozenset({"name", "job", "project", "user", "state", "params", "tags"})
_KEPT: Final = ("q", "job", "project", "user", "state", "since", "until", "where", "sort", "col", "limit")


class Header(NamedTuple):
    """The head of a column of what runs are (of kind ``run``) or logged, and the address of the table sorted by it."""

    label: str
    kind: str
    href: str
    direction: str | None


class TablePage:
    """The runs that an address asks for, those of one ``job`` or all."""

    def __init__(self, session: Session, query: QueryParams, job: str | None = None) -> None:
        self.job = job
        self.states = STATES
        self.sizes = _SIZES
        self.given = {name: [text for text in query.getlist(name) if text] for name in _KEPT}
        self.limit = next((size for size in _SIZES if str(size) == self.text("limit")), _DEFAULT_SIZE)
        name = self.text("sort").removeprefix("-")
        known = Field.parse(name) or (name if name in ORDERS else None)
        self.order = known or STARTED
        self.descending = known is None or self.text("sort").startswith("-")
        self.chosen_states = list(dict.fromkeys(state.lower() for state in self.given["state"]))
        self.problem = ""
        self.table = RunTable([], 0, has_previous=False, has_next=False, first=None)
        after, before = query.get("after") or None, query.get("before") or None
        try:
            conditions = self._conditions()
        except QueryError as error:
            self.problem = str(error)
        else:
            self.table = run_table(
                session,
                *conditions,
                search=self.text("q"),
                order=self.order,
                descending=self.descending,
                limit=self.limit,
                after=after,
                before=before,
            )
        # New runs come first, and running ones end.
        self.is_live = after is before is None or any(is_live(run.state) for run in self.table.runs)
        self.choices = choices(session)
        uids = [run.run_uid for run in self.table.runs]
        self._names = logged_names(session, uids)
        self.has_default_columns = not query.getlist("col")
        chosen = dict.fromkeys(field for text in self.given["col"] if (field := Field.parse(text)))
        self.columns = _common(self._names) if self.has_default_columns else list(chosen)[:_MAX_COLUMNS]
        self.values = logged_values(session, self.columns, uids)
        # Columns that were chosen by what is common on this page stay when the page is turned.
        self.next = self._href(keeps_columns=True, after=uids[-1]) if self.table.has_next and uids else None
        self.previous = self._href(keeps_columns=True, before=uids[0]) if self.table.has_previous and uids else None

    def text(self, name: str) -> str:
        """The first value that the address gives for ``name``."""
        return next(iter(self.given[name]), "")

    @property
    def where(self) -> str:
        """The conditions that the address gives, as one."""
        return joined(self.given["where"])

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
        return [parse_expression(self.where), parse_expression(joined(texts))]

    def _href(self, *, keeps_columns: bool = False, **changes: str) -> str:
        """The address of this table with some of what it asks for changed; it starts at the first page."""
        asked: dict[str, Any] = {name: values for name, values in self.given.items() if values}
        if keeps_columns or not self.has_default_columns:
            asked["col"] = [str(column) for column in self.columns] or [""]
        return f"{job_url(self.job) if self.job else '/'}?{urlencode(asked | changes, doseq=True)}"

    @property
    def headers(self) -> list[Header]:
        """The heads of all columns."""
        names = ["name", "state", *([] if self.job else ["job"]), *self.optional, STARTED, "took"]
        found = [self._header(name, "Run" if name == "name" else name.capitalize(), "run") for name in names]
        return found + [self._header(str(column), column.name, column.kind) for column in self.columns]

    @property
    def optional(self) -> dict[str, str]:
        """The fields of the optional columns that any run of the page has something for, by what they are sorted by."""
        return {name: f for name, f in _OPTIONAL.items() if any(getattr(run, f) for run in self.table.runs)}

    def _header(self, name: str, label: str, kind: str) -> Header:
        if name != str(self.order):
            rises_first = name in _RISING or kind in _RISING
            return Header(label, kind, self._href(sort=name if rises_first else f"-{name}"), None)
        other = self._href(sort=name if self.descending else f"-{name}")
        return Header(label, kind, other, "descending" if self.descending else "ascending")

    @property
    def offered(self) -> dict[str, list[Field]]:
        """Columns that can be chosen, by kind: what the runs of the page logged, and what is chosen."""
        fields = dict.fromkeys([*self.columns, *self._names])
        return {kind: sorted((f for f in fields if f.kind == kind), key=lambda f: f.name) for kind in KINDS}

    @property
    def is_filtered(self) -> bool:
        """Whether the address asks for a part of the runs."""
        names = ["q", *([] if self.job else ["job"]), "project", "user", "state", "since", "until", "where"]
        return not self.problem and any(self.given[name] for name in names)


def _common(names: Iterable[Field]) -> list[Field]:
    """The columns of a table for which none were chosen: what most of its runs logged."""
    params = [field for field in names if field.kind == "params"]
    metrics = [field for field in names if field.kind == "metrics"]
    return params[:_DEFAULT_PARAMS] + metrics[:_DEFAULT_METRICS]
