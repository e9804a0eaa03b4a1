from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from dbnd import dbnd_tracking, log_artifact, log_metric
from dbnd._config import Config
from dbnd._tracking.client import TrackingAPIClient, close_all, get_client
from dbnd._tracking.points import point
from dbnd._tracking.transport import create_transport

# Seconds after which something that should have happened has not; nothing waits for it to be over.
PATIENCE = 60


def group(number):
    return ["attempt", "user", [*point("n", number, 1_000_000)]]


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
    client.log_metrics([["a", "user", ["n", 7, 0, None, None]]])
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
        "client.log_metrics([['a', 'user', ['n', 5, 0, None, None]]])\n"
    )
    assert done.returncode == 0, done.stderr
    assert numbers(server) == [5]


def test_a_hanging_tracker_does_not_hang_the_exit(python, server):
    """The end of the context and the end of the process share one ``core.flush_timeout``."""
    release = threading.Event()
    server.answer = lambda _: (release.wait(PATIENCE), (200, {}, b""))[1]
    done = python(
        "import time\n"
        "from dbnd import dbnd_tracking, get_databand_context\n"
        f"conf = {{'core': {{'databand_url': {server.url!r}, 'databand_access_token': 't', 'flush_timeout': 1}}}}\n"
        "with dbnd_tracking('job', conf=conf): client = get_databand_context().client\n"
        "print(client._waited)\n"
        "started = time.monotonic(); client.drain(); print(time.monotonic() - started)\n",
        timeout=PATIENCE,
    )
    release.set()
    assert done.returncode == 0, done.stderr
    waited, waited_again = map(float, done.stdout.split())
    assert waited >= 1
    assert waited_again < waited
    assert done.stderr.count("events are not delivered") == 1
    assert "`dbnd sync` or the next `dbnd run` sends them" in done.stderr


def test_the_end_of_a_process_says_what_is_left(python, free_port):
    done = python(
        "from dbnd._config import Config\n"
        "from dbnd._tracking.client import get_client\n"
        f"client = get_client('http://127.0.0.1:{free_port}', Config.load())\n"
        "client.log_metrics([['a', 'user', ['n', 5, 0, None, None]]])\n"
    )
    assert done.returncode == 0
    assert "1 events are not delivered" in done.stderr
    assert "no connection" in done.stderr


def test_a_time_to_wait_begins_anew_when_the_tracker_is_back(client, server):
    client._waited = 1e9
    client.log_metrics([group(1)])
    server.answer = lambda _: (200, {}, b"{}")
    assert client.flush(PATIENCE)
    assert client.drain() is None
    assert client._waited == 0


@pytest.mark.parametrize("value", [object(), float("nan"), [[]]])
def test_no_log_call_ever_raises(client, server, capsys, value):
    if isinstance(value, list):  # what contains itself
        value[0].append(value)
    client.log_metrics([["attempt", "user", ["n", value, 0, None, None]]])
    client.log_metrics([group(7)])
    assert client.flush(PATIENCE)
    assert numbers(server)[-1] == 7
    assert client.dropped == isinstance(value, list)
    assert ("could not be kept and is lost" in capsys.readouterr().err) == bool(client.dropped)


def test_trouble_with_the_users_objects_stays_ours(server, capsys):
    class Broken:
        def __str__(self):
            raise ZeroDivisionError

        __repr__ = __str__

    conf = {"core": {"databand_url": server.url, "databand_access_token": "t"}}
    with dbnd_tracking("job", conf=conf):
        log_metric("broken", Broken())
        log_metric(Broken(), 1)
        log_metric("whole", 3)
    assert numbers(server) == [3]
    assert "2 events could not be written to the journal and are lost" in capsys.readouterr().err


def test_what_is_beyond_the_cap_is_counted_and_said(free_port, capsys):
    url = f"http://127.0.0.1:{free_port}"
    conf = {"core": {"journal_max_bytes": 10_000, "flush_timeout": 0}}
    client = TrackingAPIClient(url, Config.load(conf=conf))
    for number in range(1_000):
        client.log_metrics([group(number)])
    assert client.dropped > 0
    assert client.unsent + client.dropped == 1_000
    said = capsys.readouterr().err
    assert said.count("the journal has reached core.journal_max_bytes = 10000") == 1
    assert f"{client.dropped} events could not be written to the journal and are lost" in client.drain()
    client.close(0)


def test_a_new_token_counts_for_what_is_unsent(server):
    server.answer = lambda r: (200 if r.headers["Authorization"] == "Bearer right" else 401, {}, b"{}")
    client = get_client(server.url, Config.load(conf={"core.databand_access_token": "wrong"}))
    client.log_metrics([group(1)])
    assert not client.flush(PATIENCE)
    assert "refuses the credentials" in client.trouble
    assert get_client(server.url, Config.load(conf={"core.databand_access_token": "right"})) is client
    client.log_metrics([group(2)])
    assert client.flush(PATIENCE)
    sent = [r for r in server.requests if r.headers["Authorization"] == "Bearer right"]
    assert [m["metric"]["value"] for r in sent for m in r.body["metrics_info"]] == [1, 2]
    client.close()


def test_a_thread_that_logs_while_the_client_is_closed_loses_nothing(client, server):
    count = 2_000

    def log():
        for number in range(count):
            client.log_metrics([group(number)])

    thread = threading.Thread(target=log)
    thread.start()
    while thread.is_alive():
        client.close(PATIENCE)
    client.close(PATIENCE)
    assert client.dropped == 0
    assert sorted(numbers(server)) == list(range(count))


def test_a_daemon_thread_that_logs_at_the_end_neither_raises_nor_hangs(python, server):
    done = python(
        "import threading, time\n"
        "from dbnd import dbnd_tracking, log_metric\n"
        f"conf = {{'core': {{'databand_url': {server.url!r}, 'databand_access_token': 't'}}}}\n"
        "def log():\n"
        "    while True: log_metric('n', 1)\n"
        "context = dbnd_tracking('job', conf=conf)\n"
        "context.__enter__()\n"
        "threading.Thread(target=log, daemon=True).start()\n"
        "time.sleep(0.5)\n",
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_a_process_that_tracks_nothing_starts_no_thread_and_makes_no_file(python, home):
    done = python(
        "import threading, dbnd\n"
        "from dbnd import dbnd_tracking, log_metric, task, TrackingAPIClient\n"
        "from dbnd._config import Config\n"
        "client = TrackingAPIClient('http://127.0.0.1:9', Config.load())\n"
        "print(threading.active_count())\n"
    )
    assert done.stdout == "1\n", done.stderr
    assert not (home / "dbnd").exists()


def test_values_that_nobody_could_read_back_block_nothing(server, capsys):
    deep = 1
    for _ in range(980):
        deep = [deep]
    conf = {"core": {"databand_url": server.url, "databand_access_token": "t"}}
    with dbnd_tracking("job\ud800", conf=conf):
        for value in (10**5000, deep, {"a": "\ud800"}, "a\0b"):
            log_metric("p\ud800", value, step=2**70)
        log_artifact("name\0", "/path\udcff")
        log_metric("whole", 3)
    assert numbers(server) == ["1.000000e+5000", "[[[[[[[...]]]]]]]", {"a": "?"}, "a\ufffdb", 3]
    sent = json.dumps([r.body for r in server.requests], ensure_ascii=False)
    assert re.search("[\0\ud800-\udfff]", sent) is None
    assert "set_run_state" in server.calls()
    assert "lost" not in capsys.readouterr().err


def test_a_damaged_event_of_the_running_process_is_said_and_counted(free_port, server, capsys):
    client = TrackingAPIClient(f"http://127.0.0.1:{free_port}", Config.load())
    for number in range(3):
        client.log_metrics([group(number)])
    path = client.journal_path
    path.write_bytes(path.read_bytes().replace(b'"n",1,', b'"n",7,'))
    client._channel.sender.use(create_transport(server.url, Config.load(conf={"core.databand_access_token": "t"})))
    assert client.flush(PATIENCE)
    assert numbers(server) == [0, 2]
    kept = path.with_suffix(".damaged")
    said = f"1 events in the journal are damaged and lost; their bytes are kept in {kept}."
    assert client.drain() == said
    assert capsys.readouterr().err.count(said) == 1
    client.close()
    assert [p.name for p in path.parent.iterdir()] == [kept.name]
