"""Calls about artifacts, targets and datasets, and exceptions of clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from sqlalchemy import delete

from dbnd_tracker._ingest.uids import dataset_uid, target_uid
from dbnd_tracker._storage.models import Artifact, AttemptDocument, ClientError, DatasetOperation, Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbnd_tracker._schemas.logged import (
        LogArtifact,
        LogDatasets,
        LogDbtMetadata,
        LogException,
        LogTargets,
        SaveAirflowTaskInfos,
    )
    from dbnd_tracker._storage.writer import Writer

    Info = TypeVar("Info", bound="_OfAttempt")

MAX_CLIENT_ERRORS: Final = 1_000
"""How many errors of clients are kept; the oldest ones make room."""


def log_artifact(writer: Writer, body: LogArtifact) -> object:
    """Note an artifact; one of the same name is replaced."""
    infos, ids = _kept(writer, [body])
    rows = [{"attempt_id": ids[info.task_run_attempt_uid], "name": info.name, "path": info.path} for info in infos]
    writer.upsert(Artifact, rows, "attempt_id", "name")
    return {}


def log_targets(writer: Writer, body: LogTargets) -> object:
    """Note inputs and outputs; the same operation on the same target is replaced."""
    infos, ids = _kept(writer, body.targets_info)
    rows = [
        {
            "uid": target_uid(info.task_run_attempt_uid, info.param_name, info.target_path, info.operation_type),
            "attempt_id": ids[info.task_run_attempt_uid],
            "param_name": info.param_name,
            "path": info.target_path,
            "operation_type": info.operation_type,
            "operation_status": info.operation_status,
            "value_preview": info.value_preview,
            "data_dimensions": info.data_dimensions,
            "data_schema": info.data_schema,
            "data_hash": info.data_hash,
        }
        for info in infos
    ]
    writer.upsert(Target, rows, "uid")
    return {}


def log_datasets(writer: Writer, body: LogDatasets) -> object:
    """Note operations on datasets; the same operation of an attempt on the same dataset is replaced."""
    infos, ids = _kept(writer, body.datasets_info)
    rows = [
        {
            "uid": dataset_uid(
                info.task_run_attempt_uid,
                info.operation_path,
                info.operation_type,
                *_version(info.schema_and_version),
            ),
            "attempt_id": ids[info.task_run_attempt_uid],
            "path": info.operation_path,
            "operation_type": info.operation_type,
            "operation_status": info.operation_status,
            "operation_source": info.operation_source,
            "error": info.operation_error,
            "timestamp": info.timestamp or writer.now,
            "value_preview": info.value_preview,
            "data_dimensions": info.data_dimensions,
            "data_schema": info.schema_and_version,
            "columns_stats": [column.model_dump(exclude_none=True) for column in info.columns_stats],
            "query": info.query,
            "dataset_uri": info.dataset_uri,
            "with_partition": info.with_partition,
        }
        for info in infos
    ]
    writer.upsert(DatasetOperation, rows, "uid")
    return {}


def _version(schema: object) -> tuple[str, ...]:
    """Name and digest of a dataset, where its schema says them: of one path several versions may be read."""
    facts = schema if isinstance(schema, dict) else {}
    return tuple(str(facts[key]) for key in ("name", "digest") if facts.get(key))


class _OfAttempt(Protocol):
    """What names an attempt."""

    @property
    def task_run_attempt_uid(self) -> str: ...


def _kept(writer: Writer, infos: Sequence[Info]) -> tuple[list[Info], Mapping[str, int]]:
    """Those of ``infos`` whose attempts were not deleted, and the ids of their attempts by uid."""
    ids = writer.attempt_ids({info.task_run_attempt_uid for info in infos})
    for info in infos:
        if info.task_run_attempt_uid not in ids:
            writer.deleted.drop(info.task_run_attempt_uid)
    return [info for info in infos if info.task_run_attempt_uid in ids], ids


def log_exception(writer: Writer, body: LogException) -> object:
    """Keep an error inside a client; of the oldest of too many, nothing."""
    error = ClientError(received_at=writer.now, **body.model_dump())
    writer.session.add(error)
    writer.session.flush()
    writer.session.execute(delete(ClientError).where(ClientError.id <= error.id - MAX_CLIENT_ERRORS))
    return {}


def log_dbt_metadata(writer: Writer, body: LogDbtMetadata) -> object:
    """Keep what dbt says of its run; what it said before is replaced."""
    infos, ids = _kept(writer, [body])
    _keep(writer, "dbt", {ids[info.task_run_attempt_uid]: info.dbt_run_metadata for info in infos})
    return {}


def save_airflow_task_infos(writer: Writer, body: SaveAirflowTaskInfos) -> object:
    """Keep which task of Airflow each attempt is."""
    origin = {"source": body.source, "base_url": body.base_url}
    infos, ids = _kept(writer, body.airflow_task_infos)
    documents = {ids[info.task_run_attempt_uid]: {**info.model_dump(mode="json"), **origin} for info in infos}
    _keep(writer, "airflow", documents)
    return {}


def _keep(writer: Writer, kind: str, documents: Mapping[int, Mapping[str, object]]) -> None:
    rows = [{"attempt_id": each, "kind": kind, "content": content} for each, content in documents.items()]
    writer.upsert(AttemptDocument, rows, "attempt_id", "kind")
