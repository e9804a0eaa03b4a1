"""Schemas of older versions, with data in them, brought up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from kit import first_schema
from sqlalchemy import Engine, create_engine, make_url, text

from dbnd_tracker._queries.language.grammar import parse_expression
from dbnd_tracker._queries.table.run_table import list_runs
from dbnd_tracker._storage import migrations
from dbnd_tracker._storage.base import Base

RUN, TASK, ATTEMPT, ORPHAN = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "1234")


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    return create_engine(parsed if parsed.drivername == "sqlite" else parsed.set(drivername="postgresql+psycopg"))


def _differences(url: str) -> list[Any]:
    """What is not as the models say."""
    engine = _engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, Base.metadata)
    engine.dispose()
    return list(found)


def test_a_new_database_is_what_the_models_say(tracker: Any, database_url: str) -> None:
    del tracker
    assert _differences(database_url) == []


@pytest.fixture
def first_url(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Any:
    """A database of the first schema: two runs' worth of rows, and more points than fit one page."""
    is_sqlite = database_url.startswith("sqlite")
    url = f"sqlite:///{tmp_path / 'first.db'}" if is_sqlite else request.getfixturevalue("postgresql").create()
    engine = _engine(url)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        first_schema.create(Operations(context))
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        for statement in _FIRST.split(";\n")[:-1]:
            connection.execute(text(statement))
        points = [
            {"id": i, "series": 1 + i % 2, "step": i, "time": 1000 * i, "value": i / 4, "kind": 0}
            for i in range(1, 3001)
        ]
        points.append({"id": 3001, "series": 3, "step": None, "time": 5, "value": None, "kind": 2})
        points.append({"id": 3002, "series": 3, "step": None, "time": 6, "value": 1.0, "kind": 1})
        # The highest step came first, and is not the latest.
        points.append({"id": 3003, "series": 4, "step": 10, "time": 5, "value": 0.1, "kind": 0})
        points.append({"id": 3004, "series": 4, "step": 5, "time": 6, "value": 0.9, "kind": 0})
        connection.execute(
            text(
                "INSERT INTO metrics (id, series_id, step, timestamp_us, value, kind) "
                "VALUES (:id, :series, :step, :time, :value, :kind)"
            ),
            points,
        )
        connection.execute(text("INSERT INTO metric_texts (metric_id, text) VALUES (3001, :text)"), {"text": "a\t"})
    engine.dispose()
    yield url
    if not is_sqlite:
        request.getfixturevalue("postgresql").drop(url)


_FIRST = f"""
INSERT INTO alembic_version VALUES ('0001');
INSERT INTO runs (id, uid, root_run_uid, job_name, name, state, start_time, is_archived, sends_heartbeat)
    VALUES (7, '{RUN}', '{RUN}', 'etl', 'old', 'success', '2026-01-02 03:04:05', FALSE, FALSE);
INSERT INTO task_runs (id, uid, run_uid, name, is_root, is_system, is_reused, is_skipped, is_dynamic)
    VALUES (1, '{TASK}', '{RUN}', 'train', TRUE, FALSE, FALSE, FALSE, FALSE);
INSERT INTO attempts (id, uid, task_run_uid, state, external_links)
    VALUES (1, '{ATTEMPT}', '{TASK}', 'success', '{{"mlflow": "http://mlflow/#/experiments/1/runs/0a1b2c"}}');
INSERT INTO attempts (id, uid) VALUES (2, '{ORPHAN}');
INSERT INTO params (attempt_id, source, name, value) VALUES (1, 'task', 'lr', '0.1');
INSERT INTO metric_keys (id, name) VALUES (1, 'loss'), (2, 'acc'), (3, 'note');
INSERT INTO metric_series (id, attempt_id, key_id, source, points, last_timestamp_us, last_kind, last_value, only_ints)
    VALUES (1, 1, 1, 'user', 1500, 3000000, 0, 750.0, FALSE), (2, 1, 2, 'user', 1500, 2999000, 0, 749.75, FALSE),
        (3, 1, 3, 'user', 2, 6, 1, 1.0, FALSE), (4, 2, 1, 'user', 0, NULL, NULL, NULL, TRUE);
"""


def test_data_of_the_first_schema_is_kept(first_url: str, open_tracker: Any, make_run: Any) -> None:
    tracker = open_tracker(first_url)

    run = make_run()
    run.uid = RUN
    task = run.task()
    task.uid, task.attempt = TASK, ATTEMPT
    assert tracker.run(run).name == "old"
    assert [(p.step, p.value) for p in tracker.history(task, "loss")] == [(i, i / 4) for i in range(2, 3001, 2)]
    assert [(p.step, p.value) for p in tracker.history(task, "acc")] == [(i, i / 4) for i in range(1, 3001, 2)]
    assert [p.value for p in tracker.history(task, "note")] == ["a\t", 1]
    assert [(m.key, m.points) for m in tracker.task(task).metrics] == [("acc", 1500), ("loss", 1500), ("note", 2)]
    # Points go on where they ended.
    tracker.call("log_metrics", task.floats("note", 2))
    assert [p.value for p in tracker.history(task, "note")] == ["a\t", 1, 0.0, 1.0]
    with tracker.database.read() as session:
        assert [tuple(row) for row in session.execute(text("SELECT uid, run_id FROM attempts ORDER BY id"))] == [
            (ATTEMPT, 7),
            (ORPHAN, None),
        ]


def test_a_database_that_was_migrated_is_what_the_models_say(first_url: str, open_tracker: Any) -> None:
    open_tracker(first_url)
    assert _differences(first_url) == []


def test_last_values_of_older_schemas_become_mlflows(first_url: str, open_tracker: Any) -> None:
    tracker = open_tracker(first_url)
    with tracker.database.read() as session:
        found = session.execute(text("SELECT points, last_value, last_step, latest_us FROM metric_series WHERE id = 4"))
        assert [tuple(row) for row in found] == [(2, 0.1, 10, 6)]


def test_runs_of_older_schemas_are_found_by_the_id_of_their_mlflow_run(first_url: str, open_tracker: Any) -> None:
    tracker = open_tracker(first_url)
    with tracker.database.read() as session:
        for condition in ("mlflow_run_id = '0a1b2c'", "mlflow_run_id like '0a1b%'"):
            (row,) = list_runs(session, parse_expression(condition)).data
            assert (row.run_uid, row.mlflow_run_id, row.nested_in) == (RUN, "0a1b2c", [])


def test_a_migration_that_fails_leaves_the_old_schema(first_url: str, open_tracker: Any, monkeypatch: Any) -> None:
    def fail(op: Any) -> None:
        migrations.narrow_points(op)
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setitem(migrations.STEPS, "0002", fail)
        with pytest.raises(Exception, match="the disk is full"):
            open_tracker(first_url)

    engine = _engine(first_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0001"
        assert connection.scalar(text("SELECT count(*) FROM metrics")) == 3004
        assert connection.scalar(text("SELECT max(id) FROM metrics")) == 3004
    engine.dispose()
    open_tracker(first_url)
