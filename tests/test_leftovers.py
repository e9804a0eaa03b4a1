"""What a process leaves behind is neither forgotten nor sent twice: promises 1, 5 and 9."""

from __future__ import annotations

import gzip
import json
import re
import signal
from pathlib import Path

import pytest
from kit import faults
from kit.jobs import journals
from kit.progress import TELLING, Progress, wait_until
from kit.trackers import reading

JOB = f"""{TELLING}
from dbnd import task

@task
def job():
    began()
    for n in range(1000):
        log_metric("n", n)

@task
def wait_for_the_leftovers():
    import time
    began()
    while os.path.exists(os.environ["LEFTOVER"]):
        time.sleep(0.01)
"""


@pytest.fixture
def job_file():
    Path("job.py").write_text(JOB)


def killed(jobs):
    """A process that kills itself as soon as its calls have returned."""
    _, progress = jobs.run(
        f"{TELLING}\n"
        "import signal\n"
        "with dbnd_tracking('killed'):\n"
        "    began()\n"
        "    for n in range(1000): log_metric('n', n)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        exit_code=-signal.SIGKILL,
    )
    return progress


def test_accepted_means_kept(jobs, proxy):
    proxy.refuse()
    progress = killed(jobs)
    proxy.listen()
    jobs.dbnd("sync")
    assert jobs.values(progress) == list(range(1000))


def test_nothing_is_forgotten_of_a_run_whose_tracker_is_dead(jobs, dbnd, proxy, job_file, tmp_path, home):
    """With the installed command, as users call it."""
    proxy.refuse()
    progress = Progress(tmp_path / "progress")
    done = dbnd("run", "job.py::job", PROGRESS=str(progress.path), **jobs.env)
    assert done.returncode == 0, done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if "are not delivered" in line]
    assert "dbnd sync" in sentence
    waiting = int(re.search(r"(\d[\d,]*) events", sentence)[1].replace(",", ""))
    assert waiting > 1000
    assert str(waiting) in dbnd("sync", "--list", **jobs.env).stdout
    proxy.listen()
    done = dbnd("sync", "--dry-run", **jobs.env)
    assert done.returncode == 0, done.stderr
    assert proxy.batches == []
    done = dbnd("sync", **jobs.env)
    assert done.returncode == 0, done.stderr
    assert str(waiting) in done.stderr
    assert jobs.values(progress) == list(range(1000))
    assert jobs.states(progress) == {"success"}
    assert journals(home) == []


def test_nothing_is_forgotten_by_the_next_run(jobs, proxy, job_file, tmp_path, home):
    proxy.refuse()
    progress = killed(jobs)
    (leftover,) = (home / "dbnd/journal").glob("*.journal")
    proxy.listen()
    nothing = str(tmp_path / "unused")
    jobs.dbnd("run", "job.py::wait_for_the_leftovers", LEFTOVER=str(leftover), PROGRESS=nothing)
    assert jobs.values(progress) == list(range(1000))
    assert journals(home) == []


def test_nothing_is_forgotten_when_the_tracker_refuses_it(jobs, proxy, home):
    """One event is wrong: it is kept aside, blocks nothing, and is delivered once the tracker takes it."""

    def refusing_666(exchange):
        if b"six666six" in gzip.decompress(exchange.read()):
            faults.answering(400, body=b'{"detail": "666 is not allowed"}')(exchange)
        else:
            faults.passing(exchange)

    proxy.otherwise = refusing_666
    code = (
        f"{TELLING}\n"
        "from datetime import datetime, timezone\n"
        "with dbnd_tracking('refused'):\n"
        "    began()\n"
        "    for n in [*range(600), *range(700, 1000)]:\n"
        "        log_metric('n', n, timestamp=datetime.fromtimestamp(n, timezone.utc))\n"
        "    log_metric('bad', 'six666six')\n"
    )
    process, progress = jobs.run(code)
    values = [*range(600), *range(700, 1000)]
    assert jobs.values(progress) == values
    assert jobs.states(progress) == {"success"}
    assert jobs.values(progress, "bad") == []
    assert "666 is not allowed" in process.output
    (dead,) = [row for row in json.loads(jobs.dbnd("sync", "--list", "--json")) if row["state"] == "refused"]
    assert dead["events"] == 1
    batches = len(proxy.batches)
    jobs.dbnd("sync")
    assert len(proxy.batches) == batches
    proxy.otherwise = faults.passing
    jobs.dbnd("sync", "--retry-dead")
    assert jobs.values(progress, "bad") == ["six666six"]
    assert jobs.values(progress) == values
    assert journals(home) == []


def test_two_syncs_at_once_send_nothing_twice(warm, jobs, proxy, tmp_path, home):
    proxy.refuse()
    left = [killed(jobs) for _ in range(5)]
    proxy.otherwise = faults.delaying(0.05)
    proxy.listen()
    syncs = [warm.dbnd("sync", log=tmp_path / f"sync-{n}", **jobs.env) for n in range(4)]
    for sync in syncs:
        assert sync.wait() == 0, sync.output
    jobs.dbnd("sync")
    for progress in left:
        assert jobs.values(progress) == list(range(1000))
    assert journals(home) == []


def test_a_sync_that_is_killed_is_taken_up_by_the_next(warm, jobs, proxy, tmp_path, home):
    proxy.refuse()
    left = [killed(jobs) for _ in range(3)]
    proxy.listen()
    # The tracker has taken the batch, and the one who sent it never learns of it.
    for number in range(1, 5):
        proxy.script(*[faults.passing] * (number - 1), faults.applied_unanswered)
        sync = warm.dbnd("sync", log=tmp_path / f"sync-{number}", **jobs.env)
        wait_until(lambda: proxy.rest == 0, lambda running=sync: running.output)
        sync.kill()
    jobs.dbnd("sync")
    for progress in left:
        assert jobs.values(progress) == list(range(1000))
    assert journals(home) == []


def test_a_sync_leaves_a_living_process_alone(jobs, proxy, tmp_path, home):
    proxy.refuse()
    enough = tmp_path / "enough"
    process, progress = jobs.start(
        f"{TELLING}\n"
        "import time\n"
        "with dbnd_tracking('living'):\n"
        "    began()\n"
        "    for n in range(1000):\n"
        "        log_metric('n', n)\n"
        "        returned()\n"
        "    while not os.path.exists(os.environ['ENOUGH']): time.sleep(0.01)\n",
        ENOUGH=str(enough),
    )
    wait_until(lambda: progress.returned == 1000, lambda: process.output)
    (row,) = json.loads(jobs.dbnd("sync", "--list", "--json"))
    assert row["state"] == "in use"
    assert "Nothing waits" in jobs.dbnd("sync")
    assert [name for name in journals(home) if name.endswith(".journal")]
    proxy.listen()
    enough.touch()
    assert process.wait() == 0, process.output
    assert jobs.values(progress) == list(range(1000))


def test_a_torn_last_record_was_never_accepted(jobs, proxy, home):
    proxy.refuse()
    progress = killed(jobs)
    (path,) = (home / "dbnd/journal").glob("*.journal")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert b"999" in lines[-1]
    path.write_bytes(whole[: -len(lines[-1]) // 2])
    proxy.listen()
    jobs.dbnd("sync")
    assert jobs.values(progress) == list(range(999))
    assert journals(home) == []


def test_a_lost_acknowledgement_makes_nothing_twice(jobs, tracker, home):
    """A killed process leaves an old acknowledged position, or none: the tracker knows what it has."""
    _, progress = jobs.run(
        f"{TELLING}\n"
        "import shutil, signal\n"
        "from dbnd import get_databand_context\n"
        "with dbnd_tracking('acknowledged'):\n"
        "    began()\n"
        "    for n in range(1000): log_metric('n', n)\n"
        "    assert get_databand_context().client.flush(60)\n"
        "    for n in range(1000, 2000): log_metric('n', n)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        exit_code=-signal.SIGKILL,
    )
    for ack in (home / "dbnd/journal").glob("*.ack"):
        ack.unlink()
    jobs.dbnd("sync")
    assert jobs.values(progress) == list(range(2000))
    with reading(tracker.database) as reader:
        assert len(reader.run(progress.run).task_runs) == 1


def test_exit_by_force_leaves_its_events_to_sync(jobs):
    _, progress = jobs.run(
        f"{TELLING}\n"
        "with dbnd_tracking('force'):\n"
        "    began()\n"
        "    for n in range(1000): log_metric('n', n)\n"
        "    os._exit(7)\n",
        exit_code=7,
    )
    jobs.dbnd("sync")
    assert jobs.values(progress) == list(range(1000))


def test_exit_while_a_daemon_thread_is_still_logging(jobs):
    process, progress = jobs.run(
        f"{TELLING}\n"
        "import threading, time\n"
        "def log():\n"
        "    n = 0\n"
        "    while True:\n"
        "        log_metric('n', n)\n"
        "        returned()\n"
        "        n += 1\n"
        "        time.sleep(0.0001)\n"
        "with dbnd_tracking('daemon'):\n"
        "    began()\n"
        "    threading.Thread(target=log, daemon=True).start()\n"
        "    time.sleep(0.3)\n"
    )
    assert "Traceback" not in process.output
    jobs.dbnd("sync")
    values = jobs.values(progress)
    # After the end of the run its calls do nothing, and return as well.
    assert values == list(range(len(values)))
    assert len(values) > 0
