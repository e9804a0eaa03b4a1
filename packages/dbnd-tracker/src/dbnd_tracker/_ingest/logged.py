"""Calls about artifacts, targets and datasets, and exceptions of clients."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from dbnd_tracker._models import Artifact, DatasetOperation, Target

if TYPE_CHECKING:
    from dbnd_tracker._schemas.logged import LogArtifact, LogDatasets, LogException, LogTargets
    from dbnd_tracker._writer import Writer

_NAMESPACE: Final = uuid.UUID("7d3f8f0e-5a06-5f0c-9a0b-3b1f5f0f4b52")


def _uid(*parts: str | None) -> str:
    """The same uid for the same parts, so that what is said again replaces what was said before."""
    return str(uuid.uuid5(_NAMESPACE, repr(parts)))


def log_artifact(writer: Writer, body: LogArtifact) -> object:
    """Note an artifact; one of the same name is replaced."""
    row = {"attempt_id": writer.attempt_id(body.task_run_attempt_uid), "name": body.name, "path": body.path}
    writer.upsert(Artifact, [row], "attempt_id", "name")
    return {}


def log_targets(writer: Writer, body: LogTargets) -> object:
    """Note inputs and outputs; the same operation on the same target is replaced."""
    ids = writer.attempt_ids({info.task_run_attempt_uid for info in body.targets_info})
    rows = [
        {
            "uid": _uid(info.task_run_attempt_uid, info.param_name, info.target_path, info.operation_type.value),
            "attempt_id": ids[info.task_run_attempt_uid],
            "param_name": info.param_name,
            "path": info.target_path,
            "operation_type": info.operation_type.value,
            "operation_status": info.operation_status.value,
            "value_preview": info.value_preview,
            "data_dimensions": info.data_dimensions,
            "data_schema": info.data_schema,
            "data_hash": info.data_hash,
        }
        for info in body.targets_info
    ]
    writer.upsert(Target, rows, "uid")
    return {}


def log_datasets(writer: Writer, body: LogDatasets) -> object:
    """Note operations on datasets; the same operation of an attempt on the same dataset is replaced."""
    ids = writer.attempt_ids({info.task_run_attempt_uid for info in body.datasets_info})
    rows = [
        {
            "uid": _uid(info.task_run_attempt_uid, info.operation_path, info.operation_type.value),
            "attempt_id": ids[info.task_run_attempt_uid],
            "path": info.operation_path,
            "operation_type": info.operation_type.value,
            "operation_status": info.operation_status.value,
            "operation_source": info.operation_source,
            "error": info.operation_error,
            "timestamp": info.timestamp or writer.now,
            "value_preview": info.value_preview,
            "data_dimensions": info.data_dimensions,
            "data_schema": info.data_schema,
            "columns_stats": info.columns_stats,
            "query": info.query,
            "dataset_uri": info.dataset_uri,
            "with_partition": info.with_partition,
        }
        for info in body.datasets_info
    ]
    writer.upsert(DatasetOperation, rows, "uid")
    return {}


def log_exception(writer: Writer, body: LogException) -> object:
    """Accept an exception of a client; it says nothing about a run, so nothing is kept."""
    del writer, body
    return {}
