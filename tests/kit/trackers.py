"""A real tracker that can be killed, and a reading of what it has taken."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from kit.warm import LIMIT, Warm, WarmProcess


class Tracker:
    """``dbnd tracker start`` over a file of its own, on a free port that differs from start to start.

    Args:
        warm: Starts its processes.
        folder: Takes its database and what it prints.
    """

    def __init__(self, warm: Warm, folder: Path) -> None:
        self._warm = warm
        self._folder = folder
        self._process: WarmProcess | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.database = f"sqlite:///{folder / 'tracker.db'}"
        self.url = ""
        self.starts = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> str:
        """Start it, wait until it listens, and return its URL."""
        self.starts += 1
        log = self._folder / f"tracker-{self.starts}.log"
        options = ("--port", "0", "--database", self.database)
        process = self._warm.dbnd("tracker", "start", *options, log=log, DBND_HOME=str(self._folder))
        self._process = process
        deadline = time.monotonic() + LIMIT
        while not (found := re.search(r"http://localhost:(\d+)", process.output)):
            if process.poll() is not None or time.monotonic() > deadline:
                msg = f"The tracker has not started:\n{process.output}"
                raise RuntimeError(msg)
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{found[1]}"
        return self.url

    @property
    def is_running(self) -> bool:
        """Whether it has been started and nobody has killed it."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def values(self, task_run_uid: str, key: str) -> list[Any]:
        """The values of one metric, in the order in which they came."""
        with reading(self.database) as reader:
            return [point["value"] for point in reader.points(task_run_uid, key)]

    def states(self, run_uid: str) -> dict[str, str]:
        """The state of a run, under "", and those of its task runs by their names, in lower case."""
        with reading(self.database) as reader:
            run = reader.run(run_uid)
        return {"": run.state} | {task_run.name: task_run.state for task_run in run.task_runs}


@contextmanager
def reading(database: str) -> Iterator[Any]:
    """What reads a tracker's database.

    Args:
        database: Its URL; it need not exist yet.
    """
    from dbnd._context.registry import create_reader, load_config

    reader = create_reader(load_config(conf={"core.databand_url": database}))
    try:
        yield reader
    finally:
        reader.close()
