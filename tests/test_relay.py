"""Nodes without network: a relay delivers what they log, once, whoever is killed or stopped."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from kit.progress import TELLING, Progress, wait_until
from kit.scale import scaled
from kit.trackers import Tracker
from kit.warm import Warm, WarmProcess

POINTS = 1_500
KILLS = scaled(5, 100)
# Seconds after which somebody on another machine is taken to be gone, in these tests.
STALE = 3

# A machine of its own, with a name and without routes; locks do not reach from one to the other.
MACHINE = """
import ctypes, os, socket
from dbnd._journal import heartbeat, ownership
from dbnd._run import relay
unshare = ctypes.CDLL(None, use_errno=True).unshare
if unshare({flags}):
    raise OSError(ctypes.get_errno(), "unshare")
socket.sethostname("{name}")
heartbeat.BEAT, heartbeat.STALE = 0.2, {stale}
relay._LOOK, relay._SLOW_LOOK = 0.2, 0.3
if not {locks}:
    ownership.lock = lambda fd, kind=0: True
"""
_OWN_NAME, _OWN_NETWORK = 0x04000000, 0x40000000

LOGGING = """
import time
with dbnd_tracking("relayed"):
    began()
    for n in range({points}):
        log_metric("n", n, step=n)
        returned()
        if n % 10 == 9:
            time.sleep(0.01)
left()
"""

UNTIL_TOLD = """
import pathlib, time
with dbnd_tracking("relayed"):
    began()
    n = 0
    while not pathlib.Path(os.environ["ENOUGH"]).exists():
        log_metric("n", n, step=n)
        returned()
        n += 1
        time.sleep(0.002)
left()
"""

WATCHING = """
import sys
from dbnd._cli.main import main
sys.argv = ["dbnd", "sync", "--watch"]
main()
"""


def may_unshare() -> bool:
    return subprocess.run(["unshare", "-nu", "true"], check=False, capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.timeout(scaled(180, 3600)),
    pytest.mark.skipif(not may_unshare(), reason="needs namespaces"),
]


@dataclass
class Cluster:
    """Machines that share a folder, of which those of relays alone reach the tracker."""

    warm: Warm
    folder: Path
    tracker: Tracker
    locks: bool = True
    count: int = 0

    @property
    def shared(self) -> Path:
        return self.folder / "shared"

    def machine(self, name: str, *, has_network: bool) -> str:
        flags = _OWN_NAME if has_network else _OWN_NAME | _OWN_NETWORK
        return MACHINE.format(flags=flags, name=name, stale=STALE, locks=self.locks)

    def env(self, **more: str) -> dict[str, str]:
        core = {"DATABAND_URL": self.tracker.url, "JOURNAL_FOLDER": str(self.shared)}
        return {f"DBND__CORE__{key}": value for key, value in core.items()} | more

    def log(self) -> Path:
        self.count += 1
        return self.folder / f"log-{self.count}"

    def job(self, node: str, code: str = LOGGING, delivery: str = "relay") -> tuple[WarmProcess, Progress]:
        log = self.log()
        progress = Progress(log.with_suffix(".progress"))
        told = {"PROGRESS": str(progress.path), "ENOUGH": str(self.folder / "enough")}
        env = self.env(DBND__CORE__DELIVERY=delivery, DBND__CORE__FLUSH_TIMEOUT="0", **told)
        code = self.machine(node, has_network=False) + TELLING + code.format(points=POINTS)
        return self.warm.python(code, log, **env), progress

    def relay(self, name: str) -> WarmProcess:
        return self.warm.python(self.machine(name, has_network=True) + WATCHING, self.log(), **self.env())

    def delivered(self) -> str:
        """Changes with each delivery."""
        found = ""
        for path in sorted(self.shared.glob("*.ack")):
            with contextlib.suppress(FileNotFoundError):
                found += path.read_text()
        return found

    def deliverer(self) -> str:
        """The machine whose relay is at work."""
        return (self.shared / "deliverer.lease").read_text().partition(" ")[0]

    def journals(self) -> list[Path]:
        return list(self.shared.glob("*.journal"))

    def values(self, progress: Progress) -> list[int]:
        return self.tracker.values(progress.task_run, "n")


@pytest.fixture
def cluster(warm, tmp_path, tracker):
    return Cluster(warm, tmp_path, tracker)


def stop(*relays: WarmProcess) -> None:
    for relay in relays:
        relay.signal(signal.SIGTERM)
    for relay in relays:
        assert relay.wait() == 0, relay.output


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no-locks"])
def test_everything_arrives_once_from_nodes_without_network_while_relays_are_killed(cluster, locks, report):
    cluster.locks = locks
    relays = {name: cluster.relay(name) for name in ("login-1", "login-2")}
    jobs = [cluster.job(node, UNTIL_TOLD) for node in ("node-1", "node-1", "node-2", "node-2")]
    doomed = jobs[0][0]

    def said() -> str:
        return "\n".join(process.output for process in (*relays.values(), *(process for process, _ in jobs)))

    for number in range(KILLS):
        before = cluster.delivered()
        wait_until(lambda: cluster.delivered() != before and cluster.deliverer() in relays, said)  # noqa: B023
        time.sleep(random.choice((0, 0.01, 0.3)))
        name = cluster.deliverer() or "login-1"
        relays[name].kill()
        relays[name] = cluster.relay(name)
        if number == KILLS // 2:
            doomed.kill()
    Path(cluster.folder / "enough").touch()
    for process, _ in jobs[1:]:
        assert process.wait() == 0, process.output
        assert "`dbnd sync --watch` delivers them" in process.output
    wait_until(lambda: not cluster.journals(), said)
    stop(*relays.values())

    for process, progress in jobs:
        values, returned = cluster.values(progress), progress.returned
        assert values in (list(range(returned)), list(range(returned + 1))), process.output
    assert all(progress.left for _, progress in jobs[1:])
    points = sum(progress.returned for _, progress in jobs)
    report(f"{KILLS} relays killed, {'with' if locks else 'without'} locks: {points} points of 4 processes, once.")


def test_a_second_relay_stands_by_until_the_first_is_gone(cluster):
    first = cluster.relay("login-1")
    wait_until(lambda: "Delivering what is written" in first.output, lambda: first.output)
    second = cluster.relay("login-2")
    wait_until(lambda: "this one stands by" in second.output, lambda: second.output)
    process, _ = cluster.job("node-1")
    assert process.wait() == 0, process.output
    wait_until(lambda: not cluster.journals(), lambda: first.output)
    assert "Delivering" not in second.output
    first.kill()
    process, progress = cluster.job("node-1")
    assert process.wait() == 0, process.output
    wait_until(lambda: not cluster.journals(), lambda: second.output)
    stop(second)
    assert cluster.values(progress) == list(range(POINTS))


def test_a_stopped_writer_that_comes_back_loses_nothing_though_it_was_taken_to_be_gone(cluster):
    cluster.locks = False
    relay = cluster.relay("login-1")
    process, progress = cluster.job("node-1")
    wait_until(lambda: progress.returned > POINTS // 3, lambda: process.output)
    process.signal(signal.SIGSTOP)
    wait_until(lambda: not cluster.journals(), lambda: relay.output)
    assert len(cluster.values(progress)) >= progress.returned
    process.signal(signal.SIGCONT)
    assert process.wait() == 0, process.output
    wait_until(lambda: not cluster.journals(), lambda: relay.output)
    stop(relay)
    assert cluster.values(progress) == list(range(POINTS))


def test_a_process_that_delivers_itself_is_left_alone_while_it_lives(warm, tmp_path, tracker):
    """With and without locks, at the same time."""
    clusters = []
    for locks in (True, False):
        (folder := tmp_path / f"{locks}").mkdir()
        clusters.append(Cluster(warm, folder, tracker, locks))
    jobs = [cluster.job("node-1", f"{LOGGING}\ntime.sleep(600)", delivery="direct") for cluster in clusters]
    relays = [cluster.relay("login-1") for cluster in clusters]
    for process, progress in jobs:
        wait_until(lambda p=progress: p.left, lambda p=process: p.output)
    time.sleep(1.5 * STALE)
    for cluster, (process, _) in zip(clusters, jobs, strict=True):
        (journal,) = cluster.journals()
        assert not journal.with_name(f"{journal.name}.ack").exists(), "nobody has delivered anything"
        process.kill()
    for cluster, relay in zip(clusters, relays, strict=True):
        wait_until(lambda c=cluster: not c.journals(), lambda r=relay: r.output)
    stop(*relays)
    for cluster, (_, progress) in zip(clusters, jobs, strict=True):
        assert cluster.values(progress) == list(range(POINTS))


def test_a_destination_that_is_away_is_named_and_waited_for(cluster):
    cluster.tracker.kill()
    relay = cluster.relay("login-1")
    process, _ = cluster.job("node-1")
    assert process.wait() == 0, process.output
    wait_until(lambda: "does not take events" in relay.output, lambda: relay.output)
    assert cluster.journals()
    stop(relay)
    cluster.tracker.start()
    done = cluster.warm.dbnd(
        "sync", str(cluster.shared), "--list", log=cluster.log(), **cluster.env(DBND__CORE__JOURNAL_FOLDER="")
    )
    assert done.wait() == 0
    assert "waiting" in done.output
