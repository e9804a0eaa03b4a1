"""The tables of the first schema, which the tracker makes no more and brings up to date."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_UID = sa.String(length=36)
_NAME = sa.String(length=500)
_TIME = sa.DateTime(timezone=True)


def create(op: Operations) -> None:
    """Create the tables."""
    op.create_table(
        "attempts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", _UID, nullable=False),
        sa.Column("task_run_uid", _UID),
        sa.Column("number", sa.Integer()),
        sa.Column("state", sa.String(length=32)),
        sa.Column("start_time", _TIME),
        sa.Column("end_time", _TIME),
        sa.Column("error", sa.JSON()),
        sa.Column("external_links", sa.JSON()),
        sa.Column("log_body", sa.Text()),
        sa.Column("log_path", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.UniqueConstraint("uid", name="uq_attempts_uid"),
    )
    op.create_index("ix_attempts_task_run_uid", "attempts", ["task_run_uid"])
    op.create_table(
        "batches",
        sa.Column("journal", sa.String(length=32), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("applied_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("journal", name="pk_batches"),
    )
    op.create_table(
        "metric_keys",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_metric_keys"),
        sa.UniqueConstraint("name", name="uq_metric_keys_name"),
    )
    op.create_table(
        "runs",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", _UID, nullable=False),
        sa.Column("root_run_uid", _UID),
        sa.Column("job_name", _NAME),
        sa.Column("project_name", _NAME),
        sa.Column("name", _NAME),
        sa.Column("user_name", _NAME),
        sa.Column("description", sa.Text()),
        sa.Column("state", sa.String(length=32)),
        sa.Column("start_time", _TIME, nullable=False),
        sa.Column("end_time", _TIME),
        sa.Column("execution_date", _TIME),
        sa.Column("source", sa.String(length=64)),
        sa.Column("is_archived", sa.Boolean(), nullable=False),
        sa.Column("sends_heartbeat", sa.Boolean(), nullable=False),
        sa.Column("last_heartbeat", _TIME),
        sa.Column("driver_task_run_uid", _UID),
        sa.Column("parent_task_run_uid", _UID),
        sa.Column("environment", sa.JSON()),
        sa.Column("facts", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("uid", name="uq_runs_uid"),
    )
    op.create_index("ix_runs_job_name_start_time", "runs", ["job_name", "start_time"])
    op.create_index("ix_runs_name", "runs", ["name"])
    op.create_index("ix_runs_parent_task_run_uid", "runs", ["parent_task_run_uid"])
    op.create_index("ix_runs_project_name_start_time", "runs", ["project_name", "start_time"])
    op.create_index("ix_runs_root_run_uid", "runs", ["root_run_uid"])
    op.create_index("ix_runs_start_time_id", "runs", ["start_time", "id"])
    op.create_table(
        "task_definitions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", _UID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text()),
        sa.Column("source_hash", sa.Text()),
        sa.Column("module_source", sa.Text()),
        sa.Column("module_source_hash", sa.Text()),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_task_definitions"),
        sa.UniqueConstraint("uid", name="uq_task_definitions_uid"),
    )
    op.create_table(
        "task_relations",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("from_uid", _UID, nullable=False),
        sa.Column("to_uid", _UID, nullable=False),
        sa.PrimaryKeyConstraint("kind", "from_uid", "to_uid", name="pk_task_relations"),
    )
    op.create_index("ix_task_relations_to_uid", "task_relations", ["to_uid"])
    op.create_table(
        "task_runs",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", _UID, nullable=False),
        sa.Column("run_uid", _UID),
        sa.Column("task_definition_uid", _UID),
        sa.Column("name", sa.Text()),
        sa.Column("task_id", sa.Text()),
        sa.Column("task_af_id", sa.Text()),
        sa.Column("task_signature", sa.Text()),
        sa.Column("is_root", sa.Boolean(), nullable=False),
        sa.Column("is_system", sa.Boolean(), nullable=False),
        sa.Column("is_reused", sa.Boolean(), nullable=False),
        sa.Column("is_skipped", sa.Boolean(), nullable=False),
        sa.Column("is_dynamic", sa.Boolean(), nullable=False),
        sa.Column("execution_date", _TIME),
        sa.Column("version", sa.Text()),
        sa.Column("command_line", sa.Text()),
        sa.Column("functional_call", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_task_runs"),
        sa.UniqueConstraint("uid", name="uq_task_runs_uid"),
    )
    op.create_index("ix_task_runs_run_uid", "task_runs", ["run_uid"])
    op.create_table(
        "artifacts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("attempt_id", _ID, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_artifacts_attempt_id"),
        sa.PrimaryKeyConstraint("id", name="pk_artifacts"),
        sa.UniqueConstraint("attempt_id", "name", name="uq_artifacts_attempt_id_name"),
    )
    op.create_table(
        "dataset_operations",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", _UID, nullable=False),
        sa.Column("attempt_id", _ID, nullable=False),
        sa.Column("path", sa.Text()),
        sa.Column("operation_type", sa.String(length=16), nullable=False),
        sa.Column("operation_status", sa.String(length=16), nullable=False),
        sa.Column("operation_source", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("timestamp", _TIME, nullable=False),
        sa.Column("value_preview", sa.Text()),
        sa.Column("data_dimensions", sa.JSON()),
        sa.Column("data_schema", sa.JSON()),
        sa.Column("columns_stats", sa.JSON()),
        sa.Column("query", sa.Text()),
        sa.Column("dataset_uri", sa.Text()),
        sa.Column("with_partition", sa.Boolean()),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_dataset_operations_attempt_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_operations"),
        sa.UniqueConstraint("uid", name="uq_dataset_operations_uid"),
    )
    op.create_index("ix_dataset_operations_attempt_id", "dataset_operations", ["attempt_id"])
    op.create_table(
        "metric_series",
        sa.Column("id", _ID, nullable=False),
        sa.Column("attempt_id", _ID, nullable=False),
        sa.Column("key_id", _ID, nullable=False),
        sa.Column("source", sa.String(length=64)),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("last_timestamp_us", sa.BigInteger()),
        sa.Column("last_step", sa.BigInteger()),
        sa.Column("last_kind", sa.SmallInteger()),
        sa.Column("last_value", sa.Double()),
        sa.Column("last_text", sa.Text()),
        sa.Column("min_value", sa.Double()),
        sa.Column("max_value", sa.Double()),
        sa.Column("only_ints", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_metric_series_attempt_id"),
        sa.ForeignKeyConstraint(["key_id"], ["metric_keys.id"], name="fk_metric_series_key_id"),
        sa.PrimaryKeyConstraint("id", name="pk_metric_series"),
        sa.UniqueConstraint("attempt_id", "key_id", name="uq_metric_series_attempt_id_key_id"),
    )
    op.create_table(
        "params",
        sa.Column("id", _ID, nullable=False),
        sa.Column("attempt_id", _ID, nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("value", sa.Text()),
        sa.Column("origin", sa.Text()),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_params_attempt_id"),
        sa.PrimaryKeyConstraint("id", name="pk_params"),
        sa.UniqueConstraint("attempt_id", "source", "name", name="uq_params_attempt_id_source_name"),
    )
    op.create_table(
        "tags",
        sa.Column("id", _ID, nullable=False),
        sa.Column("attempt_id", _ID, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("value", sa.Text()),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_tags_attempt_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tags"),
        sa.UniqueConstraint("attempt_id", "name", name="uq_tags_attempt_id_name"),
    )
    op.create_table(
        "targets",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", _UID, nullable=False),
        sa.Column("attempt_id", _ID, nullable=False),
        sa.Column("param_name", sa.Text()),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("operation_type", sa.String(length=16), nullable=False),
        sa.Column("operation_status", sa.String(length=16)),
        sa.Column("value_preview", sa.Text()),
        sa.Column("data_dimensions", sa.JSON()),
        sa.Column("data_schema", sa.JSON()),
        sa.Column("data_hash", sa.Text()),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_targets_attempt_id"),
        sa.PrimaryKeyConstraint("id", name="pk_targets"),
        sa.UniqueConstraint("uid", name="uq_targets_uid"),
    )
    op.create_index("ix_targets_attempt_id", "targets", ["attempt_id"])
    op.create_table(
        "metrics",
        sa.Column("id", _ID, nullable=False),
        sa.Column("series_id", _ID, nullable=False),
        sa.Column("step", sa.BigInteger()),
        sa.Column("timestamp_us", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["metric_series.id"], name="fk_metrics_series_id"),
        sa.PrimaryKeyConstraint("id", name="pk_metrics"),
    )
    op.create_index("ix_metrics_series_id_id", "metrics", ["series_id", "id"])
    op.create_table(
        "metric_texts",
        sa.Column("metric_id", _ID, autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["metric_id"], ["metrics.id"], name="fk_metric_texts_metric_id"),
        sa.PrimaryKeyConstraint("metric_id", name="pk_metric_texts"),
    )
