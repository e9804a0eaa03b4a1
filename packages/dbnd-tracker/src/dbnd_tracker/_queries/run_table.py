"""The table of runs: found, sorted and paged by anything that a run has or has logged.

Newest first, the database finds a page by its key. Other orders and conditions on what was logged are settled here,
over one slim row for each run that the other conditions leave: SQLite and PostgreSQL agree neither on how texts sort
nor on which texts are numbers, and ten thousand such rows take some hundredths of a second.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, func, or_, select

from dbnd_tracker._queries.expressions import (
    Attribute,
    Both,
    Comparison,
    Either,
    Expression,
    Field,
    Kind,
    Not,
    QueryError,
    as_number,
)
from dbnd_tracker._queries.runs import SUMMARY, Condition, clause, column_of, summary
from dbnd_tracker._storage.encoding import decode
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries, Param, Run, Tag
from dbnd_tracker._views import PageMeta, RunPage, RunSummary

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

STARTED: Final = "started"
_ORDERS: Final[dict[str, Any]] = {
    "name": Run.name,
    "job": Run.job_name,
    "project": Run.project_name,
    "user": Run.user,
    "state": Run.state,
    STARTED: Run.start_time,
    "took": Run.end_time,
}
ORDERS: Final = tuple(_ORDERS)
"""What runs can be sorted by, besides what they logged."""
_BOUNDS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.le,
    "<=": operator.le,
    ">": operator.ge,
    ">=": operator.ge,
}
_MAX_NAMES: Final = 300
_MAX_CHOICES: Final = 200


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What the runs of a table have in common.

    Args:
        search: A part of the run's name, job, project, user or description, or the start of its uid.
        job: Its job.
        project: Its project.
        user: Who started it.
        states: Its state is one of these; empty for any.
        since: It started then or later.
        until: It started earlier.
        where: A condition on it and on its metrics, params and tags, of which some task run must meet each.
        conditions: Further conditions, of the same kind.
    """

    search: str = ""
    job: str = ""
    project: str = ""
    user: str = ""
    states: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    where: Expression | None = None
    conditions: tuple[Condition, ...] = ()

    def split(self, session: Session) -> tuple[list[ColumnElement[bool]], list[Expression]]:
        """What the database finds, as SQL, and the conditions that are settled here.

        Raises:
            QueryError: A condition cannot be understood.
        """
        found: list[ColumnElement[bool]] = []
        if self.search:
            columns = (Run.name, Run.job_name, Run.project_name, Run.user, Run.description)
            contained = [func.lower(column).contains(self.search.lower(), autoescape=True) for column in columns]
            found.append(or_(*contained, Run.uid.startswith(self.search.lower(), autoescape=True)))
        given = ((Run.job_name, self.job), (Run.project_name, self.project), (Run.user, self.user))
        found += [column == value for column, value in given if value]
        if self.since:
            found.append(Run.start_time >= self.since)
        if self.until:
            found.append(Run.start_time < self.until)
        wanted: list[Expression] = [condition.comparison() for condition in self.conditions]
        if self.states:
            wanted.append(Either(tuple(Condition("state", "eq", state).comparison() for state in self.states)))
        if self.where is not None:
            wanted += self.where.parts if isinstance(self.where, Both) else [self.where]
        others = []
        for expression in wanted:
            sql = clause(session, expression)
            if sql is None:
                others.append(expression)
            else:
                found.append(sql)
        return found, others


@dataclass(frozen=True, slots=True)
class RunTable:
    """One page of the table.

    Args:
        runs: The runs shown.
        total: How many the filter finds.
        has_previous: Whether there are runs before these.
        has_next: Whether there are runs after these.
        first: Number of the first run shown, counted from 1; None where nobody has counted.
    """

    runs: list[RunSummary]
    total: int
    has_previous: bool
    has_next: bool
    first: int | None


class _Slim(NamedTuple):
    id: int
    uid: str
    key: Any


def run_table(
    session: Session,
    wanted: RunFilter,
    *,
    order: str | Field = STARTED,
    descending: bool = True,
    limit: int = 50,
    after: str | None = None,
    before: str | None = None,
    offset: int = 0,
) -> RunTable:
    """One page of the runs that ``wanted`` finds.

    Args:
        session: Where to read.
        wanted: Which runs.
        order: One of ``ORDERS``, or something logged. Runs without a value come last.
        descending: Largest first.
        limit: How many runs at most.
        after: Uid of the run before the page; a run that is not among those found starts at the beginning.
        before: Uid of the run after the page.
        offset: How many runs to leave out at the start, where neither of those two is given.
    """
    clauses, others = wanted.split(session)
    if order == STARTED and not others:
        return _by_time(session, clauses, descending=descending, limit=limit, after=after, before=before, offset=offset)
    slim = _sorted(session, clauses, others, order, descending=descending)
    places = {run.uid: place for place, run in enumerate(slim)}
    start = offset
    if after in places:
        start = places[after] + 1
    elif before in places:
        start = max(places[before] - limit, 0)
    page = [run.id for run in slim[start : start + limit]]
    rows = {run.id: run for run in session.execute(select(Run.id, *SUMMARY).where(Run.id.in_(page)))}
    runs = [RunSummary(**summary(session, rows[run])) for run in page if run in rows]
    return RunTable(runs, len(slim), start > 0, start + limit < len(slim), start + 1)


def list_runs(
    session: Session,
    wanted: RunFilter | None = None,
    *,
    order: str | Field = STARTED,
    descending: bool = True,
    limit: int = 50,
    after: str | None = None,
    offset: int = 0,
) -> RunPage:
    """One page of the runs that ``wanted`` finds, with a cursor to go on from; see ``run_table``.

    Raises:
        QueryError: A condition cannot be understood, or no run has the uid ``after``.
    """
    if after is not None and session.scalar(select(Run.id).where(Run.uid == after)) is None:
        msg = f"The cursor {after[:80]!r} is not the uid of a run."
        raise QueryError(msg)
    table = run_table(
        session, wanted or RunFilter(), order=order, descending=descending, limit=limit, after=after, offset=offset
    )
    cursor = table.runs[-1].run_uid if table.runs and table.has_next else None
    return RunPage(data=table.runs, meta=PageMeta(total=table.total, after=cursor))


def _by_time(
    session: Session,
    clauses: list[ColumnElement[bool]],
    *,
    descending: bool,
    limit: int,
    after: str | None,
    before: str | None,
    offset: int,
) -> RunTable:
    counted = select(func.count()).select_from(Run).where(*clauses)
    cursor = session.scalar(select(Run).where(Run.uid == (after or before))) if after or before else None
    backwards = cursor is not None and after is None
    is_falling = descending != backwards
    paged = list(clauses)
    if cursor is not None:
        time, same = Run.start_time, Run.start_time == cursor.start_time
        if is_falling:
            paged.append(or_(time < cursor.start_time, same & (Run.id < cursor.id)))
        else:
            paged.append(or_(time > cursor.start_time, same & (Run.id > cursor.id)))
    columns = (Run.start_time, Run.id)
    ordered = [column.desc() for column in columns] if is_falling else [column.asc() for column in columns]
    left_out = 0 if cursor else offset
    # The count goes along: a question less costs a tenth of the time on PostgreSQL.
    query = select(*SUMMARY, counted.correlate(None).scalar_subquery().label("total")).where(*paged)
    found = session.execute(query.order_by(*ordered).limit(limit + 1).offset(left_out)).all()
    total = found[0].total if found else session.scalar(counted) or 0
    more = len(found) > limit
    shown = list(found[:limit])
    if backwards:
        shown.reverse()
    runs = [RunSummary(**summary(session, run)) for run in shown]
    if cursor is None:
        return RunTable(runs, total, has_previous=offset > 0, has_next=more, first=offset + 1)
    if backwards:
        return RunTable(runs, total, has_previous=more, has_next=True, first=None if more else 1)
    return RunTable(runs, total, has_previous=True, has_next=more, first=None if more else total - len(runs) + 1)


def _sorted(
    session: Session,
    clauses: list[ColumnElement[bool]],
    others: list[Expression],
    order: str | Field,
    *,
    descending: bool,
) -> list[_Slim]:
    """All runs found, in their order."""
    tests = [_test(session, expression) for expression in others]
    if order == STARTED:
        columns = (Run.start_time, Run.id)
        ordered = [column.desc() for column in columns] if descending else [column.asc() for column in columns]
        # Times, which take long to read, are left to the database.
        all_runs = session.execute(select(Run.id, Run.uid).where(*clauses).order_by(*ordered))
        return [_Slim(run, uid, None) for run, uid in all_runs if all(test(uid) for test in tests)]
    column = Run.start_time if isinstance(order, Field) else _ORDERS[order]
    query = select(Run.id, Run.uid, Run.start_time, column.label("key")).where(*clauses)
    rows = session.execute(query.order_by(Run.start_time.desc(), Run.id.desc())).all()
    values = logged_values(session, [order]) if isinstance(order, Field) else {}
    found = []
    for row in rows:
        if not all(test(row.uid) for test in tests):
            continue
        key = values.get(row.uid, {}).get(order) if isinstance(order, Field) else row.key
        if order == "took":
            key = None if key is None else (key - row.start_time).total_seconds()
        elif isinstance(key, datetime):
            key = key.timestamp()
        found.append(_Slim(row.id, row.uid, key))
    valued = sorted((run for run in found if not _is_missing(run.key)), key=_sort_key, reverse=descending)
    return valued + [run for run in found if _is_missing(run.key)]


def _test(session: Session, expression: Expression) -> Callable[[str], bool]:
    """Whether the run with a uid meets a condition, as a function of the uid; each comparison is asked once."""
    if isinstance(expression, Comparison):
        found = _meeting(session, expression)
        if isinstance(expression.operand, Field) and expression.operator == "is null":
            return lambda uid: uid not in found
        return found.__contains__
    if isinstance(expression, Not):
        inner = _test(session, expression.part)
        return lambda uid: not inner(uid)
    tests = [_test(session, part) for part in expression.parts]
    if isinstance(expression, Either):
        return lambda uid: any(test(uid) for test in tests)
    return lambda uid: all(test(uid) for test in tests)


def _meeting(session: Session, condition: Comparison) -> set[str]:
    """Uids of the runs that meet ``condition``; of one on what was logged, those of which some task run does.

    Of ``is null`` these are, on the contrary, the runs that have logged anything under the name. Of an argument of a
    task and a param that it has logged under the same name, the one that came last counts.
    """
    if isinstance(condition.operand, Attribute):
        sql = clause(session, condition)
        if sql is not None:
            return set(session.scalars(select(Run.uid).where(sql)))
        column = column_of(session, condition.operand)
        return {uid for uid, value in session.execute(select(Run.uid, column)) if condition.holds(value)}
    kind = condition.operand.kind
    query = _logged(kind).add_columns(Attempt.id).where(_name_column(kind) == condition.operand.name)
    if "null" in condition.operator:
        return {row[0] for row in session.execute(query)}
    number = as_number(condition.values[0])
    if kind == "metrics" and number is not None and condition.operator in _BOUNDS:
        # Numbers that are far off need not be read. What is no number stays, and the comparison decides.
        bound = _BOUNDS[condition.operator](MetricSeries.last_value, number)
        query = query.where(or_(MetricSeries.last_value.is_(None), bound))
    rows = session.execute(query.order_by(_id_column(kind)))
    values = {(uid, attempt): _value(kind, value) for uid, _, *value, attempt in rows}
    return {uid for (uid, _), value in values.items() if condition.holds(value)}


def _value(kind: Kind, columns: Sequence[Any]) -> Any:
    return decode(*columns) if kind == "metrics" else columns[0]


def _is_missing(key: object) -> bool:
    return key is None or (isinstance(key, str) and key in {"", "NaN"})


def _sort_key(run: _Slim) -> tuple[int, float, str]:
    """Numbers in their order, and after them texts in theirs."""
    number = as_number(run.key)
    return (1, 0.0, str(run.key).casefold()) if number is None else (0, number, "")


def logged_values(
    session: Session, fields: Iterable[Field], runs: Sequence[str] | None = None
) -> dict[str, dict[Field, Any]]:
    """What runs logged, by run uid; of what several tasks of a run logged under one name, the one that came last.

    Args:
        session: Where to read.
        fields: What is asked for.
        runs: Uids of the runs; None for all.
    """
    names: dict[Kind, list[str]] = {"metrics": [], "params": [], "tags": []}
    for field in fields:
        names[field.kind].append(field.name)
    found: dict[str, dict[Field, Any]] = {}
    for kind, wanted in names.items():
        if not wanted:
            continue
        query = _logged(kind).where(_name_column(kind).in_(wanted))
        if runs is not None:
            query = query.where(Run.uid.in_(runs))
        for run_uid, name, *value in session.execute(query.order_by(_id_column(kind))):
            found.setdefault(run_uid, {})[Field(kind, name)] = _value(kind, value)
    return found


def _name_column(kind: Kind) -> Any:
    return {"metrics": MetricKey.name, "params": Param.name, "tags": Tag.name}[kind]


def _id_column(kind: Kind) -> Any:
    return {"metrics": MetricSeries.id, "params": Param.id, "tags": Tag.id}[kind]


def _logged(kind: Kind) -> Any:
    """Run uid, name and value of everything of one kind."""
    if kind == "metrics":
        values = (MetricSeries.last_kind, MetricSeries.last_value, MetricSeries.last_text)
        return (
            select(Run.uid, MetricKey.name, *values)
            .select_from(MetricSeries)
            .join(MetricKey, MetricKey.id == MetricSeries.key_id)
            .join(Attempt, Attempt.id == MetricSeries.attempt_id)
            .join(Run, Run.id == Attempt.run_id)
            .where(MetricSeries.points > 0)
        )
    table = Param if kind == "params" else Tag
    return (
        select(Run.uid, table.name, table.value)
        .select_from(table)
        .join(Attempt, Attempt.id == table.attempt_id)
        .join(Run, Run.id == Attempt.run_id)
    )


def logged_names(session: Session, runs: Sequence[str]) -> dict[Field, int]:
    """What the runs logged: each name with the number of these runs that have it, the most common first."""
    found: dict[Field, int] = {}
    kinds: tuple[Kind, ...] = ("metrics", "params", "tags")
    for kind in kinds:
        name = _name_column(kind)
        count = func.count(Attempt.run_id.distinct())
        query = _logged(kind).with_only_columns(name, count).where(Run.uid.in_(runs))
        query = query.group_by(name).order_by(count.desc(), name).limit(_MAX_NAMES)
        found |= {Field(kind, text): number for text, number in session.execute(query)}
    return found


def choices(session: Session) -> dict[str, list[str]]:
    """The jobs, projects and users that there are, for a filter to offer."""
    columns: dict[str, Any] = {"job": Run.job_name, "project": Run.project_name, "user": Run.user}
    found = {}
    for name, column in columns.items():
        query = select(column).distinct().where(column.is_not(None)).order_by(column).limit(_MAX_CHOICES)
        found[name] = [text for text in session.scalars(query) if text]
    return found
