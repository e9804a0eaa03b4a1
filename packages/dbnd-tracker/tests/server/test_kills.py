"""The server, or its PostgreSQL, is killed in the middle of ingest: nothing is lost, and nothing is there twice.

A client in a process of its own logs the numbers 0, 1, … through ``TrackingAPIClient`` until it is told to stop, and
then everything that it has logged must be in the database, once. Every other kill comes from within the server, when it
has committed a batch and is about to answer: the batch is sent again, and its number is all that keeps it out. The same
is done to single ones of several server processes. Meanwhile they seal what they have taken, a few points at a time.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.scale import scaled
from kit.warm import Warm, WarmProcess
from sqlalchemy import select, text

from dbnd_tracker._storage.database import open_database
from dbnd_tracker._storage.models import Attempt, MetricSeries
from dbnd_tracker._storage.points.reading import read_points

pytestmark = pytest.mark.process

KILLS = scaled(3, 50)
PATIENCE = 100

CLIENT = """
import os, time
from pathlib import Path
from dbnd._config.config import Config
from dbnd._context.registry import create_transport, load_config
from dbnd._tracking.client import TrackingAPIClient
from dbnd._model.points import group, point

url, attempt, folder = os.environ["URL"], os.environ["ATTEMPT"], Path(os.environ["FOLDER"])
client = TrackingAPIClient(url, load_config(), create_transport)
n = 0
while not (folder / "stop").exists():
    for _ in range(20):
        points = [point("n", i, time.time_ns() // 1000, i) for i in range(n, n + 10)]
        client.log_metrics([group(attempt, "user", points)])
        n += 10
    while not client.flush(60):
        pass
    (folder / "new").write_text(str(n))
    os.replace(folder / "new", folder / "acknowledged")
    time.sleep(0.05)  # the others want to run, too
"""

SERVER = """
import os, signal
from contextlib import suppress
from dbnd._cli.main import main
from dbnd_tracker._server import app
from dbnd_tracker._ingest import calls, metrics
from dbnd_tracker._storage.upkeep import sealing

metrics.SEGMENT = sealing.SEGMENT = 32
sealing._POINTS = 64
sealing._IDLE = 0.005

left = int(os.environ["ANSWERS"])
if os.environ["DEDUPLICATE"] == "no":
    calls._advance = lambda *_: True

def must_die():
    global left
    left -= 1
    with suppress(FileNotFoundError):
        os.unlink(os.environ["DIE"])  # of several processes only one finds it
        return True
    return left == 0

class Dying:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def answer(message):
            is_answer = message["type"] == "http.response.start" and scope["path"].endswith("/log_metrics")
            if is_answer and must_die():
                os.kill(os.getpid(), signal.SIGKILL)
            await send(message)

        await self.app(scope, receive, answer if scope["type"] == "http" else send)

make = app.create_app

def create_app(*args, **options):
    app = make(*args, **options)
    app.add_middleware(Dying)
    return app

app.create_app = create_app
if __name__ == "__main__":  # the processes that serve read this file, too
    main()
"""


class Server:
    """The tracker in a process of its own, or in several below that, always on the same port."""

    def __init__(self, warm: Warm, url: str, port: int, folder: Path, workers: int) -> None:
        program = folder / "server.py"
        program.write_text(SERVER)
        arguments = ["tracker", "start", "--port", str(port), "--database", url, "--workers", str(workers)]
        run = f"runpy.run_path({str(program)!r}, run_name='__main__')"
        self._code = f"import runpy, sys\nsys.argv[1:] = {arguments}\n{run}"
        self._warm = warm
        self._log = folder / "server.log"
        self.die = folder / "die"
        """When it is there, the next process that is about to answer takes it away and dies instead."""
        self.process: WarmProcess | None = None

    def start(self, answers: int = -1, deduplicate: str = "yes") -> WarmProcess:
        """Start it, to die instead of its answer number ``answers`` to points; -1 lets it live."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._log.write_bytes(b"")
            env = {"ANSWERS": str(answers), "DEDUPLICATE": deduplicate, "DIE": str(self.die)}
            self.process = self._warm.python(self._code, self._log, **env)
            while b"Tracker at" not in self._log.read_bytes() and self.process.poll() is None:
                time.sleep(0.02)
            if self.process.poll() in {None, -signal.SIGKILL}:
                return self.process
            # Another process may have taken the port for a moment.
            assert time.monotonic() < deadline, self._log.read_text()

    def workers(self) -> set[int]:
        """The ids of the living processes that serve, where there are several."""
        import psutil

        assert self.process is not None
        found = set()
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                if "spawn_main" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    found.add(child.pid)
        return found

    def kill(self) -> None:
        """Kill it, if it lives."""
        assert self.process is not None
        self.process.kill()


class Client:
    """The client's process."""

    def __init__(self, warm: Warm, url: str, attempt: str, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.process = warm.python(CLIENT, folder / "log", URL=url, ATTEMPT=attempt, FOLDER=str(folder))

    @property
    def acknowledged(self) -> int:
        """How many points the tracker has acknowledged."""
        path = self._folder / "acknowledged"
        return int(path.read_text()) if path.exists() else 0

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until ``done``."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert self.process.poll() is None, self.process.output
            assert time.monotonic() < deadline, f"{self.acknowledged} points are acknowledged"
            time.sleep(0.005)

    def advance(self) -> None:
        """Wait until more is acknowledged than now, and then for a moment."""
        before = self.acknowledged
        self.wait(lambda: self.acknowledged > before)
        time.sleep(random.uniform(0, 0.1))

    def stop(self) -> int:
        """Let it deliver what it has, and return how many points it has logged."""
        (self._folder / "stop").touch()
        assert self.process.wait(PATIENCE) == 0, self.process.output
        return self.acknowledged

    def kill(self) -> None:
        """Kill it, if it lives."""
        self.process.kill()


@pytest.fixture
def start(warm: Warm, tmp_path: Path, free_port: int) -> Iterator[Callable[..., tuple[Any, ...]]]:
    """Starts a server over a database and clients of it, one for each attempt; all end with the test."""
    found: list[Any] = []

    def make(url: str, *attempts: str, workers: int = 1) -> tuple[Any, ...]:
        server = Server(warm, url, free_port, tmp_path, workers)
        found.append(server)
        server.start()
        here = f"http://127.0.0.1:{free_port}"
        found.extend(Client(warm, here, attempt, tmp_path / attempt) for attempt in attempts)
        return tuple(found)

    yield make
    for each in found:
        each.kill()


def _stored(url: str) -> dict[str, list[int]]:
    """The values of each attempt, in the order in which they came; some are sealed."""
    database = open_database(url)
    query = select(Attempt.uid, MetricSeries.id, MetricSeries.points)
    found: dict[str, list[int]] = {}
    with database.read() as session:
        for uid, series_id, points in session.execute(query.join(Attempt)):
            values = read_points(session.connection(), series_id, 0, points + 1_000_000).value.tolist()
            assert len(values) == points
            found[uid] = list(map(int, values))
        counts = "SELECT (SELECT count(*) FROM metrics) + (SELECT coalesce(sum(points), 0) FROM segments)"
        assert session.scalar(text(counts)) == sum(map(len, found.values()))  # at one moment: servers go on sealing
    database.close()
    return found


def _sealed(url: str) -> int:
    """How many points are in segments."""
    database = open_database(url)
    with database.read() as session:
        found = int(session.scalar(text("SELECT coalesce(sum(points), 0) FROM segments")) or 0)
    database.close()
    return found


@pytest.mark.timeout(1800)
def test_the_server_is_killed(database_url: str, start: Any) -> None:
    server, client = start(database_url, str(uuid.uuid4()))
    client.advance()
    server.kill()
    for number in range(1, KILLS):
        if number % 2:
            process = server.start(answers=random.randint(1, 5))
            client.wait(lambda process=process: process.poll() is not None)
        else:
            server.start()
            client.advance()
        server.kill()
    server.start()
    logged = client.stop()

    assert [*_stored(database_url).values()] == [list(range(logged))]
    assert _sealed(database_url) > 0


@pytest.mark.timeout(600)
def test_without_numbers_of_batches_points_would_be_there_twice(database_url: str, start: Any) -> None:
    """That is, the test above can fail."""
    server, client = start(database_url, str(uuid.uuid4()))
    client.advance()
    server.kill()
    process = server.start(answers=2, deduplicate="no")
    client.wait(lambda: process.poll() is not None)
    server.start(deduplicate="no")
    client.advance()
    logged = client.stop()

    [stored] = _stored(database_url).values()
    times = Counter(stored)
    assert set(times) == set(range(logged))
    assert max(times.values()) == 2


@pytest.mark.timeout(1800)
def test_postgresql_is_killed(start_postgresql: Callable[[], Any], start: Any) -> None:
    cluster = start_postgresql()
    url = cluster.create()
    _, client = start(url, str(uuid.uuid4()))
    for _ in range(KILLS):
        client.advance()
        cluster.kill()
        cluster.restart()
    client.advance()
    logged = client.stop()

    assert [*_stored(url).values()] == [list(range(logged))]
    assert _sealed(url) > 0


@pytest.mark.timeout(1200)
def test_single_ones_of_several_server_processes_are_killed(postgresql: Any, template: str, start: Any) -> None:
    url = postgresql.create(template)
    attempts = [str(uuid.uuid4()) for _ in range(2)]
    server, *clients = start(url, *attempts, workers=2)

    def advance_all() -> None:
        before = [client.acknowledged for client in clients]
        for client, count in zip(clients, before, strict=True):
            client.wait(lambda client=client, count=count: client.acknowledged > count)

    clients[0].wait(lambda: len(server.workers()) == 2)
    first = server.workers()
    advance_all()
    # From outside, wherever they are.
    for pid in sorted(first)[: scaled(1, 2)]:
        os.kill(pid, signal.SIGKILL)
        clients[0].wait(lambda pid=pid: pid not in server.workers() and len(server.workers()) == 2)
        advance_all()
    # From within, with a batch that is committed and not answered.
    before = server.workers()
    server.die.touch()
    clients[0].wait(lambda: not server.die.exists())
    clients[0].wait(lambda: len(server.workers()) == 2)
    advance_all()
    assert len(before & server.workers()) == 1
    logged = [client.stop() for client in clients]

    stored = _stored(url)
    assert {uid: len(values) for uid, values in stored.items()} == dict(zip(attempts, logged, strict=True))
    assert all(values == list(range(len(values))) for values in stored.values())
    server.process.signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 0
    postgresql.drop(url)
