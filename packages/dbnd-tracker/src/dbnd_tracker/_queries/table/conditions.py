"""Conditions as SQL, on the two sorts of rows (see ``columns``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, case, false, func, literal, not_, or_, select
from sqlalchemy.orm import Session

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
    as_time,
    operands,
)
from dbnd_tracker._queries.logged import EXPERIMENT_TAG, NAME_TAG
from dbnd_tracker._queries.table.columns import NESTED_COLUMNS, RUN_COLUMNS
from dbnd_tracker._queries.table.finder import Finder, Found
from dbnd_tracker._storage.models import Run, TaskRun
from dbnd_tracker._storage.states import LOST, lost

_TAGS: Final = {"name": NAME_TAG, "experiment": EXPERIMENT_TAG}
_OWN: Final = frozenset({"name", "mlflow_run_id", "task_run_uid"})
_POSITIVE: Final = {
    "!=": "=",
    "not in": "in",
    "not like": "like",
    "not ilike": "ilike",
    "is null": "is not null",
}
# What is shorter stands in too many ids by chance.
_START_OF_ID: Final = re.compile(r"[0-9a-f]{4,32}|[0-9a-f]{8}-[0-9a-f-]{0,27}")


def are_rows(expressions: Iterable[Expression | None]) -> bool:
    """Whether conditions ask for single task runs: by what these logged, are called or are in MLflow."""
    compared = [operand for each in expressions for operand in operands(each)]
    return any(isinstance(operand, Field) or operand.name in _OWN for operand in compared)


class Conditions:
    """Conditions as SQL.

    Args:
        finder: Looks up what SQL does not say.
        nested: Whether the rows are the task runs below the roots: a query of them joins ``TaskRun`` and ``Run``.
        whole: Whether a run meets what any of its task runs does, and not only its root.
    """

    def __init__(self, finder: Finder, *, nested: bool = False, whole: bool = False) -> None:
        self._finder = finder
        self._session = finder.session
        self._nested = nested
        self._whole = whole
        self._id = TaskRun.id if nested else Run.id
        self._columns = NESTED_COLUMNS if nested else RUN_COLUMNS

    def clause(self, expression: Expression) -> ColumnElement[bool]:
        if isinstance(expression, Not):
            # A comparison with NULL is NULL, which is not its own opposite.
            return not_(func.coalesce(self.clause(expression.part), false()))
        if isinstance(expression, Both):
            return and_(*map(self.clause, expression.parts))
        if isinstance(expression, Either):
            return or_(*map(self.clause, expression.parts))
        if isinstance(expression.operand, Field):
            return self._by_value(expression, self._finder.logged(expression, expression.operand))
        return self._by_attribute(expression, expression.operand)

    def search(self, words: Sequence[str], *, only_own: bool = False) -> list[ColumnElement[bool]]:
        """That what rows are called has all ``words`` in it, or that an id of theirs begins with them.

        An id begins with four characters or more. What a task run below a root does not have, its run may; with
        ``only_own`` it has one of the words itself.
        """
        called = (Run.name, Run.job_name, Run.project_name, Run.user, Run.description)
        own = [or_(*self._own(word)) for word in words]
        found = [or_(mine, self._finder.contains(word, *called)) for mine, word in zip(own, words, strict=True)]
        return [*found, or_(*own)] if only_own and self._nested and own else found

    def _own(self, word: str) -> list[ColumnElement[bool]]:
        """Where a row itself, and not only its run, may have a word."""
        found = [self._are(self._finder.mentioning(NAME_TAG, word))]
        if self._nested:
            found.append(self._finder.contains(word, TaskRun.name))
        else:
            found.append(self._have(self._finder.mentioning(EXPERIMENT_TAG, word).all_runs))
        if _START_OF_ID.fullmatch(word.lower()):
            digits = word.lower().replace("-", "")
            uid = TaskRun.uid if self._nested else Run.uid
            found += [uid.startswith(dashed(digits)), self._are(self._finder.mlflow_runs_beginning(digits))]
        return found

    def _by_attribute(self, condition: Comparison, attribute: Attribute) -> ColumnElement[bool]:
        name, sign = attribute.name, condition.operator
        if name == "mlflow_run_id":
            return self._by_value(condition, self._finder.mlflow_runs(condition))
        column = "project" if name == "experiment" else name
        if name not in _TAGS:
            return self._by_column(condition, column)

        def either(positive: str) -> ColumnElement[bool]:
            """What it is called in MLflow counts as well."""
            asked = Comparison(attribute, positive, condition.values)
            found = self._finder.tagged(asked, _TAGS[name])
            ids = found.nested if self._nested else found.all_runs if name == "experiment" else found.runs
            if self._nested and name == "name" and positive in {"=", "in"}:
                # No index has their names: they are read once, and not for each of the questions that have this part.
                query = select(TaskRun.id).where(self._by_column(asked, column), ~TaskRun.is_root)
                return self._have(ids | set(self._session.scalars(query)))
            return or_(self._by_column(asked, column), self._have(ids))

        if sign not in _POSITIVE:
            return either(sign)
        is_not = not_(func.coalesce(either(_POSITIVE[sign]), false()))
        return is_not if sign == "is null" else and_(either("is not null"), is_not)

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
            query = select(self._id, column)
            query = query.join(Run, Run.uid == TaskRun.run_uid) if self._nested else query
            found = self._have({each for each, value in session.execute(query) if condition.holds(value)})
        return found

    def _by_value(self, condition: Comparison, found: Found) -> ColumnElement[bool]:
        """That a value of a row meets a condition; a row without one meets only ``is null``."""
        return not_(self._are(found)) if condition.operator == "is null" else self._are(found)

    def _are(self, found: Found) -> ColumnElement[bool]:
        return self._have(found.nested if self._nested else found.all_runs if self._whole else found.runs)

    def _have(self, ids: set[int]) -> ColumnElement[bool]:
        """That a row has one of these ids."""
        return is_one_of(self._session, self._id, ids)


def _like(session: Session, column: Any, pattern: str) -> ColumnElement[bool]:
    """``column like pattern`` as ``is_like`` means it: no character is special but % and _, and case counts."""
    if session.get_bind().dialect.name == "postgresql":
        return column.like(pattern, escape="")  # type: ignore[no-any-return]
    # SQLite's LIKE overlooks the case of ASCII letters.
    special = {"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"}
    glob = "".join(special.get(c, c) for c in pattern)
    return column.op("GLOB", is_comparison=True)(glob)  # type: ignore[no-any-return]
