"""Long lists of what task runs logged, a part at a time: their names are read, and the rows of what is shown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import func, select

from dbnd_tracker import _views as views
from dbnd_tracker._queries.metrics import metric_view
from dbnd_tracker._storage.models import (
    Artifact,
    Attempt,
    DatasetOperation,
    MetricKey,
    MetricSeries,
    Param,
    Tag,
    Target,
    TaskRun,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

Kind = Literal["metrics", "params", "tags", "artifacts", "datasets", "targets"]

# Numbers in one IN list.
_CHUNK: Final = 1_000


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a list.

    Args:
        rows: Uid of the task run, and what it logged, for each row of the part.
        start: How many rows stand before the part.
        found: How many rows the search finds.
        total: How many rows there are.
    """

    rows: list[tuple[str, Any]]
    start: int
    found: int
    total: int


@dataclass(frozen=True, slots=True)
class _Table:
    """Where a list comes from.

    Args:
        model: Its table.
        name: What is searched in, and what rows of the same name are known by together with ``beside``.
        beside: Further column that rows are known by.
        order: Column by which rows of one attempt are ordered.
        view: Makes what is shown of a row and its name.
    """

    model: Any
    name: Any
    beside: Any
    order: Any
    view: Callable[[Any, str], views.View]


def _plain(view: type[views.View]) -> Callable[[Any, str], views.View]:
    return lambda row, _: view(**{name: getattr(row, name) for name in view.model_fields})


_TABLES: Final[dict[Kind, _Table]] = {
    "metrics": _Table(MetricSeries, MetricKey.name, MetricKey.id, MetricKey.name, metric_view),
    "params": _Table(Param, Param.name, Param.source, Param.id, _plain(views.ParamView)),
    "tags": _Table(Tag, Tag.name, Tag.name, Tag.id, _plain(views.TagView)),
    "artifacts": _Table(Artifact, Artifact.name, Artifact.name, Artifact.id, _plain(views.ArtifactView)),
    "datasets": _Table(
        DatasetOperation, DatasetOperation.path, DatasetOperation.id, DatasetOperation.id, _plain(views.DatasetView)
    ),
    "targets": _Table(Target, Target.path, Target.id, Target.id, _plain(views.TargetView)),
}


def list_part(
    session: Session,
    kind: Kind,
    task_runs: Mapping[str, int],
    *,
    run_uid: str | None = None,
    find: str = "",
    keep: Callable[[str], bool] | None = None,
    start: int = 0,
    limit: int,
) -> Part:
    """A part of what task runs logged; of what several attempts logged under one name, the latest attempt's.

    Args:
        session: Where to read.
        kind: What is listed.
        task_runs: Places of the task runs, by uid: in their order the rows stand.
        run_uid: The run that ``task_runs`` are all of; None to look for each of them, of which there are few then.
        find: Only rows whose names hold this text, whatever its case.
        keep: Only rows whose names meet this; the others are not counted.
        start: How many rows to leave out.
        limit: How many rows at most.
    """
    table = _TABLES[kind]
    mine = Attempt.task_run_uid.in_(task_runs) if run_uid is None else _of_run(run_uid)
    query = _joined(select(Attempt.task_run_uid, table.name, table.beside, table.model.id), kind).where(mine)
    known: dict[tuple[str, str | None, Any], int] = {}
    for uid, name, beside, row_id in session.execute(
        query.order_by(func.coalesce(Attempt.number, 0), Attempt.id, table.order)
    ):
        if uid in task_runs and (keep is None or keep(name)):
            known[uid, name, beside] = row_id
    wanted = find.casefold()
    found = [
        (task_runs[uid], uid, row_id) for (uid, name, _), row_id in known.items() if wanted in (name or "").casefold()
    ]
    found.sort(key=lambda row: row[0])
    if start >= len(found):
        start = 0
    shown = found[start : start + limit]
    rows = _rows(session, kind, [row_id for _, _, row_id in shown])
    return Part([(uid, rows[row_id]) for _, uid, row_id in shown if row_id in rows], start, len(found), len(known))


def _joined(query: Any, kind: Kind) -> Any:
    table = _TABLES[kind]
    query = query.select_from(table.model).join(Attempt, Attempt.id == table.model.attempt_id)
    if kind == "metrics":
        query = query.join(MetricKey, MetricKey.id == MetricSeries.key_id).where(MetricSeries.points > 0)
    return query


def _of_run(run_uid: str) -> Any:
    return Attempt.task_run_uid.in_(select(TaskRun.uid).where(TaskRun.run_uid == run_uid))


def _rows(session: Session, kind: Kind, ids: list[int]) -> dict[int, views.View]:
    table, found = _TABLES[kind], {}
    for chunk in (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)):
        query = select(table.model, table.name)
        if kind == "metrics":
            query = query.join(MetricKey, MetricKey.id == MetricSeries.key_id)
        for row, name in session.execute(query.where(table.model.id.in_(chunk))):
            found[row.id] = table.view(row, name)
    return found


def metrics_named(session: Session, task_runs: Collection[str], keys: Collection[str]) -> set[tuple[str, str]]:
    """Which of these task runs have which of these metrics: uids and keys."""
    query = _joined(select(Attempt.task_run_uid, MetricKey.name), "metrics")
    mine = query.where(Attempt.task_run_uid.in_(task_runs), MetricKey.name.in_(keys))
    return {(uid, key) for uid, key in session.execute(mine)}


def metric_list(session: Session, task_run_uid: str, *, limit: int = 10_000, after: int = 0) -> views.MetricList:
    """The metrics of a task run; of one that several attempts logged, the latest attempt's.

    Args:
        session: Where to read.
        task_run_uid: The task run.
        limit: How many metrics at most.
        after: Cursor that an earlier call returned.
    """
    part = list_part(session, "metrics", {task_run_uid: 0}, start=after, limit=limit)
    shown = [metric for _, metric in part.rows] if part.start == after else []
    following = after + len(shown) if after + len(shown) < part.total and shown else None
    return views.MetricList(task_run_uid=task_run_uid, data=shown, after=following, total=part.total)


def tag_values(session: Session, run_uid: str, name: str) -> dict[str, str | None]:
    """The values of one tag in a run, by task run."""
    query = _joined(select(Attempt.task_run_uid, Tag.value), "tags").where(_of_run(run_uid), Tag.name == name)
    rows = session.execute(query.order_by(func.coalesce(Attempt.number, 0), Attempt.id))
    return {uid: value for uid, value in rows}  # noqa: C416  rows are no tuples to mypy
