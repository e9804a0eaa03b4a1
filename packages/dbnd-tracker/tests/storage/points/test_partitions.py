"""The tables of points in parts: PostgreSQL's own, and what Citus asks of tables that it is to distribute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kit.payloads import Tracker
from kit.progress import wait_until
from sqlalchemy import UniqueConstraint, event, inspect, text

from dbnd._base.errors import ConfigError
from dbnd_tracker._queries.points.arrays import SeriesCache
from dbnd_tracker._queries.points.metrics import find_series
from dbnd_tracker._queries.points.series import chart_sample
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.base import Base
from dbnd_tracker._storage.database import open_database
from dbnd_tracker._storage.points.partitions import DIVISION, check_partitions
from dbnd_tracker._storage.upkeep.deletion import delete_runs
from dbnd_tracker._storage.upkeep.sealing import seal_all, seal_ended

POINTS = ("metrics", "segments")
PAGE = Path(__file__).parents[5] / "docs/how-to/size-a-tracker.md"


@pytest.fixture
def empty_url(postgresql: Any) -> Iterator[str]:
    """The URL of a database of PostgreSQL without tables."""
    url = postgresql.create()
    yield url
    postgresql.drop(url)


def _live(tracker: Tracker) -> list[str]:
    """Do with a series whatever is done with points, and return the statements."""
    statements: list[str] = []
    event.listen(tracker.database._engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    run, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 40))
    seal_all(tracker.database)
    points = [task.metric("m", "mlflow", value=i % 3, step=i % 7) for i in range(30)]
    tracker.call("log_metrics", task.metrics(*points))
    tracker.call("log_metrics", task.metrics(*points))
    tracker.call("set_run_state", run.state("SUCCESS"))
    assert seal_ended(tracker.database, timedelta())
    tracker.call("log_metrics", task.floats("m", 3))
    assert len(tracker.history(task, "m")) == 40 + 21  # of points of MLflow each is kept once
    with tracker.database.read() as session:
        series = find_series(session, task.uid, "m")
        assert series is not None
        assert chart_sample(session, SeriesCache(), series, values=10).points == series.points
    assert tracker.database.write(lambda writer: delete_runs(writer.session, [run.uid])) == 1
    return statements


def _used(url: str) -> dict[str, int]:
    """How often each partition was scanned, as the server counts it, and how many rows were inserted."""
    query = (
        "SELECT relname, n_tup_ins + coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_user_tables "
        r"WHERE relname ~ '^(metrics|segments)_\d+$'"
    )
    database = open_database(url)
    with database.read() as session:
        found = {name: int(count) for name, count in session.execute(text(query))}
    database.close()
    return found


@pytest.mark.postgresql
def test_whatever_is_done_with_a_series_its_partition_alone_is_looked_at(empty_url: str, small_segments: None) -> None:
    open_database(empty_url, TrackerSettings(partitions=8)).close()
    before = _used(empty_url)
    assert len(before) == 2 * 8
    tracker = Tracker(open_database(empty_url))
    assert _live(tracker)
    tracker.database.close()  # each session of PostgreSQL hands its counts in when it ends

    wait_until(lambda: sum(_used(empty_url).values()) > sum(before.values()) + 60, lambda: str(_used(empty_url)))
    used = {name: count - before[name] for name, count in _used(empty_url).items() if count > before[name]}
    assert sorted(name.split("_")[0] for name in used) == ["metrics", "segments"]
    assert min(used.values()) > 10


@pytest.mark.postgresql
def test_the_statements_of_the_documentation_divide_a_database_that_holds_something(
    empty_url: str, small_segments: None
) -> None:
    [statement] = re.findall(r"```postgresql\n(DO .*?);\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert statement == DIVISION.format(partitions=16)
    tracker = Tracker(open_database(empty_url))
    _, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 30))
    seal_all(tracker.database)
    before = tracker.history(task, "m")

    with tracker.database._engine.begin() as connection:
        with pytest.raises(ConfigError, match=r"tracker.partitions = 16, and the database .* with none: leave it at 1"):
            check_partitions(connection, 16, tracker.database.name)
        connection.exec_driver_sql(statement)
        check_partitions(connection, 16, tracker.database.name)
        with pytest.raises(ConfigError, match=r"tracker.partitions = 4, .* was made with 16: leave it at 16"):
            check_partitions(connection, 4, tracker.database.name)
        names = inspect(connection).get_pk_constraint("metrics"), inspect(connection).get_pk_constraint("segments")
        assert [name["name"] for name in names] == ["pk_metrics", "pk_segments"]

    assert tracker.history(task, "m") == before
    tracker.call("log_metrics", task.floats("m", 30))
    assert len(tracker.history(task, "m")) == 60
    tracker.database.close()


def test_a_file_has_no_partitions(sqlite_tracker: Any) -> None:
    with (
        sqlite_tracker.database.read() as session,
        pytest.raises(ConfigError, match=r"tracker.partitions = 4 needs PostgreSQL: leave it at 1 for the SQLite file"),
    ):
        check_partitions(session.connection(), 4, sqlite_tracker.database.name)


def test_the_tables_of_points_keep_the_rules_of_distributed_tables() -> None:
    """Of Citus: the distributed column is in each unique key, and no foreign key leads there or away."""
    tables = Base.metadata.tables
    for name in POINTS:
        table = tables[name]
        assert "series_id" in table.primary_key.columns
        assert not table.foreign_keys
        assert not [each for other in tables.values() for each in other.foreign_keys if each.column.table is table]
        unique = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
        assert all("series_id" in each.columns for each in [*unique, *(i for i in table.indexes if i.unique)])
        assert table.c.series_id.server_default is None  # neither generated nor numbered by itself
    assert repr(tables["metrics"].c.series_id.type) == repr(tables["segments"].c.series_id.type)


@pytest.mark.postgresql
def test_the_catalogue_of_postgresql_says_the_same(postgresql: Any, template: str) -> None:
    url = postgresql.create(template)
    database = open_database(url)
    named = "IN ('metrics'::regclass, 'segments'::regclass)"
    column = "(SELECT attnum FROM pg_attribute WHERE attrelid = {0} AND attname = 'series_id')"
    with database.read() as session:
        connection = session.connection()

        def count(query: str) -> int:
            return int(connection.exec_driver_sql(query).scalar_one())

        keys = f"FROM pg_index WHERE indrelid {named} AND indisunique"
        assert count(f"SELECT count(*) {keys}") == 2
        assert count(f"SELECT count(*) {keys} AND NOT {column.format('indrelid')} = ANY(indkey)") == 0
        assert count(f"SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid {named}") == 0
        assert count(f"SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid {named}") == 0
        assert count(f"SELECT count(*) FROM pg_trigger WHERE tgrelid {named}") == 0
        assert count(f"SELECT count(*) FROM pg_inherits WHERE inhrelid {named} OR inhparent {named}") == 0
        its = f"FROM pg_attribute WHERE attrelid {named} AND attname = 'series_id'"
        assert count(f"SELECT count(DISTINCT atttypid) {its}") == 1
        assert count(f"SELECT count(*) {its} AND attidentity = '' AND attgenerated = '' AND NOT atthasdef") == 2
    database.close()
    postgresql.drop(url)


def test_no_statement_joins_points_with_anything(tracker: Any, small_segments: None) -> None:
    others = re.compile(rf"\b({'|'.join(set(Base.metadata.tables) - set(POINTS))}|JOIN)\b")
    found = [each for each in _live(tracker) if re.search(r"(FROM|INTO|UPDATE) (metrics|segments)\b", each)]
    assert len(found) > 6
    for statement in found:
        assert not others.search(statement)
        assert "series_id" in statement
