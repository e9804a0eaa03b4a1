"""A tracker's server over what real runs have logged, for a browser to look at."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.progress import wait_until
from kit.servers import free_port, server_process
from kit.warm import Warm, WarmProcess

PATIENCE_MS = 60_000
"""How long a browser on a busy machine may take, in milliseconds."""


@dataclass
class Site:
    """A tracker's server, and the database behind it."""

    url: str
    database: Path
    environment: dict[str, str] = field(repr=False)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database says."""
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def run(self, job: str) -> str:
        """Uid of the latest run of a job."""
        return str(self.query("SELECT uid FROM runs WHERE job_name = ? ORDER BY start_time DESC", job)[0][0])

    def task(self, job: str, name: str) -> str:
        """Uid of a task run of the latest run of a job."""
        sql = "SELECT uid FROM task_runs WHERE run_uid = ? AND name = ?"
        return str(self.query(sql, self.run(job), name)[0][0])

    def task_path(self, job: str, name: str) -> str:
        """Path of the page of a task run."""
        return f"/app/jobs/{job}/{self.run(job)}/{self.task(job, name)}"


def wait_for(page: Any, script: str, given: object = None) -> None:
    """Wait until a script gives true in a page.

    Playwright's own way compiles the script in the page if it is not true at once, and our policy forbids that.
    """
    wait_until(lambda: page.evaluate(script, given), lambda: f"{script} at {page.url}")


def environment_of(home: Path) -> dict[str, str]:
    """An environment without settings from outside, whose home is ``home``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DBND", "MLFLOW", "AIRFLOW"))}
    uri = f"sqlite:///{home / 'mlflow.db'}"
    own = {"HOME": str(home), "DBND_HOME": str(home / "dbnd"), "NO_COLOR": "1", "MLFLOW_TRACKING_URI": uri}
    return {**kept, **own, "TZ": "UTC"}


def serve(warm: Warm, home: Path, *options: str) -> AbstractContextManager[str]:
    """A tracker's server over the embedded file of ``home``, or what ``options`` say."""
    arguments = ["tracker", "start", "--port", str(port := free_port()), *options]

    def start(log: Path) -> WarmProcess:
        return warm.start({"arguments": arguments}, log, env=environment_of(home), cwd=home)

    return server_process(start, f"http://127.0.0.1:{port}", "/api/v1/auth/ping", home)


def dbnd(warm: Warm, home: Path, *args: str, code: int = 0) -> None:
    """Run the ``dbnd`` command in ``home`` and check how it ends."""
    log = home / f"dbnd-{time.monotonic_ns()}.log"
    process = warm.start({"arguments": args}, log, env=environment_of(home), cwd=home)
    assert process.wait(400) == code, process.output


def expect(thing: Any) -> Any:
    """Playwright's waiting assertions, with patience."""
    from playwright import sync_api

    sync_api.expect.set_options(timeout=PATIENCE_MS)
    return sync_api.expect(thing)
