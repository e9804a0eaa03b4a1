"""The ten promises of the durable client, each held against real processes, sockets and files."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from kit import faults
from kit.jobs import journals
from kit.progress import TELLING, wait_until
from kit.scale import scaled

# Logs in small steps, so that many batches go while it runs.
STEPS = f"""{TELLING}
import time
with dbnd_tracking("steps"):
    began()
    for n in range(1000):
        log_metric("n", n, step=n)
        returned()
        if n % 100 == 99:
            time.sleep(0.02)
print("went on")
"""
# Goes on logging until a file exists.
UNTIL_ENOUGH = f"""{TELLING}
import time
with dbnd_tracking("until"):
    began()
    n = 0
    while not os.path.exists(os.environ["ENOUGH"]):
        log_metric("n", n)
        returned()
        n += 1
        time.sleep(0.005)
"""


def name(fault) -> str:
    return fault.__name__


# 2


@pytest.mark.parametrize(
    "fault",
    [
        faults.unanswered,
        faults.applied_unanswered,
        faults.dripping(0.5),
        faults.garbage,
        faults.cut_request,
        faults.bad_gateway,
        faults.answering(401),
        faults.answering(400),
        faults.answering(413),
        faults.busy(3600),
    ],
    ids=name,
)
def test_never_wait_never_raise_whatever_the_network_does(jobs, proxy, fault):
    proxy.otherwise = fault
    # A log call that waited for an answer would wait longer than the process is waited for.
    process, progress = jobs.run(STEPS, DBND__CORE__FLUSH_TIMEOUT="1", DBND__CORE__API_REQUEST_TIMEOUT_SEC="600")
    assert progress.returned == 1000
    assert "went on" in process.output
    assert "Traceback" not in process.output
    # Once while it happens, and once at the end.
    assert 1 <= process.output.count("dbnd: warning") <= 3, process.output


def test_never_wait_never_raise_when_nobody_listens(jobs, proxy):
    proxy.refuse()
    process, progress = jobs.run(STEPS)
    assert progress.returned == 1000
    assert "went on" in process.output
    assert "Traceback" not in process.output
    assert "refused" in process.output
    assert 1 <= process.output.count("dbnd: warning") <= 2, process.output


def test_nothing_is_lost_when_the_home_cannot_be_used(jobs, tmp_path, proxy):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {"DBND_HOME": str(faults.unusable_folder(tmp_path / "file")), "TMPDIR": str(temporary)}
    env["XDG_RUNTIME_DIR"] = str(tmp_path / "none")
    process, progress = jobs.run(STEPS, **env)
    assert progress.returned == 1000
    assert "went on" in process.output
    assert "Traceback" not in process.output
    assert process.output.count(f"they are kept in {temporary}") == 1
    assert jobs.values(progress) == list(range(1000))
    proxy.refuse()
    process, progress = jobs.run(STEPS, **env)
    proxy.listen()
    jobs.dbnd("sync", **env)
    assert jobs.values(progress) == list(range(1000))


def test_never_wait_never_raise_when_the_disk_is_full(jobs, home):
    process, progress = jobs.run(
        f"{TELLING}\n"
        "from kit.faults import fill_disk, free_disk\n"
        "with dbnd_tracking('full'):\n"
        "    began()\n"
        "    fill_disk(50_000)\n"
        "    for n in range(3000): log_metric('n', n)\n"
        "    free_disk()\n"
        "    for n in range(3000, 3100): log_metric('n', n)\n"
        "print('went on')\n"
    )
    assert "went on" in process.output
    assert "Traceback" not in process.output
    (lost,) = re.findall(r"(\d[\d,]*) events could not be written", process.output)
    values = jobs.values(progress)
    assert 0 < int(lost.replace(",", "")) == 3100 - len(values)
    assert values == sorted(set(values))
    assert values[-100:] == list(range(3000, 3100))
    assert jobs.states(progress) == {"success"}
    assert journals(home) == []


def test_never_wait_never_raise_when_the_clock_jumps(jobs, proxy):
    proxy.script(faults.passing, faults.busy(1, as_date=True), faults.cut_answer)
    _, progress = jobs.run(
        f"{TELLING}\n"
        "import time\n"
        "from kit.faults import shift_clock\n"
        "with dbnd_tracking('clock'):\n"
        "    began()\n"
        "    for hours in (0, -48, 96, -480):\n"
        "        shift_clock(hours * 3600)\n"
        "        for n in range(100):\n"
        "            log_metric('n', n)\n"
        "        time.sleep(0.3)\n"
    )
    assert jobs.values(progress) == [*range(100)] * 4
    assert proxy.rest == 0


def test_never_raise_unless_it_is_asked_for(jobs, proxy):
    proxy.refuse()
    process, progress = jobs.run(STEPS, exit_code=1, DBND__CORE__TRACKER_RAISE_ON_ERROR="True")
    assert progress.returned == 1000
    assert "TrackingError" in process.output
    assert "went on" not in process.output


# 3


@pytest.mark.parametrize(
    "fault",
    [
        faults.delaying(0.5),
        faults.unanswered,
        faults.applied_unanswered,
        faults.cut_connection,
        faults.cut_request,
        faults.cut_answer,
        faults.lost_answer,
        faults.dripping(0.01),
        faults.garbage,
        faults.answering(401),
        faults.answering(500),
        faults.bad_gateway,
        faults.busy(1),
        faults.busy(2, as_date=True),
        faults.limiting(0),
    ],
    ids=name,
)
def test_exactly_once(jobs, proxy, home, fault):
    ok = faults.passing
    proxy.script(ok, ok, fault, ok, fault)
    # A request that is slow by itself is sent again: it must not count twice either.
    process, progress = jobs.run(STEPS, DBND__CORE__API_REQUEST_TIMEOUT_SEC="1")
    assert jobs.values(progress) == list(range(1000)), process.output
    assert jobs.states(progress) == {"success"}
    assert proxy.rest == 0
    assert journals(home) == []


# 4

EVENTS = scaled(100_000, 1_000_000)
VERY_MANY = f"""{TELLING}
import re, time

def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])

with dbnd_tracking("million"):
    began()
    log_metric("n", -1)
    time.sleep(1)  # the sender has found out that nobody is there
    idle = peak()
    for n in range({EVENTS}):
        log_metric("n", n, step=n)
print("KiB", idle, peak())
"""


@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process' memory is read from /proc")
def test_bounded_memory_while_very_many_events_wait(jobs, cold_python, proxy, tmp_path, report):
    proxy.refuse()
    # Not a warm process: that one has imported more than it needs, and so has room.
    process = cold_python(VERY_MANY, timeout=580, PROGRESS=str(tmp_path / "progress"), **jobs.env)
    assert process.returncode == 0, process.stderr
    idle, peak = map(int, re.search(r"KiB (\d+) (\d+)", process.stdout).groups())
    report(f"{EVENTS:,} events with the tracker down: {idle / 1024:.1f} MiB idle, {peak / 1024:.1f} MiB at most.")
    (waiting,) = re.findall(r"(\d[\d,]*) events are not delivered", process.stderr)
    assert int(waiting.replace(",", "")) > EVENTS
    assert peak - idle < 8 * 1024


# 6


def test_one_retry_authority(jobs, proxy, tmp_path):
    """Each failure is one request, and what comes again is the batch that failed."""
    troubles = [faults.answering(500), faults.cut_connection, faults.garbage]
    proxy.script(faults.passing, *troubles)
    enough = tmp_path / "enough"
    process, progress = jobs.start(UNTIL_ENOUGH, ENOUGH=str(enough))
    wait_until(lambda: len(proxy.batches) > 1 + len(troubles) + 1, lambda: process.output)
    enough.touch()
    assert process.wait() == 0, process.output
    batches = [seen.batch for seen in proxy.batches]
    assert len(set(batches[1 : 2 + len(troubles)])) == 1
    assert len(batches) - len(set(batches)) == len(troubles)
    assert jobs.values(progress) == list(range(progress.returned))


@pytest.mark.parametrize("as_date", [False, True])
def test_one_retry_authority_honours_retry_after(jobs, proxy, tmp_path, as_date):
    proxy.script(faults.passing, faults.busy(3, as_date=as_date))
    enough = tmp_path / "enough"
    process, progress = jobs.start(UNTIL_ENOUGH, ENOUGH=str(enough))
    wait_until(lambda: len(proxy.batches) > 2, lambda: process.output)
    enough.touch()
    assert process.wait() == 0, process.output
    _, refused, again = proxy.batches[:3]
    assert refused.batch == again.batch
    # A date has no fractions of a second.
    assert again.time - refused.time >= (2 if as_date else 3)
    assert jobs.values(progress) == list(range(progress.returned))


def test_one_retry_authority_halves_what_is_too_large(jobs, proxy):
    limit = 3_000
    proxy.otherwise = faults.limiting(limit)
    process, progress = jobs.run(
        f"{TELLING}\nwith dbnd_tracking('large'):\n    began()\n    for n in range(3000): log_metric('n', n / 7)\n"
    )
    assert jobs.values(progress) == [n / 7 for n in range(3000)], process.output
    assert "warning" not in process.output


# 7


def test_order(jobs, proxy):
    """Also where batches fail in between, and with more than one thread."""
    proxy.script(faults.passing, faults.cut_answer, faults.answering(500), faults.lost_answer, faults.answering(502))
    _, progress = jobs.run(
        f"{TELLING}\n"
        "import threading, time\n"
        "def log(key):\n"
        "    for n in range(500):\n"
        "        log_metric(key, n)\n"
        "        if n % 100 == 99: time.sleep(0.1)\n"
        "with dbnd_tracking('order'):\n"
        "    began()\n"
        "    threads = [threading.Thread(target=log, args=(key,)) for key in 'abcd']\n"
        "    for thread in threads: thread.start()\n"
        "    for thread in threads: thread.join()\n"
    )
    assert proxy.rest == 0
    for key in "abcd":
        assert jobs.values(progress, key) == list(range(500))
    assert jobs.states(progress) == {"success"}


# 9


@pytest.mark.parametrize(
    ("end", "code", "state"),
    [
        ("pass", 0, "success"),
        ("sys.exit(0)", 0, "success"),
        ("sys.exit(3)", 3, "failed"),
        ("1 / 0", 1, "failed"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "cancelled"),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT, "cancelled"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", 143, "cancelled"),
    ],
)
def test_exit_drains_and_tells_how_the_run_ended(jobs, home, end, code, state):
    _, progress = jobs.run(
        f"{TELLING}\n"
        "import signal, sys, time\n"
        "with dbnd_tracking('exit'):\n"
        "    began()\n"
        "    for n in range(1000): log_metric('n', n)\n"
        f"    {end}\n",
        exit_code=code,
    )
    assert jobs.values(progress) == list(range(1000))
    assert jobs.states(progress) == {state}
    assert journals(home) == []
