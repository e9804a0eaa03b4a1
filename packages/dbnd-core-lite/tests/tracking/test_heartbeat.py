from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest
from kit.progress import wait_until

from dbnd import dbnd_tracking, get_databand_context

pytestmark = pytest.mark.process

PATIENCE = 60


def conf(server, interval=0.05):
    return {
        "core": {"databand_url": server.url, "databand_access_token": "t"},
        "run": {"heartbeat_interval_s": interval},
    }


def answers(state):
    return lambda r: (200, {}, json.dumps(state if r.path.endswith("heartbeat") else {}).encode())


def beats(server):
    return [r.body for r in list(server.requests) if r.path.endswith("tracking/heartbeat")]


def info(server):
    return next(r.body for r in server.requests if r.path.endswith("init_run"))["init_args"]["new_run_info"]


def test_a_run_that_goes_on_sends_heartbeats_and_then_no_more(server):
    server.answer = answers("running")
    with dbnd_tracking("job", conf=conf(server)) as run:
        wait_until(lambda: len(beats(server)) >= 3, lambda: str(beats(server)))
        assert {beat["run_uid"] for beat in beats(server)} == {run.uid}
        client = get_databand_context().client
    assert info(server)["sends_heartbeat"] is True
    count = len(beats(server))
    client.flush(PATIENCE)
    time.sleep(0.3)
    assert len(beats(server)) == count


@pytest.mark.parametrize("interval", [0, -1])
def test_heartbeats_can_be_switched_off(server, interval):
    with dbnd_tracking("job", conf=conf(server, interval)):
        time.sleep(0.3)
    assert info(server)["sends_heartbeat"] is False
    assert beats(server) == []


@pytest.mark.parametrize("answer", [b"{}", b"", b"<html>", b'"running"', b"7"])
def test_any_other_answer_does_nothing(server, answer):
    server.answer = lambda r: (200, {}, answer if r.path.endswith("heartbeat") else b"{}")
    with dbnd_tracking("job", conf=conf(server)):
        wait_until(lambda: len(beats(server)) >= 2, lambda: str(beats(server)))
    assert [r.body["state"] for r in server.requests if r.path.endswith("set_run_state")] == ["SUCCESS"]


def start(command, server, code):
    Path("tasks.py").write_text(f"import time\nfrom dbnd import dbnd_tracking, task\n{code}\n")
    env = {
        **os.environ,
        "DBND__CORE__DATABAND_URL": server.url,
        "DBND__CORE__DATABAND_ACCESS_TOKEN": "t",
        "DBND__RUN__HEARTBEAT_INTERVAL_S": "0.1",
    }
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)


def script(name):
    return str(Path(sysconfig.get_path("scripts")) / name)


def check_cancelled(server):
    states = [r.body["state"] for r in server.requests if r.path.endswith("set_run_state")]
    assert states[-1] == "CANCELLED"
    updates = [r.body for r in server.requests if r.path.endswith("update_task_run_attempts")]
    (last,) = updates[-1]["task_run_attempt_updates"]
    assert last["state"] == "CANCELLED"
    assert last["error"] is not None
    (rest,) = [r.body for r in server.requests if r.path.endswith("set_unfinished_tasks_state")]
    assert rest["state"] == "UPSTREAM_FAILED"


def test_a_tracker_can_ask_a_run_to_end(server):
    server.answer = answers("shutdown")
    code = f"@task\ndef waits():\n    for _ in range(100 * {PATIENCE}): time.sleep(0.01)"
    done = start([script("dbnd"), "run", "tasks.py::waits"], server, code)
    assert done.returncode == 10, done.stderr
    check_cancelled(server)


def test_a_tracker_can_ask_a_script_to_end(server):
    server.answer = answers("shutdown")
    code = f"with dbnd_tracking('job'):\n    for _ in range(100 * {PATIENCE}): time.sleep(0.01)"
    done = start([script("python"), "tasks.py"], server, code)
    assert done.returncode == 143, done.stderr
    check_cancelled(server)
