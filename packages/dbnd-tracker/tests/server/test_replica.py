"""A server that reads from a replica: it may lag, and it may be away, and nobody notices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kit.payloads import Tracker
from kit.postgresql import PostgreSQL
from kit.progress import wait_until
from sqlalchemy import event, text

from dbnd._base.errors import ConfigError
from dbnd._terminal import console
from dbnd_tracker._cli.tracker import _check_postgresql
from dbnd_tracker._errors import StorageError
from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage import replica as replicas
from dbnd_tracker._storage.database import Database, open_database
from dbnd_tracker._storage.replica import Replica, written
from dbnd_tracker._storage.writer import DEADLINE, Deadline

pytestmark = pytest.mark.postgresql
PAGE = {"Accept": "text/html"}


class Pair:
    """A server over a database and its replica, and which of both each statement went to."""

    def __init__(self, database: Database, standby: PostgreSQL, serve: Any) -> None:
        self.standby = standby
        self.tracker = Tracker(database)
        settings = TrackerSettings(read_database=standby.url(database._engine.url.render_as_string()))
        self.server = serve(database, settings=settings)
        self.replica: Replica = self.server.app.state.replica
        self.asked: list[str] = []
        for name, one in (("database", database), ("replica", self.replica)):
            event.listen(one._engine, "before_cursor_execute", lambda *_, name=name: self.asked.append(name))

    def lag(self) -> None:
        """Let the replica have nothing that comes from now on."""
        self.standby.execute("SELECT pg_wal_replay_pause()")

    def catch_up(self) -> None:
        """Let the replica have all that there is."""
        self.standby.execute("SELECT pg_wal_replay_resume()")
        position = written(self.tracker.database)

        def has_come() -> bool:
            try:
                return self.replica.has(position)
            except StorageError:  # the database itself has not come yet
                return False

        wait_until(has_come, lambda: "the replica lags")

    def get(self, path: str) -> tuple[int, str, set[str]]:
        """Status and text of an answer, and where it was read."""
        self.asked.clear()
        answer = self.server.get(path, headers=PAGE)
        return answer.status_code, answer.text, set(self.asked)


@pytest.fixture(scope="module")
def standby(postgresql: PostgreSQL) -> Iterator[PostgreSQL]:
    with postgresql.replica() as replica:
        yield replica


@pytest.fixture
def pair(
    postgresql: PostgreSQL, template: str, standby: PostgreSQL, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pair]:
    monkeypatch.setattr(replicas, "_PAUSE", 0.5)
    url = postgresql.create(template)
    database = open_database(url)
    made = Pair(database, standby, serve)
    made.catch_up()
    wait_until(lambda: not made.replica.is_away, lambda: "the replica is away")
    made.replica._warn = console.once_a_minute()  # it may have been said already
    yield made
    standby.execute("SELECT pg_wal_replay_resume()")
    made.replica.close()
    database.close()
    postgresql.drop(url)


def test_pages_api_and_exports_are_read_from_the_replica_and_the_rest_is_not(pair: Pair) -> None:
    run, task = pair.tracker.started()
    pair.tracker.call("log_metrics", task.floats("m", 30))
    pair.catch_up()
    paths = [
        "/",
        "/app/jobs",
        f"/app/jobs/{run.job}/{run.uid}",
        "/api/v1/runs",
        f"/api/v1/runs/{run.uid}/export",
        f"/api/v1/task-runs/{task.uid}/metrics/history?key=m",
        f"/app/series?task={task.uid}&key=m",
    ]
    for path in paths:
        status, _, asked = pair.get(path)
        assert (path, status, asked) == (path, 200, {"replica"})
    assert pair.get("/readyz")[2] == {"database"}
    pair.asked.clear()
    assert pair.server.post("log_metrics", task.floats("m", 1)).ok
    assert set(pair.asked) == {"database"}
    assert "Set-Cookie" not in pair.server.post("log_metrics", task.floats("m", 1)).headers


def test_a_run_that_the_replica_does_not_have_yet_is_shown(pair: Pair) -> None:
    pair.lag()
    run, task = pair.tracker.started()
    pair.tracker.call("log_metrics", task.floats("m", 30))
    for path in (f"/app/jobs/{run.job}/{run.uid}", f"/api/v1/runs/{run.uid}"):
        status, answer, asked = pair.get(path)
        assert (status, asked) == (200, {"replica", "database"})
        assert run.name in answer
    assert pair.get("/api/v1/runs")[1:] == ('{"data":[],"meta":{"total":0,"after":null}}', {"replica"})
    missing = run.uid[:-4] + "0000"
    status, answer, asked = pair.get(f"/api/v1/runs/{missing}")
    assert (status, asked) == (404, {"replica", "database"})
    assert missing in answer


def test_who_changes_something_sees_it_at_once_however_much_the_replica_lags(pair: Pair) -> None:
    run, _ = pair.tracker.started()
    pair.catch_up()
    pair.lag()
    assert pair.server.session.patch(f"{pair.server.url}/api/v1/runs/{run.uid}", json={"name": "renamed"}).ok
    for path in ("/", f"/app/jobs/{run.job}/{run.uid}", "/api/v1/runs"):
        status, answer, asked = pair.get(path)
        assert (status, "renamed" in answer, "database" in asked) == (200, True, True)
    other = pair.server.session.get(f"{pair.server.url}/api/v1/runs", cookies={"databand_written": "9" * 5000})
    assert other.ok  # what no server has set says nothing
    pair.server.session.cookies.clear()
    assert "renamed" not in pair.get("/")[1]

    assert pair.server.session.delete(f"{pair.server.url}/api/v1/runs/{run.uid}").ok
    assert pair.get(f"/api/v1/runs/{run.uid}")[0] == 404
    assert run.name not in pair.get("/")[1]
    pair.catch_up()
    status, answer, asked = pair.get("/")
    assert (run.name in answer, asked) == (False, {"replica"})


def test_a_replica_that_is_away_is_passed_over_and_found_again(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = pair.tracker.started()
    pair.catch_up()
    pair.standby.kill()
    for _ in range(5):
        for path in ("/", f"/app/jobs/{run.job}/{run.uid}", f"/api/v1/runs/{run.uid}"):
            assert pair.get(path)[::2] in [(200, {"database"}), (200, {"database", "replica"})]
    assert capsys.readouterr().err.count("tracker.read_database") == 1
    pair.standby.restart()
    wait_until(lambda: pair.get("/")[2] == {"replica"}, lambda: str(pair.asked))


def test_a_question_that_the_replica_breaks_off_is_asked_again(pair: Pair) -> None:
    """As it does when what it reads is deleted on the primary."""
    run, _ = pair.tracker.started()
    pair.catch_up()

    def break_off(connection: Any, *_: Any) -> tuple[str, tuple[()]]:
        connection.connection.dbapi_connection.execute("SET statement_timeout = 1")
        return "SELECT pg_sleep(10)", ()

    event.listen(pair.replica._engine, "before_cursor_execute", break_off, once=True, retval=True)
    status, answer, asked = pair.get(f"/api/v1/runs/{run.uid}")
    assert (status, asked) == (200, {"replica", "database"})
    assert run.name in answer


def test_a_question_that_takes_too_long_does_not_make_the_replica_one_that_is_away(pair: Pair) -> None:
    deadline = Deadline()
    deadline.pass_by()
    given = DEADLINE.set(deadline)
    with pytest.raises(StorageError), pair.replica.read() as session:
        session.execute(text("SELECT pg_sleep(60)"))
    DEADLINE.reset(given)
    assert not pair.replica.is_away


def test_a_file_is_no_replica(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"tracker.read_database = .* is no replica of PostgreSQL"):
        Replica(str(tmp_path / "t.db"), TrackerSettings())


def test_connections_are_shared_among_processes(postgresql: PostgreSQL) -> None:
    url = postgresql.url("postgresql://h/postgres")
    for workers, connections, writers in ((1, 15, 4), (6, 15, 4), (16, 5, 3), (30, 3, 1)):
        database = Database(url, TrackerSettings(workers=workers))
        pool: Any = database._engine.pool
        assert (pool.size() + pool._max_overflow, database.writers) == (connections, writers)
        assert workers * connections <= 90
        database.close()
    with pytest.raises(ConfigError, match=r"tracker.connections = 90 is too few for 31 processes .* which need 3 each"):
        _check_postgresql(database, TrackerSettings(workers=31))
