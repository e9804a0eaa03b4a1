"""Points without a number of their own; attempts that know their run; indexes for lists of runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade(op: Operations) -> None:
    """Apply the change."""
    _narrow_points(op)
    op.add_column("attempts", sa.Column("run_id", _ID))
    op.execute(
        "UPDATE attempts SET run_id = (SELECT runs.id FROM task_runs JOIN runs ON runs.uid = task_runs.run_uid "
        "WHERE task_runs.uid = attempts.task_run_uid)"
    )
    op.create_index("ix_attempts_run_id", "attempts", ["run_id"])
    for column in ("job_name", "project_name"):
        op.drop_index(f"ix_runs_{column}_start_time", "runs")
    for column in ("job_name", "project_name", "state", "user_name"):
        op.create_index(f"ix_runs_{column}_start_time_id", "runs", [column, "start_time", "id"])
    op.create_index("ix_metric_series_key_id_last_value", "metric_series", ["key_id", "last_value"])
    op.create_index("ix_params_name_attempt_id", "params", ["name", "attempt_id"])


def _narrow_points(op: Operations) -> None:
    """Number the points of each series in the order in which they came, and keep their texts with them."""
    op.rename_table("metrics", "metrics_0001")
    if op.get_bind().dialect.name == "postgresql":  # where names of constraints are those of indexes, used once only
        op.execute("ALTER TABLE metrics_0001 RENAME CONSTRAINT pk_metrics TO pk_metrics_0001")
    op.create_table(
        "metrics",
        sa.Column("series_id", _ID, autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger()),
        sa.Column("timestamp_us", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("text", sa.Text()),
        sa.PrimaryKeyConstraint("series_id", "number", name="pk_metrics"),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO metrics (series_id, number, step, timestamp_us, value, kind, text) "
        "SELECT series_id, row_number() OVER (PARTITION BY series_id ORDER BY id), "
        "step, timestamp_us, value, kind, text "
        "FROM metrics_0001 LEFT JOIN metric_texts ON metric_texts.metric_id = metrics_0001.id "
        "ORDER BY series_id, id"
    )
    op.drop_table("metric_texts")
    op.drop_table("metrics_0001")
    op.execute(
        "UPDATE metric_series SET points = (SELECT coalesce(max(number), 0) FROM metrics "
        "WHERE metrics.series_id = metric_series.id)"
    )
