"""MLflow's own stores, empty, and servers of them.

MLflow's migrations take seconds, so they are run once, and what they made is copied.
"""

from __future__ import annotations

import contextlib
import functools
import os
import runpy
import shutil
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

from kit.servers import Command, Process, free_port, kill, server_process, start_process
from kit.warm import Warm


def make_empty(path: Path) -> Path:
    """Make MLflow's database without runs in it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = path.with_suffix(".new")
    SqlAlchemyStore(f"sqlite:///{new}", str(path.with_suffix(""))).engine.dispose()
    return new.rename(path)


def remember_schema() -> None:
    """Let MLflow look for its newest migration once in this process, and not for each store: it loads all of them."""
    from mlflow.store.db import utils

    if not hasattr(utils._get_latest_schema_revision, "cache_info"):
        utils._get_latest_schema_revision = functools.cache(utils._get_latest_schema_revision)
    utils._get_latest_schema_revision()


def mlflow_server(warm: Warm, arguments: Sequence[str], env: Mapping[str, str]) -> Command:
    """Starts ``mlflow server`` from a warm process."""
    code = f"from kit.mlflow_stores import serve; serve({['server', *arguments]!r})"
    return lambda log: warm.start({"code": code}, log, env=env, cwd=log.parent)


def serve(arguments: list[str]) -> NoReturn:
    """Be the process that MLflow's command starts as the server."""
    import mlflow.server
    from mlflow.cli import cli

    def become(command: list[str], *, extra_env: Mapping[str, str], **_: Any) -> NoReturn:
        os.environ.update(extra_env)
        sys.argv = command[command.index("-m") + 1 :] if "-m" in command else command
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        sys.exit()

    mlflow.server._exec_cmd = become
    cli(arguments)
    sys.exit()


class MlflowServer:
    """A running ``mlflow server`` with proxied artifacts, which can be emptied.

    Args:
        folder: Where it keeps what it is told.
        empty: A database without runs.
        start: A warm process to start it from, or the interpreter of an environment with full MLflow.
        database: URL of another database than a copy of ``empty``.
        options: More options of ``mlflow server``.
    """

    def __init__(
        self, folder: Path, empty: Path, start: Warm | str, database: str | None = None, options: Sequence[str] = ()
    ) -> None:
        self._options = options
        self.path = folder / "store.db"
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._empty = empty
        self._start = start
        self._database = database
        self._process: Process | None = None

    def running(self) -> AbstractContextManager[str]:
        """Start it, and end it with the block."""
        return server_process(*self._command())

    def start(self) -> None:
        """Start it, until it is killed."""
        self._process = start_process(*self._command())

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            kill(self._process)
            self._process = None

    def _command(self) -> tuple[Command, str, str, Path, dict[str, str]]:
        if not self._folder.exists():
            self._folder.mkdir()
            shutil.copy(self._empty, self.path)
        arguments = [
            *("--host", "127.0.0.1", "--port", self.url.rpartition(":")[2]),
            *("--workers", "1", "--backend-store-uri", self._database or f"sqlite:///{self.path}"),
            *("--artifacts-destination", str(self._folder / "artifacts")),
            *self._options,
        ]
        env = {
            "HOME": str(self._folder),
            "PYTHONHASHSEED": "0",  # MLflow prints sets in its messages
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen processes that nobody needs
            "UVICORN_TIMEOUT_KEEP_ALIVE": "600",  # MLflow's client sends on what was just closed, and fails
        }
        own = {name: value for name, value in os.environ.items() if not name.startswith(("DBND", "MLFLOW"))}
        return self._with(arguments, own | env), self.url, "/health", self._folder, own | env

    def _with(self, arguments: list[str], env: dict[str, str]) -> Command:
        if isinstance(self._start, Warm):
            return mlflow_server(self._start, arguments, env)
        return [self._start, "-m", "mlflow", "server", *arguments]

    def empty(self) -> None:
        """Remove what it was told."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as database:
            database.execute("ATTACH ? AS empty", (str(self._empty),))
            names = "SELECT name FROM empty.sqlite_master WHERE type = 'table'"
            for (name,) in database.execute(names).fetchall():
                database.execute(f'DELETE FROM main."{name}"')
                if database.execute(f'SELECT EXISTS (SELECT * FROM empty."{name}")').fetchone()[0]:
                    database.execute(f'INSERT INTO main."{name}" SELECT * FROM empty."{name}"')
            database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
            database.commit()
