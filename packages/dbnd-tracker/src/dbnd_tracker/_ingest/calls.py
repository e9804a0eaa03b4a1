"""The tracking calls by name, their validation, and their application exactly once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from dbnd_tracker._errors import PayloadError, TrackerError, UnknownCallError
from dbnd_tracker._ingest import logged, metrics, runs, tasks
from dbnd_tracker._models import JournalPosition
from dbnd_tracker._schemas import logged as logged_bodies
from dbnd_tracker._schemas import runs as run_bodies
from dbnd_tracker._schemas import tasks as task_bodies

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbnd._tracking.transport import Batch
    from dbnd_tracker._database import Database
    from dbnd_tracker._writer import Writer

_BATCH_ID: Final = re.compile(r"([0-9a-f]{32}):(\d{1,18})-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Call:
    """A tracking call.

    Args:
        body: The schema of its body.
        apply: Writes the body and returns the answer, a JSON value; most have nothing to answer but ``{}``.
    """

    body: type[BaseModel]
    apply: Callable[[Writer, Any], object]


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
    "log_metrics": Call(logged_bodies.LogMetrics, metrics.log_metrics),
    "log_metric": Call(logged_bodies.MetricInfo, metrics.log_metric),
    "log_artifact": Call(logged_bodies.LogArtifact, logged.log_artifact),
    "log_targets": Call(logged_bodies.LogTargets, logged.log_targets),
    "log_datasets": Call(logged_bodies.LogDatasets, logged.log_datasets),
    "log_exception": Call(logged_bodies.LogException, logged.log_exception),
}
"""Every call under ``/api/v1/tracking/``, and ``log_exception``."""


@dataclass(frozen=True, slots=True)
class BatchId:
    """Which events of which journal a call is made of.

    Args:
        journal: Id of the journal, 32 hex digits.
        first: Sequence number of its first event.
        last: Sequence number of its last event.
    """

    journal: str
    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> BatchId:
        """Read the form ``<journal>:<first>-<last>``.

        Raises:
            PayloadError: ``text`` is not of that form, or ends before it starts.
        """
        found = _BATCH_ID.fullmatch(text)
        if not found or not 0 < int(found[2]) <= int(found[3]):
            msg = f"The batch {text[:80]!r} is not of the form <32 hex digits>:<first>-<last>."
            raise PayloadError(msg)
        return cls(found[1], int(found[2]), int(found[3]))


class PartlyApplied(TrackerError):  # noqa: N818  no failure: the sender is told where to go on
    """The first events of the batch were applied with an earlier one; none of the others are now.

    Args:
        last: Sequence number of the last event that was applied.
    """

    def __init__(self, last: int) -> None:
        super().__init__(f"Events up to {last} are applied already; send the others in a batch of their own.")
        self.last = last


def apply_batch(database: Database, batch: Batch) -> object:
    """Apply a batch of the durable client, once however often it comes.

    Raises:
        PayloadError: The batch is wrong for good.
        PartlyApplied: The first events of the batch were applied with an earlier one.
        StorageError: The database cannot take it now.
    """
    batch_id = BatchId(batch.journal, batch.first, batch.last)
    if not isinstance(batch.body, list):
        return apply_call(database, batch.call, batch.body, batch_id)
    groups = batch.body

    def work(writer: Writer) -> object:
        return metrics.log_points(writer, groups) if _advance(writer, batch_id) else {}

    return database.write(work)


def apply_call(database: Database, name: str, body: object, batch: BatchId | None = None) -> object:
    """Validate one call and apply it in one transaction, and return its answer.

    Args:
        database: Where to.
        name: The call, a key of ``CALLS``.
        body: Its body as parsed from JSON.
        batch: The events that it is made of, when they are numbered: applied before, they change nothing.

    Raises:
        PayloadError: The body is wrong for good.
        PartlyApplied: The first events of the batch were applied with an earlier one.
        StorageError: The database cannot take it now.
    """
    valid = _validate(name, body)

    def work(writer: Writer) -> object:
        if batch is not None and not _advance(writer, batch):
            return {}
        return CALLS[name].apply(writer, valid)

    return database.write(work)


def ingest(writer: Writer, name: str, body: object) -> object:
    """Validate one call and apply it within the transaction of ``writer``.

    Raises:
        PayloadError: The body is wrong for good.
    """
    return CALLS[name].apply(writer, _validate(name, body))


def _validate(name: str, body: object) -> BaseModel:
    call = CALLS.get(name)
    if call is None:
        msg = f"There is no tracking call {name[:80]!r}."
        raise UnknownCallError(msg)
    try:
        return call.body.model_validate(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "its top"
        reason = problem["msg"].removeprefix("Value error, ")
        msg = f"The body of {name} is wrong at {place}: {reason[:1].lower()}{reason[1:]}."
        raise PayloadError(msg) from None


def _advance(writer: Writer, batch: BatchId) -> bool:
    """Note that ``batch`` is applied; False when it was before."""
    position = writer.session.get(JournalPosition, batch.journal, with_for_update={"key_share": True})
    if position is None:
        writer.session.add(JournalPosition(journal=batch.journal, last=batch.last, applied_at=writer.now))
    elif batch.last <= position.last:
        return False
    elif batch.first <= position.last:
        raise PartlyApplied(position.last)
    else:
        position.last, position.applied_at = batch.last, writer.now
    return True
