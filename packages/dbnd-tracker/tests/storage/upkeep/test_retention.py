"""Retention and backup."""

from __future__ import annotations

import json
import sqlite3
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from dbnd import UsageError
from dbnd_tracker._cli.tracker import tracker as commands
from dbnd_tracker._storage.base import Base
from dbnd_tracker._storage.models import AttemptDocument
from dbnd_tracker._storage.upkeep.sealing import seal_all

TABLES = sorted(
    set(Base.metadata.tables) - {"metric_keys", "batches", "access_tokens", "access_sessions", "deleted", "saved_views"}
)


def _ago(days: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()


def _counts(tracker: Any) -> dict[str, int]:
    with tracker.database.read() as session:
        return {table: session.scalar(text(f"SELECT count(*) FROM {table}")) or 0 for table in TABLES}


def _document(writer: Any, attempt: str, facts: Any) -> AttemptDocument:
    return AttemptDocument(attempt_id=writer.attempt_ids({attempt})[attempt], **facts)


def _fill(tracker: Any, make_run: Any, *, days: float, state: str | None, job: str = "etl") -> Any:
    """A run with something in every table that a run has rows in."""
    run = make_run(job=job)
    task = run.task()
    tracker.call("init_run", run.init(start_time=_ago(days + 1)))
    tracker.call("add_task_runs", run.add(task))
    tracker.call("update_task_run_attempts", task.update("RUNNING", _ago(days + 1)))
    points = [task.metric("loss", value_float=float(i), step=i) for i in range(7)]
    tag, param = task.metric("t", "mlflow.tag", value_str="x"), task.metric("p", "mlflow.param", value_str="x")
    tracker.call("log_metrics", task.metrics(*points, tag, param))
    tracker.call("log_artifact", {"task_run_attempt_uid": task.attempt, "name": "n", "path": "p"})
    document = {"content": {}, "kind": "dbt"}
    tracker.database.write(lambda writer: writer.session.add(_document(writer, task.attempt, document)))
    named = {
        "run_uid": run.uid,
        "task_run_uid": task.uid,
        "task_run_attempt_uid": task.attempt,
        "task_run_name": "train",
        "operation_type": "read",
        "operation_status": "OK",
        "value_preview": None,
        "data_dimensions": None,
        "data_schema": None,
    }
    tracker.call("log_datasets", {"datasets_info": [{**named, "operation_path": "s3://b/x"}]})
    tracker.call("log_targets", {"targets_info": [{**named, "target_path": "s3://b/y", "param_name": "y"}]})
    if state is not None:
        tracker.call("set_run_state", run.state(state, _ago(days)))
    return run


def test_old_runs_go_with_everything_that_is_theirs(
    tracker: Any, database_url: str, make_run: Any, dbnd: Any, small_segments: None
) -> None:
    kept = [
        _fill(tracker, make_run, days=1, state="SUCCESS"),
        _fill(tracker, make_run, days=100, state=None),
        _fill(tracker, make_run, days=100, state="SUCCESS", job="audit"),
    ]
    assert seal_all(tracker.database) > 0
    before = _counts(tracker)
    gone = [_fill(tracker, make_run, days=100, state=state) for state in ("SUCCESS", "FAILED")]
    assert seal_all(tracker.database) > 0
    gone.append(_fill(tracker, make_run, days=100, state="CANCELLED"))
    full = _counts(tracker)
    assert all(full[table] > before[table] for table in before if before[table]), full
    command = ("tracker", "gc", "--older-than", "30d", "--job", "etl", "--database", database_url)

    dry = dbnd(*command, "--dry-run")

    assert (dry.returncode, "3 runs with 21 points would be deleted" in dry.stderr) == (0, True), dry
    assert [line.split()[:3] for line in dry.stdout.splitlines()[1:]] == [["etl", "3", "21"]]
    (facts,) = json.loads(dbnd(*command, "--dry-run", "--json").stdout)
    assert (facts["job"], sorted(facts["run_uids"]), facts["points"]) == ("etl", sorted(run.uid for run in gone), 21)
    assert _counts(tracker) == full
    assert full["segments"] > before["segments"] > 0
    done = dbnd(*command, "--vacuum")
    assert (done.returncode, "3 runs with 21 points deleted" in done.stderr) == (0, True), done
    assert _counts(tracker) == before
    with tracker.database.read() as session:
        left = set(session.scalars(text("SELECT uid FROM runs")))
    assert left == {run.uid for run in kept}
    # What a run that was deleted still sends is dropped.
    tracker.call("log_metrics", gone[0].root.floats("loss", 3))
    assert _counts(tracker) == before
    again = dbnd(*command)
    assert "0 runs with 0 points deleted" in again.stderr


@pytest.mark.alike
def test_a_lost_run_counts_as_ended(tracker: Any, database_url: str, make_run: Any, dbnd: Any) -> None:
    run = make_run()
    tracker.call("init_run", run.init(start_time=_ago(100), sends_heartbeat=True))
    tracker.call("heartbeat", {"run_uid": run.uid})
    command = ("tracker", "gc", "--older-than", "30d", "--database", database_url)
    assert "0 runs with 0 points deleted" in dbnd(*command).stderr
    with tracker.database.read() as session:
        session.execute(text("UPDATE runs SET last_heartbeat = :then"), {"then": _then(tracker)})
        session.commit()
    assert "1 run with 0 points deleted" in dbnd(*command).stderr


def _then(tracker: Any) -> Any:
    then = datetime.now(timezone.utc) - timedelta(days=99)
    return then if tracker.database.path is None else then.strftime("%Y-%m-%d %H:%M:%S.%f")


def test_runs_are_written_while_others_are_deleted(tracker: Any, database_url: str, make_run: Any, dbnd: Any) -> None:
    for _ in range(3):
        _fill(tracker, make_run, days=100, state="SUCCESS")
    _, task = tracker.started()
    done = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        while not done.is_set():
            tracker.call("log_metrics", task.floats("m", 5))
            written += 5

    writer = threading.Thread(target=write)
    writer.start()
    try:
        result = dbnd("tracker", "gc", "--older-than", "30d", "--database", database_url)
    finally:
        done.set()
        writer.join()
    assert "3 runs with 21 points deleted" in result.stderr
    assert len(tracker.history(task, "m", limit=1_000_000)) == written


@pytest.mark.parametrize("age", ["", "90", "d", "-1d", "0d", "1y", "999999d"])
def test_an_age_that_is_none_is_said(dbnd: Any, age: str) -> None:
    result = dbnd("tracker", "gc", f"--older-than={age}")
    assert result.returncode == 2
    assert f"--older-than {age!r} is no time such as 30m, 12h, 90d or 2w." in result.stderr


def test_a_backup_is_whole_while_the_tracker_is_written_to(
    sqlite_tracker: Any, tmp_path: Path, dbnd: Any, open_tracker: Any
) -> None:
    run, task = sqlite_tracker.started()
    sqlite_tracker.call("log_metrics", task.floats("m", 50_000))
    target = tmp_path / "copy.db"
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            sqlite_tracker.call("log_metrics", task.floats("m", 100))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        result = dbnd("tracker", "backup", str(target), "--json", "--database", str(sqlite_tracker.database.path))
    finally:
        done.set()
        writer.join()

    assert (result.returncode, str(target) in result.stderr) == (0, True), result
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == ["copy.db"]
    facts = {"file": str(target), "database": str(sqlite_tracker.database.path), "bytes": target.stat().st_size}
    assert json.loads(result.stdout) == facts
    assert target.stat().st_mode & 0o077 == 0
    with sqlite3.connect(target) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    copy = open_tracker(str(target))
    points = copy.history(task, "m", limit=10_000_000)
    assert len(points) >= 50_000
    assert len(points) == copy.task(task).metrics[0].points
    assert copy.run(run).name == run.name


def test_a_backup_replaces_nothing(sqlite_tracker: Any, tmp_path: Path, dbnd: Any) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    result = dbnd("tracker", "backup", str(target), "--database", str(sqlite_tracker.database.path))
    assert result.returncode != 0
    assert f"cannot be copied to {target}: File exists." in result.stderr
    assert target.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir() if "precious" in path.name] == ["precious"]


@pytest.mark.parametrize("folder", ["/", "."])
def test_a_backup_is_no_folder(folder: str) -> None:
    result = CliRunner().invoke(commands, ["backup", folder])
    assert result.exit_code == 2
    assert f"File '{folder}' is a directory." in result.stderr


@pytest.mark.parametrize("command", [("backup", "copy.db"), ("gc", "--older-than", "1d")], ids=lambda given: given[0])
def test_there_must_be_a_database(command: tuple[str, ...], tmp_path: Path, home: Path) -> None:
    del home
    result = CliRunner().invoke(commands, [*command, "--database", str(tmp_path / "missing.db")])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception) == f"The database {tmp_path / 'missing.db'} does not exist."
    assert list(tmp_path.glob("*.db")) == []


def test_postgresql_is_backed_up_by_its_own_tool(postgresql: Any, dbnd: Any, tmp_path: Path) -> None:
    url = postgresql.create()
    result = dbnd("tracker", "backup", str(tmp_path / "copy"), "--database", url)
    postgresql.drop(url)
    assert result.returncode == 2
    assert "back it up with pg_dump." in result.stderr
