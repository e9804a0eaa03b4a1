from __future__ import annotations

import contextlib
import sqlite3
import stat
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations
from kit.progress import wait_until
from kit.warm import Warm
from sqlalchemy import create_engine, text

from dbnd._base.errors import ConfigError
from dbnd._base.paths import sqlite_url
from dbnd._tracking.contracts import Batch
from dbnd_tracker._errors import StorageError
from dbnd_tracker._ingest import apply_batch
from dbnd_tracker._queries.table.run_table import list_runs
from dbnd_tracker._storage.base import Base
from dbnd_tracker._storage.database import Database, open_database
from dbnd_tracker._storage.points.reading import read_points
from dbnd_tracker._storage.writer import DEADLINE, Deadline


def test_migrations_of_several_databases_at_once_do_not_meet(tmp_path: Path) -> None:
    """In one process, too: MLflow may migrate the user's own store in another thread at the same time."""
    barrier = threading.Barrier(4)

    def make(number: int) -> list[str]:
        barrier.wait()
        path = tmp_path / f"{number}.db"
        open_database(str(path)).close()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]

    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(make, range(4)))
    assert len(tables[0]) > len(Base.metadata.tables)
    assert all(sorted(found) == sorted(tables[0]) for found in tables)


def test_a_migration_leaves_the_globals_of_alembic_alone(tmp_path: Path) -> None:
    """A migration of another program that is under way in this process keeps its own connection."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            open_database(str(tmp_path / "t.db")).close()
            assert op.get_context() is context
    engine.dispose()


def test_a_new_file_is_set_up(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "tracker.db"
    database = open_database(f"sqlite:///{path}")
    with database.read() as session:
        connection = session.connection()

        def pragma(name: str) -> Any:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

        assert (pragma("journal_mode"), pragma("foreign_keys"), pragma("synchronous")) == ("wal", 1, 1)
        assert pragma("busy_timeout") > 0
    database.close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert database.name == str(path)


def test_only_an_older_schema_needs_alembic(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    code = (
        "import sys; from dbnd_tracker._storage.database import open_database; open_database(sys.argv[1]);"
        "sys.exit('alembic' in sys.modules)"
    )
    for _ in range(2):  # a new file, and one that is there
        assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_processes_that_open_a_new_file_at_once_all_succeed(tmp_path: Path, warm: Warm) -> None:
    go, new = tmp_path / "go", tmp_path / "new" / "t.db"
    code = (
        f"import os; from dbnd_tracker._storage.database import Database; database = Database({str(new)!r})\n"
        f"print('ready', flush=True)\nwhile not os.path.exists({str(go)!r}): pass\n"
        "database.open(); print('opened')"
    )
    processes = [warm.python(code, tmp_path / f"log-{number}") for number in range(4)]
    for process in processes:
        wait_until(lambda process=process: process.output == "ready\n", lambda process=process: process.output)
    go.touch()
    assert [process.wait() for process in processes] == [0] * 4
    assert {process.output for process in processes} == {"ready\nopened\n"}


def test_a_newer_schema_is_refused_in_one_sentence(tracker: Any, database_url: str) -> None:
    with tracker.database.read() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        session.commit()

    with pytest.raises(ConfigError) as caught:
        open_database(database_url)

    message = str(caught.value)
    assert tracker.database.name in message
    assert "9999" in message
    assert "install a newer dbnd-tracker" in message
    assert "\n" not in message


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite://", "sqlite:///:memory:", "nonsense://x", "sqlite:// bad"])
def test_a_url_that_is_no_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        Database(url)


def test_a_password_does_not_reach_messages() -> None:
    with pytest.raises(ConfigError) as caught:
        Database("oracle://scott:tiger@host/db")
    assert "tiger" not in str(caught.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"install dbnd-tracker\[postgresql\]") as caught:
        Database("postgresql://ada:secret@localhost/x")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    path.write_text("this is a text file and no database at all, long enough for a header of its own " * 5)
    with pytest.raises(StorageError, match="file is not a database"):
        open_database(str(path))


@pytest.mark.parametrize(
    "tables",
    [
        ["metrics", "metric_series"],
        ["metrics", "metric_series", "metric_keys"],
        ["params", "metrics", "metric_series", "attempts", "task_runs"],
    ],
)
def test_another_process_that_deletes_rows_is_noticed(
    tracker: Any, database_url: str, open_tracker: Any, tables: list[str]
) -> None:
    _, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 2))
    other = open_tracker(database_url)
    with other.database.read() as session:
        for table in tables:
            session.execute(text(f"DELETE FROM {table}"))
        session.commit()

    tracker.call("update_task_run_attempts", task.update("RUNNING"))
    tracker.call("log_metrics", task.floats("m", 3))

    assert len(tracker.history(task, "m")) == 3


def test_servers_that_start_and_write_at_once_all_succeed(postgresql: Any, make_run: Any) -> None:
    url = postgresql.create()
    run = make_run()
    tasks = [run.task(f"t{i}") for i in range(4)]

    def server(number: int) -> None:
        database = Database(url)
        database.open()
        journal = uuid.uuid4().hex
        body = {"metrics_info": [task.metric(f"k{i}", value_int=i) for task in tasks for i in range(10)]}
        calls = [("init_run", run.init()), ("add_task_runs", run.add(*tasks[number:], *tasks[:number]))]
        for sequence, (call, body_) in enumerate([*calls, *[("log_metrics", body)] * 5], start=1):
            for _ in range(2):
                apply_batch(database, Batch(call, body_, journal, sequence, sequence))
        database.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(server, range(4)))

    database = open_database(url)
    with database.read() as session:
        assert list_runs(session).meta.total == 1
        counts = "SELECT points, (SELECT count(*) FROM metrics WHERE series_id = s.id) FROM metric_series s"
        series = session.execute(text(counts))
        assert [tuple(row) for row in series] == [(20, 20)] * 40
    database.close()
    postgresql.drop(url)


def test_no_point_of_concurrent_writers_is_lost(tracker: Any, database_url: str, make_run: Any) -> None:
    run = make_run()
    task = run.task()
    tracker.call("init_run", run.init())
    tracker.call("add_task_runs", run.add(task))

    def write(_: int) -> None:
        database = open_database(database_url)
        for _ in range(10):
            apply_batch(database, Batch("log_metrics", task.floats("m", 7), uuid.uuid4().hex, 1, 7))
        database.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))

    assert len(tracker.history(task, "m")) == 280
    assert tracker.task(task).metrics[0].points == 280


def test_a_session_reads_one_state(tracker: Any) -> None:
    """A list and its count, or a series and its points, belong together whatever is written meanwhile."""
    tracker.started()
    with tracker.database.read() as session:
        before = list_runs(session)
        tracker.started()
        assert list_runs(session) == before
    with tracker.database.read() as session:
        assert list_runs(session).meta.total == before.meta.total + 1


def test_a_postgresql_that_is_gone_is_said(start_postgresql: Any, open_tracker: Any) -> None:
    """In what goes to its driver directly, too: points that come in, and histories that are sampled."""
    cluster = start_postgresql()
    tracker = open_tracker(cluster.create())
    _, task = tracker.started()
    with pytest.raises(StorageError, match="cannot be used"), tracker.database.read() as session:
        session.execute(text("SELECT 1"))
        cluster.kill()
        read_points(session.connection(), 1, 0, 100)
    with pytest.raises(StorageError, match="cannot be used"):
        tracker.call("log_metrics", task.floats("m", 3))
    cluster.restart()
    tracker.call("log_metrics", task.floats("m", 3))
    assert len(tracker.history(task, "m")) == 3


@pytest.mark.parametrize("name", ["shop_feature%2Flogin", "a?b", "a#b", "a b"])
def test_the_file_of_a_database_is_the_one_that_is_named(tmp_path, name):
    path = tmp_path / name / "t.db"
    for url in (str(path), sqlite_url(path)):
        database = open_database(url)
        assert (database.path, database.name) == (path, str(path))
        database.close()
    assert list(tmp_path.rglob("t.db")) == [path]


def test_what_is_read_for_a_request_ends_with_its_time(tracker: Any) -> None:
    endless = text("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
    deadline = Deadline()
    given = DEADLINE.set(deadline)
    threading.Timer(0.2, deadline.pass_by).start()
    for _ in range(2):  # also what begins when it is over
        with pytest.raises(StorageError, match=r"interrupted|canceling"), tracker.database.read() as session:
            session.execute(endless)
    DEADLINE.reset(given)
    with tracker.database.read() as session:  # on the same connection
        assert session.scalar(text("SELECT 1")) == 1
