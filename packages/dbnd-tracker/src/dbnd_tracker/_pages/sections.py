"""The long lists of a page: each shows a part, with a way to the parts before and after it and a search in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.datastructures import QueryParams

ROWS: Final = 200
"""Rows of a section that are shown at once."""
_LONGEST_NUMBER: Final = 9


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a list as a page shows it.

    Args:
        id: The list's name, also in the address.
        rows: What is shown.
        start: How many rows stand before these.
        found: How many rows the search finds.
        total: How many rows there are.
        previous: Address of the page with the part before, or None.
        next: Address of the page with the part after, or None.
    """

    id: str
    rows: Sequence[Any]
    start: int
    found: int
    total: int
    previous: str | None
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
    """The lists of one page.

    Args:
        path: The page's address, without a query.
        query: Its query: ``find``, and by the id of each section how many rows stand before those shown.
    """

    def __init__(self, path: str, query: QueryParams) -> None:
        self._path = path
        self._asked = query.multi_items()
        self.find = query.get("find", "").strip()
        self._query = query
        self.is_long = bool(self.find)

    def start(self, name: str) -> int:
        """How many rows of a section stand before those that are asked for."""
        text = self._query.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER else 0

    def of(self, name: str, rows: Sequence[Any], start: int, found: int, total: int, size: int = ROWS) -> Section:
        """A section of rows of which ``start`` stand before those shown."""
        self.is_long = self.is_long or total > size
        previous = self._href(name, max(start - size, 0)) if start else None
        following = self._href(name, start + size) if start + len(rows) < found else None
        return Section(name, rows, start, found, total, previous, following)

    def cut(self, name: str, rows: Sequence[Any], size: int = ROWS, *, total: int | None = None) -> Section:
        """A section of ``rows``, which are those that the search finds among ``total``, or all."""
        start = self.start(name) if self.start(name) < len(rows) else 0
        total = len(rows) if total is None else total
        return self.of(name, rows[start : start + size], start, len(rows), total, size)

    def kept(self, *others: str) -> list[tuple[str, str]]:
        """What a form keeps of the query: only ``others``."""
        return [(name, value) for name, value in self._asked if name in others]

    def _href(self, name: str, start: int) -> str:
        asked = [(key, value) for key, value in self._asked if key != name]
        if start:
            asked.append((name, str(start)))
        return f"{self._path}?{urlencode(asked)}#{name}"
