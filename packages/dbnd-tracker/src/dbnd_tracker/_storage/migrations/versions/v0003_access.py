"""Tokens and sessions; errors of clients, scheduled jobs, documents of attempts, facts of task runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0003"
down_revision = "0002"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_UID = sa.String(length=36)
_HASH = sa.String(length=64)
_TIME = sa.DateTime(timezone=True)


def upgrade(op: Operations) -> None:
    """Apply the change."""
    op.create_table(
        "access_tokens",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", _UID, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("hash", _HASH, nullable=False),
        sa.Column("guards", sa.Boolean(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_access_tokens"),
        sa.UniqueConstraint("uid", name="uq_access_tokens_uid"),
        sa.UniqueConstraint("hash", name="uq_access_tokens_hash"),
    )
    op.create_table(
        "access_sessions",
        sa.Column("hash", _HASH, nullable=False),
        sa.Column("token_hash", _HASH, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_access_sessions"),
    )
    op.create_index("ix_access_sessions_token_hash", "access_sessions", ["token_hash"])
    op.create_table(
        "client_errors",
        sa.Column("id", _ID, nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("timestamp", _TIME),
        sa.Column("dbnd_version", sa.Text()),
        sa.Column("source", sa.Text()),
        sa.Column("stack_trace", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_client_errors"),
    )
    op.create_table(
        "scheduled_jobs",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", _UID, nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_scheduled_jobs"),
        sa.UniqueConstraint("uid", name="uq_scheduled_jobs_uid"),
    )
    op.create_index("ix_scheduled_jobs_name", "scheduled_jobs", ["name"])
    op.create_table(
        "attempt_documents",
        sa.Column("id", _ID, nullable=False),
        sa.Column("attempt_id", _ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_attempt_documents"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_attempt_documents_attempt_id"),
        sa.UniqueConstraint("attempt_id", "kind", name="uq_attempt_documents_attempt_id_kind"),
    )
    op.add_column("task_runs", sa.Column("facts", sa.JSON()))
    for table in ("dataset_operations", "targets"):  # of whole paths, however long: a hash index of PostgreSQL
        op.create_index(f"ix_{table}_path", table, ["path"], postgresql_using="hash")
