"""Conditions as SQL, on the two sorts of rows: runs, which stand for their root task runs, and the task runs below."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, case, false, func, literal, not_, or_, select, type_coerce
from sqlalchemy.orm import Session
from sqlalchemy.types import NullType

from dbnd_tracker._queries.ids import dashed, is_one_of
from dbnd_tracker._queries.language.expressions import (
    ORDERINGS,
    Attribute,
    Both,
    Comparison,
    Either,
    Expression,
    Field,
    Not,
    as_number,
    as_time,
    lower_forms,
    operands,
)
from dbnd_tracker._queries.logged import (
    BY_ATTEMPT,
    EXPERIMENT_TAG,
    FIRST_ID_TAG,
    NAME_TAG,
    TABLES,
    is_named,
    select_logged,
    value_of,
)
from dbnd_tracker._storage.encoding import Kind
from dbnd_tracker._storage.models import Attempt, MetricSeries, Run, Tag, TaskRun
from dbnd_tracker._storage.states import LOST, lost

_LATEST: Final = (func.coalesce(Attempt.number, 0).desc(), Attempt.id.desc())
_OF_TASK_RUN: Final = Attempt.task_run_uid == TaskRun.uid


def _of_latest(column: Any) -> Any:
    return select(column).where(_OF_TASK_RUN).order_by(*_LATEST).limit(1).correlate(TaskRun).scalar_subquery()


START: Final = select(func.min(Attempt.start_time)).where(_OF_TASK_RUN).correlate(TaskRun).scalar_subquery()
"""When a task run started."""
_ROOT: Final = (
    select(func.min(TaskRun.uid)).where(TaskRun.run_uid == Run.uid, TaskRun.is_root).correlate(Run).scalar_subquery()
)
_OF_RUN: Final[dict[str, Any]] = {
    "uid": Run.uid,
    "root_run_uid": Run.root_run_uid,
    "job": Run.job_name,
    "project": Run.project_name,
    "user": Run.user,
}
COLUMNS: Final[dict[bool, dict[str, Any]]] = {
    False: {
        **_OF_RUN,
        "task_run_uid": _ROOT,
        "name": Run.name,
        "state": Run.state,
        "start_time": Run.start_time,
        "end_time": Run.end_time,
    },
    True: {
        **_OF_RUN,
        "task_run_uid": TaskRun.uid,
        "name": TaskRun.name,
        "state": _of_latest(Attempt.state),
        "start_time": START,
        "end_time": _of_latest(Attempt.end_time),
    },
}
"""The columns of what rows have: of runs, and (True) of the task runs nested in them."""
_TAGS: Final = {"name": NAME_TAG, "experiment": EXPERIMENT_TAG}
_OWN: Final = frozenset({"name", "mlflow_run_id", "task_run_uid"})
_POSITIVE: Final = {"!=": "=", "not in": "in", "not like": "like", "not ilike": "ilike"}
_HEX: Final = re.compile(r"[0-9a-f]{1,32}")
# What is shorter stands in too many ids by chance.
_START_OF_ID: Final = re.compile(r"[0-9a-f]{4,32}|[0-9a-f]{8}-[0-9a-f-]{0,27}")


def are_rows(expressions: Iterable[Expression | None]) -> bool:
    """Whether conditions ask for single task runs: by what these logged, are called or are in MLflow."""
    compared = [operand for each in expressions for operand in operands(each)]
    return any(isinstance(operand, Field) or operand.name in _OWN for operand in compared)


class _Found(NamedTuple):
    """Ids of the rows that meet a comparison."""

    runs: set[int]
    """Whose root task runs do."""
    nested: set[int]
    """Of task runs that are no roots."""
    all_runs: set[int]
    """Of runs any task run of which does."""


class Conditions:
    """Conditions of one question as SQL; what is asked of both sorts of rows is read once.

    Args:
        session: Where to read.
        nested: Whether the rows are the task runs below the roots: a query of them joins ``TaskRun`` and ``Run``.
        whole: Whether a run meets what any of its task runs does, and not only its root.
        known: What an object for the other sort of rows has read.
    """

    def __init__(
        self,
        session: Session,
        *,
        nested: bool = False,
        whole: bool = False,
        known: dict[Any, _Found] | None = None,
    ) -> None:
        self._session = session
        self._nested = nested
        self._whole = whole
        self._columns = COLUMNS[nested]
        self._known = {} if known is None else known

    def of_nested(self) -> Conditions:
        """The same conditions on the task runs below the roots."""
        return Conditions(self._session, nested=True, known=self._known)

    def clause(self, expression: Expression) -> ColumnElement[bool]:
        """A condition as SQL."""
        if isinstance(expression, Not):
            # A comparison with NULL is NULL, which is not its own opposite.
            return not_(func.coalesce(self.clause(expression.part), false()))
        if isinstance(expression, Both):
            return and_(*map(self.clause, expression.parts))
        if isinstance(expression, Either):
            return or_(*map(self.clause, expression.parts))
        if isinstance(expression.operand, Field):
            return self._by_logged(expression, expression.operand)
        return self._by_attribute(expression, expression.operand)

    def search(self, words: Sequence[str], *, only_own: bool = False) -> list[ColumnElement[bool]]:
        """That what rows are called has all ``words`` in it, or that an id of theirs begins with them.

        An id begins with four characters or more. What a task run below a root does not have, its run may; with
        ``only_own`` it has one of the words itself.
        """
        of_run = [
            self._contains(word, Run.name, Run.job_name, Run.project_name, Run.user, Run.description) for word in words
        ]
        uid, name = (TaskRun.uid, [TaskRun.name]) if self._nested else (Run.uid, [])
        own = [
            or_(
                *(self._contains(word, column) for column in name),
                self._are(self._find_tagged(NAME_TAG, word)),
                *([] if self._nested else [self._have(self._find_tagged(EXPERIMENT_TAG, word).all_runs)]),
                *(self._begins_an_id(uid, word.lower()) if _START_OF_ID.fullmatch(word.lower()) else ()),
            )
            for word in words
        ]
        found = [or_(mine, of) for mine, of in zip(own, of_run, strict=True)]
        return [*found, or_(*own)] if only_own and self._nested and own else found

    def _contains(self, word: str, *columns: Any) -> ColumnElement[bool]:
        if self._session.get_bind().dialect.name == "postgresql":
            columns = tuple(map(func.lower, columns))
        # SQLite's LIKE overlooks the case of the very letters that its lower() changes, in a third of the time.
        forms = lower_forms(word)
        return or_(*(column.contains(form, autoescape=True) for column in columns for form in forms))

    def _begins_an_id(self, uid: Any, word: str) -> list[ColumnElement[bool]]:
        digits = word.replace("-", "")
        return [uid.startswith(dashed(digits)), self._begins_an_mlflow_run(digits)]

    def _find_tagged(self, tag: str, word: str) -> _Found:
        """The rows of which a tag has a word in it."""
        if (tag, word) not in self._known:
            query = select_logged("tags").where(Tag.name == tag, self._contains(word, Tag.value))
            self._known[tag, word] = _found(self._places(query))
        return self._known[tag, word]

    def _is_mlflow_run(self, *ids: str) -> ColumnElement[bool]:
        """That the MLflow run has one of these ids.

        A run that began while its store was away has two: its own, from which its uid follows, and the store's.
        """
        uids = [dashed(each) for each in ids if len(each) == 32 and _HEX.fullmatch(each)]
        is_it = or_(Attempt.mlflow_run_id.in_(ids), Attempt.task_run_uid.in_(uids))
        return self._of_mlflow_runs(ids, is_it, Tag.value.in_(ids))

    def _begins_an_mlflow_run(self, start: str) -> ColumnElement[bool]:
        """That an id of the MLflow run begins so."""
        is_it = Attempt.mlflow_run_id.startswith(start, autoescape=True)
        if _HEX.fullmatch(start):  # hex digits sort alike everywhere, and an index finds those between two of them
            uid = dashed(start)
            is_it = or_(Attempt.mlflow_run_id.between(start, f"{start}g"), Attempt.task_run_uid.between(uid, f"{uid}g"))
        return self._of_mlflow_runs(f"{start}%", is_it, Tag.value.startswith(start, autoescape=True))

    def _of_mlflow_runs(self, key: Any, is_it: ColumnElement[bool], tagged: ColumnElement[bool]) -> ColumnElement[bool]:
        is_it = or_(is_it, Attempt.id.in_(select(Tag.attempt_id).where(Tag.name == FIRST_ID_TAG, tagged)))
        query = select(Attempt.mlflow_run_id).select_from(Attempt).where(is_it, Attempt.mlflow_run_id.is_not(None))
        return self._are(self._find((FIRST_ID_TAG, key), query))

    def _by_attribute(self, condition: Comparison, attribute: Attribute) -> ColumnElement[bool]:
        name, sign, values = attribute.name, condition.operator, condition.values
        if name == "mlflow_run_id" and sign in {"=", "in"}:
            return self._is_mlflow_run(*values)
        if name == "mlflow_run_id" and sign == "like" and re.fullmatch(r"[^%_]+%", values[0]):
            return self._begins_an_mlflow_run(values[0].removesuffix("%"))
        if name == "mlflow_run_id":
            query = select(Attempt.mlflow_run_id).select_from(Attempt).where(Attempt.mlflow_run_id.is_not(None))
            return self._by_value(condition, query, lambda row: row[0])
        column = "project" if name == "experiment" else name
        if name not in _TAGS or "null" in sign:
            return self._by_column(condition, column)
        # What it is called in MLflow counts as well.
        positive = Comparison(attribute, _POSITIVE.get(sign, sign), values)
        query = select_logged("tags", Tag.value).where(Tag.name == _TAGS[name])
        if positive.operator in {"=", "in"}:
            query = query.where(Tag.value.in_(values))
        found = self._find(positive, query, lambda row: positive.holds(row[0]))
        ids = found.nested if self._nested else found.all_runs if name == "experiment" else found.runs
        either = or_(self._by_column(positive, column), self._have(ids))
        if positive.operator == sign:
            return either
        return and_(self._columns[column].is_not(None), not_(func.coalesce(either, false())))

    def _by_column(self, condition: Comparison, name: str) -> ColumnElement[bool]:
        session, sign, values = self._session, condition.operator, condition.values
        column = self._columns[name]
        if name == "state" and not self._nested:
            if sign == "=":  # by its index
                return lost(session) if values == (LOST,) else and_(Run.state == values[0], not_(lost(session)))
            # The state is the one that is shown: a lost run is in no other.
            column = case((lost(session), literal(LOST)), else_=Run.state)
        if sign in ORDERINGS:
            found: ColumnElement[bool] = ORDERINGS[sign](column, as_time(values[0]))
        elif "null" in sign:
            found = column.is_(None) if sign == "is null" else column.is_not(None)
        elif sign in {"like", "not like"}:
            pattern = _like(session, column, values[0])
            found = not_(pattern) if sign.startswith("not") else pattern
        elif sign in {"=", "!="}:
            found = column == values[0] if sign == "=" else column != values[0]
        elif sign in {"in", "not in"}:
            found = column.in_(values) if sign == "in" else column.not_in(values)
        else:  # compared here: for ilike, databases do not agree on upper and lower case beyond ASCII
            query = select(TaskRun.id if self._nested else Run.id, column)
            query = query.join(Run, Run.uid == TaskRun.run_uid) if self._nested else query
            found = self._have({each for each, value in session.execute(query) if condition.holds(value)})
        return found

    def _by_logged(self, condition: Comparison, field: Field) -> ColumnElement[bool]:
        """Compared here, because databases do not agree on which texts are numbers.

        Of an argument of a task and a param that it has logged under the same name, the one that came last counts; of
        several attempts the latest one.
        """
        table = TABLES[field.kind]
        is_number = field.kind == "metrics" and condition.operator in ORDERINGS
        if is_number and condition in self._known:
            return self._are(self._known[condition])
        query = select_logged(field.kind, *table.values).where(is_named(self._session, field.kind, field.name))
        if is_number:
            return self._are(self._find_numbers(condition, query))
        return self._by_value(condition, query, lambda row: value_of(field.kind, row), table.model.id)

    def _by_value(
        self, condition: Comparison, query: Any, read: Callable[[Sequence[Any]], Any], *order: Any
    ) -> ColumnElement[bool]:
        """That a value of a row meets a condition; a row without one meets only ``is null``."""
        if condition.operator == "is null":
            return not_(self._are(self._find(condition, query, lambda _: True, *order)))
        return self._are(self._find(condition, query, lambda row: condition.holds(read(row)), *order))

    def _find(
        self, key: Any, query: Any, holds: Callable[[Sequence[Any]], bool] = lambda _: True, *order: Any
    ) -> _Found:
        """The rows of which what ``query`` reads last meets a condition."""
        if key not in self._known:
            query = _with_places(query).order_by(*BY_ATTEMPT, *order)
            latest = {row[-3:]: row[:-3] for row in self._session.connection().execute(query).all()}
            verdict = functools.cache(holds)  # many rows have the same value
            self._known[key] = _found([place for place, value in latest.items() if verdict(value)])
        return self._known[key]

    def _find_numbers(self, condition: Comparison, query: Any) -> _Found:
        """The same for a comparison of metrics with a number: of numbers, databases know which is larger."""
        execute = self._session.connection().execute
        last, number = MetricSeries.last_value, as_number(condition.values[0])
        met = self._places(query.where(ORDERINGS[condition.operator](last, number)))
        query = _with_places(query)
        texts = query.where(last.is_(None), MetricSeries.last_kind >= Kind.STR)
        met |= {row[3:] for row in execute(texts) if condition.holds(value_of("metrics", row[:3]))}
        found = _found(met)
        # A later attempt counts for more, whatever it logged.
        of_these = is_one_of(self._session, Attempt.run_id, found.all_runs)
        later = query.where(Attempt.number > 1, of_these).order_by(*BY_ATTEMPT)
        latest = {row[3:]: row[:3] for row in execute(later)} if met else {}
        late = {place for place, value in latest.items() if not condition.holds(value_of("metrics", value))}
        self._known[condition] = _found(met - late) if late else found
        return self._known[condition]

    def _places(self, query: Any) -> set[Any]:
        """The places of what ``query`` reads, as one row: as one each, they would take most of the time."""
        is_file = self._session.get_bind().dialect.name == "sqlite"
        columns = map(func.json_group_array if is_file else func.array_agg, _PLACE)
        arrays = self._session.connection().execute(_with_places(query).with_only_columns(*columns)).one()
        return {*zip(*(json.loads(each) if is_file else each or () for each in arrays), strict=True)}

    def _are(self, found: _Found) -> ColumnElement[bool]:
        return self._have(found.nested if self._nested else found.all_runs if self._whole else found.runs)

    def _have(self, ids: set[int]) -> ColumnElement[bool]:
        """That a row has one of these ids."""
        return is_one_of(self._session, TaskRun.id if self._nested else Run.id, ids)


# Whether it is a root as the database gives it: there may be a row for each run.
_PLACE: Final = (Attempt.run_id, TaskRun.id, type_coerce(TaskRun.is_root, NullType()))


def _with_places(query: Any) -> Any:
    """A query of what was logged, each with the run and the task run that it belongs to, and whether this is a root."""
    return query.add_columns(*_PLACE).join(TaskRun, _OF_TASK_RUN).where(Attempt.run_id.is_not(None))


def _found(places: Collection[tuple[int, int, bool]]) -> _Found:
    runs = {run for run, _, is_root in places if is_root}
    tasks = {task for _, task, is_root in places if not is_root}
    return _Found(runs, tasks, {run for run, _, _ in places})


def _like(session: Session, column: Any, pattern: str) -> ColumnElement[bool]:
    """``column like pattern`` as ``is_like`` means it: no character is special but % and _, and case counts."""
    if session.get_bind().dialect.name == "postgresql":
        return column.like(pattern, escape="")  # type: ignore[no-any-return]
    # SQLite's LIKE overlooks the case of ASCII letters.
    special = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    glob = "".join(special.get(c, c) for c in pattern)
    return column.op("GLOB", is_comparison=True)(glob)  # type: ignore[no-any-return]
