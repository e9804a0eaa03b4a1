"""The long lists of a page: each shows a part, with a way to the parts before and after it and a search in all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy.orm import Session
from starlette.datastructures import QueryParams

from dbnd_tracker._queries.listing import Names, list_part, names_of
from dbnd_tracker._queries.logged import ListKind
from dbnd_tracker._views import TaskRunView

_ROWS: Final = 200


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a list as a page shows it."""

    id: str
    rows: Sequence[Any]
    start: int
    found: int
    """How many rows the search finds, of ``total``."""
    total: int
    previous: str | None
    """Address of the page with the part before."""
    next: str | None

    @property
    def place(self) -> str:
        """Which rows these are; empty if they are all."""
        if self.found == len(self.rows) == self.total:
            return ""
        if not self.rows:
            return f"none of {self.total:,} found"
        rows = f"{self.start + 1:,} to {self.start + len(self.rows):,} of {self.found:,}"
        return rows if self.found == self.total else f"{rows} found, of {self.total:,}"


class Sections:
    """The lists of one page at ``path``.

    Its ``query`` has ``find``, and by the id of each section how many rows stand before those shown.
    """

    def __init__(self, path: str, query: QueryParams) -> None:
        self._path = path
        self._query = query
        self.find = query.get("find", "").strip()
        self.is_long = bool(self.find)
        self._names: dict[ListKind, Names] = {}

    def cut(self, name: str, rows: Sequence[Any], size: int = _ROWS, *, total: int | None = None) -> Section:
        """A section of ``rows``, which are those that the search finds among ``total``, or all."""
        start = self._start(name) if self._start(name) < len(rows) else 0
        total = len(rows) if total is None else total
        return self._section(name, rows[start : start + size], start, len(rows), total, size)

    def logged(
        self,
        session: Session,
        kind: ListKind,
        tasks: Mapping[str, TaskRunView],
        *,
        run_uid: str | None = None,
        name: str,
        keep: Callable[[str], bool] | None = None,
    ) -> Section:
        """A section of what task runs logged, each row with its task run.

        ``tasks`` are all of one ``run_uid``, or few. Rows whose names ``keep`` does not accept are left out.
        """
        places = {uid: place for place, uid in enumerate(tasks)}
        if kind not in self._names:
            self._names[kind] = names_of(session, kind, tasks, run_uid=run_uid)
        names, start = self._names[kind], self._start(name)
        part = list_part(session, kind, names, places, find=self.find, keep=keep, start=start, limit=_ROWS)
        rows = [(tasks[uid], item) for uid, item in part.rows]
        return self._section(name, rows, part.start, part.found, part.total)

    def kept(self, *others: str) -> list[tuple[str, str]]:
        """What a form keeps of the query: only ``others``."""
        return [(name, value) for name, value in self._query.multi_items() if name in others]

    def _start(self, name: str) -> int:
        """How many rows of a section stand before those that are asked for."""
        return whole_number(self._query.get(name, ""))

    def _section(
        self, name: str, rows: Sequence[Any], start: int, found: int, total: int, size: int = _ROWS
    ) -> Section:
        self.is_long = self.is_long or total > size
        previous = self._href(name, max(start - size, 0)) if start else None
        following = self._href(name, start + size) if start + len(rows) < found else None
        return Section(name, rows, start, found, total, previous, following)

    def _href(self, name: str, start: int) -> str:
        asked = [(key, value) for key, value in self._query.multi_items() if key != name]
        if start:
            asked.append((name, str(start)))
        return f"{self._path}?{urlencode(asked)}#{name}"


def whole_number(text: str) -> int:
    """The number that an address gives, of nine digits at most; 0 where it gives none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len("100000000") else 0
