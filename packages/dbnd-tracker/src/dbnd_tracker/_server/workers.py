"""Several processes that serve one socket."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dbnd_tracker._middleware.observing import MULTIPROCESS_FOLDER
from dbnd_tracker._server.process import serve

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from multiprocessing.context import SpawnProcess

    from fastapi import FastAPI

    from dbnd_tracker._settings import TrackerSettings
    from dbnd_tracker._storage.database import Database

# Seconds between looks at the processes; also what a process that dies at once waits for its successor.
_PERIOD: Final = 0.5
# Seconds beyond the grace of requests until a process that does not end is killed.
_PATIENCE: Final = 5


@dataclass(frozen=True)
class WorkerPlan:
    """What the processes of one server have in common.

    Args:
        url: URL of the database.
        host: The address that they are served on.
        token: A token for everything.
        guarded: Whether every request must carry a token.
        settings: Limits, further host names, the log, the number of processes.
    """

    url: str
    host: str
    token: str | None
    guarded: bool
    settings: TrackerSettings

    def app(self, database: Database) -> FastAPI:
        """The tracker over ``database``, which is that of ``url``."""
        from dbnd_tracker._server.app import create_app

        return create_app(database, host=self.host, token=self.token, guarded=self.guarded, settings=self.settings)


def serve_workers(plan: WorkerPlan, listening: socket.socket, started: Callable[[], None]) -> None:
    """Serve the tracker from several processes until SIGINT or SIGTERM; one that dies is started again.

    Args:
        plan: What each of them serves, and how many there are.
        listening: The socket of ``listen``, which they share.
        started: Called before the first request is served.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # Spawned, so that none has threads or connections of this process; the plan goes to them through a pipe.
    context = multiprocessing.get_context("spawn")

    def spawn() -> SpawnProcess:
        process = context.Process(target=_work, args=(plan, listening), daemon=True)
        process.start()
        return process

    with tempfile.TemporaryDirectory(prefix="databand-tracker-") as folder:
        os.environ[MULTIPROCESS_FOLDER] = folder  # where the processes add up their counters
        started()
        processes = [spawn() for _ in range(plan.settings.workers)]
        while not stop.wait(_PERIOD):
            processes = [process if process.is_alive() else spawn() for process in processes]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(plan.settings.shutdown_timeout_s + _PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


def _work(plan: WorkerPlan, listening: socket.socket) -> None:
    """Serve in a process of its own."""
    from dbnd.plugins import clean_logs
    from dbnd_tracker._storage.database import open_database

    clean_logs()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    database = open_database(plan.url, heartbeat_timeout_s=plan.settings.heartbeat_timeout_s)
    serve(plan.app(database), listening, lambda: None, plan.settings)
    database.close()


def _end_with_parent() -> None:
    """Keep the port from being held by processes whose parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
