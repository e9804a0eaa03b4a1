"""What is read from the tracker: the same models for the HTTP API, the page and the terminal.

Numbers that JSON cannot carry are the strings "NaN", "Infinity" and "-Infinity"; ``type`` tells them from text.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer


def _iso(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat(timespec="microseconds")


Time = Annotated[datetime, PlainSerializer(_iso, when_used="json-unless-none")]
"""A point in time; as JSON, UTC in ISO 8601 with microseconds and offset."""
Number = int | float | str
"""A number, or the name of one that JSON cannot carry."""


class View(BaseModel):
    """Base of what is read."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


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


class PageMeta(View):
    """Where a page of a list stands in the whole."""

    total: int
    """How many runs the filter finds."""
    after: str | None
    """Cursor of the next page, or null on the last one."""


class RunPage(View):
    """One page of runs, newest first."""

    data: list[RunSummary]
    meta: PageMeta


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


class MetricPoint(View):
    """One point of a metric."""

    step: int | None
    timestamp: int
    """Milliseconds since the epoch."""
    value: Any
    type: str
    """float, int, str or json."""


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
    environment: dict[str, Any]
    facts: dict[str, Any]
    task_runs: list[TaskRunView]
    """All task runs as a tree laid out in lines: each is followed by those that it started."""


class TaskRunLog(View):
    """The log of the latest attempt at a task run."""

    task_run_uid: str
    log_body: str | None
