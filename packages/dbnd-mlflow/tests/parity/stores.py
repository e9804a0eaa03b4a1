"""The users' own stores: two equal ones of each kind, for the two sides of a scenario."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

SIDES = ("single", "double")  # of one length: what MLflow prints has columns as wide as the names of folders


@dataclass(frozen=True)
class Store:
    """A store without anything in it.

    Args:
        uri: Its tracking URI.
        place: The SQLite file or the folder in which it keeps what it is told.
    """

    uri: str
    place: Path


def sqlite_store(folder: Path, empty: Path) -> Store:
    """A store in an SQLite file, copied from an empty one: to make one takes MLflow seconds."""
    path = folder / "store.db"
    shutil.copy(empty, path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE experiments SET artifact_location = ?", (str(folder / "mlruns/0"),))
        database.commit()
    return Store(f"sqlite:///{path}", path)


def file_store(folder: Path) -> Store:
    """A store in a folder."""
    path = folder / "mlruns"
    path.mkdir()
    return Store(path.as_uri(), path)


def allows_files(folder: Path) -> bool:
    """Whether this MLflow keeps runs in files at all."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.file_store import FileStore

    try:
        FileStore(str(folder))
    except MlflowException:
        return False
    return True


class Servers:
    """An ``mlflow server`` for each side, started when the first scenario asks for them.

    Args:
        folder: Where they keep what they are told.
        empty: An SQLite store without anything in it.
        python: The interpreter of an environment with full MLflow.
    """

    def __init__(self, folder: Path, empty: Path, python: str = sys.executable) -> None:
        self._folder = folder
        self._empty = empty
        self._python = python
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stores: dict[str, Store] = {}

    def store(self, side: str) -> Store:
        """The store of one side, emptied of what earlier scenarios have left in it."""
        if not self._stores:
            self._start()
        store = self._stores[side]
        with contextlib.closing(sqlite3.connect(store.place, timeout=60)) as database:
            database.execute("ATTACH ? AS empty", (str(self._empty),))
            names = "SELECT name FROM empty.sqlite_master WHERE type = 'table'"
            for (name,) in database.execute(names).fetchall():
                database.execute(f'DELETE FROM main."{name}"')
                if database.execute(f'SELECT EXISTS (SELECT * FROM empty."{name}")').fetchone()[0]:
                    database.execute(f'INSERT INTO main."{name}" SELECT * FROM empty."{name}"')
            database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
            database.commit()
        return store

    def _start(self) -> None:
        for side in SIDES:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                port = sock.getsockname()[1]
            folder = self._folder / side
            folder.mkdir()
            place = folder / "store.db"
            shutil.copy(self._empty, place)
            command = [
                *(self._python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--workers", "1", "--backend-store-uri", f"sqlite:///{place}"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ]
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    cwd=folder,
                    start_new_session=True,
                    env={
                        **os.environ,
                        "PYTHONHASHSEED": "0",  # MLflow prints sets in its messages
                        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen processes that nobody needs
                    },
                )
            self._processes.append(process)
            self._stores[side] = Store(f"http://127.0.0.1:{port}", place)
        for side, process in zip(SIDES, self._processes, strict=True):
            self._wait(f"{self._stores[side].uri}/health", process, self._folder / side / "log")

    def _wait(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and process.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=5).read()
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
            else:
                return
        message = f"{url} does not answer:\n{log.read_text(errors='replace')}"
        raise RuntimeError(message)

    def stop(self) -> None:
        """End the servers that were started."""
        for process in self._processes:
            os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
