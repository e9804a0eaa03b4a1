"""The history of the schema: what brings the database of an older version up to date.

A new database gets the tables of ``models`` at once. Of Alembic only the operations are used. Its ``env.py`` keeps the
migration that runs in module globals, and the embedded tracker migrates in the sender's thread while MLflow may migrate
the user's own store in the main thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from dbnd import ConfigError
from dbnd_tracker._storage.models import Run, linked_mlflow_run
from dbnd_tracker._storage.points.models import Segment
from dbnd_tracker._storage.points.partitions import divide
from dbnd_tracker._storage.saved_views import SavedView

if TYPE_CHECKING:
    from alembic.operations import Operations

VERSION_TABLE: Final = "alembic_version"
_ROWS_AT_ONCE: Final = 1_000
_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _create(op: Operations, *tables: str) -> None:
    """Create tables as the models have them; one that a later step changes must be spelled out as it was then."""
    Run.metadata.create_all(op.get_bind(), [Run.metadata.tables[name] for name in tables], checkfirst=False)


def narrow_points(op: Operations) -> None:
    """Points without an id of their own; attempts that know their run; indexes for lists of runs."""
    op.rename_table("metrics", "metrics_0001")
    if op.get_bind().dialect.name == "postgresql":  # where names of constraints are those of indexes, used once only
        op.execute("ALTER TABLE metrics_0001 RENAME CONSTRAINT pk_metrics TO pk_metrics_0001")
    _create(op, "metrics")
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


def add_access(op: Operations) -> None:
    """Tokens and sessions; errors of clients, scheduled jobs, documents of attempts, facts of task runs."""
    _create(op, "access_tokens", "access_sessions", "client_errors", "scheduled_jobs", "attempt_documents")
    op.add_column("task_runs", sa.Column("facts", sa.JSON))
    for table in ("dataset_operations", "targets"):  # of whole paths, however long: a hash index of PostgreSQL
        op.create_index(f"ix_{table}_path", table, ["path"], postgresql_using="hash")


def record_deletions(op: Operations) -> None:
    """Ids that are never used twice, a record of what was deleted, and last values by step, time and value.

    Points that stand there twice stay: which of them were logged twice is not known any more.
    """
    _create(op, "deleted")
    op.add_column("metric_series", sa.Column("latest_us", sa.BigInteger))
    # Of equal numbers the first, of equal texts the last one that came, as they are added to the sums since.
    op.execute(
        "UPDATE metric_series SET (last_timestamp_us, last_step, last_kind, last_value, last_text) = ("
        "SELECT timestamp_us, step, kind, value, text FROM metrics WHERE series_id = metric_series.id "
        "ORDER BY coalesce(step, 0) DESC, timestamp_us DESC, coalesce(value, 0) DESC, "
        "CASE WHEN kind < 2 THEN -number ELSE number END DESC LIMIT 1)"
    )
    op.execute(
        "UPDATE metric_series SET latest_us = "
        "(SELECT max(timestamp_us) FROM metrics WHERE series_id = metric_series.id)"
    )
    if op.get_bind().dialect.name == "sqlite":
        for table in ("attempts", "metric_keys", "metric_series", "runs", "task_definitions", "task_runs"):
            with op.batch_alter_table(table, recreate="always", table_kwargs={"sqlite_autoincrement": True}):
                pass


def name_mlflow_runs(op: Operations) -> None:
    """Attempts that know their MLflow run, and an index by which its name and its experiment are found."""
    op.add_column("attempts", sa.Column("mlflow_run_id", sa.String(64)))
    connection = op.get_bind()
    linked = sa.table("attempts", sa.column("id"), sa.column("external_links", sa.JSON), sa.column("mlflow_run_id"))
    after = 0
    while rows := connection.execute(
        sa.select(linked.c.id, linked.c.external_links)
        .where(linked.c.id > after, linked.c.external_links.is_not(None))
        .order_by(linked.c.id)
        .limit(_ROWS_AT_ONCE)
    ).all():
        after = rows[-1].id
        found = [{"row": row.id, "run": run} for row in rows if (run := linked_mlflow_run(row.external_links))]
        if found:
            change = sa.update(linked).where(linked.c.id == sa.bindparam("row"))
            connection.execute(change.values(mlflow_run_id=sa.bindparam("run")), found)
    op.create_index("ix_attempts_mlflow_run_id", "attempts", ["mlflow_run_id"])
    op.create_index("ix_tags_name_attempt_id", "tags", ["name", "attempt_id"])


def add_saved_views(op: Operations) -> None:
    """Views: addresses that were saved under a name."""
    _create(op, SavedView.__tablename__)


def seal_points(op: Operations) -> None:
    """Segments; what is in rows is sealed in the background, once the tracker is served."""
    _create(op, Segment.__tablename__)
    op.add_column("metric_series", sa.Column("sealed", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("is_sealed", sa.Boolean, nullable=False, server_default=sa.false()))
    where = sa.text("NOT is_sealed")
    op.create_index("ix_runs_unsealed", "runs", ["id"], sqlite_where=where, postgresql_where=where)


STEPS: Final = {
    "0002": narrow_points,
    "0003": add_access,
    "0004": record_deletions,
    "0005": name_mlflow_runs,
    "0006": add_saved_views,
    "0007": seal_points,
}
"""What leads to each revision of the schema from the one before it, oldest first; the first schema was 0001."""
REVISIONS: Final = ("0001", *STEPS)
CURRENT: Final = REVISIONS[-1]


def revision_of(connection: sa.Connection, database: str) -> str | None:
    """The revision of a database's schema, None without tables; ConfigError where it is newer, or another program's."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
    if revision in REVISIONS:
        return revision
    raise ConfigError(
        f"The database {database} has the schema {revision}, and this version of dbnd-tracker knows only those up "
        f"to {CURRENT}: install a newer dbnd-tracker, or name another database."
    )


def upgrade(connection: sa.Connection, revision: str | None, partitions: int = 1) -> None:
    """Bring the schema up to date within the transaction that ``connection`` is in.

    A database without tables of ours has no ``revision``, and gets so many ``partitions`` of the tables of points.
    """
    if revision is None:
        Run.metadata.create_all(connection, checkfirst=False)
        divide(connection, partitions)
        connection.execute(sa.text(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(sa.text(f"INSERT INTO {VERSION_TABLE} VALUES ('{CURRENT}')"))  # noqa: S608
        return
    from alembic.operations import Operations  # a third of a second, and seldom needed
    from alembic.runtime.migration import MigrationContext

    op = Operations(MigrationContext.configure(connection))
    for step in REVISIONS[REVISIONS.index(revision) + 1 :]:
        STEPS[step](op)
    connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '{CURRENT}'"))  # noqa: S608
