"""What had been accepted when a process or the tracker was killed is in the tracker, exactly once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kit import faults
from kit.progress import TELLING, Progress, wait_until
from kit.scale import scaled
from kit.trackers import reading
from kit.warm import Warm, WarmProcess

POINTS = scaled(1_000, 10_000)
KILLS = scaled(8, 100)
# Kills between two `dbnd sync`.
ROUND = scaled(4, 10)
RESTARTS = scaled(4, 50)
# Processes that log at the same time.
AT_ONCE = 4

# Now and then it gives others, and its own sender, a chance.
LOGGING = f"""{TELLING}
import time
with dbnd_tracking("kills"):
    began()
    for n in range({POINTS}):
        log_metric("n", n, step=n)
        returned()
        if n % 10 == 9:
            time.sleep(0.001)
left()
time.sleep(600)
"""


@dataclass
class Victim:
    process: WarmProcess
    progress: Progress

    def kill_at_a_random_moment(self):
        """While it starts, while it logs, or while it delivers the rest; it never ends by itself."""
        phase = random.random()
        if phase < 0.1:
            time.sleep(random.uniform(0, 0.2))
        elif phase < 0.85:
            target = random.randrange(1, POINTS)
            wait_until(lambda: self.progress.returned >= target, lambda: self.process.output)
        else:
            wait_until(lambda: self.progress.returned == POINTS, lambda: self.process.output)
            time.sleep(random.uniform(0, 0.5))
        self.process.kill()
        assert self.process.returncode == -signal.SIGKILL, self.process.output


@dataclass
class Tally:
    accepted: int = 0
    found: int = 0
    twice: int = 0
    kills: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, progress: Progress, values: list[int]):
        """Count one killed process: the values must be 0, 1, …, as many as had returned, or one more."""
        self.kills += 1
        returned = progress.returned
        times = Counter(values)
        self.accepted += returned
        self.found += sum(1 for n in range(returned) if times[n])
        self.twice += sum(1 for count in times.values() if count > 1)
        if values not in (list(range(returned)), list(range(returned + 1))):
            self.wrong.append(f"{progress.path}: {returned} returned, {len(values)} found, ends with {values[-3:]}")


def kill_processes(warm: Warm, folder: Path, kills: int, url: str, *, before_sync, after_sync, database: str) -> Tally:
    """Kill so many processes, and deliver what they left in rounds, while others go on."""
    home = folder / "dbnd"
    env = {"DBND_HOME": str(home), "DBND__CORE__DATABAND_URL": url, "DBND__CORE__FLUSH_TIMEOUT": "5"}

    def one(number: int) -> Progress:
        progress = Progress(folder / f"progress-{number}")
        process = warm.python(LOGGING, folder / f"log-{number}", PROGRESS=str(progress.path), **env)
        Victim(process, progress).kill_at_a_random_moment()
        return progress

    def sync() -> None:
        process = warm.dbnd("sync", log=folder / f"sync-{time.monotonic_ns()}", **env)
        assert process.wait() == 0, process.output

    found: list[Progress] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, progress in enumerate(pool.map(one, range(kills)), 1):
            found.append(progress)
            if number % ROUND == 0:
                before_sync()
                sync()
                after_sync()
    before_sync()
    # A process that was killed while it made its journal leaves a file without events, which is swept after an hour.
    for path in (home / "journal").glob("*.new"):
        os.utime(path, (0, 0))
    sync()
    assert not list((home / "journal").glob("*")), "everything is delivered, and no file left"
    tally = Tally()
    with reading(database) as reader:
        for progress in found:
            if progress.returned:  # then its run had been accepted before
                assert reader.run(progress.run).job_name == "kills"
            points = reader.points(progress.task_run, "n") if progress.returned else []
            tally.add(progress, [point["value"] for point in points])
    return tally


def check(tally: Tally, kind: str, kills: int, report) -> None:
    report(
        f"{tally.kills} processes killed, tracker {kind}: "
        f"{tally.accepted} accepted, {tally.found} found, {tally.twice} twice."
    )
    assert tally.wrong == []
    assert (tally.found, tally.twice, tally.kills) == (tally.accepted, 0, kills)
    assert tally.accepted > 0


def nothing():
    """Nothing is to be done."""


@pytest.mark.timeout(600)
def test_accepted_means_kept_when_killed_with_the_tracker_up(warm, tracker, tmp_path, report):
    tally = kill_processes(
        warm, tmp_path, KILLS, tracker.url, before_sync=nothing, after_sync=nothing, database=tracker.database
    )
    check(tally, "up", KILLS, report)


@pytest.mark.timeout(600)
def test_accepted_means_kept_when_killed_with_the_embedded_tracker(warm, tmp_path, report):
    database = f"sqlite:///{tmp_path / 'embedded.db'}"
    tally = kill_processes(warm, tmp_path, KILLS, database, before_sync=nothing, after_sync=nothing, database=database)
    check(tally, "embedded", KILLS, report)


@pytest.mark.timeout(600)
def test_accepted_means_kept_when_killed_with_the_tracker_slow(warm, tracker, proxy, tmp_path, report):
    def slowly():
        proxy.otherwise = slow

    def swiftly():
        proxy.otherwise = faults.passing

    def slow(exchange):
        """Late in coming, or applied and late in answering."""
        random.choice((faults.delaying(random.uniform(0, 0.3)), faults.dripping(0.002)))(exchange)

    slowly()
    tally = kill_processes(
        warm, tmp_path, KILLS, proxy.url, before_sync=swiftly, after_sync=slowly, database=tracker.database
    )
    check(tally, "slow", KILLS, report)


@pytest.mark.timeout(600)
def test_accepted_means_kept_when_killed_with_the_tracker_down(warm, tracker, proxy, tmp_path, report):
    proxy.refuse()
    tally = kill_processes(
        warm, tmp_path, KILLS, proxy.url, before_sync=proxy.listen, after_sync=proxy.refuse, database=tracker.database
    )
    check(tally, "down", KILLS, report)


LOGGING_UNTIL_ENOUGH = f"""{TELLING}
import time
with dbnd_tracking("restarts"):
    began()
    n = 0
    while not os.path.exists(os.environ["ENOUGH"]):
        for n in range(n, n + 10):
            log_metric("n", n, step=n)
            returned()
        n += 1
        time.sleep(0.005)
"""


@pytest.mark.timeout(600)
def test_exactly_once_while_the_tracker_is_killed_again_and_again(warm, tracker, proxy, tmp_path, report):
    enough, starts = tmp_path / "enough", tracker.starts
    progress = Progress(tmp_path / "progress")
    env = {"DBND__CORE__DATABAND_URL": proxy.url, "DBND__CORE__FLUSH_TIMEOUT": "60"}
    process = warm.python(
        LOGGING_UNTIL_ENOUGH, tmp_path / "log", PROGRESS=str(progress.path), ENOUGH=str(enough), **env
    )
    for _ in range(RESTARTS):
        # One batch is taken, so that the client does not wait longer from time to time; the next one may be hit.
        served = proxy.served
        wait_until(lambda seen=served: proxy.served > seen, lambda: process.output)
        batches = len(proxy.batches)
        wait_until(lambda seen=batches: len(proxy.batches) > seen, lambda: process.output)
        time.sleep(random.uniform(0, 0.05))
        tracker.kill()
        proxy.refuse()
        time.sleep(random.uniform(0, 0.2))
        proxy.target = tracker.start()
        proxy.listen()
    enough.touch()
    assert process.wait() == 0, process.output
    accepted = progress.returned
    values = tracker.values(progress.task_run, "n")
    twice = len(values) - len(set(values))
    report(
        f"The tracker killed {RESTARTS} times: {accepted} accepted, {accepted - len(set(values))} lost, {twice} twice."
    )
    assert values == list(range(accepted))
    assert tracker.starts == starts + RESTARTS
