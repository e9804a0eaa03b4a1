"""What is read from the tracker: the same models for the HTTP API, the page and the terminal.

Numbers that JSON cannot carry are the strings "NaN", "Infinity" and "-Infinity"; ``type`` tells them from text.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import Field

from dbnd_tracker._view import MetricPoint, Number, Time, View


class RunSummary(View):
    """A run as lists show it."""

    run_uid: str
    root_run_uid: str | None
    job_name: str | None
    name: str | None
    project_name: str | None
    user: str | None
    description: str | None
    state: str | None
    """In lower case: running, success, failed, cancelled, shutdown, scheduled; lost when heartbeats have stopped."""
    start_time: Time
    end_time: Time | None

    @property
    def duration(self) -> timedelta | None:
        """How long it took, or None while it runs."""
        return None if self.end_time is None else self.end_time - self.start_time

    @property
    def place(self) -> tuple[str, ...]:
        """The uid of the run, and behind it that of a nested task run: what the address of its page ends with."""
        return (self.run_uid,)


class RunRow(RunSummary):
    """A row of a list: a run, which stands for its root task run, or a task run nested in it, with its own facts."""

    task_run_uid: str | None
    """The task run whose values are the row's."""
    mlflow_run_id: str | None
    mlflow_run_name: str | None
    """What its MLflow run is called; of a nested row of MLflow's that is ``name``, too."""
    is_deleted_in_mlflow: bool
    nested_in: list[str]
    """What the row is nested in: the name of its run, and below it those of task runs. Empty for a run."""
    has_nested: bool
    """Whether task runs are nested in it."""
    values: dict[str, Any] = Field(default_factory=dict)
    """What it logged of what was asked for, by name."""

    @property
    def uid(self) -> str:
        """What names the row: the uid of the run, or of the nested task run."""
        return self.place[-1]

    @property
    def place(self) -> tuple[str, ...]:
        return (self.run_uid, self.task_run_uid) if self.nested_in and self.task_run_uid else (self.run_uid,)


class ListMeta(View):
    """Where a page of rows stands in the whole."""

    total: int
    """How many rows the filter finds."""
    after: str | None
    """Cursor of the next page, or null on the last one."""


class RunList(View):
    """One page of rows.

    A filter or order by what was logged, or by a name or id of MLflow's, asks for single task runs; any other for runs.
    """

    data: list[RunRow]
    meta: ListMeta


class AttemptView(View):
    """One attempt at a task run."""

    attempt_uid: str
    number: int | None
    state: str | None
    start_time: Time | None
    end_time: Time | None
    error: dict[str, Any] | None


class ParamView(View):
    """A parameter of a task run."""

    name: str
    value: str | None
    source: str
    """``task`` for an argument of the task, ``mlflow.param`` for one that was logged."""
    origin: str | None
    """Where the value came from, as the client says."""


class TagView(View):
    """A tag of a task run."""

    name: str
    value: str | None


class MetricView(View):
    """A metric of a task run, summed up."""

    key: str
    source: str | None
    points: int
    type: str
    """Type of the last value: float, int, str or json."""
    last_value: Any
    last_step: int | None
    last_timestamp: int
    """Milliseconds since the epoch."""
    min: Number | None
    """Smallest number; null when there is none."""
    max: Number | None
    """Largest number; null when there is none."""


class MetricList(View):
    """The metrics of a task run."""

    task_run_uid: str
    data: list[MetricView]
    after: int | None
    """Cursor of the next metrics, or null when these are the last."""
    total: int
    """How many metrics it has."""


class MetricHistory(View):
    """Points of one metric in the order in which they came."""

    task_run_uid: str
    key: str
    data: list[MetricPoint]
    after: int | None
    """Cursor of the next points, or null when these are the last."""
    total: int
    """How many points the metric has."""


class ArtifactView(View):
    """Name and place of an artifact."""

    name: str
    path: str


class TargetView(View):
    """An input or output of a task run."""

    param_name: str | None
    path: str
    operation_type: str
    operation_status: str | None
    value_preview: str | None
    data_dimensions: list[int | None] | None
    data_schema: Any
    data_hash: str | None


class DatasetView(View):
    """An operation on a dataset."""

    path: str | None
    operation_type: str
    operation_status: str
    operation_source: str | None
    error: str | None
    timestamp: Time
    value_preview: str | None
    data_dimensions: list[int | None] | None
    data_schema: Any
    columns_stats: list[dict[str, Any]] | None
    query: str | None
    dataset_uri: str | None
    with_partition: bool | None


class TaskRunView(View):
    """A task run with what its attempts logged."""

    task_run_uid: str
    name: str | None
    task_id: str | None
    task_af_id: str | None
    type: str | None
    """Type of its definition, such as python."""
    is_root: bool
    is_system: bool
    is_reused: bool
    state: str | None
    start_time: Time | None
    end_time: Time | None
    error: dict[str, Any] | None
    attempts: list[AttemptView]
    params: list[ParamView]
    tags: list[TagView]
    metrics: list[MetricView]
    artifacts: list[ArtifactView]
    targets: list[TargetView]
    datasets: list[DatasetView]
    links: dict[str, Any]
    upstreams: list[str]
    """Uids of the task runs that it waits for."""
    parent_task_run_uid: str | None
    """The task run of this run that started it."""
    depth: int
    """How many task runs it is nested in."""
    version: str | None
    command_line: str | None
    execution_date: Time | None
    facts: dict[str, Any]
    """What else was said about it: environment, signature of its outputs, target date, places of its log."""

    @property
    def label(self) -> str:
        """What it is called among the others of its run: with a number, if it is not the first of its name."""
        return self.task_af_id or self.name or self.task_run_uid

    @property
    def duration(self) -> timedelta | None:
        """How long it took, or None while it runs."""
        return None if self.start_time is None or self.end_time is None else self.end_time - self.start_time


class RunDetail(RunSummary):
    """A run with everything in it."""

    source: str | None
    execution_date: Time | None
    last_heartbeat: Time | None
    parent_task_run_uid: str | None
    driver_task_run_uid: str | None
    environment: dict[str, Any]
    facts: dict[str, Any]
    task_runs: list[TaskRunView]
    """All task runs as a tree laid out in lines: each is followed by those that it started."""


class TaskRunLog(View):
    """The log of the latest attempt at a task run."""

    task_run_uid: str
    log_body: str | None


class DatasetOperationView(DatasetView):
    """An operation on a dataset, and whose it was."""

    task_run_uid: str | None
    task_run_name: str | None
    run_uid: str | None
    job_name: str | None


class DatasetOperationList(View):
    """Operations on datasets, newest first."""

    data: list[DatasetOperationView]
    after: int | None
    """Cursor of the next ones, or null when these are the last."""


class LineageEdge(View):
    """Another dataset, and the task runs that connect it."""

    path: str
    task_run_uids: list[str]


class Lineage(View):
    """Where a dataset came from and what was made of it, one step in each direction."""

    path: str
    upstream: list[LineageEdge]
    """What the task runs that wrote it have read."""
    downstream: list[LineageEdge]
    """What the task runs that read it have written."""
    operations: list[DatasetOperationView]
    """The latest operations on it, newest first."""


class ComparedValue(View):
    """One thing that compared runs have logged."""

    kind: str
    """metrics, params or tags."""
    name: str
    """Its name; where the tasks of a run differ in what they logged under it, with the task's behind it."""
    values: dict[str, Any]
    """Its value by uid of the run or nested task run; of a metric the last one. Those without it are left out."""
    differs: bool
    """Whether the runs do not all have the same value."""


class RunComparison(View):
    """Several runs, or single task runs, side by side."""

    runs: list[RunRow]
    data: list[ComparedValue]


class ClientErrorView(View):
    """An error inside a client that it has told the tracker."""

    received_at: Time
    timestamp: Time | None
    dbnd_version: str | None
    source: str | None
    stack_trace: str | None


class ClientErrorList(View):
    """Errors of clients, newest first."""

    data: list[ClientErrorView]


class Documents(View):
    """What was said about a task run as a whole."""

    task_run_uid: str
    dbt: dict[str, Any] | None
    """Metadata of dbt."""
    airflow: dict[str, Any] | None
    """Which task of Airflow it is."""
