"""Several processes that serve one socket."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from typing import Final

from dbnd_tracker._middleware.observing import MULTIPROCESS_FOLDER
from dbnd_tracker._server.process import serve
from dbnd_tracker._settings import TrackerSettings

# Seconds between looks at the processes; also what a process that dies at once waits for its successor.
_PERIOD: Final = 0.5
# Seconds beyond the grace of requests until a process that does not end is killed.
_PATIENCE: Final = 5


def serve_workers(
    settings: TrackerSettings, listening: socket.socket, started: Callable[[], None], *, guarded: bool
) -> None:
    """Serve the tracker from several processes until SIGINT or SIGTERM; one that dies is started again.

    They share a socket; ``started`` is called before the first request is served.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # By another thread: this one holds the lock of ``stop`` now and then while it waits, and would wait for itself.
        signal.signal(number, lambda *_: _thread.start_new_thread(stop.set, ()))
    # Spawned, so that none has threads or connections of this process; the settings go to them through a pipe.
    context = multiprocessing.get_context("spawn")

    def spawn() -> SpawnProcess:
        process = context.Process(target=_work, args=(settings, listening, guarded), daemon=True)
        process.start()
        return process

    with tempfile.TemporaryDirectory(prefix="databand-tracker-") as folder:
        os.environ[MULTIPROCESS_FOLDER] = folder  # where the processes add up their counters
        started()
        processes = [spawn() for _ in range(settings.workers)]
        while not stop.wait(_PERIOD):
            processes = [process if process.is_alive() else spawn() for process in processes]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(settings.shutdown_timeout_s + _PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()


def _work(settings: TrackerSettings, listening: socket.socket, guarded: bool) -> None:
    """Serve in a process of its own."""
    from dbnd.plugins import clean_logs
    from dbnd_tracker._server.app import create_app
    from dbnd_tracker._storage.database import open_database
    from dbnd_tracker._storage.upkeep.sealing import sealing

    clean_logs()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    database = open_database(str(settings.database), settings)
    with sealing(database):
        serve(create_app(database, settings, guarded=guarded), listening, lambda: None, settings)
    database.close()


def _end_with_parent() -> None:
    """Keep the port from being held by processes whose parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
