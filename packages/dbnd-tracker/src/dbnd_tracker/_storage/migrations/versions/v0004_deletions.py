"""Ids that are never used twice, a record of what was deleted, and last values by step, time and value."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0004"
down_revision = "0003"

_UID = sa.String(length=36)
# Tables whose ids other tables, caches and cursors refer to.
_TABLES = ("attempts", "metric_keys", "metric_series", "runs", "task_definitions", "task_runs")
_LAST = ("last_timestamp_us", "last_step", "last_kind", "last_value", "last_text")


def upgrade(op: Operations) -> None:
    """Apply the change. Points that stand there twice stay: which of them were logged twice is not known any more."""
    op.create_table(
        "deleted",
        sa.Column("uid", _UID, nullable=False),
        sa.Column("run_uid", _UID, nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dropped", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("uid", name="pk_deleted"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_deleted_run_uid", "deleted", ["run_uid"])
    op.add_column("metric_series", sa.Column("latest_us", sa.BigInteger()))
    _find_last_values(op)
    if op.get_bind().dialect.name == "sqlite":
        for table in _TABLES:
            with op.batch_alter_table(table, recreate="always", table_kwargs={"sqlite_autoincrement": True}):
                pass


def _find_last_values(op: Operations) -> None:
    """Of equal numbers the first, of equal texts the last one that came, as they are added to the sums since."""
    op.execute(
        f"UPDATE metric_series SET ({', '.join(_LAST)}) = ("  # noqa: S608  names of columns
        "SELECT timestamp_us, step, kind, value, text FROM metrics WHERE series_id = metric_series.id "
        "ORDER BY coalesce(step, 0) DESC, timestamp_us DESC, coalesce(value, 0) DESC, "
        "CASE WHEN kind < 2 THEN -number ELSE number END DESC LIMIT 1)"
    )
    op.execute(
        "UPDATE metric_series SET latest_us = "
        "(SELECT max(timestamp_us) FROM metrics WHERE series_id = metric_series.id)"
    )
