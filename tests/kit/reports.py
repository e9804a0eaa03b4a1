"""What was reported of MLflow's calls, read from journals or brought to the tracker, and a small model to log."""

from __future__ import annotations

import inspect
import re
from collections import Counter

import mlflow
import pytest


def deliver():
    """Wait until the trackers of this process have what was reported to them."""
    from dbnd._tracking.outbox import _outboxes

    for client in list(_outboxes):
        client.close()


def points(events):
    """How often each point was reported."""
    elements = [e for call, body in events if call == "log_metrics" for e in body["metrics_info"]]
    return Counter((e["source"], e["metric"]["key"], e["metric"].get("step")) for e in elements)


def calls(events):
    return Counter(call for call, _ in events)


def bodies(events, call):
    """The bodies of one call, in the order in which they were reported."""
    return [body for name, body in events if name == call]


def attempts_of_points(events):
    return [e["task_run_attempt_uid"] for b in bodies(events, "log_metrics") for e in b["metrics_info"] if e]


def outcome(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  the very exception is what is compared
        return type(error), re.sub(r"0x[0-9a-f]+", "0x", str(error))


def key_of(function):
    """The name of the argument that names a model: it has changed."""
    return "name" if "name" in inspect.signature(function).parameters else "artifact_path"


def log_small_model(name, **more):
    """Requirements are given: to infer them, MLflow would load the model in a process of its own."""
    pytest.importorskip("pandas", reason="MLflow's pyfunc needs it")

    class Doubler(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return [2 * value for value in model_input]

    function = mlflow.pyfunc.log_model
    return function(**{key_of(function): name}, python_model=Doubler(), pip_requirements=["mlflow-skinny"], **more)
