"""Pages of the table in the order in which rows started: the database finds each by its key."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, false, func, literal, or_, select, type_coerce
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType

from dbnd_tracker._queries.table.columns import NESTED_START, select_nested
from dbnd_tracker._queries.table.rows import rows_by_uid
from dbnd_tracker._storage.models import Run, TaskRun
from dbnd_tracker._views import RunRow


class RunTable(NamedTuple):
    rows: list[RunRow]
    total: int
    """How many rows are found."""
    has_previous: bool
    has_next: bool
    first: int | None
    """Number of the first row shown, counted from 1; None where nobody has counted."""


class _Place(NamedTuple):
    """Where a row stands; of a run and of what is nested in one, started at once, the run is the later."""

    start: Any
    is_run: bool
    id: int
    uid: str


class _Source(NamedTuple):
    """Runs that meet conditions, or task runs nested in runs."""

    is_run: bool
    clauses: Sequence[ColumnElement[bool]]

    @property
    def can_be(self) -> bool:
        """Whether the conditions alone do not exclude every row."""
        return not self.clauses or and_(*self.clauses) is not false()

    @property
    def counted(self) -> Any:
        return _count(self.is_run).where(*self.clauses)

    def place_of(self, session: Session, uid: str) -> Any:
        """Where a row of this sort stands, whatever conditions it meets."""
        found = session.connection().execute(_select_place(self.is_run), {"uid": uid}).first()
        return found and _Place(*found)

    def places(self, cursor: _Place | None, *, is_falling: bool) -> Any:
        """What comes after the cursor: its places, each with how many there are in all behind it."""
        query = _select_places(self.is_run, is_falling)
        if self.clauses:
            # The count goes along: a question less costs a tenth of the time on PostgreSQL.
            total = self.counted.correlate(None).scalar_subquery()
            query = _select_places(self.is_run, is_falling, counted=False).add_columns(total).where(*self.clauses)
        if cursor is not None:
            start, own = _START[self.is_run], _ID[self.is_run]
            follows: Any = literal(self.is_run < cursor.is_run if is_falling else self.is_run > cursor.is_run)
            if self.is_run == cursor.is_run:
                follows = own < cursor.id if is_falling else own > cursor.id
            beyond = start < cursor.start if is_falling else start > cursor.start
            query = query.where(or_(beyond, and_(start == cursor.start, follows)))
        return query


_START: Final[dict[bool, Any]] = {True: Run.start_time, False: NESTED_START}
_ID: Final[dict[bool, Any]] = {True: Run.id, False: TaskRun.id}
_UID: Final[dict[bool, Any]] = {True: Run.uid, False: TaskRun.uid}


def _select(is_run: bool, *columns: Any) -> Any:
    return select(*columns).select_from(Run) if is_run else select_nested(*columns)


@functools.cache  # to make a query takes about as long as to execute it
def _count(is_run: bool) -> Any:
    return _select(is_run, func.count())


@functools.cache
def _select_place(is_run: bool) -> Any:
    """The columns of a ``_Place``."""
    query = _select(is_run, _START[is_run], literal(is_run), _ID[is_run], _UID[is_run])
    return query.where(_UID[is_run] == bindparam("uid"))


@functools.cache
def _select_places(is_run: bool, is_falling: bool, *, counted: bool = True) -> Any:
    order = _START[is_run], _ID[is_run]
    # The start as the database gives it: it is only compared with others.
    query = _select(is_run, type_coerce(order[0], NullType()), literal(is_run), order[1], _UID[is_run])
    if counted:
        query = query.add_columns(_count(is_run).correlate(None).scalar_subquery())
    return query.order_by(*(column.desc() if is_falling else column.asc() for column in order))


def page_by_time(
    session: Session,
    clauses: Sequence[ColumnElement[bool]],
    below: Sequence[ColumnElement[bool]] | None,
    *,
    descending: bool,
    limit: int,
    after: str | None,
    before: str | None,
    offset: int,
) -> RunTable:
    """A page of the runs that meet ``clauses``, and of the nested task runs that meet what is ``below``, if any."""
    sources = [_Source(is_run=True, clauses=clauses)]
    if below is not None:
        sources.append(_Source(is_run=False, clauses=below))
    uid = after or before
    cursor = next((place for each in sources if (place := each.place_of(session, uid))), None) if uid else None
    backwards = cursor is not None and after is None
    is_falling = descending != backwards
    sources = [each for each in sources if each.can_be]
    skipped = 0 if cursor else offset
    found: list[_Place] = []
    total = 0
    for source in sources:
        query = source.places(cursor, is_falling=is_falling)
        is_alone = len(sources) == 1
        query = query.offset(skipped).limit(limit + 1) if is_alone else query.limit(skipped + limit + 1)
        read = session.connection().execute(query).all()
        if read:
            total += read[0][-1]
        elif cursor or skipped:
            total += session.scalar(source.counted) or 0
        found += [_Place(*place) for *place, _ in read]
    if len(sources) > 1:
        found.sort(reverse=is_falling)
        del found[:skipped]
    more = len(found) > limit
    rows = rows_by_uid(session, [place.uid for place in found[:limit]])
    if cursor is None:
        return RunTable(rows, total, has_previous=offset > 0, has_next=more, first=offset + 1)
    if backwards:
        return RunTable(rows[::-1], total, more, has_next=True, first=None if more else 1)
    first = None if more else total - len(rows) + 1
    return RunTable(rows, total, has_previous=True, has_next=more, first=first)
