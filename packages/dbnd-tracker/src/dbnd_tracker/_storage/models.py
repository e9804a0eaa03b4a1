"""The tables.

Events arrive in any order, so that rows refer to runs and task runs by uid, not by foreign key. What belongs to an
attempt refers to its integer id; an attempt gets its row with the first event that names it. Once its task run and its
run are known, it has the integer id of the run, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from dbnd_tracker._storage.base import (
    NEW_IDS,
    Base,
    Dimensions,
    Id,
    Int16,
    Int64,
    Name,
    Numbered,
    Object,
    Objects,
    OfAttempt,
    Text16,
    Text32,
    Text64,
    Uid,
)

CHILD: Final = "child"
UPSTREAM: Final = "upstream"


class Run(Numbered):
    """A run: one execution of a job."""

    __tablename__ = "runs"
    __table_args__ = (
        Index(None, "start_time", "id"),
        *(Index(None, name, "start_time", "id") for name in ("job_name", "project_name", "state", "user_name")),
        Index("ix_runs_unsealed", "id", sqlite_where=text("NOT is_sealed"), postgresql_where=text("NOT is_sealed")),
        NEW_IDS,
    )

    uid: Mapped[Uid] = mapped_column(unique=True)
    root_run_uid: Mapped[Uid | None] = mapped_column(index=True)
    job_name: Mapped[Name | None]
    project_name: Mapped[Name | None]
    name: Mapped[Name | None] = mapped_column(index=True)
    user: Mapped[Name | None] = mapped_column("user_name")
    description: Mapped[str | None]
    state: Mapped[Text32 | None]
    start_time: Mapped[datetime]
    end_time: Mapped[datetime | None]
    execution_date: Mapped[datetime | None]
    source: Mapped[Text64 | None]
    is_archived: Mapped[bool] = mapped_column(default=False)
    sends_heartbeat: Mapped[bool] = mapped_column(default=False)
    last_heartbeat: Mapped[datetime | None]
    is_sealed: Mapped[bool] = mapped_column(default=False)
    """Whether, after its end, its points were sealed."""
    driver_task_run_uid: Mapped[Uid | None]
    parent_task_run_uid: Mapped[Uid | None] = mapped_column(index=True)
    environment: Mapped[Object | None] = mapped_column(deferred=True, deferred_group="details")
    """Machine, command line, code version: what ``task_run_env`` says."""
    facts: Mapped[Object | None] = mapped_column(deferred=True, deferred_group="details")
    """What else was said about it: executor, trigger, schedule, Airflow context."""


class TaskDefinition(Numbered):
    """What a task is: its type, sources and parameters. Each process sends its own."""

    __tablename__ = "task_definitions"
    __table_args__ = (NEW_IDS,)

    uid: Mapped[Uid] = mapped_column(unique=True)
    name: Mapped[str]
    type: Mapped[str]
    source: Mapped[str | None]
    source_hash: Mapped[str | None]
    module_source: Mapped[str | None]
    module_source_hash: Mapped[str | None]
    params: Mapped[Objects]


class TaskRun(Numbered):
    """A task of a run; its state is that of its latest attempt. ``facts`` is what else was said about it."""

    __tablename__ = "task_runs"
    __table_args__ = (NEW_IDS,)

    uid: Mapped[Uid] = mapped_column(unique=True)
    run_uid: Mapped[Uid | None] = mapped_column(index=True)
    task_definition_uid: Mapped[Uid | None]
    name: Mapped[str | None]
    task_id: Mapped[str | None]
    task_af_id: Mapped[str | None]
    task_signature: Mapped[str | None]
    is_root: Mapped[bool] = mapped_column(default=False)
    is_system: Mapped[bool] = mapped_column(default=False)
    is_reused: Mapped[bool] = mapped_column(default=False)
    is_skipped: Mapped[bool] = mapped_column(default=False)
    is_dynamic: Mapped[bool] = mapped_column(default=False)
    execution_date: Mapped[datetime | None]
    version: Mapped[str | None]
    command_line: Mapped[str | None]
    functional_call: Mapped[str | None]
    facts: Mapped[Object | None] = mapped_column(deferred=True, deferred_group="details")


class Attempt(Numbered):
    """One attempt at a task run: the row that params, metrics and everything else logged refer to."""

    __tablename__ = "attempts"
    __table_args__ = (NEW_IDS,)

    uid: Mapped[Uid] = mapped_column(unique=True)
    task_run_uid: Mapped[Uid | None] = mapped_column(index=True)  # NULL until an event says it
    run_id: Mapped[Id | None] = mapped_column(index=True)
    """Of the run, once it is known: what filters by metric or param go by."""
    number: Mapped[int | None]
    state: Mapped[Text32 | None]
    start_time: Mapped[datetime | None]
    end_time: Mapped[datetime | None]
    error: Mapped[Object | None]
    external_links: Mapped[Object | None]
    mlflow_run_id: Mapped[Text64 | None] = mapped_column(index=True)
    log_body: Mapped[str | None] = mapped_column(deferred=True)
    log_path: Mapped[str | None]


class TaskRelation(Base):
    """An arrow between two task runs: from parent to child, or from upstream to downstream."""

    __tablename__ = "task_relations"

    kind: Mapped[Text16] = mapped_column(primary_key=True)
    """``CHILD`` or ``UPSTREAM``."""
    from_uid: Mapped[Uid] = mapped_column(primary_key=True)
    to_uid: Mapped[Uid] = mapped_column(primary_key=True, index=True)


class Param(OfAttempt):
    """A parameter: an argument of a task, or one that was logged."""

    __tablename__ = "params"
    __table_args__ = (UniqueConstraint("attempt_id", "source", "name"), Index(None, "name", "attempt_id"))

    source: Mapped[Text64]
    name: Mapped[Name]
    value: Mapped[str | None]
    origin: Mapped[str | None]


class Tag(OfAttempt):
    __tablename__ = "tags"
    __table_args__ = (UniqueConstraint("attempt_id", "name"), Index(None, "name", "attempt_id"))

    name: Mapped[Name]
    value: Mapped[str | None]


class MetricKey(Numbered):
    """The name of a metric, kept once."""

    __tablename__ = "metric_keys"
    __table_args__ = (NEW_IDS,)

    name: Mapped[Name] = mapped_column(unique=True)


class MetricSeries(OfAttempt):
    """All points of one key in one attempt, summed up, so that pages of runs read no points.

    The last value is MLflow's: that of the highest step (none is 0), then of the latest time, then the greatest.
    """

    __tablename__ = "metric_series"
    __table_args__ = (UniqueConstraint("attempt_id", "key_id"), Index(None, "key_id", "last_value"), NEW_IDS)

    key_id: Mapped[Id] = mapped_column(ForeignKey("metric_keys.id"))
    source: Mapped[Text64 | None]
    points: Mapped[Int64] = mapped_column(default=0)
    """How many points there are, which is the number of the last one."""
    sealed: Mapped[Int64] = mapped_column(server_default="0")
    """How many of them, the first ones, are in segments."""
    latest_us: Mapped[Int64 | None]
    """The latest time of its points: what comes after it is no repeat of one of them."""
    last_timestamp_us: Mapped[Int64 | None]
    last_step: Mapped[Int64 | None]
    last_kind: Mapped[Int16 | None]
    last_value: Mapped[float | None]
    last_text: Mapped[str | None]
    min_value: Mapped[float | None]
    max_value: Mapped[float | None]
    only_ints: Mapped[bool] = mapped_column(default=True)


class Artifact(OfAttempt):
    """Name and place of an artifact; its content stays where it is."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("attempt_id", "name"),)

    name: Mapped[Name]
    path: Mapped[str]


class Target(OfAttempt):
    """An input or output of a task; its uid is made of attempt, parameter, path and operation."""

    __tablename__ = "targets"
    __table_args__ = (Index(None, "attempt_id"), Index(None, "path", postgresql_using="hash"))

    uid: Mapped[Uid] = mapped_column(unique=True)
    param_name: Mapped[str | None]
    path: Mapped[str]
    operation_type: Mapped[Text16]
    operation_status: Mapped[Text16 | None]
    value_preview: Mapped[str | None]
    data_dimensions: Mapped[Dimensions | None]
    data_schema: Mapped[Object | None]
    data_hash: Mapped[str | None]


class DatasetOperation(OfAttempt):
    """Reading, writing or deleting a dataset; its uid is made of attempt, path and operation."""

    __tablename__ = "dataset_operations"
    __table_args__ = (Index(None, "attempt_id"), Index(None, "path", postgresql_using="hash"))

    uid: Mapped[Uid] = mapped_column(unique=True)
    path: Mapped[str | None]
    operation_type: Mapped[Text16]
    operation_status: Mapped[Text16]
    operation_source: Mapped[str | None]
    error: Mapped[str | None]
    timestamp: Mapped[datetime]
    value_preview: Mapped[str | None]
    data_dimensions: Mapped[Dimensions | None]
    data_schema: Mapped[Object | None]
    columns_stats: Mapped[Objects | None]
    query: Mapped[str | None]
    dataset_uri: Mapped[str | None]
    with_partition: Mapped[bool | None]


class JournalPosition(Base):
    """Up to which event a journal has been applied."""

    __tablename__ = "batches"

    journal: Mapped[Text32] = mapped_column(primary_key=True)
    last: Mapped[Int64]
    applied_at: Mapped[datetime]


class Deleted(Base):
    """The uid of a run, task run or attempt that was deleted: what still comes for it is dropped. Kept for good."""

    __tablename__ = "deleted"
    __table_args__ = ({"sqlite_with_rowid": False},)

    uid: Mapped[Uid] = mapped_column(primary_key=True)
    run_uid: Mapped[Uid] = mapped_column(index=True)
    """The run that it belonged to, which has a row of its own."""
    deleted_at: Mapped[datetime]
    dropped: Mapped[Int64] = mapped_column(default=0)
    """Of a run: how many events have come since."""


class AccessToken(Numbered):
    """A token that opens the tracker; only its hash is kept."""

    __tablename__ = "access_tokens"

    uid: Mapped[Uid] = mapped_column(unique=True)
    label: Mapped[str]
    role: Mapped[Text16]
    hash: Mapped[Text64] = mapped_column(unique=True)
    guards: Mapped[bool]
    """Whether the tracker asks for tokens because this one exists; not so for one that an open tracker made."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AccessSession(Base):
    """A login: of a browser, or of a client that has no token."""

    __tablename__ = "access_sessions"

    hash: Mapped[Text64] = mapped_column(primary_key=True)
    token_hash: Mapped[Text64] = mapped_column(index=True)
    expires_at: Mapped[datetime]


class ClientError(Numbered):
    """An error inside a client, which it has told us about."""

    __tablename__ = "client_errors"

    received_at: Mapped[datetime]
    timestamp: Mapped[datetime | None]
    dbnd_version: Mapped[str | None]
    source: Mapped[str | None]
    stack_trace: Mapped[str | None]


class ScheduledJob(Numbered):
    """A job that a scheduler runs; the tracker keeps what it is told and schedules nothing."""

    __tablename__ = "scheduled_jobs"

    uid: Mapped[Uid] = mapped_column(unique=True)
    name: Mapped[Name] = mapped_column(index=True)
    facts: Mapped[Object]


class AttemptDocument(OfAttempt):
    """Something large that was said about an attempt as a whole: metadata of dbt, facts of Airflow."""

    __tablename__ = "attempt_documents"
    __table_args__ = (UniqueConstraint("attempt_id", "kind"),)

    kind: Mapped[Text16]
    content: Mapped[Object]


_RUN: Final = re.compile(r"/runs/([0-9A-Za-z_-]{1,64})/?$")


def mlflow_run_of(url: object) -> str | None:
    """The id of the MLflow run whose page, or place in a store, ``url`` is; None for another address."""
    found = _RUN.search(url) if isinstance(url, str) else None
    return found[1] if found else None


def linked_mlflow_run(links: Mapping[str, object] | None) -> str | None:
    """The id of the MLflow run that one of the links names."""
    return next((run for url in (links or {}).values() if (run := mlflow_run_of(url))), None)
