"""What one log call costs: ours, those of its peers, and the floor, each in a process of its own.

Each logger is a context manager that gives a function ``log(step)``, which logs one value of one metric.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

Log = Callable[[int], Any]


@contextlib.contextmanager
def floor() -> Iterator[Log]:
    """JSON to a file, and nothing else."""
    fd = os.open("floor.json", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def log(step: int) -> None:
        os.write(fd, json.dumps({"key": "loss", "value": step / 7, "step": step}).encode() + b"\n")

    yield log
    os.close(fd)


@contextlib.contextmanager
def databand() -> Iterator[Log]:
    """Ours, with the tracker that the environment names."""
    from dbnd import dbnd_tracking, log_metric

    with dbnd_tracking("benchmark"):
        yield lambda step: log_metric("loss", step / 7, step=step)


@contextlib.contextmanager
def mlflow_sync() -> Iterator[Log]:
    """MLflow into an SQLite file, as it logs by default."""
    import mlflow

    with mlflow.start_run():
        yield lambda step: mlflow.log_metric("loss", step / 7, step=step)


@contextlib.contextmanager
def mlflow_async() -> Iterator[Log]:
    """MLflow into an SQLite file, without waiting for it."""
    import mlflow

    with mlflow.start_run():
        yield lambda step: mlflow.log_metric("loss", step / 7, step=step, synchronous=False)
        mlflow.flush_async_logging()


@contextlib.contextmanager
def wandb_offline() -> Iterator[Log]:
    """Weights & Biases into its own file, without a server."""
    import wandb

    run = wandb.init(project="benchmark", mode="offline")
    yield lambda step: run.log({"loss": step / 7}, step=step)
    run.finish()


@contextlib.contextmanager
def trackio_local() -> Iterator[Log]:
    """Log with trackio into its own SQLite file."""
    import trackio

    trackio.init(project="benchmark")
    yield lambda step: trackio.log({"loss": step / 7}, step=step)
    trackio.finish()


FLOOR: Final = "json.dumps + write"
OURS: Final = "dbnd.log_metric"
# By the names of the table's rows: the logger, and the module that it needs.
LOGGERS: Final[dict[str, tuple[Callable[[], AbstractContextManager[Log]], str]]] = {
    FLOOR: (floor, "json"),
    OURS: (databand, "dbnd"),
    "trackio": (trackio_local, "trackio"),
    "wandb offline": (wandb_offline, "wandb"),
    "mlflow async": (mlflow_async, "mlflow"),
    "mlflow": (mlflow_sync, "mlflow"),
}


def installed(name: str) -> bool:
    """Whether the module that a logger needs is here."""
    return importlib.util.find_spec(LOGGERS[name][1]) is not None


def call_times(name: str, calls: int) -> dict[str, float]:
    """Median and 99th percentile of the time of a call, in µs, after a tenth as many calls that are not counted."""
    clock = time.perf_counter_ns
    times = []
    with LOGGERS[name][0]() as log:
        for step in range(calls // 10):
            log(step)
        for step in range(calls // 10, calls // 10 + calls):
            start = clock()
            log(step)
            times.append(clock() - start)
    times.sort()
    return {"p50": times[len(times) // 2] / 1000, "p99": times[len(times) * 99 // 100] / 1000}
