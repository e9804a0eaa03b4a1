from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _get_store

from dbnd_mlflow import build_composite_uri


@pytest.fixture
def inner(store):
    return object.__getattribute__(store, "_databand_inner")


@pytest.fixture
def run(store):
    experiment = store.create_experiment("e", None, [])
    return store.create_run(experiment, "user", 1_700_000_000_000, [RunTag("t", "v")], "name")


def test_exceptions_are_those_of_the_inner_store(store, inner):
    for target in (store, inner):
        with pytest.raises(MlflowException, match="Run with id=nothing not found"):
            target.log_metric("nothing", Metric("a", 1, 0, 0))


def test_a_failing_write_is_not_reported(store, journalled):
    with contextlib.suppress(MlflowException):
        store.log_metric("nothing", Metric("a", 1, 0, 0))
    assert journalled() == []


@pytest.mark.parametrize(
    "call",
    [
        lambda store, run_id: store.log_batch(run_id, [Metric("m", 1, 5, 2)], [Param("p", "1e-3")], [RunTag("t", "x")]),
        lambda store, run_id: store.log_batch(
            run_id=run_id, metrics=[Metric("m", 1, 5, 2)], params=[Param("p", "1e-3")], tags=[RunTag("t", "x")]
        ),
        lambda store, run_id: store.log_batch(
            run_id, [Metric("m", 1, 5, 2)], tags=[RunTag("t", "x")], params=[Param("p", "1e-3")]
        ),
    ],
)
def test_positional_and_keyword_calls_are_reported_alike_in_one_event(store, run, journalled, call):
    before = len(journalled())
    call(store, run.info.run_id)
    ((name, body),) = journalled()[before:]
    assert name == "log_metrics"
    elements = [(e["source"], e["metric"]["key"], e["metric"]["value"]) for e in body["metrics_info"]]
    assert elements == [("mlflow", "m", 1), ("mlflow.param", "p", "1e-3"), ("mlflow.tag", "t", "x")]
    metric = body["metrics_info"][0]["metric"]
    assert metric["step"] == 2
    assert metric["timestamp"] == "1970-01-01T00:00:00.005000+00:00"


def test_a_thousand_metrics_in_a_batch_are_one_event(store, run, journalled):
    before = len(journalled())
    store.log_batch(run.info.run_id, [Metric(f"m{n}", n, n, n) for n in range(1000)], [], [])
    ((_, body),) = journalled()[before:]
    assert len(body["metrics_info"]) == 1000


def test_long_params_stand_whole_beside_the_cut_one(store, run, journalled):
    text = "y" * 5_800
    store.log_param(run.info.run_id, Param("long", text))
    metric = journalled()[-1][1]["metrics_info"][0]["metric"]
    assert metric["text"] == text
    assert len(metric["value_str"]) == 5_000


def test_asynchronous_logging_is_reported(uri, run, journalled):
    client = MlflowClient(tracking_uri=uri)
    operation = client.log_metric(run.info.run_id, "later", 1.5, synchronous=False)
    operation.wait()
    keys = [m["metric"]["key"] for call, b in journalled() if call == "log_metrics" for m in b["metrics_info"]]
    assert keys.count("later") == 1
    store = _get_store(uri)
    if hasattr(store, "shut_down_async_logging"):
        store.shut_down_async_logging()


def test_racing_threads_build_one_store(uri):
    barrier = threading.Barrier(8)

    def touch(_):
        barrier.wait()
        return _get_store(uri)

    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(touch, range(8)))
    assert len({id(store) for store in stores}) == 1


def test_a_bad_inner_uri_fails_as_it_does_natively(tracker_url):
    uri = build_composite_uri(tracker_url, "nonsense://x")
    with pytest.raises(MlflowException, match="unsupported URI 'nonsense://x'"):
        MlflowClient(tracking_uri=uri).search_experiments()


def test_trouble_of_ours_never_reaches_mlflow(store, run, capsys):
    with mock.patch("dbnd_mlflow._reporting.reporter.point", side_effect=RuntimeError("ours")):
        store.log_metric(run.info.run_id, Metric("m", 1, 5, 2))
    assert store.get_run(run.info.run_id).data.metrics == {"m": 1}
    said = capsys.readouterr().err
    assert "A call of MLflow (log_metric) could not be reported" in said
    assert "RuntimeError: ours" in said


def test_mlflow_works_beside_a_broken_configuration_file(python, inner_uri, home):
    (home / "dbnd").mkdir()
    (home / "dbnd/databand.cfg").write_text("this is no configuration\n")
    done = python(f"import mlflow; mlflow.set_tracking_uri({inner_uri!r}); mlflow.search_experiments()")
    assert done.returncode == 0, done.stderr


def test_the_model_registry_works_under_the_composite_uri(uri):
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    client.create_registered_model("m")
    assert [model.name for model in client.search_registered_models()] == ["m"]
