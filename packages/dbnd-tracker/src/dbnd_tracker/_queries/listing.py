"""Long lists of what task runs logged, a part at a time: their names are read, and the rows of what is shown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import exists, select
from sqlalchemy.orm import aliased

from dbnd_tracker import _views as views
from dbnd_tracker._queries.logged import BY_ATTEMPT, TABLES, ListKind, select_logged
from dbnd_tracker._storage.encoding import Kind
from dbnd_tracker._storage.models import Attempt, MetricKey, MetricSeries, Param, Tag, TaskRun
from dbnd_tracker._view import View

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

# Numbers in one IN list.
_CHUNK: Final = 1_000
_ARGUMENT: Final = aliased(Param)
# What is logged of a task's own arguments stands there once.
_IS_ARGUMENT: Final = exists().where(
    _ARGUMENT.attempt_id == Param.attempt_id,
    _ARGUMENT.name == Param.name,
    _ARGUMENT.value == Param.value,
    _ARGUMENT.source < Param.source,
)


class Part(NamedTuple):
    """A part of a list."""

    rows: list[tuple[str, Any]]
    """Uids of task runs, and what they logged."""
    start: int
    """How many rows stand before the part."""
    found: int
    """How many rows the search finds, of all."""
    total: int


def list_part(
    session: Session,
    kind: ListKind,
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
    table = TABLES[kind]
    query = select_logged(kind, Attempt.task_run_uid, table.name, table.beside, table.model.id)
    query = query.where(Attempt.task_run_uid.in_(task_runs) if run_uid is None else _of_run(run_uid))
    if kind == "params":
        query = query.where(~_IS_ARGUMENT)
    known: dict[tuple[str, str | None, Any], int] = {}
    for uid, name, beside, row_id in session.execute(query.order_by(*BY_ATTEMPT, table.order)):
        if uid in task_runs and (keep is None or keep(name)):
            known[uid, name, beside] = row_id
    wanted = find.casefold()
    found = [(uid, row_id) for (uid, name, _), row_id in known.items() if wanted in (name or "").casefold()]
    found.sort(key=lambda row: task_runs[row[0]])
    start = start if start < len(found) else 0
    shown = found[start : start + limit]
    rows = _rows(session, kind, [row_id for _, row_id in shown])
    return Part([(uid, rows[row_id]) for uid, row_id in shown if row_id in rows], start, len(found), len(known))


def _of_run(run_uid: str) -> Any:
    return Attempt.task_run_uid.in_(select(TaskRun.uid).where(TaskRun.run_uid == run_uid))


def _rows(session: Session, kind: ListKind, ids: list[int]) -> dict[int, View]:
    table, found = TABLES[kind], {}
    for chunk in (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)):
        query = select_logged(kind, table.model, table.name).where(table.model.id.in_(chunk))
        for row, name in session.execute(query):
            found[row.id] = table.view(row, name)
    return found


def histories(
    session: Session, task_runs: Mapping[str, int], *, run_uid: str | None = None, find: str = ""
) -> dict[str, list[str]]:
    """The metrics that have more than one point, by key: uids of the task runs that logged them (see ``list_part``)."""
    has_numbers = MetricSeries.min_value.is_not(None) | (MetricSeries.last_kind <= Kind.INT)
    is_history = has_numbers & (MetricSeries.points > 1)
    query = select_logged("metrics", MetricKey.name, Attempt.task_run_uid, is_history)
    query = query.where(Attempt.task_run_uid.in_(task_runs) if run_uid is None else _of_run(run_uid))
    latest = {(key, uid): drawn for key, uid, drawn in session.execute(query.order_by(*BY_ATTEMPT))}
    found: dict[str, list[str]] = {}
    wanted = find.casefold()
    for key, uid in sorted(place for place, drawn in latest.items() if drawn):
        if uid in task_runs and wanted in key.casefold():
            found.setdefault(key, []).append(uid)
    return {key: sorted(uids, key=task_runs.__getitem__) for key, uids in found.items()}


def metrics_named(session: Session, task_runs: Collection[str], keys: Collection[str]) -> set[tuple[str, str]]:
    """Which of these task runs have which of these metrics: uids and keys."""
    query = select_logged("metrics", Attempt.task_run_uid, MetricKey.name)
    mine = query.where(Attempt.task_run_uid.in_(task_runs), MetricKey.name.in_(keys))
    return {(uid, key) for uid, key in session.execute(mine)}


def metric_list(session: Session, task_run_uid: str, *, limit: int = 10_000, after: int = 0) -> views.MetricList:
    """The metrics of a task run; ``after`` is the cursor that an earlier call returned."""
    part = list_part(session, "metrics", {task_run_uid: 0}, start=after, limit=limit)
    shown = [metric for _, metric in part.rows] if part.start == after else []
    following = after + len(shown) if after + len(shown) < part.total and shown else None
    return views.MetricList(task_run_uid=task_run_uid, data=shown, after=following, total=part.total)


def tags_of(session: Session, task_run_uid: str, *names: str) -> dict[str, str | None]:
    """The values of some tags of a task run, by name."""
    query = select_logged("tags", Tag.name, Tag.value).where(Attempt.task_run_uid == task_run_uid, Tag.name.in_(names))
    return dict(session.execute(query.order_by(*BY_ATTEMPT)).all())


def tag_values(session: Session, name: str, *, run_uid: str = "", task_run_uid: str = "") -> dict[str, str | None]:
    """The values of one tag by task run, in a run or of one task run."""
    mine = Attempt.task_run_uid == task_run_uid if task_run_uid else _of_run(run_uid)
    query = select_logged("tags", Attempt.task_run_uid, Tag.value).where(mine, Tag.name == name)
    return dict(session.execute(query.order_by(*BY_ATTEMPT)).all())
