"""A process that leaves its events to a relay, and the relay as a command."""

from __future__ import annotations

import json
import signal

import pytest
from kit.progress import wait_until

from dbnd._context.registry import load_config
from dbnd._journal.leftovers import find
from dbnd._run.sync import Sync

JOB = """
from dbnd import dbnd_tracking, log_metric
with dbnd_tracking("job"):
    for n in range(3):
        log_metric("n", n, step=n)
"""


@pytest.fixture
def node(tmp_path, server):
    """The environment of a process that sends nothing itself."""
    core = {"JOURNAL_FOLDER": str(tmp_path / "shared"), "DELIVERY": "relay", "DATABAND_URL": server.url}
    return {f"DBND__CORE__{key}": value for key, value in core.items()} | {"DBND__CORE__DATABAND_ACCESS_TOKEN": "t"}


@pytest.fixture
def shared(tmp_path):
    return tmp_path / "shared"


def test_a_node_sends_nothing_and_says_where_its_events_are(dbnd, python, node, shared, server, tmp_path):
    done = python(JOB, **node)
    assert done.returncode == 0
    (left,) = find(shared)
    assert f"{left.events} events for the tracker {server.url} are kept in {shared}" in done.stderr
    assert "warning" not in done.stderr
    tmp_path.joinpath("work/job.py").write_text("from dbnd import task\n@task\ndef train(): pass\n")
    done = dbnd("run", "job.py::train", **node, DBND__CORE__TRACKER_RAISE_ON_ERROR="True")
    assert done.returncode == 0, done.stderr
    assert "wait for a relay" in done.stderr
    assert server.requests == []

    doctor = json.loads(dbnd("doctor", "--json", **node).stdout)
    assert [each["text"] for each in doctor if "waiting" in each["text"]]
    assert len(find(shared)) == 2
    assert dbnd("sync", **node).returncode == 0
    assert find(shared) == []
    assert {"init_run", "log_metrics"} <= set(server.calls())
    runs = [request.body["init_args"]["new_run_info"] for request in server.requests if "init_run" in request.path]
    assert [run["sends_heartbeat"] for run in runs] == [False, False]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_relay_delivers_until_it_is_stopped(warm, python, node, shared, server, tmp_path, number):
    relay = warm.dbnd("sync", "--watch", str(shared), log=tmp_path / "log", **node | {"DBND__CORE__JOURNAL_FOLDER": ""})
    wait_until(lambda: "Delivering" in relay.output, lambda: relay.output)
    assert python(JOB, **node).returncode == 0
    wait_until(lambda: not list(shared.glob("*.journal")), lambda: relay.output)
    relay.signal(number)
    assert relay.wait() == 0, relay.output
    assert "set_run_state" in server.calls()
    assert "warning" not in relay.output


def test_a_sync_leaves_the_folder_to_the_relay(warm, dbnd, python, node, shared, server, tmp_path):
    server.answer = lambda _: (503, {}, b"")
    assert python(JOB, **node).returncode == 0
    relay = warm.dbnd("sync", "--watch", log=tmp_path / "log", **node)
    wait_until(lambda: server.requests, lambda: relay.output)
    done = dbnd("sync", **node)
    assert f"events are left to process {relay.pid} of " in done.stderr
    assert done.returncode == 0
    relay.kill()
    server.answer = lambda _: (200, {}, b"{}")
    config = load_config(conf={"core": {"databand_url": server.url, "databand_access_token": "t"}})
    assert Sync(shared, config).deliver(patience=60).is_complete
    assert find(shared) == []


def test_watching_takes_no_other_option(dbnd):
    done = dbnd("sync", "--watch", "--discard")
    assert done.returncode == 2
    assert "--watch delivers what is written" in done.stderr
