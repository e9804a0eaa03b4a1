"""Each write is reported exactly once, whoever makes it: fluent calls, clients, threads, the asynchronous queue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pytest
from kit.reports import calls, log_small_model, points
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd_mlflow import build_composite_uri

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("unflushed")]


def dataset_input(name="d", digest="1"):
    dataset = Dataset(name, digest, "code", '{"uri": "s3://b/x"}')
    return DatasetInput(dataset, [])


def test_each_write_is_reported_exactly_once(any_inner, tracker_url, journalled):
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, any_inner))
    mlflow.set_experiment("once")
    client = MlflowClient()
    with mlflow.start_run(run_name="r", tags={"at_start": "1"}) as run:
        run_id = run.info.run_id
        mlflow.log_metric("fluent", 1, step=1)
        mlflow.log_metrics({"fluent_a": 1, "fluent_b": 2}, step=2)
        mlflow.log_param("fluent_p", 1)
        mlflow.log_params({"fluent_q": 1, "fluent_r": 2})
        mlflow.set_tag("fluent_t", 1)
        mlflow.set_tags({"fluent_u": 1, "fluent_v": 2})
        mlflow.log_input(mlflow.data.from_numpy(np.ones(3), name="numbers"))
        client.log_metric(run_id, "client", 1, step=3)
        client.log_param(run_id, "client_p", 1)
        client.set_tag(run_id, "client_t", 1)
        client.log_batch(run_id, [Metric("batch", 1, 5, 4)], [Param("batch_p", "1")], [RunTag("batch_t", "1")])
        client.log_inputs(run_id, [dataset_input()])
        client.update_run(run_id, status="RUNNING")
    events = journalled()
    expected = {
        **{("mlflow", key, step): 1 for key, step in [("fluent", 1), ("fluent_a", 2), ("fluent_b", 2)]},
        **{("mlflow", key, step): 1 for key, step in [("client", 3), ("batch", 4)]},
        **{("mlflow.param", f"fluent_{key}", None): 1 for key in "pqr"},
        **{("mlflow.param", key, None): 1 for key in ("client_p", "batch_p")},
        **{("mlflow.tag", f"fluent_{key}", None): 1 for key in "tuv"},
        **{("mlflow.tag", key, None): 1 for key in ("client_t", "batch_t", "at_start")},
    }
    found = {key: count for key, count in points(events).items() if not key[1].startswith("mlflow.")}
    assert found == expected
    assert {count for key, count in points(events).items() if key[1].startswith("mlflow.")} == {1}
    counted = calls(events)
    assert counted["init_run"] == 1
    assert counted["save_external_links"] == 1
    assert counted["log_datasets"] == 2
    assert counted["set_run_state"] == 1
    updates = [u for c, b in events if c == "update_task_run_attempts" for u in b["task_run_attempt_updates"]]
    assert [u["state"] for u in updates] == ["RUNNING", "RUNNING", "SUCCESS"]


def test_a_client_run_is_announced_and_ended_once(any_inner, tracker_url, journalled):
    client = MlflowClient(tracking_uri=build_composite_uri(tracker_url, any_inner))
    experiment_id = client.create_experiment("once")
    run = client.create_run(experiment_id, run_name="r")
    client.set_terminated(run.info.run_id, "KILLED")
    counted = calls(journalled())
    assert (counted["init_run"], counted["set_run_state"]) == (1, 1)
    assert [b["state"] for c, b in journalled() if c == "set_run_state"] == ["CANCELLED"]


def test_asynchronous_points_are_reported_exactly_once(any_inner, tracker_url, journalled):
    uri = build_composite_uri(tracker_url, any_inner)
    client = MlflowClient(tracking_uri=uri)
    run_id = client.create_run(client.create_experiment("asynchronous")).info.run_id
    operations = [client.log_metric(run_id, "m", n, step=n, synchronous=False) for n in range(50)]
    operations.append(client.log_param(run_id, "p", 1, synchronous=False))
    for operation in operations:
        operation.wait()
    found = points(journalled())
    assert {key: count for key, count in found.items() if key[0] == "mlflow"} == {
        ("mlflow", "m", n): 1 for n in range(50)
    }
    assert found["mlflow.param", "p", None] == 1


def test_asynchronous_points_are_reported_at_exit(python, tracker_url, inner_uri, journalled):
    code = (
        "import mlflow\n"
        "mlflow.start_run(run_name='open')\n"
        "for n in range(30): mlflow.log_metric('m', n, step=n, synchronous=False)\n"
    )
    done = python(code, MLFLOW_TRACKING_URI=build_composite_uri(tracker_url, inner_uri))
    assert done.returncode == 0, done.stderr
    reported = sorted(step for (source, _, step), _ in points(journalled()).items() if source == "mlflow")
    (run,) = MlflowClient(tracking_uri=inner_uri).search_runs(["0"])
    stored = [m.step for m in MlflowClient(tracking_uri=inner_uri).get_metric_history(run.info.run_id, "m")]
    assert reported == sorted(stored)
    assert [b["state"] for c, b in journalled() if c == "set_run_state"] == ["SUCCESS"]


def test_threads_that_write_into_several_runs_keep_them_apart(tracker_url, inner_uri, journalled):
    client = MlflowClient(tracking_uri=build_composite_uri(tracker_url, inner_uri))
    runs = [client.create_run("0", run_name=f"r{n}").info.run_id for n in range(4)]

    def write(number):
        for step in range(25):
            client.log_metric(runs[(number + step) % 4], f"t{number}", (number + step) % 4, step=step)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    events = journalled()
    attempts = {
        t["task_run_attempt_uid"]: t["name"]
        for c, b in events
        if c == "init_run"
        for t in b["init_args"]["task_runs_info"]["task_runs"]
    }
    elements = [e for c, b in events if c == "log_metrics" for e in b["metrics_info"] if e["source"] == "mlflow"]
    assert len(elements) == 100
    assert all(attempts[e["task_run_attempt_uid"]] == f"r{e['metric']['value']:.0f}" for e in elements)
    assert {count for key, count in points(events).items() if key[0] == "mlflow"} == {1}


def test_many_inputs_are_one_reading_each(tracker_url, inner_uri, journalled):
    """MLflow 3.1 logs the inputs again with every metric when a model is active."""
    store = _get_store(build_composite_uri(tracker_url, inner_uri))
    run_id = store.create_run("0", "u", 0, [], "r").info.run_id
    for number in range(300):
        store.log_inputs(run_id, [dataset_input(digest=str(number % 2))])
    assert calls(journalled())["log_datasets"] == 2


def test_points_of_a_model_are_reported_once(tracker_url, inner_uri, journalled):
    if not hasattr(mlflow, "initialize_logged_model"):
        pytest.skip("this MLflow has no LoggedModels")
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, inner_uri))
    model = mlflow.initialize_logged_model(name="external")
    dataset = mlflow.data.from_numpy(np.ones(3), name="numbers")
    with mlflow.start_run(run_name="r"):
        for step in range(20):
            mlflow.log_metric("m", 1, step=step, model_id=model.model_id, dataset=dataset)
    events = journalled()
    assert {count for key, count in points(events).items() if key[0] == "mlflow"} == {1}
    assert sum(key[0] == "mlflow" for key in points(events)) == 20


def test_a_logged_model_is_reported_where_it_stands(tracker_url, inner_uri, journalled):
    mlflow.set_tracking_uri(build_composite_uri(tracker_url, inner_uri))
    with mlflow.start_run(run_name="r"):
        log_small_model("m")
    places = {body["name"]: body["path"] for call, body in journalled() if call == "log_artifact"}
    folder = Path(places["model:m"].removeprefix("file://"))
    assert (folder / "MLmodel").is_file()
