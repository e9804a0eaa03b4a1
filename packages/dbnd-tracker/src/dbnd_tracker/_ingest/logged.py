"""Calls about artifacts, targets and datasets, and exceptions of clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import delete

from dbnd_tracker._schemas import logged as bodies
from dbnd_tracker._storage.models import Artifact, AttemptDocument, ClientError, DatasetOperation, Target
from dbnd_tracker._storage.writer import Writer

Info = TypeVar("Info", bound="_OfAttempt")

MAX_CLIENT_ERRORS: Final = 1_000
"""How many errors of clients are kept; the oldest ones make room."""
_NAMESPACE: Final = uuid.UUID("7d3f8f0e-5a06-5f0c-9a0b-3b1f5f0f4b52")
# What an operation says by the names of the columns that keep it.
_OPERATION: Final = {"operation_type", "operation_status", "value_preview", "data_dimensions"}
_TARGET: Final = {*_OPERATION, "param_name", "data_schema", "data_hash"}
_DATASET: Final = {*_OPERATION, "operation_source", "query", "dataset_uri", "with_partition"}


def stable_uid(*facts: str | None) -> str:
    """Uid of what has none on the wire: the same for the same facts, so that what is said again replaces it."""
    return str(uuid.uuid5(_NAMESPACE, repr(facts)))


class _OfAttempt(Protocol):
    """What names an attempt."""

    @property
    def task_run_attempt_uid(self) -> str: ...


def _with_ids(writer: Writer, infos: Sequence[Info]) -> list[tuple[int, Info]]:
    """Those of ``infos`` whose attempts were not deleted, each with the id of its attempt."""
    ids = writer.attempt_ids({info.task_run_attempt_uid for info in infos})
    for info in infos:
        if info.task_run_attempt_uid not in ids:
            writer.deleted.drop(info.task_run_attempt_uid)
    return [(ids[info.task_run_attempt_uid], info) for info in infos if info.task_run_attempt_uid in ids]


def log_artifact(writer: Writer, body: bodies.LogArtifact) -> None:
    """Note an artifact; one of the same name is replaced."""
    rows = [{"attempt_id": each, "name": info.name, "path": info.path} for each, info in _with_ids(writer, [body])]
    writer.upsert(Artifact, rows, "attempt_id", "name")


def log_targets(writer: Writer, body: bodies.LogTargets) -> None:
    """Note inputs and outputs; the same operation on the same target is replaced."""
    rows = [
        {
            "uid": stable_uid(info.task_run_attempt_uid, info.param_name, info.target_path, info.operation_type),
            "attempt_id": attempt_id,
            "path": info.target_path,
            **info.model_dump(include=_TARGET),
        }
        for attempt_id, info in _with_ids(writer, body.targets_info)
    ]
    writer.upsert(Target, rows, "uid")


def log_datasets(writer: Writer, body: bodies.LogDatasets) -> None:
    """Note operations on datasets; the same operation of an attempt on the same dataset is replaced."""
    rows = []
    for attempt_id, info in _with_ids(writer, body.datasets_info):
        schema = info.schema_and_version or {}
        # Of one path several versions may be read.
        version = [str(schema[key]) for key in ("name", "digest") if schema.get(key)]
        row = {
            "uid": stable_uid(info.task_run_attempt_uid, info.operation_path, info.operation_type, *version),
            "attempt_id": attempt_id,
            "path": info.operation_path,
            "error": info.operation_error,
            "timestamp": info.timestamp or writer.now,
            "data_schema": info.schema_and_version,
            "columns_stats": [column.model_dump(exclude_none=True) for column in info.columns_stats],
            **info.model_dump(include=_DATASET),
        }
        rows.append(row)
    writer.upsert(DatasetOperation, rows, "uid")


def log_exception(writer: Writer, body: bodies.LogException) -> None:
    """Keep an error inside a client; of the oldest of too many, nothing."""
    error = ClientError(received_at=writer.now, **body.model_dump())
    writer.session.add(error)
    writer.session.flush()
    writer.session.execute(delete(ClientError).where(ClientError.id <= error.id - MAX_CLIENT_ERRORS))


def log_dbt_metadata(writer: Writer, body: bodies.LogDbtMetadata) -> None:
    """Keep what dbt says of its run; what it said before is replaced."""
    _keep(writer, "dbt", [(each, info.dbt_run_metadata) for each, info in _with_ids(writer, [body])])


def save_airflow_task_infos(writer: Writer, body: bodies.SaveAirflowTaskInfos) -> None:
    """Keep which task of Airflow each attempt is."""
    origin = {"source": body.source, "base_url": body.base_url}
    infos = _with_ids(writer, body.airflow_task_infos)
    _keep(writer, "airflow", [(each, {**info.model_dump(mode="json"), **origin}) for each, info in infos])


def _keep(writer: Writer, kind: str, documents: Iterable[tuple[int, dict[str, Any]]]) -> None:
    # Of one attempt, the last one counts.
    rows = [{"attempt_id": each, "kind": kind, "content": content} for each, content in dict(documents).items()]
    writer.upsert(AttemptDocument, rows, "attempt_id", "kind")
