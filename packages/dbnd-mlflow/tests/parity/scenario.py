"""What a scenario is, and what scenarios have in common."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient

KINDS = ("sqlite", "file", "http")


@dataclass
class Side:
    """Where a scenario runs: MLflow's tracking URI is ``uri``, the experiment has the scenario's name.

    That is the user's own URI on one side, the composite one on the other; the folder is empty, and one works in it.
    """

    uri: str
    folder: Path
    experiment: str
    experiment_id: str = ""

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a child process that inherits the tracking URI."""
        return {**os.environ, "MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_NAME": self.experiment, **more}

    def python(self, *args: str, **env: str) -> list[Any]:
        """Exit code and standard output of a Python process that inherits the tracking URI."""
        done = subprocess.run(
            [sys.executable, *args],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self.environment(**env),
        )
        assert done.returncode >= 0, done.stderr
        return [done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr]


Function = Callable[[Side], object]


@dataclass(frozen=True)
class Scenario:
    """What a scenario does, for which kinds of stores, and whether MLflow and what is beside it have what it needs.

    Two equal performances do not agree on the number of rows of the tables ``uncounted``.
    """

    function: Function
    needs: Callable[[], bool]
    kinds: tuple[str, ...]
    uncounted: frozenset[str]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    needs: Callable[[], bool] = lambda: True,
    kinds: tuple[str, ...] = KINDS,
    uncounted: frozenset[str] = frozenset(),
) -> Callable[[Function], Function]:
    """Register a scenario under its function's name (see ``Scenario`` for the arguments)."""

    def register(function: Function) -> Function:
        assert function.__name__ not in SCENARIOS
        SCENARIOS[function.__name__] = Scenario(function, needs, kinds, uncounted)
        return function

    return register


def has(*names: str, of: object = mlflow) -> Callable[[], bool]:
    """Whether an object has all these attributes."""
    return lambda: all(hasattr(of, name) for name in names)


def installed(*modules: str) -> Callable[[], bool]:
    """Whether these top-level modules are installed: mlflow-skinny brings few of what MLflow works with."""
    return lambda: all(importlib.util.find_spec(name) is not None for name in modules)


def all_of(*needs: Callable[[], bool]) -> Callable[[], bool]:
    """Whether all of some needs are met; the first that is not ends the question."""
    return lambda: all(need() for need in needs)


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has an argument of this name."""
    return name in inspect.signature(function).parameters


def outcome(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call returns, or the class and message of what it raises."""
    try:
        return call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  the very exception is what is compared
        return [f"{type(error).__module__}.{type(error).__qualname__}", str(error)]


def stored(run_id: str) -> dict[str, Any]:
    """All that the store tells of a run."""
    return MlflowClient().get_run(run_id).to_dictionary()


def flush_traces() -> None:
    """Wait until the traces are exported; there is nothing to wait for where export is not asynchronous."""
    with contextlib.suppress(Exception):
        mlflow.flush_trace_async_logging()


def trace_id_of(trace: Any) -> str:
    """The id of a trace, which had another name before MLflow 3."""
    return str(getattr(trace.info, "trace_id", None) or trace.info.request_id)
