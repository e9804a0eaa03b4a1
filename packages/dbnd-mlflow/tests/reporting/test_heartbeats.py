"""Heartbeats of MLflow runs outside of tasks: those that this process was asked to start, until they end."""

from __future__ import annotations

import os
import time
import uuid

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd import dbnd_tracking
from dbnd._model.run import Run
from dbnd_mlflow import build_composite_uri
from dbnd_mlflow._reporting import heartbeats
from dbnd_mlflow._reporting.runs import _maps


@pytest.fixture
def beating(uri):
    """The runs that heartbeats are sent of, by the sender's own account."""
    tracking = _get_store(uri)._databand_with._client

    def read():
        return {uid.replace("-", "") for uid in tracking._sender.heartbeats}

    return read


@pytest.fixture
def answer(uri):
    """Let the tracker answer a run's heartbeat."""
    tracking = _get_store(uri)._databand_with._client

    def answer(state):
        for run_uid, beat in list(tracking._sender.heartbeats.items()):
            if not beat.goes_on(state):
                tracking._sender.end_beat(run_uid)

    return answer


def expected(journalled):
    return [body["init_args"]["new_run_info"]["sends_heartbeat"] for call, body in journalled() if call == "init_run"]


def test_runs_that_were_started_beat_until_they_end(client, beating, journalled):
    first, second = (client.create_run("0").info.run_id for _ in range(2))
    child = client.create_run("0", tags={"mlflow.parentRunId": first}).info.run_id
    assert beating() == {first, second}
    assert expected(journalled) == [True, True]
    client.set_terminated(child)
    client.set_terminated(second)
    assert beating() == {first}
    client.set_terminated(first, "FAILED")
    assert beating() == set()


def test_a_run_that_is_started_again_beats_again_in_the_process_that_does_so(uri, client, beating):
    run_id = client.create_run("0").info.run_id
    client.set_terminated(run_id)
    for runs in _maps.values():
        runs._runs.clear()
    client.log_metric(run_id, "m", 1)
    assert beating() == set()
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_id=run_id):
        assert beating() == {run_id}
    assert beating() == set()


def test_a_run_that_was_left_to_this_process_beats_from_what_is_logged_to_it_on(client, beating, answer):
    """So do the clients' runs of a server that was away."""
    run_id = client.create_run("0").info.run_id
    for runs in _maps.values():
        runs._runs.clear()
        runs.heartbeats.after_fork()
    _get_store(client.tracking_uri)._databand_with._client._sender.end_beat(str(uuid.UUID(run_id)))
    client.set_tag(run_id, "reviewed", "yes")
    assert beating() == set()
    client.log_metric(run_id, "m", 1)
    assert beating() == {run_id}
    tracked = next(runs._runs[run_id] for runs in _maps.values() if run_id in runs)
    tracked.heard_at = time.monotonic() - heartbeats.PATIENCE - 60
    answer("running")
    assert beating() == set()
    client.log_metric(run_id, "m", 2)
    assert beating() == {run_id}


def test_a_run_that_moves_below_another_one_follows_its_root(client, beating, answer):
    parent, run_id = (client.create_run("0").info.run_id for _ in range(2))
    client.set_tag(run_id, "mlflow.parentRunId", parent)
    answer("running")
    assert beating() == {parent}
    client.set_terminated(run_id)
    assert beating() == {parent}


def test_a_run_that_another_process_has_ended_beats_no_more(client, beating, answer):
    client.create_run("0")
    answer("running")
    assert len(beating()) == 1
    answer("success")
    assert beating() == set()


def test_a_run_that_is_asked_to_stop_goes_on_and_that_is_said_once(client, beating, answer, capfd):
    client.create_run("0", run_name="r")
    for _ in range(2):
        answer("shutdown")
    assert len(beating()) == 1
    assert capfd.readouterr().err.count("The run r is asked to stop") == 1


def test_of_very_many_runs_not_all_beat_and_none_of_the_others_is_expected_to(client, beating, journalled, monkeypatch):
    monkeypatch.setattr(heartbeats, "MAX_HEARTS", 2)
    for _ in range(3):
        client.create_run("0")
    assert len(beating()) == 2
    assert expected(journalled) == [True, True, False]


def test_a_server_speaks_for_a_quiet_client_but_not_for_ever(client, beating, answer, monkeypatch):
    monkeypatch.setattr(heartbeats, "_is_server", lambda: True)
    run_id = client.create_run("0").info.run_id
    tracked = next(runs._runs[run_id] for runs in _maps.values() if run_id in runs)
    tracked.heard_at = time.monotonic() - heartbeats.PATIENCE + 60
    answer("running")
    assert beating() == {run_id}
    tracked.heard_at -= 120
    client.log_metric(run_id, "m", 1)
    answer("running")
    assert beating() == {run_id}
    tracked.heard_at = time.monotonic() - heartbeats.PATIENCE - 60
    answer("running")
    assert beating() == set()


@pytest.mark.usefixtures("conf")
def test_a_run_of_a_task_leaves_heartbeats_to_the_task(conf, beating):
    with dbnd_tracking("job", conf=conf) as run:
        mlflow.start_run()
        mlflow.start_run(nested=True)
        assert isinstance(run, Run)
        assert beating() == {run.uid.replace("-", "")}


@pytest.mark.parametrize("interval", ["0", "5"])
def test_heartbeats_can_be_switched_off(client, journalled, monkeypatch, interval, uri):
    monkeypatch.setenv("DBND__RUN__HEARTBEAT_INTERVAL_S", interval)
    monkeypatch.setattr("dbnd._context.registry._by_url", {})
    other = MlflowClient(tracking_uri=f"{uri}&databand_url=http%3A%2F%2F127.0.0.1%3A9")
    other.create_run("0")
    assert expected(journalled) == [interval != "0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_sends_none_for_its_parents_runs(client, beating):
    run_id = client.create_run("0").info.run_id
    pid = os.fork()
    if pid == 0:  # the child: any way out but this one would run pytest twice
        status = 1
        try:
            client.log_metric(run_id, "m", 1)
            status = 0 if beating() == set() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert beating() == {run_id}


def test_a_killed_script_is_shown_as_lost(python, dbnd, home, inner_uri):
    pytest.importorskip("dbnd_tracker")
    code = (
        "import mlflow, os, signal\n"
        "from dbnd._context.registry import _by_url\n"
        "mlflow.start_run(run_name='dead')\n"
        "(client,) = _by_url.values()\n"
        "assert client.flush(30)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    uri = build_composite_uri(f"sqlite:///{home / 'dbnd/tracker.db'}", inner_uri)
    assert python(code, MLFLOW_TRACKING_URI=uri).returncode == -9
    shown = dbnd("runs", "list", DBND__TRACKER__HEARTBEAT_TIMEOUT_S="0.001")
    assert "lost" in shown.stdout, shown.stderr
