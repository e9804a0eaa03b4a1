"""The tables.

Events arrive in any order, so that rows refer to runs and task runs by uid, not by foreign key: a metric may come
before its task run, a task run before its run. What belongs to an attempt refers to the attempt's integer id; an
attempt not heard of yet gets its row with the first event that names it. Once its task run and its run are known, it
has the integer id of the run, too.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

# What deleted rows leave behind is kept, so that no id is ever used twice; PostgreSQL's sequences are like that.
_NEW_IDS: Final = {"sqlite_autoincrement": True}

NAME_LENGTH: Final = 500
"""Longest name that is indexed, in characters (PostgreSQL indexes at most some 2,700 bytes)."""
CHILD: Final = "child"
UPSTREAM: Final = "upstream"


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, aware and in UTC on the Python side; SQLite keeps it without its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """To the database: in UTC."""
        return None if value is None else value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database: labelled as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")
_Uid = String(36)
_Name = String(NAME_LENGTH)


class Base(DeclarativeBase):
    """Base of the tables: every constraint has a name, so that migrations can change it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: JSON(none_as_null=True), str: Text()}  # noqa: RUF012  SQLAlchemy's own declaration


class Run(Base):
    """A run: one execution of a job."""

    __tablename__ = "runs"
    __table_args__ = (
        Index(None, "start_time", "id"),
        Index(None, "job_name", "start_time", "id"),
        Index(None, "project_name", "start_time", "id"),
        Index(None, "state", "start_time", "id"),
        Index(None, "user_name", "start_time", "id"),
        _NEW_IDS,
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    uid: Mapped[str] = mapped_column(_Uid, unique=True)
    root_run_uid: Mapped[str | None] = mapped_column(_Uid, index=True)
    job_name: Mapped[str | None] = mapped_column(_Name)
    project_name: Mapped[str | None] = mapped_column(_Name)
    name: Mapped[str | None] = mapped_column(_Name, index=True)
    user: Mapped[str | None] = mapped_column("user_name", _Name)
    description: Mapped[str | None]
    state: Mapped[str | None] = mapped_column(String(32))
    start_time: Mapped[datetime]
    end_time: Mapped[datetime | None]
    execution_date: Mapped[datetime | None]
    source: Mapped[str | None] = mapped_column(String(64))
    is_archived: Mapped[bool] = mapped_column(default=False)
    sends_heartbeat: Mapped[bool] = mapped_column(default=False)
    last_heartbeat: Mapped[datetime | None]
    driver_task_run_uid: Mapped[str | None] = mapped_column(_Uid)
    parent_task_run_uid: Mapped[str | None] = mapped_column(_Uid, index=True)
    environment: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_group="details")
    """Machine, command line, code version: what ``task_run_env`` says."""
    facts: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_group="details")
    """What else was said about the run: executor, trigger, schedule, Airflow context."""


class TaskDefinition(Base):
    """What a task is: its type, sources and parameters. Each process sends its own."""

    __tablename__ = "task_definitions"
    __table_args__ = (_NEW_IDS,)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    uid: Mapped[str] = mapped_column(_Uid, unique=True)
    name: Mapped[str]
    type: Mapped[str]
    source: Mapped[str | None]
    source_hash: Mapped[str | None]
    module_source: Mapped[str | None]
    module_source_hash: Mapped[str | None]
    params: Mapped[list[dict[str, Any]]] = mapped_column(JSON)


class TaskRun(Base):
    """A task of a run; its state is that of its latest attempt."""

    __tablename__ = "task_runs"
    __table_args__ = (_NEW_IDS,)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    uid: Mapped[str] = mapped_column(_Uid, unique=True)
    run_uid: Mapped[str | None] = mapped_column(_Uid, index=True)
    task_definition_uid: Mapped[str | None] = mapped_column(_Uid)
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
    facts: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_group="details")
    """What else was said about it: environment, signature of its outputs, target date, places of its log."""


class Attempt(Base):
    """One attempt at a task run: the row that params, metrics and everything else logged refer to."""

    __tablename__ = "attempts"
    __table_args__ = (_NEW_IDS,)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    uid: Mapped[str] = mapped_column(_Uid, unique=True)
    task_run_uid: Mapped[str | None] = mapped_column(_Uid, index=True)
    """NULL until an event says to which task run the attempt belongs."""
    run_id: Mapped[int | None] = mapped_column(_Id, index=True)
    """``id`` of the run of that task run, once both are known: what filters by metric or param go by."""
    number: Mapped[int | None]
    state: Mapped[str | None] = mapped_column(String(32))
    start_time: Mapped[datetime | None]
    end_time: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    external_links: Mapped[dict[str, Any] | None]
    log_body: Mapped[str | None] = mapped_column(deferred=True)
    log_path: Mapped[str | None]


class TaskRelation(Base):
    """An arrow between two task runs: from parent to child, or from upstream to downstream."""

    __tablename__ = "task_relations"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    """``CHILD`` or ``UPSTREAM``."""
    from_uid: Mapped[str] = mapped_column(_Uid, primary_key=True)
    to_uid: Mapped[str] = mapped_column(_Uid, primary_key=True, index=True)


class Param(Base):
    """A parameter: an argument of a task, or one that was logged."""

    __tablename__ = "params"
    __table_args__ = (UniqueConstraint("attempt_id", "source", "name"), Index(None, "name", "attempt_id"))

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    attempt_id: Mapped[int] = mapped_column(_Id, ForeignKey("attempts.id"))
    source: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(_Name)
    value: Mapped[str | None]
    origin: Mapped[str | None]


class Tag(Base):
    """A tag of an attempt."""

    __tablename__ = "tags"
    __table_args__ = (UniqueConstraint("attempt_id", "name"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    attempt_id: Mapped[int] = mapped_column(_Id, ForeignKey("attempts.id"))
    name: Mapped[str] = mapped_column(_Name)
    value: Mapped[str | None]


class MetricKey(Base):
    """The name of a metric, kept once."""

    __tablename__ = "metric_keys"
    __table_args__ = (_NEW_IDS,)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    name: Mapped[str] = mapped_column(_Name, unique=True)


class MetricSeries(Base):
    """All points of one key in one attempt, summed up, so that pages of runs read no points."""

    __tablename__ = "metric_series"
    __table_args__ = (UniqueConstraint("attempt_id", "key_id"), Index(None, "key_id", "last_value"), _NEW_IDS)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    attempt_id: Mapped[int] = mapped_column(_Id, ForeignKey("attempts.id"))
    key_id: Mapped[int] = mapped_column(_Id, ForeignKey("metric_keys.id"))
    source: Mapped[str | None] = mapped_column(String(64))
    points: Mapped[int] = mapped_column(BigInteger, default=0)
    """How many points there are, which is the number of the last one."""
    latest_us: Mapped[int | None] = mapped_column(BigInteger)
    """The latest time of its points: what comes after it is no repeat of one of them."""
    # The last value is MLflow's: that of the highest step (none is 0), then of the latest time, then the greatest.
    last_timestamp_us: Mapped[int | None] = mapped_column(BigInteger)
    last_step: Mapped[int | None] = mapped_column(BigInteger)
    last_kind: Mapped[int | None] = mapped_column(SmallInteger)
    last_value: Mapped[float | None] = mapped_column(Double)
    last_text: Mapped[str | None]
    min_value: Mapped[float | None] = mapped_column(Double)
    max_value: Mapped[float | None] = mapped_column(Double)
    only_ints: Mapped[bool] = mapped_column(default=True)


class Metric(Base):
    """One point of a metric, narrow: there are hundreds of millions of them.

    The points of a series are numbered from one in the order in which they came, and the key is the only index. SQLite
    keeps the rows in it, so that a history is read from neighbouring pages. The series is no foreign key, because its
    check would cost more than the insertion; whoever adds points holds the row of the series.
    """

    __tablename__ = "metrics"
    __table_args__ = ({"sqlite_with_rowid": False},)

    series_id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    step: Mapped[int | None] = mapped_column(BigInteger)
    timestamp_us: Mapped[int] = mapped_column(BigInteger)
    """Microseconds since the epoch."""
    value: Mapped[float | None] = mapped_column(Double)
    """NULL is NaN, or a value that is no number."""
    kind: Mapped[int] = mapped_column(SmallInteger)
    text: Mapped[str | None]
    """The value when it is no number."""


class Artifact(Base):
    """Name and place of an artifact; its content stays where it is."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("attempt_id", "name"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    attempt_id: Mapped[int] = mapped_column(_Id, ForeignKey("attempts.id"))
    name: Mapped[str] = mapped_column(_Name)
    path: Mapped[str]


class Target(Base):
    """An input or output of a task; its uid is made of attempt, parameter, path and operation."""

    __tablename__ = "targets"
    __table_args__ = (Index(None, "path", postgresql_using="hash"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    uid: Mapped[str] = mapped_column(_Uid, unique=True)
    attempt_id: Mapped[int] = mapped_column(_Id, ForeignKey("attempts.id"), index=True)
    param_name: Mapped[str | None]
    path: Mapped[str]
    operation_type: Mapped[str] = mapped_column(String(16))
    operation_status: Mapped[str | None] = mapped_column(String(16))
    value_preview: Mapped[str | None]
    data_dimensions: Mapped[list[int | None] | None] = mapped_column(JSON(none_as_null=True))
    data_schema: Mapped[dict[str, Any] | None]
    data_hash: Mapped[str | None]


class DatasetOperation(Base):
    """Reading, writing or deleting a dataset; its uid is made of attempt, path and operation."""

    __tablename__ = "dataset_operations"
    __table_args__ = (Index(None, "path", postgresql_using="hash"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    uid: Mapped[str] = mapped_column(_Uid, unique=True)
    attempt_id: Mapped[int] = mapped_column(_Id, ForeignKey("attempts.id"), index=True)
    path: Mapped[str | None]
    operation_type: Mapped[str] = mapped_column(String(16))
    operation_status: Mapped[str] = mapped_column(String(16))
    operation_source: Mapped[str | None]
    error: Mapped[str | None]
    timestamp: Mapped[datetime]
    value_preview: Mapped[str | None]
    data_dimensions: Mapped[list[int | None] | None] = mapped_column(JSON(none_as_null=True))
    data_schema: Mapped[dict[str, Any] | None]
    columns_stats: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    query: Mapped[str | None]
    dataset_uri: Mapped[str | None]
    with_partition: Mapped[bool | None]


class JournalPosition(Base):
    """Up to which event a journal has been applied."""

    __tablename__ = "batches"

    journal: Mapped[str] = mapped_column(String(32), primary_key=True)
    last: Mapped[int] = mapped_column(BigInteger)
    applied_at: Mapped[datetime]


class Deleted(Base):
    """The uid of a run, task run or attempt that was deleted: what still comes for it is dropped. Kept for good."""

    __tablename__ = "deleted"
    __table_args__ = ({"sqlite_with_rowid": False},)

    uid: Mapped[str] = mapped_column(_Uid, primary_key=True)
    run_uid: Mapped[str] = mapped_column(_Uid, index=True)
    """The run that it belonged to, which has a row of its own."""
    deleted_at: Mapped[datetime]
    dropped: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of a run: how many events have come since."""


class AccessToken(Base):
    """A token that opens the tracker; only its hash is kept."""

    __tablename__ = "access_tokens"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    uid: Mapped[str] = mapped_column(_Uid, unique=True)
    label: Mapped[str]
    role: Mapped[str] = mapped_column(String(16))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    guards: Mapped[bool]
    """Whether a tracker asks for tokens because this one exists; not for one that an open tracker made."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AccessSession(Base):
    """A login: of a browser, or of a client that has no token."""

    __tablename__ = "access_sessions"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), index=True)
    """Of the token that it was opened with; it ends with it."""
    expires_at: Mapped[datetime]


class ClientError(Base):
    """An error inside a client, which it has told us about."""

    __tablename__ = "client_errors"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    received_at: Mapped[datetime]
    timestamp: Mapped[datetime | None]
    dbnd_version: Mapped[str | None]
    source: Mapped[str | None]
    stack_trace: Mapped[str | None]


class ScheduledJob(Base):
    """A job that a scheduler runs; the tracker keeps what it is told and schedules nothing."""

    __tablename__ = "scheduled_jobs"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    uid: Mapped[str] = mapped_column(_Uid, unique=True)
    name: Mapped[str] = mapped_column(_Name, index=True)
    facts: Mapped[dict[str, Any]]
    """Everything that was said about it, as JSON."""


class AttemptDocument(Base):
    """Something large that was said about an attempt as a whole: metadata of dbt, facts of Airflow."""

    __tablename__ = "attempt_documents"
    __table_args__ = (UniqueConstraint("attempt_id", "kind"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    attempt_id: Mapped[int] = mapped_column(_Id, ForeignKey("attempts.id"))
    kind: Mapped[str] = mapped_column(String(16))
    """``dbt`` or ``airflow``."""
    content: Mapped[dict[str, Any]]
