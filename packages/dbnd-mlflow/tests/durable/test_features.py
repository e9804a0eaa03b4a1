"""What else of MLflow a training uses, while its server is away and comes back."""

from __future__ import annotations

import time

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dbnd_mlflow._durable.ids import is_own
from dbnd_mlflow._durable.store import outboxes


def settle() -> None:
    """Deliver everything."""
    for outbox in outboxes():
        assert outbox.flush(60), outbox.trouble
        assert (outbox.refused, outbox.dropped) == (0, 0)


@pytest.fixture(autouse=True)
def _tracked(track, proxy, writes):
    track(proxy.url, writes)


@pytest.fixture
def model():
    linear = pytest.importorskip("sklearn.linear_model")
    return linear.LinearRegression()


@pytest.mark.parametrize("log_models", [False, True], ids=["no-model", "model"])
def test_autolog_fits_in_an_outage(proxy, server, model, log_models):
    """A model needs the server, and MLflow's autologging gives up what comes after it."""
    mlflow.sklearn.autolog(log_models=log_models, silent=True)
    try:
        proxy.refuse()
        with mlflow.start_run(run_name="fit") as run:
            model.fit([[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0])
    finally:
        mlflow.sklearn.autolog(disable=True)
    seen = mlflow.get_run(run.info.run_id)
    assert (seen.info.status, seen.info.run_name) == ("FINISHED", "fit")
    proxy.listen()
    settle()
    (found,) = server.search_runs(["0"])
    assert found.data.params["fit_intercept"] == "True"
    assert log_models or "training_score" in found.data.metrics
    assert (found.info.run_name, found.info.status) == ("fit", "FINISHED")


def test_a_model_is_whole_when_it_is_said_to_be(server, model):
    model.fit([[1.0], [2.0]], [1.0, 2.0])
    with mlflow.start_run() as run:
        logged = mlflow.sklearn.log_model(model, name="model")
        loaded = mlflow.pyfunc.load_model(logged.model_uri)
    assert loaded.predict([[3.0]])[0] == pytest.approx(3)
    settle()
    if hasattr(server, "get_logged_model"):
        found = server.get_logged_model(logged.model_id)
        assert found.status == "READY"
        assert found.source_run_id == run.info.run_id
        assert [each.model_id for each in server.get_run(run.info.run_id).outputs.model_outputs] == [logged.model_id]


def test_asynchronous_logging(proxy, server):
    with mlflow.start_run() as run:
        for step in range(50):
            if step == 10:
                proxy.refuse()
            mlflow.log_metric("m", step, step=step, synchronous=False)
            mlflow.log_param(f"p{step}", step, synchronous=False)
        mlflow.flush_async_logging()
        proxy.listen()
    settle()
    assert sorted(m.step for m in server.get_metric_history(run.info.run_id, "m")) == list(range(50))
    assert len(server.get_run(run.info.run_id).data.params) == 50


def test_system_metrics_are_logged_to_the_end(proxy, server):
    pytest.importorskip("psutil")
    with mlflow.start_run(log_system_metrics=True) as run:
        mlflow.log_metric("m", 1)
        proxy.refuse()
        time.sleep(0.1)
    proxy.listen()
    settle()
    assert server.get_run(run.info.run_id).info.status == "FINISHED"


def test_a_run_that_fails_in_an_outage_has_failed(proxy, server):
    proxy.refuse()
    with pytest.raises(ValueError, match="mine"), mlflow.start_run() as run:
        mlflow.log_metric("m", 1)
        raise ValueError("mine")
    assert mlflow.get_run(run.info.run_id).info.status == "FAILED"
    proxy.listen()
    settle()
    (found,) = server.search_runs(["0"])
    assert (found.info.status, found.data.metrics) == ("FAILED", {"m": 1})


def test_runs_are_deleted_restored_and_found_after_what_waits_for_them(proxy, server):
    client = MlflowClient()
    proxy.refuse()
    with mlflow.start_run() as run:
        mlflow.log_metric("m", 1)
    first = run.info.run_id
    assert is_own(first)
    with pytest.raises(MlflowException):
        client.delete_run(first)
    assert client.get_run(first).data.metrics == {"m": 1}
    proxy.listen()
    client.delete_run(first)
    (found,) = server.search_runs(["0"], run_view_type=2)
    assert found.data.metrics == {"m": 1}
    assert client.get_run(first).info.lifecycle_stage == "deleted"
    with pytest.raises(MlflowException, match="active"):
        client.log_metric(first, "m", 2)
        settle()
    client.restore_run(first)
    client.log_metric(first, "m", 3)
    settle()
    assert server.get_run(found.info.run_id).data.metrics == {"m": 3}
    assert [run.info.run_id for run in client.search_runs(["0"], f"attributes.run_id = '{first}'")] == [
        found.info.run_id
    ]


def test_a_run_that_another_process_has_restored_takes_points_again(server):
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    client.delete_run(run_id)
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    server.restore_run(run_id)
    client.log_metric(run_id, "m", 1)
    settle()
    assert server.get_run(run_id).data.metrics == {"m": 1}


@pytest.mark.skipif(not hasattr(mlflow, "trace"), reason="this MLflow has no traces")
def test_traces_in_an_outage_disturb_nothing(proxy, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    @mlflow.trace
    def answer(question: str) -> str:
        return question.upper()

    proxy.refuse()
    with mlflow.start_run() as run:
        assert answer("a") == "A"
        mlflow.log_metric("m", 1)
    proxy.listen()
    settle()
    (found,) = server.search_runs(["0"])
    assert found.data.metrics == {"m": 1}
    assert mlflow.get_run(run.info.run_id).info.run_id == found.info.run_id


def test_an_outer_run_is_remembered_however_many_are_nested_in_it(proxy, monkeypatch):
    monkeypatch.setattr("dbnd_mlflow._durable.view._MAX_VIEWS", 10)
    proxy.refuse()
    with mlflow.start_run(run_name="outer") as outer:
        for n in range(30):
            with mlflow.start_run(nested=True):
                mlflow.log_metric("m", n)
            mlflow.log_metric("done", n, step=n)
        assert mlflow.get_run(outer.info.run_id).data.metrics == {"done": 29}
    proxy.listen()
    settle()
