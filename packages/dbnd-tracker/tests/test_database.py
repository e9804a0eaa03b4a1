from __future__ import annotations

import contextlib
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine

from dbnd._errors import ConfigError
from dbnd_tracker import _migrations
from dbnd_tracker._database import REVISIONS, Database, open_database
from dbnd_tracker._errors import StorageError
from dbnd_tracker._models import Base


def test_the_known_revisions_are_those_of_alembic() -> None:
    script = _migrations.scripts()
    assert [revision.revision for revision in script.walk_revisions()][::-1] == list(REVISIONS)
    assert script.get_heads() == [REVISIONS[-1]]


def test_the_models_are_what_the_migrations_make(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    open_database(str(path)).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        differences = compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata
        )
    engine.dispose()
    assert differences == []


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


def test_a_current_file_opens_without_alembic(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    open_database(str(path)).close()
    code = (
        "import sys; from dbnd_tracker._database import open_database; open_database(sys.argv[1]);"
        "sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_alembic_is_imported_where_the_database_is_made_not_where_it_is_opened(tmp_path: Path) -> None:
    code = (
        "import sys; from dbnd_tracker._database import Database; Database(sys.argv[1]);"
        "sys.exit('alembic' not in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "t.db")], check=False)
    assert done.returncode == 0
    assert not (tmp_path / "t.db").exists()


def test_processes_that_open_a_new_file_at_once_all_succeed(tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = (
        "import os, sys, time; from dbnd_tracker._database import Database; database = Database(sys.argv[1]);"
        "print('ready', flush=True)\nwhile not os.path.exists(sys.argv[2]): pass\n"
        "database.open(); print('opened')"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "new" / "t.db"), str(go)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    go.touch()
    results = [process.communicate(timeout=60) for process in processes]
    assert results == [("opened\n", "")] * 4


def test_a_newer_schema_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    open_database(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    with pytest.raises(ConfigError) as caught:
        open_database(str(path))

    text = str(caught.value)
    assert str(path) in text
    assert "9999" in text
    assert "install a newer dbnd-tracker" in text
    assert "\n" not in text


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


def test_another_process_that_deletes_rows_is_noticed(tracker: Any) -> None:
    _, task = tracker.started()
    tracker.call("log_metrics", task.floats("m", 2))
    assert tracker.database.path is not None
    with sqlite3.connect(tracker.database.path) as connection:
        for table in ("metrics", "metric_series", "metric_keys"):
            connection.execute(f"DELETE FROM {table}")
    connection.close()

    tracker.call("log_metrics", task.floats("m", 3))

    assert len(tracker.history(task, "m")) == 3
