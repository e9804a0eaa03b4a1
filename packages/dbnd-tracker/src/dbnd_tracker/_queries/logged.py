"""What runs logged: the tables that hold it, its values and its names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from sqlalchemy import func, select

from dbnd_tracker._queries.expressions import KINDS, Field, LoggedKind
from dbnd_tracker._storage.encoding import KIND_NAMES, decode, readable
from dbnd_tracker._storage.models import (
    Artifact,
    Attempt,
    DatasetOperation,
    MetricKey,
    MetricSeries,
    Param,
    Run,
    Tag,
    Target,
)
from dbnd_tracker._views import ArtifactView, DatasetView, MetricView, ParamView, TagView, TargetView, View, view_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

ListKind = Literal["metrics", "params", "tags", "artifacts", "datasets", "targets"]

_MAX_NAMES: Final = 300

BY_ATTEMPT: Final = (func.coalesce(Attempt.number, 0), Attempt.id)
"""The order of attempts: of what several logged, the last one counts."""


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


def value_of(kind: LoggedKind, columns: Sequence[Any]) -> Any:
    """The value that the columns ``values`` of a table make up."""
    return decode(*columns) if kind == "metrics" else columns[0]


def logged_values(
    session: Session, fields: Iterable[Field], runs: Sequence[str] | None = None
) -> dict[str, dict[Field, Any]]:
    """What runs logged, by run uid; of what several tasks of a run logged under one name, the one that came last.

    Args:
        session: Where to read.
        fields: What is asked for.
        runs: Uids of the runs; None for all.
    """
    names: dict[LoggedKind, list[str]] = {}
    for field in fields:
        names.setdefault(field.kind, []).append(field.name)
    found: dict[str, dict[Field, Any]] = {}
    for kind, wanted in names.items():
        table = TABLES[kind]
        query = select_logged(kind, Run.uid, table.name, *table.values).join(Run, Run.id == Attempt.run_id)
        if runs is not None:
            query = query.where(Run.uid.in_(runs))
        for run_uid, name, *value in session.execute(query.where(table.name.in_(wanted)).order_by(table.model.id)):
            found.setdefault(run_uid, {})[Field(kind, name)] = value_of(kind, value)
    return found


def logged_names(session: Session, runs: Sequence[str]) -> dict[Field, int]:
    """What the runs logged: each name with the number of these runs that have it, the most common first."""
    found: dict[Field, int] = {}
    count = func.count(Attempt.run_id.distinct())
    for kind in KINDS:
        name = TABLES[kind].name
        query = select_logged(kind, name, count).join(Run, Run.id == Attempt.run_id).where(Run.uid.in_(runs))
        query = query.group_by(name).order_by(count.desc(), name).limit(_MAX_NAMES)
        found |= {Field(kind, text): number for text, number in session.execute(query)}
    return found
