"""The rows that meet a comparison, looked up: databases do not agree on which texts are numbers, and on much else."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, exists, func, or_, select, type_coerce
from sqlalchemy.orm import Session, aliased
from sqlalchemy.types import NullType

from dbnd_tracker._queries.ids import dashed, is_one_of
from dbnd_tracker._queries.language.expressions import ORDERINGS, Comparison, Field, as_number, lower_forms
from dbnd_tracker._queries.logged import BY_ATTEMPT, FIRST_ID_TAG, TABLES, is_named, select_logged, value_of
from dbnd_tracker._queries.table.columns import OF_TASK_RUN
from dbnd_tracker._storage.encoding import Kind
from dbnd_tracker._storage.models import Attempt, MetricSeries, Tag, TaskRun

_HEX: Final = re.compile(r"[0-9a-f]{1,32}")
_START: Final = re.compile(r"[0-9a-f]{1,32}%")
_MLFLOW_RUNS: Final = select(Attempt.mlflow_run_id).select_from(Attempt).where(Attempt.mlflow_run_id.is_not(None))
# Whether it is a root as the database gives it: there may be a row for each run.
_PLACE: Final = (Attempt.run_id, TaskRun.id, type_coerce(TaskRun.is_root, NullType()))


class Found(NamedTuple):
    """Ids of the rows that meet a comparison."""

    runs: set[int]
    """Whose root task runs do."""
    nested: set[int]
    """Of task runs that are no roots."""
    all_runs: set[int]
    """Of runs any task run of which does."""


class Finder:
    """Finds rows for the conditions of one question; what is asked for both sorts of rows is read once."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._is_file = session.get_bind().dialect.name == "sqlite"
        self._known: dict[Any, Found] = {}

    def logged(self, condition: Comparison, field: Field) -> Found:
        """The rows that have logged what meets a condition; any value but null does for one of null.

        Of an argument of a task and a param that it has logged under the same name, the one that came last counts; of
        several attempts the latest one.
        """
        if condition in self._known:
            return self._known[condition]
        table = TABLES[field.kind]
        query = select_logged(field.kind, *table.values).where(is_named(self.session, field.kind, field.name))
        if field.kind == "metrics" and condition.operator in ORDERINGS:
            return self._numbers(condition, query)
        return self._meeting(condition, query, lambda row: value_of(field.kind, row), table.model.id)

    def tagged(self, condition: Comparison, name: str) -> Found:
        """The rows of which a tag, of which the latest attempt's counts, meets a condition."""
        if condition in self._known:
            return self._known[condition]
        query = select_logged("tags", Tag.value).where(Tag.name == name)
        if condition.operator in {"=", "in", "is not null"}:  # the values that SQL finds need not be read
            is_any = condition.operator == "is not null"
            met = self._places(query.where(Tag.value.is_not(None) if is_any else Tag.value.in_(condition.values)))
            return self._latest(condition, met, query, lambda row: condition.holds(row[0]))
        return self._meeting(condition, query, lambda row: row[0])

    def mentioning(self, tag: str, word: str) -> Found:
        """The rows of which a tag, of which the latest attempt's counts, has a word in it."""
        if (tag, word) in self._known:
            return self._known[tag, word]
        has_word = self.contains(word, Tag.value)
        query = select_logged("tags", has_word).where(Tag.name == tag)
        return self._latest((tag, word), self._places(query.where(has_word)), query, lambda row: row[0])

    def contains(self, word: str, *columns: Any) -> ColumnElement[bool]:
        """That one of these columns has a word in it, whatever its case."""
        # SQLite's LIKE overlooks the case of the very letters that its lower() changes, in a third of the time.
        texts = columns if self._is_file else tuple(map(func.lower, columns))
        return or_(*(text.contains(form, autoescape=True) for text in texts for form in lower_forms(word)))

    def mlflow_runs(self, condition: Comparison) -> Found:
        """The rows whose MLflow run has an id that meets a condition."""
        sign, values = condition.operator, condition.values
        if sign in {"=", "in"}:
            return self._mlflow_run(*values)
        if sign == "like" and _START.fullmatch(values[0]):
            return self.mlflow_runs_beginning(values[0].removesuffix("%"))
        return self._meeting(condition, _MLFLOW_RUNS, lambda row: row[0])

    def _mlflow_run(self, *ids: str) -> Found:
        """The rows whose MLflow run has one of these ids.

        A run that began while its store was away has two: its own, from which its uid follows, and the store's.
        """
        uids = [dashed(each) for each in ids if len(each) == 32 and _HEX.fullmatch(each)]
        is_it = or_(Attempt.mlflow_run_id.in_(ids), Attempt.task_run_uid.in_(uids))
        return self._of_mlflow_runs(ids, is_it, Tag.value.in_(ids))

    def mlflow_runs_beginning(self, start: str) -> Found:
        """The rows whose MLflow run has an id that begins with these hex digits."""
        # They sort alike everywhere, and an index finds those between two of them.
        uid = dashed(start)
        is_it = or_(Attempt.mlflow_run_id.between(start, f"{start}g"), Attempt.task_run_uid.between(uid, f"{uid}g"))
        return self._of_mlflow_runs(f"{start}%", is_it, Tag.value.startswith(start, autoescape=True))

    def _of_mlflow_runs(self, key: Any, is_it: ColumnElement[bool], tagged: ColumnElement[bool]) -> Found:
        is_it = or_(is_it, Attempt.id.in_(select(Tag.attempt_id).where(Tag.name == FIRST_ID_TAG, tagged)))
        return self._find((FIRST_ID_TAG, key), _MLFLOW_RUNS.where(is_it), lambda _: True)

    def _meeting(self, condition: Comparison, query: Any, read: Callable[[Sequence[Any]], Any], *order: Any) -> Found:
        if condition.operator == "is null":
            return self._find(condition, query, lambda row: read(row) is not None, *order)
        return self._find(condition, query, lambda row: condition.holds(read(row)), *order)

    def _find(self, key: Any, query: Any, holds: Callable[[Sequence[Any]], bool], *order: Any) -> Found:
        """The rows of which what ``query`` reads last meets a condition."""
        if key not in self._known:
            query = _with_places(query).order_by(*BY_ATTEMPT, *order)
            latest = {row[-3:]: row[:-3] for row in self.session.connection().execute(query).all()}
            verdict = functools.cache(holds)  # many rows have the same value
            self._known[key] = _found([place for place, value in latest.items() if verdict(value)])
        return self._known[key]

    def _numbers(self, condition: Comparison, query: Any) -> Found:
        """The same for a comparison of metrics with a number: of numbers, databases know which is larger."""
        execute = self.session.connection().execute
        last, number = MetricSeries.last_value, as_number(condition.values[0])
        met = self._places(query.where(ORDERINGS[condition.operator](last, number)))
        texts = _with_places(query).where(last.is_(None), MetricSeries.last_kind >= Kind.STR)
        met |= {row[3:] for row in execute(texts) if condition.holds(value_of("metrics", row[:3]))}
        return self._latest(condition, met, query, lambda row: condition.holds(value_of("metrics", row)))

    def _latest(self, key: Any, met: set[Any], query: Any, holds: Callable[[Sequence[Any]], bool]) -> Found:
        """The rows at the places ``met``, but for those of which a later attempt has logged something else."""
        other = aliased(Attempt)
        is_again = exists().where(other.task_run_uid == Attempt.task_run_uid, other.id != Attempt.id)
        of_these = is_one_of(self.session, Attempt.run_id, {run for run, *_ in met})
        again = _with_places(query).where(is_again, of_these).order_by(*BY_ATTEMPT)
        latest = {row[-3:]: row[:-3] for row in self.session.connection().execute(again)} if met else {}
        self._known[key] = _found(met - {place for place, row in latest.items() if not holds(row)})
        return self._known[key]

    def _places(self, query: Any) -> set[Any]:
        """The places of what ``query`` reads, as one row: as one each, they would take most of the time."""
        columns = map(func.json_group_array if self._is_file else func.array_agg, _PLACE)
        arrays = self.session.connection().execute(_with_places(query).with_only_columns(*columns)).one()
        return {*zip(*(json.loads(each) if self._is_file else each or () for each in arrays), strict=True)}


def _with_places(query: Any) -> Any:
    """A query of what was logged, each with the run and the task run that it belongs to, and whether this is a root."""
    return query.add_columns(*_PLACE).join(TaskRun, OF_TASK_RUN).where(Attempt.run_id.is_not(None))


def _found(places: Collection[tuple[int, int, bool]]) -> Found:
    runs = {run for run, _, is_root in places if is_root}
    tasks = {task for _, task, is_root in places if not is_root}
    return Found(runs, tasks, {run for run, _, _ in places})
