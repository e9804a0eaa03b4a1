from __future__ import annotations

import gc
import importlib
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from dbnd import dbnd_tracking, log_artifact, log_metric, log_metrics
from dbnd._base.paths import journal_folder
from dbnd._context.registry import create_transport, get_client, load_config
from dbnd._journal import records
from dbnd._journal.file import JournalFile
from dbnd._journal.folders import folders_of, spares_of
from dbnd._journal.leftovers import find
from dbnd._model.points import point
from dbnd._model.run import Run, TaskDefinition
from dbnd._run.sync import delivering_leftovers
from dbnd._tracking.client import TrackingAPIClient
from dbnd._tracking.outbox import close_all, others_than

# Seconds after which something that should have happened has not; nothing waits for it to be over.
PATIENCE = 60


def group(number):
    return ["attempt", "user", [*point("n", number, 1_000_000)]]


def delivered(client):
    """What is said about what is left when everything that can be is delivered."""
    client.flush()
    return client.left_over()


@pytest.fixture
def client(server):
    made = TrackingAPIClient(server.url, load_config(conf={"core": {"databand_access_token": "t"}}), create_transport)
    yield made
    made.close()


def numbers(server):
    return [
        m["metric"]["value"] for r in server.requests if r.path.endswith("log_metrics") for m in r.body["metrics_info"]
    ]


def test_a_client_that_nobody_refers_to_any_more_is_closed_at_the_end_of_the_process(server):
    TrackingAPIClient(server.url, load_config(), create_transport).log_metrics([group(7)])
    gc.collect()
    (left,) = (outbox for outbox in others_than(None) if outbox.url == server.url)  # those that ``close_all`` closes
    assert left.close(30) is None
    assert numbers(server) == [7]


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
    config = load_config()
    assert get_client(server.url, config) is get_client(server.url, config)
    assert get_client(f"{server.url}1", config) is not get_client(server.url, config)


def test_a_down_tracker_costs_no_event(free_port, home):
    client = TrackingAPIClient(f"http://127.0.0.1:{free_port}", load_config(), create_transport)
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
from dbnd._config.config import Config
from dbnd._context.registry import create_transport, load_config
from dbnd._context.registry import get_client

def log(url):
    client = get_client(url, load_config(conf={"core": {"databand_access_token": "t"}}))
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
        "from dbnd._config.config import Config\n"
        "from dbnd._context.registry import create_transport, load_config\n"
        "from dbnd._context.registry import get_client\n"
        f"client = get_client({server.url!r}, load_config(conf={{'core.databand_access_token': 't'}}))\n"
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
        "started = time.monotonic(); client.flush(); print(time.monotonic() - started)\n",
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
        "from dbnd._config.config import Config\n"
        "from dbnd._context.registry import create_transport, load_config\n"
        "from dbnd._context.registry import get_client\n"
        f"client = get_client('http://127.0.0.1:{free_port}', load_config())\n"
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
    assert delivered(client) is None
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

    class Mapped(dict):
        def items(self):
            raise TrickyError

    class TrickyError(Exception):
        __str__ = Broken.__str__

    with dbnd_tracking("job", conf=conf):
        log_metrics({"broken": Broken(), Broken(): 1, "whole": 3})
        log_metric("at", 4, step=Broken(), timestamp=Broken())
        log_metrics(Mapped(a=1))
        log_metric(["not", "hashable"], 5)
        log_artifact("a", Broken())
        log_artifact(Broken(), "whole")
    assert numbers(server)[1:] == [1, 3, 4, 5]
    (artifact,) = [r.body for r in server.requests if r.path.endswith("log_artifact")]
    assert artifact["path"].endswith("/whole")
    said = capsys.readouterr().err
    assert said.count("(log_metrics) could not be kept and is lost: <TrickyError whose text form raises ZeroDiv") == 1
    assert "2 events could not be written to the journal and are lost" in said


@pytest.mark.parametrize(
    ("time", "kept"),
    [
        (datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2024-01-01T22:00:00+00:00"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "0001-01-01T00:00:00+00:00"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-9))), "9999-12-31T23:59:59.999999+00:00"),
        (1.5, None),
        ("2024-01-02", None),
        (True, None),
        (date(2024, 1, 2), None),
    ],
    ids=str,
)
def test_a_value_outlives_the_timestamp_that_it_was_given(server, time, kept):
    conf = {"core": {"databand_url": server.url, "databand_access_token": "t"}}
    began = datetime.now(timezone.utc)
    with dbnd_tracking("job", conf=conf):
        log_metric("a", 1, timestamp=time)
    (metric,) = [m["metric"] for r in server.requests if r.path.endswith("log_metrics") for m in r.body["metrics_info"]]
    assert metric["value"] == 1
    found = metric["timestamp"]
    assert found == kept or (kept is None and began <= datetime.fromisoformat(found) <= datetime.now(timezone.utc))


def test_a_time_of_pandas_is_a_time(server):
    pandas = pytest.importorskip("pandas")
    with dbnd_tracking("job", conf={"core": {"databand_url": server.url, "databand_access_token": "t"}}):
        log_metric("a", 1, timestamp=pandas.Timestamp("2024-01-02T00:00:00Z"))
        log_metric("b", 1, timestamp=pandas.Timestamp("2024-01-02"))
        log_metric("c", 1, timestamp=pandas.NaT)
    found = [m["metric"] for r in server.requests if r.path.endswith("log_metrics") for m in r.body["metrics_info"]]
    assert found[0]["timestamp"] == "2024-01-02T00:00:00+00:00"
    assert found[1]["timestamp"] == datetime(2024, 1, 2).astimezone(timezone.utc).isoformat()
    assert datetime.fromisoformat(found[2]["timestamp"]).year >= datetime.now(timezone.utc).year


def test_an_artifact_is_logged_where_the_working_directory_is_gone(server, tmp_path, monkeypatch):
    conf = {"core": {"databand_url": server.url, "databand_access_token": "t"}}
    with dbnd_tracking("job", conf=conf):
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        log_artifact("a", "model.bin")
        log_artifact("b", b"/models/\xff")
    found = [r.body["path"] for r in server.requests if r.path.endswith("log_artifact")]
    assert found == ["model.bin", "/models/\\udcff"]


class Half:
    """What programs put in the place of a stream: it has what ``print`` needs."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


class Raising:
    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("make", [Half, Raising, object, io.BytesIO, lambda: None], ids=lambda m: m.__name__)
def test_a_stream_that_is_only_half_one_disturbs_nobody(server, monkeypatch, make):
    conf = {"core": {"databand_url": server.url, "databand_access_token": "t"}}
    stream = make()
    with dbnd_tracking("job", conf=conf):
        monkeypatch.setattr(sys, "stderr", stream)
        log_metrics(None)
        log_metric("a", 1)
    assert numbers(server) == [1]
    assert not isinstance(stream, Half) or "could not be kept and is lost" in stream.text


def test_nothing_that_is_opened_gets_the_number_of_a_standard_stream(server, home):
    """What C code says on standard error must go neither into the journal nor to the tracker."""
    conf = {"core": {"databand_url": server.url, "databand_access_token": "t"}}
    script = (
        "import os, stat, sys; from dbnd import dbnd_tracking, log_metric\n"
        "for fd in range(3): os.close(fd)\n"
        f"with dbnd_tracking('job', conf={conf}):\n"
        "    log_metric('n', 1)\n"
        "    from dbnd import get_databand_context\n"
        "    client = get_databand_context().client\n"
        f"    client.flush({PATIENCE})\n"
        "    for fd in range(3):\n"
        "        try: os.write(fd, b'said by C code')\n"
        "        except OSError: continue\n"
        "        os._exit(fd + 10)\n"
        "    log_metric('n', 2)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert numbers(server) == [1, 2]


def test_a_clock_that_stands_still_holds_nobody_up(server):
    """As of a test suite that stops the date, and time.monotonic() with it."""
    server.answer = lambda _: (503, {}, b"")
    conf = {"core": {"databand_url": server.url, "databand_access_token": "t", "flush_timeout": 0.5}}
    script = (
        "import time; from dbnd import dbnd_tracking, log_metric\n"
        "time.monotonic = lambda: 5.0\n"
        f"with dbnd_tracking('job', conf={conf}): log_metric('n', 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=PATIENCE, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.count("events are not delivered") == 1


def test_where_nothing_can_be_written_a_user_without_a_home_is_told(server, monkeypatch, capsys):
    monkeypatch.delenv("DBND_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: (_ for _ in ()).throw(FileNotFoundError))
    monkeypatch.setattr("dbnd._journal.journal.spares_of", lambda _: [])
    monkeypatch.setattr("dbnd._config.settings.journal_folder", lambda: Path("/dev/null/journal"))
    with dbnd_tracking("job", conf={"core": {"databand_url": server.url, "databand_access_token": "t"}}):
        log_metric("n", 1)
    assert "could not be kept and is lost: [Errno" in capsys.readouterr().err


def test_a_clock_before_1970_delivers(server, monkeypatch):
    monkeypatch.setattr("time.time", lambda: -1e9)
    with dbnd_tracking("job", conf={"core": {"databand_url": server.url, "databand_access_token": "t"}}):
        log_metric("a", 1)
    assert numbers(server) == [1]


def test_the_numbers_that_a_training_has_seeded_stay_what_they_are(free_port):
    url = f"http://127.0.0.1:{free_port}"
    random.seed(7)
    expected = random.getstate()
    with dbnd_tracking("job", conf={"core": {"databand_url": url, "databand_access_token": "t"}}):
        log_metric("a", 1)
    assert random.getstate() == expected


def test_what_is_beyond_the_cap_is_counted_and_said(free_port, capsys):
    url = f"http://127.0.0.1:{free_port}"
    conf = {"core": {"journal_max_bytes": 10_000, "flush_timeout": 0}}
    client = TrackingAPIClient(url, load_config(conf=conf), create_transport)
    for number in range(1_000):
        client.log_metrics([group(number)])
    assert client.dropped > 0
    assert client.unsent + client.dropped == 1_000
    said = capsys.readouterr().err
    assert said.count("the journal has reached core.journal_max_bytes = 10000") == 1
    assert f"{client.dropped} events could not be written to the journal and are lost" in delivered(client)
    client.close(0)


def test_a_new_token_counts_for_what_is_unsent(server):
    server.answer = lambda r: (200 if r.headers["Authorization"] == "Bearer right" else 401, {}, b"{}")
    client = get_client(server.url, load_config(conf={"core.databand_access_token": "wrong"}))
    client.log_metrics([group(1)])
    assert not client.flush(PATIENCE)
    assert "refuses the credentials" in client.trouble
    assert get_client(server.url, load_config(conf={"core.databand_access_token": "right"})) is client
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
        "from dbnd._config.config import Config\n"
        "from dbnd._context.registry import create_transport, load_config\n"
        "client = TrackingAPIClient('http://127.0.0.1:9', load_config(), create_transport)\n"
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
    client = TrackingAPIClient(f"http://127.0.0.1:{free_port}", load_config(), create_transport)
    for number in range(3):
        client.log_metrics([group(number)])
    path = client._sender.journal.path
    path.write_bytes(path.read_bytes().replace(b'"n",1,', b'"n",7,'))
    client._sender.use(create_transport(server.url, load_config(conf={"core.databand_access_token": "t"})))
    assert client.flush(PATIENCE)
    assert numbers(server) == [0, 2]
    kept = path.with_suffix(".damaged")
    said = f"1 events in the journal are damaged and lost; their bytes are kept in {kept}."
    assert delivered(client) == said
    assert capsys.readouterr().err.count(said) == 1
    client.close()
    assert [p.name for p in path.parent.iterdir()] == [kept.name]


@pytest.fixture
def no_home(home, tmp_path, monkeypatch):
    """A home that cannot be written, and a temporary folder of the test's own."""
    blocked = home / "file"
    blocked.write_text("")
    monkeypatch.setenv("DBND_HOME", str(blocked))
    temporary = tmp_path / "tmp"
    temporary.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setattr("dbnd._terminal.console._warned", set())
    return temporary


def test_a_journal_that_cannot_be_made_is_kept_elsewhere_and_delivered_from_there(server, no_home, capsys, free_port):
    url = f"http://127.0.0.1:{free_port}"
    for number in range(2):
        client = TrackingAPIClient(url, load_config(), create_transport)
        client.log_metrics([group(number)])
        client.close(0)
    said = capsys.readouterr().err
    assert said.count("they are kept in ") == 1
    assert client.dropped == 0
    found = find(journal_folder())
    assert len(found) == 2
    (folder,) = {leftover.path.parent for leftover in found}
    assert folder.is_relative_to(no_home)
    assert f"kept in {folder}, and `dbnd sync` looks there" in said
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    for leftover in found:  # they go to where they were logged for: here, to a tracker at another address
        leftover.path.write_bytes(records.frame({"journal": 1, "id": leftover.path.stem, "url": server.url}))
        with leftover.path.open("ab") as file:
            file.write(records.frame(("log_metrics", [group(7)])))
    config = load_config(conf={"core.databand_url": server.url, "core.databand_access_token": "t"})
    with delivering_leftovers(config):
        pass
    assert numbers(server) == [7, 7]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("trap", ["link", "open", "file"])
def test_a_folder_that_somebody_else_may_have_made_is_not_used(server, no_home, tmp_path, monkeypatch, trap):
    monkeypatch.setattr("dbnd._journal.journal.spares_of", lambda home: list(spares_of(home))[:1])
    (spare,) = list(spares_of(journal_folder()))[:1]
    if trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        spare.parent.symlink_to(tmp_path / "elsewhere")
    elif trap == "open":
        spare.parent.mkdir()
        spare.parent.chmod(0o777)
    else:
        spare.parent.write_text("")
    client = TrackingAPIClient(server.url, load_config(), create_transport)
    client.log_metrics([group(1)])
    assert client.dropped == 1
    assert not spare.exists()
    assert folders_of(journal_folder()) == []


def test_a_journal_that_cannot_be_made_anywhere_is_said_and_not_tried_at_each_call(
    server, no_home, monkeypatch, capsys
):
    tried = []

    def none(home):
        tried.append(home)
        return []

    monkeypatch.setattr("dbnd._journal.journal.spares_of", none)
    client = TrackingAPIClient(server.url, load_config(), create_transport)
    run = Run("job", "run")
    client.init_run(run, run.new_task_run(TaskDefinition("t"), parent=None))
    for number in range(100):
        client.log_metrics([group(number)])
    assert (client.dropped, len(tried)) == (101, 1)
    assert not run.is_known()
    assert capsys.readouterr().err.count("could not be kept and is lost") == 1
    assert delivered(client) == "101 events could not be written to the journal and are lost."
    no_home.parent.joinpath("home/file").unlink()
    client._open_again_at = 0.0  # it is tried again some seconds later
    client.log_metrics([group(7)])
    assert client.dropped == 101
    client.close(0)


@pytest.mark.parametrize(("status", "known"), [(200, True), (400, False), (503, False)])
def test_a_run_is_known_once_the_tracker_has_taken_it(client, server, status, known):
    server.answer = lambda _: (status, {}, b"{}")
    run = Run("job", "run")
    client.init_run(run, run.new_task_run(TaskDefinition("t"), parent=None))
    client.flush(PATIENCE if status != 503 else 0.5)
    assert run.is_known() is known
    client.close(0)


def test_events_of_a_journal_that_was_removed_are_written_anew(free_port, server):
    client = TrackingAPIClient(f"http://127.0.0.1:{free_port}", load_config(), create_transport)
    client.log_metrics([group(1)])
    path = client._sender.journal.path
    shutil.rmtree(path.parent)
    client.log_metrics([group(2)])
    assert "2 events are not delivered" in (said := delivered(client))
    assert f"they wait in {path}" in said
    assert JournalFile.adopt(path) is None  # it is still this process' own
    client.log_metrics([group(3)])
    shutil.rmtree(path.parent)
    client.close(0)
    adopted = JournalFile.adopt(path)
    assert [record.body for record in adopted.read(1 << 20)] == [[group(n)] for n in (1, 2, 3)]
    adopted.close()


def test_a_journal_that_was_removed_is_delivered_all_the_same(client, server):
    server.answer = lambda _: (503, {}, b"{}")
    for number in range(3):
        client.log_metrics([group(number)])
    path = client._sender.journal.path
    shutil.rmtree(path.parent)
    server.answer = lambda _: (200, {}, b"{}")
    assert client.flush(PATIENCE)
    assert sorted(set(numbers(server))) == [0, 1, 2]
    client.close()
    assert not path.exists()


def test_events_that_can_be_written_nowhere_are_said_to_be_lost(free_port):
    client = TrackingAPIClient(f"http://127.0.0.1:{free_port}", load_config(), create_transport)
    client.log_metrics([group(1)])
    path = client._sender.journal.path
    shutil.rmtree(path.parent)
    path.parent.write_text("")
    assert "1 events are not delivered, and lost when the process ends" in (said := delivered(client))
    assert "wait in" not in said
    client.close(0)


LATE = """
import atexit
atexit.register(lambda: log(1, 2, 3))
from dbnd._config.config import Config
from dbnd._context.registry import load_config
from dbnd._context.registry import get_client

def log(*values):
    for value in values:
        client.log_metrics([["a", "user", ["n", value, 0, None, None]]])

client = get_client(URL, load_config(conf={"core.databand_access_token": "t", "core.flush_timeout": 5}))
log(0)
"""


def test_what_is_logged_after_our_own_exit_handler_is_delivered(cold_python, server, home):
    done = cold_python(LATE.replace("URL", repr(server.url)), timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(server) == [0, 1, 2, 3]
    assert list((home / "dbnd/journal").iterdir()) == []


def test_what_is_logged_after_our_own_exit_handler_and_waits_is_said_once(cold_python, free_port, home):
    done = cold_python(LATE.replace("URL", f"'http://127.0.0.1:{free_port}'"), timeout=PATIENCE)
    late = [line for line in done.stderr.splitlines() if "Logged after the end of tracking" in line]
    assert len(late) == 1
    found = find(home / "dbnd/journal")
    assert [leftover.events for leftover in found] == [1, 3]
    assert str(found[1].path) in late[0]


def test_what_is_left_is_said_of_each_journal(free_port):
    client = TrackingAPIClient(f"http://127.0.0.1:{free_port}", load_config(), create_transport)
    for number in range(2):
        client.log_metrics([group(number)])
        assert "1 events are not delivered" in client.close(0)
    assert client.close(0) is None


def test_threads_of_a_child_may_log_after_its_function_has_returned(python, server):
    """multiprocessing calls its finalizers before it waits for threads, up to Python 3.12."""
    done = python(
        "import multiprocessing, threading, sys\n"
        "from multiprocessing import util\n"
        "from dbnd._config.config import Config\n"
        "from dbnd._context.registry import create_transport, load_config\n"
        "from dbnd._context.registry import get_client\n"
        "def log(value): client.log_metrics([['a', 'user', ['n', value, 0, None, None]]])\n"
        "def child():\n"
        "    finalized = threading.Event()\n"
        "    util.Finalize(None, finalized.set, exitpriority=-100)\n"
        "    log(1)\n"
        "    threading.Thread(target=lambda: (finalized.wait(2), log(2), log(3))).start()\n"
        f"client = get_client({server.url!r}, load_config(conf={{'core.databand_access_token': 't'}}))\n"
        "process = multiprocessing.get_context('fork').Process(target=child)\n"
        "process.start(); process.join(); sys.exit(process.exitcode)\n",
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(server) == [1, 2, 3]


def test_no_event_is_larger_than_a_tracker_takes(client, server):
    log_many = {f"k{n}": float(n) for n in range(23_456)}
    client.log_metrics([["attempt", "user", [p for k, v in log_many.items() for p in (k, v, 0, None, None)]]])
    run = Run("job", "run")
    task_runs = [run.new_task_run(TaskDefinition("t"), parent=None) for _ in range(1_200)]
    client.add_task_runs(run, task_runs)
    assert client.flush(PATIENCE)
    batches = [r.body["metrics_info"] for r in server.requests if r.path.endswith("log_metrics")]
    assert max(map(len, batches)) <= 5_000
    assert {m["metric"]["key"]: m["metric"]["value"] for b in batches for m in b} == log_many
    infos = [r.body["task_runs_info"] for r in server.requests if r.path.endswith("add_task_runs")]
    assert max(len(info["task_runs"]) for info in infos) <= 500
    assert [t["task_run_uid"] for info in infos for t in info["task_runs"]] == [t.uid for t in task_runs]
    assert all(len(info["task_definitions"]) == len(info["task_runs"]) for info in infos)


def test_events_full_of_lists_are_no_larger_than_a_tracker_takes(client, server):
    values = {f"k{n}": [1] * 1_600 for n in range(500)}
    log = [["attempt", "user", [p for k, v in values.items() for p in point(k, v, 0)]]]
    client.log_metrics(log)
    assert client.flush(PATIENCE)
    bodies = [r.body for r in server.requests if r.path.endswith("log_metrics")]
    assert {m["metric"]["key"] for b in bodies for m in b["metrics_info"]} == set(values)
    assert max(json.dumps(body).count("1,") for body in bodies) < 1_000_000
