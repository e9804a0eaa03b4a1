"""What runs logged: the tables that hold it, its values and its names."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import ColumnElement, bindparam, false, func, literal, select, union_all
from sqlalchemy.orm import Session

from dbnd.tracking import EDITED_TAG, VERIFIED_TAG
from dbnd_tracker._queries.ids import is_given, read_given
from dbnd_tracker._queries.language.expressions import KINDS, Field, LoggedKind
from dbnd_tracker._storage.encoding import KIND_NAMES, decode, readable
from dbnd_tracker._storage.models import (
    Artifact,
    Attempt,
    DatasetOperation,
    MetricKey,
    MetricSeries,
    Param,
    Tag,
    Target,
)
from dbnd_tracker._view import View, view_of
from dbnd_tracker._views import ArtifactView, DatasetView, MetricView, ParamView, TagView, TargetView

ListKind = Literal["metrics", "params", "tags", "artifacts", "datasets", "targets"]

_MAX_NAMES: Final = 300
MAX_NESTED: Final = 20
"""Of how many task runs of a run the table reads what they logged, before they are unfolded."""

NAME_TAG: Final = "mlflow.runName"
"""Tag in which MLflow keeps the name of a run."""
EXPERIMENT_TAG: Final = "dbnd.experiment"
"""Tag of a task run: the name of its MLflow run's experiment."""
FIRST_ID_TAG: Final = "dbnd.first_run_id"
"""Tag of a task run: the id that its MLflow run had while MLflow's store was away."""
LIFECYCLE_TAG: Final = "dbnd.lifecycle_stage"
"""Tag of a task run: whether its MLflow run is active or deleted."""
OWN_TAGS: Final = frozenset(
    {EDITED_TAG, EXPERIMENT_TAG, FIRST_ID_TAG, LIFECYCLE_TAG, VERIFIED_TAG, "dbnd.mlflow_run_id"}
)
"""Tags that tell the tracker something, and a reader nothing that is not shown otherwise."""

BY_ATTEMPT: Final = (func.coalesce(Attempt.number, 0), Attempt.id)
"""The order of attempts: of what several logged, the last one counts."""
LATEST_FIRST: Final = tuple(column.desc() for column in BY_ATTEMPT)


class LoggedTable(NamedTuple):
    """A table of what attempts logged."""

    model: Any
    view: Callable[[Any, str], View]
    """Makes what is shown of a row and its name."""
    name: Any
    """The column of names."""
    beside: Any
    """Rows of the same name and the same value of this column are one thing."""
    order: Any
    """By what the rows of one attempt are ordered."""
    values: tuple[Any, ...] = ()
    """The columns that make up a value."""


def _metric_view(series: MetricSeries, key: str) -> MetricView:
    kind, timestamp_us = series.last_kind, series.last_timestamp_us
    assert kind is not None
    assert timestamp_us is not None
    return MetricView(
        key=key,
        source=series.source,
        points=series.points,
        type=KIND_NAMES[kind],
        last_value=decode(kind, series.last_value, series.last_text),
        last_step=series.last_step,
        last_timestamp=timestamp_us // 1000,
        min=_bound(series.min_value, only_ints=series.only_ints),
        max=_bound(series.max_value, only_ints=series.only_ints),
    )


def _bound(value: float | None, *, only_ints: bool) -> Any:
    return int(value) if value is not None and only_ints else readable(value)


def _shows(view: type[View]) -> Callable[[Any, str], View]:
    return lambda row, _: view_of(view, row)


_LAST: Final = (MetricSeries.last_kind, MetricSeries.last_value, MetricSeries.last_text)
_DATASET: Final = DatasetOperation
TABLES: Final[dict[ListKind, LoggedTable]] = {
    "metrics": LoggedTable(MetricSeries, _metric_view, MetricKey.name, MetricKey.name, MetricKey.name, _LAST),
    "params": LoggedTable(Param, _shows(ParamView), Param.name, Param.source, Param.id, (Param.value,)),
    "tags": LoggedTable(Tag, _shows(TagView), Tag.name, Tag.name, Tag.id, (Tag.value,)),
    "artifacts": LoggedTable(Artifact, _shows(ArtifactView), Artifact.name, Artifact.name, Artifact.id),
    "datasets": LoggedTable(_DATASET, _shows(DatasetView), _DATASET.path, _DATASET.id, _DATASET.id),
    "targets": LoggedTable(Target, _shows(TargetView), Target.path, Target.id, Target.id),
}


def select_logged(kind: ListKind, *columns: Any) -> Any:
    """These columns of everything of one kind, beside its attempts, for callers to narrow."""
    model = TABLES[kind].model
    query = select(*columns).select_from(model).join(Attempt, Attempt.id == model.attempt_id)
    if kind == "metrics":
        query = query.join(MetricKey, MetricKey.id == MetricSeries.key_id).where(MetricSeries.points > 0)
    return query


def is_named(session: Session, kind: LoggedKind, name: str) -> ColumnElement[bool]:
    """That what was logged has a name: of metrics its key's id, by which PostgreSQL knows how many there are."""
    if kind != "metrics":
        return TABLES[kind].name == name  # type: ignore[no-any-return]
    key = session.connection().scalar(select(MetricKey.id).where(MetricKey.name == name))
    return false() if key is None else MetricSeries.key_id == key


def value_of(kind: LoggedKind, columns: Sequence[Any]) -> Any:
    """The value that the columns ``values`` of a table make up."""
    return decode(*columns) if kind == "metrics" else columns[0]


class Owned(NamedTuple):
    """An attempt, and the row that it belongs to."""

    attempt_id: int
    row: str
    """Uid of the row."""
    task_run_uid: str
    is_own: bool
    """Whether the row is this very task run, and not a run that it is nested in."""


class NameCount(NamedTuple):
    """How often something was logged."""

    attempts: int
    differs: bool
    """Whether it has more than one value."""


_SHOWN: Final[dict[str, Callable[[Any], Any]]] = {
    "min": lambda row: _bound(row.min_value, only_ints=row.only_ints),
    "max": lambda row: _bound(row.max_value, only_ints=row.only_ints),
}


def field_value(field: Field, row: Any) -> Any:
    """The value of a field, from a row that begins with the columns of ``field_columns``."""
    if field.kind != "metrics" or field.shown == "last":
        return value_of(field.kind, row[: len(TABLES[field.kind].values)])
    return _SHOWN[field.shown if field.shown != "best" else "min" if field.is_loss else "max"](row)


def field_columns(kind: LoggedKind) -> tuple[Any, ...]:
    """The columns that ``field_value`` needs."""
    sums = (MetricSeries.min_value, MetricSeries.max_value, MetricSeries.only_ints) if kind == "metrics" else ()
    return (*TABLES[kind].values, *sums)


def logged_values(session: Session, fields: Iterable[Field], owned: Sequence[Owned]) -> dict[str, dict[Field, Any]]:
    """What rows logged, by their uids; of what several attempts of a task run logged under one name, the latest's.

    What a run's root task run did not log, but one other task run of it alone did, stands for the run as well.
    """
    owners = {each.attempt_id: each for each in owned}
    found: dict[str, dict[Field, Any]] = {each.row: {} for each in owned}
    others: dict[tuple[str, Field], dict[str, Any]] = {}
    for kind, named in _by_kind(fields).items():
        for row in read_given(session, _select_values, kind, ids=owners, names=[*named]):
            owner = owners[row[-2]]
            for field in named[row[-1]]:
                if owner.is_own:
                    found[owner.row][field] = field_value(field, row)
                else:
                    others.setdefault((owner.row, field), {})[owner.task_run_uid] = field_value(field, row)
    nested = Counter(each.row for each in owned if not each.is_own)
    for (uid, field), values in others.items():
        if len(values) == 1 and field not in found[uid] and nested[uid] < MAX_NESTED - 1:
            (found[uid][field],) = values.values()
    return found


@functools.cache  # to make a query takes about as long as to execute it
def _select_values(dialect: str, kind: LoggedKind) -> Any:
    table = TABLES[kind]
    query = select_logged(kind, *field_columns(kind), Attempt.id, table.name)
    query = query.where(is_given(dialect, table.model.attempt_id), table.name.in_(bindparam("names", expanding=True)))
    return query.order_by(*BY_ATTEMPT, table.model.id)


def _by_kind(fields: Iterable[Field]) -> dict[LoggedKind, dict[str, list[Field]]]:
    found: dict[LoggedKind, dict[str, list[Field]]] = {}
    for field in dict.fromkeys(fields):
        found.setdefault(field.kind, {}).setdefault(field.name, []).append(field)
    return found


def logged_names(session: Session, owned: Sequence[Owned]) -> dict[Field, NameCount]:
    """What these attempts logged, the most common first."""
    found: dict[Field, NameCount] = {}
    for kind, name, attempts, differs in read_given(session, _select_names, ids=[each.attempt_id for each in owned]):
        found[Field(kind, name)] = NameCount(attempts, bool(differs))
    return found


@functools.cache
def _select_names(dialect: str) -> Any:
    parts = []
    for kind in KINDS:
        table = TABLES[kind]
        value = MetricSeries.last_value if kind == "metrics" else table.values[0]
        # One name has one param of each source.
        count = func.count(table.model.attempt_id.distinct()) if kind == "params" else func.count()
        query = select_logged(kind, literal(kind), table.name, count, func.min(value) != func.max(value))
        query = query.where(is_given(dialect, table.model.attempt_id), table.name.not_in(OWN_TAGS))
        query = query.group_by(table.name).order_by(count.desc(), table.name).limit(_MAX_NAMES)
        parts.append(select(query.subquery()))
    return union_all(*parts)
