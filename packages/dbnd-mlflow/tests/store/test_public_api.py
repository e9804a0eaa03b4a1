"""Every method of ``MlflowClient`` answers alike under the own URI and the composite one.

They are called with arguments made up from their signatures, which most of them refuse: the refusal, too, must be the
same under the composite URI.
"""

from __future__ import annotations

import inspect
import re
import shutil
from datetime import datetime

import mlflow
import pytest
from mlflow import MlflowClient

from dbnd_mlflow import build_composite_uri

pytestmark = pytest.mark.usefixtures("unflushed")
# Ids that a store makes up, times, addresses in memory, and the side's own file.
_VARYING = re.compile(
    r"[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\b\d{13,}\b|(?:tr|m|d|wh)-[0-9a-f]+|[a-z]+-[a-z]+-\d+"
)
# They wait for a server or a user, start processes, or change what the process is set to.
_LEFT_OUT = {
    *("doctor", "login", "run", "set_tracking_uri", "set_registry_uri", "end_run", "start_run"),
    *("flush_async_logging", "flush_trace_async_logging", "flush_artifact_async_logging"),
}


@pytest.fixture
def sides(tracker_url, tmp_path, empty_database):
    """An own URI and a composite one, over two equal stores."""
    for name in ("native", "ours"):
        shutil.copy(empty_database, tmp_path / f"{name}.db")
    native, ours = (f"sqlite:///{tmp_path / name}.db" for name in ("native", "ours"))
    return native, build_composite_uri(tracker_url, ours), tmp_path


def made_up(function, run_id):
    """Arguments for the parameters that must be given: ids and names of what exists, or of nothing."""
    given = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty or parameter.kind in {
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        }:
            continue
        given[name] = run_id if name == "run_id" else "0" if name == "experiment_id" else _value(name)
    return given


def _value(name):
    if name in {"metrics", "params", "tags", "dictionary"}:
        return {"k": 1}
    if name.endswith(("_ids", "_names")):
        return ["0"]
    if name == "timestamp":
        return datetime(2026, 1, 1)  # noqa: DTZ001  one that MLflow refuses
    return 1 if name == "value" else f"made-up-{name}"


def answer(call, given, run_id, folder):
    """The type of what a call returns, or the type and message of what it raises."""
    try:
        result = call(**given)
        return type(list(result) if inspect.isgenerator(result) else result).__qualname__
    except Exception as error:  # noqa: BLE001  the very exception is what is compared
        text = str(error).replace(run_id, "<run>").replace(str(folder), "<folder>")
        return type(error), _VARYING.sub("<id>", text.replace("native.db", "<db>").replace("ours.db", "<db>"))


def each_public(owner):
    # What deletes comes last: the others would be refused.
    for name in sorted(dir(owner), key=lambda name: (name.startswith("delete_"), name)):
        function = getattr(owner, name)
        if not name.startswith("_") and name not in _LEFT_OUT and inspect.isroutine(function):
            yield name


def test_every_method_of_the_client_answers_alike(sides):
    native, ours, folder = sides
    clients = [MlflowClient(tracking_uri=uri, registry_uri=uri) for uri in (native, ours)]
    runs = [client.create_run("0", run_name="r").info.run_id for client in clients]
    count = 0
    for name in each_public(clients[0]):
        answers = []
        for uri, client, run_id in zip((native, ours), clients, runs, strict=True):
            mlflow.set_tracking_uri(uri)
            method = getattr(client, name)
            answers.append(answer(method, made_up(method, run_id), run_id, folder))
        assert answers[1] == answers[0], name
        count += 1
    assert count > 30
