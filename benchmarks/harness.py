"""What the benchmarks share: servers, the environment of what is measured, and tables."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], url: str, ready: str, home: Path, *, cores: Sequence[int] = ()) -> Iterator[str]:
    """A server process, from its first answer to the end of the block.

    Args:
        command: Its command line.
        url: Where it serves.
        ready: Path that it answers as soon as it is ready.
        home: Its home, which must not exist yet; takes its output, too.
        cores: Where it runs; anywhere if empty.
    """
    home.mkdir(parents=True)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=home, env=environment(home)
        )
    try:
        if cores:
            os.sched_setaffinity(process.pid, cores)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(url + ready, timeout=5).read()
                break
            except (urllib.error.URLError, OSError):
                if process.poll() is not None or time.monotonic() > deadline:
                    message = f"{command[0]} does not serve {url}:\n{(home / 'log').read_text(errors='replace')}"
                    raise RuntimeError(message) from None
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a child: nothing of the caller's own settings of MLflow and databand."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "DBND", "WANDB"))}
    own = {"HOME": str(home), "DBND_HOME": str(home / "dbnd"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    own["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # a dozen processes beside what is measured
    return {**kept, **own, **more}


def table(rows: Sequence[Sequence[str]]) -> str:
    """``rows``, the first of which are titles, as aligned columns."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
