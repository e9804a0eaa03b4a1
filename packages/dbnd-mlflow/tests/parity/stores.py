"""The users' own stores: two equal ones of each kind, for the two sides of a scenario."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from kit.mlflow_stores import MlflowServer
from kit.warm import Warm

SIDES = ("single", "double")  # of one length: what MLflow prints has columns as wide as the names of folders


@dataclass(frozen=True)
class Store:
    """A store without anything in it, which keeps what it is told in the SQLite file or the folder ``place``."""

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

    ``start`` is a warm process to start them from, or the interpreter of an environment with full MLflow.
    """

    def __init__(self, folder: Path, empty: Path, start: Warm | str) -> None:
        self._servers = {side: MlflowServer(folder / side, empty, start) for side in SIDES}
        self._running = contextlib.ExitStack()
        self._started = False

    def store(self, side: str) -> Store:
        """The store of one side, emptied of what earlier scenarios have left in it."""
        if not self._started:
            self._started = True
            for each in self._servers.values():
                self._running.enter_context(each.running())
        server = self._servers[side]
        server.empty()
        return Store(server.url, server.path)

    def stop(self) -> None:
        """End the servers that were started."""
        self._running.close()
