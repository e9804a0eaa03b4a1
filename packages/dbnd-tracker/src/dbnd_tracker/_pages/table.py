"""The page of the runs' table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from dbnd_tracker._pages.templates import is_live, job_url
from dbnd_tracker._queries.expressions import KINDS, STATES, Field, QueryError
from dbnd_tracker._queries.grammar import joined, parse_expression
from dbnd_tracker._queries.run_table import (
    ORDERS,
    STARTED,
    RunFilter,
    RunTable,
    choices,
    logged_names,
    logged_values,
    run_table,
)
from dbnd_tracker._queries.runs import Condition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session
    from starlette.datastructures import QueryParams

PAGE_SIZES: Final = (25, 50, 100, 200)

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DEFAULT_SIZE: Final = 50
_DEFAULT_METRICS: Final = 3
_DEFAULT_PARAMS: Final = 2
# The address of each column's order names all columns.
_MAX_COLUMNS: Final = 60
_RISING: Final = frozenset({"name", "job", "project", "user", "state", "params", "tags"})
"""What one wants to see from its smallest value on."""
_KEPT: Final = ("q", "job", "project", "user", "state", "since", "until", "where", "sort", "col", "limit")


@dataclass(frozen=True, slots=True)
class Header:
    """The head of one column.

    Args:
        label: What it says.
        kind: What the column shows: run, or metrics, params, tags.
        href: Where a click leads: the table sorted by the column.
        direction: ``ascending`` or ``descending`` if it is sorted by it.
    """

    label: str
    kind: str
    href: str
    direction: str | None


class TablePage:
    """The runs that an address asks for.

    Args:
        query: The address' query.
        job: Job whose runs these are; None for all.
    """

    def __init__(self, query: QueryParams, job: str | None = None) -> None:
        self.job = job
        self.given = {name: [text for text in query.getlist(name) if text] for name in _KEPT}
        self.after = query.get("after") or None
        self.before = query.get("before") or None
        self.problem: str | None = None
        self.filter = self._filter()
        self.limit = next((size for size in PAGE_SIZES if str(size) == self.text("limit")), _DEFAULT_SIZE)
        self.order, self.descending = self._sort()
        columns = dict.fromkeys(field for text in self.given["col"] if (field := Field.parse(text)))
        self.columns = list(columns)[:_MAX_COLUMNS]
        self.has_default_columns = not query.getlist("col")
        self.names: dict[Field, int] = {}
        self.values: dict[str, dict[Field, Any]] = {}
        self.choices: dict[str, list[str]] = {}
        self.table = RunTable([], 0, has_previous=False, has_next=False, first=None)
        self.states = STATES
        self.sizes = PAGE_SIZES

    def load(self, session: Session) -> None:
        """Read the page."""
        self.choices = choices(session)
        if self.problem is None:
            self.table = run_table(
                session,
                self.filter,
                order=self.order,
                descending=self.descending,
                limit=self.limit,
                after=self.after,
                before=self.before,
            )
        uids = [run.run_uid for run in self.table.runs]
        self.names = logged_names(session, uids)
        if self.has_default_columns:
            self.columns = _common(self.names)
        self.values = logged_values(session, self.columns, uids)

    def text(self, name: str) -> str:
        """The first value that the address gives for ``name``."""
        return next(iter(self.given[name]), "")

    @property
    def condition(self) -> str:
        """The conditions that the address gives, as one."""
        return joined(self.given["where"])

    def day(self, name: str) -> str:
        """The day of a time that the address gives, as the browser's own field for days wants it."""
        day = self.text(name)[: len("2026-03-04")]
        return day if _DAY.fullmatch(day) else ""

    def _filter(self) -> RunFilter:
        try:
            since, until = _moment(self.text("since")), _moment(self.text("until"), is_end=True)
            where = parse_expression(self.condition)
            states = tuple(dict.fromkeys(state.lower() for state in self.given["state"]))
            for state in states:
                Condition("state", "eq", state).comparison()
        except (QueryError, ValueError) as error:
            self.problem = str(error)
            return RunFilter()
        return RunFilter(
            search=self.text("q"),
            job=self.job or self.text("job"),
            project=self.text("project"),
            user=self.text("user"),
            states=states,
            since=since,
            until=until,
            where=where,
        )

    def _sort(self) -> tuple[str | Field, bool]:
        text = self.text("sort")
        name = text.removeprefix("-")
        order = Field.parse(name) or (name if name in ORDERS else None)
        return (STARTED, True) if order is None else (order, text.startswith("-"))

    def href(self, **changes: str | Iterable[str] | None) -> str:
        """The address of this table with some of what it asks for changed; it starts at the first page.

        Args:
            changes: New values by name; None takes one away.
        """
        asked: dict[str, Any] = {name: values for name, values in self.given.items() if values}
        if not self.has_default_columns:
            asked["col"] = [str(column) for column in self.columns] or [""]
        for name, value in changes.items():
            asked.pop(name, None)
            if value is not None:
                asked[name] = [value] if isinstance(value, str) else list(value)
        query = urlencode(asked, doseq=True)
        path = job_url(self.job) if self.job else "/"
        return f"{path}?{query}" if query else path

    def _paged(self, **cursor: str) -> str:
        # Columns that were chosen by what is common on this page stay when the page is turned.
        return self.href(**cursor, col=[str(column) for column in self.columns] or [""])

    @property
    def next(self) -> str | None:
        """The address of the next page."""
        return self._paged(after=self.table.runs[-1].run_uid) if self.table.has_next and self.table.runs else None

    @property
    def previous(self) -> str | None:
        """The address of the previous page."""
        return self._paged(before=self.table.runs[0].run_uid) if self.table.has_previous and self.table.runs else None

    @property
    def headers(self) -> list[Header]:
        """The heads of all columns."""
        names = ["name", "state", *([] if self.job else ["job"]), "project", "user", STARTED, "took"]
        labels = {"name": "Run", STARTED: "Started", "took": "Took"}
        shown = [name for name in names if name not in {"project", "user"} or self.shows(name)]
        found = [self._header(name, labels.get(name, name.capitalize()), "run") for name in shown]
        return found + [self._header(str(column), column.name, column.kind) for column in self.columns]

    def shows(self, name: str) -> bool:
        """Whether any run of the page has a project, or a user."""
        field = "project_name" if name == "project" else name
        return any(getattr(run, field) for run in self.table.runs)

    def _header(self, name: str, label: str, kind: str) -> Header:
        rises_first = name in _RISING or kind in _RISING
        if name != str(self.order):
            return Header(label, kind, self.href(sort=name if rises_first else f"-{name}"), None)
        other = self.href(sort=name if self.descending else f"-{name}")
        return Header(label, kind, other, "descending" if self.descending else "ascending")

    @property
    def offered(self) -> dict[str, list[Field]]:
        """Columns that can be chosen, by kind: what the runs of the page logged, and what is chosen."""
        fields = list(dict.fromkeys([*self.columns, *self.names]))
        return {kind: sorted((f for f in fields if f.kind == kind), key=lambda f: f.name) for kind in KINDS}

    @property
    def is_filtered(self) -> bool:
        """Whether the address asks for a part of the runs."""
        return self.filter != RunFilter(job=self.job or "")

    @property
    def is_live(self) -> bool:
        """Whether the page may change: new runs come first, and running ones end."""
        is_first = self.after is None and self.before is None
        return is_first or any(is_live(run.state) for run in self.table.runs)


def _common(names: dict[Field, int]) -> list[Field]:
    """The columns of a table for which none were chosen: what most of its runs logged."""
    params = [field for field in names if field.kind == "params"][:_DEFAULT_PARAMS]
    metrics = [field for field in names if field.kind == "metrics"][:_DEFAULT_METRICS]
    return params + metrics


def _moment(text: str, *, is_end: bool = False) -> datetime | None:
    """The point in time that a field gives, in UTC unless it says otherwise; a day as an end is meant to its end."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))
        moment = moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):  # or it lies outside the years 1 to 9999
        msg = f"The time {text[:40]!r} cannot be understood: write it as 2026-03-04 or 2026-03-04T05:06."
        raise ValueError(msg) from None
    is_day = len(text) == len("2026-03-04")
    try:
        return moment + timedelta(days=1) if is_end and is_day else moment
    except OverflowError:
        return None
