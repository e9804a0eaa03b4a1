"""The tracking calls by name, their validation, and their application exactly once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from pydantic import BaseModel
from pydantic_core import from_json
from sqlalchemy import Table, bindparam, insert, select, update

from dbnd.tracking import Batch, PartlyAppliedError
from dbnd_tracker._errors import PayloadError, UnknownCallError
from dbnd_tracker._ingest import limits, logged, metrics, runs, tasks, wire
from dbnd_tracker._ingest.points import from_groups
from dbnd_tracker._schemas import logged as logged_bodies
from dbnd_tracker._schemas import runs as run_bodies
from dbnd_tracker._schemas import tasks as task_bodies
from dbnd_tracker._schemas.validation import validated
from dbnd_tracker._storage.database import Database
from dbnd_tracker._storage.models import JournalPosition
from dbnd_tracker._storage.writer import Writer

_POSITIONS: Final = cast("Table", JournalPosition.__table__)
# Made once: each batch executes them.
_MINE: Final = _POSITIONS.c.journal == bindparam("of")
_LAST: Final = select(_POSITIONS.c.last).where(_MINE).with_for_update(key_share=True)
_ADVANCE: Final = update(_POSITIONS).where(_MINE)
_BATCH_ID: Final = re.compile(r"([0-9a-f]{32}):(\d{1,18})-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Call:
    """A tracking call.

    Args:
        body: The schema of its body.
        apply: Writes the body and returns the answer, a JSON value; None is ``{}``, as most answer.
        groups: The points that a body holds; ``apply`` takes them in place of the body.
    """

    body: type[BaseModel]
    apply: Callable[[Writer, Any], object]
    groups: Callable[[Any], object] | None = None


CALLS: Final = {
    "init_run": Call(run_bodies.InitRun, runs.init_run),
    "set_run_state": Call(run_bodies.SetRunState, runs.set_run_state),
    "set_unfinished_tasks_state": Call(run_bodies.SetUnfinishedTasksState, runs.set_unfinished_tasks_state),
    "heartbeat": Call(run_bodies.Heartbeat, runs.heartbeat),
    "add_task_runs": Call(task_bodies.AddTaskRuns, tasks.add_task_runs),
    "update_task_run_attempts": Call(task_bodies.UpdateTaskRunAttempts, tasks.update_task_run_attempts),
    "set_task_reused": Call(task_bodies.SetTaskReused, tasks.set_task_reused),
    "save_task_run_log": Call(task_bodies.SaveTaskRunLog, tasks.save_task_run_log),
    "save_external_links": Call(task_bodies.SaveExternalLinks, tasks.save_external_links),
    "log_metrics": Call(logged_bodies.LogMetrics, metrics.log_points, lambda body: wire.of_metrics(body.metrics_info)),
    "log_metric": Call(logged_bodies.MetricInfo, metrics.log_points, lambda body: wire.of_metrics([body])),
    "log_artifact": Call(logged_bodies.LogArtifact, logged.log_artifact),
    "log_targets": Call(logged_bodies.LogTargets, logged.log_targets),
    "log_datasets": Call(logged_bodies.LogDatasets, logged.log_datasets),
    "log_dbt_metadata": Call(logged_bodies.LogDbtMetadata, logged.log_dbt_metadata),
    "save_airflow_task_infos": Call(logged_bodies.SaveAirflowTaskInfos, logged.save_airflow_task_infos),
    "init_scheduled_job": Call(run_bodies.InitScheduledJob, runs.init_scheduled_job),
    "log_exception": Call(logged_bodies.LogException, logged.log_exception),
}
"""Every call under ``/api/v1/tracking/``, and ``log_exception``."""


class BatchId(NamedTuple):
    """Which events a call is made of: id of their journal, 32 hex digits, and numbers of the first and the last."""

    journal: str
    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> BatchId:
        """Read the form ``<journal>:<first>-<last>``; PayloadError when ``text`` is not of it."""
        found = _BATCH_ID.fullmatch(text)
        if not found or not 0 < int(found[2]) <= int(found[3]):
            raise PayloadError(f"The batch {text[:80]!r} is not of the form <32 hex digits>:<first>-<last>.")
        return cls(found[1], int(found[2]), int(found[3]))


class Applied(NamedTuple):
    """What came of a call: its answer, a JSON value, and what was dropped of it."""

    answer: object
    dropped: Mapping[str, int]
    """How many events, by the uid of the deleted run that they were for."""


def apply_batch(database: Database, batch: Batch) -> Applied:
    """Apply a batch of the durable client, once however often it comes (see ``apply_call``)."""
    batch_id = BatchId(batch.journal, batch.first, batch.last)
    if isinstance(batch.body, list):
        return apply_points(database, batch.body, batch_id)
    return apply_call(database, batch.call, batch.body, batch_id)


def apply_call(database: Database, name: str, body: object, batch: BatchId | None = None) -> Applied:
    """Validate one call, a key of ``CALLS``, and apply it in one transaction.

    The events of a ``batch`` are numbered: those that were applied before change nothing.

    Raises:
        PayloadError: The body is wrong for good.
        PartlyAppliedError: The first events of the batch were applied with an earlier one.
        StorageError: The database cannot take it now.
    """
    call = CALLS.get(name)
    if call is None:
        raise UnknownCallError(f"There is no tracking call {name[:80]!r}.")
    valid = validated(name, call.body, body)
    return _apply(database, call.apply, call.groups(valid) if call.groups else valid, batch)


def apply_raw(database: Database, name: str, raw: bytes, batch: BatchId | None = None) -> Applied:
    """Do what ``apply_call`` does with a body as it came: JSON, with or without bare NaN and Infinity."""
    limits.check_json(raw)
    groups = wire.plain(raw) if name == "log_metrics" else None
    if groups is not None:
        return _apply(database, metrics.log_points, groups, batch)
    return apply_call(database, name, parse_json(name, raw), batch)


def apply_points(database: Database, groups: object, batch: BatchId | None = None) -> Applied:
    """Do what ``apply_call`` does with points in our own client's form (see ``dbnd._model.points``)."""
    return _apply(database, metrics.log_points, from_groups(groups), batch)


def parse_json(name: str, raw: bytes) -> Any:
    """The body of a call: JSON with bare NaN and infinities, as Python writes it; PayloadError for all other."""
    try:
        return from_json(raw)
    except ValueError:
        pass  # the slower parser knows some texts more (half characters, deep nesting), and says better what is wrong
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"The body of {name} is not JSON: {error}.") from None


def _apply(
    database: Database, apply: Callable[[Writer, Any], object], parsed: object, batch: BatchId | None
) -> Applied:
    limits.check(parsed)

    def work(writer: Writer) -> Applied:
        if batch is not None and not _advance(writer, batch):
            return Applied({}, {})
        answer = apply(writer, parsed)
        writer.deleted.note()
        return Applied({} if answer is None else answer, writer.deleted.dropped)

    return database.write(work)


def _advance(writer: Writer, batch: BatchId) -> bool:
    """Note that ``batch`` is applied; False when it was before."""
    connection = writer.connection
    last = connection.execute(_LAST, {"of": batch.journal}).scalar()
    if batch.first > (last or 0) + 1:
        writer.forget_ids()  # the database may be an older copy of what it was, put back
    values = {"last": batch.last, "applied_at": writer.now}
    if last is None:
        connection.execute(insert(_POSITIONS), {"journal": batch.journal, **values})
    elif batch.last <= last:
        return False
    elif batch.first <= last:
        raise PartlyAppliedError(last)
    else:
        connection.execute(_ADVANCE, {"of": batch.journal, **values})
    return True
