from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import pytest

from dbnd._config import Config
from dbnd._tracking.client import TrackingAPIClient, close_all, get_client
from dbnd._tracking.points import point


def group(number):
    return ["attempt", "user", [point("n", number, 1_000_000)]]


@pytest.fixture
def client(server):
    made = TrackingAPIClient(server.url, Config.load(conf={"core": {"databand_access_token": "t"}}))
    yield made
    made.close()


def numbers(server):
    return [
        m["metric"]["value"] for r in server.requests if r.path.endswith("log_metrics") for m in r.body["metrics_info"]
    ]


def test_what_is_logged_arrives_once_and_in_order(client, server):
    for number in range(500):
        client.log_metrics([group(number)])
    assert client.flush(30)
    assert numbers(server) == list(range(500))
    assert client.unsent == 0


def test_delivered_journals_are_removed_and_a_closed_client_starts_anew(client, server, home):
    client.log_metrics([group(1)])
    assert list((home / "dbnd/journal").glob("*.journal"))
    client.close()
    assert list((home / "dbnd/journal").iterdir()) == []
    client.log_metrics([group(2)])
    client.close()
    assert numbers(server) == [1, 2]


def test_a_client_that_logs_nothing_leaves_no_trace(client, home):
    assert client.flush(1)
    client.close()
    assert not (home / "dbnd").exists()


def test_one_client_for_each_url(server):
    config = Config.load()
    assert get_client(server.url, config) is get_client(server.url, config)
    assert get_client(f"{server.url}1", config) is not get_client(server.url, config)


def test_log_calls_do_not_raise_when_the_journal_cannot_be_written(server, home, capsys, monkeypatch):
    blocked = home / "file"
    blocked.write_text("")
    monkeypatch.setenv("DBND_HOME", str(blocked))
    client = TrackingAPIClient(server.url, Config.load())
    client.log_metrics([group(1)])
    client.log_metrics([group(2)])
    assert client.dropped == 2
    said = capsys.readouterr().err
    assert said.count("could not be kept and is lost") == 1


def test_a_down_tracker_costs_no_event(free_port, home):
    client = TrackingAPIClient(f"http://127.0.0.1:{free_port}", Config.load())
    for number in range(100):
        client.log_metrics([group(number)])
    client.close(timeout=5)
    (path,) = (home / "dbnd/journal").glob("*.journal")
    assert len(path.read_bytes().splitlines()) == 101


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_has_a_journal_of_its_own(client, server):
    client.log_metrics([group(1)])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            client.log_metrics([group(2)])
            status = 0 if client.flush(30) else 2
            close_all()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    client.log_metrics([group(3)])
    assert client.flush(30)
    assert sorted(numbers(server)) == [1, 2, 3]
    journals = {r.headers["X-Databand-Batch"].partition(":")[0] for r in server.requests if "Batch" in str(r.headers)}
    assert len(journals) == 2


CHILD = """
from dbnd._config import Config
from dbnd._tracking.client import get_client

def log(url):
    client = get_client(url, Config.load(conf={"core": {"databand_access_token": "t"}}))
    client.log_metrics([["a", "user", [["n", 7, 0]]]])
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_deliver_before_they_end(server, method, monkeypatch):
    # A module that a spawned child can import, which a test module is not.
    Path(f"child_of_{method}.py").write_text(CHILD)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    log = importlib.import_module(f"child_of_{method}").log
    context = multiprocessing.get_context(method)
    process = context.Process(target=log, args=(server.url,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert numbers(server) == [7]


def test_exit_of_the_process_delivers(python, server):
    done = python(
        "from dbnd._config import Config\n"
        "from dbnd._tracking.client import get_client\n"
        f"client = get_client({server.url!r}, Config.load(conf={{'core.databand_access_token': 't'}}))\n"
        "client.log_metrics([['a', 'user', [['n', 5, 0]]]])\n"
    )
    assert done.returncode == 0, done.stderr
    assert numbers(server) == [5]


def test_a_hanging_tracker_does_not_hang_the_exit(python, server):
    release = threading.Event()
    server.answer = lambda _: (release.wait(60), (200, {}, b""))[1]
    done = python(
        "from dbnd._config import Config\n"
        "from dbnd._tracking.client import get_client\n"
        "conf = {'core.databand_access_token': 't', 'core.flush_timeout': 0.5}\n"
        f"get_client({server.url!r}, Config.load(conf=conf)).log_metrics([['a', 'user', [['n', 5, 0]]]])\n",
        timeout=50,
    )
    release.set()
    assert done.returncode == 0, done.stderr
