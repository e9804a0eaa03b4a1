"""Minutes of trouble of every kind for one tracker: what was accepted is there, once, or was deleted or named.

Random clients log, by dbnd and by MLflow, while they, the tracker and the connections between them are killed, runs are
deleted, journals damaged, answers forged, and runs imported as they go on. At the end the account of each client is
compared with the tracker. `nox -s soak` runs it for ten minutes on each database.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit import faults
from kit.faults import Proxy
from kit.letters import letters
from kit.trackers import Tracker, reading
from kit.warm import Warm, WarmProcess
from soak.ledger import Ledger, Point, points_of

from dbnd._journal.records import content

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
SEED = int(os.environ.get("SOAK_SEED", time.time_ns() % 1_000_000))
# Processes that log at the same time.
CLIENTS = 5
PAGE = b"<html><body>Please log in to the network</body></html>"
HOSTILE = [
    faults.answering(500),
    faults.answering(200, {"Content-Type": "text/html"}, PAGE),
    faults.answering(204, {}, b""),
    faults.answering(409, {"X-Databand-Applied": "999999999"}),
    faults.answering(200, {"X-Databand-Applied": "999999999", "Content-Type": "application/json"}),
    faults.cut_connection,
    faults.cut_request,
    faults.cut_answer,
    faults.lost_answer,
    faults.garbage,
    faults.bad_gateway,
    faults.busy(1),
    faults.limiting(20_000),
    faults.delaying(0.5),
    faults.dripping(0.002),
]
PAGES = ["/", "/api/v1/runs", "/app/jobs", "/metrics", "/healthz"]


class Soak:
    """One tracker, its clients, and what befalls them."""

    def __init__(self, warm: Warm, tracker: Tracker, proxy: Proxy, folder: Path) -> None:
        self.chance = random.Random(SEED)
        self.warm, self.tracker, self.proxy, self.folder = warm, tracker, proxy, folder
        self.homes = [folder / f"home-{n}" for n in range(3)]
        for home in self.homes:
            home.mkdir()
        self.clients: dict[int, tuple[WarmProcess, Ledger]] = {}
        self.ledgers: list[Ledger] = []
        self.stores: dict[int, str] = {}
        self.syncs: list[WarmProcess] = []
        self.deleted: set[str] = set()
        self.named: Counter[Point] = Counter()
        self.happened: Counter[str] = Counter()
        self.number = 0

    def env(self, number: int, url: str | None = None) -> dict[str, str]:
        """The environment of a process: its home, and a tracker that is waited for but briefly."""
        home = str(self.homes[number % len(self.homes)])
        return {
            "HOME": home,
            "DBND_HOME": home,
            "DBND__CORE__DATABAND_URL": url or self.proxy.url,
            "DBND__CORE__FLUSH_TIMEOUT": "2",
            "DBND__CORE__API_REQUEST_TIMEOUT_SEC": "5",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def start(self) -> None:
        """One more client."""
        self.number += 1
        number, seconds = self.number, self.chance.uniform(1, 20)
        ledger = Ledger(self.folder / f"account-{number}", number)
        arguments = [number, str(ledger.path), seconds]
        call = "native"
        if number % 3 == 0:
            store = self.folder / f"own-{number}.db"
            shutil.copy(self.folder / "template.db", store)
            self.stores[number] = f"sqlite:///{store}"
            arguments.append(self.stores[number])
            call = "with_mlflow"
        code = f"from soak.clients import {call}\n{call}(*{arguments!r})"
        process = self.warm.python(code, self.folder / f"log-{number}", **self.env(number))
        self.clients[number] = process, ledger
        self.ledgers.append(ledger)

    def kill(self, how: signal.Signals) -> None:
        """A client gets a signal."""
        if self.clients:
            self.clients[self.chance.choice(list(self.clients))][0].signal(how)

    def restart(self) -> None:
        """The tracker is killed, and is away for a moment."""
        self.proxy.target = None
        self.tracker.kill()
        time.sleep(self.chance.uniform(0, 1))
        self.proxy.target = self.tracker.start()

    def change_mood(self) -> None:
        """The connections get better or worse."""
        share = self.chance.choice((0.0, 0.0, 0.1, 0.5, 1.0))

        def fault(exchange: faults.Exchange) -> None:
            (random.choice(HOSTILE) if random.random() < share else faults.passing)(exchange)

        self.proxy.otherwise = fault

    def sync(self) -> None:
        """Somebody calls `dbnd sync`, and waits for nothing."""
        self.syncs = [process for process in self.syncs if process.poll() is None]
        if len(self.syncs) < 2:
            number = self.chance.randrange(len(self.homes))
            log = self.folder / f"sync-{time.monotonic_ns()}"
            self.syncs.append(self.warm.dbnd("sync", log=log, **self.env(number)))

    def damage(self) -> None:
        """A byte of a journal that nobody uses is flipped."""
        journals = [path for home in self.homes for path in home.glob("journal/*.journal")]
        if not journals:
            return
        path = self.chance.choice(journals)
        with contextlib.suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lines = file.read().split(b"\n")
            # Those that are whole as yet.
            places = [
                n for n, line in enumerate(lines[1:-2], 1) if b'["log_metrics"' in line[:30] and content(line + b"\n")
            ]
            if not places or path.stat().st_size == 0:
                return
            place = self.chance.choice(places)
            line = lines[place]
            self.named += points_of(json.loads(line[9:])[1])
            offset = sum(len(each) + 1 for each in lines[:place]) + self.chance.randrange(9, len(line))
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(b"#" if byte != b"#" else b"%")
            self.happened["damaged"] += 1

    def delete(self) -> None:
        """Somebody deletes a run, which may go on."""
        runs = [ledger.read().run for ledger in self.ledgers if ledger.number not in self.stores]
        runs = [run for run in runs if run and run not in self.deleted]
        if runs:
            uid = self.chance.choice(runs)
            if self.dbnd("runs", "delete", uid, "--yes", "--force").returncode == 0:
                self.deleted.add(uid)

    def import_(self) -> None:
        """Somebody imports from a store whose runs may go on."""
        if self.stores:
            number = self.chance.choice(list(self.stores))
            self.dbnd("mlflow", "import", "--from", self.stores[number])

    def look(self) -> None:
        """Somebody looks at pages, which never fail."""
        pages = [*PAGES, *(f"/app/jobs/soak/{ledger.run}" for ledger in self.ledgers[-10:] if ledger.run)]
        page = self.chance.choice(pages)
        status = 200
        try:
            urllib.request.urlopen(f"{self.tracker.url}{page}", timeout=60).read()
        except urllib.error.HTTPError as error:
            status = error.code
        assert status < 500, f"{page}: {status}"

    def dbnd(self, *arguments: str, number: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in one of the homes: `dbnd sync` as the clients do, others against the tracker itself."""
        log = self.folder / f"command-{time.monotonic_ns()}"
        url = None if arguments[0] == "sync" else self.tracker.url
        process = self.warm.dbnd(*arguments, log=log, **self.env(number, url))
        code = process.wait()
        assert "Traceback" not in process.output, process.output
        return subprocess.CompletedProcess(arguments, code, process.output)

    def go_on(self) -> None:
        """Something happens."""
        for number, (process, _) in list(self.clients.items()):
            if process.poll() is not None:
                assert process.returncode in {0, -signal.SIGKILL, -signal.SIGTERM, 143}, process.output
                assert "Traceback" not in process.output, process.output
                del self.clients[number]
        while len(self.clients) < CLIENTS:
            self.start()
        happenings: dict[Callable[[], None], int] = {
            lambda: self.kill(signal.SIGKILL): 4,
            lambda: self.kill(signal.SIGTERM): 2,
            self.restart: 1,
            self.change_mood: 5,
            self.sync: 4,
            self.damage: 2,
            self.delete: 1,
            self.import_: 1,
            self.look: 5,
        }
        names = ["killed", "terminated", "restarted", "moods", "synced", "damage", "deleted", "imported", "looked"]
        choices = dict(zip(happenings, names, strict=True))
        happening = self.chance.choices(list(happenings), list(happenings.values()))[0]
        self.happened[choices[happening]] += 1
        happening()
        time.sleep(self.chance.uniform(0, 0.5))

    def end(self) -> None:
        """All trouble ends, and what is left is delivered."""
        self.proxy.otherwise = faults.passing
        for process, _ in self.clients.values():
            process.wait()
        for process in self.syncs:
            process.wait()
        for number in range(len(self.homes)):
            for _ in range(5):
                synced = self.dbnd("sync", number=number)
                left = json.loads(self.dbnd("sync", "--list", "--json", number=number).stdout)
                if not any(row["state"] in {"waiting", "in use"} for row in left):
                    break
            else:
                pytest.fail(f"events are left:\n{synced.stdout}\n{left}")
        self.named += self.dead_letters()

    def dead_letters(self) -> Counter[Point]:
        """The points that the tracker has refused, and that are kept."""
        found: Counter[Point] = Counter()
        for path in (path for home in self.homes for path in home.glob("journal/*.dead")):
            for call, body, *_ in letters(path):
                assert call == "log_metrics", f"{call} was refused"
                found += points_of(body)
        return found


@pytest.fixture(params=["sqlite", "postgresql"])
def troubled(request: pytest.FixtureRequest, warm: Warm, tmp_path: Path) -> Any:
    """A soak with its tracker over each kind of database."""
    tracker = Tracker(warm, tmp_path / "tracker")
    if request.param == "postgresql":
        tracker.database = request.getfixturevalue("postgresql").create()
    with tracker, Proxy(tracker.url) as proxy:
        template = tmp_path / "template.db"
        code = f"from pathlib import Path\nfrom soak.clients import make_store\nmake_store(Path({str(template)!r}))"
        subprocess.run(
            [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        )
        yield Soak(warm, tracker, proxy, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 900)
def test_what_was_accepted_is_there_once_or_was_deleted_or_named(troubled: Soak, report: Callable[[str], None]) -> None:
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            troubled.go_on()
        troubled.end()
        wrong: list[str] = []
        points = 0
        with reading(troubled.tracker.database) as reader:
            for ledger in (each.read() for each in troubled.ledgers):
                if ledger.run in troubled.deleted:
                    if reader.task_run(ledger.task_run) is not None:
                        wrong.append(f"{ledger.number}: it was deleted, and is there")
                elif ledger.run:
                    wrong += ledger.compare(reader, troubled.named)
                    points += ledger.accepted.total()
        known = {ledger.run for ledger in troubled.ledgers}
        listed = json.loads(troubled.dbnd("runs", "list", "--limit", "1000", "--json").stdout)
        wrong += [f"it has no name: {run}" for run in listed if not run["name"]]
        wrong += [f"{uid} was deleted, and is listed" for uid in troubled.deleted & {run["run_uid"] for run in listed}]
        wrong += [
            f"{uid} is not listed" for uid in known - troubled.deleted - {run["run_uid"] for run in listed} - {""}
        ]
        for store in troubled.stores.values():  # a kill may fall between MLflow's store and the journal
            assert troubled.dbnd("mlflow", "import", "--from", store).returncode == 0
            verified = troubled.dbnd("mlflow", "verify", "-c", f"mlflow_tracking.duplicate_tracking_to={store}")
            if verified.returncode:
                wrong.append(verified.stdout)
    except BaseException:
        report(f"soak: it broke with SOAK_SEED={SEED}")
        raise
    happened = ", ".join(f"{count} {what}" for what, count in sorted(troubled.happened.items()))
    report(
        f"soak: {points} points of {len(troubled.ledgers)} clients, {troubled.named.total()} of them named as lost, "
        f"{len(troubled.deleted)} runs deleted; {happened}; SOAK_SEED={SEED}"
    )
    assert not wrong, "\n".join(wrong[:50])
    assert points > 50 * SECONDS, "hardly anything was logged"
