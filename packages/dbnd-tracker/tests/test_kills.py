"""The server, or its PostgreSQL, is killed in the middle of ingest: nothing is lost, and nothing is there twice.

A client in a process of its own logs the numbers 0, 1, … through ``TrackingAPIClient`` until it is told to stop, and
then everything that it has logged must be in the database, once. Every other kill comes from within the server, when it
has committed a batch and is about to answer: the batch is sent again, and its number is all that keeps it out.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from dbnd_tracker._database import open_database

# `nox -s kills` sets it to 50.
KILLS = int(os.environ.get("TRACKER_KILLS", "5"))
PATIENCE = 100

CLIENT = """
import os, sys, time
from pathlib import Path
from dbnd._config import Config
from dbnd._tracking.client import TrackingAPIClient
from dbnd._tracking.points import point

url, attempt, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
client = TrackingAPIClient(url, Config.load())
n = 0
while not (folder / "stop").exists():
    for _ in range(20):
        client.log_metrics([[attempt, "user", [point("n", i, time.time_ns() // 1000, i) for i in range(n, n + 10)]]])
        n += 10
    while not client.flush(60):
        pass
    (folder / "new").write_text(str(n))
    os.replace(folder / "new", folder / "acknowledged")
print(n)
"""

SERVER = """
import os, signal
from dbnd._cli.main import main
from dbnd_tracker import _app
from dbnd_tracker._ingest import calls

left = int(os.environ["ANSWERS"])
if os.environ["DEDUPLICATE"] == "no":
    calls._advance = lambda *_: True

class Dying:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def answer(message):
            global left
            if message["type"] == "http.response.start" and scope["path"].endswith("/log_metrics"):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            await send(message)

        await self.app(scope, receive, answer if scope["type"] == "http" else send)

make = _app.create_app

def create_app(*args, **options):
    app = make(*args, **options)
    app.add_middleware(Dying)
    return app

_app.create_app = create_app
main()
"""


class Server:
    """The tracker in a process of its own, always on the same port."""

    def __init__(self, url: str, port: int, log: Path) -> None:
        self._command = ["tracker", "start", "--port", str(port), "--database", url]
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, answers: int = -1, deduplicate: str = "yes") -> subprocess.Popen[bytes]:
        """Start it, to die instead of its answer number ``answers`` to points; -1 lets it live."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with self._log.open("wb") as output:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", SERVER, *self._command],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "ANSWERS": str(answers), "DEDUPLICATE": deduplicate},
                )
            while b"Tracker at" not in self._log.read_bytes() and self.process.poll() is None:
                time.sleep(0.02)
            if self.process.poll() in {None, -signal.SIGKILL}:
                return self.process
            # Another process may have taken the port for a moment.
            assert time.monotonic() < deadline, self._log.read_text()

    def kill(self) -> None:
        """Kill it, if it lives."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


class Client:
    """The client's process."""

    def __init__(self, url: str, attempt: str, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, url, attempt, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def acknowledged(self) -> int:
        """How many points the tracker has acknowledged."""
        path = self._folder / "acknowledged"
        return int(path.read_text()) if path.exists() else 0

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until ``done``."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert self.process.poll() is None, self.process.communicate()
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
        output, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, errors
        return int(output)


@pytest.fixture
def start(tmp_path: Path, free_port: int) -> Iterator[Callable[[str, str], tuple[Server, Client]]]:
    """Starts a server over a database and a client of it; both end with the test."""
    found: list[Any] = []

    def make(url: str, attempt: str) -> tuple[Server, Client]:
        server = Server(url, free_port, tmp_path / "server.log")
        found.append(server)
        server.start()
        found.append(Client(f"http://127.0.0.1:{free_port}", attempt, tmp_path / "client"))
        return server, found[-1]

    yield make
    for each in found:
        each.process.kill()
        each.process.communicate()


def _stored(url: str) -> list[int]:
    database = open_database(url)
    with database.read() as session:
        values = [int(value) for (value,) in session.execute(text("SELECT value FROM metrics ORDER BY number"))]
        [points] = session.scalars(text("SELECT points FROM metric_series")).all()
    database.close()
    assert points == len(values)
    return values


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

    assert _stored(database_url) == list(range(logged))


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

    times = Counter(_stored(database_url))
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

    assert _stored(url) == list(range(logged))
