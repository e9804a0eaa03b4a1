"""Runs whose heartbeats have stopped, and runs that are asked to stop."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import update

from dbnd_tracker._settings import TrackerSettings
from dbnd_tracker._storage.models import Run


def _age(tracker: Any, run: Any, seconds: float) -> None:
    """Make the last heartbeat of ``run`` one of ``seconds`` ago."""
    heard = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    tracker.database.write(
        lambda writer: writer.session.execute(update(Run).where(Run.uid == run.uid).values(last_heartbeat=heard))
    )


def _states(server: Any, **query: Any) -> dict[str, str]:
    return {run["name"]: run["state"] for run in server.get("/api/v1/runs", params=query).json()["data"]}


def test_a_run_that_falls_silent_is_lost_until_it_reports_again(tracker: Any, server: Any, make_run: Any) -> None:
    silent, plain = make_run(name="silent"), make_run(name="plain")
    tracker.call("init_run", silent.init(sends_heartbeat=True))
    tracker.call("init_run", plain.init(sends_heartbeat=False))
    assert _states(server) == {"silent": "running", "plain": "running"}

    _age(tracker, silent, 299)
    assert _states(server)["silent"] == "running"
    _age(tracker, silent, 301)

    assert _states(server) == {"silent": "lost", "plain": "running"}
    assert server.get(f"/api/v1/runs/{silent.uid}").json()["state"] == "lost"
    assert _states(server, state="lost") == {"silent": "lost"}
    assert _states(server, state="running") == {"plain": "running"}
    for op, val, names in (("ne", "lost", ["plain"]), ("like", "l%t", ["silent"]), ("like", "run%", ["plain"])):
        found = _states(server, filter=json.dumps([{"name": "state", "op": op, "val": val}]))
        assert list(found) == names, op
    assert "lost" in server.get("/").text

    assert tracker.call("heartbeat", {"run_uid": silent.uid}) == "running"
    assert _states(server)["silent"] == "running"
    _age(tracker, silent, 301)
    tracker.call("set_run_state", silent.state("SUCCESS"))
    assert _states(server)["silent"] == "success"
    assert _states(server, state="lost") == {}


def test_a_first_heartbeat_makes_a_run_one_that_sends_them(tracker: Any, server: Any, make_run: Any) -> None:
    run = make_run()
    tracker.call("init_run", run.init())
    tracker.call("heartbeat", {"run_uid": run.uid})
    # A process that joins the run and sends none does not change that.
    tracker.call("init_run", run.init())
    _age(tracker, run, 10_000)
    assert _states(server) == {run.name: "lost"}


def test_how_long_a_silence_is_allowed_is_a_setting(tmp_path: Any, serve: Any, make_run: Any) -> None:
    from dbnd_tracker._storage.database import open_database

    database = open_database(str(tmp_path / "t.db"), TrackerSettings(heartbeat_timeout_s=5000))
    server = serve(database)
    run = make_run()
    server.post("init_run", run.init(sends_heartbeat=True))
    tracker = type("Written", (), {"database": database})
    for age, state in ((4990, "running"), (5010, "lost")):
        _age(tracker, run, age)
        assert _states(server) == {run.name: state}
    database.close()


@pytest.mark.alike
def test_the_terminal_shows_lost_runs(tracker: Any, database_url: str, make_run: Any, dbnd: Callable[..., Any]) -> None:
    run = make_run(name="silent")
    tracker.call("init_run", run.init(sends_heartbeat=True))
    _age(tracker, run, 301)
    url = {"DBND__CORE__DATABAND_URL": database_url}
    assert "lost" in dbnd("runs", "list", **url).stdout
    assert json.loads(dbnd("runs", "list", "--state", "lost", "--json", **url).stdout)[0]["state"] == "lost"
    patient = {**url, "DBND__TRACKER__HEARTBEAT_TIMEOUT_S": "100000"}
    assert json.loads(dbnd("runs", "show", "silent", "--json", **patient).stdout)["state"] == "running"


@pytest.mark.alike
def test_a_run_that_is_asked_to_stop_hears_of_it_and_ends_as_it_says(tracker: Any, server: Any) -> None:
    run, _ = tracker.started()

    answer = server.session.post(f"{server.url}/api/v1/runs/stop", json=[run.uid.upper()], timeout=30)

    assert (answer.status_code, answer.json()) == (200, {run.uid: "shutdown"})
    assert server.post("heartbeat", {"run_uid": run.uid}).text == '"shutdown"'
    assert tracker.run(run).state == "shutdown"
    tracker.call("set_run_state", run.state("RUNNING"))
    assert tracker.run(run).state == "shutdown"
    tracker.call("set_run_state", run.state("CANCELLED"))
    assert tracker.run(run).state == "cancelled"
    again = server.session.post(f"{server.url}/api/v1/runs/stop", json=[run.uid], timeout=30)
    assert again.json() == {run.uid: "cancelled"}


@pytest.mark.parametrize(
    ("uids", "status", "sentence"),
    [
        ([str(uuid.UUID(int=7))], 404, "There is no run 00000000-0000-0000-0000-000000000007"),
        (["x"], 422, "a uid of 32 hex digits is needed"),
        ([], 422, "should have at least 1 item"),
        ({}, 422, "valid list"),
    ],
)
@pytest.mark.alike
def test_stopping_what_is_no_run_is_refused(server: Any, uids: Any, status: int, sentence: str) -> None:
    answer = server.session.post(f"{server.url}/api/v1/runs/stop", json=uids, timeout=30)
    assert answer.status_code == status
    assert sentence in answer.json()["detail"]
