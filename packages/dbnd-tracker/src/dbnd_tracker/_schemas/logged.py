"""Calls about what tasks log: metrics, artifacts, targets, datasets and exceptions of the client."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field

from dbnd.tracking import LARGEST_STEP
from dbnd_tracker._schemas.fields import (
    Body,
    DataSchema,
    Dimensions,
    Flag,
    Integer,
    Json,
    JsonObject,
    Many,
    Name,
    Omittable,
    Real,
    Source,
    Text,
    Time,
    Uid,
    Value,
)

MAX_TRACE: Final = 20_000
"""Longest stack trace of an error inside a client that is kept, in characters: a thousand are read at once."""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _end(trace: str) -> str:
    """The end of a stack trace, which says what went wrong."""
    return trace[-MAX_TRACE:]


TargetOperation = Annotated[
    Literal["init", "read", "write", "reuse", "log", "log_hist", "delete"], BeforeValidator(_lower)
]
DatasetOperation = Annotated[Literal["read", "write", "delete"], BeforeValidator(_lower)]
OperationStatus = Literal["OK", "NOK"]


class Metric(Body):
    """One point; ``step``, ``text`` and ``deleted`` are extensions that other trackers ignore.

    Args:
        step: Training step.
        text: The whole text of a param or tag, where ``value_str`` is cut.
        deleted: The tag is taken back.
    """

    key: Name
    timestamp: Time | None = None
    value: Value = None
    value_int: Integer | None = None
    value_float: Real | None = None
    value_str: Text | None = None
    value_json: Value = None
    text: Text | None = None
    deleted: Flag | None = None
    source: Text | None = None
    step: Annotated[Integer, Field(ge=-LARGEST_STEP - 1, le=LARGEST_STEP)] | None = None

    def chosen(self) -> object:
        """The value, by the precedence of the original: float, int, JSON, text; else the plain ``value``."""
        members = (self.value_float, self.value_int, self.value_json, self.value_str)
        return next((value for value in members if value is not None), self.value)


class MetricInfo(Body):
    """A metric and the attempt that logged it; also the body of ``log_metric``."""

    task_run_attempt_uid: Uid
    metric: Metric
    source: Text | None = None
    target_meta_uid: Uid | None = None


class LogMetrics(Body):
    """Body of ``log_metrics``."""

    metrics_info: Many[MetricInfo]


class LogArtifact(Body):
    """Body of ``log_artifact``."""

    task_run_attempt_uid: Uid
    name: Name
    path: Text


class TargetLogged(Body):
    """An input that was read or an output that was written."""

    run_uid: Uid
    task_run_uid: Uid
    task_run_attempt_uid: Uid
    task_run_name: Omittable[Text] = None
    target_path: Text
    param_name: Text | None = None
    task_def_uid: Uid | None = None
    operation_type: TargetOperation
    operation_status: Omittable[OperationStatus] = None
    value_preview: Text | None = None
    data_dimensions: Dimensions = None
    data_schema: DataSchema = None
    data_hash: Text | None = None


class LogTargets(Body):
    """Body of ``log_targets``."""

    targets_info: Many[TargetLogged]


class ColumnStats(Body):
    """Statistics of one column; clients leave out what they have not computed."""

    column_name: Text
    column_type: Text
    records_count: Integer
    distinct_count: Integer | None = None
    null_count: Integer | None = None
    non_null_count: Integer | None = None
    null_percent: Real | None = None
    unique_count: Integer | None = None
    most_freq_value: Json = Field(default=None, validation_alias=AliasChoices("most_freq_value", "top_value"))
    most_freq_value_count: Integer | None = Field(
        default=None, validation_alias=AliasChoices("most_freq_value_count", "top_freq_count")
    )
    mean_value: Real | None = None
    min_value: Json = None
    max_value: Json = None
    std_value: Real | None = None
    quartile_1: Json = None
    quartile_2: Json = None
    quartile_3: Json = None


class DatasetLogged(Body):
    """An operation on a dataset; ``name`` and ``digest`` are extensions that other trackers ignore."""

    run_uid: Uid
    task_run_uid: Uid
    task_run_attempt_uid: Uid
    task_run_name: Text
    operation_path: Text | None
    operation_type: DatasetOperation
    operation_status: OperationStatus
    operation_error: Text | None = None
    operation_source: Text | None = None
    timestamp: Time | None = None
    value_preview: Text | None
    data_dimensions: Dimensions
    data_schema: DataSchema
    columns_stats: Many[ColumnStats] = Field(default_factory=list)
    query: Text | None = None
    dataset_uri: Text | None = None
    with_partition: Flag | None = None
    name: Text | None = None
    digest: Text | None = None
    context: Text | None = None

    @property
    def schema_and_version(self) -> dict[str, Any] | None:
        """The schema with name, digest and context, as it is kept; clients of 2.0 wrote some there themselves."""
        given = {"name": self.name, "digest": self.digest, "context": self.context}
        version = {key: value for key, value in given.items() if value}
        return {**(self.data_schema or {}), **version} if version else self.data_schema


class LogDatasets(Body):
    """Body of ``log_datasets``."""

    datasets_info: Many[DatasetLogged]


class LogDbtMetadata(Body):
    """Body of ``log_dbt_metadata``: what dbt says of its run, as a free object."""

    task_run_attempt_uid: Uid
    dbt_run_metadata: JsonObject


class AirflowTaskInfo(Body):
    """Which task of Airflow an attempt is."""

    execution_date: Time
    dag_id: Text
    task_id: Text
    task_run_attempt_uid: Uid
    last_sync: Time | None = None
    retry_number: Integer | None = None


class SaveAirflowTaskInfos(Body):
    """Body of ``save_airflow_task_infos``."""

    airflow_task_infos: Many[AirflowTaskInfo]
    source: Source = None
    base_url: Text | None = None


class LogException(Body):
    """Body of ``log_exception``: an error inside a client."""

    dbnd_version: Name | None = None
    source: Name | None = None
    stack_trace: Annotated[Text, AfterValidator(_end)] | None = None
    timestamp: Time | None = None
