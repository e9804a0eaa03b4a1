"""Scenarios about runs: begun, nested, failed, reopened, deleted, and asked for where there are none."""

from __future__ import annotations

import contextlib
import io
from decimal import Decimal
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.tracking._tracking_service.utils import _get_store

from parity.scenario import outcome, scenario, stored


@scenario()
def fluent_logging(side):
    with mlflow.start_run(run_name="one", description="a note", tags={"at": "start"}) as run:
        mlflow.log_param("lr", 0.001)
        mlflow.log_params({"a": 1, "b": None, "c": [1, 2]})
        mlflow.log_metric("loss", 0.5)
        mlflow.log_metric("loss", 0.25, step=7)
        mlflow.log_metrics({"x": 1, "y": Decimal("0.5")}, step=3)
        mlflow.set_tag("t", "v")
        mlflow.set_tags({"u": 1, "w": "x" * 4_000})
        active = mlflow.active_run().info.run_id == run.info.run_id
    last = mlflow.last_active_run().info.run_id == run.info.run_id
    return active, last, mlflow.active_run(), stored(run.info.run_id)


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
