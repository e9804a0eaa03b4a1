"""MLflow under the composite URI does what it does under the user's own.

Each scenario runs twice, against two equal fresh stores: once with the inner URI set, once with the composite one.
What it observes, and how many rows or files of each kind it leaves in the store, must be equal.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import math
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.tracking import fluent
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd_mlflow import DatabandStore, build_composite_uri

pytestmark = pytest.mark.parity

# ------------------------------------------------------------------------------------------------ scenarios


@dataclass
class Side:
    """Where a scenario runs: MLflow's tracking URI is ``uri``, the experiment has the scenario's name."""

    uri: str
    folder: Path
    experiment: str
    experiment_id: str = ""

    def python(self, *args: str, **env: str) -> list[Any]:
        """Exit code and standard output of a Python process that inherits the tracking URI."""
        done = subprocess.run(
            [sys.executable, *args],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_NAME": self.experiment, **env},
        )
        assert done.returncode >= 0, done.stderr
        return [done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr]


Scenario = Callable[[Side], object]
SCENARIOS: dict[str, Scenario] = {}
NEEDS: dict[str, Callable[[], bool]] = {}
# How many samples a thread takes in a second is not for two runs to agree on.
UNCOUNTED = {"system_metrics": {"metrics"}}


def scenario(needs: Callable[[], bool] = lambda: True) -> Callable[[Scenario], Scenario]:
    """Register a scenario; ``needs`` tells whether this MLflow has what it uses."""

    def register(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = function
        NEEDS[function.__name__] = needs
        return function

    return register


def has(*names: str, of: object = mlflow) -> Callable[[], bool]:
    return lambda: all(hasattr(of, name) for name in names)


def takes(function: Callable[..., Any], name: str) -> bool:
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


@scenario()
def fluent_logging(side):
    with mlflow.start_run(run_name="one", description="a note", tags={"at": "start"}) as run:
        mlflow.log_param("lr", 0.001)
        mlflow.log_params({"a": 1, "b": None, "c": [1, 2]})
        mlflow.log_metric("loss", 0.5)
        mlflow.log_metric("loss", 0.25, step=7)
        mlflow.log_metrics({"x": 1, "y": np.float32(2)}, step=3)
        mlflow.set_tag("t", "v")
        mlflow.set_tags({"u": 1, "w": "x" * 4_000})
        active = mlflow.active_run().info.run_id == run.info.run_id
    last = mlflow.last_active_run().info.run_id == run.info.run_id
    return active, last, mlflow.active_run(), stored(run.info.run_id)


@scenario()
def batches(side):
    client = MlflowClient()
    run_id = client.create_run(side.experiment_id, run_name="r").info.run_id
    returned = client.log_batch(run_id, [Metric(f"m{n}", n / 7, 1_700_000_000_000 + n, n) for n in range(1000)])
    client.log_batch(run_id, params=[Param(f"p{n}", "v") for n in range(100)], tags=[RunTag("t", "1")])
    client.log_batch(run_id, [Metric("m0", n, 5, n) for n in range(20)])
    too_many = outcome(client.log_batch, run_id, [Metric("m", 1, 0, 0)] * 1001)
    return returned, stored(run_id), [vars(m) for m in client.get_metric_history(run_id, "m0")], too_many


@scenario()
def metric_histories(side):
    client = MlflowClient()
    run_id = client.create_run(side.experiment_id, run_name="r").info.run_id
    values = [1, math.nan, math.inf, -math.inf, -0.0, 1e-300, 0.1 + 0.2, 2**60]
    for number, value in enumerate(values):
        client.log_metric(run_id, "m", value, timestamp=1_000 + number, step=number - 2)
    client.log_metric(run_id, "plain", 3)
    client.log_metric(run_id, "later first", 1, timestamp=20, step=9)
    client.log_metric(run_id, "later first", 2, timestamp=10, step=1)
    client.log_metric(run_id, "twice", 5, timestamp=7, step=7)
    client.log_metric(run_id, "twice", 5, timestamp=7, step=7)
    names = ("m", "plain", "later first", "twice", "none")
    history = {name: [vars(m) for m in client.get_metric_history(run_id, name)] for name in names}
    return history, stored(run_id)


@scenario()
def odd_names_and_values(side):
    with mlflow.start_run(run_name="größe 大きさ 🚀") as run:
        results = [
            outcome(mlflow.log_param, "größe", "naïve ☃"),
            outcome(mlflow.log_metric, "精度", 0.9),
            outcome(mlflow.set_tag, "étiquette", "🚀\n\ttab 'quote' \"double\" %41 & ="),
            outcome(mlflow.log_metric, "with space/and.dots-_", 1),
            outcome(mlflow.log_metric, "a:b", 1),
            outcome(mlflow.log_metric, "bad\x07name", 1),
            outcome(mlflow.log_metric, "../up", 1),
            outcome(mlflow.log_metric, "", 1),
            outcome(mlflow.log_metric, "m", "no number"),
            outcome(mlflow.log_param, "empty", ""),
            outcome(mlflow.set_tag, "empty", ""),
        ]
    return results, stored(run.info.run_id)


@scenario()
def long_params(side):
    with mlflow.start_run(run_name="r") as run:
        results = [outcome(mlflow.log_param, f"p{size}", "y" * size) for size in (500, 501, 6_000, 6_001)]
        key = outcome(mlflow.log_param, "k" * 251, "v")
    return results, key, stored(run.info.run_id)


@scenario()
def repeated_params(side):
    with mlflow.start_run(run_name="r") as run:
        same = [outcome(mlflow.log_param, "p", 1), outcome(mlflow.log_param, "p", "1")]
        other = outcome(mlflow.log_param, "p", 2)
        batch = outcome(mlflow.log_params, {"q": 1, "p": 3})
        twice = outcome(MlflowClient().log_batch, run.info.run_id, params=[Param("z", "1"), Param("z", "2")])
    return same, other, batch, twice, stored(run.info.run_id)


@scenario()
def nested_runs(side):
    with mlflow.start_run(run_name="parent") as parent:
        with mlflow.start_run(run_name="child", nested=True) as child, mlflow.start_run(run_name="leaf", nested=True):
            mlflow.log_metric("m", 1)
        refused = outcome(mlflow.start_run, run_name="sibling")
    children = mlflow.search_runs(
        filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}'", output_format="list"
    )
    parents = MlflowClient().get_parent_run(child.info.run_id) if hasattr(MlflowClient, "get_parent_run") else None
    return (
        refused,
        [run.info.run_name for run in children],
        parents and parents.info.run_name,
        stored(child.info.run_id),
    )


@scenario()
def failed_and_reopened_runs(side):
    with contextlib.suppress(ZeroDivisionError), mlflow.start_run(run_name="r") as run:
        mlflow.log_metric("m", 1 // 0)
    first = stored(run.info.run_id)
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("m", 2)
        again = stored(run.info.run_id)
    client = MlflowClient()
    client.set_terminated(run.info.run_id, "KILLED", end_time=1_700_000_000_123)
    client.update_run(run.info.run_id, name="renamed")
    return first, again, stored(run.info.run_id), outcome(mlflow.start_run, run_id="0" * 32)


@scenario()
def deleted_and_restored_runs(side):
    client = MlflowClient()
    run_id = client.create_run(side.experiment_id, run_name="r", tags={"t": "v", "u": "w"}).info.run_id
    results = [client.delete_tag(run_id, "t"), outcome(client.delete_tag, run_id, "t")]
    client.delete_run(run_id)
    results.append(outcome(client.log_metric, run_id, "m", 1))
    results.append(stored(run_id))
    results += [len(client.search_runs([side.experiment_id], run_view_type=view)) for view in (1, 2, 3)]
    client.restore_run(run_id)
    client.log_metric(run_id, "m", 1)
    return results, stored(run_id)


@scenario()
def experiments(side):
    client = MlflowClient()
    names = ["experiments-b", "experiments-a", "experiments-ü"]
    ids = [client.create_experiment(name, tags={"kind": "x", "n": name[-1]}) for name in names]
    client.set_experiment_tag(ids[0], "k", "v")
    client.rename_experiment(ids[0], "experiments-c")
    client.delete_experiment(ids[1])
    results = [
        outcome(client.create_experiment, "experiments-ü"),
        outcome(client.create_experiment, "experiments-a"),
        outcome(mlflow.set_experiment, "experiments-a"),
        outcome(client.create_run, ids[1]),
        outcome(client.get_experiment, "9" * 18),
        client.get_experiment_by_name("experiments-none"),
    ]
    found = [
        [e.name for e in client.search_experiments(filter_string=text, order_by=["name DESC"], view_type=view)]
        for text in ("name LIKE 'experiments-%'", "tags.kind = 'x'", "tags.n = 'b'")
        for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)
    ]
    client.restore_experiment(ids[1])
    page = client.search_experiments(filter_string="tags.kind = 'x'", order_by=["name ASC"], max_results=2)
    rest = client.search_experiments(
        filter_string="tags.kind = 'x'", order_by=["name ASC"], max_results=2, page_token=page.token
    )
    current = mlflow.set_experiment("experiments-a")
    mlflow.set_experiment_tags({"later": "yes"})
    with mlflow.start_run(run_name="r") as run:
        inside = run.info.experiment_id == current.experiment_id == ids[1]
    final = [vars(client.get_experiment(i)) for i in ids]
    return results, found, [e.name for e in page], [e.name for e in rest], inside, final


@scenario()
def searches(side):
    client = MlflowClient()
    for number in range(7):
        run = client.create_run(side.experiment_id, start_time=1_000 + number, run_name=f"r{number}")
        client.log_metric(run.info.run_id, "m", number % 3, timestamp=1)
        client.log_param(run.info.run_id, "p", "ab"[number % 2])
        client.set_terminated(run.info.run_id, end_time=2_000 + number)
    pages, token = [], None
    while not pages or token:
        page = client.search_runs([side.experiment_id], order_by=["metrics.m DESC"], max_results=3, page_token=token)
        pages.append([run.info.run_name for run in page])
        token = page.token
    frame = mlflow.search_runs(filter_string="metrics.m > 0 and params.p = 'a'", order_by=["start_time ASC"])
    frame = frame.assign(start_time=frame.start_time.astype("int64"), end_time=0)
    names = mlflow.search_runs(experiment_names=[side.experiment], output_format="list", max_results=4)
    return (
        pages,
        {column: str(kind) for column, kind in frame.dtypes.items()},
        frame.astype(str).to_dict("list"),
        [run.info.run_name for run in names],
        outcome(mlflow.search_runs, filter_string="nonsense = 1"),
        outcome(client.search_runs, [side.experiment_id], page_token="nonsense"),
    )


@scenario()
def artifacts(side):
    source = side.folder / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/x.txt").write_text("x")
    (source / "y.bin").write_bytes(bytes(range(256)))
    client = MlflowClient()
    with mlflow.start_run(run_name="r") as run:
        mlflow.log_artifact(source / "y.bin")
        mlflow.log_artifacts(str(source), "all")
        mlflow.log_text("grüße", "text/a b.txt")
        mlflow.log_dict({"ü": [1, 2]}, "d.json")
        mlflow.log_dict({"a": 1}, "d.yaml")
        place = mlflow.get_artifact_uri("d.json")
    run_id = run.info.run_id
    listed = {
        path: [[f.path, f.is_dir, f.file_size] for f in client.list_artifacts(run_id, path)]
        for path in (None, "all", "all/deep", "nothing")
    }
    down = side.folder / "down"
    down.mkdir()
    folder = Path(client.download_artifacts(run_id, "all", str(down)))
    fetched = {p.relative_to(folder).as_posix(): p.read_bytes().hex() for p in folder.rglob("*") if p.is_file()}
    by_uri = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/text/a b.txt")).read_text()
    loaded = mlflow.artifacts.load_text(place), mlflow.artifacts.load_dict(f"runs:/{run_id}/d.json")
    missing = outcome(mlflow.artifacts.download_artifacts, run_id=run_id, artifact_path="none.txt")
    return place, listed, sorted(fetched.items()), by_uri, loaded, missing[0] if missing else missing, stored(run_id)


@scenario()
def tables(side):
    with mlflow.start_run(run_name="r") as run:
        mlflow.log_table({"q": ["a", "b"], "n": [1, 2]}, "t.json")
        mlflow.log_table(pd.DataFrame({"q": ["c"], "n": [3]}), "t.json")
    frame = mlflow.load_table("t.json", run_ids=[run.info.run_id], extra_columns=["run_id"])
    return frame.astype(str).to_dict("list"), stored(run.info.run_id)["data"]["tags"]


@scenario()
def datasets(side):
    frame = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    with mlflow.start_run(run_name="r") as run:
        mlflow.log_input(mlflow.data.from_pandas(frame, source="s3://bucket/a.csv", name="frame"), context="training")
        mlflow.log_input(mlflow.data.from_numpy(np.ones((4, 3)), name="array"), tags={"k": "v"})
        mlflow.log_input(mlflow.data.from_pandas(frame, source="s3://bucket/a.csv", name="frame"), context="training")
    found = mlflow.search_runs(filter_string="dataset.name = 'frame'", output_format="list")
    inputs = MlflowClient().get_run(run.info.run_id).inputs.dataset_inputs
    rows = [[vars(i.dataset), sorted((t.key, t.value) for t in i.tags)] for i in inputs]
    return len(found), sorted(rows, key=str)


def fitted():
    from sklearn.linear_model import LinearRegression

    x = np.arange(12.0).reshape(6, 2)
    return LinearRegression().fit(x, x.sum(axis=1)), x


def log_sklearn(model, name, **more):
    """Requirements are given: to infer them, MLflow would load the model in a process of its own."""
    key = "name" if takes(mlflow.sklearn.log_model, "name") else "artifact_path"
    return mlflow.sklearn.log_model(model, **{key: name}, pip_requirements=["scikit-learn"], **more)


@scenario()
def models_of_runs(side):
    import mlflow.sklearn

    model, x = fitted()
    with mlflow.start_run(run_name="r") as run:
        info = log_sklearn(model, "m", input_example=None, signature=mlflow.models.infer_signature(x))
    uri = f"runs:/{run.info.run_id}/m"
    predicted = [
        mlflow.sklearn.load_model(uri).predict(x).round(6).tolist(),
        mlflow.pyfunc.load_model(info.model_uri).predict(x).round(6).tolist(),
    ]
    about = mlflow.models.get_model_info(uri)
    return info.model_uri, sorted(about.flavors), str(about.signature), predicted, stored(run.info.run_id)


class Doubler(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [2 * v for v in model_input["a"]]


@scenario()
def registered_models(side):
    import mlflow.sklearn

    client = MlflowClient()
    model, x = fitted()
    with mlflow.start_run(run_name="r") as run:
        log_sklearn(model, "m", registered_model_name="registered_models")
    second = mlflow.register_model(f"runs:/{run.info.run_id}/m", "registered_models", tags={"k": "v"})
    client.set_registered_model_alias("registered_models", "champion", second.version)
    client.set_model_version_tag("registered_models", "1", "quality", "poor")
    client.update_registered_model("registered_models", "described")
    loaded = [
        mlflow.pyfunc.load_model(uri).predict(x).round(6).tolist()
        for uri in ("models:/registered_models/1", "models:/registered_models@champion")
    ]
    versions = client.search_model_versions("name='registered_models'")
    download = client.get_model_version_download_uri("registered_models", "1")
    client.delete_registered_model_alias("registered_models", "champion")
    return (
        loaded,
        download,
        [vars(version) for version in sorted(versions, key=lambda v: int(v.version))],
        [m.name for m in client.search_registered_models("name LIKE 'registered_m%'")],
        outcome(client.get_model_version_by_alias, "registered_models", "champion"),
        outcome(client.get_model_version, "registered_models", "7"),
        outcome(client.get_registered_model, "nothing"),
        outcome(client.create_registered_model, "registered_models"),
        outcome(mlflow.pyfunc.load_model, "models:/nothing/1"),
    )


@scenario(has("initialize_logged_model", "search_logged_models"))
def logged_models(side):
    model = mlflow.initialize_logged_model(name="external", params={"p": "1"}, tags={"t": "v"}, model_type="agent")
    mlflow.set_active_model(model_id=model.model_id)
    with mlflow.start_run(run_name="r") as run:
        mlflow.log_metric("m", 0.5, step=1, model_id=model.model_id)
        mlflow.log_model_params({"q": "2"}, model_id=model.model_id)
        mlflow.set_logged_model_tags(model.model_id, {"u": "w"})
    mlflow.finalize_logged_model(model.model_id, "READY")
    mlflow.delete_logged_model_tag(model.model_id, "t")
    mlflow.clear_active_model()
    found = mlflow.search_logged_models(experiment_ids=[side.experiment_id], output_format="list")
    return (
        mlflow.get_logged_model(model.model_id).to_dictionary(),
        [m.name for m in found],
        outcome(mlflow.get_logged_model, "m-nothing"),
        stored(run.info.run_id),
    )


@scenario()
def python_models(side):
    key = "name" if takes(mlflow.pyfunc.log_model, "name") else "artifact_path"
    with mlflow.start_run(run_name="r"):
        info = mlflow.pyfunc.log_model(**{key: "d"}, python_model=Doubler(), pip_requirements=["mlflow-skinny"])
    return mlflow.pyfunc.load_model(info.model_uri).predict(pd.DataFrame({"a": [1, 2]})), sorted(info.flavors)


@scenario()
def autologging(side):
    import mlflow.sklearn

    mlflow.sklearn.autolog(log_models=False, silent=True)
    try:
        fitted()
    finally:
        mlflow.sklearn.autolog(disable=True, silent=True)
    found = []
    for run in mlflow.search_runs(output_format="list"):  # none where MLflow cannot patch this scikit-learn
        files = sorted(f.path for f in MlflowClient().list_artifacts(run.info.run_id))
        facts = stored(run.info.run_id)
        inputs = facts.pop("inputs", {}).get("dataset_inputs", [])
        found.append([files, facts, len(inputs)])
    return found


@scenario()
def evaluation(side):
    evaluate = getattr(mlflow.models, "evaluate", None) or mlflow.evaluate
    data = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 5.0], "p": [1.0, 2.0, 3.0, 4.0]})
    with mlflow.start_run(run_name="r") as run:
        result = outcome(
            evaluate, data=data, targets="y", predictions="p", model_type="regressor", evaluators="default"
        )
    facts = stored(run.info.run_id)
    seen = result if isinstance(result, list) else [sorted(result.metrics.items()), sorted(result.artifacts)]
    return seen, facts["data"], facts["info"]["status"]


@scenario(has("evaluate", "scorer", of=getattr(mlflow, "genai", None)))
def genai_evaluation(side):
    @mlflow.genai.scorer
    def exact(outputs, expectations):
        return outputs == expectations["is"]

    data = [{"inputs": {"q": n}, "outputs": str(n), "expectations": {"is": "1"}} for n in range(2)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = mlflow.genai.evaluate(data=data, scorers=[exact])
    flush_traces()
    run = MlflowClient().get_run(result.run_id)
    found = MlflowClient().search_traces(experiment_ids=[side.experiment_id])
    values = sorted((a.name, str(a.value)) for trace in found for a in trace.info.assessments)
    return result.metrics, run.data.metrics, run.info.status, len(found), values


@scenario(lambda: takes(mlflow.log_metric, "synchronous"))
def asynchronous_logging(side):
    with mlflow.start_run(run_name="r") as run:
        operations = (
            [mlflow.log_metric("m", n, step=n, timestamp=n, synchronous=False) for n in range(20)]
            if takes(mlflow.log_metric, "timestamp")
            else [mlflow.log_metric("m", n, step=n, synchronous=False) for n in range(20)]
        )
        operations.append(mlflow.log_params({"a": 1, "b": 2}, synchronous=False))
        operations.append(mlflow.set_tag("t", "v", synchronous=False) if takes(mlflow.set_tag, "synchronous") else None)
        for operation in filter(None, operations):
            operation.wait()
        bad = mlflow.log_param("a", 2, synchronous=False)
        failed = outcome(bad.wait)
        if hasattr(mlflow, "flush_async_logging"):
            mlflow.flush_async_logging()
    run_id = run.info.run_id
    history = sorted((m.step, m.value) for m in MlflowClient().get_metric_history(run_id, "m"))
    facts = stored(run_id)["data"]
    facts["metrics"] = len(facts["metrics"])  # which of the points is the last one is the threads' to say
    return history, facts, failed[0] if failed else failed


@scenario(lambda: hasattr(mlflow, "enable_system_metrics_logging") and _importable("psutil"))
def system_metrics(side):
    mlflow.set_system_metrics_sampling_interval(0.1)
    mlflow.set_system_metrics_samples_before_logging(1)
    try:
        with mlflow.start_run(run_name="r", log_system_metrics=True) as run:
            time.sleep(1)
    finally:
        mlflow.set_system_metrics_sampling_interval(None)
        mlflow.set_system_metrics_samples_before_logging(None)
    return sorted(MlflowClient().get_run(run.info.run_id).data.metrics)


def _importable(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def flush_traces():
    with contextlib.suppress(Exception):  # nothing to flush where export is not asynchronous
        mlflow.flush_trace_async_logging()


def trace_facts(trace):
    info = trace.info
    tags = {key: value for key, value in info.tags.items() if key != "mlflow.trace.sizeBytes"}
    spans = [[s.name, str(s.span_type), s.inputs, s.outputs, str(s.status.status_code)] for s in trace.data.spans]
    return [str(getattr(info, "state", None) or info.status), sorted(tags), spans, len(trace.data.spans)]


@scenario(has("trace", "start_span"))
def tracing(side):
    @mlflow.trace(span_type="CHAIN", attributes={"k": "v"})
    def answer(question):
        with mlflow.start_span("look up") as span:
            span.set_inputs({"q": question})
            span.set_outputs([1, 2])
        if question == "bad":
            raise ValueError("no answer")
        return question.upper()

    with mlflow.start_run(run_name="r") as run:
        answer("why")
    with contextlib.suppress(ValueError):
        answer("bad")
    flush_traces()
    client = MlflowClient()
    traces = sorted(client.search_traces(experiment_ids=[side.experiment_id]), key=lambda t: t.info.timestamp_ms)
    ids = [getattr(t.info, "trace_id", None) or t.info.request_id for t in traces]
    client.set_trace_tag(ids[0], "mine", "yes")
    client.delete_trace_tag(ids[0], "mine")
    client.set_trace_tag(ids[0], "other", "yes")
    fetched = client.get_trace(ids[0])
    of_run = client.search_traces(
        experiment_ids=[side.experiment_id], filter_string=f"metadata.`mlflow.sourceRun` = '{run.info.run_id}'"
    )
    filtered = client.search_traces(experiment_ids=[side.experiment_id], filter_string="tags.other = 'yes'")
    deleted = client.delete_traces(
        side.experiment_id, **{"trace_ids" if takes(client.delete_traces, "trace_ids") else "request_ids": [ids[1]]}
    )
    left = len(client.search_traces(experiment_ids=[side.experiment_id]))
    frame = mlflow.search_traces(experiment_ids=[side.experiment_id])
    return (
        [trace_facts(t) for t in traces],
        trace_facts(fetched),
        [len(of_run), len(filtered), deleted, left],
        sorted(frame.columns),
    )


@scenario(has("log_feedback", "log_expectation", "start_span"))
def assessments(side):
    with mlflow.start_span("root") as span:
        span.set_outputs("x")
    flush_traces()
    (trace,) = MlflowClient().search_traces(experiment_ids=[side.experiment_id])
    trace_id = getattr(trace.info, "trace_id", None) or trace.info.request_id
    results = [
        outcome(lambda: mlflow.log_feedback(trace_id=trace_id, name="good", value=True, rationale="because").name),
        outcome(lambda: mlflow.log_expectation(trace_id=trace_id, name="is", value={"a": 1}).name),
        outcome(lambda: mlflow.log_feedback(trace_id=trace_id, name="score", value=0.5).name),
        outcome(lambda: mlflow.log_feedback(trace_id="tr-nothing", name="good", value=True).name),
    ]
    found = {a.name: a for a in MlflowClient().get_trace(trace_id).info.assessments or []}
    if "score" in found and hasattr(mlflow, "delete_assessment"):
        results.append(outcome(mlflow.delete_assessment, trace_id=trace_id, assessment_id=found["score"].assessment_id))
        results.append(
            outcome(
                lambda: (
                    mlflow.override_feedback(
                        trace_id=trace_id, assessment_id=found["good"].assessment_id, value=False
                    ).name
                )
            )
        )
    after = MlflowClient().get_trace(trace_id).info.assessments or []
    return results, sorted(
        [a.name, str(a.feedback and a.feedback.value), str(a.expectation and a.expectation.value), str(a.rationale)]
        for a in after
    )


def _prompts():
    genai = getattr(mlflow, "genai", None)
    return genai if hasattr(genai, "register_prompt") else mlflow


@scenario(lambda: hasattr(_prompts(), "register_prompt"))
def prompts(side):
    api = _prompts()

    def version(call, *args, **kwargs):
        found = outcome(call, *args, **kwargs)
        return found if found is None or isinstance(found, list) else [found.name, found.version, found.template]

    return [
        version(api.register_prompt, name="prompts", template="Say {{a}}", commit_message="first"),
        version(api.register_prompt, name="prompts", template="Tell {{a}}", tags={"k": "v"}),
        version(api.load_prompt, "prompts:/prompts/1"),
        outcome(api.set_prompt_alias, "prompts", alias="prod", version=2),
        version(api.load_prompt, "prompts:/prompts@prod"),
        outcome(api.delete_prompt_alias, "prompts", alias="prod"),
        version(api.load_prompt, "prompts:/prompts@prod"),
        version(api.load_prompt, "prompts:/none/1"),
    ]


@scenario(has("make_judge", of=getattr(mlflow, "genai", None)))
def scorers(side):
    from mlflow.genai.scorers import delete_scorer, get_scorer, list_scorers

    def custom():
        @mlflow.genai.scorer
        def length(outputs):
            return len(outputs)

        return length.register(name="length").name

    def judge(text):
        made = mlflow.genai.make_judge(name="polite", instructions=text, model="openai:/none")
        return made.register().name

    return [
        outcome(judge, "Is {{ outputs }} polite?"),
        outcome(judge, "Is {{ outputs }} really polite?"),
        outcome(custom),
        outcome(lambda: sorted(s.name for s in list_scorers())),
        outcome(lambda: get_scorer(name="polite", version=1).instructions),
        outcome(lambda: get_scorer(name="polite").instructions),
        outcome(delete_scorer, name="polite", version="all"),
        outcome(lambda: sorted(s.name for s in list_scorers())),
        outcome(lambda: get_scorer(name="polite").name),
    ]


@scenario(has("list_workspaces"))
def workspaces(side):
    return [
        outcome(lambda: [w.name for w in mlflow.list_workspaces()]),
        outcome(lambda: mlflow.get_workspace("default").name),
        outcome(lambda: mlflow.get_workspace("nothing").name),
        outcome(lambda: mlflow.create_workspace("team-a").name),
    ]


@scenario()
def explicit_clients(side):
    mlflow.set_tracking_uri("sqlite:///never-touched.db")
    try:
        client = MlflowClient(tracking_uri=side.uri)
        run = client.create_run(side.experiment_id, run_name="r", tags={"t": "v"})
        client.log_param(run.info.run_id, "p", 1)
        # Older MLflows look for a server's artifacts where the process' own tracking URI points, and raise.
        text = outcome(client.log_text, run.info.run_id, "text", "a.txt")
        client.set_terminated(run.info.run_id, "FAILED")
        listed = outcome(lambda: [f.path for f in client.list_artifacts(run.info.run_id)])
        client.create_registered_model("explicit_clients")
        models = [m.name for m in client.search_registered_models("name = 'explicit_clients'")]
        found = client.get_run(run.info.run_id).to_dictionary()
    finally:
        mlflow.set_tracking_uri(side.uri)
    return text, listed, models, found, Path("never-touched.db").exists()


@scenario()
def unknown_things(side):
    client = MlflowClient()
    nothing = "0" * 32
    return [
        outcome(client.get_run, nothing),
        outcome(client.get_run, "no id"),
        outcome(client.log_metric, nothing, "m", 1),
        outcome(client.log_param, nothing, "p", 1),
        outcome(client.set_tag, nothing, "t", 1),
        outcome(client.log_batch, nothing, [Metric("m", 1, 0, 0)]),
        outcome(client.set_terminated, nothing),
        outcome(client.set_terminated, nothing, "NONSENSE"),
        outcome(client.delete_run, nothing),
        outcome(client.get_metric_history, nothing, "m"),
        outcome(client.list_artifacts, nothing),
        outcome(client.search_experiments, filter_string="nonsense"),
        outcome(client.create_experiment, ""),
        outcome(client.get_experiment_by_name, "unknown_things_not"),
        outcome(lambda: mlflow.set_experiment(experiment_id="123456")),
        outcome(lambda: mlflow.MlflowClient().no_such_method),
    ]


@scenario()
def printed_by_mlflow(side):
    """The lines with links to the run, which MLflow prints where the store is a server."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), mlflow.start_run(run_name="r"):
        pass
    return text.getvalue(), type(_get_store(side.uri)).__mro__[-1].__name__, isinstance(mlflow.get_tracking_uri(), str)


# In other processes


@scenario()
def a_child_process_that_leaves_its_run_open(side):
    asynchronous = ", synchronous=False" if takes(mlflow.log_metric, "synchronous") else ""
    code = (
        "import mlflow\n"
        "run = mlflow.start_run(run_name='child')\n"
        f"for n in range(10): mlflow.log_metric('m', n, step=n{asynchronous})\n"
        "mlflow.log_param('p', '100%')\n"
        "mlflow.log_text('x', 'a.txt')\n"
        "print(run.info.run_id)\n"
    )
    code, printed = side.python("-c", code)
    run_id = printed.split()[0]
    history = sorted((m.step, m.value) for m in MlflowClient().get_metric_history(run_id, "m"))
    facts = stored(run_id)
    return code, history, facts["info"], facts["data"]["params"], facts["data"]["tags"]


@scenario()
def projects(side):
    project = side.folder / "project"
    project.mkdir()
    (project / "train.py").write_text("import mlflow, sys\nmlflow.log_metric('m', float(sys.argv[1]))\n")
    (project / "MLproject").write_text(
        "name: p\nentry_points:\n  main:\n    parameters:\n      x: {type: float, default: 1}\n"
        f"    command: '{sys.executable} train.py {{x}}'\n"
    )
    submitted = mlflow.projects.run(
        str(project), parameters={"x": 0.25}, env_manager="local", experiment_name=side.experiment, run_name="r"
    )
    facts = stored(submitted.run_id)
    return submitted.get_status(), facts["info"]["status"], facts["data"]


@scenario()
def the_command_line(side):
    client = MlflowClient()
    run = client.create_run(side.experiment_id, start_time=1_000, run_name="r")
    wide = {"COLUMNS": "300"}
    return [
        side.python("-m", "mlflow", "experiments", "search", **wide),
        side.python("-m", "mlflow", "runs", "list", "--experiment-id", side.experiment_id, **wide),
        side.python("-m", "mlflow", "runs", "delete", "--run-id", run.info.run_id, **wide),
    ], stored(run.info.run_id)


# ------------------------------------------------------------------------------------------------ comparison

_ID = re.compile(
    r"(?<![0-9A-Za-z])(?:(?:m|tr|a|as|d|s)-)?"
    r"(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16}|\d{17,19})(?![0-9a-f])"
)
_REPLACED = [
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?"), "<time>"),
    (re.compile(r"\b1[6-9]\d{11}(\d{6})?\b"), "<time>"),
    (re.compile(r"(model_size_bytes\D+)\d+"), r"\1<size>"),
    (re.compile(r"0x[0-9a-f]{6,}"), "<address>"),
    (re.compile(r"\bport=\d+"), "port=<port>"),
    (re.compile(r"\b[a-z]+-[a-z]+-\d{1,3}\b"), "<random name>"),
    (re.compile(r"(/tmp|/var|/private)/[^ '\"]*?/tmp\w{8}\b"), "<temporary>"),
]


class Normal:
    """Ids, times and places of one side by neutral names: ids are numbered in the order in which they appear."""

    def __init__(self, side: Side, inner: str) -> None:
        self._places = [(side.uri, "<store>"), (inner, "<store>"), (str(side.folder), "<folder>")]
        self._ids: dict[str, str] = {}
        number = re.escape(side.experiment_id)
        self._experiment = re.compile(
            rf"(?<=/){number}(?=/)|^{number}$|(?<='){number}(?=')|(?<=[:=]){number}\b|(?<=experiments/){number}\b"
        )

    def __call__(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        if isinstance(value, float) and math.isnan(value):
            return "nan"
        if isinstance(value, int | float) and 1e12 < value < 1e17:
            return "<time>"
        if isinstance(value, bool | int | float | None):
            return value
        return (
            self._text(value)
            if isinstance(value, str)
            else [type(value).__name__, self(getattr(value, "__dict__", str(value)))]
        )

    def _text(self, text: str) -> str:
        for place, name in self._places:
            text = text.replace(place, name)
        text = self._experiment.sub("<experiment>", text)
        for pattern, name in _REPLACED:
            text = pattern.sub(name, text)
        return _ID.sub(lambda match: self._ids.setdefault(match[0], f"<id {len(self._ids)}>"), text)


def census(store: Path) -> Counter[str]:
    """How many rows each table of an SQLite store has, or how many files of each name stand in a folder."""
    if store.is_dir():
        return Counter(path.name for path in store.rglob("*") if path.is_file() and not _ID.search(path.name))
    with contextlib.closing(sqlite3.connect(store)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return Counter({name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names})


def perform(name: str, side: Side, inner: str, store: Path) -> tuple[Any, dict[str, int], Exception | None]:
    """Run a scenario on one side; returns what it observed, what it has added to the store, and what it raised."""
    result, raised = None, None
    os.chdir(side.folder)  # before MLflow builds the store, whose artifacts stand in the working directory
    assert (type(_get_store(side.uri)) is DatabandStore) is (side.uri != inner)
    mlflow.set_tracking_uri(side.uri)
    before = census(store)
    try:
        side.experiment_id = mlflow.set_experiment(side.experiment).experiment_id
        result = SCENARIOS[name](side)
    except Exception as error:  # noqa: BLE001  the other side runs all the same: servers are shared, and stay equal
        raised = error
    finally:
        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.set_tracking_uri(None)
        fluent._active_experiment_id = None
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        os.environ.pop("MLFLOW_RUN_ID", None)
    added = census(store)
    added.subtract(before)
    counted = added.keys() - UNCOUNTED.get(name, set())
    return Normal(side, inner)(result), {key: added[key] for key in sorted(counted) if added[key]}, raised


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store of this MLflow without anything in it, to be copied: making one takes seconds."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path = tmp_path_factory.mktemp("empty") / "store.db"
    SqlAlchemyStore(f"sqlite:///{path}", str(path.parent / "never")).engine.dispose()
    return path


class Servers:
    """Two ``mlflow server`` processes over equal stores, started when the first scenario asks for them."""

    def __init__(self, folder: Path, empty: Path) -> None:
        self._folder = folder
        self._empty = empty
        self._processes: list[subprocess.Popen[bytes]] = []
        self.urls: dict[str, str] = {}
        self.stores: dict[str, Path] = {}

    def start(self) -> None:
        if self._processes:
            return
        for side in ("a", "b"):
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                port = sock.getsockname()[1]
            folder = self._folder / side
            folder.mkdir()
            self.stores[side] = folder / "store.db"
            shutil.copy(self._empty, self.stores[side])
            command = [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--workers", "1", "--backend-store-uri", f"sqlite:///{self.stores[side]}"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ]
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    cwd=folder,
                    start_new_session=True,
                    env={
                        **os.environ,
                        "PYTHONHASHSEED": "0",  # MLflow prints sets in its messages
                        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a dozen processes that nobody needs
                    },
                )
            self._processes.append(process)
            self.urls[side] = f"http://127.0.0.1:{port}"
        for side, process in zip("ab", self._processes, strict=True):
            self._wait(f"{self.urls[side]}/health", process, self._folder / side / "log")

    def _wait(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=5).read()
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
            else:
                return
        pytest.fail(f"{url} does not answer:\n{log.read_text(errors='replace')}")

    def stop(self) -> None:
        for process in self._processes:
            os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Servers]:
    made = Servers(tmp_path_factory.mktemp("servers"), empty_store)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    # A process has one client for each URL. Another test's dead tracker may have had the same port: it would still be
    # waiting for its next attempt, and its journal stands elsewhere.
    monkeypatch.setattr("dbnd._tracking.client._by_url", {})
    monkeypatch.setenv("DBND__CORE__FLUSH_TIMEOUT", "0")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS", "true")  # which MLflow asks for without an http URI


@pytest.fixture
def compare(tmp_path: Path, empty_store: Path, servers: Servers, monkeypatch: pytest.MonkeyPatch):
    """Run a scenario on both sides and compare."""

    def store_of(kind: str, side: str) -> tuple[str, Path]:
        folder = tmp_path / side
        folder.mkdir()
        if kind == "http":
            servers.start()
            return servers.urls[side], servers.stores[side]
        if kind == "file":
            monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
            (folder / "mlruns").mkdir()
            return (folder / "mlruns").as_uri(), folder / "mlruns"
        path = folder / "store.db"
        shutil.copy(empty_store, path)
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("UPDATE experiments SET artifact_location = ?", (str(folder / "mlruns/0"),))
            database.commit()
        return f"sqlite:///{path}", path

    def run(name: str, kind: str, tracker_url: str) -> None:
        if not NEEDS[name]():
            pytest.skip("this MLflow does not have it")
        results = []
        for side in ("a", "b"):
            inner, store = store_of(kind, side)
            uri = inner if side == "a" else build_composite_uri(tracker_url, inner)
            results.append(perform(name, Side(uri, tmp_path / side, name), inner, store))
        (plain_result, plain_rows, plain_error), (dual_result, dual_rows, dual_error) = results
        for error in (plain_error, dual_error):
            if error is not None:
                raise error
        assert json.loads(json.dumps(dual_result)) == json.loads(json.dumps(plain_result))
        assert dual_rows == plain_rows

    return run


@pytest.mark.parametrize("kind", ["sqlite", "file", "http"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_composite_uri_changes_nothing(name, kind, compare, tracker_url):
    compare(name, kind, tracker_url)


class _Troubled(BaseHTTPRequestHandler):
    """A tracker that is up and of no use, in the way of its server."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.server.kind  # type: ignore[attr-defined]
        self.server.asked.set()  # type: ignore[attr-defined]
        if kind == "hanging":
            self.server.ended.wait(30)  # type: ignore[attr-defined]
            self.close_connection = True
            return
        if kind == "garbage":
            self.wfile.write(b"\x00\xff no HTTP at all \r\n\r\n" * 50)
            self.close_connection = True
            return
        body = b"<html>Internal error" if kind == "500" else b"\x1f\x8b garbage"
        self.send_response(500 if kind == "500" else 200)
        self.send_header("Content-Type", "application/json")
        if kind == "garbled":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815  the name that http.server looks for

    def log_message(self, *args: object) -> None:
        """Not on the console."""


@pytest.fixture(params=["hanging", "500", "garbage", "garbled"])
def troubled(request: pytest.FixtureRequest) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Troubled)
    server.kind = request.param
    server.asked = threading.Event()
    server.ended = threading.Event()
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


# A tracker that refuses connections is what every scenario above has.
@pytest.mark.parametrize("name", ["fluent_logging", "asynchronous_logging", "a_child_process_that_leaves_its_run_open"])
def test_a_troubled_tracker_changes_nothing(name, compare, troubled):
    compare(name, "sqlite", f"http://127.0.0.1:{troubled.server_address[1]}")
    assert troubled.asked.wait(20)
