from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from dbnd import current_task_run, dbnd_tracking, get_databand_context, log_metric
from dbnd._base.errors import ConfigError
from dbnd._context.registry import create_reader, create_transport, embedded_url, load_config
from dbnd._tracking import sender
from dbnd._tracking.contracts import Batch, PartlyAppliedError, RefusedError, UnreachableError
from dbnd_tracker._embedded import EmbeddedTransport
from dbnd_tracker._storage import database
from dbnd_tracker._storage.sqlite import connection


def _batch(task: Any, first: int = 1, last: int = 2, journal: str = "0" * 32) -> Batch:
    return Batch("log_metrics", task.floats("m", last - first + 1), journal, first, last)


def test_the_embedded_url_leads_to_this_transport(home: Path, make_run: Any, open_tracker: Any) -> None:
    url = embedded_url()
    assert url == f"sqlite:///{home / 'dbnd' / 'tracker.db'}"
    transport = create_transport(url, load_config())
    assert isinstance(transport, EmbeddedTransport)
    # Nothing is touched before there is something to send.
    assert not (home / "dbnd").exists()

    run = make_run()
    task = run.task()
    for number, (call, body) in enumerate(
        [("init_run", run.init()), ("add_task_runs", run.add(task)), ("log_metrics", task.floats("m", 2))], start=1
    ):
        transport.send(Batch(call, body, "0" * 32, number, number))
    transport.close()

    assert len(open_tracker(url).history(task, "m")) == 2


@pytest.mark.usefixtures("home")
def test_points_of_a_training_that_goes_on_are_there_without_a_flush_after_few_transactions(tmp_path: Path) -> None:
    path = tmp_path / "t.db"

    def transactions() -> int:
        with contextlib.closing(sqlite3.connect(path)) as database:  # each of ours adds one to this number
            return int(database.execute("PRAGMA application_id").fetchone()[0])

    with dbnd_tracking("job", conf={"core.databand_url": f"sqlite:///{path}"}):
        context, task_run = get_databand_context(), current_task_run()
        assert context is not None
        assert context.client is not None
        assert task_run is not None
        assert context.client.flush(60)
        before, started, steps = transactions(), time.monotonic(), 0
        while time.monotonic() - started < 1.5:
            log_metric("loss", steps / 7, step=steps)
            steps += 1
            time.sleep(0.001)
        reader = create_reader(context.config)
        while len(list(reader.points(task_run.uid, "loss"))) < steps:
            time.sleep(0.05)
        assert transactions() - before <= 2 + (time.monotonic() - started) / sender._LEAST_REST
        reader.close()


def test_a_heartbeat_brings_the_state_of_the_run(tmp_path: Path, make_run: Any) -> None:
    run = make_run()
    transport = EmbeddedTransport(f"sqlite:///{tmp_path / 't.db'}")
    transport.send(Batch("init_run", run.init(), "0" * 32, 1, 1))
    assert transport.heartbeat(run.uid) == "running"
    transport.close()


def test_a_heartbeat_of_a_run_that_was_never_announced_makes_no_nameless_run(tmp_path: Path, make_run: Any) -> None:
    url = f"sqlite:///{tmp_path / 't.db'}"
    transport = EmbeddedTransport(url)
    transport.send(Batch("init_run", make_run().init(), "0" * 32, 1, 1))
    assert transport.heartbeat(make_run().uid) == "running"
    transport.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_a_database_that_cannot_be_opened_is_found_by_a_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError):
        EmbeddedTransport(f"sqlite:///{tmp_path / 'file' / 't.db'}").check()
    fine = EmbeddedTransport(f"sqlite:///{tmp_path / 't.db'}")
    fine.check()
    fine.close()


def test_errors_are_told_apart(tmp_path: Path, make_run: Any) -> None:
    task = make_run().task()
    transport = EmbeddedTransport(f"sqlite:///{tmp_path / 't.db'}")
    transport.send(_batch(task))
    transport.send(_batch(task))
    with pytest.raises(PartlyAppliedError) as caught:
        transport.send(_batch(task, 2, 4))
    assert caught.value.last == 2
    with pytest.raises(RefusedError, match=r"^the body of log_metrics is wrong at metrics_info: field required$"):
        transport.send(Batch("log_metrics", {}, uuid.uuid4().hex, 1, 1))
    with pytest.raises(RefusedError, match="no tracking call"):
        transport.send(Batch("nonsense", {}, uuid.uuid4().hex, 1, 1))
    transport.close()


def test_a_locked_file_is_tried_again_later(tmp_path: Path, make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_MS", 50)
    task = make_run().task()
    path = tmp_path / "t.db"
    transport = EmbeddedTransport(f"sqlite:///{path}")
    transport.send(_batch(task, 1, 1))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UnreachableError, match="database is locked"):
        transport.send(_batch(task, 2, 2))
    other.execute("ROLLBACK")
    other.close()

    transport.send(_batch(task, 2, 2))
    transport.close()


def test_a_newer_schema_keeps_events_waiting(tmp_path: Path, make_run: Any) -> None:
    path = tmp_path / "t.db"
    database.open_database(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    transport = EmbeddedTransport(f"sqlite:///{path}")
    with pytest.raises(UnreachableError, match="install a newer dbnd-tracker"):
        transport.send(_batch(make_run().task()))
    transport.close()


def test_a_folder_that_is_a_file_is_said(tmp_path: Path, make_run: Any) -> None:
    (tmp_path / "x").touch()
    transport = EmbeddedTransport(f"sqlite:///{tmp_path / 'x' / 't.db'}")
    with pytest.raises(UnreachableError, match="cannot be used"):
        transport.send(_batch(make_run().task()))


def test_a_url_that_cannot_be_used_is_refused_at_once() -> None:
    with pytest.raises(ConfigError):
        EmbeddedTransport("sqlite:///:memory:")


FORKS = """
import os, sys, threading, uuid
from dbnd._model.points import group
from dbnd._tracking.contracts import Batch
from dbnd_tracker._embedded import EmbeddedTransport

def batch(count):
    points = group(str(uuid.uuid4()), "user", [("k", float(n), n, None, None) for n in range(count)])
    return Batch("log_metrics", [points], uuid.uuid4().hex, 1, 1)

transport = EmbeddedTransport(sys.argv[1])
transport.send(batch(1))
done = threading.Event()

def write():
    while not done.wait(0.05):
        transport.send(batch(3000))

thread = threading.Thread(target=write)
thread.start()
ended = []
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        try:
            EmbeddedTransport(sys.argv[1]).send(batch(1))
        except BaseException as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
done.set()
thread.join()
print(ended)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_is_forked_while_the_parent_writes_can_write(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKS, f"sqlite:///{tmp_path / 'tracker.db'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.stdout == "[0, 0, 0, 0, 0]\n", done.stdout + done.stderr
