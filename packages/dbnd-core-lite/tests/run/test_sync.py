from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbnd import UsageError
from dbnd._base.paths import journal_folder
from dbnd._cli.sync import sync as command
from dbnd._context.registry import load_config
from dbnd._journal import journal as journal_module
from dbnd._journal import ownership, records
from dbnd._journal.journal import Journal
from dbnd._journal.leftovers import find, tidy
from dbnd._run.sync import Sync, delivering_leftovers
from dbnd._terminal import console

PATIENCE = 60


def config(server, **core):
    return load_config(conf={"core": {"databand_url": server.url, "databand_access_token": "t", **core}})


def leave(url, *values):
    """A journal of a process that is gone."""
    journal = Journal(journal_folder(), url)
    for value in values:
        body = [["attempt", "user", ["n", value, 0, None, None]]] if isinstance(value, int) else {}
        journal.append("log_metrics" if isinstance(value, int) else value, body)
    journal.close()


def numbers(server):
    return [
        m["metric"]["value"] for r in server.requests if r.path.endswith("log_metrics") for m in r.body["metrics_info"]
    ]


def deliver(server, **options):
    return Sync(journal_folder(), config(server), **options).deliver(patience=PATIENCE)


def test_journals_are_delivered_oldest_first_and_removed(server):
    for number in range(3):
        leave(server.url, number * 2, number * 2 + 1)
    report = deliver(server)
    assert numbers(server) == list(range(6))
    assert (report.delivered, report.is_complete) == (6, True)
    assert list(journal_folder().iterdir()) == []


def test_the_files_of_one_process_are_delivered_in_their_order(server, monkeypatch):
    monkeypatch.setattr(journal_module, "_FILE_SIZE", 500)
    leave(server.url, *range(100))
    assert len(list(journal_folder().glob("*.journal"))) > 5
    deliver(server)
    assert numbers(server) == list(range(100))


def test_the_second_file_waits_for_the_first(server, monkeypatch):
    """Two at once: what another one delivers at the moment comes first."""
    monkeypatch.setattr(journal_module, "_FILE_SIZE", 500)
    leave(server.url, *range(30))
    before = Sync(journal_folder(), config(server))
    assert len(before.found) > 2
    with before.found[0].path.open("rb") as held:
        assert ownership.own(held.fileno(), before.found[0].path)
        for work in (before, Sync(journal_folder(), config(server))):
            assert work.deliver(patience=PATIENCE).delivered == 0
    assert numbers(server) == []
    deliver(server)
    assert numbers(server) == list(range(30))


def test_a_journal_whose_process_lives_is_left_alone(server):
    journal = Journal(journal_folder(), server.url)
    journal.append("a", {})
    assert [leftover.state for leftover in find(journal_folder())] == ["in use"]
    assert deliver(server).delivered == 0
    assert server.calls() == []
    journal.close()
    assert deliver(server).delivered == 1


def test_what_a_killed_process_has_left_is_delivered_from_where_it_stopped(server):
    code = (
        "import os, signal\n"
        "from dbnd._config.config import Config\n"
        "from dbnd._context.registry import create_transport, load_config\n"
        "from dbnd._tracking.client import TrackingAPIClient\n"
        "config = load_config(conf={'core.databand_access_token': 't'})\n"
        f"client = TrackingAPIClient({server.url!r}, config, create_transport)\n"
        "def log(n): client.log_metrics([['attempt', 'user', ['n', n, 0, None, None]]])\n"
        "for n in range(50): log(n)\n"
        "assert client.flush(60)\n"
        "for n in range(50, 100): log(n)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    deliver(server)
    # This server does not tell apart what it has already, so the last batch may be there twice.
    assert sorted(set(numbers(server))) == list(range(100))
    assert list(journal_folder().iterdir()) == []


def test_an_unreachable_tracker_keeps_everything(server, free_port):
    url = f"http://127.0.0.1:{free_port}"
    leave(url, 1, 2)
    leave(url, 3)
    there = load_config(conf={"core.databand_url": url})
    report = Sync(journal_folder(), there).deliver(patience=PATIENCE)
    assert list(report.unreachable) == [f"the tracker {url}"]
    assert not report.is_complete
    assert sum(leftover.events for leftover in find(journal_folder())) == 3


def test_a_tracker_that_is_busy_is_tried_again(server):
    answers = [(503, {}, b""), (429, {"Retry-After": "1"}, b"")]
    server.answer = lambda _: answers.pop() if answers else (200, {}, b"{}")
    leave(server.url, 1)
    assert deliver(server).is_complete
    assert len(server.calls()) == 3


def test_events_for_another_tracker_are_named_and_get_no_credentials(server):
    leave("http://another:1", 1, 2)
    leave(server.url, 3)
    report = deliver(server)
    assert {each.name: events for each, events in report.elsewhere.items()} == {"the tracker http://another:1": 2}
    assert not report.is_complete
    assert numbers(server) == [3]
    assert [leftover.events for leftover in find(journal_folder())] == [2]


def test_credentials_in_the_url_do_not_make_it_another_tracker(server):
    leave(server.url.replace("//", "//***@"), 1)
    there = config(server, databand_url=server.url.replace("//", "//user:secret@"))
    assert Sync(journal_folder(), there).deliver(patience=PATIENCE).is_complete
    assert numbers(server) == [1]


def test_refused_events_become_dead_letters_and_can_be_sent_again(server):
    server.answer = lambda r: (400, {}, b"wrong") if "bad" in r.path else (200, {}, b"{}")
    leave(server.url, 1, "bad", 2)
    report = deliver(server)
    assert (report.delivered, report.refused) == (2, 1)
    assert "bad: it answered 400: wrong; kept in " in report.reason
    assert [leftover.state for leftover in find(journal_folder())] == ["refused"]
    assert Sync(journal_folder(), config(server)).found == []
    # Once more refused, it is still kept ...
    assert deliver(server, retry_dead=True).refused == 1
    assert [(x.state, x.events) for x in find(journal_folder())] == [("refused", 1)]
    # ... and once it is taken, it is gone.
    server.answer = lambda _: (200, {}, b"{}")
    assert deliver(server, retry_dead=True).delivered == 1
    assert find(journal_folder()) == []
    assert server.calls().count("bad") == 3
    assert list(journal_folder().iterdir()) == []


def test_unreadable_files_are_named_and_block_nothing(server):
    leave(server.url, 1)
    journal_folder().joinpath("x.journal").write_text("nonsense")
    report = deliver(server)
    assert numbers(server) == [1]
    assert "x.journal is no journal" in report.problems[0]
    assert not report.is_complete


def test_what_killed_processes_leave_beside_journals_is_tidied_up(home):
    folder = journal_folder()
    folder.mkdir(parents=True)
    for name in ("a.journal.ack", "b.journal.owner", "new.journal.new", "old.journal.new"):
        (folder / name).write_text("")
    os.utime(folder / "old.journal.new", (0, 0))
    leave("u", 1)
    tidy(folder)
    assert [path.name for path in folder.iterdir() if path.suffix != ".journal"] == ["new.journal.new"]


def pipe(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize("make", [pipe, endless, loop, Path.mkdir], ids=lambda make: make.__name__)
@pytest.mark.parametrize("suffix", [".journal", ".dead", ".damaged"])
def test_what_is_no_file_is_named_and_waited_for_by_nobody(server, make, suffix):
    leave(server.url, 1)
    odd = journal_folder() / f"odd{suffix}"
    make(odd)
    report = deliver(server, retry_dead=True)
    assert numbers(server) == [1]
    assert [str(odd) in problem for problem in report.problems] == [True] * (suffix != ".damaged")
    assert list(journal_folder().iterdir()) == [odd]
    assert [leftover.problem is not None and leftover.age < 3600 for leftover in find(journal_folder())] == [True]


@pytest.mark.parametrize("make", [pipe, endless, loop, Path.mkdir], ids=lambda make: make.__name__)
def test_what_stands_in_the_place_of_our_notes_is_left_there(server, make):
    leave(server.url, 1)
    (journal,) = journal_folder().glob("*.journal")
    odd = [journal.with_name(name) for name in (f"{journal.name}.ack", "gone.journal.owner", "gone.journal.new")]
    for path in odd:
        path.unlink(missing_ok=True)
        make(path)
        os.utime(path, (0, 0), follow_symlinks=False)
    report = deliver(server)
    assert (numbers(server), report.is_complete) == ([1], True)


@pytest.mark.parametrize("make", [pipe, endless, Path.mkdir], ids=lambda make: make.__name__)
def test_dead_letters_go_elsewhere_where_something_has_their_name(server, make):
    server.answer = lambda r: (422, {}, b"no") if r.path.endswith("log_artifact") else (200, {}, b"{}")
    leave(server.url, "log_artifact", 1)
    (journal,) = journal_folder().glob("*.journal")
    make(journal.with_suffix(".dead"))
    report = deliver(server)
    assert (numbers(server), report.refused) == ([1], 1)
    assert len(list(journal_folder().glob("*.dead"))) == 2


def test_progress_tells_what_is_left(server):
    leave(server.url, "a", "b", "c")
    told = []
    Sync(journal_folder(), config(server)).deliver(patience=PATIENCE, progress=told.append)
    assert told == [2, 1, 0]


def test_beside_a_run_leftovers_are_delivered_in_its_time(server):
    leave(server.url, *range(10))
    with delivering_leftovers(config(server)):
        pass
    assert numbers(server) == list(range(10))


@pytest.mark.parametrize("core", [{"sync_timeout": 0}, {"databand_url": "http://another:1"}])
def test_beside_a_run_nothing_is_delivered_when_that_is_off_or_for_another_tracker(server, core):
    leave(server.url, 1)
    with delivering_leftovers(config(server, **core)):
        pass
    assert server.requests == []


def test_a_hanging_tracker_holds_no_run_up_longer_than_its_time(server):
    release = threading.Event()
    server.answer = lambda _: (release.wait(PATIENCE), (200, {}, b"{}"))[1]
    leave(server.url, 1)
    started = time.monotonic()
    with delivering_leftovers(config(server, sync_timeout=0.5)):
        pass
    took = time.monotonic() - started
    release.set()
    assert took < PATIENCE / 2


def test_a_run_that_gets_no_thread_leaves_leftovers_to_another(server, monkeypatch):
    def fail(_):
        raise RuntimeError("can't start new thread")

    leave(server.url, 1)
    monkeypatch.setattr(threading.Thread, "start", fail)
    entered = False
    with delivering_leftovers(config(server)):
        entered = True
    assert entered
    assert len(find(journal_folder())) == 1


def test_trouble_beside_a_run_is_quiet(free_port, capsys):
    leave(f"http://127.0.0.1:{free_port}", 1)
    journal_folder().joinpath("x.journal").write_text("nonsense")
    with delivering_leftovers(load_config(conf={"core.databand_url": f"http://127.0.0.1:{free_port}"})):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def sync(dbnd, server):
    """Run ``dbnd sync`` for the scripted server."""

    def run(*args):
        return dbnd("sync", *args, DBND__CORE__DATABAND_URL=server.url, DBND__CORE__DATABAND_ACCESS_TOKEN="t")

    return run


def test_the_command_delivers(sync, server):
    leave(server.url, *range(5))
    done = sync()
    assert (done.returncode, done.stdout) == (0, "")
    assert "5 events are delivered" in done.stderr
    assert numbers(server) == list(range(5))
    assert "Nothing waits" in sync().stderr


def test_files_that_were_delivered_before_their_process_was_killed_are_removed(sync, server):
    leave(server.url, *range(5))
    (path,) = journal_folder().glob("*.journal")
    ack = path.with_name(f"{path.name}.ack")
    position = b"%020d %020d" % (5, path.stat().st_size)
    ack.write_bytes(b"%b %08x\n" % (position, zlib.crc32(position)))
    owned = Journal(journal_folder(), server.url)
    assert "Nothing waits" in sync().stderr
    assert server.requests == []
    assert list(journal_folder().iterdir()) == [owned.path]
    owned.close()


def test_the_command_lists_and_sends_nothing(sync, server):
    leave(server.url, 1, 2)
    leave("http://another:1", 3)
    done = sync("--list")
    assert done.returncode == 0
    assert [line.split()[:3] for line in done.stdout.splitlines()[1:]] == [
        ["2", "waiting", server.url],
        ["1", "waiting", "http://another:1"],
    ]
    rows = json.loads(sync("--list", "--json").stdout)
    assert [(row["events"], row["destination"], row["process"]) for row in rows] == [
        (2, server.url, os.getpid()),
        (1, "http://another:1", os.getpid()),
    ]
    assert all(Path(row["file"]).exists() for row in rows)
    assert server.requests == []


def test_a_dry_run_says_what_it_would_send(sync, server):
    leave(server.url, 1, 2)
    leave("http://another:1", 3)
    done = sync("--dry-run")
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first.startswith("2 events of ")
    assert first.endswith(f"for {server.url} would be sent.")
    assert "http://another:1 would not be sent" in second
    assert server.requests == []


def test_the_command_says_what_is_left_and_fails(sync, server):
    server.answer = lambda _: (401, {}, b"")
    leave(server.url, 1)
    leave("http://another:1", 3, 4)
    done = sync()
    assert done.returncode == 1
    assert "refuses the credentials of core.databand_access_token" in done.stderr
    assert "2 events are for the tracker http://another:1" in done.stderr
    assert "--set-config core.databand_url=http://another:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_progress_is_shown_on_a_terminal_only(monkeypatch, capsys):
    with console.progress("Delivering", 10, patience=0.0) as progress:
        progress(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.delenv("CI", raising=False)
    with console.progress("Delivering", 10, patience=0.0) as progress:
        progress(5)
    assert "Delivering" in capsys.readouterr().err
    with console.progress("Delivering", 10, patience=1e9) as progress:
        progress(5)
    assert capsys.readouterr().err == ""


def test_a_damaged_event_is_named_and_lost_and_the_others_are_delivered(server, dbnd):
    leave(server.url, 1, 2, 3)
    (path,) = journal_folder().glob("*.journal")
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"n",2,', b'"n",7,'))
    env = {"DBND__CORE__DATABAND_URL": server.url, "DBND__CORE__DATABAND_ACCESS_TOKEN": "t"}
    done = dbnd("sync", **env)
    kept = path.with_suffix(".damaged")
    assert done.returncode == 1
    assert "2 events are delivered" in done.stderr
    assert f"1 events are damaged and lost; their bytes are kept in {kept}" in done.stderr
    assert numbers(server) == [1, 3]
    assert b'"n",7,' in kept.read_bytes()
    listed = dbnd("sync", "--list", **env).stdout
    assert "damaged" in listed
    assert str(kept) in listed
    done = dbnd("sync", "--retry-dead", **env)  # nobody can deliver it, and it is for a person to remove it
    assert done.returncode == 0
    assert kept.exists()


def test_what_cannot_be_read_blocks_neither_its_journal_nor_the_others(server):
    for number in range(3):
        leave(server.url, number, "set_run_state")
    poisoned = sorted(journal_folder().glob("*.journal"))[1]
    header, *lines = poisoned.read_bytes().splitlines(keepends=True)
    data = b'["log_metrics",[["attempt","user",["n",%b,0,null,"j"]]]]' % (b"9" * 5_001)
    poisoned.write_bytes(b"".join([header, b"%08x %b\n" % (zlib.crc32(data), data), *lines]))
    report = deliver(server)
    assert sorted(numbers(server)) == [0, 1, 2]
    assert (report.delivered, report.refused, report.unreachable) == (6, 1, {})
    assert "it cannot be read" in report.reason
    assert not list(journal_folder().glob("*.journal"))


def test_a_header_that_no_dbnd_has_written_blocks_no_other_journal(server):
    leave(server.url, 1)
    odd = journal_folder() / "odd.journal"
    odd.write_bytes(records.frame({"journal": 1, "id": "odd", "url": server.url, "created": "yesterday"}))
    report = deliver(server)
    assert numbers(server) == [1]
    assert "no dbnd has written" in report.problems[0]
    assert odd.exists()


@contextmanager
def held(path):
    """As if another process had the file: it holds the lock that the owner of a file holds."""
    with path.open("rb") as file:
        assert ownership.own(file.fileno(), path)
        yield


def leave_as_a_dead_process(url, *values):
    """A journal of a process that lives no more: of one that lives, it would be taken for in use."""
    code = f"from dbnd._journal.journal import Journal\nfrom dbnd._base.paths import journal_folder\nimport sys\n\
journal = Journal(journal_folder(), {url!r})\nfor n in {values!r}:\n  journal.append('log_metrics', \
[['attempt', 'user', ['n', n, 0, None, None]]])\nprint(journal.path)\njournal.close()"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def test_a_journal_that_is_busy_for_a_moment_is_delivered(server):
    path = leave_as_a_dead_process(server.url, 1, 2)
    released = threading.Event()

    def hold(is_held):
        with held(path):
            is_held.set()
            released.wait(PATIENCE)

    is_held = threading.Event()
    thread = threading.Thread(target=hold, args=(is_held,))
    thread.start()
    assert is_held.wait(PATIENCE)
    threading.Timer(0.5, released.set).start()
    report = deliver(server)
    thread.join()
    assert numbers(server) == [1, 2]
    assert report.is_complete


def test_a_journal_that_stays_busy_is_left_and_said(server):
    path = leave_as_a_dead_process(server.url, 1, 2)
    with held(path):
        report = Sync(journal_folder(), config(server)).deliver(patience=0.3)
    assert report.busy == {path: 2}
    assert not report.is_complete
    assert server.requests == []


def test_a_busy_journal_holds_no_other_up(server):
    path = leave_as_a_dead_process(server.url, 1)
    leave_as_a_dead_process(server.url, 2)
    with held(path):
        report = Sync(journal_folder(), config(server)).deliver(patience=0.3)
    assert numbers(server) == [2]
    assert report.busy == {path: 1}


def test_what_a_living_process_delivers_itself_is_said_and_no_failure(sync, server):
    journal = Journal(journal_folder(), server.url)
    journal.append("a", {})
    elsewhere = Journal(journal_folder(), "http://another:1")
    elsewhere.append("a", {})
    done = sync()
    assert done.returncode == 0
    assert f"2 events are in use by process {os.getpid()}, which delivers them itself." in done.stderr
    assert server.requests == []
    journal.close()
    elsewhere.close()


def waiting():
    return [(x.state, x.events, x.header.url if x.header else None) for x in find(journal_folder())]


def test_what_no_tracker_takes_is_shown_and_discarded_when_that_is_wanted(sync, server, free_port):
    leave("http://gone:1", 1, 2)
    leave(server.url, 3)
    living = Journal(journal_folder(), "http://gone:1")
    living.append("a", {})
    journal_folder().joinpath("x.journal").write_text("nonsense")
    refused = sync("--discard")  # nobody answers
    assert refused.returncode == 2
    assert "nothing was removed: add --yes" in refused.stderr
    assert ("waiting", 2, "http://gone:1") in waiting()
    assert numbers(server) == [3]  # what can be delivered is
    done = sync("--discard", "--yes")
    assert "http://gone:1" in done.stdout
    assert "x.journal" in done.stdout
    assert "2 events are discarded" in done.stderr
    assert done.returncode == 0
    assert waiting() == [("in use", 1, "http://gone:1")]
    living.close()
    assert sync("--discard", "--yes").returncode == 0
    assert list(journal_folder().iterdir()) == []
    assert sync().returncode == 0


def test_dead_letters_are_discarded_if_they_are_meant(sync, server):
    server.answer = lambda r: (400, {}, b"wrong") if r.path.endswith("bad") else (200, {}, b"{}")
    leave(server.url, "bad")
    assert sync("--discard", "--yes").returncode == 1  # refused just now: kept as a dead letter
    assert [state for state, *_ in waiting()] == ["refused"]
    assert sync("--discard", "--yes").returncode == 0
    assert [state for state, *_ in waiting()] == ["refused"]
    done = sync("--discard", "--retry-dead", "--yes")
    assert done.returncode == 0, done.stderr
    assert list(journal_folder().iterdir()) == []


@pytest.mark.parametrize("other", ["--list", "--dry-run"])
def test_discarding_and_only_looking_exclude_each_other(sync, other):
    assert sync("--discard", other).returncode == 2


def test_what_is_no_list_is_no_json():
    with pytest.raises(UsageError, match="--json is for what --list shows"):
        command.main(["--json"], standalone_mode=False)


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"Content-Type": "text/plain"}, b"404 page not found\n"),
        (404, {"Content-Type": "application/json"}, b'{"detail": "Not Found"}'),
        (405, {}, b""),
        (400, {"Content-Type": "text/plain"}, b"Bad Request"),
        (410, {}, b""),
        (413, {}, b""),
    ],
    ids=lambda answer: str(answer[0]),
)
def test_a_gateway_that_refuses_every_call_keeps_all_journals(python, sync, server, answer):
    """Its tracker is just being replaced, or another service has its address."""
    leave(server.url, 1, 2, "set_run_state")
    server.answer = lambda _: answer
    impatient = (
        "import sys; from dbnd._cli import main, sync\nsync._PATIENCE = 0.5; sys.argv = ['dbnd', 'sync']; main.main()"
    )
    done = python(impatient, DBND__CORE__DATABAND_URL=server.url, DBND__CORE__DATABAND_ACCESS_TOKEN="t")
    assert done.returncode == 1
    assert done.stderr.count(f"it answered {answer[0]}") == 1
    server.requests.clear()
    server.answer = lambda _: (200, {}, b"{}")
    assert sync().returncode == 0
    assert numbers(server) == [1, 2]


def test_a_page_keeps_all_journals(sync, server):
    server.answer = lambda _: (200, {"Content-Type": "text/html"}, b"<html>Welcome")
    leave(server.url, 1, 2)
    done = sync()
    assert done.returncode == 1
    assert f"The tracker {server.url} does not take events (it answered 200 with text/html" in done.stderr
    assert [events for _, events, _ in waiting()] == [2]
