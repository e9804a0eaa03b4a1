"""Fixtures of every package's tests: an isolated home, and commands and servers as real processes."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit import commands, servers
from kit.commands import Run, script
from kit.mlflow_stores import MlflowServer, make_empty, remember_schema
from kit.postgresql import PostgreSQL, running_postgresql
from kit.scale import load_profile
from kit.servers import StartServer
from kit.statements import compile_once
from kit.terminal import Terminal
from kit.warm import Warm, WarmProcess

PROCESSES = {"warm", "cold_dbnd", "cold_python", "start_server", "dbnd_command", "serve", "_running_mlflow"}
"""Fixtures that start processes or servers."""


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start: a shell that runs them in the background ignores it for all."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # it finds nothing while all is imported, and takes a second or two
    load_profile()
    with contextlib.suppress(ImportError):  # where neither the tracker nor full MLflow is installed
        compile_once()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """More workers than cores: tests wait for servers and other processes much of their time."""
    return 2 * (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let one worker make the site that browsers look at, and one that of artifacts.

    xdist itself groups by marks, which with pytest 9.2 has no effect.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            if not module.startswith("tests/browser/"):
                return nodeid
            return module if module.endswith("test_artifacts.py") else "site"

    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass by what stays to the end: libraries and the tests themselves."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts processes, servers or PostgreSQL, and begin with it: only short tests end a run."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if not fixtures.isdisjoint(PROCESSES):
            item.add_marker("process")
        if not fixtures.isdisjoint({"postgresql", "start_postgresql"}):
            item.add_marker("postgresql")
    items.sort(key=lambda item: not any(map(item.get_closest_marker, ("process", "postgresql"))))


@pytest.fixture(autouse=True)
def _clients_end() -> Iterator[None]:
    """No sender of a test goes on into another one."""
    yield
    outbox = sys.modules.get("dbnd._tracking.outbox")
    for each in list(outbox._open) if outbox is not None else ():
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


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Starts processes within milliseconds."""
    with Warm() as started:
        yield started


@pytest.fixture
def dbnd(warm: Warm) -> Run:
    """Run ``dbnd`` in a process of its own, which has imported everything already."""
    return lambda *args, timeout=100, **env: warm.run({"arguments": args}, timeout, **env)


@pytest.fixture
def python(warm: Warm) -> Run:
    """Run a Python script in a process of its own, which has imported everything already and ends as any other."""
    return lambda code, timeout=100, **env: warm.run({"code": code, "finalize": True}, timeout, **env)


@pytest.fixture
def cold_dbnd() -> Run:
    """Run the installed ``dbnd`` in a fresh process: for what concerns its start."""
    return functools.partial(commands.run_command, script("dbnd"))


@pytest.fixture
def cold_python() -> Run:
    """Run a Python script in a fresh process: for what concerns imports."""
    return functools.partial(commands.run_command, sys.executable, "-c")


@pytest.fixture
def terminal(warm: Warm) -> Iterator[Callable[..., Terminal]]:
    """Start ``dbnd`` in a pseudo-terminal."""
    opened = []

    def start(*args: str, columns: int = 80, lines: int = 24, **env: str) -> Terminal:
        own = {name: value for name, value in os.environ.items() if name not in {"CI", "NO_COLOR", "FORCE_COLOR"}}
        found = Terminal(warm, args, columns, lines, own | {"TERM": "xterm-256color"} | env)
        opened.append(found)
        return found

    yield start
    for found in opened:
        found.close()


@pytest.fixture
def free_port() -> int:
    """A loopback port that nothing listens on, and that no other process is given."""
    return servers.free_port()


@pytest.fixture
def start_server(tmp_path: Path) -> StartServer:
    """Start a server process, wait until it answers, and end it with the block."""
    return functools.partial(servers.server_process, logs=tmp_path)


@pytest.fixture
def tracker_server(free_port: int, start_server: StartServer, warm: Warm) -> Iterator[str]:
    """The URL of a running ``dbnd tracker start`` over the embedded default's file."""

    def start(log: Path) -> WarmProcess:
        return warm.dbnd("tracker", "start", "--port", str(free_port), log=log)

    with start_server(start, f"http://127.0.0.1:{free_port}", "/api/v1/auth/ping") as url:
        yield url


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's without runs, made by one of xdist's workers for all."""
    remember_schema()
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (folder / "empty.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / "empty.db"
        return path if path.exists() else make_empty(path)


@pytest.fixture(scope="session")
def _running_mlflow(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, warm: Warm
) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow") / "server", empty_database, warm)
    with server.running():
        yield server


@pytest.fixture
def mlflow_server(_running_mlflow: MlflowServer) -> str:
    """The URL of a running ``mlflow server`` with proxied artifacts and without runs."""
    _running_mlflow.empty()
    return _running_mlflow.url


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
